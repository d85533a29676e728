"""Attention layers: probabilities per head, queries, keys and values, against attention restated in NumPy."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import gradtap as gt
from reference.differences import assert_same_numbers, central_differences
from reference.layers import softmax, weights
from reference.models import draws, policy

HEADS = 2
#: Keras makes the root of this a float32, whatever the type: of four it is exact.
KEYS = 4


def projected(x, layer):
    w = weights(layer)
    return np.einsum("btd,dhk->bthk", x, w["kernel"]) + w.get("bias", 0)


def probabilities(query, key, allowed=None, zero_where_masked=False):
    """``(batch, heads, query, key)``; keys may be fewer than queries, and are shared then."""
    key = np.repeat(key, query.shape[2] // key.shape[2], 2)
    logits = np.einsum("bqhd,bkhd->bhqk", query, key) / np.sqrt(query.shape[-1])
    if allowed is None:
        return softmax(logits)
    found = softmax(np.where(allowed[:, None], logits, -1e30))
    return np.where(allowed[:, None], found, 0) if zero_where_masked else found


def mixed(p, value):
    return np.einsum("bhqk,bkhd->bqhd", p, np.repeat(value, p.shape[1] // value.shape[2], 2))


def combined(heads, layer):
    w = weights(layer)
    return np.einsum("bqhd,hdm->bqm", heads, w["kernel"]) + w.get("bias", 0)


def score(y):
    return np.sin(y).sum((1, 2))


def target(y):
    return tf.reduce_sum(tf.sin(y), (1, 2))


def allowed_steps(batch, queries, keys, causal=False, padded=None):
    on = np.ones((batch, queries, keys), bool)
    if causal:
        on &= np.tril(np.ones((queries, keys), bool))
    return on if padded is None else on & padded


#: Which positions may be attended to, as `attention_mask`: one row of the second example to nothing at all.
PADDED = np.ones((2, 4, 4), bool)
PADDED[1, :, 2:] = False
PADDED[1, 3] = False

CASES = {
    "plain": ({}, {}),
    "causal": ({}, {"use_causal_mask": True}),
    "padded": ({}, {"attention_mask": PADDED}),
    "causal_and_padded": ({}, {"use_causal_mask": True, "attention_mask": PADDED}),
    "dropout": ({"dropout": 0.5}, {}),
    "dropout_causal_and_padded": ({"dropout": 0.5}, {"use_causal_mask": True, "attention_mask": PADDED}),
    "no_bias_other_value_size": ({"use_bias": False, "value_dim": 5, "output_shape": 2}, {}),
}
LAYERS = {
    "multi_head": lambda **o: layers.MultiHeadAttention(HEADS, KEYS, name="attend", **o),
    "grouped": lambda **o: layers.GroupQueryAttention(KEYS, 4, HEADS, name="attend", **o),
}


def check(model, inputs, layer, q, k, v, allowed, zero_where_masked):
    """Every side of a layer whose output is the model's."""
    p = probabilities(q, k, allowed, zero_where_masked)

    def from_heads(p, v):
        return score(combined(mixed(p, v), layer._output_dense))

    expected = {
        "attend:query": (q, lambda t: from_heads(probabilities(t, k, allowed, zero_where_masked), v)),
        "attend:key": (k, lambda t: from_heads(probabilities(q, t, allowed, zero_where_masked), v)),
        "attend:value": (v, lambda t: from_heads(p, t)),
        "attend:attention": (p, lambda t: from_heads(t, v)),
    }
    g = gt.gradients(model, inputs, target=target, at=list(expected))
    np.testing.assert_allclose(g.outputs, model(inputs), rtol=0, atol=1e-14)
    assert_same_numbers(g.target, from_heads(p, v), 1e-13)
    for address, (activations, function) in expected.items():
        assert_same_numbers(g.activations[address], activations, 1e-13)
        assert_same_numbers(g[address], central_differences(function, activations))
    return g


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("name", CASES)
def test_every_side(float64, name, kind):
    options, arguments = CASES[name]
    if kind == "grouped" and "value_dim" in options:
        pytest.skip("this layer has no such option")
    attend = LAYERS[kind](**options)
    x = keras.Input((4, 3))
    causal, padded = arguments.get("use_causal_mask", False), arguments.get("attention_mask")
    mask = None if padded is None else tf.constant(padded)
    model = keras.Model(x, attend(x, x, attention_mask=mask, use_causal_mask=causal))
    rows = draws(2, 4, 3)
    q, k, v = (projected(rows, getattr(attend, f"_{part}_dense")) for part in ("query", "key", "value"))
    allowed = allowed_steps(2, 4, 4, causal, padded) if arguments else None
    # Only the path without the fused kernel makes rows that are masked whole zero; the other spreads them evenly.
    check(model, rows, attend, q, k, v, allowed, zero_where_masked="dropout" in options)


def test_padded_tokens(float64):
    """The mask of an embedding: all of the second example's keys from the third on, all queries kept."""
    embed = layers.Embedding(7, 3, mask_zero=True, embeddings_initializer="random_normal", name="embed")
    attend = layers.MultiHeadAttention(HEADS, KEYS, name="attend")
    ids = keras.Input((None,), dtype="int32")
    h = embed(ids)
    model = keras.Model(ids, attend(h, h))
    tokens = np.array([[3, 1, 6, 2], [5, 4, 0, 0]], np.int32)
    rows = embed.get_weights()[0][tokens]
    q, k, v = (projected(rows, getattr(attend, f"_{part}_dense")) for part in ("query", "key", "value"))
    on = tokens != 0
    # Keras masks padded queries too: their rows are masked whole.
    allowed = on[:, :, None] & on[:, None, :]
    g = check(model, tokens, attend, q, k, v, allowed, zero_where_masked=False)
    np.testing.assert_allclose(tf.reduce_sum(g.activations["attend:attention"], -1), 1.0, atol=1e-14)


def test_another_query_than_key_and_value(float64):
    attend = layers.MultiHeadAttention(HEADS, KEYS, name="attend")
    a, b, c = keras.Input((None, 3)), keras.Input((None, 2)), keras.Input((None, 4))
    model = keras.Model([a, b, c], attend(a, b, c))
    rows = [draws(2, 3, 3), draws(2, 5, 2, seed=1), draws(2, 5, 4, seed=2)]
    parts = ("query", "value", "key")
    q, v, k = (projected(x, getattr(attend, f"_{part}_dense")) for x, part in zip(rows, parts, strict=True))
    check(model, rows, attend, q, k, v, None, zero_where_masked=False)


def test_over_several_axes(float64):
    """The softmax runs over rows and columns at once, which makes no softmax op."""
    attend = layers.MultiHeadAttention(HEADS, KEYS, attention_axes=(1, 2), name="attend")
    x = keras.Input((2, 3, 3))
    model = keras.Model(x, attend(x, x))
    rows = draws(2, 2, 3, 3)
    flat = rows.reshape(2, 6, 3)
    q, k, v = (projected(flat, getattr(attend, f"_{part}_dense")) for part in ("query", "key", "value"))
    p = probabilities(q, k)
    g = gt.gradients(
        model, rows, target=lambda y: tf.reduce_sum(tf.sin(y), (1, 2, 3)), at=["attend:attention", "attend:key"]
    )
    np.testing.assert_allclose(g.outputs, model(rows), rtol=0, atol=1e-14)
    assert_same_numbers(g.activations["attend:attention"], p.reshape(2, HEADS, 2, 3, 2, 3), 1e-13)
    slope = central_differences(lambda t: score(combined(mixed(t, v), attend._output_dense)), p)
    assert_same_numbers(g["attend:attention"], slope.reshape(2, HEADS, 2, 3, 2, 3))


def test_along_one_of_two_axes(float64):
    """Each row attends within itself: the rows come before the heads, as Keras has them."""
    attend = layers.MultiHeadAttention(HEADS, KEYS, attention_axes=(2,), name="attend")
    x = keras.Input((2, 4, 3))
    model = keras.Model(x, attend(x, x))
    rows = draws(2, 2, 4, 3)
    flat = rows.reshape(4, 4, 3)
    q, k = (projected(flat, getattr(attend, f"_{part}_dense")) for part in ("query", "key"))
    found = gt.activations(model, rows, at="attend:attention").only
    assert_same_numbers(found, probabilities(q, k).reshape(2, 2, HEADS, 4, 4), 1e-13)


def dot(q, k, layer):
    return np.einsum("bqd,bkd->bqk", q, k) * (1 if layer.scale is None else float(layer.scale.numpy()))


def concatenated(q, k, layer):
    return float(layer.concat_score_weight.numpy()) * np.tanh(q[:, :, None] + k[:, None]).sum(-1)


def additive(q, k, layer):
    scale = 1 if layer.scale is None else layer.scale.numpy()
    return (scale * np.tanh(q[:, :, None] + k[:, None])).sum(-1)


UNPROJECTED = {
    "dot": (lambda: layers.Attention(name="attend"), dot),
    "dot_scaled": (lambda: layers.Attention(use_scale=True, name="attend"), dot),
    "concat": (lambda: layers.Attention(score_mode="concat", name="attend"), concatenated),
    "dropout": (lambda: layers.Attention(dropout=0.5, name="attend"), dot),
    "additive": (lambda: layers.AdditiveAttention(name="attend"), additive),
    "additive_unscaled": (lambda: layers.AdditiveAttention(use_scale=False, name="attend"), additive),
}


@pytest.mark.parametrize("given", ["one tensor", "a query and a value", "all three"])
@pytest.mark.parametrize("name", UNPROJECTED)
def test_attention_without_projections(float64, name, given):
    """Query, key and value are apart even where the layer was given one tensor for all."""
    make, scores_of = UNPROJECTED[name]
    attend = make()
    a, b, c = (keras.Input((3, 4)) for _ in range(3))
    x, y, z = (draws(2, 3, 4, seed=i) for i in range(3))
    on = np.array([[True] * 3, [True, False, True]])
    if given == "one tensor":
        model, inputs, (q, k, v), on = keras.Model(a, attend([a, a])), x, (x, x, x), None
    elif given == "all three":
        mask = keras.Input((3,), dtype="bool")
        model = keras.Model([a, b, c, mask], attend([a, b, c], mask=[None, mask]))
        inputs, (q, k, v) = [x, y, z, on], (x, z, y)
    else:
        model, inputs, (q, k, v), on = keras.Model([a, b], attend([a, b])), [x, y], (x, y, y), None
    if attend.scale is not None:
        attend.scale.assign(np.float64(0.7) + 0 * attend.scale.numpy())

    def attention(q, k):
        scores = scores_of(q, k, attend)
        return softmax(scores if on is None else np.where(on[:, None], scores, -1e30))

    p = attention(q, k)
    expected = {
        "attend:query": (q, lambda t: score(attention(t, k) @ v)),
        "attend:key": (k, lambda t: score(attention(q, t) @ v)),
        "attend:value": (v, lambda t: score(p @ t)),
        "attend:attention": (p, lambda t: score(t @ v)),
    }
    g = gt.gradients(model, inputs, target=target, at=list(expected))
    np.testing.assert_allclose(g.outputs, model(inputs), rtol=0, atol=1e-14)
    for address, (activations, function) in expected.items():
        assert_same_numbers(g.activations[address], activations, 1e-13)
        assert_same_numbers(g[address], central_differences(function, activations))
    if given == "one tensor":
        total = gt.gradients(model, inputs, target=target, at=":input").only
        assert_same_numbers(sum(g[f"attend:{side}"] for side in ("query", "key", "value")), total, 1e-12)


def test_probabilities_of_half_precision_are_those_of_the_softmax():
    with policy("mixed_float16"):
        x = keras.Input((4, 6))
        model = keras.Model(x, layers.Dense(2, dtype="float32")(layers.MultiHeadAttention(2, 4, name="attend")(x, x)))
    rows = draws(2, 4, 6).astype("float32")
    g = gt.gradients(model, rows, target=(1, 1), at="attend:attention")
    assert g.only.dtype == g.activations.only.dtype == tf.float32
    np.testing.assert_allclose(tf.reduce_sum(g.activations.only, -1), 1.0, atol=1e-6)
    np.testing.assert_allclose(g.outputs, model(rows), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_training_draws_what_the_model_draws(float64, dropout):
    """Dropout comes after the probabilities: what is tapped is what was dropped from."""
    attend = layers.MultiHeadAttention(HEADS, KEYS, dropout=dropout, seed=1, name="attend")
    x = keras.Input((4, 3))
    model = keras.Model(x, attend(x, x))
    rows = draws(2, 4, 3)
    g = gt.gradients(model, rows, target=target, at="attend:attention", training=True)
    assert_same_numbers(g.activations.only, gt.activations(model, rows, at="attend:attention").only, 1e-13)
    np.testing.assert_allclose(g.outputs, model(rows, training=True), rtol=0, atol=1e-14)
    assert (np.asarray(g.only) == 0).any() == (dropout > 0)


class Narrow(layers.MultiHeadAttention):
    """A class of one's own by a name that does not say what it is."""


class Block(layers.Layer):
    """A transformer block with layers inside."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.mix = Narrow(HEADS, 2)
        self.norm = layers.LayerNormalization()

    def build(self, shape):
        self.mix.build(shape, shape)
        self.norm.build(shape)

    def call(self, x):
        return self.norm(x + self.mix(x, x))


def test_inside_blocks_and_by_pattern(float64):
    blocks = [Block(name="one"), Block(name="two")]
    model = keras.Sequential([keras.Input((3, 4)), *blocks, layers.Flatten(), layers.Dense(2)])
    rows = draws(2, 3, 4)
    g = gt.gradients(model, rows, target=1, at="**:attention")
    # A block attends by the one layer in it that does; only layers of attention have the side.
    assert list(g) == ["one/mix:attention", "two/mix:attention"]
    assert all(value.shape == (2, HEADS, 3, 3) for value in g.values())
    for address, slope in g.items():
        direction = draws(2, HEADS, 3, 3, seed=7)
        p = g.activations[address].numpy()
        step = 6e-6 * direction
        ends = [gt.patch(model, rows, {address: p + sign * step})[:, 1] for sign in (1, -1)]
        assert_same_numbers(tf.reduce_sum(slope * direction, (1, 2, 3)), (ends[0] - ends[1]) / 1.2e-5)
    listed = [entry.address for entry in gt.taps(model)]
    assert {"one/mix:attention", "one/mix:query", "one/mix:key", "one/mix:value"} <= set(listed)
    assert "one:attention" not in listed


class ToItself(layers.MultiHeadAttention):
    """Attention of a tensor to itself, which is called with one argument."""

    def __init__(self):
        super().__init__(HEADS, KEYS)

    def build(self, shape):
        super().build(shape, shape)

    def call(self, x):
        return super().call(x, x)


def test_a_layer_as_the_model(float64):
    model, rows = ToItself(), draws(2, 3, 4)
    g = gt.gradients(model, rows, target=target, at=[":attention", ":query"])
    p = probabilities(*(projected(rows, getattr(model, f"_{part}_dense")) for part in ("query", "key")))
    assert_same_numbers(g.activations[":attention"], p, 1e-12)
    np.testing.assert_allclose(g.outputs, model(rows), rtol=0, atol=1e-14)


def test_outputs_are_those_of_the_model():
    """To the last bits: called eagerly, TensorFlow may run other kernels."""
    attend = layers.MultiHeadAttention(4, 8, name="attend")
    x = keras.Input((6, 16))
    model = keras.Model(x, attend(x, x, use_causal_mask=True))
    rows = draws(3, 6, 16).astype("float32")
    sides = [f"attend:{side}" for side in ("query", "key", "value", "attention")]
    outputs = gt.gradients(model, rows, target=target, at=sides).outputs
    np.testing.assert_allclose(outputs, model(rows), rtol=1e-6, atol=1e-6)


def test_where_there_is_no_attention():
    model = keras.Sequential([keras.Input((3,)), layers.Dense(2, activation="softmax", name="dense")])
    with pytest.raises(gt.errors.SideError, match="no `attention`"):
        gt.gradients(model, np.ones((1, 3)), target=0, at="dense:attention")
