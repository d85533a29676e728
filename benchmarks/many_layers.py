"""ResNet50, batch 4: sixteen layers at once against one of them.

One backward pass serves all layers, down to the one nearest to the input; so the one layer that is compared is that
one, or the two sides would differ by the backward pass between them, in gradtap as in any tape.
"""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

import gradtap as gt
from benchmarks import handwritten, models, timing, values
from benchmarks.one_layer import BATCH, CLASS, LAYER

LIMIT = 1.15
COUNT = 16


def run(turn: int = 0, quick: bool = False) -> dict[str, Any]:
    model, x = models.resnet50(), models.images(BATCH, 224, 224, 3)
    rounds = 3 if quick else 12
    pairs = []
    for title, layers in (("the 16 blocks", _blocks(model)), (f"16 from {LAYER} on", _from(model, LAYER))):
        hand = tf.function(handwritten.through_split(model, layers, CLASS))

        def ours(at: list[str]) -> Any:
            return gt.gradients(model, x, target=CLASS, at=at)

        many, truth = ours(layers), hand(x)
        error = max(values.difference(many[name], true) for name, true in zip(layers, truth, strict=True))
        calls = {
            "many": lambda ours=ours, layers=layers: ours(layers),
            "one": lambda ours=ours, layers=layers: ours(layers[:1]),
            "hand": lambda hand=hand: hand(x),
        }
        seconds = timing.interleave(calls, rounds, turn)
        what = f"gradtap, {title} / {layers[0]} alone"
        pairs.append(timing.pair(what, seconds["many"], seconds["one"], limit=LIMIT, difference=error))
        what = f"gradtap / hand: {title} at once"
        pairs.append(timing.pair(what, seconds["many"], seconds["hand"], difference=error))
    return {"pairs": pairs}


def _blocks(model: keras.Model) -> list[str]:
    names = [layer.name for layer in model.layers if layer.name.endswith("_out")]
    return names[:COUNT]


def _from(model: keras.Model, first: str) -> list[str]:
    names = [layer.name for layer in model.layers]
    return names[names.index(first) :][:COUNT]
