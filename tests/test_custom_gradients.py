"""Models with `tf.custom_gradient` in them: what the model defines holds everywhere, under an outer tape too."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import gradtap as gt
from reference.differences import assert_same_numbers
from reference.models import draws


@tf.custom_gradient
def reversed_gradient(x):
    """The identity, with a gradient of twice the other sign and a term of the input."""
    return tf.identity(x), lambda slope: -2.0 * slope * tf.cos(x)


@tf.custom_gradient
def two_of_two(a, b):
    """Gradients that follow from neither formula, and one that is missing."""
    return (a * b, a + b), lambda first, second: (first * 3.0 + second * a, None)


def with_silu(x):
    return layers.Dense(5, activation="silu")(x)


def with_reversal(x):
    return layers.Lambda(reversed_gradient)(layers.Dense(5, activation="tanh")(x))


def with_two(x):
    a, b = layers.Dense(5, activation="tanh")(x), layers.Dense(5)(x)
    return layers.Lambda(lambda pair: tf.add(*two_of_two(*pair)))([a, b])


BODIES = [with_silu, with_reversal, with_two]


def model_of(body):
    x = keras.Input((4,), dtype="float64")
    return keras.Model(x, layers.Dense(2, name="last")(body(layers.Dense(4, name="first")(x))))


@pytest.mark.parametrize("body", BODIES, ids=lambda f: f.__name__)
def test_gradients_are_those_of_a_tape(body, float64):
    model, rows = model_of(body), tf.constant(draws(3, 4))
    with tf.GradientTape() as tape:
        tape.watch(rows)
        score = model(rows)[:, 1]
    expected = tape.gradient(score, rows)
    assert_same_numbers(gt.gradients(model, rows, target=1, at=":input").only, expected, 1e-13)


def test_an_op_that_deep_lift_marked_keeps_the_gradient_of_its_own(float64):
    model, rows = model_of(with_reversal), tf.constant(draws(3, 4))
    before = gt.gradients(model, rows, target=1, at=":input").only
    gt.attribution.deep_lift(model, rows, target=1)
    after = gt.gradients(model, rows, target=gt.targets.contrast(1, lambda y: 0.0 * y[:, 0]), at=":input").only
    assert_same_numbers(after, before, 1e-13)


@pytest.mark.parametrize("body", BODIES, ids=lambda f: f.__name__)
def test_an_outer_tape_meets_the_gradient_that_the_model_defines(body, float64):
    model, rows = model_of(body), tf.constant(draws(3, 4))
    with tf.GradientTape() as tape:
        score = tf.reduce_sum(model(rows) ** 2)
    expected = tape.gradient(score, model.trainable_variables)
    for _ in range(2):  # built once, then used again
        with tf.GradientTape() as tape:
            outputs = gt.gradients(model, rows, target=1, at="first").outputs
            score = tf.reduce_sum(outputs**2)
        for one, other in zip(tape.gradient(score, model.trainable_variables), expected, strict=True):
            if other is None:  # what the model says has no gradient
                assert one is None or not np.any(one)
            else:
                assert_same_numbers(one, other, 1e-13)


def test_an_attribution_through_silu_as_a_loss(float64):
    """Second order: against differences of first derivatives."""
    model, rows = model_of(with_silu), tf.constant(draws(3, 4))
    kernel = model.get_layer("first").kernel

    def loss():
        return tf.reduce_sum(gt.gradients(model, rows, target=1, at=":input").only ** 2)

    with tf.GradientTape() as tape:
        value = loss()
    slope = tape.gradient(value, kernel.value)
    way = draws(*kernel.shape, seed=5)
    ends = []
    for sign in (1, -1):
        kernel.assign_add(sign * 1e-6 * way)
        ends.append(loss())
        kernel.assign_add(-sign * 1e-6 * way)
    np.testing.assert_allclose(tf.reduce_sum(slope * way), (ends[0] - ends[1]) / 2e-6, rtol=1e-6)


def test_a_cut_behind_a_check_of_the_inputs(float64):
    """What runs only for its own sake before a cut is gone with what comes before it."""

    def checked(x):
        with tf.control_dependencies([tf.debugging.assert_less(tf.reduce_max(tf.abs(x)), tf.constant(9.0, x.dtype))]):
            return tf.tanh(x)

    x = keras.Input((4,), dtype="float64")
    hidden = layers.Lambda(checked, name="checked")(x)
    model = keras.Model(x, layers.Dense(2)(layers.Lambda(checked)(layers.Dense(4, name="tap")(hidden))))
    rows = draws(3, 4)
    found = gt.attribution.integrated_gradients(model, rows, target=1, at=["tap", "checked"], steps=20)
    for address in found:
        assert np.max(np.abs(found.delta[address])) < 1e-9
    rest = gt.trace(model).suffix("tap", rows)
    np.testing.assert_allclose(rest(gt.activations(model, rows, at="tap").only), model(rows), rtol=1e-12)
