"""States of recurrent layers that are replaced: by arrays at every step, by functions where these change them."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import gradtap as gt
from reference import recurrent as ref
from reference.differences import STEP, assert_same_numbers
from reference.models import draws, float64_policy

UNITS = 3


def score(outputs, _=None):
    flat = tf.reshape(outputs, [tf.shape(outputs)[0], -1])
    return tf.reduce_sum(tf.tanh(flat) * tf.cos(tf.cast(tf.range(tf.shape(flat)[1]), flat.dtype)), 1)


def made(kind, masked=False, backwards=False):
    with float64_policy():
        rnn = kind(UNITS, return_sequences=True, go_backwards=backwards, name="rnn")
        x = keras.Input((None, 2))
        model = keras.Model(x, rnn(layers.Masking()(x) if masked else x))
    rows = draws(3, 5, 2)
    if masked:
        rows[1, 3:] = rows[2, 1] = 0
    return model, rnn, rows, (rows != 0).any(-1) if masked else None


@pytest.mark.parametrize("masked, backwards", [(False, False), (True, True)])
@pytest.mark.parametrize("kind, step, count", [(layers.LSTM, ref.lstm, 2), (layers.GRU, ref.gru, 1)])
def test_an_array_is_the_state_at_every_step(kind, step, count, masked, backwards):
    """Against an eager loop whose hidden states are what they are told to be."""
    model, rnn, rows, mask = made(kind, masked, backwards)
    value = draws(3, 5, UNITS, seed=3)
    outputs = gt.patch(model, rows, {"rnn:hidden": value})
    order = range(5)[::-1] if backwards else range(5)
    states, expected, last = [tf.zeros((3, UNITS), tf.float64)] * count, [], np.zeros((3, UNITS))
    for t in order:
        given = tf.constant(value[:, t])
        found, new = step(rnn.cell)(tf.constant(rows[:, t]), states, lambda k, s, given=given: given if k == 0 else s)
        on = np.ones(3, bool) if mask is None else mask[:, t]
        last = np.where(on[:, None], found, last)
        cells = [tf.where(on[:, None], n, o) for n, o in zip(new[1:], states[1:], strict=True)]
        states = [given, *cells]
        expected.append(last)
    assert_same_numbers(outputs, np.stack(expected, 1), 1e-13)
    assert np.max(np.abs(outputs - model(rows))) > 0.1


@pytest.mark.parametrize("masked, backwards", [(False, False), (True, False), (False, True)])
@pytest.mark.parametrize("kind", [layers.LSTM, layers.GRU, layers.SimpleRNN])
def test_a_function_changes_entries_and_later_steps_follow(kind, masked, backwards):
    """So the central difference at one entry is the gradient there, back-propagated through time."""
    model, _, rows, _ = made(kind, masked, backwards)
    at = ["rnn:hidden", "rnn:cell"][: 1 + (kind is layers.LSTM)]
    g = gt.gradients(model, rows, target=score, at=at)
    np.testing.assert_array_equal(gt.patch(model, rows, {a: lambda s: s for a in at}), g.outputs)
    for address in at:
        for t in range(5):
            step = np.zeros((3, 5, UNITS))
            step[:, t, t % UNITS] = STEP
            ends = [score(gt.patch(model, rows, {address: lambda s, e=e: s + e})) for e in (step, -step)]
            slope = (ends[0] - ends[1]) / (2 * STEP)
            assert_same_numbers(g[address][:, t, t % UNITS], slope)


def test_a_unit_that_is_silenced_is_so_at_every_step():
    model, rnn, rows, _ = made(layers.GRU)
    silent = np.array([1.0, 0.0, 1.0])
    outputs = gt.patch(model, rows, {"rnn:hidden": lambda h: h * silent})
    (h,), expected = [tf.zeros((3, UNITS), tf.float64)], []
    for t in range(5):
        h, _ = ref.gru(rnn.cell)(tf.constant(rows[:, t]), [h], lambda _, s: s * silent)
        expected.append(h)
    assert_same_numbers(outputs, np.stack(expected, 1), 1e-13)


def test_both_states_parts_of_a_batch_and_one_row_for_all():
    model, _, rows, _ = made(layers.LSTM)
    value = draws(1, 5, UNITS, seed=4)
    both = {"rnn:cell": value, "rnn:hidden": lambda h: 0.5 * h}
    whole = gt.patch(model, rows, both)
    assert_same_numbers(gt.patch(model, rows, both, batch_size=2), whole, 1e-13)
    assert_same_numbers(gt.patch(model, rows[1:2], both), whole[1:2], 1e-13)
    ids = {"rnn:hidden": np.repeat(value, 3, 0)}
    assert_same_numbers(gt.patch(model, rows, ids), np.repeat(value, 3, 0), 1e-14)
    with pytest.raises(gt.errors.ModelRunError):
        gt.patch(model, rows, {"rnn:hidden": value[:, :4]})
