"""Cross derivatives between two taps: analytic ones, central differences with patched activations, and transposes."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import gradtap as gt
from gradtap import curvature, errors
from reference.differences import assert_same_numbers
from reference.models import draws, float64_policy
from reference.smooth import KINDS, smooth

PRODUCT = lambda y: y[:, 0] * y[:, 1] - y[:, 2] ** 2  # noqa: E731


def branches():
    """Two branches that meet in a product, and one of them goes on from the other."""
    keras.utils.set_random_seed(3)
    with float64_policy():
        x = keras.Input((3,))
        left = layers.Dense(4, activation="tanh", name="left")(x)
        right = layers.Dense(2, activation="gelu", name="right")(x)
        after = layers.Dense(3, activation="softplus", name="after")(left)
        met = layers.Dense(5, activation="sigmoid", name="met")(layers.Concatenate()([left, right, after]))
        model = keras.Model(x, layers.Dense(3, activation="softmax", name="scores")(met))
    for i, weight in enumerate(model.weights):
        weight.assign(0.7 * draws(*weight.shape, seed=i))
    return model, draws(4, 3, seed=9)


def patched_differences(model, x, target, at, along):
    """d2F with changes added at both taps: central differences of the target, ``(batch, n, m)``."""
    n, m = (int(np.prod(gt.activations(model, x, at=t).only.shape[1:])) for t in (at, along))
    step = 3e-4

    def score(i, j, up, right):
        def added(size, unit, by):
            return lambda a: a + by * step * np.eye(size)[unit].reshape(1, *a.shape[1:])

        return np.asarray(target(gt.patch(model, x, {at: added(n, i, up), along: added(m, j, right)})))

    found = np.empty((len(x), n, m))
    for i in range(n):
        for j in range(m):
            corners = [score(i, j, a, b) * a * b for a in (1, -1) for b in (1, -1)]
            found[:, i, j] = sum(corners) / (4 * step**2)
    return found


@pytest.mark.parametrize(("at", "along"), [("left", "right"), ("after", "left"), ("left", "after"), ("after", "right")])
def test_differences_with_both_taps_patched(at, along):
    model, x = branches()
    found = curvature.cross_hessian(model, x, target=PRODUCT, at=at, along=along).only.numpy()
    expected = patched_differences(model, x, PRODUCT, at, along)
    np.testing.assert_allclose(found, expected, atol=1e-5 * np.max(np.abs(expected)))
    transposed = curvature.cross_hessian(model, x, target=PRODUCT, at=along, along=at).only
    assert_same_numbers(transposed, found.transpose(0, 2, 1), 1e-12)
    v = draws(len(x), found.shape[2], seed=5)
    products = curvature.cross_hvp(model, x, v, target=PRODUCT, at=at, along=along).only
    assert_same_numbers(products, np.einsum("bij,bj->bi", found, v), 1e-12)
    held = {at: np.zeros((len(x), found.shape[1])), along: v}
    assert_same_numbers(gt.hvp(model, x, held, target=PRODUCT, at=[at, along])[at], products, 1e-12)


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_after_one_another_it_is_the_hessian_at_the_later_times_the_jacobian(kind):
    model, x = smooth(kind)
    first = "tap" if kind != "shared" else ":input"
    later = "scores:preactivation" if kind == "skip" else "later"
    found = curvature.cross_hessian(model, x, target=PRODUCT, at=later, along=first).only.numpy()
    n, m = (int(np.prod(gt.activations(model, x, at=t).only.shape[1:])) for t in (later, first))
    whole = curvature.hessian(model, x, target=PRODUCT, at=later).only.numpy().reshape(len(x), n, n)
    jacobian = gt.jacobian(model, x, at=first, of=later).only.numpy().reshape(len(x), n, m)
    if kind in ("dense", "convolution", "skip", "normalised", "recurrent", "gated", "pooled", "shared", "attention"):
        assert_same_numbers(found.reshape(len(x), n, m), whole @ jacobian, 1e-11, 1e-7)


def test_a_tap_with_itself_is_its_hessian():
    model, x = branches()
    for tap in ("left", "after", ":input"):
        found = curvature.cross_hessian(model, x, target=PRODUCT, at=tap, along=tap).only
        assert_same_numbers(found, curvature.hessian(model, x, target=PRODUCT, at=tap).only, 1e-12)
        v = draws(*gt.activations(model, x, at=tap).only.shape, seed=1)
        product = curvature.cross_hvp(model, x, v, target=PRODUCT, at=tap, along=tap).only
        assert_same_numbers(product, gt.hvp(model, x, v, target=PRODUCT, at=tap).only, 1e-12)


def test_two_inputs_and_no_activations_in_the_result():
    """x^T A y: the cross derivatives are A, whatever x and y are."""
    a = draws(3, 5)

    def model(x, y):
        return tf.einsum("bi,ij,bj->b", x, a, y)

    x = [draws(2, 3, seed=1), draws(2, 5, seed=2)]
    for at, along, expected in ((":input.0", ":input.1", a), (":input.1", ":input.0", a.T)):
        found = curvature.cross_hessian(model, x, at=at, along=along).only
        np.testing.assert_allclose(found, np.tile(expected, (2, 1, 1)), atol=1e-14)
    with pytest.warns(errors.NoCurvatureWarning):
        assert not np.any(curvature.cross_hessian(model, x, at=":input.0", along=":input.0").only)


def test_shapes_parts_and_datasets():
    model, x = smooth("convolution")
    ask = {"target": PRODUCT, "at": ["later", ":input"], "along": "tap"}
    whole = curvature.cross_hessian(model, x, **ask)
    shapes = {t: tuple(gt.activations(model, x, at=t).only.shape[1:]) for t in ("tap", "later", ":input")}
    assert list(whole) == [":input", "later"]
    for address, found in whole.items():
        assert tuple(found.shape) == (3, *shapes[address], *shapes["tap"])
        for size in (1, 2):
            parts = curvature.cross_hessian(model, x, **ask, batch_size=size)
            assert_same_numbers(parts[address], found, 1e-11, 1e-6)
        assert curvature.cross_hessian(model, x[:0], **ask)[address].shape == (0, *shapes[address], *shapes["tap"])
    batches = tf.data.Dataset.from_tensor_slices(x).batch(2)
    assert_same_numbers(curvature.cross_hessian(model, batches, **ask)["later"], whole["later"], 1e-11, 1e-6)
    spec = tf.TensorSpec((None, *x.shape[1:]), tf.float64)
    v = draws(1, *shapes["tap"])
    inside = tf.function(lambda x: curvature.cross_hvp(model, x, v, **ask)["later"], input_signature=[spec])
    assert_same_numbers(inside(x), curvature.cross_hvp(model, x, v.repeat(3, 0), **ask)["later"], 1e-11, 1e-6)


def test_mistakes(monkeypatch):
    model, x = branches()
    with pytest.raises(errors.ArgumentError, match="along"):
        curvature.cross_hessian(model, x, target=0, at="left", along="*")
    with pytest.raises(errors.UnknownTapError, match="rigth"):
        curvature.cross_hvp(model, x, draws(4, 2), target=0, at="left", along="rigth")
    with pytest.raises(errors.GradtapError, match="vectors"):
        curvature.cross_hvp(model, x, draws(4, 3), target=0, at="left", along="right")
    monkeypatch.setattr("gradtap.curvature.matrices.free_memory", lambda: 100)
    with pytest.raises(errors.MemoryBudgetError, match="cross_hvp"):
        curvature.cross_hessian(model, x, target=0, at="left", along="right")
