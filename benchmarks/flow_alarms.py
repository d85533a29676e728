"""How often `flow.measure` finds something at healthy networks, and how often it misses a broken one."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import layers

from benchmarks import timing
from gradtap import flow
from gradtap.flow import architectures
from gradtap.flow.variants import Variant

FEATURES, CLASSES, EXAMPLES, SEEDS = 16, 10, 64, 20
NORMAL = keras.initializers.RandomNormal


def _plain(activation: str, depth: int, **options: Any) -> Any:
    return lambda: keras.Sequential(
        [keras.Input((FEATURES,))]
        + [layers.Dense(64, activation=activation, name=f"dense{i}", **options) for i in range(depth)]
        + [layers.Dense(CLASSES)]
    )


def _convolutional(*, batch_norm: bool) -> Any:
    def build() -> Any:
        x = inputs = keras.Input((16, 16, 3))
        for width in (16, 16, 32, 32, 64, 64):
            strides = 2 if width != x.shape[-1] and width > 16 else 1
            x = layers.Conv2D(width, 3, strides=strides, padding="same", kernel_initializer="he_normal")(x)
            x = layers.BatchNormalization()(x) if batch_norm else x
            x = layers.ReLU()(x)
        return keras.Model(inputs, layers.Dense(CLASSES)(layers.GlobalAveragePooling2D()(layers.MaxPooling2D()(x))))

    return build


def _residual_convolutional() -> Any:
    x = inputs = keras.Input((16, 16, 3))
    x = layers.Conv2D(16, 3, padding="same")(x)
    for _ in range(8):
        y = layers.ReLU()(layers.BatchNormalization()(x))
        y = layers.Conv2D(16, 3, padding="same", kernel_initializer="he_normal")(y)
        y = layers.ReLU()(layers.BatchNormalization()(y))
        x = layers.Add()([x, layers.Conv2D(16, 3, padding="same", kernel_initializer="he_normal")(y)])
    return keras.Model(inputs, layers.Dense(CLASSES)(layers.GlobalAveragePooling2D()(x)))


def _lstm() -> Any:
    return keras.Sequential([keras.Input((16, 8)), layers.LSTM(32), layers.Dense(CLASSES)])


def _family(name: str, depth: int, **options: Any) -> Any:
    return lambda: architectures.BY_NAME[name](FEATURES, CLASSES, depth=depth, **options)


#: Name to a builder, and what it is measured with.
HEALTHY: dict[str, tuple[Any, dict[str, Any]]] = {
    "He + ReLU, plain, 16 layers": (_plain("relu", 16, kernel_initializer="he_normal"), {}),
    "He + ReLU, plain, 48 layers": (_plain("relu", 48, kernel_initializer="he_normal"), {}),
    "Glorot + tanh, plain, 32 layers": (_plain("tanh", 32), {}),
    "LeCun + SELU, plain, 32 layers": (_plain("selu", 32, kernel_initializer="lecun_normal"), {}),
    "Keras's default + ReLU, 8 layers": (_plain("relu", 8), {}),
    "layer normalisation, ReLU, 16 layers": (_family("normalised", 16), {}),
    "residual with layer normalisation, 16 blocks": (_family("residual", 16), {}),
    "transformer, 3 blocks": (_family("attention", 3), {}),
    "convolutions, He + ReLU": (_convolutional(batch_norm=False), {}),
    "convolutions, batch normalisation": (_convolutional(batch_norm=True), {}),
    "the same as in training": (_convolutional(batch_norm=True), {"training": True}),
    "residual convolutions, 8 blocks": (_residual_convolutional, {}),
    "the same as in training ": (_residual_convolutional, {"training": True}),
    "LSTM, 16 steps": (_lstm, {}),
}


def _with_dead(build: Any) -> Any:
    def broken() -> Any:
        model = build()
        model.layers[2].bias.assign([-100.0] * 32 + [0.0] * 32)
        return model

    return broken


def _contractive() -> Any:
    state = layers.SimpleRNN(32, recurrent_initializer=keras.initializers.Orthogonal(0.6))
    return keras.Sequential([keras.Input((40, 8)), state, layers.Dense(CLASSES)])


def _stopped() -> Any:
    x = inputs = keras.Input((FEATURES,))
    x = layers.Dense(32, activation="relu")(x)
    x = keras.ops.stop_gradient(x)
    return keras.Model(inputs, layers.Dense(CLASSES)(layers.Dense(32, activation="relu")(x)))


def _half_precision() -> Any:
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    try:
        hidden = [layers.Dense(32, activation="tanh") for _ in range(4)]
        return keras.Sequential([keras.Input((FEATURES,)), *hidden, layers.Dense(CLASSES), layers.Rescaling(1e-5)])
    finally:
        keras.config.set_dtype_policy(before)


BROKEN: dict[str, tuple[Any, str]] = {
    "sigmoid, plain, 10 layers": (_plain("sigmoid", 10), "vanishing"),
    "ReLU with weights of 0.05, 12 layers": (_plain("relu", 12, kernel_initializer=NORMAL(stddev=0.05)), "vanishing"),
    "ReLU with weights of 0.4, 12 layers": (_plain("relu", 12, kernel_initializer=NORMAL(stddev=0.4)), "exploding"),
    "half of a layer dead": (_with_dead(_plain("relu", 6, kernel_initializer="he_normal")), "dead"),
    "tanh with weights of 2": (_plain("tanh", 6, kernel_initializer=NORMAL(stddev=2.0)), "saturated"),
    "a stop_gradient": (_stopped, "blocked"),
    "float16, outputs of 1e-5": (_half_precision, "underflow"),
    "contractive RNN, 40 steps": (_contractive, "vanishing"),
}


def run(turn: int = 0, quick: bool = False) -> dict[str, Any]:
    seeds = 2 if quick else SEEDS
    alarms = {name: _count(build, options, seeds, None) for name, (build, options) in HEALTHY.items()}
    hits = {name: _count(build, {}, seeds, kind) for name, (build, kind) in BROKEN.items()}
    facts = [timing.fact(f"healthy, with a finding: {name.strip()}", n / seeds, "share") for name, n in alarms.items()]
    total = sum(alarms.values()) / seeds / len(alarms)
    facts.append(timing.fact(f"healthy, with a finding: all {seeds * len(alarms)}", total, "share", 0.02))
    facts += [
        timing.fact(f"broken, found as {BROKEN[name][1]}: {name}", n / seeds, "share") for name, n in hits.items()
    ]
    return {"pairs": [], "facts": facts}


def _count(build: Any, options: dict[str, Any], seeds: int, kind: str | None) -> int:
    """In how many initialisations something is found: of a kind, or anything."""
    rng = np.random.default_rng(0)
    shape = build().input_shape[1:]
    x, y = rng.normal(size=(EXAMPLES, *shape)).astype("float32"), np.arange(EXAMPLES) % CLASSES
    variant, count = Variant("network", build, x), 0
    for seed in range(seeds):
        found = flow.measure(variant.initialise(seed), x, labels=y, **options).findings
        count += any(kind is None or finding.kind == kind for finding in found)
        if kind is None and found:
            print([(f.kind, f.tap, f.evidence) for f in found])
    return count
