"""A 28x28 network, batch 1: what a call costs beside the arithmetic, against the compiled hand-written tape."""

from __future__ import annotations

import statistics
from typing import Any

import tensorflow as tf

import gradtap as gt
from benchmarks import handwritten, models, timing, values

LIMIT = 2.0
LAYER, CLASS = "conv1", 3


def run(turn: int = 0, quick: bool = False) -> dict[str, Any]:
    model, x = models.tiny_cnn(), models.images(1, 28, 28, 1)
    hand = tf.function(handwritten.through_layers(model, CLASS))
    trace = gt.trace(model)
    calls = {
        "ours": lambda: gt.gradients(model, x, target=CLASS, at=LAYER)[LAYER],
        "hand": lambda: hand(x)[0],
        "no checks": lambda: gt.gradients(model, x, target=CLASS, at=LAYER, checks=False)[LAYER],
        "trace": lambda: gt.gradients(trace, x, target=CLASS, at=LAYER)[LAYER],
        "again": lambda: hand(x)[0],
    }
    truth = hand(x)[0]
    seconds = timing.interleave(calls, 100 if quick else 1500, turn, warm=20)
    titles = {
        "ours": "gradtap / hand",
        "no checks": "gradtap with checks=False / hand",
        "trace": "gradtap on a trace / hand",
        "again": "hand / the same hand: noise",
    }
    pairs = [
        timing.pair(
            title,
            seconds[name],
            seconds["hand"],
            limit=LIMIT if name == "ours" else None,
            difference=values.difference(calls[name](), truth),
        )
        for name, title in titles.items()
    ]
    medians = {name: statistics.median(samples) for name, samples in seconds.items()}
    facts = [
        timing.fact(f"over the hand's call: {titles[name]}", (medians[name] - medians["hand"]) * 1e6, "us")
        for name in ("ours", "no checks", "trace")
    ]
    return {"pairs": pairs, "facts": facts}
