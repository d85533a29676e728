"""ResNet50, batch 4, one layer: gradtap a call against the compiled hand-written tape."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

import gradtap as gt
from benchmarks import handwritten, models, timing, values

LAYER, CLASS, BATCH = "conv4_block6_out", 3, 4
LIMIT = 1.10  # and the aim is 1.05


def run(turn: int = 0, quick: bool = False) -> dict[str, Any]:
    model, x = models.resnet50(), models.images(BATCH, 224, 224, 3)
    hand = tf.function(handwritten.through_split(model, [LAYER], CLASS))
    again = tf.function(handwritten.through_split(model, [LAYER], CLASS))

    def ours() -> tf.Tensor:
        return gt.gradients(model, x, target=CLASS, at=LAYER)[LAYER]

    truth = hand(x)[0]
    calls = {"ours": ours, "hand": lambda: hand(x), "again": lambda: again(x)}
    seconds = timing.interleave(calls, 3 if quick else 20, turn)
    what = f"{LAYER}, batch {BATCH}"
    error = values.difference(ours(), truth)
    again_error = values.difference(again(x)[0], truth)
    pairs = [
        timing.pair(f"gradtap / hand: {what}", seconds["ours"], seconds["hand"], limit=LIMIT, difference=error),
        timing.pair("hand / the same hand: noise", seconds["again"], seconds["hand"], difference=again_error),
    ]
    return {"pairs": pairs}
