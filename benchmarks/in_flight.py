"""How many examples to run at once: integrated gradients at the input with other numbers in flight, one network each.

Ratios are in processor time, which other jobs hardly touch, to one example at a time. It settles the
default in `gradtap.batching`, and has no limit.
"""

from __future__ import annotations

import time
from typing import Any

import keras
import tensorflow as tf

import gradtap as gt
from benchmarks import models, timing

CLASS, STEPS = 3, 16
NETWORKS = {"ResNet50, 224x224": (1, 2, 4, 8, 16), "MobileNet, 224x224": (1, 2, 4, 8, 16), "28x28": (1, 4, 16)}


def run(turn: int = 0, quick: bool = False) -> dict[str, Any]:
    pairs = []
    for title, sizes in NETWORKS.items():
        model, x = _network(title)
        steps = STEPS if title != "28x28" else 10 * STEPS

        def call(size: int | None, model: Any = model, x: tf.Tensor = x, steps: int = steps) -> Any:
            return gt.attribution.integrated_gradients(model, x, target=CLASS, steps=steps, batch_size=size)

        for size in (*sizes, None):
            call(size)
        samples: dict[int | None, list[float]] = {size: [] for size in (*sizes, None)}
        for number in range(1 if quick else 3):
            for size in samples if (number + turn) % 2 == 0 else reversed(list(samples)):
                start = time.process_time()
                call(size)
                samples[size].append(time.process_time() - start)
        for size, seconds in samples.items():
            if size != 1:
                what = f"{title}: {size or 'the default'} at once / 1 at once"
                pairs.append(timing.pair(what, seconds, samples[1]))
    return {"pairs": pairs}


def _network(title: str) -> tuple[Any, tf.Tensor]:
    if title == "28x28":
        return models.tiny_cnn(), models.images(1, 28, 28, 1)
    keras.utils.set_random_seed(models.SEED)
    model = models.resnet50() if title.startswith("ResNet50") else keras.applications.MobileNet(weights=None)
    return model, models.images(1, 224, 224, 3)
