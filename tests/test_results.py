"""What `gradients`, `activations` and `taps` return."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from copy import deepcopy

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import gradtap as gt
from gradtap import errors
from reference.models import draws, float64_policy


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    with float64_policy():
        return keras.Sequential(
            [
                keras.Input((4,), name="rows"),
                layers.Dense(3, activation="relu", name="a"),
                layers.Dropout(0.5, name="drop"),
                layers.Dense(2, activation="softmax", name="b"),
            ]
        )


@pytest.fixture(scope="module")
def x():
    return draws(5, 4)


@pytest.fixture(scope="module")
def g(model, x):
    return gt.gradients(model, x, target=1, at=[":input", "a", "b"])


# -- mappings ----------------------------------------------------------------------------------------------------------


def test_a_result_is_a_mapping_that_cannot_be_changed(g):
    assert isinstance(g, Mapping)
    assert list(g) == list(g.keys()) == [":input", "a", "b"]
    assert len(g) == 3
    assert [v.shape[0] for v in g.values()] == [5, 5, 5]
    assert dict(g).keys() == g.keys()
    assert "a" in g
    assert "c" not in g
    assert g.get("c") is None
    with pytest.raises(TypeError):
        g["a"] = 0
    with pytest.raises(TypeError):
        del g["a"]


def test_a_result_holds_tensors_of_the_taps_shape_and_type(g):
    assert all(isinstance(v, tf.Tensor) for v in [*g.values(), *g.activations.values()])
    assert [(tuple(v.shape), v.dtype.name) for v in g.values()] == [
        ((5, 4), "float64"),
        ((5, 3), "float64"),
        ((5, 2), "float64"),
    ]


def test_what_comes_along(model, x, g):
    np.testing.assert_allclose(g.outputs, model(x), rtol=1e-13)
    np.testing.assert_array_equal(g.target, g.outputs[:, 1])
    np.testing.assert_array_equal(g.activations[":input"], x)
    np.testing.assert_allclose(g.activations["a"], model.layers[0](x), rtol=1e-13)
    np.testing.assert_array_equal(g.activations["b"], g.outputs)
    assert list(g.activations) == list(g)
    assert g.skipped == {}


def test_only(model, x, g):
    with pytest.raises(errors.MissingResultError, match="this holds 3"):
        _ = g.only
    one = gt.gradients(model, x, target=1, at="a")
    np.testing.assert_array_equal(one.only, g["a"])
    np.testing.assert_array_equal(one.activations.only, g.activations["a"])


def test_a_missing_key_names_those_that_are_there(g):
    with pytest.raises(KeyError) as caught:
        _ = g["c"]
    assert isinstance(caught.value, errors.MissingResultError)
    assert "`:input`, `a`, `b`" in str(caught.value)


def test_keys_are_as_written_and_found_by_other_spellings(model, x):
    g = gt.gradients(model, x, target=1, at=["a:output", gt.Tap("b", side="preactivation")])
    assert list(g) == ["a:output", "b:preactivation"]
    np.testing.assert_array_equal(g["a"], g["a:output"])
    np.testing.assert_array_equal(g[gt.Tap("a")], g["a:output"])
    np.testing.assert_array_equal(g[model.layers[0]], g["a:output"])
    assert model.layers[0] in g
    assert model.layers[1] not in g


def test_a_layer_stands_for_its_output_whatever_else_of_it_was_asked(model, x):
    a, b = model.layers[0], model.layers[2]
    g = gt.gradients(model, x, target=1, at=[a, "a:preactivation", "a:input", "b:preactivation"])
    np.testing.assert_array_equal(g[a], g["a"])
    assert g[a].shape == (5, 3)
    np.testing.assert_array_equal(g[b], g["b:preactivation"])


def test_taps_and_layers_by_key(g):
    assert g.taps() == {":input": gt.Tap("", side="input"), "a": gt.Tap("a"), "b": gt.Tap("b")}
    assert g.layers() == {":input": "", "a": "Dense", "b": "Dense"}


def test_results_print_shapes_and_types(g):
    assert repr(g) == "Gradients({\n  ':input': float64 (5, 4),\n  'a': float64 (5, 3),\n  'b': float64 (5, 2)\n})"
    assert repr(g.activations).startswith("Activations({\n")
    page = g._repr_html_()
    assert page.count("<tr>") == 4
    assert "<code>:input</code></td><td>float64 (5, 4)" in page


def test_the_program_ends_at_the_last_tap():
    """What comes after the last tap does not run for activations alone: here it would raise."""
    late = tf.constant(-1)

    def model(x):
        h = tf.tanh(x, name="early")
        return tf.gather(h, tf.fill([1], late), axis=1, name="late")  # out of range

    a = gt.activations(model, draws(2, 3), at=gt.Tap.op("early"))
    np.testing.assert_allclose(a.only, np.tanh(draws(2, 3)))


def test_a_trace_serves_wherever_a_model_does(model, x, g):
    for jit_compile in (False, True):
        trace = gt.trace(model, jit_compile=jit_compile)
        again = gt.gradients(trace, x, target=1, at=[":input", "a", "b"])
        for address in g:
            np.testing.assert_allclose(again[address], g[address], rtol=1e-12)
    assert gt.trace(trace) is trace
    np.testing.assert_allclose(trace(x), model(x))


def test_a_saved_and_loaded_model_gives_the_same(model, x, g, tmp_path):
    path = tmp_path / "model.keras"
    model.save(path)
    for given in (path, str(path), gt.trace(path)):
        again = gt.gradients(given, x, target=1, at=[":input", "a", "b"])
        for address in g:
            np.testing.assert_allclose(again[address], g[address], rtol=1e-13)


# -- taps --------------------------------------------------------------------------------------------------------------


def rows(listed):
    return {e.address: (e.layer, e.shape, e.dtype, e.calls, e.parameters, e.reached) for e in listed}


def test_taps_of_a_sequential_model(model):
    total = 4 * 3 + 3 + 3 * 2 + 2
    assert rows(gt.taps(model)) == {
        ":input": ("model", (None, 4), "float64", 1, total, True),
        ":output": ("model", (None, 2), "float64", 1, total, True),
        "a": ("Dense", (None, 3), "float64", 1, 15, True),
        "a:preactivation": ("Dense", (None, 3), "float64", 1, 15, True),
        "drop": ("Dropout", (None, 3), "float64", 1, 0, True),
        "b": ("Dense", (None, 2), "float64", 1, 8, True),
        "b:preactivation": ("Dense", (None, 2), "float64", 1, 8, True),
    }


def test_every_address_that_is_listed_can_be_asked(model, x):
    for listed in (gt.taps(model), gt.taps(model, x)):
        g = gt.gradients(model, x, target=1, at=[e.address for e in listed])
        assert set(g) == {e.address for e in listed}
        by_tap = gt.gradients(model, x, target=1, at=[e.tap for e in listed])
        for e in listed:
            assert g[e.address].dtype.name == e.dtype
            assert tuple(g[e.address].shape)[1:] == e.shape[1:]
            np.testing.assert_array_equal(by_tap[e.tap], g[e.address])


def test_taps_of_branches_integers_and_layers_that_do_not_run():
    keras.utils.set_random_seed(0)

    class Net(keras.Model):
        def __init__(self):
            super().__init__()
            self.embed = layers.Embedding(7, 3)
            self.blocks = [layers.Dense(3), layers.Dense(3)]
            self.only_in_training = layers.Dense(3)
            self.aux = layers.Dense(2)

        def build(self, shape):
            self.embed.build(shape)
            for layer in (*self.blocks, self.only_in_training, self.aux):
                layer.build((None, 3))

        def call(self, ids, training=False):
            h = keras.ops.mean(self.embed(ids), axis=1)
            h = self.blocks[1](self.blocks[1](self.blocks[0](h)))
            if training:
                h = self.only_in_training(h)
            return {"main": h, "aux": self.aux(h)}

    net, ids = Net(), np.array([[1, 2, 3]])
    listed = gt.taps(net, ids, target=lambda y: y["main"][:, 0])
    assert rows(listed) == {
        ":input": ("model", (None, 3), "int64", 1, 21 + 3 * 12 + 8, False),
        ":output.aux": ("model", (None, 2), "float32", 1, 65, False),
        ":output.main": ("model", (None, 3), "float32", 1, 65, True),
        "embed": ("Embedding", (None, 3, 3), "float32", 1, 21, True),
        "blocks/0": ("Dense", (None, 3), "float32", 1, 12, True),
        "blocks/1[0]": ("Dense", (None, 3), "float32", 2, 12, True),
        "blocks/1[1]": ("Dense", (None, 3), "float32", 2, 12, True),
        "only_in_training": ("Dense", None, "", 0, 12, False),
        "aux": ("Dense", (None, 2), "float32", 1, 8, False),
    }
    anything = {e.address: e.reached for e in gt.taps(net, ids)}
    assert anything["aux"]
    assert not anything[":input"]
    assert not anything["only_in_training"]
    assert {e.address for e in gt.taps(net, ids, training=True) if e.calls == 0} == set()
    # Once it has been called, its inputs need not be given.
    assert [e.address for e in gt.taps(net)] == [e.address for e in listed]


def test_taps_of_layers_with_several_outputs_and_several_inputs():
    x, y = keras.Input((4, 2), name="x"), keras.Input((3,), name="y")
    sequence, state = layers.GRU(3, return_sequences=True, return_state=True, name="gru")(x, initial_state=y)
    model = keras.Model([x, y], [sequence, state])
    listed = {e.address: e.shape for e in gt.taps(model)}
    assert listed[":input.x"] == (None, 4, 2)
    assert listed[":input.y"] == (None, 3)
    assert listed["gru:output.0"] == (None, 4, 3)
    assert listed["gru:output.1"] == (None, 3)


def test_taps_of_a_nested_model_print_as_a_tree():
    inner = keras.Sequential([keras.Input((4,)), layers.Dense(3, activation="tanh", name="deep")], name="inner")
    model = keras.Sequential([keras.Input((4,)), inner, layers.Dense(1, name="last")], name="outer")
    printed = str(gt.taps(model)).splitlines()
    assert printed[0] == "Sequential"
    names = [line.lstrip("│├└─ ").split("  ")[0] for line in printed[1:]]
    assert names == [":input", ":output", "inner", "deep", "deep:preactivation", "last"]
    depth = {name: len(line) - len(line.lstrip("│├└─ ")) for name, line in zip(names, printed[1:], strict=True)}
    assert depth["deep"] > depth["inner"] == depth["last"]
    assert "(·, 3) float32" in printed[4]
    assert "15 parameters" in printed[3]


def test_taps_are_a_list(model):
    listed = gt.taps(model)
    assert len(listed) == 7
    assert listed[0].address == ":input"
    assert [e.address for e in listed[:2]] == [":input", ":output"]
    assert "a" in listed
    assert gt.Tap("a") in listed
    assert listed[2] in listed
    assert "c" not in listed
    assert repr(listed) == str(listed)


def test_taps_in_a_notebook_escape_what_they_show():
    class Named(keras.Model):
        def __init__(self):
            super().__init__()
            self.parts = {"a<b>": layers.Dense(3)}

        def call(self, x):
            return self.parts["a<b>"](x)

    listed = gt.taps(Named(), np.ones((2, 4)))
    page = listed._repr_html_()
    assert "<code>parts/a&lt;b&gt;</code>" in page.replace("\u2003", "")
    assert "<b>" not in page
    assert page.count("<tr>") == 1 + len(listed)
    assert "(·, 3)" in page


def test_taps_mark_what_has_no_gradient():
    ids = keras.Input((3,), dtype="int32")
    model = keras.Model(ids, layers.Dense(1)(layers.Flatten()(layers.Embedding(5, 2, name="embed")(ids))))
    printed = str(gt.taps(model)).splitlines()
    assert "no gradient" in next(line for line in printed if ":input" in line)
    assert "no gradient" not in next(line for line in printed if "embed" in line)


def test_taps_of_a_function_and_of_what_was_never_called():
    inner = layers.Dense(2, name="inner")

    def function(x):
        return inner(x)

    listed = gt.taps(function, draws(2, 3).astype("float32"))
    assert [e.address for e in listed] == [":input", ":output", "inner"]
    with pytest.raises(errors.InputStructureError, match="does not say what inputs it takes"):
        gt.taps(layers.Dense(2))
    with pytest.raises(errors.InputStructureError):
        gt.taps(lambda x: x)
    never = keras.Sequential([layers.Dense(2, name="only")])
    assert [e.address for e in gt.taps(never, np.ones((2, 3)))] == [":input", ":output", "only"]


def test_a_result_that_left_a_tf_function_says_what_it_lost(model, x):
    inside = tf.function(lambda rows: gt.gradients(model, rows, target=1, at="a"))(tf.constant(x))
    np.testing.assert_allclose(inside["a"], gt.gradients(model, x, target=1, at="a").only, rtol=1e-6)
    for name in ("target", "outputs", "activations"):
        with pytest.raises(gt.errors.MissingResultError, match=f"return g.{name} beside g"):
            getattr(inside, name)


def test_results_can_be_stored_and_copied(model, x):
    g = gt.gradients(model, x, target=1, at=["a", ":input"])
    path = gt.attribution.integrated_gradients(model, x, target=1, at="a", steps=3)
    delta = path.delta.numpy()
    for copy in (pickle.loads(pickle.dumps(g)), deepcopy(g)):
        for address in g:
            np.testing.assert_array_equal(copy[address], g[address])
            np.testing.assert_array_equal(copy.activations[address], g.activations[address])
        np.testing.assert_array_equal(copy[gt.Tap("a")], g["a"])
        np.testing.assert_array_equal(copy.target, g.target)
        np.testing.assert_array_equal(copy.outputs, g.outputs)
    stored = pickle.loads(pickle.dumps(path))
    np.testing.assert_array_equal(stored.only, path.only)
    np.testing.assert_array_equal(stored.delta, delta)
    assert stored.steps == 3
