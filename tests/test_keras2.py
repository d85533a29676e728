"""Models of Keras 2 (`tf_keras`), modules and functions: tapped like those of Keras 3, and left as they were."""

from __future__ import annotations

import gc
import warnings
import weakref
from contextlib import contextmanager

import numpy as np
import pytest
import tensorflow as tf

import gradtap as gt
from reference.differences import assert_same_numbers, central_differences
from reference.layers import softmax
from reference.models import draws

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    k2 = pytest.importorskip("tf_keras", exc_type=ImportError)


@pytest.fixture(autouse=True)
def _float64():
    before = k2.backend.floatx()
    k2.backend.set_floatx("float64")
    yield
    k2.backend.set_floatx(before)


@contextmanager
def left_alone(model):
    """The model has the attributes and the weights that it had."""
    held = list(model._flatten_layers())
    before = [dict(vars(layer)) for layer in held]
    values = [np.array(v) for v in model.variables]
    yield
    for layer, attributes in zip(held, before, strict=True):
        assert sorted(vars(layer)) == sorted(attributes)
        assert vars(layer).get("call") is attributes.get("call")
    for one, other in zip(values, model.variables, strict=True):
        np.testing.assert_array_equal(one, other)


def dense(layer, activation=lambda x: x):
    kernel, bias = (np.array(w) for w in layer.weights)
    return lambda x: activation(x @ kernel + bias)


def check(model, x, target, expected, **options):
    """Activations, outputs and gradients, against functions of the activations."""
    with left_alone(model):
        g = gt.gradients(model, x, target=target, at=list(expected), **options)
    for traced, eager in zip(tf.nest.flatten(g.outputs), tf.nest.flatten(model(x)), strict=True):
        np.testing.assert_allclose(traced, eager, rtol=0, atol=1e-14)
    for address, (values, function) in expected.items():
        assert_same_numbers(g.activations[address], values, 1e-12)
        assert_same_numbers(g[address], central_differences(function, values))
    return g


@pytest.mark.parametrize("built", [True, False])
def test_sequential(built):
    a, b = k2.layers.Dense(5, activation="tanh", name="a"), k2.layers.Dense(3, activation="softmax", name="b")
    model = k2.Sequential([*([k2.Input((4,))] if built else []), a, b])
    x = draws(3, 4)
    gt.activations(model, x, at=":output")  # a model that was never called has no weights to restate it with
    fa, fb = dense(a), dense(b)
    expected = {
        ":input": (x, lambda t: softmax(fb(np.tanh(fa(t))))[:, 1]),
        "a:preactivation": (fa(x), lambda t: softmax(fb(np.tanh(t)))[:, 1]),
        "a": (np.tanh(fa(x)), lambda t: softmax(fb(t))[:, 1]),
        "b:preactivation": (fb(np.tanh(fa(x))), lambda t: softmax(t)[:, 1]),
    }
    check(model, x, 1, expected)
    assert {"a", "a:preactivation", "b"} <= {entry.address for entry in gt.taps(model)}


def test_functional_with_a_skip_and_a_shared_layer():
    shared, last = k2.layers.Dense(4, activation="tanh", name="shared"), k2.layers.Dense(2, name="last")
    x = k2.Input((4,))
    model = k2.Model(x, last(k2.layers.Add(name="sum")([shared(shared(x)), x])))
    rows = draws(3, 4)
    f, end = dense(shared, np.tanh), dense(last)
    expected = {
        "shared[0]": (f(rows), lambda t: end(f(t) + rows)[:, 1]),
        "shared[1]": (f(f(rows)), lambda t: end(t + rows)[:, 1]),
        "shared[0]:input": (rows, lambda t: end(f(f(t)) + rows)[:, 1]),
        "sum": (f(f(rows)) + rows, lambda t: end(t)[:, 1]),
    }
    check(model, rows, 1, expected)


class Branching(k2.Model):
    """Goes one way or another by a number, as AutoGraph makes of a plain `if`."""

    def __init__(self):
        super().__init__()
        self.first = k2.layers.Dense(4, activation="tanh")
        self.blocks = [k2.layers.Dense(4), k2.layers.Dense(4)]

    def call(self, x):
        h = self.first(x)
        if tf.reduce_sum(h) > 0:  # noqa: SIM108
            y = tf.sin(h)
        else:
            y = h * h
        for block in self.blocks:
            y = block(y)
        return y


def test_subclassed_with_an_if():
    model = Branching()
    for seed in (0, 1, 2, 3):
        x = draws(3, 5, seed=seed)
        gt.activations(model, x, at=":output")
        first, one, two = dense(model.first, np.tanh), *(dense(block) for block in model.blocks)
        h = first(x)
        branch = np.sin if h.sum() > 0 else np.square
        expected = {
            "first": (h, lambda t, branch=branch: two(one(branch(t)))[:, 1]),
            "blocks/0": (one(branch(h)), lambda t: two(t)[:, 1]),
            "blocks/1": (two(one(branch(h))), lambda t: t[:, 1]),
        }
        check(model, x, 1, expected)


def test_recurrent_layers():
    a, b = k2.layers.LSTM(4, return_sequences=True, name="a"), k2.layers.GRU(3, name="b")
    model = k2.Sequential([k2.Input((None, 2)), k2.layers.Masking(name="mask"), a, b, k2.layers.Dense(2, name="last")])
    x = draws(3, 5, 2)
    x[1, 3:] = 0
    g = gt.gradients(model, x, target=1, at=["mask", "a", "b"])
    np.testing.assert_allclose(g.outputs, model(x), rtol=0, atol=1e-14)
    last = np.array(model.layers[-1].kernel)

    def unmasked(t):
        kernel, recurrent, bias = (np.array(w) for w in b.weights)
        h = np.zeros((len(t), 3))
        mask = (x != 0).any(-1)
        for step in range(t.shape[1]):
            xz, xr, xh = np.split(t[:, step] @ kernel + bias[0], 3, -1)
            hz, hr, hh = np.split(h @ recurrent + bias[1], 3, -1)
            z, r = 1 / (1 + np.exp(-xz - hz)), 1 / (1 + np.exp(-xr - hr))
            new = z * h + (1 - z) * np.tanh(xh + r * hh)
            h = np.where(mask[:, step, None], new, h)
        return h @ last[:, 1]

    assert_same_numbers(g["b"], np.tile(last[:, 1], (3, 1)), 1e-13)
    assert_same_numbers(g["a"], central_differences(unmasked, g.activations["a"].numpy()))
    with tf.GradientTape() as tape:
        t = tf.constant(x)
        tape.watch(t)
        score = tf.reduce_sum(model.layers[-1](b(a(t, mask=(x != 0).any(-1)), mask=(x != 0).any(-1)))[:, 1])
    assert_same_numbers(g["mask"], tape.gradient(score, t), 1e-12)


def test_multi_head_attention():
    attend = k2.layers.MultiHeadAttention(2, 4, name="attend")
    x = k2.Input((3, 4))
    model = k2.Model(x, attend(x, x, attention_mask=tf.linalg.band_part(tf.ones((1, 3, 3)), -1, 0)))
    rows = draws(2, 3, 4)
    q, k, v, out = (
        [np.array(w) for w in getattr(attend, f"_{part}_dense").weights] for part in ("query", "key", "value", "output")
    )
    pq, pk, pv = (np.einsum("btd,dhk->bthk", rows, w[0]) + w[1] for w in (q, k, v))
    causal = np.where(np.tril(np.ones((3, 3))), 0, -1e9)

    def probabilities(pq, pk):
        return softmax(np.einsum("bqhd,bkhd->bhqk", pq, pk) / 2 + causal)

    def end(p, pv):
        y = np.einsum("bqhd,hdm->bqm", np.einsum("bhqk,bkhd->bqhd", p, pv), out[0]) + out[1]
        return np.sin(y).sum((1, 2))

    p = probabilities(pq, pk)
    expected = {
        "attend:query": (pq, lambda t: end(probabilities(t, pk), pv)),
        "attend:key": (pk, lambda t: end(probabilities(pq, t), pv)),
        "attend:value": (pv, lambda t: end(p, t)),
        "attend:attention": (p, lambda t: end(t, pv)),
    }
    check(model, rows, lambda y: tf.reduce_sum(tf.sin(y), (1, 2)), expected)


def test_training_takes_the_statistics_of_the_batch_and_changes_nothing():
    norm, last = k2.layers.BatchNormalization(name="norm"), k2.layers.Dense(2, activation="tanh", name="last")
    model = k2.Sequential([k2.Input((3,)), norm, last])
    x = draws(4, 3)
    with left_alone(model):
        g = gt.gradients(model, x, target=1, at=[":input", "norm"], training=True)
    f = dense(last, np.tanh)

    def total(t):
        t = t.reshape(4, 3)
        return f((t - t.mean(0)) / np.sqrt(t.var(0) + norm.epsilon))[:, 1].sum(keepdims=True)

    assert_same_numbers(g.activations["norm"], (x - x.mean(0)) / np.sqrt(x.var(0) + norm.epsilon), 1e-12)
    assert_same_numbers(g[":input"], central_differences(total, x.reshape(1, 12)).reshape(4, 3))
    assert not np.allclose(g.outputs, model(x))


def test_dropout_of_keras_2():
    model = k2.Sequential([k2.Input((30,)), k2.layers.Dropout(0.5, name="drop"), k2.layers.Dense(2)])
    x = np.ones((2, 30))
    g = gt.gradients(model, x, target=1, at=":input", training=True)
    share = np.mean(g.only.numpy() == 0)
    assert 0.2 < share < 0.8
    np.testing.assert_array_equal(gt.gradients(model, x, target=1, at=":input").only.numpy() == 0, False)


def test_a_model_that_is_dropped_dies():
    model = k2.Sequential([k2.Input((3,)), k2.layers.Dense(2)])
    gt.gradients(model, draws(2, 3), target=1, at=":input")
    reference = weakref.ref(model)
    del model
    gc.collect()
    assert reference() is None


# -- modules and functions ---------------------------------------------------------------------------------------------


class Gated(tf.Module):
    """A module whose call is compiled, with a module inside of which the call is compiled too."""

    class Part(tf.Module):
        def __init__(self, seed):
            super().__init__()
            self.w = tf.Variable(draws(3, 3, seed=seed))
            self.dense = k2.layers.Dense(3, activation="tanh")

        @tf.function
        def __call__(self, x):
            return self.dense(x @ self.w)

    def __init__(self):
        super().__init__()
        self.parts = [self.Part(1), self.Part(2)]

    @tf.function
    def __call__(self, x):
        h = self.parts[0](x)
        if tf.reduce_sum(x) > 0:
            h = 2.0 * h
        return self.parts[1](h) * h


def test_modules_with_compiled_calls():
    model = Gated()
    x = np.abs(draws(2, 3))
    model(x)
    one, two = model.parts
    fa, fb = (lambda t, p=p: np.tanh(t @ p.w.numpy() @ np.array(p.dense.kernel)) for p in (one, two))
    h = 2 * fa(x)
    g = gt.gradients(model, x, target=1, at=[":input", "parts/0/dense", "parts/1/dense"])
    assert_same_numbers(g.outputs, fb(h) * h, 1e-13)
    assert_same_numbers(g.activations["parts/0/dense"], fa(x), 1e-13)
    rest = lambda t: (fb(2 * t) * 2 * t)[:, 1]  # noqa: E731
    assert_same_numbers(g["parts/0/dense"], central_differences(rest, fa(x)))
    assert_same_numbers(g["parts/1/dense"], h * [0, 1, 0], 1e-13)
    assert_same_numbers(g[":input"], central_differences(lambda t: rest(fa(t)), x))


def test_functions_of_several_tensors_and_a_compiled_one():
    w = tf.Variable(draws(3, 2))

    def plain(a, b):
        return {"y": tf.tanh(a @ w, name="inner") * b}

    a, b = draws(4, 3), draws(4, 2, seed=1)
    # AutoGraph puts what it converts into a scope of the function's name.
    compiled = [(tf.function(plain), "plain/inner"), (tf.function(plain, autograph=False), "inner")]
    for function, op in [(plain, "inner"), *compiled]:
        g = gt.gradients(function, [a, b], target=1, at=[":input.0", ":input.1", gt.Tap.op(op)])
        y = np.tanh(a @ w.numpy())
        assert_same_numbers(g[":input.1"], y * [0, 1], 1e-13)
        assert_same_numbers(g[f"{op}:0"], b * [0, 1], 1e-13)
        assert_same_numbers(g[":input.0"], (b * [0, 1] * (1 - y**2)) @ w.numpy().T, 1e-13)


class Methods(tf.Module):
    """A compiled method, and a compiled function, inside of a function that is not."""

    def __init__(self):
        super().__init__()
        self.dense = k2.layers.Dense(3, activation="tanh")
        self.scaled = tf.function(lambda x, factor=1.0: x * factor)

    @tf.function(reduce_retracing=True)
    def twice(self, x):
        for _ in range(2):
            x = self.dense(x)
        return x

    def __call__(self, x):
        return self.scaled(self.twice(x), factor=3.0)


def test_compiled_methods_within_a_call():
    model, x = Methods(), draws(2, 3)
    model(x)
    call, count = type(tf.function(model)).__call__, model.twice.experimental_get_tracing_count()
    f = dense(model.dense, np.tanh)
    g = gt.gradients(model, x, target=1, at=["dense[0]", "dense[1]"])
    assert call is type(tf.function(model)).__call__
    assert_same_numbers(g.outputs, 3 * f(f(x)), 1e-13)
    assert_same_numbers(g["dense[0]"], central_differences(lambda t: 3 * f(t)[:, 1], f(x)))
    np.testing.assert_allclose(g["dense[1]"], np.tile([0.0, 3.0, 0.0], (2, 1)))
    assert model.twice.experimental_get_tracing_count() == count
