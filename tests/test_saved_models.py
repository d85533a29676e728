"""SavedModels and model files: ops by name, scopes and signatures, of Keras and of others."""

from __future__ import annotations

import gc
import importlib.util
import sys
import weakref
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

import gradtap as gt
from reference.differences import assert_same_numbers, central_differences
from reference.models import draws


class Foreign(tf.Module):
    """A module of no framework: functions within functions, a loop, a condition, two signatures."""

    def __init__(self):
        super().__init__()
        self.w = tf.Variable(draws(4, 5), name="w")
        self.v = tf.Variable(draws(5, 5, seed=1) / 3, name="v")

    @tf.function
    def block(self, h):
        with tf.name_scope("block"):
            return tf.tanh(h @ self.v, name="act")

    @tf.function(input_signature=[tf.TensorSpec((None, 4), tf.float64, name="x"), tf.TensorSpec((None, 5), tf.float64)])
    def serve(self, x, shift):
        with tf.name_scope("stem"):
            h = tf.nn.softplus(x @ self.w, name="soft") + shift
        h = self.block(self.block(h))
        return {"scores": tf.identity(h * h, name="square"), "total": tf.reduce_sum(h, -1)}

    @tf.function(input_signature=[tf.TensorSpec((None, 4), tf.float64, name="x")])
    def looped(self, x):
        h = x @ self.w
        for _ in tf.range(3):
            h = tf.tanh(h @ self.v)
        return tf.cond(tf.reduce_sum(x) > 0, lambda: h, lambda: 2.0 * h)


@pytest.fixture(scope="module")
def foreign(tmp_path_factory):
    module, path = Foreign(), tmp_path_factory.mktemp("foreign") / "model"
    tf.saved_model.save(module, str(path), {"serving_default": module.serve, "looped": module.looped})
    return module, path


def rest(h, v):
    """From after the stem to the total."""
    return np.tanh(np.tanh(h @ v) @ v).sum(-1)


def test_a_foreign_model_by_the_names_of_its_ops(foreign):
    module, path = foreign
    w, v = module.w.numpy(), module.v.numpy()
    inputs = {"x": draws(3, 4), "shift": draws(3, 5, seed=2)}
    soft = np.logaddexp(0, inputs["x"] @ w)
    g = gt.gradients(path, inputs, target=lambda y: y["total"], at=["stem/soft", ":input.x", ":input.shift"])
    assert set(g.outputs) == {"scores", "total"}
    assert_same_numbers(g.target, rest(soft + inputs["shift"], v), 1e-12)
    assert_same_numbers(g.activations["stem/soft"], soft, 1e-12)
    assert_same_numbers(g["stem/soft"], central_differences(lambda t: rest(t + inputs["shift"], v), soft))
    assert_same_numbers(g[":input.shift"], g["stem/soft"], 1e-12)
    of_x = central_differences(lambda t: rest(np.logaddexp(0, t @ w) + inputs["shift"], v), inputs["x"])
    assert_same_numbers(g[":input.x"], of_x)


def test_the_two_calls_of_a_function_are_apart(foreign):
    """What a nested function computes stands open, once for each call."""
    module, path = foreign
    v = module.v.numpy()
    inputs = {"x": draws(3, 4), "shift": draws(3, 5, seed=2)}
    with pytest.raises(gt.errors.AmbiguousTapError, match="fits 2 ops") as raised:
        gt.gradients(path, inputs, target=lambda y: y["total"], at="block/act")
    listed = [entry.address for entry in gt.taps(path) if entry.address.endswith("block/act:0")]
    assert len(listed) == 2
    assert all(address.removesuffix(":0") in str(raised.value) for address in listed)
    g = gt.gradients(path, inputs, target=lambda y: y["total"], at=listed)
    first, second = (g.activations[address].numpy() for address in listed)
    assert_same_numbers(second, np.tanh(first @ v), 1e-12)
    assert_same_numbers(g[listed[0]], central_differences(lambda t: np.tanh(t @ v).sum(-1), first))
    np.testing.assert_allclose(g[listed[1]], 1.0)


def test_a_scope_is_what_leaves_it(foreign):
    module, path = foreign
    inputs = {"x": draws(3, 4), "shift": draws(3, 5, seed=2)}
    g = gt.gradients(path, inputs, target=lambda y: y["total"], at="stem")
    h = np.logaddexp(0, inputs["x"] @ module.w.numpy()) + inputs["shift"]
    assert_same_numbers(g.activations.only, h, 1e-12)
    assert_same_numbers(g.only, central_differences(lambda t: rest(t, module.v.numpy()), h))
    assert "stem/soft" in str(list(gt.activations(path, inputs, at="**/soft*")))


def test_another_signature_with_a_loop_and_a_condition(foreign):
    module, path = foreign
    w, v = module.w.numpy(), module.v.numpy()
    trace = gt.trace(path, signature="looped")

    def model(x):
        h = x @ w
        for _ in range(3):
            h = np.tanh(h @ v)
        return h

    for x in (np.abs(draws(3, 4)), -np.abs(draws(3, 4))):
        factor = 1.0 if x.sum() > 0 else 2.0
        g = gt.gradients(trace, x, target=2, at=":input")
        assert_same_numbers(g.outputs, factor * model(x), 1e-12)
        assert_same_numbers(g.only, central_differences(lambda t, f=factor: f * model(t)[:, 2], x))
    with pytest.raises(gt.errors.BrokenModelFileError, match="no signature `nope`") as raised:
        gt.trace(path, signature="nope")
    assert "looped" in str(raised.value)


def test_new_weights_are_seen_and_the_loaded_object_may_die(foreign):
    module, path = foreign
    loaded = tf.saved_model.load(str(path))
    inputs = {"x": draws(3, 4), "shift": draws(3, 5, seed=2)}
    v = module.v.numpy()
    before = gt.gradients(loaded, inputs, target=lambda y: y["total"], at="stem/soft")
    loaded.v.assign(2 * v)
    after = gt.gradients(loaded, inputs, target=lambda y: y["total"], at="stem/soft")
    soft = before.activations.only.numpy()
    assert_same_numbers(before.only, central_differences(lambda t: rest(t + inputs["shift"], v), soft))
    assert_same_numbers(after.only, central_differences(lambda t: rest(t + inputs["shift"], 2 * v), soft))
    reference = weakref.ref(loaded)
    variable = weakref.ref(loaded.v)
    del loaded
    gc.collect()
    assert reference() is None
    assert variable() is None


class Vocabulary(tf.Module):
    """Text in: a table, and an embedding."""

    def __init__(self):
        super().__init__()
        keys, values = tf.constant(["a", "b"]), tf.constant([1, 2], tf.int64)
        self.table = tf.lookup.StaticHashTable(tf.lookup.KeyValueTensorInitializer(keys, values), 0)
        self.embedding = tf.Variable(draws(3, 4))

    @tf.function(input_signature=[tf.TensorSpec((None, None), tf.string, name="text")])
    def serve(self, text):
        h = tf.gather(self.embedding, self.table.lookup(text), name="embedded")
        return {"score": tf.reduce_sum(tf.tanh(h), (1, 2))}


def test_text_and_tables(tmp_path):
    module = Vocabulary()
    tf.saved_model.save(module, str(tmp_path / "model"), {"serving_default": module.serve})
    g = gt.gradients(tmp_path / "model", np.array([["a", "b"], ["c", "a"]]), at="embedded")
    rows = module.embedding.numpy()[[[1, 2], [0, 1]]]
    assert_same_numbers(g.activations.only, rows, 1e-14)
    assert_same_numbers(g.only, 1 - np.tanh(rows) ** 2, 1e-13)


def convolutional():
    return keras.Sequential(
        [
            keras.Input((6, 6, 2)),
            layers.Conv2D(3, 3, activation="relu", name="conv"),
            layers.BatchNormalization(name="norm"),
            layers.Flatten(),
            layers.Dense(3, activation="softmax", name="last"),
        ]
    )


def test_what_keras_exports(tmp_path):
    """One number or a row of scores: what the model itself gives, by the names of the ops of its layers."""
    model = convolutional()
    x = draws(2, 6, 6, 2).astype("float32")
    model.export(str(tmp_path / "model"), verbose=False)
    own = gt.gradients(model, x, target=1, at=["conv", "conv:preactivation"])
    g = gt.gradients(tmp_path / "model", x, target=1, at=["conv_1/Relu", "conv_1/BiasAdd"])
    np.testing.assert_allclose(g.outputs, own.outputs, atol=1e-6)
    for address, other in zip(g, ("conv:preactivation", "conv"), strict=True):
        np.testing.assert_allclose(g[address], own[other], atol=1e-6)


def test_what_keras_exports_of_a_recurrent_model(tmp_path):
    x = keras.Input((None, 3))
    model = keras.Model(
        x, layers.Dense(2, name="last")(layers.LSTM(4, name="rnn")(layers.LSTM(4, return_sequences=True)(x)))
    )
    rows = draws(2, 5, 3).astype("float32")
    model.export(str(tmp_path / "model"), verbose=False)
    g = gt.gradients(tmp_path / "model", rows, target=1, at=":input")
    own = gt.gradients(model, rows, target=1, at=":input")
    np.testing.assert_allclose(g.outputs, own.outputs, atol=1e-6)
    np.testing.assert_allclose(g.only, own.only, atol=1e-6)
    del model
    gc.collect()


@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")
@pytest.mark.parametrize("suffix", [".keras", ".h5", ".hdf5"])
def test_model_files(tmp_path, suffix):
    model = convolutional()
    path = tmp_path / f"model{suffix}"
    model.save(path)
    x = draws(2, 6, 6, 2).astype("float32")
    own = gt.gradients(model, x, target="predicted", at=["conv", "norm:input"])
    for given in (path, str(path)):
        g = gt.gradients(given, x, target="predicted", at=["conv", "norm:input"])
        np.testing.assert_array_equal(g.outputs, own.outputs)
        np.testing.assert_array_equal(g["conv"], own["conv"])


# -- a real one: a network that finds the notes of a recording, saved by TensorFlow 2.4 with its optimizer -------------

SECONDS = np.arange(43844) / 22050


@pytest.fixture(scope="module")
def notes():
    found = importlib.util.find_spec("basic_pitch")
    if found is None:
        pytest.skip("basic-pitch is not installed")
    path = Path(found.origin).parent / "saved_models" / "icassp_2022" / "nmp"
    chord = sum(np.sin(2 * np.pi * f * SECONDS) for f in (261.63, 329.63, 392.0))
    return path, (0.3 * chord).astype("float32")[None, :, None]


def salience(outputs):
    """Of the notes of the chord's octave."""
    return tf.reduce_sum(outputs["note"][:, :, 39:51], (1, 2))


def test_a_model_that_kept_its_optimizer(notes):
    """Against the network frozen to constants and cut at the op, and a tape."""
    path, chord = notes
    g = gt.gradients(path, chord, target=salience, at="re_lu_1/Relu:0")
    assert g.only.shape == (1, 172, 264, 8)
    assert {name: y.shape[1:] for name, y in g.outputs.items()} == {
        "contour": (172, 264),
        "note": (172, 88),
        "onset": (172, 88),
    }
    trace = gt.trace(path)
    function = trace.source.model._function
    frozen = convert_variables_to_constants_v2(function)
    definition = frozen.graph.as_graph_def()
    name = next(node.name for node in definition.node if node.name.endswith("re_lu_1/Relu"))
    whole = tf.compat.v1.wrap_function(lambda: tf.graph_util.import_graph_def(definition, name=""), [])
    # In which order the outputs come differs from process to process.
    values = tf.nest.flatten(frozen(tf.constant(chord)))
    alike = [v.shape == g.outputs["note"].shape and np.allclose(v, g.outputs["note"], atol=1e-5) for v in values]
    suffix = whole.prune([f"{name}:0"], frozen.outputs[alike.index(True)].name)
    with tf.GradientTape() as tape:
        inner = g.activations.only
        tape.watch(inner)
        score = tf.reduce_sum(suffix(inner)[:, :, 39:51])
    expected = tape.gradient(score, inner)
    np.testing.assert_allclose(g.target, [score], rtol=1e-5)
    assert_same_numbers(g.only, expected, 1e-5)
    assert 0.15 < np.mean(g.only.numpy() != 0) < 0.25
    assert not any(module.startswith("basic_pitch") for module in sys.modules)
