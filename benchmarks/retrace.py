"""How often the model's Python runs, and what a new tap and a new target cost beside a new hand-written tape."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

import gradtap as gt
from benchmarks import handwritten, models, timing, values

RUNS = [0]  # how often `Counted.call` ran; outside the model, whose attributes gradtap watches


class Counted(models.TinyCNN):
    """The tiny network, counting every run of its Python."""

    def call(self, x: tf.Tensor) -> tf.Tensor:
        RUNS[0] += 1
        return super().call(x)


def run(turn: int = 0, quick: bool = False) -> dict[str, Any]:
    first, more = _python_runs()
    facts = [
        timing.fact("runs of the model's Python for the first gradient", first, "runs"),
        timing.fact("more runs over 20 other taps and targets", more, "runs", limit=0),
    ]
    return {"pairs": _costs(3 if quick else 10), "facts": facts}


def _python_runs() -> tuple[int, int]:
    keras.utils.set_random_seed(models.SEED)
    model, x = Counted(), models.images(1, 28, 28, 1)
    model(x)
    start = RUNS[0]
    gt.gradients(model, x, target=0, at="conv1")
    first = RUNS[0] - start
    for name in ("pool1", "conv2", "pool2", "flatten", ":input"):
        gt.gradients(model, x, target=0, at=name)
    gt.gradients(model, x, target=0, at=["conv1", "conv2"])
    for k in range(1, 10):
        gt.gradients(model, x, target=k, at="conv1")
    for target in ("predicted", [4], lambda y: y[:, 1] - y[:, 2], lambda y: y[:, 5], lambda y: y[:, 0] ** 2):
        gt.gradients(model, x, target=target, at="conv2")
    return first, RUNS[0] - start - first


def _costs(count: int) -> list[dict[str, Any]]:
    model, x = models.resnet50(), models.images(1, 224, 224, 3)
    layers = [layer.name for layer in model.layers if layer.name.endswith("_2_relu")][:count]
    functions = [lambda y, k=k: y[:, k] - y[:, k + 1] for k in range(count)]
    gt.gradients(model, x, target=3, at="conv4_block6_out")
    hand, new_tap, numbers, formulas = ([] for _ in range(4))
    error = 0.0
    for k, name in enumerate(layers):
        truth = _timed(hand, lambda name=name: tf.function(handwritten.through_split(model, [name], 3))(x)[0])
        ours = _timed(new_tap, lambda name=name: gt.gradients(model, x, target=3, at=name)[name])
        error = max(error, values.difference(ours, truth))
        _timed(numbers, lambda k=k: gt.gradients(model, x, target=100 + k, at="conv4_block6_out"))
        _timed(formulas, lambda k=k: gt.gradients(model, x, target=functions[k], at="conv4_block6_out"))
    return [
        timing.pair("gradtap, a new layer / a new hand-written tape for it", new_tap, hand, difference=error),
        timing.pair("gradtap, a new class at the same layer / that tape", numbers, hand),
        timing.pair("gradtap, a new function as target / that tape", formulas, hand),
    ]


def _timed(seconds: list[float], call: Callable[[], Any]) -> Any:
    start = time.perf_counter()
    result = call()
    seconds.append(time.perf_counter() - start)
    return result
