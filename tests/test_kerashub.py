"""KerasHub's transformers, tiny and untrained: every attention layer per head, inside of opaque blocks."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import tensorflow as tf

import gradtap as gt
from reference.differences import STEP, assert_same_numbers
from reference.models import draws, float64_policy

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    hub = pytest.importorskip("keras_hub", exc_type=ImportError)

#: T5's own layers have this to say of the masks that they are given.
pytestmark = pytest.mark.filterwarnings("ignore:Layer '")

TOKENS = np.array([[3, 1, 6, 2, 7], [5, 4, 9, 0, 0]], np.int32)
PADDING = (TOKENS != 0).astype(np.int32)
TEXT = {"token_ids": TOKENS, "padding_mask": PADDING}
SMALL = {"vocabulary_size": 11, "num_layers": 2, "intermediate_dim": 12}


def bert():
    size = {"num_heads": 2, "hidden_dim": 8, "max_sequence_length": 6, "dropout": 0.0}
    return hub.models.BertBackbone(**SMALL, **size), {**TEXT, "segment_ids": np.zeros_like(TOKENS)}


def bert_with_dropout():
    size = {"num_heads": 2, "hidden_dim": 8, "max_sequence_length": 6, "dropout": 0.3}
    return hub.models.BertBackbone(**SMALL, **size), {**TEXT, "segment_ids": np.zeros_like(TOKENS)}


def gpt2():
    return hub.models.GPT2Backbone(**SMALL, num_heads=2, hidden_dim=8, max_sequence_length=6), TEXT


def llama():
    return hub.models.LlamaBackbone(**SMALL, num_query_heads=4, num_key_value_heads=2, hidden_dim=16), TEXT


def gemma():
    heads = {"num_query_heads": 4, "num_key_value_heads": 2, "head_dim": 4}
    return hub.models.GemmaBackbone(**SMALL, **heads, hidden_dim=8), TEXT


def t5():
    model = hub.models.T5Backbone(**SMALL, num_heads=2, hidden_dim=8)
    sides = ("encoder", "decoder")
    return model, {f"{side}_{key}": value for side in sides for key, value in TEXT.items()}


def vit():
    size = {"num_layers": 2, "num_heads": 2, "hidden_dim": 8, "mlp_dim": 12}
    model = hub.models.ViTBackbone(image_shape=(8, 8, 3), patch_size=4, **size)
    return model, draws(2, 8, 8, 3)


#: The model, its number of attention layers, and the shape of their probabilities.
MODELS = {
    "bert": (bert, 2, (2, 2, 5, 5)),
    "bert_with_dropout": (bert_with_dropout, 2, (2, 2, 5, 5)),
    "gpt2": (gpt2, 2, (2, 2, 5, 5)),
    "llama": (llama, 2, (2, 4, 5, 5)),
    "gemma": (gemma, 2, (2, 4, 5, 5)),
    "t5": (t5, 6, (2, 2, 5, 5)),
    "vit": (vit, 2, (2, 2, 5, 5)),
}

#: KerasHub makes some numbers in float32, whatever the type.
ROUNDED = {"llama", "gemma", "t5"}


def made(name):
    """A model with weights that are large enough for all that is compared, and its inputs."""
    model, inputs = MODELS[name][0]()
    for k, weight in enumerate(model.trainable_weights):
        weight.assign(weight + 0.3 * draws(*weight.shape, seed=k))
    return model, inputs


def assert_slope(name, model, inputs, g, address):
    """A central difference along one direction at a place."""
    values = g.activations[address].numpy()
    direction = draws(*values.shape, seed=5)
    step, tolerance = (3e-4, 5e-3) if name in ROUNDED else (STEP, 1e-7)
    ends = [last(gt.patch(model, inputs, {address: values + sign * step * direction})) for sign in (1, -1)]
    along = tf.reduce_sum(tf.cast(g[address], tf.float64) * direction, list(range(1, values.ndim)))
    assert_same_numbers(along, (ends[0] - ends[1]) / (2 * step), tolerance)


def last(outputs):
    """One number for each example, of the last thing that a backbone returns."""
    y = tf.nest.flatten(outputs)[0]
    return tf.reduce_sum(tf.sin(3.0 * tf.cast(y, tf.float64) + 0.3), list(range(1, y.shape.rank)))


@pytest.mark.parametrize("name", MODELS)
def test_attention_per_head_inside_of_every_block(name):
    _, count, shape = MODELS[name]
    with float64_policy():
        model, inputs = made(name)
        g = gt.gradients(model, inputs, target=last, at="**:attention")
        assert len(g) == count
        for traced, eager in zip(tf.nest.flatten(g.outputs), tf.nest.flatten(model(inputs)), strict=True):
            np.testing.assert_allclose(traced, eager, rtol=0, atol=5e-6 if name in ROUNDED else 1e-14)
        for address, slope in g.items():
            p = g.activations[address]
            assert p.shape == slope.shape == shape
            np.testing.assert_allclose(tf.reduce_sum(p, -1), 1.0, atol=1e-6)
        assert_slope(name, model, inputs, g, next(iter(g)))  # at the first layer, which all others follow


@pytest.mark.parametrize("name", ["bert", "llama", "gemma", "t5"])
def test_queries_keys_and_values(name):
    with float64_policy():
        model, inputs = made(name)
        layer = next(iter(gt.activations(model, inputs, at="**:attention"))).removesuffix(":attention")
        g = gt.gradients(model, inputs, target=last, at=[f"{layer}:{side}" for side in ("query", "key", "value")])
        for address in g:
            assert_slope(name, model, inputs, g, address)
