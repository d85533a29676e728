"""ResNet50, batch 4: Grad-CAM at twenty layers at once, resized to the image, against the one nearest to the input."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

import gradtap as gt
from benchmarks import models, timing, values

LIMIT = 1.15  # the price of one pass, as for gradients at many layers
BATCH, CLASS = 4, 3


def run(turn: int = 0, quick: bool = False) -> dict[str, Any]:
    model, x = models.resnet50(), models.images(BATCH, 224, 224, 3)
    names = [layer.name for layer in model.layers]
    blocks = [name for name in names if name.endswith("_out")]
    inner = ["conv2_block2_2_relu", "conv3_block2_2_relu", "conv4_block2_2_relu", "conv5_block2_2_relu"]
    layers = sorted([*blocks, *inner], key=names.index)

    def ours(at: list[str], size: str | None = "input") -> dict[str, tf.Tensor]:
        return gt.attribution.grad_cam(model, x, target=CLASS, at=at, upsample=size)

    def signed(at: list[str]) -> tf.Tensor:  # with ReLU a map may be all zeros
        return gt.attribution.grad_cam(model, x, target=CLASS, at=at, upsample="input", relu=False)[layers[0]]

    error = values.difference(signed(layers), signed(layers[:1]))
    calls = {"many": lambda: ours(layers), "one": lambda: ours(layers[:1]), "small": lambda: ours(layers, None)}
    seconds = timing.interleave(calls, 3 if quick else 8, turn)
    what = f"maps of {len(layers)} layers / of {layers[0]} alone"
    return {
        "pairs": [
            timing.pair(what, seconds["many"], seconds["one"], limit=LIMIT, difference=error),
            timing.pair("the same, the many not resized", seconds["small"], seconds["one"]),
        ]
    }
