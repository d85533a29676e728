"""Grad-CAM, resized to the image, after the first call: gradtap, tf-keras-vis and Xplique on one CNN, 64x64.

Each is called as its manual says. Values are compared with the map written by hand, before it is resized, as the tools
resize in three ways: Xplique's, which only comes resized, with the hand-written map resized as it does.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf

import gradtap as gt
from benchmarks import models, timing, values

#: Ours over theirs: at least 5 and 3 times faster.
LIMITS = {"tf-keras-vis": 1 / 5, "Xplique": 1 / 3}
CLASS, LAYER = 3, "conv3"


def run(turn: int = 0, quick: bool = False) -> dict[str, Any]:
    from tf_keras_vis.gradcam import Gradcam
    from tf_keras_vis.utils.scores import CategoricalScore
    from xplique.attributions import GradCAM

    pairs = []
    for batch in (1, 32):
        model, x = _network(), models.images(batch, 64, 64, 3)
        wanted = tf.constant(np.eye(10, dtype="float32")[[CLASS] * batch])
        theirs, other = Gradcam(model), GradCAM(model, conv_layer=LAYER)
        hand = tf.function(_by_hand(model))
        score = CategoricalScore(CLASS)

        def ours(size: str | None = "input", model: Any = model, x: tf.Tensor = x) -> tf.Tensor:
            return gt.attribution.grad_cam(model, x, target=CLASS, at=LAYER, upsample=size).only

        def vis(theirs: Any = theirs, score: Any = score, x: tf.Tensor = x, **options: Any) -> Any:
            return theirs(score, x, penultimate_layer=LAYER, seek_penultimate_conv_layer=False, **options)

        calls: dict[str, timing.Call] = {
            "gradtap": ours,
            "tf-keras-vis": vis,
            "Xplique": lambda other=other, x=x, wanted=wanted: other.explain(x, wanted),
            "hand": lambda hand=hand, x=x: hand(x),
        }
        truth = _by_hand(model, size=None)(x)
        errors = {
            "gradtap": values.difference(ours(None), truth),
            "tf-keras-vis": values.difference(vis(expand_cam=False, normalize_cam=False), truth),
            "Xplique": values.difference(
                np.squeeze(np.asarray(other.explain(x, wanted))).reshape(batch, 64, 64),
                tf.image.resize(truth[..., None], (64, 64), "bicubic")[..., 0],
            ),
        }
        seconds = timing.interleave(calls, 5 if quick else 50, turn, warm=3)
        for tool, limit in LIMITS.items():
            what, error = f"gradtap / {tool}, batch {batch}", errors["gradtap"]
            pairs.append(timing.pair(what, seconds["gradtap"], seconds[tool], limit=limit, difference=error))
        for tool in ("gradtap", *LIMITS):
            what = f"{tool} / the compiled tape with `tf.image.resize`, batch {batch}"
            pairs.append(timing.pair(what, seconds[tool], seconds["hand"], difference=errors[tool]))
    return {"pairs": pairs}


def _network() -> keras.Model:
    keras.utils.set_random_seed(models.SEED)
    x = inputs = keras.Input((64, 64, 3))
    for number, filters in enumerate((32, 64, 64), start=1):
        x = keras.layers.Conv2D(filters, 3, activation="relu", padding="same", name=f"conv{number}")(x)
        x = keras.layers.MaxPooling2D(name=f"pool{number}")(x) if number < 3 else x
    x = keras.layers.GlobalAveragePooling2D(name="mean")(x)
    return keras.Model(inputs, keras.layers.Dense(10, activation="softmax", name="scores")(x))


def _by_hand(model: keras.Model, size: tuple[int, int] | None = (64, 64)) -> Any:
    split = keras.Model(model.inputs, [model.get_layer(LAYER).output, model.outputs[0]])

    def grad_cam(x: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(x)
            hidden, scores = split(x, training=False)
            score = scores[:, CLASS]
        weights = tf.reduce_mean(tape.gradient(score, hidden), (1, 2), keepdims=True)
        maps = tf.nn.relu(tf.reduce_sum(weights * hidden, -1))
        return maps if size is None else tf.image.resize(maps[..., None], size)[..., 0]

    return grad_cam
