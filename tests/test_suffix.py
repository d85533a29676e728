"""Trace.suffix: a model's rest from a tap on."""

from __future__ import annotations

import gc
import weakref

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import gradtap as gt
from gradtap import errors
from gradtap.graph import suffixes, surgery, walking
from reference.differences import assert_same_numbers, directional_difference
from reference.models import draws, float64_policy
from reference.smooth import KINDS, smooth


@pytest.mark.parametrize("kind", KINDS)
def test_the_rest_gives_what_the_whole_gives(kind):
    model, x = smooth(kind)
    a = gt.activations(model, x, at="tap").only.numpy()
    rest = gt.trace(model).suffix("tap", x)
    assert_same_numbers(rest(a), model(x), 1e-13)
    moved = a + 0.1 * draws(*a.shape)
    assert_same_numbers(rest(moved), gt.patch(model, x, {"tap": moved}), 1e-13)


def test_any_number_of_examples_where_the_tap_cuts_the_model():
    model, x = smooth("convolution")
    rest = gt.trace(model).suffix("tap", x[:1])
    a = np.repeat(gt.activations(model, x, at="tap").only, 4, axis=0)
    assert_same_numbers(rest(a), np.repeat(model(x), 4, axis=0), 1e-13)
    assert rest(a[:0]).shape == (0, 3)


def test_a_branch_around_the_tap_stays_at_the_inputs():
    model, x = smooth("skip")
    value = draws(3, 4, seed=1)
    rest = gt.trace(model).suffix("tap", x)
    assert_same_numbers(rest(value), gt.patch(model, x, {"tap": value}), 1e-13)
    assert_same_numbers(rest(value[:1]), gt.patch(model, x, {"tap": value[:1]}), 1e-13)
    one = gt.trace(model).suffix("tap", x[:1])
    assert_same_numbers(one(value), gt.patch(model, np.repeat(x[:1], 3, 0), {"tap": value}), 1e-13)
    with pytest.raises(errors.InputShapeError):
        rest(value[:2])


def test_what_comes_before_the_tap_is_gone(monkeypatch):
    model, x = smooth("recurrent")
    kept, prune = [], surgery.prune

    def counted(wrapped, feeds, fetches):
        kept.append((len(feeds), walking.ancestors(fetches, up_to=feeds[:1])))
        return prune(wrapped, feeds, fetches)

    monkeypatch.setattr(suffixes.surgery, "prune", counted)
    gt.trace(model).suffix("later", x)
    feeds, ops = kept[0]
    assert feeds == 1
    assert "While" not in {op.type for op in ops} | {"no"}
    gt.trace(model).suffix("tap", x)
    assert "While" in {op.type for op in kept[1][1]}


def test_from_the_input_and_from_the_output():
    model, x = smooth("dense")
    trace = gt.trace(model)
    assert_same_numbers(trace.suffix(":input", x)(2 * x), model(2 * x), 1e-13)
    np.testing.assert_array_equal(trace.suffix(":output", x)(draws(2, 3)), draws(2, 3))
    assert_same_numbers(trace.suffix("scores:preactivation", x)(np.zeros((2, 3))), np.full((2, 3), 1 / 3), 1e-13)


def test_new_weights_are_seen_and_a_new_structure_is_not():
    with float64_policy():
        model = keras.Sequential([keras.Input((3,)), layers.Dense(3, name="tap"), layers.Dense(2, name="end")])
    x, a = draws(2, 3), draws(2, 3, seed=1)
    rest = gt.trace(model).suffix("tap", x)
    kernel = draws(3, 2, seed=2)
    model.get_layer("end").kernel.assign(kernel)
    assert_same_numbers(rest(a), a @ kernel, 1e-13)
    model.get_layer("end").activation = keras.activations.tanh
    assert_same_numbers(rest(a), a @ kernel, 1e-13)
    assert_same_numbers(gt.trace(model).suffix("tap", x)(a), np.tanh(a @ kernel), 1e-13)


def test_inside_a_tf_function_and_under_a_tape():
    model, x = smooth("attention")
    rest = gt.trace(model).suffix("tap", x)
    a = gt.activations(model, x, at="tap").only

    @tf.function(input_signature=[tf.TensorSpec((None, 3, 4), tf.float64)])
    def slope(a):
        with tf.GradientTape() as tape:
            tape.watch(a)
            score = rest(a)[:, 2]
        return tape.gradient(score, a)

    assert_same_numbers(slope(a), gt.gradients(model, x, target=2, at="tap").only, 1e-12)


def test_training_draws_what_the_model_would_draw_next():
    with float64_policy():
        body = [layers.Dense(3, name="tap"), layers.Dropout(0.5, seed=1), layers.Dense(2)]
        model = keras.Sequential([keras.Input((3,)), *body])
    x = draws(4, 3)
    a = gt.activations(model, x, at="tap").only
    rest = gt.trace(model).suffix("tap", x, training=True)
    drawn = rest(a)
    np.testing.assert_array_equal(drawn, model(x, training=True))
    assert np.any(rest(a) != drawn)  # the model has drawn since


def test_nested_outputs_and_the_model_is_let_go():
    x = keras.Input((3,))
    h = layers.Dense(2, name="h")(x)
    model = keras.Model(x, {"a": layers.Dense(2, name="a")(h), "b": (h, layers.Dense(1, name="b")(h))})
    rest = gt.trace(model).suffix("h", draws(2, 3))
    outputs = rest(np.zeros((2, 2)))
    assert outputs["b"][0].shape == (2, 2)
    assert outputs["a"].shape == (2, 2)
    alive = weakref.ref(model)
    del model, x, h
    gc.collect()
    assert alive() is None
    assert rest(np.zeros((5, 2)))["a"].shape == (5, 2)


def test_mistakes_are_named():
    model, x = smooth("recurrent")
    trace = gt.trace(model)
    for at, error in [
        ("nowhere", errors.UnknownTapError),
        (["tap", "later"], errors.ArgumentError),
        ("later:cell", errors.SideError),
    ]:
        with pytest.raises(error):
            trace.suffix(at, x)
    with pytest.raises(errors.InputShapeError):
        trace.suffix("tap", x)(draws(3, 4, 5))
    with pytest.raises(errors.InputDtypeError):
        trace.suffix("tap", x)("text")


def test_tapes_through_a_cut_loop_and_more_gradients_of_the_whole_one(float64):
    """Each gradient rewrites the loop and registers it under a name, for all graphs of the process."""
    x = keras.Input((4, 2), dtype="float64")
    h = layers.LSTM(3, return_sequences=True, name="tap")(x)
    model = keras.Model(x, layers.Dense(4)(layers.LSTM(3, name="later")(h)))
    rows = draws(2, 4, 2)
    trace = gt.trace(model)
    vectors = draws(2, 4, 3, seed=1)
    for k in range(4):
        found = gt.hvp(trace, rows, vectors, target=lambda y, k=k: y[:, k] ** (k + 2), at="tap").only
        rest = trace.suffix("tap", rows)

        def slope(a, k=k, rest=rest):
            a = tf.convert_to_tensor(a)
            with tf.GradientTape() as tape:
                tape.watch(a)
                score = rest(a)[:, k] ** (k + 2)
            return tape.gradient(score, a).numpy()

        a = gt.activations(trace, rows, at="tap").only.numpy()
        assert_same_numbers(found, directional_difference(slope, a, vectors), 1e-5, floor=1e-7)


def test_a_gradient_that_is_stopped_half_way_through_a_loop_leaves_a_model_that_can_be_asked(float64, monkeypatch):
    """An interrupt between two of the changes that a gradient makes to a loop: the next call traces anew."""
    x = keras.Input((4, 2), dtype="float64")
    model = keras.Model(x, layers.Dense(2)(layers.LSTM(3, name="tap")(x)))
    rows = draws(2, 4, 2)
    expected = gt.gradients(model, rows, target=0, at=":input").only
    original, calls = tf.gradients, []

    def stopped(*args, **kwargs):
        calls.append(original(*args, **kwargs))
        raise KeyboardInterrupt

    monkeypatch.setattr(tf, "gradients", stopped)
    with pytest.raises(KeyboardInterrupt):
        gt.gradients(model, rows, target=lambda y: y[:, 1] ** 2, at=":input")
    monkeypatch.setattr(tf, "gradients", original)
    before = gt.trace(model).graphs.any_graph()
    assert_same_numbers(gt.gradients(model, rows, target=0, at=":input").only, expected, 1e-12)
    assert gt.trace(model).graphs.any_graph() is not before
