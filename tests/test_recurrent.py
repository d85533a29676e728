"""Recurrent layers: outputs and every state at every step, against eager loops with a tape on each state."""

from __future__ import annotations

from contextlib import contextmanager

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import gradtap as gt
from reference import recurrent as ref
from reference.differences import STEP, assert_same_numbers, central_differences
from reference.models import draws
from reference.smooth import smooth

UNITS = 3


def zeros(rows, *units):
    return [np.zeros((rows, n)) for n in units]


def score_of(outputs, states):
    """Some function of every output and every last state, smooth and different for all of them."""
    flat = tf.reshape(outputs, [tf.shape(outputs)[0], -1])
    along = tf.cast(tf.range(tf.shape(flat)[1]), flat.dtype)
    ends = [tf.reshape(state, [tf.shape(state)[0], -1]) for state in states]
    return tf.reduce_sum(tf.tanh(flat) * tf.cos(along), 1) + tf.reduce_sum(tf.concat(ends, 1) ** 2, 1)


def target_of(outputs):
    """The same of a layer that returns its sequence and its states."""
    return score_of(outputs[0], outputs[1:])


@contextmanager
def left_alone(model):
    """The model has the attributes and the weights that it had."""
    held = [*model._flatten_layers()]
    names = [sorted(vars(layer)) for layer in held]
    values = [np.array(v) for v in model.variables]
    yield
    assert names == [sorted(vars(layer)) for layer in held]
    for before, after in zip(values, model.variables, strict=True):
        np.testing.assert_array_equal(before, after)


def model_of(layer, shape=(None, 2), **arguments):
    """A model that returns the sequence and the last states of a layer."""
    x = keras.Input(shape)
    return keras.Model(x, layer(x, **arguments))


def compare(model, x, expected, *, name="rnn", at, inputs=None, output=0):
    """Outputs, values and gradients of a model that returns what `score_of` takes."""
    outputs, result, states = expected
    with left_alone(model):
        g = gt.gradients(model, x if inputs is None else inputs, target=target_of, at=[":input", *at])
    own = model(x if inputs is None else inputs)
    for traced, eager in zip(g.outputs, own, strict=True):
        np.testing.assert_allclose(traced, eager, rtol=0, atol=1e-14)
    assert_same_numbers(g.outputs[output], outputs, 1e-13)
    assert_same_numbers(g.target, result, 1e-13)
    for address, (values, slopes) in zip(at, states, strict=True):
        assert_same_numbers(g.activations[address], values, 1e-13)
        assert_same_numbers(g[address], slopes, 1e-12)
    return g


OPTIONS = {"return_sequences": True, "return_state": True, "name": "rnn"}
KINDS = {
    "lstm": (layers.LSTM, {}, ref.lstm, ["rnn:hidden", "rnn:cell"]),
    "lstm_unrolled": (layers.LSTM, {"unroll": True}, ref.lstm, ["rnn:hidden", "rnn:cell"]),
    "gru": (layers.GRU, {}, ref.gru, ["rnn:hidden"]),
    "gru_reset_before": (layers.GRU, {"reset_after": False}, ref.gru, ["rnn:hidden"]),
    "simple": (layers.SimpleRNN, {}, ref.simple, ["rnn:hidden"]),
}


@pytest.mark.parametrize("masked, backwards", [(False, False), (True, False), (True, True)])
@pytest.mark.parametrize("kind", KINDS)
def test_states_at_every_step(float64, kind, masked, backwards):
    make, options, step, at = KINDS[kind]
    rnn = make(UNITS, go_backwards=backwards, bias_initializer="random_normal", **options, **OPTIONS)
    x = draws(4, 5, 2)
    inputs = keras.Input((5, 2) if options.get("unroll") else (None, 2))
    if masked:  # one row whole, one with its end, one with its beginning and one with its middle padded
        x[1, 3:] = x[2, :2] = x[3, 2] = 0.0
    model = keras.Model(inputs, rnn(layers.Masking()(inputs) if masked else inputs))
    mask = (x != 0).any(-1) if masked else None
    expected = ref.run(step(rnn.cell), x, zeros(4, *[UNITS] * len(at)), score_of, mask, backwards)
    compare(model, x, expected, at=at)


def test_sequences_of_any_length(float64):
    rnn = layers.LSTM(UNITS, **OPTIONS)
    model = model_of(rnn)
    for length in (1, 4, 9):
        x = draws(2, length, 2)
        expected = ref.run(ref.lstm(rnn.cell), x, zeros(2, UNITS, UNITS), score_of)
        compare(model, x, expected, at=["rnn:hidden", "rnn:cell"])


def test_the_state_at_the_end_alone(float64):
    """A layer that returns its last output only."""
    rnn, last = layers.LSTM(UNITS, name="rnn"), layers.Dense(2, name="last")
    model = keras.Sequential([keras.Input((None, 2)), layers.Masking(), rnn, last])
    x = draws(3, 6, 2)
    x[1, 4:] = 0
    w, b = last.get_weights()

    def score(outputs, _):
        return (outputs[:, -1] @ w + b)[:, 1]

    mask = (x != 0).any(-1)
    _, result, states = ref.run(ref.lstm(rnn.cell), x, zeros(3, UNITS, UNITS), score, mask)
    g = gt.gradients(model, x, target=1, at=["rnn:hidden", "rnn:cell"])
    np.testing.assert_array_equal(g.outputs, model(x))
    assert_same_numbers(g.target, result, 1e-13)
    for address, (values, slopes) in zip(g, states, strict=True):
        assert_same_numbers(g.activations[address], values, 1e-13)
        assert_same_numbers(g[address], slopes, 1e-12)


def test_padded_ids(float64):
    """Token ids, an embedding that masks the zero, and a layer that gives zeros at padded steps."""
    embed = layers.Embedding(7, 2, mask_zero=True, name="embed", embeddings_initializer="random_normal")
    rnn = layers.GRU(UNITS, **OPTIONS)
    ids = keras.Input((None,), dtype="int32")
    model = keras.Model(ids, rnn(embed(ids)))
    rows = np.array([[3, 1, 6, 2], [5, 4, 0, 0]], np.int32)
    x = embed.get_weights()[0][rows]
    expected = ref.run(ref.gru(rnn.cell), x, zeros(2, UNITS), score_of, rows != 0)
    outputs, result, ((values, slopes),) = expected
    g = gt.gradients(model, rows, target=target_of, at=["embed", "rnn:hidden"])
    assert_same_numbers(g.outputs[0], outputs, 1e-13)
    assert_same_numbers(g.target, result, 1e-13)
    assert_same_numbers(g.activations["rnn:hidden"], values, 1e-13)
    assert_same_numbers(g["rnn:hidden"], slopes, 1e-12)

    def of_embedded(t):
        return ref.run(ref.gru(rnn.cell), t, zeros(2, UNITS), score_of, rows != 0)[1]

    assert_same_numbers(g["embed"], central_differences(of_embedded, x))


def test_stacked_cells(float64):
    cells = [layers.LSTMCell(UNITS), layers.GRUCell(2), layers.SimpleRNNCell(4), layers.LSTMCell(2)]
    rnn = layers.RNN(cells, return_sequences=True, name="rnn")
    x = keras.Input((None, 2))
    model = keras.Model(x, [rnn(layers.Masking()(x))])
    rows = draws(3, 4, 2)
    rows[1, 2:] = 0
    one, two, three, four = cells
    step = ref.stacked((ref.lstm(one), 2), (ref.gru(two), 1), (ref.simple(three), 1), (ref.lstm(four), 2))
    first = zeros(3, UNITS, UNITS, 2, 4, 2, 2)

    def score(outputs, _):
        return score_of(outputs, [outputs[:, -1]])

    outputs, result, (h1, c1, h2, h3, h4, c4) = ref.run(step, rows, first, score, (rows != 0).any(-1))
    with left_alone(model):
        g = gt.gradients(
            model, rows, target=lambda y: score(tf.nest.flatten(y)[0], None), at=["rnn:hidden", "rnn:cell"]
        )
    assert list(g["rnn:hidden"]) == ["0", "1", "2", "3"]
    np.testing.assert_allclose(tf.nest.flatten(g.outputs)[0], tf.nest.flatten(model(rows))[0], rtol=0, atol=1e-14)
    assert_same_numbers(tf.nest.flatten(g.outputs)[0], outputs, 1e-13)
    assert_same_numbers(g.target, result, 1e-13)
    named = {"hidden.0": h1, "hidden.1": h2, "hidden.2": h3, "hidden.3": h4, "cell.0": c1, "cell.1": c4}
    for side, (values, slopes) in named.items():
        assert_same_numbers(g.activations[f"rnn:{side}"], values, 1e-13)
        assert_same_numbers(g[f"rnn:{side}"], slopes, 1e-12)


def test_stacked_cells_of_one_state_each(float64):
    """Which are two hidden states, not a hidden and a cell one, also where the first ones are given flat."""
    cells = [layers.GRUCell(2), layers.SimpleRNNCell(2)]
    rnn = layers.RNN(cells, return_sequences=True, name="rnn")
    x, first = keras.Input((None, 2)), [keras.Input((2,)), keras.Input((2,))]
    model = keras.Model([x, *first], rnn(x, initial_state=first))
    rows, start = draws(3, 4, 2), [draws(3, 2, seed=1), draws(3, 2, seed=2)]
    step = ref.stacked((ref.gru(cells[0]), 1), (ref.simple(cells[1]), 1))

    def score(outputs, _):
        return score_of(outputs, [outputs[:, -1]])

    _, _, states = ref.run(step, rows, start, score)
    g = gt.gradients(model, [rows, *start], target=lambda y: score(y, None), at="rnn:hidden")
    for address, (values, slopes) in zip(["rnn:hidden.0", "rnn:hidden.1"], states, strict=True):
        assert_same_numbers(g.activations[address], values, 1e-13)
        assert_same_numbers(g[address], slopes, 1e-12)


@pytest.mark.parametrize("dimensions", [1, pytest.param(3, marks=pytest.mark.slow)])
def test_conv_lstm_of_one_and_three_dimensions(float64, dimensions):
    """Against gradients at its last output, which is its last hidden state, and central differences at the others."""
    make = {1: layers.ConvLSTM1D, 3: layers.ConvLSTM3D}[dimensions]
    model = model_of(make(2, 2, padding="same", **OPTIONS), (None, *[3] * dimensions, 1))
    rows = draws(2, 3, *[3] * dimensions, 1)
    at = ["rnn:hidden", "rnn:cell", "rnn:output.1"]
    g = gt.gradients(model, rows, target=target_of, at=at)
    for traced, eager in zip(g.outputs, model(rows), strict=True):
        np.testing.assert_allclose(traced, eager, rtol=0, atol=1e-14)
    np.testing.assert_array_equal(g.activations["rnn:hidden"], g.outputs[0])
    np.testing.assert_array_equal(g.activations["rnn:cell"][:, -1], g.outputs[2])
    for address in at[:2]:
        for t in range(3):
            v = draws(*g[address].shape, seed=3) * (np.arange(3) == t).reshape(-1, *[1] * (dimensions + 1))
            ends = [target_of(gt.patch(model, rows, {address: lambda s, e=e: s + e})) for e in (STEP * v, -STEP * v)]
            along = tf.reduce_sum(g[address] * v, list(range(1, v.ndim)))
            assert_same_numbers(along, (ends[0] - ends[1]) / (2 * STEP))


@pytest.mark.parametrize("masked", [False, True])
def test_conv_lstm(float64, masked):
    rnn = layers.ConvLSTM2D(2, 3, padding="same", recurrent_activation="sigmoid", **OPTIONS)
    x = keras.Input((None, 4, 4, 1))
    mask = keras.Input((None,), dtype="bool")
    rows = draws(2, 3, 4, 4, 1)
    steps = np.array([[True, True, True], [True, False, True]]) if masked else None
    model = keras.Model([x, mask] if masked else x, rnn(x, mask=mask) if masked else rnn(x))
    first = [np.zeros((2, 4, 4, 2))] * 2
    expected = ref.run(ref.conv_lstm(rnn.cell), rows, first, score_of, steps)
    outputs, result, states = expected
    at = ["rnn:hidden", "rnn:cell"]
    inputs = [rows, steps] if masked else rows
    g = gt.gradients(model, inputs, target=target_of, at=at)
    for traced, eager in zip(g.outputs, model(inputs), strict=True):
        np.testing.assert_allclose(traced, eager, rtol=0, atol=1e-14)
    assert_same_numbers(g.outputs[0], outputs, 1e-13)
    assert_same_numbers(g.target, result, 1e-13)
    for address, (values, slopes) in zip(at, states, strict=True):
        assert_same_numbers(g.activations[address], values, 1e-13)
        assert_same_numbers(g[address], slopes, 1e-12)


def test_bidirectional(float64):
    """Each direction has states of its own; those of the backward one stand in the order of the input's time.

    Keras makes the outputs at padded steps zero here.
    """
    both = layers.Bidirectional(layers.LSTM(UNITS, return_sequences=True), name="both")
    x = keras.Input((None, 2))
    model = keras.Model(x, both(layers.Masking()(x)))
    rows = draws(3, 4, 2)
    rows[1, 2:] = 0
    mask = (rows != 0).any(-1)
    on = mask[..., None].astype(float)
    ahead, back = both.forward_layer, both.backward_layer

    def score(outputs, k):
        flat = tf.reshape(outputs, [tf.shape(outputs)[0], -1])
        return tf.reduce_sum(tf.sin(flat * (k + 1.0)), 1)

    def target(y):
        return score(y[..., :UNITS], 0) + score(y[..., UNITS:], 1)

    first = zeros(3, UNITS, UNITS)
    found = [
        ref.run(ref.lstm(ahead.cell), rows, first, lambda y, _: score(y * on, 0), mask),
        ref.run(ref.lstm(back.cell), rows, first, lambda y, _: score(y[:, ::-1] * on, 1), mask, backwards=True),
    ]
    with left_alone(model):
        at = [f"both/{layer.name}:{side}" for layer in (ahead, back) for side in ("hidden", "cell")]
        g = gt.gradients(model, rows, target=target, at=at)
    np.testing.assert_allclose(g.outputs, model(rows), rtol=0, atol=1e-14)
    assert_same_numbers(g.outputs, on * np.concatenate([found[0][0], found[1][0][:, ::-1]], -1), 1e-13)
    for address, (values, slopes) in zip(at, [*found[0][2], *found[1][2]], strict=True):
        assert_same_numbers(g.activations[address], values, 1e-13)
        assert_same_numbers(g[address], slopes, 1e-12)


def test_encoder_and_decoder(float64):
    """The states of one layer begin the other: the encoder's are reached through the decoder's steps."""
    encoder = layers.LSTM(UNITS, return_state=True, name="encoder")
    decoder = layers.LSTM(UNITS, return_sequences=True, name="decoder")
    a, b = keras.Input((None, 2), name="a"), keras.Input((None, 2), name="b")
    _, h, c = encoder(a)
    model = keras.Model([a, b], decoder(b, initial_state=[h, c]))
    source, sink = draws(2, 4, 2), draws(2, 3, 2, seed=1)

    def rest(outputs, states):
        inner = []

        def step(x, old, keep, first=0):
            return ref.lstm(decoder.cell)(x, old, keep, first)

        for t in range(sink.shape[1]):
            _, states = step(tf.constant(sink[:, t]), states, lambda k, s: s)
            inner.append(states[0])
        return score_of(tf.stack(inner, 1), [inner[-1]])

    _, result, states = ref.run(ref.lstm(encoder.cell), source, zeros(2, UNITS, UNITS), rest)
    with left_alone(model):
        g = gt.gradients(
            model,
            [source, sink],
            target=lambda y: score_of(y, [y[:, -1]]),
            at=["encoder:hidden", "encoder:cell", "decoder:hidden", "decoder:cell"],
        )
    np.testing.assert_allclose(g.outputs, model([source, sink]), rtol=0, atol=1e-14)
    assert_same_numbers(g.target, result, 1e-13)
    for address, (values, slopes) in zip(["encoder:hidden", "encoder:cell"], states, strict=True):
        assert_same_numbers(g.activations[address], values, 1e-13)
        assert_same_numbers(g[address], slopes, 1e-12)
    ends = [g.activations["encoder:hidden"][:, -1].numpy(), g.activations["encoder:cell"][:, -1].numpy()]
    _, _, states = ref.run(ref.lstm(decoder.cell), sink, ends, lambda y, _: score_of(y, [y[:, -1]]))
    for address, (values, slopes) in zip(["decoder:hidden", "decoder:cell"], states, strict=True):
        assert_same_numbers(g.activations[address], values, 1e-13)
        assert_same_numbers(g[address], slopes, 1e-12)


def test_stateful_layers_go_on_from_their_state_and_keep_it(float64):
    rnn = layers.GRU(UNITS, stateful=True, name="rnn", return_sequences=True)
    model = keras.Sequential([keras.Input(batch_shape=(2, 4, 2)), rnn])
    x = draws(2, 4, 2)
    for _ in range(2):
        first = [np.array(s) for s in rnn.states]
        outputs, result, ((values, slopes),) = ref.run(
            ref.gru(rnn.cell), x, first, lambda y, _: score_of(y, [y[:, -1]])
        )
        with left_alone(model):
            g = gt.gradients(model, x, target=lambda y: score_of(y, [y[:, -1]]), at="rnn:hidden")
        np.testing.assert_array_equal(rnn.states[0], first[0])
        assert_same_numbers(g.outputs, outputs, 1e-13)
        assert_same_numbers(g.target, result, 1e-13)
        assert_same_numbers(g.activations.only, values, 1e-13)
        assert_same_numbers(g.only, slopes, 1e-12)
        np.testing.assert_allclose(g.outputs, model(x), rtol=0, atol=1e-14)
        assert not np.array_equal(rnn.states[0], first[0])


def test_a_layer_that_is_called_twice(float64):
    rnn = layers.GRU(2, return_sequences=True, name="rnn")
    x = keras.Input((None, 2))
    model = keras.Model(x, rnn(rnn(x)))
    rows = draws(2, 4, 2)
    g = gt.gradients(model, rows, target=lambda y: score_of(y, [y[:, -1]]), at=["rnn[0]:hidden", "rnn[1]:hidden"])
    middle = g.activations["rnn[0]:hidden"].numpy()
    _, _, ((values, slopes),) = ref.run(ref.gru(rnn.cell), middle, zeros(2, 2), lambda y, _: score_of(y, [y[:, -1]]))
    assert_same_numbers(g.activations["rnn[1]:hidden"], values, 1e-13)
    assert_same_numbers(g["rnn[1]:hidden"], slopes, 1e-12)

    def again(outputs, _):
        state, inner = [tf.zeros((2, 2), tf.float64)], []
        for t in range(outputs.shape[1]):
            y, state = ref.gru(rnn.cell)(outputs[:, t], state, lambda k, s: s)
            inner.append(y)
        return score_of(tf.stack(inner, 1), [inner[-1]])

    _, _, ((values, slopes),) = ref.run(ref.gru(rnn.cell), rows, zeros(2, 2), again)
    assert_same_numbers(middle, values, 1e-13)
    assert_same_numbers(g["rnn[0]:hidden"], slopes, 1e-12)


@pytest.mark.parametrize("length", [3, None])
def test_a_recurrent_layer_at_every_step_of_a_sequence(float64, length):
    """`TimeDistributed` calls its layer once for each step.

    Where the length is free Keras's own loop runs as often as there are examples; so it is traced for each length.
    """
    inner = layers.LSTM(UNITS, name="inner")
    model = keras.Sequential([keras.Input((length, 4, 2)), layers.TimeDistributed(inner, name="each")])
    x = draws(2, 3, 4, 2)
    g = gt.gradients(model, x, target=lambda y: tf.reduce_sum(tf.tanh(y), (1, 2)), at=[":input", "each"])
    np.testing.assert_allclose(g.outputs, model(x), rtol=0, atol=1e-14)
    flat = x.reshape(6, 4, 2)

    def score(y, _):
        return tf.reduce_sum(tf.tanh(y[:, -1]), -1)

    def of_input(t):
        return ref.run(ref.lstm(inner.cell), t, zeros(6, UNITS, UNITS), score)[1]

    assert_same_numbers(g[":input"], central_differences(of_input, flat).reshape(x.shape))
    if length is None:
        other = draws(3, 5, 4, 2)
        np.testing.assert_allclose(gt.activations(model, other, at="each").only, model(other), rtol=0, atol=1e-14)
    _, _, states = ref.run(ref.lstm(inner.cell), flat, zeros(6, UNITS, UNITS), score)
    with left_alone(model):
        g = gt.gradients(
            model,
            x,
            target=lambda y: tf.reduce_sum(tf.tanh(y), (1, 2)),
            at=["each/layer[*]:hidden", "each/inner[*]:cell"],
        )
    for side, (values, slopes) in zip(("hidden", "cell"), states, strict=True):
        for t in range(3):
            got = f"each/layer[{t}]:{side}"
            assert_same_numbers(g.activations[got], values.reshape(2, 3, 4, UNITS)[:, t], 1e-13)
            assert_same_numbers(g[got], slopes.reshape(2, 3, 4, UNITS)[:, t], 1e-12)


@pytest.mark.parametrize("training", [False, True])
def test_dropout_within_the_loop(float64, training):
    """The masks are drawn once for all steps; the tapped model draws those of the untapped one."""
    rnn = layers.LSTM(UNITS, dropout=0.4, recurrent_dropout=0.4, seed=3, **OPTIONS)
    model = model_of(rnn)
    x = draws(4, 5, 2)
    plain = gt.gradients(model, x, target=target_of, at=":input", training=training, seed=1)
    with left_alone(model):
        g = gt.gradients(model, x, target=target_of, at=[":input", "rnn:hidden", "rnn:cell"], training=training, seed=1)
    for one, other in zip(plain.outputs, g.outputs, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-14)
    assert_same_numbers(g[":input"], plain[":input"], 1e-12)
    assert_same_numbers(g.activations["rnn:hidden"], g.outputs[0], 1e-13)
    if not training:
        _, _, states = ref.run(ref.lstm(rnn.cell), x, zeros(4, UNITS, UNITS), score_of)
        for address, (_, slopes) in zip(("rnn:hidden", "rnn:cell"), states, strict=True):
            assert_same_numbers(g[address], slopes, 1e-12)
    else:
        g = gt.activations(model, x, at=["rnn:hidden", "rnn:cell"], training=True)
        np.testing.assert_allclose(g["rnn:hidden"], model(x, training=True)[0], rtol=0, atol=1e-14)


def test_zeros_for_padded_steps(float64):
    rnn = layers.SimpleRNN(UNITS, return_sequences=True, zero_output_for_mask=True, name="rnn")
    x = keras.Input((None, 2))
    model = keras.Model(x, rnn(layers.Masking()(x)))
    rows = draws(2, 4, 2)
    rows[1, 2:] = 0
    mask = (rows != 0).any(-1)

    def score(outputs, _):
        return tf.reduce_sum(tf.tanh(outputs) * mask[..., None], (1, 2))

    outputs, _, ((values, slopes),) = ref.run(ref.simple(rnn.cell), rows, zeros(2, UNITS), score, mask)
    g = gt.gradients(model, rows, target=lambda y: tf.reduce_sum(tf.tanh(y), (1, 2)), at="rnn:hidden")
    np.testing.assert_allclose(g.outputs, model(rows), rtol=0, atol=1e-14)
    assert_same_numbers(g.outputs, outputs * mask[..., None], 1e-13)
    assert_same_numbers(g.activations.only, values, 1e-13)
    assert_same_numbers(g.only, slopes, 1e-12)


def test_a_cell_of_ones_own(float64):
    """Any cell: one whose second state is what the step before was given, handed on as it is."""

    class Delayed(layers.Layer):
        def __init__(self, units):
            super().__init__()
            self.state_size = [units, units]
            self.output_size = units
            self.mix = layers.Dense(units)

        def build(self, shape):
            self.mix.build((None, shape[-1] + self.output_size))

        def call(self, x, states):
            h, slow = states
            new = tf.tanh(self.mix(tf.concat([x, h], -1)) + slow)
            return new * 2.0, [new, h]

    cell = Delayed(UNITS)
    rnn = layers.RNN(cell, return_sequences=True, name="rnn")
    model = model_of(rnn)
    x = draws(2, 4, 2)
    w, b = cell.mix.get_weights()

    def step(x, states, keep, first=0):
        h, slow = states
        new = keep(0, tf.tanh(tf.concat([x, h], -1) @ w + b + slow))
        return new * 2.0, [new, keep(1, tf.identity(h))]

    outputs, _, states = ref.run(step, x, zeros(2, UNITS, UNITS), lambda y, _: score_of(y, [y[:, -1]]))
    g = gt.gradients(model, x, target=lambda y: score_of(y, [y[:, -1]]), at=["rnn:hidden", "rnn:cell"])
    assert_same_numbers(g.outputs, outputs, 1e-13)
    for address, (values, slopes) in zip(g, states, strict=True):
        assert_same_numbers(g.activations[address], values, 1e-13)
        assert_same_numbers(g[address], slopes, 1e-12)


def test_states_are_listed():
    model = keras.Sequential([keras.Input((None, 2)), layers.LSTM(UNITS, name="rnn"), layers.Dense(1)])
    listed = {entry.address: entry for entry in gt.taps(model)}
    assert {"rnn:hidden", "rnn:cell"} <= set(listed)
    assert listed["rnn:cell"].reached
    assert listed["rnn:cell"].shape == (None, None, UNITS)
    with pytest.raises(gt.errors.SideError, match="no `cell`"):
        gt.gradients(
            keras.Sequential([keras.Input((None, 2)), layers.GRU(UNITS, name="rnn"), layers.Dense(1)]),
            np.ones((2, 4, 2)),
            at="rnn:cell",
        )


def test_a_thousand_steps_are_one_loop():
    """The graph of a long sequence is the graph of a short one."""
    sizes = []
    for length in (10, 1000):
        model = keras.Sequential([keras.Input((length, 2)), layers.LSTM(4, name="rnn"), layers.Dense(1)])
        trace = gt.trace(model)
        g = gt.gradients(trace, np.ones((1, length, 2)), at=["rnn:hidden", "rnn:cell"])
        assert g["rnn:cell"].shape == (1, length, 4)
        graph = trace.graphs.any_graph()
        sizes.append(len(graph.graph.get_operations()))
    assert sizes[0] == sizes[1]


def test_float32_outputs_are_those_of_the_model():
    rnn = layers.LSTM(8, return_sequences=True, name="rnn")
    model = keras.Sequential([keras.Input((None, 3)), layers.Masking(), rnn, layers.GRU(4, name="second")])
    x = draws(3, 7, 3).astype("float32")
    x[1, 4:] = 0
    g = gt.gradients(model, x, target=0, at=["rnn:hidden", "rnn:cell", "second:hidden"])
    np.testing.assert_allclose(g.outputs, model(x), rtol=0, atol=1e-7)


@pytest.mark.parametrize("compiled", [False, True])
def test_a_persistent_tape_follows_the_loop_behind_a_replaced_tap(compiled, float64):
    """The weights are handed through the loop as resources, and must be known there of what shape they are."""
    model, x = smooth("recurrent")
    value = draws(3, 4, 2, seed=1)

    def score(value):
        return gt.patch(model, x, {"tap": value})[:, 0]

    def slope(value):
        with tf.GradientTape(persistent=True) as tape:
            tape.watch(value)
            first = score(value)
        return tape.gradient(first, value)

    found = (tf.function(slope) if compiled else slope)(tf.constant(value))
    assert_same_numbers(found, central_differences(lambda v: score(v).numpy(), value))
