"""The case that gradtap was written for: the gradient of a class with respect to the activations inside a CNN."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

import gradtap as gt

TAPS = [":input", "conv1", "conv2"]


class CNN(keras.Model):
    """The model of the issue. It counts how often its Python runs, on the class: an attribute would be put back."""

    runs = 0

    def __init__(self):
        super().__init__()
        self.conv1 = keras.layers.Conv2D(32, 3, activation="relu", padding="same", name="conv1")
        self.pool1 = keras.layers.MaxPooling2D(name="pool1")
        self.conv2 = keras.layers.Conv2D(64, 3, activation="relu", padding="same", name="conv2")
        self.pool2 = keras.layers.MaxPooling2D(name="pool2")
        self.flatten = keras.layers.Flatten(name="flatten")
        self.dense1 = keras.layers.Dense(10, activation="softmax", name="dense1")

    def call(self, x):
        CNN.runs += 1
        x = self.pool1(self.conv1(x))
        x = self.pool2(self.conv2(x))
        return self.dense1(self.flatten(x))


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).random((3, 28, 28, 1), np.float32)


@pytest.fixture
def cnn(images):
    model = CNN()
    model(images)
    return model


def hand_written(model, images, k):
    """The forward pass restated under a tape; by address the gradients and the activations, and the score."""
    x = tf.convert_to_tensor(images)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(x)
        conv1 = model.conv1(x)
        conv2 = model.conv2(model.pool1(conv1))
        score = model.dense1(model.flatten(model.pool2(conv2)))[:, k]
    places = [x, conv1, conv2]
    return (
        dict(zip(TAPS, tape.gradient(score, places), strict=True)),
        dict(zip(TAPS, places, strict=True)),
        score,
    )


def test_one_line_gives_the_gradient_of_a_hand_written_tape(cnn, images):
    gradient = gt.gradients(cnn, images[:1], target=3, at="conv1")["conv1"]
    slopes, _, _ = hand_written(cnn, images[:1], 3)
    assert gradient.shape == (1, 28, 28, 32)
    assert gradient.dtype == tf.float32
    assert np.abs(slopes["conv1"]).max() > 1e-4
    np.testing.assert_array_equal(gradient, slopes["conv1"])


@pytest.mark.parametrize("batch", [1, 3])
def test_input_and_both_convolutions_at_once(cnn, images, batch):
    g = gt.gradients(cnn, images[:batch], target=3, at=TAPS)
    slopes, places, score = hand_written(cnn, images[:batch], 3)
    assert list(g) == TAPS
    for address in TAPS:
        np.testing.assert_array_equal(g[address], slopes[address])
        np.testing.assert_array_equal(g.activations[address], places[address])
    np.testing.assert_array_equal(g.target, score)
    np.testing.assert_array_equal(g.outputs, cnn(images[:batch]))


def test_the_models_python_runs_once_whatever_is_asked(cnn, images):
    before = CNN.runs
    gt.gradients(cnn, images, target=3, at=TAPS)
    assert CNN.runs == before + 1
    for target in (0, -1, "predicted", [1, 2, 3], lambda y: y[:, 0] - y[:, 1]):
        gt.gradients(cnn, images, target=target, at=TAPS)
        gt.gradients(cnn, images[:1], target=3, at="conv2:preactivation")
    gt.activations(cnn, images[:2], at="**")
    gt.gradients(cnn, images, target=gt.targets.class_score(3, logits=True), at="conv1", batch_size=2)
    assert CNN.runs == before + 1


def test_forward_and_backward_run_once_for_all_taps(cnn, images):
    ops = ops_in(lambda x: list(gt.gradients(cnn, x, target=3, at=TAPS).values()), images)
    assert ops.count("Conv2D") == 2
    assert ops.count("MaxPoolGrad") == 2
    assert ops.count("Conv2DBackpropInput") == 2
    assert "Conv2DBackpropFilter" not in ops


def test_what_is_before_the_first_tap_is_not_differentiated(cnn, images):
    ops = ops_in(lambda x: gt.gradients(cnn, x, target=3, at="conv2").only, images)
    assert ops.count("Conv2D") == 2
    assert ops.count("MaxPoolGrad") == 1
    assert ops.count("Conv2DBackpropInput") == 0


def test_new_weights_are_seen_at_once(cnn, images):
    first = gt.gradients(cnn, images, target=3, at="conv1").only
    before = CNN.runs
    cnn.conv2.kernel.assign(cnn.conv2.kernel * 0.5)
    cnn.dense1.set_weights([w + 0.25 for w in cnn.dense1.get_weights()])
    second = gt.gradients(cnn, images, target=3, at="conv1").only
    assert CNN.runs == before
    slopes, _, _ = hand_written(cnn, images, 3)
    np.testing.assert_array_equal(second, slopes["conv1"])
    assert np.abs(first - second).max() > 1e-4


def ops_in(function, x):
    """The types of all ops of a `tf.function`, those of the functions that it calls included."""
    graph = tf.function(function).get_concrete_function(tf.TensorSpec(x.shape, x.dtype)).graph.as_graph_def()
    return [node.op for body in (graph.node, *(f.node_def for f in graph.library.function)) for node in body]
