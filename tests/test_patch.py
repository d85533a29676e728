"""patch: what depends on a replaced tap follows it, and what bypasses it sees the true inputs."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import gradtap as gt
from gradtap import errors
from reference import layers as ref
from reference.differences import assert_same_numbers
from reference.models import draws, float64_policy
from reference.smooth import smooth


def softmax_of(model, later):
    return ref.softmax(ref.dense(later, model.get_layer("scores")))


def elu(x):
    return np.where(x > 0, x, np.exp(x) - 1)


@pytest.fixture
def skip():
    """The model, its inputs, and its forward pass in NumPy with any part replaced."""
    model, x = smooth("skip")
    layer = model.get_layer

    def by_hand(x, tap=lambda a: a, stem=lambda a: a, joined=lambda a: a):
        h = stem(np.tanh(ref.dense(x, layer("stem"))))
        branch = tap(ref.sigmoid(ref.dense(h, layer("tap"))))
        return softmax_of(model, elu(ref.dense(joined(h * branch + h), layer("later"))))

    assert_same_numbers(model(x), by_hand(x), 1e-12)
    return model, x, by_hand


def test_what_bypasses_a_replaced_tap_sees_the_true_inputs(skip):
    model, x, by_hand = skip
    value = draws(3, 4, seed=1)
    assert_same_numbers(gt.patch(model, x, {"tap": value}), by_hand(x, tap=lambda a: value), 1e-12)
    assert_same_numbers(gt.patch(model, x, {"tap": value[:1]}), by_hand(x, tap=lambda a: value[:1] + 0 * a), 1e-12)
    assert_same_numbers(gt.patch(model, x, {"tap": lambda a: 2 * a}), by_hand(x, tap=lambda a: 2 * a), 1e-12)
    assert np.max(np.abs(gt.patch(model, x, {"tap": value}) - model(x))) > 1e-2


def test_several_in_forward_order_however_they_are_written(skip):
    model, x, by_hand = skip
    value, seen = draws(3, 4, seed=1), {}

    def note(name, f):
        def replaced(a):
            seen[name] = np.asarray(a)
            return f(a)

        return replaced

    replacements = {
        "joined": note("joined", lambda a: a + 1),
        "tap": note("tap", lambda a: a**2),
        "stem": value,
    }
    expected = by_hand(x, tap=lambda a: a**2, stem=lambda a: value, joined=lambda a: a + 1)
    assert_same_numbers(gt.patch(model, x, replacements), expected, 1e-12)
    branch = ref.sigmoid(ref.dense(value, model.get_layer("tap")))
    assert_same_numbers(seen["tap"], branch, 1e-12)
    assert_same_numbers(seen["joined"], value * branch**2 + value, 1e-12)
    reordered = dict(reversed(replacements.items()))
    np.testing.assert_array_equal(gt.patch(model, x, reordered), gt.patch(model, x, replacements))


def test_the_calls_of_a_shared_layer_are_apart():
    model, x = smooth("shared")
    twice, later = model.get_layer("twice"), model.get_layer("later")
    start = ref.dense(x, model.get_layer("tap"))
    value = draws(3, 3, seed=1)

    def end(second):
        return softmax_of(model, np.tanh(ref.dense(second, later)))

    assert_same_numbers(gt.patch(model, x, {"twice[0]": value}), end(np.tanh(ref.dense(value, twice))), 1e-12)
    assert_same_numbers(gt.patch(model, x, {"twice[1]": value}), end(value), 1e-12)
    first = np.tanh(ref.dense(start, twice))
    doubled = np.tanh(ref.dense(2 * first, twice))
    assert_same_numbers(gt.patch(model, x, {"twice[*]": lambda a: 2 * a}), end(2 * doubled), 1e-12)
    with pytest.raises(errors.SharedLayerError):
        gt.patch(model, x, {"twice": value})


def test_the_input_and_the_output_are_taps_too(skip):
    model, x, by_hand = skip
    other = draws(3, 3, seed=1)
    assert_same_numbers(gt.patch(model, x, {":input": other}), by_hand(other), 1e-12)
    assert_same_numbers(gt.patch(model, x, {":input": lambda x: 2 * x}), by_hand(2 * x), 1e-12)
    np.testing.assert_array_equal(gt.patch(model, x, {":output": other}), other)
    name = model.layers[0].name
    both = gt.patch(model, x, {":input": other, name: lambda x: 2 * x})
    assert_same_numbers(both, by_hand(2 * other), 1e-12)


def test_ids_are_replaced_by_ids():
    with float64_policy():
        body = [layers.Embedding(5, 3, name="embed"), layers.Flatten(), layers.Dense(2)]
        model = keras.Sequential([keras.Input((4,), dtype="int32"), *body])
    ids = np.array([[0, 1, 2, 3], [4, 3, 2, 1]])
    np.testing.assert_array_equal(gt.patch(model, ids, {":input": (ids + 1) % 5}), model((ids + 1) % 5))
    by_rows = gt.patch(model, ids, {"embed": np.asarray(model.layers[0]((ids + 1) % 5))})
    np.testing.assert_array_equal(by_rows, model((ids + 1) % 5))


def test_outputs_are_nested_as_the_models():
    x = keras.Input((3,))
    h = layers.Dense(2, name="h")(x)
    model = keras.Model(x, {"a": layers.Dense(2, name="a")(h), "b": (h, layers.Dense(1, name="b")(h))})
    outputs = gt.patch(model, draws(2, 3), {"h": lambda h: 0 * h})
    assert set(outputs) == {"a", "b"}
    assert isinstance(outputs["b"], tuple)
    assert not np.any(outputs["b"][0])
    np.testing.assert_allclose(outputs["a"], np.tile(model.get_layer("a").bias, (2, 1)))


def test_parts_datasets_and_batches_of_none_and_one(skip):
    model, x, by_hand = skip
    value = draws(3, 4, seed=1)
    whole = gt.patch(model, x, {"tap": value, "joined": lambda a: a + 1})
    assert_same_numbers(gt.patch(model, x, {"tap": value, "joined": lambda a: a + 1}, batch_size=2), whole, 1e-13)
    assert_same_numbers(gt.patch(model, x[:1], {"tap": value[:1]}), by_hand(x, tap=lambda a: value)[:1], 1e-12)
    for replaced in (value[:0], lambda a: 2 * a, value[:1]):
        assert gt.patch(model, x[:0], {"tap": replaced}).shape == (0, 3)
    batches = tf.data.Dataset.from_tensor_slices(x).batch(2)
    everywhere = by_hand(x, tap=lambda a: value[:1] + 0 * a)
    assert_same_numbers(gt.patch(model, batches, {"tap": value[:1]}), everywhere, 1e-12)
    assert_same_numbers(gt.patch(model, batches, {"tap": lambda a: a**2}), by_hand(x, tap=lambda a: a**2), 1e-12)
    with pytest.raises(errors.GradtapError):
        gt.patch(model, batches, {"tap": value})


def test_inside_a_tf_function_of_unknown_batch_and_under_a_tape(skip):
    model, x, by_hand = skip
    value = draws(1, 4, seed=1)
    spec = tf.TensorSpec((None, 3), tf.float64)
    for replaced, expected in [
        (value, by_hand(x, tap=lambda a: value + 0 * a)),
        (lambda a: a**2, by_hand(x, tap=lambda a: a**2)),
    ]:
        inside = tf.function(lambda x, r=replaced: gt.patch(model, x, {"tap": r}), input_signature=[spec])
        assert_same_numbers(inside(tf.constant(x)), expected, 1e-12)
    a = tf.constant(gt.activations(model, x, at="tap").only)
    with tf.GradientTape() as tape:
        tape.watch(a)
        score = gt.patch(model, x, {"tap": a})[:, 1]
    assert_same_numbers(tape.gradient(score, a), gt.gradients(model, x, target=1, at="tap").only, 1e-12)


def test_the_stages_are_kept(skip):
    from gradtap.graph import surgery

    model, x, _ = skip
    gt.patch(model, x, {"tap": lambda a: a, "joined": draws(3, 4)})
    graph = gt.trace(model).graphs.any_graph()
    before = surgery.op_count(graph.graph)
    for scale in range(3):
        gt.patch(model, x, {"tap": lambda a, s=scale: s * a, "joined": draws(3, 4, seed=scale)})
    assert surgery.op_count(graph.graph) == before


def test_mistakes_are_named(skip):
    model, x, _ = skip
    for replaced, error in [
        ({}, errors.ArgumentError),
        ([("tap", 0)], errors.ArgumentError),
        ({"tap": draws(3, 5)}, errors.InputShapeError),
        ({"tap": draws(2, 4)}, errors.InputShapeError),
        ({"tap": lambda a: a[:, :2]}, errors.InputShapeError),
        ({"tap": "text"}, errors.InputDtypeError),
        ({"nowhere": 0}, errors.UnknownTapError),
    ]:
        with pytest.raises(error):
            gt.patch(model, x, replaced)
    recurrent, x = smooth("recurrent")
    with pytest.raises(errors.InputShapeError):
        gt.patch(recurrent, x, {"later:cell": lambda a: a[:, :2]})
