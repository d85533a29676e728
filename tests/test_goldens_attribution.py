"""Attributions against Captum on the same weights, every key through the public surface; see goldens/README.md."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest

import gradtap as gt
from gradtap import attribution
from reference import goldens as golden_models

FOLDER = Path(__file__).parent / "goldens"
#: Bounds by model and key: relative to the largest golden, or absolute where the name ends in `_atol`.
BOUNDS = json.loads((FOLDER / "attribution.json").read_text(encoding="utf-8"))
#: How many keys Captum's numbers hold for each method, two dtypes each.
KEYS = {
    "LayerIntegratedGradients": 56,
    "LayerGradCam": 52,
    "IntegratedGradients": 28,
    "LayerConductance": 22,
    "InternalInfluence": 22,
    "LayerGradientXActivation": 12,
    "Saliency": 4,
    "InputXGradient": 3,
    "GuidedBackprop": 2,
    "Deconvolution": 2,
    "GuidedGradCam": 2,
}
PATHS = ("IntegratedGradients", "LayerIntegratedGradients", "LayerConductance", "InternalInfluence")


def read(key):
    """Method, variants, whether of logits, and layer."""
    name, layer = key.rsplit("/", 1)
    name, _, output = name.partition("@")
    suffix = output.split(".")  # a variant may stand behind the output
    method, *variants = [*name.split("."), *suffix[1:]]
    assert suffix[0] in ("", "logit")
    return method, set(variants), suffix[0] == "logit", layer


def answer(method, variants, logits, at, trace, inputs, given, dtype):
    """What the public surface gives at all layers of a method's keys, in one call."""
    ask = {"target": gt.targets.class_score(given["target"], logits=logits), "at": at}
    if method in PATHS:
        return of_path(method, variants, trace, inputs, given, dtype, ask)
    if method == "LayerGradCam":
        return of_grad_cam(variants, trace, inputs, ask)
    if method == "GuidedGradCam":
        interpolation = variants.pop()
        assert not variants
        return attribution.guided_grad_cam(trace, inputs, **ask, interpolation=interpolation)
    plain = {
        "Saliency": attribution.saliency,
        "InputXGradient": attribution.activation_x_gradient,
        "LayerGradientXActivation": attribution.activation_x_gradient,
        "GuidedBackprop": attribution.guided_backprop,
        "Deconvolution": attribution.deconvnet,
    }
    assert not variants, f"{variants} are not understood"
    return plain[method](trace, inputs, **ask)


def of_path(method, variants, trace, inputs, given, dtype, ask):
    along = take(variants, "embpath")
    steps = next(int(v[1:]) for v in variants if v[0] == "n" and v[1:].isdigit())
    which = next((v for v in variants if v.startswith("base")), "base0")
    rule = next((v for v in variants if v.startswith("riemann")), "gausslegendre")
    variants -= {f"n{steps}", which, rule}
    baseline = given[f"{which}_0"]
    baseline = baseline if baseline.dtype.kind == "i" else baseline.astype(dtype)
    if along and which == "base0":
        baseline = attribution.at_tap(0.0)
    ask |= {"baseline": baseline, "steps": steps, "rule": rule}
    path = {"along": "embed"} if along else {}
    if method == "LayerConductance":
        result = attribution.conductance(trace, inputs, **ask | path | {"rule": "difference"})
    elif method == "InternalInfluence":
        result = attribution.internal_influence(trace, inputs, **ask, **path)
    else:
        assert not along
        result = attribution.integrated_gradients(trace, inputs, **ask, multiply=not take(variants, "nomult"))
    assert not variants, f"{variants} are not understood"
    return result


def of_grad_cam(variants, trace, inputs, ask):
    upsample = next((v for v in variants if v.startswith("up_")), "")
    apart, raw, relu = (take(variants, word) for word in ("nosum", "raw", "relu"))
    variants -= {upsample}
    assert not variants, f"{variants} are not understood"
    assert apart + raw + relu == 1
    ask |= {"relu": relu, "sum_channels": not apart, "interpolation": upsample.removeprefix("up_") or "bilinear"}
    found = attribution.grad_cam(trace, inputs, **ask, upsample="input" if upsample else None)
    return {layer: value if apart else value[..., None] for layer, value in found.items()}


def take(variants, word):
    """Whether a variant is there; it is then done with."""
    there = word in variants
    variants -= {word}
    return there


def bound(bounds, dtype):
    """A bound, and whether it is relative. Captum rounds the weights of its quadrature to float32; ours are exact."""
    if f"{dtype}_atol" in bounds:
        return bounds[f"{dtype}_atol"], False
    return max(bounds[dtype], bounds.get(f"{dtype}_exact_weights", 0.0)), True


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("model", BOUNDS)
def test_every_key(model, dtype):
    goldens = dict(np.load(FOLDER / f"{model}.attribution.{dtype}.npz"))
    assert set(goldens) == set(BOUNDS[model])
    given = dict(np.load(FOLDER / f"{model}.inputs.npz")) | dict(np.load(FOLDER / f"{model}.baselines.npz"))
    trace = gt.trace(golden_models.model_file(model, dtype))
    inputs = given["input0"]
    inputs = inputs if inputs.dtype.kind == "i" else inputs.astype(dtype)
    ours = answers(goldens, trace, inputs, given, dtype)
    assert set(ours) == set(goldens)
    wrong = {}
    for key, golden in goldens.items():
        value = np.asarray(ours[key])
        assert value.shape == golden.shape, key
        assert value.dtype == dtype, key
        limit, is_relative = bound(BOUNDS[model][key], dtype)
        error = np.max(np.abs(value - golden)) / (np.max(np.abs(golden)) if is_relative else 1.0)
        if not error <= golden_models.bound(limit):
            wrong[key] = f"{error:.1e} > {limit:.0e}"
    assert not wrong


def answers(keys, trace, inputs, given, dtype):
    """Under each key what we give; keys that differ only in the layer, or in asking for the error, share a call."""
    calls = defaultdict(dict)
    for key in keys:
        method, variants, logits, layer = read(key)
        errors = take(variants, "delta")
        calls[method, frozenset(variants), logits].setdefault(layer, []).append((key, errors))
    found = {}
    for (method, variants, logits), by_layer in calls.items():
        at = [":input" if layer == "input" else layer for layer in by_layer]
        result = answer(method, set(variants), logits, at, trace, inputs, given, dtype)
        for address, wanted in zip(at, by_layer.values(), strict=True):
            for key, errors in wanted:
                if errors:
                    found[key] = result.delta if len(at) == 1 else result.delta[address]
                else:
                    found[key] = result[address]
    return found


def test_no_key_is_left_out():
    counted = Counter(read(key)[0] for keys in BOUNDS.values() for key in keys)
    assert counted == KEYS
