"""States of Keras 2's recurrent layers at every step: replaced at one step, the rest of the loop follows."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import tensorflow as tf

import gradtap as gt
from reference import recurrent as ref
from reference.differences import STEP, assert_same_numbers
from reference.models import draws

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    k2 = pytest.importorskip("tf_keras", exc_type=ImportError)

OPTIONS = {"return_sequences": True, "return_state": True, "name": "rnn"}


@pytest.fixture(autouse=True)
def _float64():
    before = k2.backend.floatx()
    k2.backend.set_floatx("float64")
    yield
    k2.backend.set_floatx(before)


def score(outputs):
    """A smooth function of all outputs, another of each entry."""
    parts = [tf.reshape(y, [tf.shape(y)[0], -1]) for y in tf.nest.flatten(outputs)]
    flat = tf.concat(parts, 1)
    return tf.reduce_sum(tf.tanh(flat) * tf.cos(tf.cast(tf.range(tf.shape(flat)[1]), flat.dtype)), 1)


def compare(model, inputs, at, steps):
    """Gradients at all steps against differences at each, and everything that is left as it was."""
    layers = list(model._flatten_layers())
    before, loop = [dict(vars(layer)) for layer in layers], k2.backend.rnn
    plain = gt.gradients(model, inputs, target=score, at=":input")
    g = gt.gradients(model, inputs, target=score, at=[":input", *at])
    assert k2.backend.rnn is loop
    for layer, attributes in zip(layers, before, strict=True):
        assert sorted(vars(layer)) == sorted(attributes)
        assert vars(layer).get("_could_use_gpu_kernel") == attributes.get("_could_use_gpu_kernel")
    for traced, eager in zip(tf.nest.flatten(g.outputs), tf.nest.flatten(model(inputs)), strict=True):
        np.testing.assert_allclose(traced, eager, rtol=0, atol=1e-14)
    for address in plain:
        assert_same_numbers(g[address], plain[address], 1e-12)
    for address in at:
        for t in range(steps):
            v = draws(*g[address].shape, seed=t)
            v[:, [k for k in range(steps) if k != t]] = 0
            ends = [score(gt.patch(model, inputs, {address: lambda s, e=e: s + e})) for e in (STEP * v, -STEP * v)]
            along = tf.reduce_sum(g[address] * v, list(range(1, v.ndim)))
            assert_same_numbers(along, (ends[0] - ends[1]) / (2 * STEP))
    return g


def made(layer, shape=(None, 2), masked=False):
    x = k2.Input(shape)
    return k2.Model(x, layer(k2.layers.Masking()(x) if masked else x))


@pytest.mark.parametrize(
    "kind, masked",
    [
        ("lstm", False),
        ("lstm", True),
        ("lstm_backwards", True),
        ("gru", False),
        ("gru_reset_before", True),
        ("simple", False),
    ],
)
def test_states_at_every_step(kind, masked):
    """Values and gradients are also those of an eager loop with a tape on every state."""
    make, options, step, count = {
        "lstm": (k2.layers.LSTM, {}, ref.lstm, 2),
        "lstm_backwards": (k2.layers.LSTM, {"go_backwards": True}, ref.lstm, 2),
        "gru": (k2.layers.GRU, {}, ref.gru, 1),
        "gru_reset_before": (k2.layers.GRU, {"reset_after": False}, ref.gru, 1),
        "simple": (k2.layers.SimpleRNN, {}, ref.simple, 1),
    }[kind]
    rnn = make(3, **options, **OPTIONS)
    model, x = made(rnn, masked=masked), draws(3, 4, 2)
    if masked:
        x[1, 2:] = x[2, 1] = 0
    mask = (x != 0).any(-1) if masked else None
    at = ["rnn:hidden", "rnn:cell"][:count]
    g = compare(model, x, at, 4) if not masked else gt.gradients(model, x, target=score, at=at)
    cell = rnn.cell
    outputs, _, states = ref.run(
        step(cell), x, [np.zeros((3, 3))] * count, lambda y, s: score([y, *s]), mask, "backwards" in kind
    )
    assert_same_numbers(g.outputs[0], outputs, 1e-13)
    for address, (values, slopes) in zip(at, states, strict=True):
        assert_same_numbers(g.activations[address], values, 1e-13)
        assert_same_numbers(g[address], slopes, 1e-12)


@pytest.mark.slow
def test_stacked_cells_and_both_directions():
    cells = [k2.layers.LSTMCell(3), k2.layers.GRUCell(2)]
    stacked = made(k2.layers.RNN(cells, return_sequences=True, name="rnn"))
    compare(stacked, draws(2, 3, 2), ["rnn:hidden.0", "rnn:hidden.1", "rnn:cell"], 3)
    two = k2.layers.RNN([k2.layers.GRUCell(2), k2.layers.GRUCell(2)], return_sequences=True, name="rnn")
    assert list(gt.activations(made(two), draws(2, 3, 2), at="rnn:hidden")) == ["rnn:hidden.0", "rnn:hidden.1"]
    both = made(k2.layers.Bidirectional(k2.layers.GRU(2, return_sequences=True), name="both"))
    compare(both, draws(2, 3, 2), ["both/forward_layer:hidden", "both/backward_layer:hidden"], 3)


@pytest.mark.slow
def test_convolutions_in_a_loop_and_states_from_another_layer():
    compare(
        made(k2.layers.ConvLSTM2D(2, 2, padding="same", **OPTIONS), (None, 3, 3, 1)),
        draws(2, 3, 3, 3, 1),
        ["rnn:hidden", "rnn:cell"],
        3,
    )
    a, b = k2.Input((None, 2)), k2.Input((None, 2))
    _, h, c = k2.layers.LSTM(3, return_state=True, name="encoder")(a)
    decoder = k2.layers.LSTM(3, return_sequences=True, name="decoder")
    model = k2.Model([a, b], decoder(b, initial_state=[h, c]))
    compare(model, [draws(2, 3, 2), draws(2, 3, 2, seed=1)], ["encoder:cell", "decoder:hidden"], 3)


def test_a_layer_that_keeps_its_state():
    rnn = k2.layers.GRU(3, stateful=True, return_sequences=True, name="rnn")
    model = k2.Sequential([k2.Input(batch_shape=(2, 3, 2)), rnn])
    x = draws(2, 3, 2)
    model(x)
    first = [np.array(s) for s in rnn.states]
    g = gt.gradients(model, x, target=score, at="rnn:hidden")
    np.testing.assert_array_equal(rnn.states[0], first[0])
    _, _, ((values, slopes),) = ref.run(ref.gru(rnn.cell), x, first, lambda y, _: score(y))
    assert_same_numbers(g.activations.only, values, 1e-13)
    assert_same_numbers(g.only, slopes, 1e-12)
