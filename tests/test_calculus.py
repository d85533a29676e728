"""vjp, jvp, jacobian and hvp: numbers against analytic ones, dense brute force and central differences at the tap."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import gradtap as gt
from gradtap import errors, jacobians
from gradtap.graph import surgery
from reference.differences import STEP, assert_same_numbers, central_differences, directional_difference
from reference.models import draws, float64_policy
from reference.smooth import KINDS, smooth

CLASS = 1


def activations(model, x, at="tap"):
    return gt.activations(model, x, at=at).only.numpy()


def dense_jacobian(model, x, at="tap"):
    """dy_i/da_j of the outputs by central differences, one replaced entry at a time: ``(batch, outputs, *tap)``."""
    a = activations(model, x, at)
    slope = np.empty((len(a), model.output_shape[-1], *a.shape[1:]))
    for entry in np.ndindex(a.shape[1:]):
        step = np.zeros_like(a)
        step[(slice(None), *entry)] = STEP
        up, down = (np.asarray(gt.patch(model, x, {at: b})) for b in (a + step, a - step))
        slope[(slice(None), slice(None), *entry)] = (up - down) / (2 * STEP)
    return slope


def slope_at(model, x, k=CLASS, at="tap"):
    """The gradient of class k as a function of the activations, by a plain tape over the rest of the model."""
    rest = gt.trace(model).suffix(at, x)

    def slope(a):
        a = tf.convert_to_tensor(a)
        with tf.GradientTape() as tape:
            tape.watch(a)
            score = rest(a)[:, k]
        return tape.gradient(score, a).numpy()

    return slope


# -- every kind of model -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_a_jacobian_is_that_of_brute_force_and_products_are_products_with_it(kind):
    model, x = smooth(kind)
    expected = dense_jacobian(model, x)
    whole = gt.jacobian(model, x, at="tap").only.numpy()
    assert_same_numbers(whole, expected)
    u, v = draws(*expected.shape[:2], seed=1), draws(len(x), *expected.shape[2:], seed=2)
    left = gt.vjp(model, x, u, at="tap").only.numpy()
    right = gt.jvp(model, x, v, at="tap").only.numpy()
    assert_same_numbers(left, np.einsum("ni,ni...->n...", u, whole), 1e-12)
    flat = whole.reshape(*whole.shape[:2], -1)
    assert_same_numbers(right, np.einsum("nij,nj->ni", flat, v.reshape(len(x), -1)), 1e-12)
    assert_same_numbers(np.sum(left * v), np.sum(u * right), 1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_hessian_products_are_differences_of_gradients_and_symmetric(kind):
    model, x = smooth(kind)
    a = activations(model, x)
    u, v = draws(*a.shape, seed=1), draws(*a.shape, seed=2)
    hv = gt.hvp(model, x, v, target=CLASS, at="tap").only.numpy()
    assert_same_numbers(hv, directional_difference(slope_at(model, x), a, v))
    hu = gt.hvp(model, x, u, target=CLASS, at="tap").only.numpy()
    rows = tuple(range(1, a.ndim))
    assert_same_numbers(np.sum(u * hv, rows), np.sum(v * hu, rows), 1e-10)


@pytest.mark.parametrize("kind", ["dense", "convolution", "skip", "attention"])
def test_between_two_taps(kind):
    model, x = smooth(kind)
    whole = gt.jacobian(model, x, at="tap", of="later").only.numpy()
    a, later = activations(model, x), activations(model, x, "later")
    assert whole.shape == (len(x), *later.shape[1:], *a.shape[1:])
    u, v = draws(*later.shape, seed=1), draws(*a.shape, seed=2)
    left = gt.vjp(model, x, u, at="tap", of="later").only.numpy()
    right = gt.jvp(model, x, v, at="tap", of="later").only.numpy()
    flat = whole.reshape(len(x), later[0].size, a[0].size)
    assert_same_numbers(left.reshape(len(x), -1), np.einsum("ni,nij->nj", u.reshape(len(x), -1), flat), 1e-12)
    assert_same_numbers(right.reshape(len(x), -1), np.einsum("nij,nj->ni", flat, v.reshape(len(x), -1)), 1e-12)
    # `later` cuts the graph: what comes to `tap` has gone through it.
    g = gt.gradients(model, x, target=CLASS, at=["tap", "later"])
    assert_same_numbers(gt.vjp(model, x, g["later"], at="tap", of="later").only, g["tap"], 1e-12)


def test_several_taps_jointly():
    """Of taps that do not depend on each other: the blocks of one Hessian and the sum of the changes."""
    inputs = [keras.Input((4,), name=n, dtype="float64") for n in "ab"]
    with float64_policy():
        hidden = [layers.Dense(3, activation="tanh", name=f"h{n}")(x) for n, x in zip("ab", inputs, strict=True)]
        model = keras.Model(inputs, layers.Dense(2, activation="softmax")(layers.Multiply()(hidden)))
    x = [draws(2, 4, seed=1), draws(2, 4, seed=2)]
    at, rest = ["ha", "hb"], keras.Model(hidden, model.output)
    values = gt.activations(model, x, at=at)
    u, v = ({t: draws(2, 3, seed=s + i) for i, t in enumerate(at)} for s in (3, 5))
    hv, hu = (gt.hvp(model, x, w, target=0, at=at) for w in (v, u))

    def slopes(step):
        moved = [tf.convert_to_tensor(values[t] + step * v[t]) for t in at]
        with tf.GradientTape() as tape:
            tape.watch(moved)
            score = rest(moved)[:, 0]
        return tape.gradient(score, moved)

    for t, up, down in zip(at, slopes(STEP), slopes(-STEP), strict=True):
        assert_same_numbers(hv[t], (up - down) / (2 * STEP))
    assert_same_numbers(*(sum(np.sum(a[t] * b[t]) for t in at) for a, b in ((u, hv), (v, hu))), 1e-10)
    change = gt.jvp(model, x, v, at=at)
    assert list(change) == [":output"]
    by_hand = (rest([values[t] + STEP * v[t] for t in at]) - rest([values[t] - STEP * v[t] for t in at])) / (2 * STEP)
    assert_same_numbers(change.only, by_hand)


# -- on paper ----------------------------------------------------------------------------------------------------------


def test_a_quadratic_and_a_linear_head():
    matrix, x, v = draws(4, 4), draws(2, 4, seed=1), draws(2, 4, seed=2)
    product = gt.hvp(lambda x: tf.einsum("ni,ij,nj->n", x, matrix, x) / 2, x, v, at=":input").only
    assert_same_numbers(product, v @ (matrix + matrix.T) / 2, 1e-13)
    model, x = smooth("dense")
    kernel = model.get_layer("scores").kernel.numpy()
    whole = gt.jacobian(model, x, at="later", of="scores:preactivation").only
    np.testing.assert_allclose(whole, np.tile(kernel.T, (3, 1, 1)), rtol=1e-13)
    u = draws(3, 3, seed=2)
    assert_same_numbers(gt.vjp(model, x, u, at="later", of="scores:preactivation").only, u @ kernel.T, 1e-13)


def test_the_hessian_of_a_log_sum_of_exponentials():
    model, x = smooth("dense")
    kernel, v = model.get_layer("scores").kernel.numpy(), draws(3, 5, seed=3)
    p = np.asarray(model(x))
    inner = v @ kernel
    expected = ((inner * p) - p * np.sum(p * inner, -1, keepdims=True)) @ kernel.T

    def target(y):  # the logarithm of a probability is a logit less the logarithm of the sum
        return -tf.math.log(y[:, 2])

    assert_same_numbers(gt.hvp(model, x, v, target=target, at="later").only, expected, 1e-12)


def test_exact_zeros_where_only_linear_layers_follow():
    with float64_policy():
        body = [layers.Conv2D(2, 2, activation="relu", name="tap"), layers.Flatten(), layers.Dense(2)]
        model = keras.Sequential([keras.Input((4, 4, 1)), *body])
    x, v = draws(2, 4, 4, 1), draws(2, 3, 3, 2)
    for tap, vector in (("tap", v), (":input", draws(2, 4, 4, 1))):  # relu bends nowhere
        with pytest.warns(errors.NoCurvatureWarning, match=f"`{tap}` .* log-probability"):
            assert not np.any(gt.hvp(model, x, vector, target=0, at=tap).only)
        assert not np.any(gt.hvp(model, x, vector, target=0, at=tap, checks=False).only)
        gt.hvp(model, x, 0 * vector, target=0, at=tap)  # zero times anything says nothing


# -- how rows of a Jacobian are worked out -----------------------------------------------------------------------------


def fresh(kind):
    """A copy of a model, on which nothing has been built yet."""
    model, x = smooth(kind)
    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    return copy, x


def count_runs(monkeypatch):
    sizes = []
    slopes = jacobians._Rows._slopes
    monkeypatch.setattr(
        jacobians._Rows, "_slopes", lambda s, f, r: sizes.append((s.examples, len(r))) or slopes(s, f, r)
    )
    return sizes


@pytest.mark.parametrize("kind", ["convolution", "attention"])
def test_chunks_and_the_way_without_vectorising_change_nothing(kind, monkeypatch):
    model, x = fresh(kind)
    whole = gt.jacobian(model, x, at="tap").only
    sizes = count_runs(monkeypatch)
    monkeypatch.setattr(jacobians, "_CHUNK_BYTES", 4 * 8 * 2 * x.shape[0] * whole[0, 0].shape.num_elements())
    assert_same_numbers(gt.jacobian(model, x, at="tap").only, whole, 1e-13)
    assert sizes == [(None, 2), (None, 1)]

    def refuse(*args):
        raise ValueError("no")

    monkeypatch.setattr(surgery, "vectorised_gradients", refuse)
    model, x = fresh(kind)
    sizes.clear()
    assert_same_numbers(gt.jacobian(model, x, at="tap").only, whole, 1e-13)
    assert sizes == [(256, 2), (256, 1)]


def test_rows_go_through_a_loop_as_examples(monkeypatch):
    model, x = fresh("recurrent")
    sizes = count_runs(monkeypatch)
    whole = gt.jacobian(model, x, at="tap").only
    assert sizes == [(256, 3)]
    monkeypatch.setattr(jacobians, "_EXAMPLES", 3)
    again, _ = fresh("recurrent")
    assert_same_numbers(gt.jacobian(again, x, at="tap").only, whole, 1e-13)
    assert sizes[1:] == [(3, 1)] * 3
    after = gt.jacobian(again, x, at="later", of="scores:preactivation").only
    np.testing.assert_allclose(after, np.tile(again.get_layer("scores").kernel.numpy().T, (3, 1, 1)))
    assert sizes[-1] == (None, 3)


@pytest.mark.parametrize("vectorises", [True, False])
def test_batch_statistics_couple_the_rows(vectorises, monkeypatch):
    """With training=True row i of example n is the sum over all examples m of dy_{m,i}/da_n, in either way."""
    if not vectorises:
        monkeypatch.setattr(surgery, "vectorised_gradients", lambda *_: 1 / 0)
    with float64_policy():
        body = [layers.Dense(3, name="tap"), layers.BatchNormalization(), layers.Dense(2, activation="tanh")]
        model = keras.Sequential([keras.Input((2,)), *body])
    x = draws(4, 2)
    whole = gt.jacobian(model, x, at="tap", training=True).only.numpy()
    for k in range(2):
        by_target = gt.gradients(model, x, target=k, at="tap", training=True).only
        assert_same_numbers(whole[:, k], by_target, 1e-10)


def test_a_result_too_large_for_memory_is_refused_before_it_is_made():
    model = keras.Sequential([keras.Input((3000,)), layers.Identity(name="tap"), layers.Identity()])
    with pytest.raises(errors.MemoryBudgetError, match="GB"):
        gt.jacobian(model, np.zeros((20000, 3000), "float32"), at="tap")


# -- the same keywords as everywhere -----------------------------------------------------------------------------------


def calls(model, x, v, at="tap", **options):
    """Every function of this page, on one model."""
    u = draws(1, 3, seed=4)
    yield gt.vjp(model, x, u, at=at, **options).only
    yield gt.jvp(model, x, v, at=at, **options).only
    yield gt.jacobian(model, x, at=at, **options).only
    yield gt.hvp(model, x, v, target=0, at=at, **options).only


@pytest.mark.parametrize("kind", ["dense", "recurrent"])
def test_parts_datasets_and_batches_of_none_and_one(kind):
    model, x = smooth(kind)
    v = draws(*activations(model, x).shape, seed=1)
    whole = list(calls(model, x, v))
    for got, expected in zip(calls(model, x, v, batch_size=2), whole, strict=True):
        assert_same_numbers(got, expected, 1e-13)
    for got, expected in zip(calls(model, x[:1], v[:1]), whole, strict=True):
        assert_same_numbers(got, expected[:1], 1e-13)
    for got, expected in zip(calls(model, x[:0], v[:0]), whole, strict=True):
        assert got.shape == (0, *expected.shape[1:])
        assert got.dtype == tf.float64
    batches = tf.data.Dataset.from_tensor_slices(x).batch(2)
    one = list(calls(model, x, np.repeat(v[:1], 3, 0)))
    for got, expected in zip(calls(model, batches, v[:1]), one, strict=True):
        assert_same_numbers(got, expected, 1e-13)
    with pytest.raises(errors.GradtapError):
        gt.hvp(model, batches, v, target=0, at="tap")


@pytest.mark.parametrize("kind", ["dense", "convolution", "recurrent"])
def test_inside_a_tf_function_of_unknown_batch(kind):
    model, x = smooth(kind)
    v = draws(*activations(model, x).shape, seed=1)[:1]
    expected = list(calls(model, x, np.repeat(v, 3, 0)))
    spec = tf.TensorSpec((None, *x.shape[1:]), tf.float64)
    inside = tf.function(lambda x: list(calls(model, x, v)), input_signature=[spec])(tf.constant(x))
    for got, value in zip(inside, expected, strict=True):
        assert_same_numbers(got, value, 1e-13)


@pytest.mark.parametrize(("kind", "which"), [*(("dense", i) for i in range(4)), ("normalised", 3)])
def test_an_outer_tape_differentiates_them_again(kind, which):
    """Up to third derivatives of the model, with respect to its inputs."""
    model, x = fresh(kind)
    v, direction = draws(*activations(model, x).shape, seed=1), draws(*x.shape, seed=2)

    def total(x):
        return tf.reduce_sum(tf.tanh(list(calls(model, x, v))[which]))

    variable = tf.Variable(x)
    with tf.GradientTape() as tape:
        value = total(tf.convert_to_tensor(variable))
    slope = np.sum(tape.gradient(value, variable) * direction)
    assert_same_numbers(slope, directional_difference(lambda x: total(tf.constant(x)).numpy(), x, direction), 1e-6)


def test_nothing_is_built_twice():
    model, x = fresh("dense")
    list(calls(model, x, draws(3, 4)))
    graph = gt.trace(model).graphs.any_graph()
    before = surgery.op_count(graph.graph)
    list(calls(model, x, draws(3, 4, seed=9)))
    gt.hvp(model, x, draws(3, 4), target=2, at="tap")
    assert surgery.op_count(graph.graph) == before


def test_mistakes_are_named():
    model, x = smooth("dense")
    for call, error in [
        (lambda: gt.vjp(model, x, draws(3, 2), at="tap"), errors.InputShapeError),
        (lambda: gt.vjp(model, x, np.array([["a"] * 3]), at="tap"), errors.InputDtypeError),
        (lambda: gt.jvp(model, x, draws(3, 4), at=["tap", "later"]), errors.ArgumentError),
        (lambda: gt.jvp(model, x, {"later": draws(3, 5)}, at=["tap", "later"]), errors.ArgumentError),
        (lambda: gt.hvp(model, x, {"tap": draws(3, 4), "other": 0}, target=0, at="tap"), errors.ArgumentError),
        (lambda: gt.jacobian(model, x, at="later", of="tap"), errors.UnconnectedTapError),
        (lambda: gt.jacobian(model, x, at="tap", of=["later", "scores"]), errors.ArgumentError),
    ]:
        with pytest.raises(error):
            call()
    zeros = gt.jvp(model, x, draws(3, 5), at="later", of="tap", unconnected="zero").only
    assert zeros.shape == (3, 4)
    assert not np.any(zeros)


def test_central_differences_agree_with_the_gradient_everywhere():
    """The scale on which the other tests measure."""
    for kind in KINDS:
        model, x = smooth(kind)
        a = activations(model, x)
        by_patch = central_differences(lambda a, m=model, x=x: np.asarray(gt.patch(m, x, {"tap": a}))[:, CLASS], a)
        assert_same_numbers(gt.gradients(model, x, target=CLASS, at="tap").only, by_patch)
