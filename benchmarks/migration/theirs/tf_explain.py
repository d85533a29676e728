"""tf-explain's lines."""

from __future__ import annotations

from typing import Any

VERSIONS = ("tf-explain", "tensorflow-cpu", "keras", "numpy", "opencv-python-headless")


def grad_cam(model, images):
    from tf_explain.core.grad_cam import GradCAM

    picture = GradCAM().explain((images, None), model, class_index=3, layer_name="conv3")
    activations, slopes = GradCAM.get_gradients_and_filters(model, images, "conv3", 3, use_guided_grads=True)
    guided = GradCAM.generate_ponderated_output(activations, slopes)
    activations, slopes = GradCAM.get_gradients_and_filters(model, images, "conv3", 3, use_guided_grads=False)
    plain = GradCAM.generate_ponderated_output(activations, slopes)
    return picture, guided, plain


def vanilla_gradients(model, images):
    from tf_explain.core.vanilla_gradients import VanillaGradients

    explainer = VanillaGradients()
    picture = explainer.explain((images, None), model, class_index=3)
    slopes = explainer.compute_gradients(images, explainer.get_score_model(model), 3)
    return picture, slopes


def integrated_gradients(model, images):
    from tf_explain.core.integrated_gradients import IntegratedGradients

    picture = IntegratedGradients().explain((images, None), model, class_index=3, n_steps=50)
    points = IntegratedGradients.generate_interpolations(images, 50)
    values = IntegratedGradients.get_integrated_gradients(points, model, 3, 50)
    points = IntegratedGradients.generate_interpolations(4 * images, 50)
    brighter = IntegratedGradients.get_integrated_gradients(points, model, 3, 50)
    return picture, values, brighter


def smooth_grad(model, images):
    from tf_explain.core.smoothgrad import SmoothGrad

    picture = SmoothGrad().explain((images, None), model, class_index=3, num_samples=400, noise=0.1)
    noisy = SmoothGrad.generate_noisy_images(images, 400, 0.1)
    values = SmoothGrad.get_averaged_gradients(noisy, model, 3, 400)
    return picture, values


def occlusion(model, images):
    from tf_explain.core.occlusion_sensitivity import OcclusionSensitivity

    explainer = OcclusionSensitivity()
    picture = explainer.explain((images, None), model, class_index=3, patch_size=8)
    values = [explainer.get_sensitivity_map(model, image, 3, 8) for image in images]
    return picture, values


def activations(model, images):
    from tf_explain.core.activations import ExtractActivations

    picture = ExtractActivations().explain((images, None), model, ["conv3"])
    values = ExtractActivations.generate_activations_graph(model, ["conv3"]).predict(images, verbose=0)
    return picture, values


def _on_kind(model, images):
    return grad_cam(model, images)[2]


def _input_on_kind(model, images):
    from tf_explain.core.vanilla_gradients import VanillaGradients

    return VanillaGradients.compute_gradients(images, model, 3)


def _given(folder: str, name: str) -> dict[str, Any]:
    import numpy as np

    from benchmarks.migration.networks import images, network

    np.random.seed(0)
    return {"model": network(), "images": images}
