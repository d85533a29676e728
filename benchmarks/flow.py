"""What `flow.FlowMonitor` costs: a training with it at its default rate, against the same training without."""

from __future__ import annotations

import time
from typing import Any

import keras
import numpy as np
from keras import layers

from benchmarks import timing
from gradtap import flow

BATCH, STEPS, LIMIT = 64, 200, 1.05


def _network() -> Any:
    x = inputs = keras.Input((32, 32, 3))
    for width in (32, 32, 64, 64, 128, 128):
        x = layers.Conv2D(width, 3, strides=2 if width != x.shape[-1] and width > 32 else 1, padding="same")(x)
        x = layers.ReLU()(layers.BatchNormalization()(x))
    return keras.Model(inputs, layers.Dense(10)(layers.GlobalAveragePooling2D()(x)))


def run(turn: int = 0, quick: bool = False) -> dict[str, Any]:
    """Both trainings go on in turn, an epoch each of 200 steps, of which the monitor measures after 100 and 200."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(BATCH * STEPS, 32, 32, 3)).astype("float32")
    y = rng.integers(0, 10, len(x))
    watched, plain = _compiled(), _compiled()
    monitor = flow.FlowMonitor(x[:32], y[:32])
    rounds = 1 if quick else 2
    seconds: dict[str, list[float]] = {"watched": [], "plain": []}
    busy: dict[str, list[float]] = {"watched": [], "plain": []}
    for model in (watched, plain):  # tracing and compiling is not what is measured
        model.fit(x[: 3 * BATCH], y[: 3 * BATCH], batch_size=BATCH, verbose=0)
    _epoch(watched, x, y, monitor)
    for number in range(rounds):
        order = ["watched", "plain"] if (number + turn) % 2 == 0 else ["plain", "watched"]
        for name in order:
            is_watched = name == "watched"
            wall, cpu = _epoch(watched if is_watched else plain, x, y, monitor if is_watched else None)
            seconds[name].append(wall)
            busy[name].append(cpu)
    what = "training of 200 steps with FlowMonitor / without (3 measurements)"
    pairs = [
        timing.pair(f"{what}: time of the processors", busy["watched"], busy["plain"], limit=LIMIT),
        timing.pair(f"{what}: time on the wall", seconds["watched"], seconds["plain"]),
    ]
    flow.measure(watched, x[:32], labels=y[:32], training=True, seed=0)
    start = time.process_time()
    flow.measure(watched, x[:32], labels=y[:32], training=True, seed=0)
    facts = [
        timing.fact("one measurement of 32 examples, time of the processors", (time.process_time() - start) * 1e3, "ms")
    ]
    return {"pairs": pairs, "facts": facts}


def _compiled() -> Any:
    keras.utils.set_random_seed(0)
    model = _network()
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True), jit_compile=False)
    return model


def _epoch(model: Any, x: Any, y: Any, monitor: Any) -> tuple[float, float]:
    """Seconds on the wall, and those that the processors were busy, which other work on the machine moves less."""
    start, cpu = time.perf_counter(), time.process_time()
    model.fit(x, y, batch_size=BATCH, epochs=1, verbose=0, shuffle=False, callbacks=[monitor] if monitor else [])
    return time.perf_counter() - start, time.process_time() - cpu
