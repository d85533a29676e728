"""Attribution patching: the formula, activation patching one by one, and where the linear estimate fails."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import gradtap as gt
from gradtap import errors
from gradtap.attribution import attribution_patching
from reference.differences import assert_same_numbers
from reference.models import draws
from reference.smooth import KINDS, smooth


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_the_estimate_is_the_formula_and_the_exact_effect_that_of_patch(kind, float64):
    model, clean = smooth(kind)
    corrupt = draws(*clean.shape, seed=9)
    taps = ["tap", "later"] if kind != "shared" else ["later"]
    found = attribution_patching(model, clean, corrupt, target=1, at=taps, exact=True)
    assert list(found) == taps
    for tap in taps:
        here = gt.activations(model, clean, at=tap).only
        there = gt.gradients(model, corrupt, target=1, at=tap)
        assert_same_numbers(found[tap], (here - there.activations[tap]) * there[tap], 1e-12)
        total = np.sum(found[tap], axis=tuple(range(1, found[tap].shape.rank)))
        assert_same_numbers(found.estimate[tap], total, 1e-12)
        patched = gt.patch(model, corrupt, {tap: here})[:, 1] - model(corrupt)[:, 1]
        assert_same_numbers(found.exact[tap], patched, 1e-10)


def test_a_small_difference_is_estimated_to_first_order(float64):
    """The error falls with the square of the difference."""
    model, clean = smooth("dense")
    off = []
    for size in (1e-2, 1e-3):
        corrupt = clean + size * draws(*clean.shape, seed=9)
        found = attribution_patching(model, clean, corrupt, target=1, at="tap", exact=True)
        off.append(np.max(np.abs(found.estimate["tap"] - found.exact["tap"])))
        assert found.failures == []
    assert 50 < off[0] / off[1] < 200


def saturated():
    """Two ways to one logit: through a unit that is switched off in the corrupt run, and a linear one."""
    x = keras.Input((2,), dtype="float64")
    off = layers.Dense(1, activation="relu", name="off")
    first = layers.Lambda(lambda t: t[:, :1], name="first")(x)
    second = layers.Lambda(lambda t: t[:, 1:], name="second")(x)
    model = keras.Model(x, layers.Concatenate(name="both")([off(first), second]))
    off.set_weights([np.ones((1, 1)), np.zeros(1)])
    return model


def test_the_taps_are_named_where_the_estimate_fails(float64):
    """Below zero the rectifier has no slope; the clean run has it at three."""
    model = saturated()
    clean, corrupt = np.array([[3.0, 1.0]]), np.array([[-1.0, 0.0]])
    target = lambda y: y[:, 0] + y[:, 1]  # noqa: E731
    found = attribution_patching(model, clean, corrupt, target=target, at=["first", "second", "both"], exact=True)
    estimates = {tap: float(value[0]) for tap, value in found.estimate.items()}
    exact = {tap: float(value[0]) for tap, value in found.exact.items()}
    assert estimates == {"first": 0.0, "second": 1.0, "both": 4.0}
    assert exact == {"first": 3.0, "second": 1.0, "both": 4.0}
    assert found.failures == ["first"]
    assert found.relative_errors() == {"first": 1.0, "second": 0.0, "both": 0.0}
    with pytest.raises(errors.MissingResultError, match="exact=True"):
        _ = attribution_patching(model, clean, corrupt, target=target, at="first").exact


def test_predicted_is_what_is_predicted_for_the_clean_run(float64):
    model, clean = smooth("dense")
    clean = 5 * draws(6, *clean.shape[1:])
    corrupt = 5 * draws(*clean.shape, seed=5)
    classes = np.argmax(model(clean), 1)
    assert np.any(classes != np.argmax(model(corrupt), 1))
    found = attribution_patching(model, clean, corrupt, target="predicted", at="tap", exact=True)
    named = attribution_patching(model, clean, corrupt, target=classes, at="tap", exact=True)
    for a, b in ((found.only, named.only), (found.exact.only, named.exact.only)):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("exact", [False, True])
def test_parts_datasets_and_patterns(exact, float64):
    model, clean = smooth("convolution")
    clean = draws(5, *clean.shape[1:])
    corrupt = draws(*clean.shape, seed=5)
    ask = {"target": 2, "at": "**", "exact": exact}
    whole = attribution_patching(model, clean, corrupt, **ask)
    assert "later" in whole
    assert len(whole) > 4
    data = [tf.data.Dataset.from_tensor_slices(x).batch(2) for x in (clean, corrupt)]
    for other in (
        attribution_patching(model, clean, corrupt, **ask, batch_size=2),
        attribution_patching(model, *data, **ask),
    ):
        assert list(other) == list(whole)
        for tap in whole:
            assert_same_numbers(other[tap], whole[tap], 1e-12)
            assert_same_numbers(other.estimate[tap], whole.estimate[tap], 1e-12)
            if exact:
                assert_same_numbers(other.exact[tap], whole.exact[tap], 1e-12)


def test_token_ids_and_attention_heads():
    """An integer input: the embedding is the first tap, and each head can be asked for."""
    ids = keras.Input((4,), dtype="int32")
    h = layers.Embedding(9, 6, name="embedding")(ids)
    h = h + layers.MultiHeadAttention(2, 3, name="block")(h, h)
    model = keras.Model(ids, layers.Dense(3, name="scores")(h[:, -1]))
    clean, corrupt = np.array([[1, 2, 3, 4]]), np.array([[1, 5, 3, 4]])
    at = ["embedding", "block:attention", "block"]
    found = attribution_patching(model, clean, corrupt, target=gt.targets.contrast(0, 1), at=at, exact=True)
    assert found["block:attention"].shape == (1, 2, 4, 4)
    assert np.all(found["embedding"].numpy()[:, [0, 2, 3]] == 0)  # these tokens are the same
    scores = model(clean) - model(corrupt)
    np.testing.assert_allclose(found.exact["embedding"], scores[:, 0] - scores[:, 1], rtol=1e-3, atol=1e-6)
    with pytest.raises(errors.IntegerTapError):
        attribution_patching(model, clean, corrupt, target=0, at=":input")


def test_mistakes():
    model = keras.Sequential([keras.Input((None, 3)), layers.GlobalAveragePooling1D(name="mean"), layers.Dense(2)])
    rows = draws(2, 4, 3)
    data = tf.data.Dataset.from_tensor_slices(rows).batch(1)
    for clean, corrupt, error, match in [
        (rows, rows[:, :3], errors.InputShapeError, "differ in shape"),
        (rows, data, errors.InputStructureError, "one of clean and corrupt"),
        (data, data.take(1), errors.InputStructureError, "numbers of batches"),
        (data.take(0), data.take(0), errors.InputStructureError, "no batch"),
    ]:
        with pytest.raises(error, match=match):
            attribution_patching(model, clean, corrupt, target=0, at="mean")
    with pytest.raises(errors.UnknownTapError):
        attribution_patching(model, rows, rows, target=0, at="lost")
    with pytest.raises(errors.ArgumentError, match="exact"):
        attribution_patching(model, rows, rows, target=0, at="mean", exact="yes")
