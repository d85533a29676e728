"""Gauss-Newton products: J^T H J by brute force, where they are the Hessian, and where they cannot be negative."""

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

CLASSES = np.array([0, 2, 1])


def cross_entropy():
    return gt.targets.loss("sparse_categorical_crossentropy", CLASSES)


def outer_of_cross_entropy(model, x):
    """diag(p) - p p^T, the Hessian of a cross-entropy in the logits."""
    p = np.asarray(model(x))
    return np.einsum("bi,ij->bij", p, np.eye(3)) - np.einsum("bi,bj->bij", p, p)


def brute_force(model, x, outer, tap, of="scores:preactivation"):
    """J^T H J from the whole Jacobian, ``(batch, n, n)``."""
    jacobian = gt.jacobian(model, x, at=tap, of=of).only.numpy().reshape(len(x), outer.shape[1], -1)
    return np.einsum("bia,bij,bjc->bac", jacobian, outer, jacobian)


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_of_a_cross_entropy_it_is_that_of_the_logits(kind):
    model, x = smooth(kind)
    tap = "tap" if kind != "shared" else "later"
    expected = brute_force(model, x, outer_of_cross_entropy(model, x), tap)
    v = draws(*gt.activations(model, x, at=tap).only.shape, seed=3)
    products = np.einsum("bij,bj->bi", expected, v.reshape(len(x), -1)).reshape(v.shape)
    for target in (cross_entropy(), lambda y: -tf.math.log(tf.gather(y, CLASSES, batch_dims=1))):
        found = curvature.gauss_newton(model, x, v, target=target, at=tap).only
        assert_same_numbers(found, products, 1e-11, 1e-6)
    if kind in ("dense", "convolution"):
        diagonal = curvature.hessian_diagonal(model, x, target=cross_entropy(), at=tap, matrix="gauss_newton")
        own = np.diagonal(expected, axis1=1, axis2=2).reshape(v.shape)
        assert_same_numbers(diagonal.only, own, 1e-11, 1e-6)
        ask = {"target": cross_entropy(), "at": tap, "samples": 300, "seed": 1}
        traces = curvature.trace_estimate(model, x, **ask, matrix="gauss_newton")
        off = np.abs(traces.only - own.reshape(len(x), -1).sum(1))
        assert np.all(off < 5 * traces.standard_error.only)
        assert np.any(traces.standard_error.only > 0)


def test_where_the_inner_part_is_linear_it_is_the_hessian_and_else_it_is_not():
    model, x = smooth("dense")
    for tap, same in (("later", True), ("scores:preactivation", True), ("tap", False), (":input", False)):
        v = draws(*gt.activations(model, x, at=tap).only.shape, seed=1)
        for target in (cross_entropy(), 1, lambda y: y[:, 0] * y[:, 1]):
            found = curvature.gauss_newton(model, x, v, target=target, at=tap).only
            whole = gt.hvp(model, x, v, target=target, at=tap).only
            difference = np.max(np.abs(found - whole)) / np.max(np.abs(whole))
            assert difference < 1e-11 if same else difference > 1e-2


def test_of_convex_losses_it_is_never_negative():
    model, x = smooth("attention")
    v = draws(20, *gt.activations(model, x, at="tap").only.shape, seed=5)
    bends, negative = [], []
    for w in v:
        found = curvature.gauss_newton(model, x, w, target=cross_entropy(), at="tap").only
        whole = gt.hvp(model, x, w, target=cross_entropy(), at="tap").only
        bends += list(np.sum(found * w, axis=(1, 2)))
        negative += list(np.sum(whole * w, axis=(1, 2)))
    assert min(bends) > 0 > min(negative)


def test_what_it_is_taken_as_a_function_of():
    """The outputs themselves where nothing squashes them; any layers between, if all of the target goes through."""
    model, x = smooth("skip")
    v = draws(3, 4, seed=2)

    def squares(y):
        return tf.reduce_sum(y**2, 1)

    regression = keras.Sequential([keras.Input((3,), dtype="float64"), layers.Dense(5, "tanh", dtype="float64")])
    regression.add(layers.Dense(2, "tanh", dtype="float64", name="values"))
    w = draws(3, 3, seed=4)
    expected = np.einsum(
        "bij,bj->bi", brute_force(regression, x, np.tile(2 * np.eye(2), (3, 1, 1)), ":input", "values"), w
    )
    assert_same_numbers(curvature.gauss_newton(regression, x, w, target=squares, at=":input").only, expected, 1e-11)
    outer = curvature.hessian(model, x, target=squares, at="later").only.numpy()
    expected = np.einsum("bij,bj->bi", brute_force(model, x, outer, "tap", "later"), v)
    found = curvature.gauss_newton(model, x, v, target=squares, at="tap", of="later").only
    assert_same_numbers(found, expected, 1e-11, 1e-6)
    with pytest.raises(errors.ArgumentError, match="`stem` by a way around"):
        curvature.gauss_newton(model, x, v, target=squares, at="stem", of="tap")
    with pytest.raises(errors.ArgumentError, match="none of them"):
        curvature.gauss_newton(model, x, v, target=gt.targets.neuron("tap", 0), at="stem")


def test_places_that_depend_on_each_other_are_variables_of_their_own():
    """Of F = h^2 y at h and y = h^3 the outer Hessian is [[2y, 2h], [2h, 0]], not that of h^5."""
    with float64_policy():
        inputs = keras.Input((1,))
        first = layers.Activation(keras.ops.sin, name="h")(inputs)
        second = layers.Lambda(lambda h: h**3, name="y")(first)
        model = keras.Model(inputs, layers.Lambda(lambda both: both[0] ** 2 * both[1])([first, second]))
    x = draws(4, 1)
    h, cos = np.sin(x[:, 0]), np.cos(x[:, 0])
    jacobian = np.stack([cos, 3 * h**2 * cos], 1)
    outer = np.stack([np.stack([2 * h**3, 2 * h], 1), np.stack([2 * h, 0 * h], 1)], 1)
    expected = np.einsum("bi,bij,bj->b", jacobian, outer, jacobian)
    found = curvature.gauss_newton(model, x, np.ones((4, 1)), at=":input", of=["h", "y"]).only
    assert_same_numbers(found[:, 0], expected, 1e-12)


def test_several_taps_are_one_matrix():
    model, x = smooth("dense")
    at = ["tap", "later"]
    u, v = ({"tap": draws(3, 4, seed=s), "later": draws(3, 5, seed=s)} for s in (1, 2))
    gu, gv = (curvature.gauss_newton(model, x, w, target=cross_entropy(), at=at) for w in (u, v))
    left, right = (sum(np.sum(a[t] * b[t], 1) for t in at) for a, b in ((u, gv), (v, gu)))
    assert_same_numbers(left, right, 1e-11)
    jacobians = [gt.jacobian(model, x, at=t, of="scores:preactivation").only.numpy() for t in at]
    whole = np.concatenate(jacobians, 2)
    expected = np.einsum(
        "bia,bij,bjc,bc->ba", whole, outer_of_cross_entropy(model, x), whole, np.concatenate([v[t] for t in at], 1)
    )
    assert_same_numbers(np.concatenate([gv[t] for t in at], 1), expected, 1e-11)


def test_the_states_of_a_loop():
    model, x = smooth("recurrent")
    v = draws(*gt.activations(model, x, at="later:hidden").only.shape, seed=1)
    expected = brute_force(model, x, outer_of_cross_entropy(model, x), "later:hidden")
    found = curvature.gauss_newton(model, x, v, target=cross_entropy(), at="later:hidden").only
    assert_same_numbers(found, np.einsum("bij,bj->bi", expected, v.reshape(3, -1)).reshape(v.shape), 1e-11, 1e-8)


def test_batches_parts_and_functions():
    model, x = smooth("convolution")
    v = draws(*gt.activations(model, x, at="tap").only.shape, seed=1)

    def call(x, v, **more):
        return curvature.gauss_newton(model, x, v, target=lambda y: tf.math.log(y[:, 1]), at="tap", **more).only

    whole = call(x, v)
    assert_same_numbers(call(x, v, batch_size=2), whole, 1e-12, 1e-6)
    assert call(x[:0], v[:0]).shape == (0, *v.shape[1:])
    one = call(x, v[:1].repeat(3, 0))
    batches = tf.data.Dataset.from_tensor_slices(x).batch(2)
    assert_same_numbers(call(batches, v[:1]), one, 1e-12, 1e-6)
    spec = tf.TensorSpec((None, *x.shape[1:]), tf.float64)
    assert_same_numbers(tf.function(lambda x: call(x, v[:1]), input_signature=[spec])(x), one, 1e-12, 1e-6)


def test_a_logit_is_linear_in_the_logits():
    model, x = smooth("dense")
    logit = gt.targets.class_score(0, logits=True)
    with pytest.warns(errors.NoCurvatureWarning, match="A logit is"):
        assert not np.any(curvature.gauss_newton(model, x, draws(3, 4), target=logit, at="tap").only)
    with pytest.warns(errors.NoCurvatureWarning, match="A logit is"):
        assert not np.any(curvature.trace_estimate(model, x, target=logit, at="tap", matrix="gauss_newton").only)
    curvature.gauss_newton(model, x, np.zeros((3, 4)), target=logit, at="tap")
