"""Attention relevance against the rollout restated on attention that is written out, and what it refuses."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import gradtap as gt
from gradtap import errors
from reference.differences import assert_same_numbers
from reference.models import draws, policy


def transformer(blocks=3, heads=2, key_dim=4, dtype="float64"):
    """Token ids to classes: blocks of attention and a dense layer, with skips and normalisations."""
    with policy(dtype, dtype):
        ids = keras.Input((None,), dtype="int32", name="ids")
        h = layers.Embedding(20, 6, name="embedding")(ids)
        for i in range(blocks):
            attended = layers.MultiHeadAttention(heads, key_dim, name=f"attention{i}")(h, h)
            h = layers.LayerNormalization(name=f"norm{i}")(h + attended)
            h = h + layers.Dense(6, activation="gelu", name=f"dense{i}")(h)
        model = keras.Model(ids, layers.Dense(3, name="scores")(h[:, 0]))
    for i, weight in enumerate(model.weights):
        weight.assign(draws(*weight.shape, seed=i))
    return model


def written_out(model, ids, k, blocks=3):
    """The attention of each block and the slope there, from a tape over a forward pass by hand."""
    h = model.get_layer("embedding")(ids)
    found = []
    with tf.GradientTape() as tape:
        for i in range(blocks):
            layer = model.get_layer(f"attention{i}")
            q, key, v = (
                tf.einsum("btd,dhk->bhtk", h, d.kernel) + d.bias[:, None]
                for d in (layer.query_dense, layer.key_dense, layer.value_dense)
            )
            p = tf.nn.softmax(tf.matmul(q, key, transpose_b=True) / 2.0)  # the root of a key dimension of 4
            tape.watch(p)
            found.append(p)
            mixed = tf.matmul(p, v)
            attended = tf.einsum("bhtk,hkd->btd", mixed, layer.output_dense.kernel) + layer.output_dense.bias
            h = model.get_layer(f"norm{i}")(h + attended)
            h = h + model.get_layer(f"dense{i}")(h)
        score = model.get_layer("scores")(h[:, 0])[:, k]
    return [p.numpy() for p in found], [g.numpy() for g in tape.gradient(score, found)]


def rolled(attention, slopes):
    """The recursion of the paper, one example at a time."""
    found = []
    for n in range(len(attention[0])):
        r = np.eye(attention[0].shape[-1])
        for p, g in zip(attention, slopes):
            r = r + np.mean((p[n] * g[n]).clip(0), axis=0) @ r
        found.append(r)
    return np.stack(found)


IDS = np.array([[3, 1, 4, 1, 5], [9, 2, 6, 5, 3], [5, 8, 9, 7, 9]])


def test_the_rollout_is_that_of_the_paper(float64):
    model = transformer()
    attention, slopes = written_out(model, IDS, 2)
    found = gt.attribution.attention_relevance(model, IDS, target=2)
    assert list(found) == [":input"]
    assert_same_numbers(found.only, rolled(attention, slopes), 1e-12)
    assert list(found.blocks) == [f"attention{i}:attention" for i in range(3)]
    for block, p, g in zip(found.blocks.values(), attention, slopes):
        assert_same_numbers(block, np.mean((p * g).clip(0), axis=1), 1e-12)


def test_a_row_some_blocks_one_address_and_parts_of_a_batch(float64):
    model = transformer()
    whole = gt.attribution.attention_relevance(model, IDS, target=[0, 1, 2]).only
    for token in (0, 3, -1):
        row = gt.attribution.attention_relevance(model, IDS, target=[0, 1, 2], token=token).only
        np.testing.assert_array_equal(row, whole[:, token])
    for size in (1, 2):
        parts = gt.attribution.attention_relevance(model, IDS, target=[0, 1, 2], batch_size=size).only
        assert_same_numbers(parts, whole, 1e-12)
    data = tf.data.Dataset.from_tensor_slices(IDS).batch(2)
    each = [gt.attribution.attention_relevance(model, IDS[n : n + 1], target=1).only[0] for n in range(3)]
    assert_same_numbers(gt.attribution.attention_relevance(model, data, target=1).only, np.stack(each), 1e-12)
    attention, slopes = written_out(model, IDS, 1)
    some = gt.attribution.attention_relevance(model, IDS, target=1, at=["attention2:attention", "attention0:attention"])
    assert_same_numbers(some.only, rolled(attention[::2], slopes[::2]), 1e-12)


def test_padding_takes_no_relevance(float64):
    x = keras.Input((5, 6), dtype="float64")
    mask = keras.Input((5, 5), dtype="bool")
    h = x
    for i in range(2):
        h = h + layers.MultiHeadAttention(2, 3, name=f"block{i}")(h, h, attention_mask=mask)
    model = keras.Model([x, mask], layers.Dense(2)(h[:, 0]))
    on = np.ones((2, 5, 5), bool)
    on[:, :, 3:] = False
    found = gt.attribution.attention_relevance(model, [draws(2, 5, 6), on], target=0).only.numpy()
    np.testing.assert_array_equal(found[:, :, 3:], np.broadcast_to(np.eye(5)[:, 3:], (2, 5, 2)))
    assert np.all(np.any(found[:, 0, 1:3] > 0, axis=1))


class Counted(keras.Model):
    """It counts how often its Python runs."""

    def __init__(self):
        super().__init__()
        self.inner = transformer()
        self.runs = 0

    def call(self, ids):
        self.runs += 1
        return self.inner(ids)


def test_a_new_class_runs_no_python_again(float64):
    model = Counted()
    first = gt.attribution.attention_relevance(model, IDS, target=1).only
    runs = model.runs
    assert_same_numbers(first, gt.attribution.attention_relevance(model.inner, IDS, target=1).only, 1e-12)
    gt.attribution.attention_relevance(model, IDS, target=2)
    assert model.runs == runs


def test_half_precision_is_added_up_in_float32():
    with policy("mixed_float16", "float32"):
        x = keras.Input((5, 6))
        h = layers.MultiHeadAttention(2, 3, name="block")(x, x)
        model = keras.Model(x, layers.Dense(2)(h[:, 0]))
    found = gt.attribution.attention_relevance(model, draws(2, 5, 6), target=1).only
    assert found.dtype == "float32"
    assert np.all(np.isfinite(found))


def test_stacks_side_by_side_are_told_apart(float64):
    x = keras.Input((5, 6), dtype="float64")
    one, two = (layers.MultiHeadAttention(2, 3, name=name)(x, x) for name in ("one", "two"))
    model = keras.Model(x, layers.Dense(2)(one[:, 0] + two[:, 0]))
    rows = draws(2, 5, 6)
    with pytest.raises(errors.SideError, match="side by side"):
        gt.attribution.attention_relevance(model, rows, target=0)
    assert gt.attribution.attention_relevance(model, rows, target=0, at="two:attention").only.shape == (2, 5, 5)


def test_a_layer_with_one_head(float64):
    """Its attention has no axis of heads."""
    x = keras.Input((4, 3), dtype="float64")
    h = layers.Attention(name="attend")([x, x])
    model = keras.Model(x, layers.Dense(2)(h[:, 0]))
    rows = draws(2, 4, 3)
    g = gt.gradients(model, rows, target=0, at="attend:attention")
    expected = np.eye(4) + (g.only * g.activations.only).numpy().clip(0)
    assert_same_numbers(gt.attribution.attention_relevance(model, rows, target=0).only, expected, 1e-12)


def test_what_is_no_stack_of_self_attention():
    x, y = keras.Input((5, 6), name="x"), keras.Input((4, 6), name="y")
    own = layers.MultiHeadAttention(2, 3, name="own")(x, x)
    crossed = layers.MultiHeadAttention(2, 3, name="crossed")(own, y)
    model = keras.Model([x, y], layers.Dense(2)(crossed[:, 0]))
    inputs = [draws(2, 5, 6), draws(2, 4, 6)]
    with pytest.raises(errors.SideError, match="crossed"):
        gt.attribution.attention_relevance(model, inputs, target=0)
    assert gt.attribution.attention_relevance(model, inputs, target=0, at="own:attention").only.shape == (2, 5, 5)
    with pytest.raises(errors.SideError, match="no attention over tokens"):
        gt.attribution.attention_relevance(model, inputs, target=0, at="own")
    for token in (5, -6):
        with pytest.raises(errors.ArgumentError, match="there are 5 tokens"):
            gt.attribution.attention_relevance(model, inputs, target=0, at="own:attention", token=token)
    with pytest.raises(errors.ArgumentError, match="token"):
        gt.attribution.attention_relevance(model, inputs, target=0, at="own:attention", token="CLS")
    plain = keras.Sequential([keras.Input((3,)), layers.Dense(2)])
    with pytest.raises(errors.GradtapError, match="attention"):
        gt.attribution.attention_relevance(plain, draws(2, 3), target=0)
