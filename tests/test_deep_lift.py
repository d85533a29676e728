"""DeepLIFT: Captum's numbers, completeness for every kind of model, and ops without a rule."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import gradtap as gt
from gradtap import errors
from reference.differences import assert_same_numbers
from reference.goldens import bound, model_file
from reference.models import draws
from reference.smooth import KINDS, smooth

FOLDER = Path(__file__).parent / "goldens"
TOLERANCE = {"float64": 1e-9, "float32": 1e-5}


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("model", ["cnn_seq"])
def test_captums_numbers_through_relu_and_max_pooling(model, dtype):
    """Before the softmax: Captum's rule for it does not sum to the change of the output."""
    goldens = np.load(FOLDER / f"{model}.deep_lift.{dtype}.npz")
    given = np.load(FOLDER / f"{model}.inputs.npz")
    baselines = np.load(FOLDER / f"{model}.baselines.npz")
    trace = gt.trace(model_file(model, dtype))
    target = gt.targets.class_score(given["target"], logits=True)
    assert len(goldens.files) == 8
    for key in goldens.files:
        name, layer = key.split("@logit/")
        baseline = baselines[f"{name.split('.')[1]}_0"]
        at = ":input" if layer == "input" else layer
        found = gt.attribution.deep_lift(trace, given["input0"], target=target, at=at, baseline=baseline)
        error = np.max(np.abs(found.only - goldens[key])) / np.max(np.abs(goldens[key]))
        assert error <= bound(TOLERANCE[dtype]), f"{key}: {error:.1e}"


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_it_is_complete_at_every_cut_with_the_softmax_inside(kind, float64):
    model, x = smooth(kind)
    baseline = draws(*x.shape, seed=7)
    found = gt.attribution.deep_lift(model, x, target=1, at=["later", ":output"], baseline=baseline)
    for address in found:
        assert np.max(np.abs(found.delta[address])) < 1e-12, address
    change = model(x)[:, 1] - model(baseline)[:, 1]
    if kind != "skip":
        total = tf.reduce_sum(tf.reshape(found["later"], (len(x), -1)), 1)
        np.testing.assert_allclose(total, change, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(tf.reduce_sum(found[":output"], 1), change, rtol=1e-9, atol=1e-12)


def gate(x):
    return layers.Multiply()([layers.Dense(4, activation="sigmoid")(x), layers.Dense(4, activation="silu")(x)])


def ratio(x):
    return layers.Dense(4)(x) / (2.0 + layers.Dense(4, activation="softplus")(x))


def extremes(x):
    both = layers.Dense(4)(x), layers.Dense(4)(x)
    return layers.Concatenate()([layers.Maximum()(both), layers.Minimum()(both), keras.ops.square(both[0] - both[1])])


def attention(x):
    rows = layers.Reshape((3, 2))(x)
    return layers.GlobalMaxPooling1D()(layers.LayerNormalization()(layers.MultiHeadAttention(2, 3)(rows, rows) + rows))


def loops(x):
    return layers.GRU(3)(layers.LSTM(4, return_sequences=True)(layers.Reshape((3, 2))(x)))


def every_activation(x):
    for name in (
        "elu",
        "selu",
        "gelu",
        "mish",
        "hard_sigmoid",
        "relu6",
        "leaky_relu",
        "log_softmax",
        "softsign",
        "exponential",
    ):
        x = layers.Dense(5, activation=name)(x)
    return x


@pytest.mark.parametrize("body", [gate, ratio, extremes, attention, loops, every_activation], ids=lambda f: f.__name__)
def test_it_is_complete_from_the_input_on(body, float64):
    x = keras.Input((6,), dtype="float64")
    model = keras.Model(x, layers.Dense(3, activation="softmax")(body(layers.Dense(6, activation="tanh")(x))))
    rows, baseline = draws(4, 6), draws(1, 6, seed=3)
    found = gt.attribution.deep_lift(model, rows, target="predicted", baseline=baseline)
    classes = np.argmax(model(rows), 1)
    change = tf.gather(model(rows) - model(baseline), classes, batch_dims=1)
    np.testing.assert_allclose(tf.reduce_sum(found.only, 1), change, rtol=1e-9, atol=1e-13)
    np.testing.assert_allclose(found.delta, 0, atol=1e-12)


def test_one_rectifier_by_hand(float64):
    """y = 3 relu(2 x - 1): from 0 to 2 the rectifier goes from 0 to 3, its input from -1 to 3."""
    x = keras.Input((1,), dtype="float64")
    hidden = layers.Dense(1, activation="relu", name="hidden")
    model = keras.Model(x, layers.Dense(1, use_bias=False)(hidden(x)))
    model.set_weights([np.array([[2.0]]), np.array([-1.0]), np.array([[3.0]])])
    found = gt.attribution.deep_lift(model, [[2.0], [0.25]], at=[":input", "hidden:preactivation", "hidden"])
    np.testing.assert_allclose(found[":input"], [[9.0], [0.0]], atol=1e-15)
    np.testing.assert_allclose(found["hidden:preactivation"], [[3 * 3 / 4 * 4], [0.0]], atol=1e-15)
    np.testing.assert_allclose(found["hidden"], [[9.0], [0.0]], atol=1e-15)


def test_where_nothing_changes_there_is_nothing_to_attribute(float64):
    model, x = smooth("convolution")
    found = gt.attribution.deep_lift(model, x, target=1, at=":input", baseline=lambda inputs: inputs)
    np.testing.assert_array_equal(found.only, np.zeros(x.shape))


def test_rules_hold_for_deep_lift_alone(float64):
    """The marks on the ops, those with a gradient of their own among them, change no gradient."""
    x = keras.Input((4,), dtype="float64")
    model = keras.Model(x, layers.Dense(2)(layers.Dense(5, activation="silu")(x)))
    rows = tf.constant(draws(3, 4))
    gt.attribution.deep_lift(model, rows, target=1)
    with tf.GradientTape() as tape:
        tape.watch(rows)
        score = model(rows)[:, 1] - model(rows)[:, 0]
    expected = tape.gradient(score, rows)
    assert_same_numbers(gt.gradients(model, rows, target=gt.targets.contrast(1, 0), at=":input").only, expected, 1e-14)
    with tf.GradientTape() as tape:
        tape.watch(rows)
        outputs = gt.gradients(model, rows, target=1, at=":input").outputs
        score = outputs[:, 1] - outputs[:, 0]
    assert_same_numbers(tape.gradient(score, rows), expected, 1e-14)


def test_an_op_without_a_rule_is_named():
    x = keras.Input((4,))
    chosen = keras.ops.where(x > 0, keras.ops.sqrt(keras.ops.abs(x)), x)
    model = keras.Model(x, layers.Dense(2, name="last")(chosen))
    with pytest.raises(errors.NoRuleError, match="SelectV2"):
        gt.attribution.deep_lift(model, draws(3, 4), target=1)
    assert gt.attribution.deep_lift(model, draws(3, 4), target=1, at="last").only.shape == (3, 2)


def test_what_it_does_not_take():
    with pytest.raises(errors.ModelTypeError, match="one batch"):  # its code needs to know how many examples there are
        gt.attribution.deep_lift(lambda x: x * [[float(i)] for i in range(x.shape[0])], draws(2, 4), target=1)
    free = keras.Input((4,))
    model = keras.Model(free, layers.Dense(2)(free))
    with pytest.raises(errors.ArgumentError, match="is no input"):
        gt.attribution.deep_lift(model, draws(2, 4), target=1, baseline=gt.attribution.at_tap(0.0))
    with pytest.raises(errors.ArgumentError, match="rule='reveal' is not a choice"):
        gt.attribution.deep_lift(model, draws(2, 4), target=1, rule="reveal")
