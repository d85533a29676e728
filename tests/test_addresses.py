"""Addresses: what each form means, told apart by numbers; and by what name a result gives it back."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers

import gradtap as gt
from gradtap import errors
from gradtap.tap import Tap, path_matches
from reference.models import draws, float64_policy


class Wing(layers.Layer):
    """Layers in an attribute and in a list. Their Keras names are not their attribute paths."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.entry = layers.Dense(3, activation="tanh", name=f"{self.name}_in")
        self.parts = [layers.Dense(3, activation="tanh", name=f"{self.name}_part{i}") for i in range(2)]

    def call(self, x):
        x = self.entry(x)
        for part in self.parts:
            x = part(x)
        return x


@pytest.fixture(scope="module")
def model():
    """Every layer scales by what tells it apart, so equal numbers mean the same place."""
    keras.utils.set_random_seed(0)
    with float64_policy():
        x = keras.Input((4,), name="pixels")
        stem = layers.Dense(3, activation="tanh", name="stem")
        left, right = Wing(name="left"), Wing(name="right")
        shared = layers.Dense(3, activation="relu", use_bias=True, bias_initializer="ones", name="shared")
        h = stem(x)
        h = layers.Add(name="sum")([left(h), right(h)])
        h = shared(shared(h))
        return keras.Model(x, layers.Dense(2, activation="softmax", name="last")(h))


@pytest.fixture(scope="module")
def x():
    return draws(3, 4)


@pytest.fixture(scope="module")
def by_address(model, x):
    """The activations under every canonical address."""
    return gt.activations(model, x, at="**")


def keys(model, x, at, **options):
    return list(gt.gradients(model, x, target=0, at=at, **options))


# -- the grammar -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("address", "tap"),
    [
        ("conv1", Tap("conv1")),
        ("a/b/0/c", Tap("a/b/0/c")),
        ("shared[0]", Tap("shared", 0)),
        ("shared[12]:input", Tap("shared", 12, "input")),
        ("shared[*]", Tap("shared", "*")),
        (":input", Tap("", None, "input")),
        (":output", Tap("", None, "output")),
        (":input.ids", Tap("", None, "input.ids")),
        ("dense:preactivation", Tap("dense", side="preactivation")),
        ("lstm:output.1", Tap("lstm", side="output.1")),
        ("**/conv?:input", Tap("**/conv?", side="input")),
        ("mobilenetv2_0.35_32/block", Tap("mobilenetv2_0.35_32/block")),
        ("name with spaces", Tap("name with spaces")),
        ("attend:attention", Tap("attend", side="attention")),
    ],
)
def test_addresses_are_read_and_written_back(address, tap):
    assert Tap.parse(address) == tap
    assert str(tap) == address
    assert Tap.parse(str(tap)) == tap


def test_an_output_that_is_said_may_be_left_out():
    assert Tap.parse("conv1:output") == Tap("conv1")
    assert str(Tap.parse("conv1:output")) == "conv1"
    assert str(Tap.parse(":output")) == ":output"


@pytest.mark.parametrize("address", ["", "conv1[", "conv1[x]", "conv1[-1]", "conv1[0][1]", "conv1:", "[0]", "a:b:c"])
def test_what_is_no_address_is_refused(address, model, x):
    with pytest.raises(errors.AddressSyntaxError):
        Tap.parse(address)
    with pytest.raises(errors.AddressSyntaxError):
        gt.gradients(model, x, target=0, at=address)


@pytest.mark.parametrize(
    ("pattern", "fits", "fits_not"),
    [
        ("conv*", ["conv", "conv1", "conv_a"], ["a/conv1", "conv1/a"]),
        ("conv?", ["conv1"], ["conv", "conv12"]),
        ("*/conv", ["a/conv"], ["conv", "a/b/conv"]),
        ("**", ["a", "a/b", "a/b/c"], []),
        ("**/conv", ["conv", "a/conv", "a/b/conv"], ["conv/a", "aconv"]),
        ("a/**", ["a/b", "a/b/c"], ["a", "b/a"]),
        ("a/**/c", ["a/c", "a/b/c", "a/b/b/c"], ["c", "a/b"]),
        ("block?/*", ["block1/a"], ["block1", "block1/a/b", "block12/a"]),
        ("**/b*/**/d?", ["b/d1", "a/b1/c/d2", "b/b/b/d3"], ["b/d", "d1", "a/d1"]),
    ],
)
def test_globs(pattern, fits, fits_not):
    assert [p for p in fits + fits_not if path_matches(pattern, p)] == fits


def test_taps_are_values():
    assert Tap("a", 1) == Tap("a", 1) != Tap("a", 2)
    assert len({Tap("a"), Tap.parse("a"), Tap("a", side="input")}) == 2
    with pytest.raises(AttributeError):
        Tap("a").path = "b"


# -- names -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spelling", "canonical"),
    [
        ("stem", "stem"),
        ("left/entry", "left/entry"),
        ("left/left_in", "left/entry"),  # the Keras name
        ("left_in", "left/entry"),  # a unique tail
        ("right/parts/1", "right/parts/1"),
        ("right/parts/right_part1", "right/parts/1"),
        ("right_part1", "right/parts/1"),
        ("pixels", "pixels"),
    ],
)
def test_all_names_of_a_layer_mean_the_same(model, x, spelling, canonical, by_address):
    g = gt.gradients(model, x, target=0, at=spelling)
    assert list(g) == [spelling]
    assert g.taps() == {spelling: Tap(canonical)}
    np.testing.assert_array_equal(g[spelling], g[canonical])
    np.testing.assert_array_equal(g[spelling], g[Tap.parse(canonical)])
    np.testing.assert_array_equal(g.activations[spelling], by_address.get(canonical, x))


def test_a_tail_of_two_layers_is_ambiguous(model, x):
    for tail in ("entry", "parts/0"):
        with pytest.raises(errors.AmbiguousTapError, match=f"left/{tail}.*right/{tail}"):
            gt.gradients(model, x, target=0, at=tail)


def test_a_full_path_is_never_taken_for_a_tail(float64):
    """`a` is a layer of its own though `inner/a` ends in it."""
    inner = keras.Sequential([keras.Input((3,)), layers.Dense(3, name="a")], name="inner")
    model = keras.Sequential([keras.Input((3,)), layers.Dense(3, name="a"), inner, layers.Dense(1)])
    x = draws(2, 3)
    g = gt.gradients(model, x, at=["a", "inner/a"])
    np.testing.assert_allclose(g.activations["a"], model.layers[0](x))
    np.testing.assert_allclose(g.activations["inner/a"], model.layers[1](model.layers[0](x)))


def test_keras_names_inside_of_functional_models_attribute_names_elsewhere(float64):
    class Holder(keras.Model):
        def __init__(self):
            super().__init__()
            self.first = layers.Dense(3, name="keras_first")
            self.inner = keras.Sequential([keras.Input((3,)), layers.Dense(3, name="deep")], name="keras_inner")

        def call(self, x):
            return self.inner(self.first(x))

    g = gt.activations(Holder(), draws(2, 3), at="**")
    assert list(g) == ["first", "inner/deep", "inner"]


# -- objects -----------------------------------------------------------------------------------------------------------


def test_layers_and_taps_serve_as_addresses_and_as_keys(model, x, by_address):
    left = model.get_layer("left")
    g = gt.gradients(model, x, target=0, at=[left.parts[0], Tap("stem"), Tap("shared", 1, "input")])
    assert list(g) == ["stem", "left/parts/0", "shared[1]:input"]
    np.testing.assert_array_equal(g.activations[left.parts[0]], by_address["left/parts/0"])
    np.testing.assert_array_equal(g.activations[Tap("stem")], by_address["stem"])
    np.testing.assert_array_equal(g.activations[Tap("shared", 1, "input")], by_address["shared[0]"])
    np.testing.assert_array_equal(g[model.get_layer("stem")], g["stem"])


def test_the_model_itself_is_its_output(model, x):
    for at in (model, ":output"):
        g = gt.gradients(model, x, target=0, at=at)
        np.testing.assert_array_equal(g.only, np.tile([1.0, 0.0], (3, 1)))
        np.testing.assert_array_equal(g.activations.only, g.outputs)


def test_a_class_means_all_its_layers(model, x):
    wings = keys(model, x, Wing)
    assert wings == ["left", "right"]
    dense = keys(model, x, layers.Dense)
    assert set(dense) == {
        "stem",
        *(f"{wing}/{part}" for wing in ("left", "right") for part in ("entry", "parts/0", "parts/1")),
        "shared[0]",
        "shared[1]",
        "last",
    }
    assert keys(model, x, [Wing, "stem", layers.Add]) == ["stem", "left", "right", "sum"]


def test_a_layer_of_another_model_is_refused(model, x):
    with pytest.raises(errors.UnknownTapError, match="not part of the model"):
        gt.gradients(model, x, target=0, at=layers.Dense(3, name="stem"))


# -- patterns ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("left/*", ["left/entry"]),
        ("left/**", ["left/entry", "left/parts/0", "left/parts/1"]),
        ("*/parts/?", ["left/parts/0", "left/parts/1", "right/parts/0", "right/parts/1"]),
        ("**/entry", ["left/entry", "right/entry"]),
        ("**/*_part1", ["left/parts/1", "right/parts/1"]),  # by the Keras names
        ("s*", ["stem", "sum", "shared[0]", "shared[1]"]),
        ("s*[0]", ["stem", "sum", "shared[0]"]),
        ("s*[1]", ["shared[1]"]),
        ("shared[*]", ["shared[0]", "shared[1]"]),
        ("s*:preactivation", ["stem:preactivation", "shared[0]:preactivation", "shared[1]:preactivation"]),
        ("left:input", ["left:input"]),
    ],
)
def test_patterns_mean_these_layers_in_forward_order(model, x, pattern, expected, by_address):
    g = gt.gradients(model, x, target=0, at=pattern)
    assert list(g) == expected
    for key in expected:
        if ":" not in key:
            np.testing.assert_array_equal(g.activations[key], by_address[key])


def test_two_stars_mean_all_layer_outputs(model, x, by_address):
    wing = ["entry", "parts/0", "parts/1"]
    assert list(by_address) == [
        "stem",
        *(f"left/{p}" for p in wing),
        "left",
        *(f"right/{p}" for p in wing),
        "right",
        "sum",
        "shared[0]",
        "shared[1]",
        "last",
    ]


def test_what_is_asked_twice_is_given_once(model, x):
    assert (
        keys(model, x, ["stem", "st*", "stem", Tap("stem"), layers.Dense, model.get_layer("stem")]).count("stem") == 1
    )


def test_forward_order_whatever_the_order_of_asking(model, x):
    asked = ["last", "shared[1]", "right", "stem", ":input", ":output", "left/entry", "shared[0]"]
    expected = [":input", "stem", "left/entry", "right", "shared[0]", "shared[1]", "last", ":output"]
    assert keys(model, x, asked) == expected
    assert keys(model, x, tuple(asked)) == expected
    assert keys(model, x, set(asked)) == expected


# -- calls -------------------------------------------------------------------------------------------------------------


def test_calls_are_told_apart(model, x):
    shared, last = model.get_layer("shared"), model.get_layer("last")
    g = gt.gradients(model, x, target=0, at=["shared[0]", "shared[1]"])
    np.testing.assert_allclose(g.activations["shared[1]"], shared(g.activations["shared[0]"]))
    scores = last(g.activations["shared[1]"]).numpy()
    # Softmax of a dense layer: dp_0/dh = p_0 (W_0 - sum_k p_k W_k); a relu lets it through where it is positive.
    kernel = last.kernel.numpy()
    second = scores[:, :1] * (kernel[:, 0] - scores @ kernel.T)
    first = (second * (g.activations["shared[1]"].numpy() > 0)) @ shared.kernel.numpy().T
    np.testing.assert_allclose(g["shared[1]"], second, rtol=1e-10)
    np.testing.assert_allclose(g["shared[0]"], first, rtol=1e-10)
    assert np.abs(first - second).max() > 1e-3


@pytest.mark.parametrize("asked", ["shared[*]", Tap("shared", "*")])
def test_a_group_is_had_by_its_address(model, x, asked):
    g = gt.gradients(model, x, target=0, at=asked)
    assert list(g) == ["shared[0]", "shared[1]"]
    assert list(g[asked]) == list(g)
    assert asked in g
    for key in g:
        np.testing.assert_array_equal(g[key], g[asked][key])


def test_every_call_of_a_layer_with_several_outputs_has_a_name():
    gru = layers.GRU(2, return_state=True, name="gru")
    x = keras.Input((3, 2))
    first, state = gru(x)
    model = keras.Model(x, layers.Dense(1)(first + gru(x, initial_state=state)[1]))
    g = gt.gradients(model, draws(2, 3, 2).astype("float32"), at=["gru[*]:output"], unconnected="zero")
    names = ["gru[0]:output.0", "gru[0]:output.1", "gru[1]:output.0", "gru[1]:output.1"]
    assert list(g) == names
    assert list(g["gru[*]:output"]) == names


@pytest.fixture(scope="module")
def two_inputs():
    with float64_policy():
        a, b = keras.Input((3,), name="a"), keras.Input((3,), name="b")
        return keras.Model(
            [a, b], [layers.Dense(1, name="one")(layers.Subtract()([a, b])), layers.Dense(1, name="two")(b)]
        )


def test_the_inputs_of_a_model_of_two_are_a_group(two_inputs):
    x, y = draws(2, 3), draws(2, 3, seed=1)
    w, v = (two_inputs.get_layer(n).kernel.numpy()[:, 0] for n in ("one", "two"))
    g = gt.gradients(two_inputs, [x, y], target=lambda outputs: outputs[0][:, 0] + outputs[1][:, 0], at=":input")
    assert list(g) == [":input.a", ":input.b"]
    assert set(g[":input"]) == {"a", "b"}
    for name, expected in (("a", w), ("b", v - w)):
        np.testing.assert_allclose(g[":input"][name], np.tile(expected, (2, 1)))
        np.testing.assert_allclose(g[f":input.{name}"], np.tile(expected, (2, 1)))
    np.testing.assert_array_equal(g.activations[":input"]["b"], y)
    outputs = gt.activations(two_inputs, [x, y], at=":output")
    assert list(outputs) == [":output.one", ":output.two"]
    np.testing.assert_array_equal(gt.activations(two_inputs, [x, y], at=":output.1").only, outputs[":output.two"])


def test_one_of_a_group_may_have_no_gradient(two_inputs):
    """Output `two` does not depend on the first input: asked by name that is an error, zeros where they are wanted."""
    inputs, target = [draws(2, 3), draws(2, 3, seed=1)], gt.targets.class_score(0, output="two")
    with pytest.raises(errors.UnconnectedTapError):
        gt.gradients(two_inputs, inputs, target=target, at=":input")
    g = gt.gradients(two_inputs, inputs, target=target, at=":input", unconnected="zero")
    np.testing.assert_array_equal(g[":input.a"], np.zeros((2, 3)))
    np.testing.assert_allclose(g[":input.b"], np.tile(two_inputs.get_layer("two").kernel[:, 0], (2, 1)))


# -- what patterns skip ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def branches():
    with float64_policy():
        ids = keras.Input((4,), dtype="int32", name="ids")
        shift = layers.Lambda(lambda t: t + 1, name="shift")  # integers in, integers out
        h = layers.GlobalAveragePooling1D(name="mean")(layers.Embedding(9, 3, name="embed")(shift(ids)))
        return keras.Model(ids, {"main": layers.Dense(2, name="main")(h), "aux": layers.Dense(2, name="aux")(h)})


def test_patterns_skip_what_has_no_gradient_and_say_why(branches):
    ids = np.array([[1, 2, 3, 4], [5, 6, 7, 0]])
    g = gt.gradients(branches, ids, target=gt.targets.class_score(1, output="main"), at="**")
    assert list(g) == ["embed", "mean", "main"]
    assert set(g.skipped) == {"shift", "aux"}
    assert "int32" in g.skipped["shift"]
    assert "does not depend on" in g.skipped["aux"]
    zeros = gt.gradients(branches, ids, target=gt.targets.class_score(1, output="main"), at="**", unconnected="zero")
    assert list(zeros) == list(g)
    assert set(zeros.skipped) == set(g.skipped)


def test_nothing_is_skipped_where_all_is_reached(model, x):
    assert gt.gradients(model, x, target=0, at="**").skipped == {}


def test_integers_have_activations(branches):
    ids = np.array([[1, 2, 3, 4]])
    a = gt.activations(branches, ids, at=["shift", ":input", "embed"])
    np.testing.assert_array_equal(a["shift"], ids + 1)
    np.testing.assert_array_equal(a[":input"], ids)
    np.testing.assert_array_equal(a["embed"], branches.get_layer("embed").embeddings.numpy()[ids + 1])


def test_exact_names_of_what_has_no_gradient_are_errors(branches):
    ids = np.array([[1, 2, 3, 4]])
    target = gt.targets.class_score(1, output="main")
    for at in (["**", "aux"], ["aux", "**"], [layers.Dense, "aux"]):
        with pytest.raises(errors.UnconnectedTapError):
            gt.gradients(branches, ids, target=target, at=at)
    with pytest.raises(errors.IntegerTapError):
        gt.gradients(branches, ids, target=target, at="shift")
    with pytest.raises(errors.UnconnectedTapError):
        gt.gradients(branches, ids, target=target, at="aux")
    g = gt.gradients(branches, ids, target=target, at=["aux", "main"], unconnected="zero")
    np.testing.assert_array_equal(g["aux"], [[0, 0]])
    np.testing.assert_array_equal(g["main"], [[0, 1]])
