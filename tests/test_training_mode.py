"""``training=True``: the draws of dropout, the statistics of the batch, and a model in which nothing changes."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import gradtap as gt
from reference.differences import assert_same_numbers, central_differences
from reference.models import draws, policy


def noisy():
    """Two dropouts with seeds of their own, one without, noise, and a layer that is called twice."""
    x = keras.Input((20,))
    h = layers.Dropout(0.5, seed=1, name="first")(x)
    twice = layers.Dropout(0.3, name="twice")
    h = layers.GaussianNoise(0.1, seed=2, name="noise")(
        twice(twice(layers.Dense(16, activation="tanh", name="inner")(h)))
    )
    return keras.Model(x, layers.Dense(2, name="last")(layers.GaussianDropout(0.2, name="last_drop")(h)))


def state_of(model):
    return [np.array(v) for v in model.variables]


def assert_same_state(before, model):
    for one, other in zip(before, model.variables, strict=True):
        np.testing.assert_array_equal(one, other)


def test_without_a_seed_the_draws_are_the_models_next_ones(float64):
    model, x = noisy(), draws(3, 20)
    for _ in range(3):  # each call of the model moves its generators on, ours does not
        before = state_of(model)
        g = gt.gradients(model, x, target=1, at=[":input", "inner", "twice[1]"], training=True)
        again = gt.gradients(model, x, target=1, at=":input", training=True)
        assert_same_state(before, model)
        np.testing.assert_array_equal(again.only, g[":input"])
        np.testing.assert_allclose(g.outputs, model(x, training=True), rtol=0, atol=1e-14)
    assert not np.array_equal(g.outputs, gt.gradients(model, x, target=1, at=":input", training=True).outputs)


def test_gradients_are_those_of_the_masks_that_were_drawn(float64):
    model, x = noisy(), draws(3, 20)
    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    g = gt.gradients(model, x, target=1, at=":input", training=True)
    with tf.GradientTape() as tape:
        inputs = tf.constant(x)
        tape.watch(inputs)
        y = model(inputs, training=True)
        score = tf.reduce_sum(y[:, 1])
    assert_same_numbers(g.outputs, y, 1e-14)
    assert_same_numbers(g.only, tape.gradient(score, inputs), 1e-13)


def test_a_seed_draws_masks_of_its_own(float64):
    model, x = noisy(), draws(3, 20)
    before = state_of(model)
    one, same, other = (
        gt.gradients(model, x, target=1, at=[":input", "first"], training=True, seed=s) for s in (5, 5, 6)
    )
    assert_same_state(before, model)
    np.testing.assert_array_equal(one[":input"], same[":input"])
    assert not np.array_equal(one[":input"], other[":input"])
    # Half of the inputs are dropped, the rest is doubled, and no gradient comes through what is dropped.
    dropped = one.activations["first"].numpy() == 0
    assert 0.2 < dropped.mean() < 0.8
    np.testing.assert_allclose(one.activations["first"].numpy()[~dropped], 2 * x[~dropped], atol=1e-14)
    np.testing.assert_array_equal(one[":input"].numpy() == 0, dropped)
    # The model's own draws do not move what a seed gives.
    model(x, training=True)
    np.testing.assert_array_equal(
        one[":input"], gt.gradients(model, x, target=1, at=":input", training=True, seed=5).only
    )


def test_seeds_average_to_the_mean(float64):
    """Masks of different seeds are independent: their mean comes near the model without dropout."""
    last = layers.Dense(2, name="last")
    model = keras.Sequential([keras.Input((50,)), layers.Dropout(0.5, name="drop"), last])
    x = np.ones((1, 50))
    trace = gt.trace(model)
    found = [gt.gradients(trace, x, target=1, at=":input", training=True, seed=s).only for s in range(60)]
    expected = np.asarray(last.kernel)[None, :, 1]
    assert np.abs(np.mean(found, 0) / expected - 1).mean() < 0.2


def test_statistics_of_the_batch(float64):
    """What batch normalisation and its relatives do in training, and no moving average moves."""
    batch, last = layers.BatchNormalization(name="batch"), layers.Dense(2, activation="tanh", name="last")
    model = keras.Sequential([keras.Input((3,)), batch, layers.LayerNormalization(name="layer"), last])
    x = draws(5, 3)
    before = state_of(model)
    g = gt.gradients(model, x, target=1, at=[":input", "batch", "layer"], training=True)
    assert_same_state(before, model)
    kernel, bias = (np.asarray(w) for w in last.weights)

    def normal(t, axis, epsilon):
        return (t - t.mean(axis, keepdims=True)) / np.sqrt(t.var(axis, keepdims=True) + epsilon)

    def after_batch(t):
        return np.tanh(normal(t, 1, 1e-3) @ kernel + bias)[:, 1]

    inner = normal(x, 0, batch.epsilon)
    assert_same_numbers(g.activations["batch"], inner, 1e-12)
    assert_same_numbers(g["batch"], central_differences(after_batch, inner))

    def total(t):
        return after_batch(normal(t.reshape(5, 3), 0, batch.epsilon)).sum(keepdims=True)

    assert_same_numbers(g[":input"], central_differences(total, x.reshape(1, 15)).reshape(5, 3))
    np.testing.assert_array_equal(g.outputs, gt.gradients(model, x, target=1, at=":input", training=True).outputs)
    assert not np.allclose(g.outputs, model(x))
    np.testing.assert_allclose(g.outputs, model(x, training=True), rtol=0, atol=1e-14)  # moves the averages, as it may
    assert not np.array_equal(before[2], np.array(batch.moving_mean))


def test_layers_that_train_otherwise(float64):
    """A branch taken in training alone, spectral normalisation, an activity regulariser, a metric."""

    class Odd(layers.Layer):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.count = self.add_weight(shape=(), initializer="zeros", trainable=False)
            self.only_training = layers.Dense(3, name="only")
            self.only_training.build((None, 3))

        def call(self, x, training=False):
            if training:
                self.count.assign_add(1.0)
                self.add_loss(tf.reduce_sum(x))
                return self.only_training(x)
            return x

    normal = layers.SpectralNormalization(layers.Dense(3, activity_regularizer="l2"), name="normal")
    model = keras.Sequential([keras.Input((4,)), normal, Odd(name="odd"), layers.Dense(2, name="last")])
    x = draws(3, 4)
    before = state_of(model)
    names = [sorted(vars(layer)) for layer in model._flatten_layers()]
    losses = len(model.losses)
    g = gt.gradients(model, x, target=1, at=["normal", "odd", "odd/only_training"], training=True)
    assert_same_state(before, model)
    assert names == [sorted(vars(layer)) for layer in model._flatten_layers()]
    assert len(model.losses) == losses
    assert_same_numbers(g["odd"], g["odd/only_training"], 1e-15)
    np.testing.assert_allclose(g.outputs, model(x, training=True), rtol=0, atol=1e-14)
    assert float(next(iter(model.get_layer("odd").weights)).numpy()) == 1.0
    with pytest.raises(gt.errors.TapNotRunError, match="only_training"):
        gt.gradients(model, x, target=1, at="odd/only_training")


class TrainingAlone(layers.Layer):
    """Holds a layer that makes its weights when it runs, which it does in training alone."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.rare = layers.Dense(4)

    def call(self, x, training=False):
        return self.rare(x) if training else x


@pytest.mark.filterwarnings("ignore:`build\\(\\)` was called on layer:UserWarning")
def test_a_layer_that_is_built_in_training_alone(float64):
    model = keras.Sequential([keras.Input((4,)), TrainingAlone(name="odd"), layers.Dense(2, name="last")])
    x = draws(3, 4)
    np.testing.assert_array_equal(gt.gradients(model, x, target=1, at="odd").outputs, model(x))
    g = gt.gradients(model, x, target=1, at=["odd/rare", ":input"], training=True)
    assert len(model.variables) == 4
    np.testing.assert_allclose(g.outputs, model(x, training=True), rtol=0, atol=1e-14)
    column = np.tile(np.asarray(model.get_layer("last").kernel)[:, 1], (3, 1))
    assert_same_numbers(g["odd/rare"], column, 1e-14)
    keras.Sequential([keras.Input((4,)), layers.Dense(2)])(x)  # Keras is fit for the next model


def test_a_function_with_a_training_flag():
    def model(x, training=False):
        return tf.reduce_sum(tf.nn.dropout(x, 0.5), -1) if training else tf.reduce_sum(x, -1)

    x = np.ones((2, 40), "float32")
    g = gt.gradients(model, x, at=":input", training=True)
    assert set(np.unique(g.only)) == {0.0, 2.0}
    np.testing.assert_array_equal(gt.gradients(model, x, at=":input").only, 1.0)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("name", ["bfloat16", "mixed_bfloat16"])
def test_bfloat16(name, training):
    """Activations and gradients come in the type that the layers compute in, and near those of float32."""
    sizes = [layers.Dense(16, activation="tanh", name="a"), layers.Dense(3, activation="softmax", name="b")]
    wide = keras.Sequential([keras.Input((8,)), *sizes])
    with policy(name):
        narrow = keras.Sequential(
            [
                keras.Input((8,)),
                layers.Dense(16, activation="tanh", name="a"),
                layers.Dropout(0.0),
                layers.Dense(3, activation="softmax", name="b"),
            ]
        )
    narrow.set_weights(wide.get_weights())
    x = draws(4, 8).astype("float32")
    before = state_of(narrow)
    g = gt.gradients(narrow, x, target=1, at=["a", "a:preactivation", ":input"], training=training)
    assert_same_state(before, narrow)
    assert g["a"].dtype == g.activations["a"].dtype == tf.bfloat16
    expected = gt.gradients(wide, x, target=1, at=["a", "a:preactivation", ":input"])
    np.testing.assert_array_equal(tf.cast(g.outputs, tf.float32), tf.cast(narrow(x), tf.float32))
    for address, value in g.items():
        largest = np.abs(expected[address]).max()
        np.testing.assert_allclose(tf.cast(value, tf.float32), expected[address], atol=0.03 * largest)
