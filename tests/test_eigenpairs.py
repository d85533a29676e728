"""Eigenpairs against NumPy's on whole matrices, whatever the spectrum; iterations that run together, to their ends."""

from __future__ import annotations

import sys
import threading

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers

import gradtap as gt
from gradtap import curvature, errors
from gradtap.curvature import eigenpairs
from gradtap.curvature.joined import run_together
from gradtap.results import TapValues
from reference.differences import assert_same_numbers
from reference.models import draws, float64_policy

WAYS = ("magnitude", "largest", "smallest")


def ranked(values, which):
    """Eigenvalues in the order in which they are asked for."""
    order = {"magnitude": -np.abs(values), "largest": -values, "smallest": values}[which]
    return np.take_along_axis(values, np.argsort(order, axis=-1, kind="stable"), -1)


def check(found, matrices, which, tolerance=1e-9):
    """Eigenvalues and eigenvectors, ``(batch, k)`` and ``(batch, k, n)``, of matrices ``(batch, n, n)``."""
    values, vectors, off = (np.asarray(part.only) for part in (found.eigenvalues, found.eigenvectors, found.residual))
    k, scale = values.shape[1], max(np.max(np.abs(matrices)), 1e-30)
    vectors = vectors.reshape(*values.shape, -1)
    expected = ranked(np.linalg.eigvalsh(matrices), which)[:, :k]
    size = np.abs if which == "magnitude" else np.positive  # of 2 and -2 either may come first
    np.testing.assert_allclose(size(values), size(expected), atol=tolerance * scale)
    np.testing.assert_allclose(vectors @ vectors.transpose(0, 2, 1), np.tile(np.eye(k), (len(values), 1, 1)), atol=1e-9)
    apart = np.einsum("bij,bkj->bki", matrices, vectors) - values[..., None] * vectors
    np.testing.assert_allclose(apart, 0, atol=100 * tolerance * scale)
    np.testing.assert_allclose(off, np.linalg.norm(apart, axis=2), atol=1e-12 * scale)
    largest = np.take_along_axis(vectors, np.argmax(np.abs(vectors), 2)[..., None], 2)
    assert np.all(largest > 0)


def quadratic(*matrices):
    """One example for each symmetric matrix; the second input says which is the example's."""
    stacked = tf.constant(np.stack(matrices))

    def model(x, which):
        own = tf.gather(stacked, tf.cast(which[:, 0], tf.int32))
        return tf.einsum("bi,bij,bj->b", x, own, x) / 2

    return model, [draws(len(matrices), len(matrices[0])), np.arange(len(matrices), dtype=np.float64)[:, None]]


def with_spectrum(*values, size=80, seed=0):
    """A symmetric matrix with these eigenvalues, and zeros."""
    basis = np.linalg.qr(draws(size, size, seed=seed))[0]
    return (basis[:, : len(values)] * np.asarray(values)) @ basis[:, : len(values)].T


SPECTRA = {
    "simple": with_spectrum(*draws(80, seed=1)),
    "of one": with_spectrum(-3.0),
    "multiple": with_spectrum(2.0, 2.0, 2.0, -2.0, -2.0, 0.5),
    "identity": np.eye(80),
    "wide": with_spectrum(*np.logspace(1, -1, 80)),
    "negative": with_spectrum(*-np.abs(draws(80, seed=2))),
    "tiny": 1e-12 * with_spectrum(*draws(80, seed=3)),
    "clustered": with_spectrum(*(1 + 1e-3 * draws(80, seed=4))),
}


@pytest.mark.parametrize("which", WAYS)
@pytest.mark.parametrize("k", [1, 4])
def test_any_spectrum(which, k):
    """All of these matrices in one batch: their iterations end at different times."""
    matrices = np.stack(list(SPECTRA.values()))
    model, x = quadratic(*matrices)
    found = curvature.top_eigenpairs(model, x, at=":input.0", k=k, which=which)
    for n in range(len(matrices)):
        parts = (found.eigenvalues, found.eigenvectors, found.residual)
        one = eigenpairs.Eigenpairs(*(TapValues([("x", part.only[n : n + 1])]) for part in parts))
        check(one, matrices[n : n + 1], which)


@pytest.mark.parametrize("k", [1, 3, 78, 79, 80])
def test_few_units_and_nearly_all_of_them(k):
    matrix = SPECTRA["simple"]
    model, x = quadratic(matrix, -matrix)
    for which in WAYS:
        check(curvature.top_eigenpairs(model, x, at=":input.0", k=k, which=which), np.stack([matrix, -matrix]), which)
    small = SPECTRA["simple"][:5, :5]
    model, x = quadratic(small)
    check(curvature.top_eigenpairs(model, x, at=":input.0", k=min(k, 5)), small[None], "magnitude")


def test_no_curvature_and_no_numbers():
    """Zeros for an example without curvature and NaN for one that is not finite; the others are as they are."""
    matrix = SPECTRA["simple"]
    model, x = quadratic(0 * matrix, matrix, np.nan * matrix)
    found = curvature.top_eigenpairs(model, x, at=":input.0", k=2, checks=False)
    values = found.eigenvalues.only.numpy()
    assert not np.any(values[0])
    np.testing.assert_allclose(np.linalg.norm(found.eigenvectors.only[0], axis=1), 1)
    assert not np.any(found.residual.only[0])
    np.testing.assert_allclose(values[1], ranked(np.linalg.eigvalsh(matrix), "magnitude")[:2], rtol=1e-9)
    assert np.all(np.isnan(values[2]))
    few = curvature.top_eigenpairs(*quadratic(np.zeros((4, 4)), np.nan * np.eye(4)), at=":input.0", checks=False)
    assert few.eigenvalues.only[0, 0] == 0
    assert np.isnan(few.eigenvalues.only[1, 0])
    with pytest.warns(errors.NoCurvatureWarning, match="all zero"):
        curvature.top_eigenpairs(*quadratic(0 * matrix), at=":input.0")


def network(size=70, dtype="float64", activation="gelu", rows=5):
    keras.utils.set_random_seed(1)
    x = keras.Input((6,), dtype=dtype)
    h = layers.Dense(size, activation="tanh", dtype=dtype, name="tap")(x)
    y = layers.Dense(40, activation=activation, dtype=dtype)(h)
    model = keras.Model(x, layers.Dense(4, activation="softmax", dtype=dtype, name="scores")(y))
    return model, draws(rows, 6).astype(dtype)


LABELS = np.array([0, 1, 2, 3, 0])


@pytest.mark.parametrize("matrix", ["hessian", "gauss_newton"])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_of_a_network_in_parts_and_datasets(matrix, dtype):
    model, x = network(dtype=dtype)
    ask = {"target": gt.targets.loss("sparse_categorical_crossentropy", LABELS), "at": "tap", "k": 3, "matrix": matrix}
    whole = np.stack([column(model, x, ask["target"], matrix, j) for j in range(70)], 2).astype("float64")
    found = curvature.top_eigenpairs(model, x, **ask)
    assert found.eigenvalues.only.dtype == dtype
    assert found.eigenvectors.only.shape == (5, 3, 70)
    if dtype == "float64":
        check(found, whole, "magnitude")
    else:
        expected = ranked(np.linalg.eigvalsh((whole + whole.transpose(0, 2, 1)) / 2), "magnitude")[:, :3]
        np.testing.assert_allclose(found.eigenvalues.only, expected, atol=1e-5 * np.max(np.abs(expected)))
        assert np.all(found.residual.only < 3e-5 * np.max(np.abs(expected)))
    close = {"rtol": 1e-8, "atol": 1e-9} if dtype == "float64" else {"rtol": 1e-3, "atol": 1e-5}
    for size in (1, 2, 7):
        parts = curvature.top_eigenpairs(model, x, **ask, batch_size=size)
        np.testing.assert_allclose(parts.eigenvalues.only, found.eigenvalues.only, **close)
    ask["target"] = lambda y: tf.math.log(y[:, 1])
    batches = tf.data.Dataset.from_tensor_slices(x).batch(2)
    both = [curvature.top_eigenpairs(model, data, **ask).eigenvalues.only for data in (x, batches)]
    np.testing.assert_allclose(both[0], both[1], **close)
    assert curvature.top_eigenpairs(model, x[:0], **ask).eigenvectors.only.shape == (0, 3, 70)


def column(model, x, target, matrix, j):
    product = {"hessian": gt.hvp, "gauss_newton": curvature.gauss_newton}[matrix]
    return product(model, x, np.eye(70)[j : j + 1].repeat(len(x), 0), target=target, at="tap").only.numpy()


def test_half_precision():
    model, x = network(dtype="float16")
    found = curvature.top_eigenpairs(model, x, target=0, at="tap")
    wide = network(dtype="float32")[0]
    wide.set_weights([w.astype("float32") for w in model.get_weights()])
    expected = curvature.top_eigenpairs(wide, x.astype("float32"), target=0, at="tap")
    assert found.eigenvalues.only.dtype == tf.float32
    assert_same_numbers(found.eigenvalues.only, expected.eigenvalues.only, 0.1)


def test_examples_are_iterated_on_together():
    """One run of the model for each round, whatever the number of examples."""
    model, x = network()
    runs = []
    before = eigenpairs._multiply

    def counted(stage, rows, vectors):
        runs.append(list(rows))
        return before(stage, rows, vectors)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(eigenpairs, "_multiply", counted)
        curvature.top_eigenpairs(model, x, target=0, at="tap")
        together = len(runs)
        assert runs[0] == runs[1] == [0, 1, 2, 3, 4]
        runs.clear()
        for n in range(5):
            curvature.top_eigenpairs(model, x[n : n + 1], target=0, at="tap")
    assert together < len(runs) / 2


def test_examples_that_cannot_be_taken_apart():
    """Something goes around the tap, so that the suffix takes the batch as it is."""
    with float64_policy():
        x = keras.Input((6,))
        h = layers.Dense(70, activation="tanh", name="tap")(x)
        beside = layers.Dense(70, activation="tanh")(x)
        model = keras.Model(x, layers.Dense(3, activation="softmax")(layers.Multiply()([h, beside])))
    x = draws(4, 6)
    found = curvature.top_eigenpairs(model, x, target=1, at="tap", k=2)
    whole = curvature.hessian(model, x, target=1, at="tap").only.numpy()
    check(found, whole, "magnitude")


def test_several_taps_and_shapes():
    with float64_policy():
        model = keras.Sequential(
            [
                keras.Input((7, 7, 1)),
                layers.Conv2D(3, 2, activation="softplus", name="tap"),
                layers.Flatten(),
                layers.Dense(2, activation="softmax"),
            ]
        )
    x = draws(2, 7, 7, 1)
    found = curvature.top_eigenpairs(model, x, target=0, at=["tap", ":input"], k=2)
    assert list(found.eigenvalues) == [":input", "tap"]
    assert found.eigenvectors["tap"].shape == (2, 2, 6, 6, 3)
    whole = curvature.hessian(model, x, target=0, at="tap").only.numpy().reshape(2, 108, 108)
    values = ranked(np.linalg.eigvalsh(whole), "magnitude")[:, :2]
    np.testing.assert_allclose(found.eigenvalues["tap"], values, atol=1e-10 * np.max(np.abs(whole)))


@settings(deadline=None, max_examples=15)
@given(st.data())
def test_any_matrix(data):
    size = data.draw(st.integers(66, 75))
    rank = data.draw(st.integers(1, size))
    values = np.array(
        data.draw(st.lists(st.sampled_from([-2.0, -1.0, 0.0, 0.5, 1.0, 3.0]), min_size=rank, max_size=rank))
    )
    k, which = data.draw(st.integers(1, 4)), data.draw(st.sampled_from(WAYS))
    matrix = with_spectrum(*values, size=size, seed=rank)
    model, x = quadratic(matrix)
    check(curvature.top_eigenpairs(model, x, at=":input.0", k=k, which=which, checks=False), matrix[None], which)


# -- what can go wrong -------------------------------------------------------------------------------------------------


def test_mistakes():
    model, x = network()
    for wrong in ({"which": "top"}, {"k": 0}, {"k": True}, {"k": 71}, {"matrix": "fisher"}, {"tolerance": 2}):
        with pytest.raises(errors.ArgumentError, match=next(iter(wrong))):
            curvature.top_eigenpairs(model, x, **({"target": 0, "at": "tap"} | wrong))
    with pytest.raises(errors.NotConvergedError, match="0 of 1"):
        curvature.top_eigenpairs(*quadratic(np.diag(np.linspace(1, 2, 200))), at=":input.0", restarts=1)
    with pytest.raises(errors.ArgumentError, match=r"tf\.function"):
        tf.function(lambda x: curvature.top_eigenpairs(model, x, target=0, at="tap").eigenvalues.only)(x)
    normed = keras.Sequential([keras.Input((6,)), layers.BatchNormalization(name="tap"), layers.Dense(1, "tanh")])
    for method in (curvature.top_eigenpairs, curvature.hessian, curvature.trace_estimate):
        with pytest.raises(errors.ArgumentError, match="statistics over the batch"):
            method(normed, x, at=":input", training=True)


def test_no_scipy_or_an_old_one(monkeypatch):
    import scipy

    model, x = network()
    monkeypatch.setattr(scipy, "__version__", "1.15.2")
    with pytest.raises(errors.MissingExtraError, match=r"1\.17 or newer, and 1\.15\.2"):
        curvature.top_eigenpairs(model, x, target=0, at="tap")
    monkeypatch.setitem(sys.modules, "scipy", None)
    with pytest.raises(errors.MissingExtraError, match=r"gradtap\[scale\]"):
        curvature.top_eigenpairs(model, x, target=0, at="tap")


def test_an_error_or_ctrl_c_ends_every_iteration(monkeypatch):
    model, x = network()
    alive = threading.active_count()
    expected = curvature.top_eigenpairs(model, x, target=0, at="tap").eigenvalues.only
    before = eigenpairs._multiply
    for raised in (KeyboardInterrupt, ValueError, SystemExit):
        left = [3]

        def interrupted(stage, rows, vectors, raised=raised, left=left):
            left[0] -= 1
            if not left[0]:
                raise raised
            return before(stage, rows, vectors)

        monkeypatch.setattr(eigenpairs, "_multiply", interrupted)
        with pytest.raises(raised if raised is not ValueError else errors.ModelRunError):
            curvature.top_eigenpairs(model, x, target=0, at="tap")
        assert threading.active_count() == alive
    monkeypatch.setattr(eigenpairs, "_multiply", before)
    np.testing.assert_allclose(curvature.top_eigenpairs(model, x, target=0, at="tap").eigenvalues.only, expected)


def test_solvers_that_run_together():
    """Each gets its own products, ends when it likes, and what one raises ends all."""
    rounds = []

    def multiply(asking, vectors):
        rounds.append(list(asking))
        return vectors * (np.array(asking)[:, None] + 1)

    def solver(number, steps):
        def solve(product):
            value = np.ones(2)
            for _ in range(steps):
                value = product(value)
            return value

        return solve

    found = run_together([solver(0, 1), solver(1, 3), solver(2, 0), solver(3, 2)], multiply)
    np.testing.assert_array_equal(found, [[1, 1], [8, 8], [1, 1], [16, 16]])
    assert rounds == [[0, 1, 3], [1, 3], [1]]
    assert run_together([], multiply) == []

    def fails(product):
        product(np.ones(2))
        raise LookupError("mine")

    alive = threading.active_count()
    with pytest.raises(LookupError, match="mine"):
        run_together([solver(0, 100), fails, solver(2, 5)], multiply)
    assert threading.active_count() == alive
