"""tf-keras-vis's lines."""

from __future__ import annotations

from typing import Any

VERSIONS = ("tf-keras-vis", "tensorflow-cpu", "keras", "numpy", "scipy")


def grad_cam(model, images):
    from tf_keras_vis.gradcam import Gradcam
    from tf_keras_vis.utils.scores import CategoricalScore

    cam = Gradcam(model)
    maps = cam(CategoricalScore(3), images, penultimate_layer="conv3")
    plain = cam(CategoricalScore(3), images, penultimate_layer="conv3", expand_cam=False, normalize_cam=False)
    return maps, plain


def logits(model, images):
    from tf_keras_vis.gradcam import Gradcam
    from tf_keras_vis.utils.model_modifiers import ReplaceToLinear
    from tf_keras_vis.utils.scores import CategoricalScore

    cam = Gradcam(model, model_modifier=ReplaceToLinear())
    theirs = cam(CategoricalScore(3), images, penultimate_layer="conv3", expand_cam=False, normalize_cam=False)
    return theirs


def other_maps(model, images):
    from tf_keras_vis.gradcam_plus_plus import GradcamPlusPlus
    from tf_keras_vis.layercam import Layercam
    from tf_keras_vis.scorecam import Scorecam
    from tf_keras_vis.utils.scores import CategoricalScore

    score, options = CategoricalScore(3), {"penultimate_layer": "conv3", "normalize_cam": False}
    plus_plus = GradcamPlusPlus(model)(score, images, expand_cam=False, **options)
    layer = Layercam(model)(score, images, expand_cam=False, **options)
    by_score = Scorecam(model)(score, images, expand_cam=False, **options)
    return plus_plus, layer, by_score


def saliency(model, images):
    from tf_keras_vis.saliency import Saliency
    from tf_keras_vis.utils.scores import CategoricalScore

    look = Saliency(model)
    maps = look(CategoricalScore(3), images)
    slopes = look(CategoricalScore(3), images, keepdims=True, gradient_modifier=None, normalize_map=False)
    return maps, slopes


def smooth(model, images):
    from tf_keras_vis.saliency import Saliency
    from tf_keras_vis.utils.scores import CategoricalScore

    look, options = Saliency(model), {"smooth_samples": 400, "smooth_noise": 0.2, "normalize_map": False}
    theirs = look(CategoricalScore(3), images, keepdims=True, **options)
    signed = look(CategoricalScore(3), images, keepdims=True, gradient_modifier=None, **options)
    return theirs, signed


def maximisation(model):
    from tf_keras_vis.activation_maximization import ActivationMaximization
    from tf_keras_vis.utils.model_modifiers import ExtractIntermediateLayer, ReplaceToLinear
    from tf_keras_vis.utils.scores import CategoricalScore

    modifiers = [ExtractIntermediateLayer("conv3"), ReplaceToLinear()]
    theirs = ActivationMaximization(model, modifiers)(CategoricalScore(5), input_range=(0.0, 1.0), steps=100)
    return theirs


def _on_kind(model, images):
    return grad_cam(model, images)[1]


def _input_on_kind(model, images):
    return saliency(model, images)[1]


def _given(folder: str, name: str) -> dict[str, Any]:
    import keras

    from benchmarks.migration.networks import images, network

    keras.utils.set_random_seed(0)
    return {"model": network(), "images": images}
