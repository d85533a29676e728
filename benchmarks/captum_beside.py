"""gradtap's side of `benchmarks.captum`, each function in a process of its own."""

from __future__ import annotations

import resource
import time
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import gradtap as gt
from benchmarks import models

LAYER = "conv4_block6_out"


def prepare(folder: str, batch: int) -> None:
    """Weights with which ResNet50 is alive: batch statistics measured, offsets away from zero.

    As it is initialised its layers are homogeneous, and every rule of integration is exact from a baseline of zeros.
    """
    keras.utils.set_random_seed(models.SEED)
    model = keras.applications.ResNet50(weights=None, classifier_activation=None)
    x, random = models.images(batch, 224, 224, 3), np.random.default_rng(models.SEED)
    norms = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    for norm in norms:
        norm.momentum = 0.0
        norm.beta.assign(random.normal(scale=0.3, size=norm.beta.shape))
    model(x, training=True)
    model.save_weights(f"{folder}/model.weights.h5")
    np.save(f"{folder}/x.npy", x.numpy())


def measure(method: str, steps: int, folder: str, target: int, save: str) -> dict[str, Any]:
    """The time of the first call and of the next, the peak memory, and the completeness error."""
    model, x, attribute = _load(method, folder, target)
    first = time.perf_counter()
    attribute(steps)
    start = time.perf_counter()
    found = attribute(steps)
    seconds, peak = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    change = _change(model, x, target)
    error = np.abs(found.numpy().sum((1, 2, 3)) - change)
    np.save(save, found.numpy())
    return {"seconds": seconds, "first": start - first, "peak": peak, "error": float(error.mean())}


def errors(method: str, counts: Sequence[int], folder: str, target: int) -> list[float]:
    """The completeness error for each number of steps."""
    model, x, attribute = _load(method, folder, target)
    change = _change(model, x, target)
    return [float(np.abs(attribute(n).numpy().sum((1, 2, 3)) - change).mean()) for n in counts]


def _load(method: str, folder: str, target: int) -> tuple[Any, tf.Tensor, Any]:
    model = keras.applications.ResNet50(weights=None, classifier_activation=None)
    model.load_weights(f"{folder}/model.weights.h5")
    x, function = tf.constant(np.load(f"{folder}/x.npy")), getattr(gt.attribution, method)
    return model, x, lambda steps: function(model, x, target=target, at=LAYER, steps=steps).only


def _change(model: Any, x: tf.Tensor, target: int) -> np.ndarray:
    return (model(x, training=False) - model(tf.zeros_like(x), training=False))[:, target].numpy()
