"""Second derivatives that TensorFlow gets wrong, or does not have."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import gradtap as gt
from gradtap import errors
from reference.differences import assert_same_numbers, directional_difference
from reference.models import draws, float64_policy


def second(model, x, target=0, scale=1.0):
    """hvp at the input of a function against differences of its gradients there."""
    v = draws(*x.shape, seed=5)
    hv = gt.hvp(model, x, v, target=target, at=":input").only
    gradient = directional_difference(lambda x: gt.gradients(model, x, target=target, at=":input").only.numpy(), x, v)
    assert_same_numbers(hv, gradient, 2e-7 * scale)


def normal(x, name=None):
    mean, variance = tf.nn.moments(x, [1], keepdims=True, name=name)
    return (x - mean) / tf.sqrt(variance + 0.1)


@pytest.mark.parametrize(
    "model",
    [
        lambda x: normal(tf.tanh(normal(x))),
        lambda x: normal(tf.tanh(normal(x, name="first")), name="second"),
        lambda x: tf.cond(tf.reduce_sum(x) > -1e9, lambda: normal(x), lambda: x),
    ],
    ids=["twice", "named", "branch"],
)
def test_moments_by_any_name(model):
    second(model, draws(2, 4))


class NormalisedCell(layers.Layer):
    """A recurrent cell with a normalisation inside, and so inside of a loop."""

    state_size = output_size = 3

    def __init__(self):
        super().__init__()
        self.into, self.norm = layers.Dense(3), layers.LayerNormalization()

    def build(self, shape):
        self.into.build((None, 5))
        self.norm.build((None, 3))

    def call(self, x, states):
        h = self.norm(keras.ops.tanh(self.into(keras.ops.concatenate([x, states[0]], -1))))
        return h, [h]


def test_moments_inside_of_a_loop():
    with float64_policy():
        model = keras.Sequential([keras.Input((2, 2)), layers.RNN(NormalisedCell())])
    model.layers[0].cell.into.kernel.assign(draws(5, 3))
    second(model, draws(2, 2, 2))


def test_a_stop_gradient_of_the_users_own_is_respected():
    x, v = draws(2, 4), draws(2, 4, seed=1)
    with pytest.warns(errors.NoCurvatureWarning, match="held"):
        held = gt.hvp(lambda x: tf.reduce_sum(x * tf.stop_gradient(x**2), 1), x, v, at=":input").only
    assert not np.any(held)

    def own(x):
        return tf.reduce_sum((x - tf.stop_gradient(tf.reduce_mean(x, 1, keepdims=True))) ** 2, 1)

    assert_same_numbers(gt.hvp(own, x, v, at=":input").only, 2 * v, 1e-13)
    both = gt.hvp(
        lambda x: own(normal(x) * 0 + x) + tf.reduce_sum(normal(x) * tf.stop_gradient(x), 1), x, v, at=":input"
    )
    true = gt.hvp(lambda x: tf.reduce_sum(normal(x) * tf.constant(draws(2, 4)), 1), x, v, at=":input").only
    assert_same_numbers(both.only, 2 * v + true, 1e-12)


def resized(method):
    return lambda x: tf.reduce_sum(tf.tanh(tf.image.resize(tf.cast(x, tf.float32), (5, 7), method)) ** 2, [1, 2, 3])


@pytest.mark.parametrize("method", ["nearest", "bilinear", "bicubic", "lanczos3"])
def test_through_a_resizing(method):
    model, x, v = resized(method), draws(2, 3, 3, 1), draws(2, 3, 3, 1, seed=1)
    hv = gt.hvp(model, x, v, at=":input").only.numpy()

    def gradient(x):
        return gt.gradients(model, x, at=":input").only.numpy()

    assert_same_numbers(hv, (gradient(x + 1e-2 * v) - gradient(x - 1e-2 * v)) / 2e-2, 2e-3)  # it is of float32
    u, of = draws(2, 5, 7, 1), lambda x: tf.image.resize(tf.cast(x, tf.float32), (5, 7), method)
    right, left = gt.jvp(of, x, v, at=":input").only, gt.vjp(of, x, u, at=":input").only
    np.testing.assert_allclose(right, of(v), rtol=1e-5, atol=1e-6)  # a resizing is linear
    assert_same_numbers(np.sum(left * v), np.sum(u * right), 1e-5)


def test_through_softsign():
    second(lambda x: tf.reduce_sum(tf.nn.softsign(x) ** 3, 1), draws(2, 4), None)
    with float64_policy():
        model = keras.Sequential([keras.Input((2, 2)), layers.SimpleRNN(2, activation="softsign")])
    second(model, draws(2, 2, 2))


def test_where_tensorflow_has_no_second_derivative_it_is_named():
    def model(x):
        return tf.reduce_sum(tf.nn.local_response_normalization(x), [1, 2, 3])

    x = draws(1, 2, 2, 3).astype("float32")
    gt.gradients(model, x, at=":input")
    for call in (lambda: gt.hvp(model, x, x, at=":input"), lambda: gt.jvp(model, x, x, at=":input")):
        with pytest.raises(errors.NonDifferentiableError, match="LRNGrad"):
            call()
