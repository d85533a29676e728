"""The numbers of Captum on the same weights; see goldens/README.md."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import gradtap as gt
from reference.goldens import bound, model_file

FOLDER = Path(__file__).parent / "goldens"
MODELS = ("cnn_seq", "cnn_gelu_bn", "lstm_seq", "transformer")
TOLERANCE = {"float64": 1e-9, "float32": 1e-5}
#: Where an independent TensorFlow derivation in float32 is farther from torch.
LOOSER = {("cnn_gelu_bn", "float32", "Gradient/stem_act"): 2e-5}
LAYERS = {
    "cnn_seq": ["conv1", "conv2", "flatten"],
    "cnn_gelu_bn": ["stem_act", "res_add", "down_conv"],
    "lstm_seq": ["lstm1", "lstm2", "dense"],
    "transformer": ["embed", "mha0", "mlp0_1"],
}


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("model", MODELS)
def test_every_key(model, dtype):
    goldens = dict(np.load(FOLDER / f"{model}.{dtype}.npz"))
    given = np.load(FOLDER / f"{model}.inputs.npz")
    trace = gt.trace(model_file(model, dtype))
    inputs = given["input0"]
    inputs = inputs if inputs.dtype.kind == "i" else inputs.astype(dtype)
    has_input = "Saliency/input" in goldens  # ids have no gradient
    at = [*LAYERS[model], *([":input"] if has_input else [])]
    ours = {}
    for suffix in [s for s in ("", "@logit") if any(key.startswith(f"Gradient{s}/") for key in goldens)]:
        target = gt.targets.class_score(given["target"], logits=suffix == "@logit")
        g = gt.gradients(trace, inputs, target=target, at=at)
        ours |= {f"Gradient{suffix}/{layer}": g[layer] for layer in LAYERS[model]}
        ours |= {f"LayerActivation/{layer}": g.activations[layer] for layer in LAYERS[model]}
        ours["Forward/output"] = g.outputs
        if has_input:
            ours[f"Saliency{suffix}/input"] = g[":input"]
    assert set(goldens) <= set(ours)
    assert {f"Gradient/{layer}" for layer in LAYERS[model]} <= set(goldens)
    for key, golden in goldens.items():
        value = np.asarray(ours[key])
        assert value.shape == golden.shape
        assert value.dtype == dtype
        error = np.max(np.abs(value - golden)) / np.max(np.abs(golden))
        assert error <= bound(LOOSER.get((model, dtype, key), TOLERANCE[dtype])), f"{key}: {error:.1e}"
