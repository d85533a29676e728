"""Hessian-vector products at a tap: against the gradient there, nested compiled tapes, and samples one at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

import gradtap as gt
from benchmarks import models, timing, values

K, SAMPLES = 3, 100
layers = keras.layers
Call = Callable[[], Any]


def run(turn: int = 0, quick: bool = False) -> dict[str, Any]:
    pairs = []
    for name, (make, tap, shape, rounds) in CASES.items():
        pairs += _products(name, make(), tap, models.images(*shape), 3 if quick else rounds, turn)
    pairs += _together(2 if quick else 6, turn)
    return {"pairs": pairs}


def _products(name: str, model: keras.Model, tap: str, x: tf.Tensor, rounds: int, turn: int) -> list[dict[str, Any]]:
    """A product against the gradient at the same tap, and against both ways to write it by hand."""
    split = keras.Model(model.inputs, model.get_layer(tap).output)
    rest = keras.Model(model.get_layer(tap).output, model.outputs[0])
    v = tf.random.stateless_normal(split(x).shape, [0, models.SEED])
    over_reverse, over_forward = tf.function(_reverse_over_reverse(split, rest)), tf.function(_forward(split, rest))
    free = [tf.TensorSpec((None, *tensor.shape[1:])) for tensor in (x, v)]
    any_batch = tf.function(_reverse_over_reverse(split, rest), input_signature=free)
    calls: dict[str, Call] = {
        "hvp": lambda: gt.hvp(model, x, v, target=K, at=tap).only,
        "gradient": lambda: gt.gradients(model, x, target=K, at=tap).only,
        "reverse": lambda: over_reverse(x, v),
        "forward": lambda: over_forward(x, v),
        "any batch": lambda: any_batch(x, v),
        "again": lambda: over_reverse(x, v),
    }
    seconds = timing.interleave(calls, rounds, turn)
    found = {way: calls[way]() for way in ("hvp", "reverse", "forward")}
    of = {way: values.difference(found["hvp"], found[way]) for way in ("reverse", "forward")}
    of["any batch"] = values.difference(found["hvp"], calls["any batch"]())
    hvp = seconds["hvp"]
    return [
        timing.pair(f"{name}: hvp / gradient at the same tap", hvp, seconds["gradient"], limit=3.0),
        timing.pair(
            f"{name}: hvp / reverse over reverse", hvp, seconds["reverse"], limit=1.1, difference=of["reverse"]
        ),
        timing.pair(
            f"{name}: hvp / forward over reverse", hvp, seconds["forward"], limit=1.1, difference=of["forward"]
        ),
        timing.pair(
            f"{name}: hvp / reverse over reverse for any batch size",
            hvp,
            seconds["any batch"],
            limit=1.1,
            difference=of["any batch"],
        ),
        timing.pair(f"{name}: reverse over reverse / the same: noise", seconds["again"], seconds["reverse"]),
    ]


def _together(rounds: int, turn: int) -> list[dict[str, Any]]:
    """Samples and examples that run together, against one at a time."""
    model, x = _small(), models.images(4, 16, 16, 3)
    ask = {"target": K, "at": "conv1"}
    split, rest = (keras.Model(*ends) for ends in _ends(model, "conv1"))
    hand = tf.function(_reverse_over_reverse(split, rest))
    signs = 2.0 * tf.cast(tf.random.stateless_uniform((SAMPLES, *split(x).shape), [0, 1]) < 0.5, tf.float32) - 1.0

    def trace(**more: Any) -> tf.Tensor:
        return gt.curvature.trace_estimate(model, x, **ask, samples=SAMPLES, seed=0, **more).only

    def top(rows: tf.Tensor) -> tf.Tensor:
        return gt.curvature.top_eigenpairs(model, rows, **ask, tolerance=1e-3).eigenvalues.only

    calls: dict[str, Call] = {
        "batched": trace,
        "looped": lambda: trace(batch_size=len(x)),
        "hand": lambda: [tf.reduce_sum(v * hand(x, v), [1, 2, 3]) for v in signs],
        "together": lambda: top(x),
        "apart": lambda: tf.concat([top(x[n : n + 1]) for n in range(len(x))], 0),
    }
    seconds = timing.interleave(calls, rounds, turn, warm=1)
    samples = values.difference(calls["batched"](), calls["looped"]())
    pairs = values.difference(calls["together"](), calls["apart"]())
    what = f"trace_estimate, {SAMPLES} samples"
    return [
        timing.pair(
            f"{what}: together / one at a time", seconds["batched"], seconds["looped"], limit=1.0, difference=samples
        ),
        timing.pair(f"{what} / {SAMPLES} compiled products by hand", seconds["batched"], seconds["hand"], limit=1.0),
        timing.pair(
            "top_eigenpairs, 4 examples: together / apart",
            seconds["together"],
            seconds["apart"],
            limit=1.0,
            difference=pairs,
        ),
    ]


def _ends(model: keras.Model, tap: str) -> list[tuple[Any, Any]]:
    hidden = model.get_layer(tap).output
    return [(model.inputs, hidden), (hidden, model.outputs[0])]


def _reverse_over_reverse(split: keras.Model, rest: keras.Model) -> Callable[[tf.Tensor, tf.Tensor], tf.Tensor]:
    def product(x: tf.Tensor, v: tf.Tensor) -> tf.Tensor:
        hidden = split(x, training=False)
        with tf.GradientTape(watch_accessed_variables=False) as outer:
            outer.watch(hidden)
            with tf.GradientTape(watch_accessed_variables=False) as inner:
                inner.watch(hidden)
                score = rest(hidden, training=False)[:, K]
            slope = inner.gradient(score, hidden)
        return outer.gradient(slope, hidden, output_gradients=v)

    return product


def _forward(split: keras.Model, rest: keras.Model) -> Callable[[tf.Tensor, tf.Tensor], tf.Tensor]:
    def product(x: tf.Tensor, v: tf.Tensor) -> tf.Tensor:
        hidden = split(x, training=False)
        with tf.autodiff.ForwardAccumulator(hidden, v) as forward:
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(hidden)
                score = rest(hidden, training=False)[:, K]
            slope = tape.gradient(score, hidden)
        return forward.jvp(slope)

    return product


def _convolutions(size: int = 64) -> keras.Model:
    keras.utils.set_random_seed(models.SEED)
    x = inputs = keras.Input((size, size, 3))
    for number, filters in enumerate((32, 64, 64), start=1):
        x = layers.Conv2D(filters, 3, padding="same", activation="gelu", name=f"conv{number}")(x)
        x = layers.MaxPooling2D(name=f"pool{number}")(layers.BatchNormalization()(x))
    return keras.Model(inputs, layers.Dense(10, activation="softmax")(layers.GlobalAveragePooling2D()(x)))


def _small() -> keras.Model:
    keras.utils.set_random_seed(models.SEED)
    x = inputs = keras.Input((16, 16, 3))
    x = layers.Conv2D(8, 3, padding="same", activation="gelu", name="conv1")(x)
    x = layers.Conv2D(16, 3, strides=2, activation="gelu")(x)
    return keras.Model(inputs, layers.Dense(10, activation="softmax")(layers.GlobalAveragePooling2D()(x)))


class _Norm(layers.Layer):
    """A layer normalisation without the `stop_gradient` of TensorFlow's, so that tapes have its second derivative."""

    def call(self, x: tf.Tensor) -> tf.Tensor:
        apart = x - tf.reduce_mean(x, -1, keepdims=True)
        return apart * tf.math.rsqrt(tf.reduce_mean(apart * apart, -1, keepdims=True) + 1e-3)


def _transformer() -> keras.Model:
    keras.utils.set_random_seed(models.SEED)
    x = inputs = keras.Input((64, 128))
    for number in range(3):
        x = _Norm()(x + layers.MultiHeadAttention(4, 32)(x, x))
        wide = layers.Dense(256, activation="gelu")(x)
        x = _Norm(name=f"block{number}")(x + layers.Dense(128)(wide))
    return keras.Model(inputs, layers.Dense(10, activation="softmax")(layers.GlobalAveragePooling1D()(x)))


CASES = {
    "ResNet50, batch 4, conv4_block6_out": (models.resnet50, "conv4_block6_out", (4, 224, 224, 3), 12),
    "three gelu convolutions, batch 16, pool1": (_convolutions, "pool1", (16, 64, 64, 3), 25),
    "three transformer blocks, batch 16, block0": (_transformer, "block0", (16, 64, 128), 25),
}
