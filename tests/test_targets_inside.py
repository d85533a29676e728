"""Targets inside of a model: units, channels, and the difference of two targets."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers

import gradtap as gt
from gradtap import errors
from gradtap.targets import channel, class_score, contrast, loss, neuron
from reference import layers as ref
from reference.differences import assert_same_numbers, central_differences
from reference.models import draws, float64_policy
from reference.smooth import smooth

BATCH = 3


@pytest.fixture(scope="module")
def convolutional():
    """Two convolutions, and the second of them in NumPy as a function of the first one's activations."""
    keras.utils.set_random_seed(3)
    with float64_policy():
        first = layers.Conv2D(2, 2, activation="tanh", name="first")
        second = layers.Conv2D(3, 2, activation="sigmoid", name="second")
        head = [layers.Flatten(), layers.Dense(2, activation="softmax", name="scores")]
        model = keras.Sequential([keras.Input((4, 5, 1)), first, second, *head])
    return model, draws(BATCH, 4, 5, 1), lambda a: ref.sigmoid(ref.convolution(a, second))


def check(convolutional, target, by_hand, at="first", **options):
    """The target's value and its gradient against central differences of the second layer restated by hand."""
    model, x, second = convolutional
    a = gt.activations(model, x, at="first").only.numpy()
    g = gt.gradients(model, x, target=target, at=at, **options)
    assert_same_numbers(g.target, by_hand(second(a)), 1e-12)
    assert_same_numbers(g.only, central_differences(lambda a: by_hand(second(a)), a))


@pytest.mark.parametrize(
    ("index", "by_hand"),
    [
        ((1, 2, 0), lambda b: b[:, 1, 2, 0]),
        ((-1, -1, -1), lambda b: b[:, -1, -1, -1]),
        ((np.int64(0), slice(None), 2), lambda b: b[:, 0, :, 2].sum(1)),
        ((slice(None), slice(1, 3), slice(0, None, 2)), lambda b: b[:, :, 1:3, ::2].sum((1, 2, 3))),
        ((slice(None), slice(None), slice(None)), lambda b: b.sum((1, 2, 3))),
    ],
)
def test_units_and_sums_of_units(convolutional, index, by_hand):
    check(convolutional, neuron("second", index), by_hand)
    check(convolutional, neuron("second", index), by_hand, batch_size=2)


def test_a_unit_of_a_row_needs_no_tuple():
    model, x = smooth("dense")
    kernel = model.get_layer("scores").kernel.numpy()
    for k in (0, -1):
        g = gt.gradients(model, x, target=neuron("scores:preactivation", k), at="later").only
        np.testing.assert_allclose(g, np.tile(kernel[:, k], (3, 1)), rtol=1e-12)


@pytest.mark.parametrize("k", [0, 2, -1])
@pytest.mark.parametrize("reduce", ["mean", "sum", "max"])
def test_channels(convolutional, k, reduce):
    def by_hand(b):
        return getattr(b[..., k], reduce)((1, 2))

    check(convolutional, channel("second", k, reduce), by_hand)


def test_a_channel_of_a_row_and_of_a_sequence():
    model, x = smooth("dense")
    assert_same_numbers(
        gt.gradients(model, x, target=channel("later", 1), at="tap").only,
        gt.gradients(model, x, target=neuron("later", 1), at="tap").only,
        1e-13,
    )
    model, x = smooth("attention")
    values = gt.activations(model, x, at="later").only.numpy()
    g = gt.gradients(model, x, target=channel("later", 2), at="tap")
    assert_same_numbers(g.target, values[..., 2].mean(1), 1e-13)


def test_contrasts(convolutional):
    model, x, _ = convolutional
    slopes = [gt.gradients(model, x, target=k, at="first").only.numpy() for k in (0, 1)]
    assert_same_numbers(gt.gradients(model, x, target=contrast(0, 1), at="first").only, slopes[0] - slopes[1], 1e-12)
    each = contrast([0, 1, 0], [1, 0, 1])
    signs = np.array([1, -1, 1])[:, None, None, None]
    expected = signs * (slopes[0] - slopes[1])
    assert_same_numbers(gt.gradients(model, x, target=each, at="first").only, expected, 1e-12)
    assert_same_numbers(gt.gradients(model, x, target=each, at="first", batch_size=2).only, expected, 1e-12)
    mixed = contrast(neuron("second", (0, 0, 1)), contrast(channel("second", 2), neuron("second", (1, 1, 0))))
    check(convolutional, mixed, lambda b: b[:, 0, 0, 1] - b[..., 2].mean((1, 2)) + b[:, 1, 1, 0])
    labels = np.array([0, 1, 1])
    of_loss = contrast(loss("sparse_categorical_crossentropy", labels), lambda y: y[:, 0])
    a = gt.activations(model, x, at="scores:preactivation").only.numpy()

    def by_hand(z):
        p = ref.softmax(z)
        return -np.log(p[np.arange(BATCH), labels]) - p[:, 0]

    g = gt.gradients(model, x, target=of_loss, at="scores:preactivation")
    assert_same_numbers(g.only, central_differences(by_hand, a))


def test_logits_and_shared_calls():
    model, x = smooth("shared")
    g = gt.gradients(model, x, target=contrast(class_score(0, logits=True), class_score(2, logits=True)), at="later")
    kernel = model.get_layer("scores").kernel.numpy()
    np.testing.assert_allclose(g.only, np.tile(kernel[:, 0] - kernel[:, 2], (3, 1)), rtol=1e-12)
    twice = model.get_layer("twice")
    a = gt.activations(model, x, at="twice[0]").only.numpy()
    assert_same_numbers(
        gt.gradients(model, x, target=neuron("twice[1]", 2), at="twice[0]").only,
        central_differences(lambda a: np.tanh(ref.dense(a, twice))[:, 2], a),
    )


def test_states_of_a_recurrent_layer():
    model, x = smooth("recurrent")
    a = gt.activations(model, x, at="tap").only.numpy()

    def by_hand(a):
        return ref.lstm(a, model.get_layer("later"))[0][:, 2, 1]

    g = gt.gradients(model, x, target=neuron("later:hidden", (2, 1)), at="tap")
    assert_same_numbers(g.target, by_hand(a), 1e-12)
    assert_same_numbers(g.only, central_differences(by_hand, a))


def test_a_target_that_does_not_depend_on_the_tap(convolutional):
    model, x, _ = convolutional
    with pytest.raises(errors.UnconnectedTapError):
        gt.gradients(model, x, target=neuron("first", (0, 0, 0)), at="second")
    assert not np.any(gt.gradients(model, x, target=channel("first", 0), at="second", unconnected="zero").only)


@pytest.mark.parametrize(
    ("made", "error"),
    [
        (lambda: neuron("second", (0, 0)), errors.TargetTypeError),
        (lambda: neuron("second", (0, 0, 3)), errors.ClassRangeError),
        (lambda: neuron("second", (0, -4, 0)), errors.ClassRangeError),
        (lambda: neuron("second", 1.5), errors.TargetTypeError),
        (lambda: neuron("second", True), errors.TargetTypeError),
        (lambda: neuron("nowhere", 0), errors.UnknownTapError),
        (lambda: neuron(["first", "second"], (0, 0, 0)), errors.TargetTypeError),
        (lambda: channel("second", 3), errors.ClassRangeError),
        (lambda: channel("second", -4), errors.ClassRangeError),
        (lambda: channel("second", "a"), errors.TargetTypeError),
        (lambda: channel("second", 0, reduce="median"), errors.ArgumentError),
        (lambda: contrast(0, 7), errors.ClassRangeError),
        (lambda: contrast(0, {}), errors.TargetTypeError),
    ],
)
def test_mistakes_are_named(convolutional, made, error):
    model, x, _ = convolutional
    with pytest.raises(error):
        gt.gradients(model, x, target=made(), at="first")


def test_they_are_shown_as_they_were_asked():
    assert repr(contrast(3, channel("conv", 1))) == "contrast(class_score(3), channel('conv', 1, reduce='mean'))"
