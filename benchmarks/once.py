"""One way of computing the gradient, used a few times in a process of its own: time of the first call, peak memory."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from benchmarks import handwritten, models
from benchmarks.one_layer import CLASS, LAYER


def measure(way: str, batch: int, calls: int, save: str) -> dict[str, float]:
    """Compute ResNet50's gradient `calls` times by `way` (gradtap, compiled or eager); the gradient goes to `save`."""
    model, x = models.resnet50(), models.images(batch, 224, 224, 3)
    before = _peak_bytes()
    start = time.perf_counter()
    gradient = WAYS[way](model)
    ready, worked = time.perf_counter(), time.process_time()
    result = gradient(x)
    first, worked = time.perf_counter() - ready, time.process_time() - worked
    for _ in range(calls - 1):
        result = gradient(x)
    np.save(save, result.numpy())
    times = {"prepare": ready - start, "first": first, "processor": worked}
    return times | {"before": before, "peak": _peak_bytes()}


def _gradtap(model: Any) -> Callable[[tf.Tensor], tf.Tensor]:
    import gradtap as gt

    gradients = gt.gradients  # looked up here: the package's own imports are no part of the first call
    return lambda x: gradients(model, x, target=CLASS, at=LAYER)[LAYER]


def _compiled(model: Any) -> Callable[[tf.Tensor], tf.Tensor]:
    tape = tf.function(handwritten.through_split(model, [LAYER], CLASS))
    return lambda x: tape(x)[0]


def _eager(model: Any) -> Callable[[tf.Tensor], tf.Tensor]:
    tape = handwritten.through_split(model, [LAYER], CLASS)
    return lambda x: tape(x)[0]


WAYS = {"gradtap": _gradtap, "compiled": _compiled, "eager": _eager}


def _peak_bytes() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
