"""alibi's lines."""

from __future__ import annotations

from typing import Any

VERSIONS = ("alibi", "tensorflow-cpu", "keras", "numpy")


def at_input(model, images):
    from alibi.explainers import IntegratedGradients

    explanation = IntegratedGradients(model, n_steps=50).explain(images, target=[3, 3])
    values, deltas = explanation.attributions[0], explanation.deltas
    return values, deltas


def baselines(model, images):
    import numpy as np
    from alibi.explainers import IntegratedGradients

    explainer = IntegratedGradients(model, n_steps=50, method="riemann_trapezoid")
    values = explainer.explain(images, baselines=np.full_like(images, 0.5), target=[3, 7]).attributions[0]
    return values


def at_layer(model, images):
    from alibi.explainers import IntegratedGradients

    explainer = IntegratedGradients(model, layer=model.get_layer("conv3"), n_steps=50)
    explanation = explainer.explain(images, target=[3, 3])
    values, deltas = explanation.attributions[0], explanation.deltas
    return values, deltas


def layer_inputs(model, images):
    from alibi.explainers import IntegratedGradients

    explainer = IntegratedGradients(model, layer=model.get_layer("conv3"), n_steps=50)
    explanation = explainer.explain(images, target=[3, 3], attribute_to_layer_inputs=True)
    values = explanation.attributions[0]
    return values


def beside_skip(skip, images):
    from alibi.explainers import IntegratedGradients

    explainer = IntegratedGradients(skip, layer=skip.get_layer("conv2"), n_steps=50)
    explanation = explainer.explain(images, target=[3, 3])
    values, deltas = explanation.attributions[0], explanation.deltas
    return values, deltas


def _on_kind(model, images):
    from alibi.explainers import IntegratedGradients

    layer = next(layer for layer in _all_layers(model) if layer.name == "conv3")
    return IntegratedGradients(model, layer=layer, n_steps=50).explain(images, target=[3, 3]).attributions[0]


def _all_layers(model):
    for layer in model.layers:
        yield layer
        yield from getattr(layer, "layers", [])


def _input_on_kind(model, images):
    return at_input(model, images)[0]


def _given(folder: str, name: str) -> dict[str, Any]:
    from benchmarks.migration.networks import images, network

    return {"model": network(), "skip": network(skip=True), "images": images}
