"""ResNet50, batch 4, 20 steps: integrated gradients at a layer / prefix once, compiled suffix gradient 20 times.

One layer cuts the model; the other stands inside of a residual branch, where the hand-written side has to carry the
skip connection around the tap itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import gradtap as gt
from benchmarks import models, timing, values

LIMIT = 1.15
BATCH, STEPS, CLASS = 4, 20, 3
#: The tap, and what goes around it.
TAPS = {"conv4_block6_out": None, "conv4_block6_2_relu": "conv4_block5_out"}


def run(turn: int = 0, quick: bool = False) -> dict[str, Any]:
    model, x = models.resnet50(), models.images(BATCH, 224, 224, 3)
    pairs = []
    for layer, skip in TAPS.items():
        hand, again = (by_hand(model, x, layer, skip) for _ in range(2))

        def ours(layer: str = layer) -> tf.Tensor:
            return gt.attribution.integrated_gradients(model, x, target=CLASS, at=layer, steps=STEPS).only

        truth = hand()
        error, noise = values.difference(ours(), truth), values.difference(again(), truth)
        seconds = timing.interleave({"ours": ours, "hand": hand, "again": again}, 2 if quick else 4, turn, warm=0)
        what = f"{layer}{', a skip around it' if skip else ''}"
        pairs += [
            timing.pair(f"gradtap / hand: {what}", seconds["ours"], seconds["hand"], limit=LIMIT, difference=error),
            timing.pair("hand / the same hand: noise", seconds["again"], seconds["hand"], difference=noise),
        ]
    return {"pairs": pairs}


def by_hand(model: keras.Model, x: tf.Tensor, layer: str, skip: str | None) -> Callable[[], tf.Tensor]:
    """The activations of inputs and baseline once, then a compiled gradient of the rest for every node."""
    around = [] if skip is None else [model.get_layer(skip).output]
    before = keras.Model(model.inputs, [model.get_layer(layer).output, *around])
    after = keras.Model([model.get_layer(layer).output, *around], model.outputs[0])
    prefix = tf.function(lambda x: before(x, training=False))

    @tf.function
    def slope(h: tf.Tensor, around: list[tf.Tensor]) -> tf.Tensor:
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(h)
            score = after([h, *around], training=False)[:, CLASS]
        return tape.gradient(score, h)

    nodes, weights = (array.astype("float32") for array in np.polynomial.legendre.leggauss(STEPS))
    nothing = tf.zeros_like(x)

    def integral() -> tf.Tensor:
        h, *around = _listed(prefix(x))
        start = _listed(prefix(nothing))[0]
        change = h - start
        total = tf.zeros_like(change)
        for node, weight in zip((nodes + 1) / 2, weights / 2, strict=True):
            total += weight * slope(start + node * change, around)
        return total * change

    return integral


def _listed(found: Any) -> list[tf.Tensor]:
    return list(found) if isinstance(found, (list, tuple)) else [found]
