"""What a reader of the guide got wrong, or was right to expect: baselines, several inputs, many steps."""

from __future__ import annotations

import pickle
import time

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import gradtap as gt
from gradtap import attribution, errors
from gradtap.staged.quadrature import nodes_and_weights
from reference.models import draws
from refusals import refuses


def two_images():
    """Two images of different sizes; `left` sees one, `right` the other."""
    one, other = keras.Input((8, 8, 1), name="one"), keras.Input((12, 12, 1), name="other")
    left = layers.Conv2D(3, 3, activation="tanh", name="left")(one)
    right = layers.Conv2D(2, 3, activation="tanh", name="right")(other)
    pooled = [layers.GlobalAveragePooling2D()(h) for h in (left, right)]
    model = keras.Model([one, other], layers.Dense(1)(layers.Concatenate()(pooled)))
    return model, [draws(2, 8, 8, 1).astype("float32"), draws(2, 12, 12, 1, seed=1).astype("float32")]


@pytest.mark.parametrize("method", ["grad_cam", "score_cam", "ablation_cam", "layer_cam"])
def test_a_map_lies_over_the_input_that_its_layer_sees(method):
    model, x = two_images()
    found = getattr(attribution, method)(model, x, at=["left", "right"], upsample="input")
    assert found["left"].shape == (2, 8, 8)
    assert found["right"].shape == (2, 12, 12)


def test_score_cam_masks_the_input_that_the_layer_sees():
    model, x = two_images()
    other = [np.zeros_like(x[0]), x[1]]
    alone, beside = (attribution.score_cam(model, given, at="right").only for given in (other, x))
    np.testing.assert_allclose(alone, beside, rtol=1e-5, atol=1e-7)  # a constant of the other branch changes no weight
    guided = attribution.guided_grad_cam(model, x, at="right").only
    slope = attribution.guided_backprop(model, x, at=":input.other").only
    assert guided.shape == slope.shape == (2, 12, 12, 1)
    assert not np.any(np.asarray(guided)[np.asarray(slope) == 0])


@pytest.mark.parametrize("method", ["integrated_gradients", "conductance", "deep_lift"])
def test_the_inputs_of_one_address_account_for_the_change_together(method):
    model, x = two_images()
    found = getattr(attribution, method)(model, x)
    total = sum(np.sum(value, axis=(1, 2, 3)) for value in found.values())
    change = (model(x) - model([np.zeros_like(one) for one in x]))[:, 0]
    np.testing.assert_allclose(total, change, atol=1e-5)
    np.testing.assert_allclose(found.delta, total - change, atol=1e-5)


def test_many_nodes_are_found_quickly_and_exactly():
    start = time.process_time()
    nodes, weights = nodes_and_weights("gausslegendre", 4096)
    assert time.process_time() - start < 10  # the eigenvalues of a matrix of that size take minutes
    assert np.all(np.diff(nodes) > 0)
    for degree in (0, 1, 2, 7, 400):
        assert abs(np.sum(weights * nodes**degree) - 1 / (degree + 1)) < 1e-13
    known, known_weights = np.polynomial.legendre.leggauss(300)
    nodes, weights = nodes_and_weights("gausslegendre", 300)
    np.testing.assert_allclose(nodes, (1 + known) / 2, atol=1e-15)
    np.testing.assert_allclose(weights, known_weights / 2, atol=1e-14)


def plain():
    x = keras.Input((6, 6, 2))
    return keras.Model(x, layers.Dense(2)(layers.Flatten()(layers.Conv2D(3, 3, activation="tanh", name="conv")(x))))


def test_baselines_that_do_not_fit_are_said_to_be_it():
    series = keras.Sequential([keras.Input((None, 3)), layers.LSTM(4), layers.Dense(2)])
    x = draws(2, 7, 3).astype("float32")
    integrated, expected = attribution.integrated_gradients, attribution.expected_gradients
    refuses(
        errors.InputShapeError, lambda: integrated(series, x, target=1, baseline=x[:, :5]), "(2, 5, 3)", "(2, 7, 3)"
    )
    refuses(errors.InputShapeError, lambda: expected(series, x, target=1, baselines=x[:, :5]), "(1, 5, 3)")
    refuses(errors.ArgumentError, lambda: expected(series, x, target=1, baselines=lambda rows: rows), "no arrays")
    dataset = tf.data.Dataset.from_tensors(x)
    refuses(errors.ArgumentError, lambda: expected(series, x, target=1, baselines=dataset), "unbatch")
    refuses(errors.ArgumentError, lambda: attribution.at_tap(lambda h: h), "at_tap")
    refuses(errors.ArgumentError, lambda: integrated(series, x, target=1, tolerance="a"), "tolerance='a'")


def test_a_baseline_does_not_wrap_around():
    x = keras.Input((4,), dtype="uint8")
    model = keras.Model(x, layers.Dense(2)(layers.Rescaling(1 / 255, name="scaled")(x)))
    rows = np.array([[1, 2, 3, 250]], "uint8")
    for baseline in (300, -1, np.full((1, 4), 256)):
        refuses(
            errors.InputDtypeError,
            lambda b=baseline: attribution.integrated_gradients(model, rows, target=1, at="scaled", baseline=b),
            "uint8",
        )
    assert (
        np.max(np.abs(attribution.integrated_gradients(model, rows, target=1, at="scaled", baseline=255).delta)) < 1e-6
    )


def test_score_cam_of_whole_numbers():
    x = keras.Input((6, 6, 2), dtype="uint8")
    scaled = layers.Rescaling(1 / 255)(x)
    conv = layers.Conv2D(3, 3, activation="relu", name="conv")(scaled)
    model = keras.Model(x, layers.Dense(2)(layers.Flatten()(conv)))
    images = np.random.default_rng(0).integers(0, 256, (2, 6, 6, 2), dtype=np.uint8)
    assert attribution.score_cam(model, images, target=1, at="conv").only.shape == (2, 4, 4)


def test_a_nan_baseline_is_warned_of():
    with pytest.warns(errors.NonFiniteWarning, match="the result at `:input`"):
        attribution.integrated_gradients(plain(), draws(2, 6, 6, 2), target=1, baseline=np.nan, steps=2)


def test_a_grid_is_for_tokens():
    refuses(
        errors.ArgumentError,
        lambda: attribution.grad_cam(plain(), draws(2, 6, 6, 2), target=1, at="conv", grid=(2, 2)),
        "grid",
    )


def test_a_result_says_why_it_has_no_error():
    found = attribution.internal_influence(plain(), draws(2, 6, 6, 2), target=1, at="conv", steps=2)
    refuses(errors.MissingResultError, lambda: found.delta, "deep_lift")


def test_a_stored_result_knows_its_layers():
    stored = pickle.loads(pickle.dumps(gt.gradients(plain(), draws(2, 6, 6, 2), target=1, at="conv")))
    assert stored.layers() == {"conv": "Conv2D"}


def test_deep_lift_takes_the_mask_of_padded_tokens_as_it_is():
    ids = keras.Input((5,), dtype="int32")
    embedded = layers.Embedding(10, 8, mask_zero=True, name="embedded")(ids)
    attended = layers.GlobalAveragePooling1D()(layers.MultiHeadAttention(2, 4)(embedded, embedded))
    last = layers.LSTM(4)(embedded)
    model = keras.Model(ids, layers.Dense(2, activation="softmax")(layers.Concatenate()([attended, last])))
    ask = {"target": 1, "at": "embedded", "baseline": np.array([[4, 5, 6, 0, 0]])}
    found = attribution.deep_lift(model, np.array([[1, 2, 3, 0, 0]]), **ask)
    assert np.max(np.abs(found.delta)) < 1e-6
    assert np.max(np.abs(found.only)) > 1e-4


def test_deep_lift_says_that_the_target_has_no_rule():
    labels = gt.targets.loss("sparse_categorical_crossentropy", [0, 1])
    x = keras.Input((4,))
    model = keras.Model(x, layers.Dense(2, activation="softmax")(x))
    refuses(errors.NoRuleError, lambda: attribution.deep_lift(model, draws(2, 4), target=labels), "of the target")
