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


def prepare(folder: str, batch: int, alive: bool) -> None:
    """Save images and weights of ResNet50: as it is initialised, or alive.

    As it is initialised its layers are homogeneous, and only the softmax bends the path from a baseline of zeros.
    Alive it has the batch statistics of these images, and offsets away from zero: ReLUs change sides all along it.
    """
    model, x = models.resnet50(), models.images(batch, 224, 224, 3)
    if alive:
        random = np.random.default_rng(models.SEED)
        for norm in model.layers:
            if isinstance(norm, keras.layers.BatchNormalization):
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
    error = np.abs(found.numpy().sum((1, 2, 3)) - change).mean() / np.abs(change).mean()
    np.save(save, found.numpy())
    return {"seconds": seconds, "first": start - first, "peak": peak, "error": float(error)}


def errors(counts: Sequence[int], captum_steps: int, folder: str, target: int) -> dict[str, list[float]]:
    """The completeness error of conductance for numbers of steps, and that of Captum's sum, our rule "difference"."""
    model, x, _ = _load("conductance", folder, target)
    size = float(np.abs(_change(model, x, target)).mean())

    def error(steps: int, rule: str) -> float:
        found = gt.attribution.conductance(model, x, target=target, at=LAYER, steps=steps, rule=rule)
        return float(np.abs(found.delta).mean()) / size

    return {"ours": [error(n, "gausslegendre") for n in counts], "captum": [error(captum_steps, "difference")]}


def _load(method: str, folder: str, target: int) -> tuple[Any, tf.Tensor, Any]:
    model = keras.applications.ResNet50(weights=None)
    model.load_weights(f"{folder}/model.weights.h5")
    x, function = tf.constant(np.load(f"{folder}/x.npy")), getattr(gt.attribution, method)
    return model, x, lambda steps: function(model, x, target=target, at=LAYER, steps=steps).only


def _change(model: Any, x: tf.Tensor, target: int) -> np.ndarray:
    return (model(x, training=False) - model(tf.zeros_like(x), training=False))[:, target].numpy()
