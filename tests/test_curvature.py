"""Hessians at taps: analytic ones, brute force, symmetry, estimates within their errors, and what is said of zeros."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import gradtap as gt
from gradtap import curvature, errors
from gradtap.graph import surgery, walking
from gradtap.staged.stages import Stage
from reference.differences import assert_same_numbers, directional_difference
from reference.models import draws
from reference.smooth import KINDS, smooth

PRODUCT = lambda y: y[:, 0] * y[:, 1] - y[:, 2] ** 2  # noqa: E731


def quadratic(size=4):
    """y = x A x with a symmetric A: the Hessian is 2 A."""
    x = keras.Input((size,), dtype="float64")
    a = draws(size, size)
    a = a + a.T
    return keras.Model(x, keras.ops.sum(keras.ops.matmul(x, a) * x, -1)), a


def test_of_a_quadratic_form_it_is_twice_the_matrix(float64):
    model, a = quadratic()
    x = draws(3, 4, seed=5)
    for n, found in enumerate(curvature.hessian(model, x, at=":input").only):
        np.testing.assert_allclose(found, 2 * a, atol=1e-12, err_msg=str(n))
    found = curvature.hessian_diagonal(model, x, at=":input")
    np.testing.assert_allclose(found.only, np.broadcast_to(2 * np.diag(a), (3, 4)), atol=1e-12)
    assert not np.any(found.standard_error.only)
    traces = curvature.trace_estimate(model, x, at=":input", samples=400, seed=0)
    np.testing.assert_allclose(traces.only, 2 * np.trace(a), atol=5 * np.max(traces.standard_error.only))


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_columns_are_differences_of_gradients(kind, float64):
    """Also through normalisation, loops and attention; the rest of the model stays at the inputs."""
    model, x = smooth(kind)
    tap = "tap" if kind != "shared" else "later"
    here = gt.activations(model, x, at=tap).only.numpy()
    size = int(np.prod(here.shape[1:]))
    units = sorted({0, size // 3, size - 1})
    found = curvature.hessian(model, x, target=PRODUCT, at=tap, units=units).only.numpy()
    whole = curvature.hessian(model, x, target=PRODUCT, at=tap).only.numpy().reshape(len(x), size, size)
    np.testing.assert_allclose(found, whole[:, units][:, :, units], rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(whole, whole.transpose(0, 2, 1), rtol=1e-7, atol=1e-9 * np.max(np.abs(whole)))
    v = draws(*here.shape, seed=4)
    product = gt.hvp(model, x, v, target=PRODUCT, at=tap).only.numpy().reshape(len(x), size)
    assert_same_numbers(np.einsum("bij,bj->bi", whole, v.reshape(len(x), size)), product, 1e-9, 1e-6)
    slope = slopes_at(model, x, tap)
    assert_same_numbers(product, directional_difference(slope, here, v).reshape(len(x), size), 1e-6, 1e-6)
    basis = np.eye(size).reshape(size, 1, *here.shape[1:])
    columns = [directional_difference(slope, here, unit).reshape(len(x), size) for unit in basis]
    difference = np.stack(columns, 2)
    np.testing.assert_allclose(whole, difference, atol=1e-6 * np.max(np.abs(difference)))


def slopes_at(model, x, tap):
    """The slope of `PRODUCT` at other activations, the rest of the model at the inputs: TensorFlow's own, once."""
    rest = gt.trace(model).suffix(tap, x)

    def slope(a):
        a = tf.constant(a)
        with tf.GradientTape() as tape:
            tape.watch(a)
            score = PRODUCT(rest(a))
        return tape.gradient(score, a).numpy()

    return slope


@pytest.mark.parametrize("kind", sorted(set(KINDS) - {"dense", "skip", "shared"}))
def test_the_top_curvature_is_that_of_differences(kind, float64, monkeypatch):
    """By Lanczos iteration, though there are few units, through normalisation, loops, attention and pooling."""
    monkeypatch.setattr("gradtap.curvature.eigenpairs._FEW_UNITS", 0)
    model, x = smooth(kind)
    here, slope = gt.activations(model, x, at="tap").only.numpy(), slopes_at(model, x, "tap")
    found = curvature.top_eigenpairs(model, x, target=PRODUCT, at="tap", k=2)
    largest = np.max(np.abs(found.eigenvalues.only))
    whole = curvature.hessian(model, x, target=PRODUCT, at="tap").only.numpy().reshape(len(x), here[0].size, -1)
    values = np.linalg.eigvalsh((whole + whole.transpose(0, 2, 1)) / 2)
    sizes = -np.sort(-np.abs(values), 1)[:, :2]
    np.testing.assert_allclose(np.abs(found.eigenvalues.only), sizes, atol=1e-8 * largest)
    for i in range(2):
        vectors, value = found.eigenvectors.only[:, i].numpy(), found.eigenvalues.only[:, i].numpy()
        bent = directional_difference(slope, here, vectors)
        expected = value.reshape(-1, *[1] * (here.ndim - 1)) * vectors
        np.testing.assert_allclose(bent, expected, atol=2e-6 * largest)


def test_what_goes_around_the_tap_meets_the_vector(float64):
    """The Hessian is another input, and does not depend on the activations."""

    def model(x, matrices):
        return tf.einsum("bi,bij,bj->b", x, matrices, x) / 2

    x = [draws(3, 4), draws(3, 4, 4, seed=1)]
    expected = (x[1] + x[1].transpose(0, 2, 1)) / 2
    np.testing.assert_allclose(curvature.hessian(model, x, at=":input.0").only, expected, atol=1e-14)
    diagonal = curvature.hessian_diagonal(model, x, at=":input.0").only
    np.testing.assert_allclose(diagonal, np.diagonal(expected, axis1=1, axis2=2), atol=1e-14)


def test_draws_run_together(float64, monkeypatch):
    """A hundred of them in one run of the suffix, whatever its layers are."""
    runs = []
    before = Stage._run

    def counted(stage, points, further, each):
        runs.append(points[0].shape[0])
        return before(stage, points, further, each)

    monkeypatch.setattr(Stage, "_run", counted)
    for kind in ("dense", "convolution", "pooled", "normalised", "recurrent"):
        model, x = smooth(kind)
        for matrix in ("hessian", "gauss_newton"):
            curvature.trace_estimate(model, x, target=PRODUCT, at="tap", matrix=matrix, samples=100)
            assert runs == [100], kind
            runs.clear()
    curvature.trace_estimate(model, x, target=PRODUCT, at="tap", samples=10, batch_size=2 * len(x))
    assert runs == [2] * 5


def test_what_a_product_does_not_need_is_not_computed():
    """Of a network of ReLUs the values of the first derivative are not needed, only its shapes."""
    x = keras.Input((8, 8, 2))
    h = layers.Conv2D(3, 3, padding="same", activation="relu", name="tap")(x)
    for _ in range(3):
        h = layers.Add()([h, layers.Conv2D(3, 3, padding="same", activation="relu")(layers.BatchNormalization()(h))])
    model = keras.Model(x, layers.Dense(3, activation="softmax")(layers.GlobalAveragePooling2D()(h)))
    graphs = []
    before = surgery._part_of

    def kept(*args):
        graphs.append(before(*args))
        return graphs[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(surgery, "_part_of", kept)
        gt.hvp(model, draws(2, 8, 8, 2), np.ones((2, 8, 8, 3)), target=0, at="tap")
    needed = walking.ancestors(graphs[-1].outputs)
    # Three forward, the same three to carry the vector on, and three back.
    assert [sum(op.type == kind for op in needed) for kind in ("Conv2D", "Conv2DBackpropInput")] == [4 + 3, 3]


def test_a_diagonal_of_zeros_is_no_sign_of_flatness(float64):
    x = draws(2, 2)
    found = curvature.hessian_diagonal(lambda x: x[:, 0] * x[:, 1], x, at=":input")
    assert not np.any(found.only)
    curvature.trace_estimate(lambda x: x[:, 0] * x[:, 1], x, at=":input")


def test_estimates_are_within_their_errors_and_reproducible(float64):
    model, x = smooth("convolution")
    x = draws(3, *x.shape[1:], seed=2)
    exact = curvature.hessian_diagonal(model, x, target=PRODUCT, at="tap").only.numpy()
    ask = {"target": PRODUCT, "at": "tap", "seed": 1}
    found = curvature.hessian_diagonal(model, x, **ask, samples=600)
    off = np.abs(found.only - exact) / np.maximum(found.standard_error.only, 1e-12)
    assert np.mean(off < 3) > 0.97
    assert np.mean(off > 0.3) > 0.5  # the errors are no larger than they have to be
    traces = curvature.trace_estimate(model, x, **ask, samples=600)
    total = exact.reshape(3, -1).sum(1)
    assert np.all(np.abs(traces.only - total) < 4 * traces.standard_error.only)
    for size in (1, 2, 7):
        parts = curvature.trace_estimate(model, x, **ask, samples=600, batch_size=size)
        assert_same_numbers(parts.only, traces.only, 1e-9)
        assert_same_numbers(parts.standard_error.only, traces.standard_error.only, 1e-6)
    data = tf.data.Dataset.from_tensor_slices(x).batch(2)
    assert_same_numbers(curvature.trace_estimate(model, data, **ask, samples=600).only, traces.only, 1e-9)
    other = curvature.trace_estimate(model, x, **ask | {"seed": 2}, samples=600)
    assert not np.allclose(other.only, traces.only)


def test_several_taps_and_tuples_as_units(float64):
    model, x = smooth("convolution")
    found = curvature.hessian(model, x, target=0, at=["tap", ":input"])
    assert list(found) == [":input", "tap"]
    shape = found["tap"].shape[1:4]
    assert found["tap"].shape == (len(x), *shape, *shape)
    block = curvature.hessian(model, x, target=0, at="tap", units=[(0, 1, 1), (1, 0, 0)]).only
    np.testing.assert_allclose(block[:, 0, 1], found["tap"][:, 0, 1, 1, 1, 0, 0], rtol=1e-9, atol=1e-14)


def test_zeros_are_explained():
    x = keras.Input((3,))
    h = layers.Dense(4, activation="relu", name="relu")(x)
    model = keras.Model(x, layers.Dense(2, activation="softmax", name="scores")(h))
    logit = gt.targets.class_score(0, logits=True)
    rows = draws(2, 3)
    for tap in ("relu", ":input"):
        for method in (curvature.hessian, curvature.hessian_diagonal, curvature.trace_estimate):
            with pytest.warns(errors.NoCurvatureWarning, match="linear in pieces .* log-probability"):
                assert not np.any(method(model, rows, target=logit, at=tap).only)
    loss = gt.targets.loss("sparse_categorical_crossentropy", [0, 1])
    assert np.any(curvature.hessian(model, rows, target=loss, at="relu").only)


def test_mistakes(monkeypatch):
    model, x = smooth("dense")
    for wrong in ([99], ["a"], [(0, 0)]):
        with pytest.raises(errors.ArgumentError, match="units"):
            curvature.hessian(model, x, target=0, at="tap", units=wrong)
    with pytest.raises(errors.ArgumentError, match="samples"):
        curvature.trace_estimate(model, x, target=0, at="tap", samples=1)
    monkeypatch.setattr("gradtap.curvature.matrices.free_memory", lambda: 100)
    with pytest.raises(errors.MemoryBudgetError, match="hessian_diagonal"):
        curvature.hessian(model, x, target=0, at="tap")
