"""Whole Jacobians, both ways of working out rows: the one that `jacobian` takes / the other, and a compiled tape's."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import keras
import tensorflow as tf

import gradtap as gt
from benchmarks import models, timing, values
from gradtap import jacobians

BATCH, CLASSES = 8, 10
layers = keras.layers


def run(turn: int = 0, quick: bool = False) -> dict[str, Any]:
    pairs = []
    for name, (body, shape) in KINDS.items():
        chosen, other, x = _model(body, shape), _model(body, shape), models.images(BATCH, *shape)
        split = keras.Model(chosen.inputs, chosen.get_layer("tap").output)
        rest = keras.Model(chosen.get_layer("tap").output, chosen.outputs[0])
        hand = tf.function(_by_hand(split, rest))
        calls = {
            "chosen": lambda model=chosen, x=x: gt.jacobian(model, x, at="tap").only,
            "other": lambda model=other, x=x: gt.jacobian(model, x, at="tap").only,
            "hand": lambda hand=hand, x=x: hand(x),
        }
        with _the_other_way():
            calls["other"]()  # which builds the program; it is kept
        seconds = timing.interleave(calls, 3 if quick else 20, turn)
        truth = calls["hand"]()
        errors = [values.difference(calls[way](), truth) for way in ("chosen", "other")]
        pairs += [
            timing.pair(
                f"{name}: as chosen / the other way", seconds["chosen"], seconds["other"], difference=errors[0]
            ),
            timing.pair(f"{name}: gradtap / tape.jacobian", seconds["chosen"], seconds["hand"], difference=errors[1]),
        ]
    return {"pairs": pairs}


@contextmanager
def _the_other_way() -> Iterator[None]:
    """Run rows as examples where they would be vectorised, and the other way round."""
    decide = jacobians._has_loop
    jacobians._has_loop = lambda *places: not decide(*places)
    try:
        yield
    finally:
        jacobians._has_loop = decide


def _model(body: Callable[[Any], Any], shape: tuple[int, ...]) -> keras.Model:
    keras.utils.set_random_seed(models.SEED)
    x = keras.Input(shape)
    return keras.Model(x, layers.Dense(CLASSES, activation="softmax")(body(x)))


def _by_hand(split: keras.Model, rest: keras.Model) -> Callable[[tf.Tensor], tf.Tensor]:
    def rows(x: tf.Tensor) -> tf.Tensor:
        hidden = split(x, training=False)
        with tf.GradientTape() as tape:
            tape.watch(hidden)
            scores = rest(hidden, training=False)
        return tape.batch_jacobian(scores, hidden)

    return rows


def _dense(x: Any) -> Any:
    return layers.Dense(128, activation="tanh")(layers.Dense(256, activation="tanh", name="tap")(x))


def _convolution(x: Any) -> Any:
    x = layers.Conv2D(16, 3, activation="relu", name="tap")(x)
    return layers.GlobalAveragePooling2D()(layers.Conv2D(16, 3, activation="relu")(x))


def _attention(x: Any) -> Any:
    x = layers.Dense(32, name="tap")(x)
    return layers.GlobalAveragePooling1D()(layers.LayerNormalization()(x + layers.MultiHeadAttention(4, 8)(x, x)))


def _lstm(x: Any) -> Any:
    return layers.LSTM(32)(layers.Dense(16, name="tap")(x))


KINDS = {
    "dense": (_dense, (64,)),
    "convolution": (_convolution, (28, 28, 3)),
    "attention": (_attention, (16, 32)),
    "LSTM, 20 steps": (_lstm, (20, 8)),
}
