"""The exact call by which each tool yields the raw gradient at a layer: gradtap's public one, the peers' nearest one.

None of the peers returns this gradient from a public function, keract apart; what is called here is the function or
hook inside their Grad-CAM that computes it, so that all tools answer the same question with the least work.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from benchmarks.models import up_to
from benchmarks.peer_cases import CLASS, Case

Gradient = Callable[[tf.Tensor], list[Any]]


def gradtap(model: keras.Model, case: Case) -> Gradient:
    import gradtap as gt

    target = gt.targets.class_score(CLASS, logits=True) if case.logits else CLASS

    def gradient(x: tf.Tensor) -> list[tf.Tensor]:
        found = gt.gradients(model, x, target=target, at=case.taps)
        return [found[address] for address in case.taps]

    return gradient


def keract(model: keras.Model, case: Case) -> Gradient:
    """It differentiates the compiled loss: here the sum of the scores that `y` selects, so the score itself."""
    import keract

    model.compile(optimizer="sgd", loss=lambda y, scores: tf.reduce_sum(y * scores, axis=-1))

    def gradient(x: tf.Tensor) -> list[Any]:
        wanted = _one_hot(model, x)
        found = keract.get_gradients_of_activations(model, x.numpy(), wanted, layer_names=case.layer)
        return list(found.values())

    return gradient


def tf_keras_vis(model: keras.Model, case: Case) -> Gradient:
    """Its Grad-CAM hands the gradient to `gradient_modifier`."""
    from tf_keras_vis.gradcam import Gradcam
    from tf_keras_vis.utils.model_modifiers import ReplaceToLinear
    from tf_keras_vis.utils.scores import CategoricalScore

    cam = Gradcam(model, model_modifier=ReplaceToLinear() if case.logits else None)
    caught: list[tf.Tensor] = []

    def catch(gradient: tf.Tensor) -> tf.Tensor:
        caught[:] = [gradient]
        return gradient

    def gradient(x: tf.Tensor) -> list[tf.Tensor]:
        cam(
            CategoricalScore(CLASS),
            x,
            penultimate_layer=case.layer,
            seek_penultimate_conv_layer=False,
            gradient_modifier=catch,
            expand_cam=False,
            normalize_cam=False,
        )
        return list(caught)

    return gradient


def tf_explain(model: keras.Model, case: Case) -> Gradient:
    """It has no word for logits: there the user hands over a model cut before the softmax."""
    from tf_explain.core.grad_cam import GradCAM

    if case.logits:
        model = up_to(model, "logits")
    return lambda x: [GradCAM.get_gradients_and_filters(model, x, case.layer, CLASS, False)[1]]


def xplique(model: keras.Model, case: Case) -> Gradient:
    from xplique.attributions import GradCAM

    output = {"output_layer": "logits"} if case.logits else {}
    explainer = GradCAM(model, conv_layer=case.layer, **output)
    return _from_xplique(explainer, model)


def xplique_layer_given(model: keras.Model, case: Case) -> Gradient:
    """For a nested layer, which it cannot find by name: the layer object is put where the explainer keeps it."""
    from xplique.attributions import GradCAM

    explainer = GradCAM(model, conv_layer=0)
    explainer.conv_layer = next(
        inner for outer in model.layers for inner in getattr(outer, "layers", []) if inner.name == case.layer
    )
    return _from_xplique(explainer, model)


def _from_xplique(explainer: Any, model: keras.Model) -> Gradient:
    wanted: list[tf.Tensor] = []

    def gradient(x: tf.Tensor) -> list[tf.Tensor]:
        if not wanted:
            wanted.append(tf.constant(_one_hot(model, x)))
        return [explainer._gradient(x, wanted[0])[1]]

    return gradient


def _one_hot(model: keras.Model, x: tf.Tensor) -> np.ndarray:
    classes = model(x[:1]).shape[-1]
    return np.eye(classes, dtype="float32")[[CLASS] * len(x)]


TOOLS: dict[str, Callable[[keras.Model, Case], Gradient]] = {
    "gradtap": gradtap,
    "keract": keract,
    "tf-keras-vis": tf_keras_vis,
    "tf-explain": tf_explain,
    "xplique": xplique,
}
DETOURS: dict[str, tuple[str, Callable[[keras.Model, Case], Gradient]]] = {
    "xplique": ("the layer object set as `explainer.conv_layer`", xplique_layer_given)
}
