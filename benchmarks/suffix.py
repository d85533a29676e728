"""The rest of ResNet50 from a layer on: `Trace.suffix` against a hand-built sub-model, compiled."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

import gradtap as gt
from benchmarks import models, timing, values

LAYER, BATCH = "conv4_block6_out", 4
LIMIT = 1.10  # and the aim is 1.05


def run(turn: int = 0, quick: bool = False) -> dict[str, Any]:
    model, x = models.resnet50(), models.images(BATCH, 224, 224, 3)
    split = keras.Model(model.inputs, [model.get_layer(LAYER).output, model.outputs[0]])
    hidden, truth = split(x)
    by_hand = keras.Model(model.get_layer(LAYER).output, model.outputs[0])
    hand = tf.function(lambda a: by_hand(a, training=False))
    again = tf.function(lambda a: by_hand(a, training=False))
    whole = tf.function(lambda x: model(x, training=False))
    ours = gt.trace(model).suffix(LAYER, x)
    calls = {
        "ours": lambda: ours(hidden),
        "hand": lambda: hand(hidden),
        "again": lambda: again(hidden),
        "whole": lambda: whole(x),
    }
    seconds = timing.interleave(calls, 3 if quick else 40, turn)
    what = f"from {LAYER}, batch {BATCH}"
    error = values.difference(ours(hidden), truth)
    again_error = values.difference(again(hidden), truth)
    pairs = [
        timing.pair(f"suffix / sub-model: {what}", seconds["ours"], seconds["hand"], limit=LIMIT, difference=error),
        timing.pair("sub-model / the same: noise", seconds["again"], seconds["hand"], difference=again_error),
        timing.pair("suffix / the whole model", seconds["ours"], seconds["whole"], difference=error),
    ]
    return {"pairs": pairs}
