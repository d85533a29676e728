"""A 28x28 network, batch 1: integrated gradients of 50 steps, against a compiled loop written by hand, one batch of 50.

The hand-written side is one `tf.function` from the image to the attribution, its nodes constants.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

import gradtap as gt
from benchmarks import models, timing, values

STEPS, CLASS = 50, 3


def run(turn: int = 0, quick: bool = False) -> dict[str, Any]:
    model, x = models.tiny_cnn(), models.images(1, 28, 28, 1)
    pairs, facts = [], []
    for at in (":input", "conv1"):
        hand, again = (by_hand(model, at) for _ in range(2))

        def ours(at: str = at, checks: bool = True) -> tf.Tensor:
            return gt.attribution.integrated_gradients(model, x, target=CLASS, at=at, steps=STEPS, checks=checks).only

        calls = {
            "ours": ours,
            "hand": lambda hand=hand: hand(x),
            "no checks": lambda ours=ours: ours(checks=False),
            "again": lambda again=again: again(x),
        }
        truth = hand(x)
        seconds = timing.interleave(calls, 20 if quick else 150, turn, warm=5)
        titles = {"ours": "gradtap / hand", "no checks": "with checks=False / hand", "again": "hand / the same: noise"}
        for name, title in titles.items():
            error = values.difference(calls[name](), truth)
            pairs.append(timing.pair(f"{at}: {title}", seconds[name], seconds["hand"], difference=error))
        over = statistics.median(seconds["ours"]) - statistics.median(seconds["hand"])
        facts.append(timing.fact(f"{at}: over the hand's call", over * 1e3, "ms"))
    return {"pairs": pairs, "facts": facts}


def by_hand(model: models.TinyCNN, at: str) -> Callable[[tf.Tensor], tf.Tensor]:
    """All 50 points in one batch, compiled."""
    nodes, weights = (array.astype("float32") for array in np.polynomial.legendre.leggauss(STEPS))
    nodes, weights = ((nodes + 1) / 2)[:, None, None, None], (weights / 2)[:, None, None, None]

    @tf.function
    def integral(x: tf.Tensor) -> tf.Tensor:
        start = tf.zeros_like(x)
        if at == "conv1":
            x, start = model.conv1(x), model.conv1(start)
        points = start + nodes * (x - start)
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(points)
            score = (model(points) if at == ":input" else model.after_conv1(points))[:, CLASS]
        return tf.reduce_sum(weights * tape.gradient(score, points), 0, keepdims=True) * (x - start)

    return integral
