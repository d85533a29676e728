"""Hessian-vector products and gradients of units against torch on the same weights; see goldens/README.md."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

import gradtap as gt
from gradtap import errors
from reference.goldens import bound, model_file

FOLDER = Path(__file__).parent / "goldens"
MODELS = ("cnn_seq", "cnn_gelu_bn", "lstm_seq", "transformer")
#: Where an independent TensorFlow derivation in float32 is farther from torch than 1e-5.
LOOSER = {
    "HVP/stem_act": 2e-4,
    "HVP.logp/stem_act": 1e-4,
    "HVP/res_add": 3e-5,
    "HVP.logp/res_add": 3e-5,
    "HVP.logp/down_conv": 8e-5,
    "HVP/input": 4e-5,
}


def ours(key, goldens, trace, inputs, classes):
    method, _, layer = key.partition("/")
    at = ":input" if layer == "input" else layer
    if method.startswith("NeuronGradient"):
        index = tuple(map(int, method.rpartition(".")[2].split("_")))
        at = "embed" if ".embpath" in method else ":input"
        return gt.gradients(trace, inputs, target=gt.targets.neuron(layer, index), at=at).only

    def log_probability(y):
        return tf.gather(tf.nn.log_softmax(y), classes, batch_dims=1)

    target = log_probability if method == "HVP.logp" else classes
    # Where only linear layers follow the golden numbers are zeros.
    said = nullcontext() if np.any(goldens[key]) else pytest.warns(errors.NoCurvatureWarning, match=layer)
    with said:
        return gt.hvp(trace, inputs, goldens[f"HVP.v/{layer}"], target=target, at=at).only


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("model", MODELS)
def test_every_key(model, dtype):
    goldens = dict(np.load(FOLDER / f"{model}.calculus.{dtype}.npz"))
    given = np.load(FOLDER / f"{model}.inputs.npz")
    trace = gt.trace(model_file(model, dtype))
    inputs = given["input0"]
    inputs = inputs if inputs.dtype.kind == "i" else inputs.astype(dtype)
    keys = [key for key in goldens if not key.startswith("HVP.v/")]
    assert len(keys) >= 4
    for key in keys:
        value, golden = np.asarray(ours(key, goldens, trace, inputs, given["target"])), goldens[key]
        assert value.shape == golden.shape
        assert value.dtype == dtype
        largest = np.max(np.abs(golden))
        if largest == 0:  # only linear layers follow
            assert not np.any(value), key
            continue
        error = np.max(np.abs(value - golden)) / largest
        assert error <= bound(1e-9 if dtype == "float64" else LOOSER.get(key, 1e-5)), f"{key}: {error:.1e}"
