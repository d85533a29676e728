"""Guided back-propagation and the deconvolution against clones whose rectifiers have gradients of their own."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import gradtap as gt
from gradtap import attribution
from reference import attributions as restated
from reference.differences import assert_same_numbers
from reference.models import draws, float64_policy

METHODS = ["guided_backprop", "deconvnet"]
#: The op keeps it in float32, so a number that is exact there.
LEAK = 0.25


def rectifier(method, top=np.inf, leak=0.0):
    """A rectifier with the rule of a method in the place of its derivative."""

    @tf.custom_gradient
    def rectified(z):
        def back(g):
            passed = tf.where(g > 0, g, tf.zeros_like(g))
            if method == "deconvnet":
                return passed
            on = tf.logical_and(z > 0, z < top)
            return tf.where(on, passed, leak * passed)

        return tf.minimum(tf.where(z > 0, z, leak * z), top), back

    return rectified


class KerasOps(layers.Layer):
    """`keras.ops.relu`."""

    def call(self, x):
        return keras.ops.relu(x)


class TensorFlow(layers.Layer):
    """`tf.nn.relu`."""

    def call(self, x):
        return tf.nn.relu(x)


#: How a rectifier is written; where it saturates; how much it leaks.
FORMS = {
    "layer": (lambda: layers.ReLU(), np.inf, 0.0),
    "activation_layer": (lambda: layers.Activation("relu"), np.inf, 0.0),
    "keras_ops": (KerasOps, np.inf, 0.0),
    "tensorflow": (TensorFlow, np.inf, 0.0),
    "six": (lambda: layers.Activation("relu6"), 6.0, 0.0),
    "six_by_the_layer": (lambda: layers.ReLU(max_value=6.0), 6.0, 0.0),
    "leaky": (lambda: layers.LeakyReLU(negative_slope=LEAK), np.inf, LEAK),
    "leaky_by_the_layer": (lambda: layers.ReLU(negative_slope=LEAK), np.inf, LEAK),
}


def expected(model_of, method, form, x):
    """The gradient at the input of the clone, by a tape."""
    _, top, leak = FORMS[form]
    clone = model_of(lambda: layers.Lambda(rectifier(method, top, leak)))
    with tf.GradientTape() as tape:
        inputs = tf.constant(x)
        tape.watch(inputs)
        score = clone(inputs)[:, 1]
    return tape.gradient(score, inputs).numpy(), score.numpy()


def convolutional(rectified):
    keras.utils.set_random_seed(0)
    with float64_policy():
        made = [layers.Conv2D(4, 2), rectified(), layers.Conv2D(3, 2), rectified(), layers.Flatten(), layers.Dense(3)]
        model = keras.Sequential([keras.Input((5, 5, 2)), *made])
    for i, weight in enumerate(model.weights):
        weight.assign(1.5 * draws(*weight.shape, seed=i))
    return model


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_a_rectifier(form):
    model, x = convolutional(FORMS[form][0]), 2 * draws(3, 5, 5, 2)
    plain = gt.gradients(model, x, target=1, at=":input").only.numpy()
    seen = [plain]
    for method in METHODS:
        own, score = expected(convolutional, method, form, x)
        np.testing.assert_allclose(model(x)[:, 1], score, rtol=1e-12)
        found = getattr(attribution, method)(model, x, target=1).only
        assert_same_numbers(found, own, 1e-12)
        seen.append(found.numpy())
    # The rules differ from the derivative and from each other, and leave the derivative as it was.
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert np.max(np.abs(seen[one] - seen[other])) > 1e-2 * np.max(np.abs(plain))
    np.testing.assert_array_equal(gt.gradients(model, x, target=1, at=":input").only, plain)
    np.testing.assert_array_equal(attribution.saliency(model, x, target=1).only, plain)


@pytest.mark.parametrize("method", METHODS)
def test_rectifiers_inside_of_layers(method):
    def dense(activation):
        keras.utils.set_random_seed(3)
        with float64_policy():
            made = [
                layers.Conv1D(4, 2, activation=activation()),
                layers.Flatten(),
                layers.Dense(5, activation=activation()),
            ]
            return keras.Sequential([keras.Input((6, 2)), *made, layers.Dense(3)])

    x = 2 * draws(4, 6, 2)
    clone = dense(lambda: rectifier(method))
    with tf.GradientTape() as tape:
        inputs = tf.constant(x)
        tape.watch(inputs)
        score = clone(inputs)[:, 1]
    found = getattr(attribution, method)(dense(lambda: "relu"), x, target=1).only
    assert_same_numbers(found, tape.gradient(score, inputs), 1e-12)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("unroll", [False, True], ids=["loop", "unrolled"])
def test_rectifiers_inside_of_loops(method, unroll):
    def recurrent(activation, unroll):
        keras.utils.set_random_seed(3)
        with float64_policy():
            rnn = layers.SimpleRNN(4, activation=activation, unroll=unroll)
            model = keras.Sequential([keras.Input((5, 2)), rnn, layers.Dense(3)])
        for i, weight in enumerate(model.weights):
            weight.assign(0.8 * draws(*weight.shape, seed=i))
        rnn.cell.recurrent_kernel.assign(np.abs(rnn.cell.recurrent_kernel))  # else nothing gets through every step
        rnn.cell.bias.assign(np.full(4, 0.5))
        return model

    x = draws(4, 5, 2)
    clone = recurrent(rectifier(method), True)
    with tf.GradientTape() as tape:
        inputs = tf.constant(x)
        tape.watch(inputs)
        score = clone(inputs)[:, 1]
    model = recurrent("relu", unroll)
    plain = gt.gradients(model, x, target=1, at=":input").only
    found = getattr(attribution, method)(model, x, target=1).only
    assert_same_numbers(found, tape.gradient(score, inputs), 1e-12)
    assert np.max(np.abs(plain - found)) > 1e-2 * np.max(np.abs(plain))
    np.testing.assert_array_equal(gt.gradients(model, x, target=1, at=":input").only, plain)


def test_other_activations_keep_their_derivative():
    with float64_policy():
        made = [layers.Dense(6, activation=name) for name in ("gelu", "tanh", "softplus")]
        model = keras.Sequential([keras.Input((3,)), *made, layers.Dense(2)])
    g = gt.gradients(model, draws(3, 3), target=1, at=":input").only
    for method in METHODS:
        assert_same_numbers(getattr(attribution, method)(model, draws(3, 3), target=1).only, g, 1e-13, 1e-5)


def test_one_trace_serves_all_and_nothing_leaks():
    runs = []

    class Counted(keras.Model):
        def __init__(self):
            super().__init__()
            self.conv, self.head = layers.Conv2D(3, 2, activation="relu"), layers.Dense(2)

        def call(self, x):
            runs.append(1)
            return self.head(layers.Flatten()(self.conv(x)))

    keras.utils.set_random_seed(0)
    with float64_policy():
        model = Counted()
        x = draws(2, 4, 4, 1)
        model(x)
    runs.clear()
    before = gt.gradients(model, x, target=1, at=[":input", "conv"])
    hessian = gt.hvp(model, x, x, target=lambda y: y[:, 1] ** 2, at=":input").only
    for method in METHODS:
        assert np.max(np.abs(getattr(attribution, method)(model, x, target=1).only - before[":input"])) > 1e-3
    # What is built next, with no word about rules, has the derivative: a leak would show before a call that clears it.
    plain = before[":input"].numpy()
    assert_same_numbers(gt.vjp(model, x, np.array([[0.0, 1.0]] * 2), at=":input").only, plain, 1e-13)
    attribution.guided_grad_cam(model, x, target=1, at="conv")
    end = {"steps": 1, "rule": "riemann_right", "multiply": False}
    assert_same_numbers(attribution.integrated_gradients(model, x, target=1, **end).only, plain, 1e-13)
    after = gt.gradients(model, x, target=1, at=[":input", "conv"])
    for address in before:
        np.testing.assert_array_equal(before[address], after[address])
    assert_same_numbers(gt.hvp(model, x, x, target=lambda y: y[:, 1] ** 2, at=":input").only, hessian, 1e-13)
    assert len(runs) == 1

    # A backward graph that is built anew after the rules were in force, and one by an outer tape.
    other = gt.gradients(model, x, target=lambda y: 2 * y[:, 1], at=":input").only
    assert_same_numbers(other, 2 * before[":input"].numpy(), 1e-13)
    with tf.GradientTape() as tape:
        inputs = tf.constant(x)
        tape.watch(inputs)
        outputs = gt.gradients(model, inputs, target=1, at=":input").outputs[:, 1]
    assert_same_numbers(tape.gradient(outputs, inputs), before[":input"].numpy(), 1e-13)


def test_an_outer_tape_differentiates_what_ran():
    model, x = convolutional(FORMS["layer"][0]), tf.constant(draws(1, 5, 5, 2))
    weights = model.layers[-1].kernel
    with tf.GradientTape() as tape:
        tape.watch(x)
        loss = tf.reduce_sum(attribution.guided_backprop(model, x, target=1).only ** 2)
    slope = tape.gradient(loss, weights.value).numpy()

    def value(kernel):
        before = weights.numpy()
        weights.assign(kernel)
        found = np.sum(attribution.guided_backprop(model, x, target=1).only.numpy() ** 2)
        weights.assign(before)
        return found

    direction = draws(*weights.shape, seed=9)
    step = 1e-6
    difference = (value(weights.numpy() + step * direction) - value(weights.numpy() - step * direction)) / (2 * step)
    assert abs(np.sum(slope * direction) - difference) < 1e-6 * abs(difference)


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear"])
def test_guided_grad_cam(interpolation):
    keras.utils.set_random_seed(1)
    with float64_policy():
        conv = layers.Conv2D(3, 2, activation="relu", name="conv")
        made = [conv, layers.MaxPooling2D(name="pool"), layers.GlobalAveragePooling2D(), layers.Dense(3)]
        model = keras.Sequential([keras.Input((6, 7, 2)), *made])
    x = draws(4, 6, 7, 2)
    guided = attribution.guided_backprop(model, x, target=1).only.numpy()
    g = gt.gradients(model, x, target=1, at=["conv", "pool"])
    found = attribution.guided_grad_cam(model, x, target=1, at=["conv", "pool"], interpolation=interpolation)
    for address in ("conv", "pool"):
        a, by = g.activations[address].numpy(), g[address].numpy()
        maps = [restated.class_map("grad_cam", one, slope) for one, slope in zip(a, by, strict=True)]
        large = np.stack([restated.upsampled(one, (6, 7), interpolation) for one in maps])
        assert_same_numbers(found[address], guided * large[..., None], 1e-12)
