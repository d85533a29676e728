"""Addresses that are wrong, and taps that the target does not reach."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import gradtap as gt
from gradtap import errors
from gradtap.errors import (
    AddressSyntaxError,
    AmbiguousTapError,
    ArgumentError,
    CallRangeError,
    IntegerTapError,
    MissingResultError,
    NoMatchError,
    NonDifferentiableError,
    SharedLayerError,
    SideError,
    TapNotRunError,
    UnconnectedTapError,
    UnknownTapError,
)
from refusals import (
    BOTH,
    IMAGES,
    ROWS,
    STEPS,
    TOKENS,
    gradients,
    heads,
    images,
    label,
    nested,
    recurrent,
    refuses,
    rows,
    shared,
    subclassed,
    through,
    tokens,
)

# -- addresses that mean nothing ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("at", "error", "parts"),
    [
        ("cnv1", UnknownTapError, ["no layer `cnv1`", "nearest     `conv1`", "gt.taps(model)"]),
        ("CONV1", UnknownTapError, ["no layer `CONV1`", "`conv1`"]),
        ("zzz", UnknownTapError, ["`image`, `conv1`, `pool`, `flat`, `scores`"]),
        ("cnv1:input", UnknownTapError, ["`cnv1` (asked as `cnv1:input`)", "`conv1`"]),
        ("/conv1", UnknownTapError, ["`conv1`"]),
        (gt.Tap.op("nowhere/Relu"), UnknownTapError, ["no op gives a tensor `nowhere/Relu:0`", "Relu:0`"]),
        ("conv1:hidden", SideError, ["`conv1` (Conv2D) has no `hidden`", "`output`, `input`, `preactivation`"]),
        ("pool:preactivation", SideError, ["`pool` (MaxPooling2D) has no `preactivation`"]),
        (":preactivation", SideError, ["the model (Sequential) has no `preactivation`"]),
        ("conv1:output.3", SideError, ["there is no output `3`", "`conv1:output.0`"]),
        (":input.picture", SideError, ["there is no input `picture`", "`:input.image`"]),
        ("conv1[1]", CallRangeError, ["`conv1` (Conv2D) runs once", "no call 1", "`conv1[0]` is the last"]),
        ("conv1[9]:input", CallRangeError, ["`conv1[0]:input` is the last"]),
        ("[1]:output", CallRangeError, ["the model (Sequential) runs once", "`[0]:output`"]),
        ("", AddressSyntaxError, ["`` is not an address", "PATH", "gt.taps(model)"]),
        ("conv1[-1]", AddressSyntaxError, ["`conv1[-1]` is not an address", "such as     `conv1`"]),
        ("conv1:preactivaton", AddressSyntaxError, ["`preactivaton`", "nearest     `preactivation`"]),
        ("conv1:input:output", AddressSyntaxError, ["is not an address"]),
        ("[0]", AddressSyntaxError, ["names no layer", "`:input` or `:output`"]),
        (None, AddressSyntaxError, ["None is not an address", "`conv1`, a Tap, a layer"]),
        (3, AddressSyntaxError, ["an int is not an address", "received    3"]),
        ({"a": "conv1"}, AddressSyntaxError, ["a dict is not an address"]),
        ([["conv1"]], AddressSyntaxError, ["a list is not an address", "['conv1']"]),
        (np.array(["conv1"]), AddressSyntaxError, ["an ndarray is not an address", "ndarray (1,) text"]),
        (tf.constant(1.0), AddressSyntaxError, ["an EagerTensor is not an address"]),
        (lambda x: x, AddressSyntaxError, ["a function is not an address"]),
        (gt.Tap("conv1", call=-1), AddressSyntaxError, ["is not a tap", "an int from 0"]),
        (gt.Tap("conv1", call="first"), AddressSyntaxError, ["call='first'"]),
        (gt.Tap("conv1", side="slope"), AddressSyntaxError, ["`slope`", "preactivation"]),
        (gt.Tap(None), AddressSyntaxError, ["path=None"]),
        ([], ArgumentError, ["`at` is empty", "gt.taps(model)"]),
        ("block?/conv*", NoMatchError, ["`block?/conv*` matches no layer", "`conv1`", "`**/name`"]),
        ("conv*:attention", NoMatchError, ["no layer that `conv*:attention` matches has that side", "`conv1`"]),
        ("conv*[1]", NoMatchError, ["that side or that call", "`conv1`"]),
        (layers.LSTM, NoMatchError, ["class LSTM matches no layer", "`Conv2D`, `MaxPooling2D`"]),
        (int, NoMatchError, ["class int", "classes"]),
        (
            layers.Dense(3, name="mine"),
            UnknownTapError,
            ["the layer `mine` (Dense) is not part of the model", "a copy"],
        ),
    ],
    ids=label,
)
def test_an_address_that_means_nothing(at, error, parts):
    refuses(error, lambda: gradients(images(), IMAGES, at=at), *parts)
    refuses(error, lambda: gt.activations(images(), IMAGES, at=at), *parts)


def test_a_symbolic_tensor_or_a_weight_is_told_what_it_is():
    def at(thing):
        return lambda: gradients(images(), IMAGES, at=thing)

    refuses(AddressSyntaxError, at(images().layers[0].output), "what the layer `conv1` returns", "by that name")
    refuses(AddressSyntaxError, at(images().layers[0].kernel), "a weight is addressed by its layer", ":kernel")


@pytest.mark.parametrize(
    ("at", "error", "parts"),
    [
        ("fc", AmbiguousTapError, ["`fc` fits 2 layers", "`lower/fc`, `upper/fc`", "`**/fc` means all"]),
        ("lower/fk", UnknownTapError, ["nearest     `lower/fc`"]),
        ("lower.fc", UnknownTapError, ["`lower/fc`"]),
    ],
)
def test_an_address_in_a_nested_model(at, error, parts):
    refuses(error, lambda: gradients(nested(), ROWS, at=at), *parts)


def test_an_address_in_a_subclassed_model():
    refuses(UnknownTapError, lambda: gradients(subclassed(), ROWS, at="blocks/7"), "nearest     `blocks/1`, `blocks/0`")


@pytest.mark.parametrize("side", ["", ":input"])
def test_a_shared_layer_is_never_silently_its_first_call(side):
    ask = f"`twice[0]{side}` to `twice[1]{side}`"
    refuses(SharedLayerError, lambda: gradients(shared(), ROWS, at=f"twice{side}"), "runs 2 times", ask, f"[*]{side}`")
    refuses(CallRangeError, lambda: gradients(shared(), ROWS, at=f"twice[2]{side}"), "2 times", "`twice[1]")
    assert list(gradients(shared(), ROWS, at=f"twi*[1]{side}")) == [f"twice[1]{side}"]


def test_a_function_has_no_layers():
    refuses(UnknownTapError, lambda: gradients(tf.nn.relu, ROWS, at="conv1"), "`conv1`")


# -- several mistakes --------------------------------------------------------------------------------------------------


def test_mistakes_of_several_kinds_are_reported_together():
    with pytest.raises(errors.SeveralErrors) as caught:
        gradients(images(), IMAGES, target=None, at=["cnv1", "conv1:hidden", "conv1[4]", 3])
    kinds = ["MissingTargetError", "UnknownTapError", "SideError", "CallRangeError", "AddressSyntaxError"]
    assert [type(error).__name__ for error in caught.value.errors] == kinds
    message = str(caught.value)
    assert message.startswith("5 things are wrong with this call.\n- MissingTargetError: the model has")
    for kind, error in zip(kinds, caught.value.errors, strict=True):
        assert f"- {kind}: {error.headline}" in message
        assert f"    more        {error.page()}" in message


def test_mistakes_of_one_kind_are_one_error():
    error = refuses(
        UnknownTapError,
        lambda: gradients(images(), IMAGES, at=["cnv1", "zzz", "qqq"]),
        "no layer `cnv1`",
        "also        no layer `zzz`",
        "also        no layer `qqq`",
    )
    # Each fact and each remedy is said once.
    assert str(error).count("layers      ") == 1 and len(error.do) == 1


def test_a_wrong_class_and_a_wrong_address_are_found_in_one_go():
    with pytest.raises(errors.SeveralErrors, match=r"(?s)class 99 is out of range.*no layer `zzz`"):
        gradients(images(), IMAGES, target=99, at="zzz")


# -- results -----------------------------------------------------------------------------------------------------------


def test_a_result_says_what_it_holds():
    g = gradients(images(), IMAGES, at=["conv1", "pool"])
    for key in ("conv2", 0, None, ["conv1"], np.zeros(3), images().layers[-1], gt.Tap("flat"), "a:b:["):
        refuses(MissingResultError, lambda key=key: g[key], "nothing under", "`conv1`, `pool`", "asked for")
        assert key not in g
    refuses(MissingResultError, lambda: g.only, "`.only` needs one value, this holds 2", "`conv1`, `pool`")
    refuses(MissingResultError, lambda: g.activations["conv2"], "`conv1`, `pool`")
    assert g.get("conv2") is None


# -- no path -----------------------------------------------------------------------------------------------------------

SCORES, AUX = (gt.targets.class_score(0, output=name) for name in ("scores", "aux"))


def test_a_branch_that_the_target_does_not_read():
    refuses(
        UnconnectedTapError,
        lambda: gradients(heads(), BOTH, target=SCORES, at=["trunk", "aux_hidden"]),
        "the target does not depend on `aux_hidden` (Dense, output (batch, 2), float32)",
        "target      class_score(0, output='scores')",
        "join -> trunk -> scores",
        "it feeds output `aux` only",
        'class_score(k, output="aux")',
        'unconnected="zero"',
    )
    zero = gradients(heads(), BOTH, target=SCORES, at=["trunk", "aux_hidden"], unconnected="zero")
    assert not np.any(zero["aux_hidden"]) and zero["aux_hidden"].shape == (2, 2) and np.any(zero["trunk"])
    assert np.any(gradients(heads(), BOTH, target=AUX, at="aux_hidden").only)


def test_patterns_skip_what_the_target_does_not_reach_and_say_so():
    g = gradients(heads(), BOTH, target=SCORES, at="**")
    assert "trunk" in g and "aux_hidden" not in g
    assert g.skipped["aux_hidden"] == "the target does not depend on it"
    refuses(UnconnectedTapError, lambda: gradients(heads(), BOTH, target=SCORES, at="aux_*"), "feeds output `aux`")


def test_a_layer_whose_result_is_dropped():
    refuses(
        UnconnectedTapError, lambda: gradients(subclassed(), ROWS, at="aside"), "nothing that is returned", "first ->"
    )


def test_a_target_that_uses_no_output():
    refuses(
        UnconnectedTapError,
        lambda: gradients(rows(), ROWS, target=lambda scores: tf.zeros(2), at="hidden"),
        "the target uses nothing that the model computes",
        "no layer at all",
    )


def test_a_model_that_ignores_its_input():
    refuses(UnconnectedTapError, lambda: gradients(lambda x: tf.ones((2, 3)), ROWS), "`:input` (shape (", "no layer")


def test_a_tap_behind_the_logits():
    logits = gt.targets.class_score(0, logits=True)
    refuses(
        UnconnectedTapError,
        lambda: gradients(images(), IMAGES, target=logits, at="scores"),
        "comes after what is differentiated",
        "`:preactivation`",
        "leave out logits=True",
    )
    assert np.any(gradients(images(), IMAGES, target=logits, at="scores:preactivation").only)


@pytest.mark.parametrize(
    ("at", "parts"),
    [
        ("idle", ["`idle` (Dense) did not run", "training=False", "training=True if it runs only then"]),
        ("noise", ["`noise` (GaussianNoise) did not run"]),
    ],
)
def test_a_layer_that_did_not_run(at, parts):
    refuses(TapNotRunError, lambda: gradients(subclassed(), ROWS, at=at), *parts)
    refuses(TapNotRunError, lambda: gt.activations(subclassed(), ROWS, at=at), *parts)
    refuses(TapNotRunError, lambda: gradients(subclassed(), ROWS, at=at, unconnected="zero"), *parts)
    refuses(NoMatchError, lambda: gradients(subclassed(), ROWS, at=at + "*"), "ran in this forward pass", f"`{at}`")


def test_a_layer_that_runs_in_training_only():
    assert gradients(subclassed(), ROWS, at="noise", training=True).only.shape == (2, 3)


def test_the_cell_of_a_recurrent_layer_runs_in_its_loop():
    refuses(
        TapNotRunError,
        lambda: gradients(recurrent(), STEPS, target=(0, 0), at="cell"),
        "`rnn/cell` (LSTMCell) runs inside a loop",
        "tap `rnn` instead",
    )


def test_a_layer_in_a_branch_of_the_graph():
    first, second = layers.Dense(2), layers.Dense(2)
    first.build((None, 4)), second.build((None, 4))

    def model(x):
        return tf.cond(tf.reduce_sum(x) > 0, lambda: first(x), lambda: second(x))

    refuses(TapNotRunError, lambda: gradients(model, ROWS, at="first"), "inside a loop or a branch", "`:output`")


# -- cut paths ---------------------------------------------------------------------------------------------------------


def numpy_code(x):
    return tf.ensure_shape(tf.numpy_function(lambda a: 2 * a, [x], tf.float32), (None, 4))


@pytest.mark.parametrize(
    ("function", "named", "remedy"),
    [
        (lambda z: tf.one_hot(tf.argmax(z, axis=-1), 4), "ArgMax in `cut`", "tap a layer after it"),
        (lambda z: tf.cast(tf.cast(10 * z, tf.int32), tf.float32), "Cast to int32 in `cut`", 'unconnected="zero"'),
        (tf.stop_gradient, "StopGradient in `cut`", "the model asks for this itself"),
        (keras.ops.stop_gradient, "StopGradient in `cut`", "the model asks for this itself"),
        (tf.round, "Round in `cut`", "tap a layer after it"),
        (tf.floor, "Floor in `cut`", "tap a layer after it"),
        (lambda z: tf.cast(z > 0.5, tf.float32), "Greater in `cut`", "tap a layer after it"),
        (tf.zeros_like, "ZerosLike in `cut`", "tap a layer after it"),
        (numpy_code, "PyFunction in `cut`", "TensorFlow or keras.ops"),
        (lambda z: tf.concat([tf.round(z[:, :2]), tf.floor(z[:, 2:])], 1), "Floor in `cut`, Round in `cut`", "tap"),
    ],
)
def test_a_path_that_is_cut_names_the_op(function, named, remedy):
    model = through(function)
    said = "the target depends on `hidden` (Dense, output (batch, 4), float32), but the gradient stops on the way: "
    refuses(NonDifferentiableError, lambda: gradients(model, ROWS, at="hidden"), said + named, "cut at", remedy)
    assert not np.any(gradients(model, ROWS, at="hidden", unconnected="zero").only)
    g = gradients(model, ROWS, at="**")
    assert "scores" in g and g.skipped["hidden"] == "the gradient stops on the way to it"


def area(z):
    return tf.raw_ops.ResizeArea(images=z[:, :, None, None], size=[4, 1])[:, :, 0, 0]


@pytest.mark.parametrize("unconnected", ["error", "zero"])
def test_an_op_without_a_rule_is_no_zero(unconnected):
    model = through(area)
    parts = "ResizeArea in `cut`", "tf.custom_gradient"
    refuses(NonDifferentiableError, lambda: gradients(model, ROWS, at="hidden", unconnected=unconnected), *parts)
    g = gradients(model, ROWS, at="**", unconnected=unconnected)
    assert "scores" in g and "hidden" in g.skipped
    # A path around the op would carry a part of the gradient only.
    refuses(
        NonDifferentiableError,
        lambda: gradients(through(lambda z: z + area(z)), ROWS, at="hidden", unconnected=unconnected),
        "ResizeArea",
    )


def test_python_code_that_passes_gradients_on_is_no_cut():
    def doubled(z):
        return tf.ensure_shape(tf.py_function(lambda a: 2 * a, [z], tf.float32), (None, 4))

    assert np.any(gradients(through(doubled), ROWS, at="hidden").only)


def test_a_cut_in_the_target():
    refuses(
        NonDifferentiableError,
        lambda: gradients(rows(), ROWS, target=lambda s: tf.round(s[:, 0]), at="hidden"),
        "Round in the target",
    )


def test_a_gradient_function_of_the_users_that_raises():
    @tf.custom_gradient
    def broken(z):
        def gradient(slope):
            raise RuntimeError("not today")

        return 2 * z, gradient

    refuses(
        errors.ModelCallError,
        lambda: gradients(through(broken), ROWS, at="hidden"),
        "raised RuntimeError in the backward pass",
        "not today",
        "tf.custom_gradient",
    )


# -- integers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("at", [":input", "embedding:input"])
def test_integers_have_no_gradient_but_an_embedding(at):
    parts = f"`{at}` holds int32", "(batch, 3), int32", "tap its embedding: `embedding`"
    refuses(IntegerTapError, lambda: gradients(tokens(), TOKENS, at=at), *parts)
    refuses(IntegerTapError, lambda: gradients(tokens(), TOKENS, at=at, unconnected="zero"), *parts)
    assert gt.activations(tokens(), TOKENS, at=at).only.dtype == "int32"


def test_booleans_have_no_gradient_either():
    x = keras.Input((4,), name="row")
    positive = layers.Lambda(lambda z: z > 0, name="positive")(x)
    floats = layers.Lambda(lambda z: tf.cast(z, "float32"), name="floats")(positive)
    model = keras.Model(x, layers.Dense(2, name="scores")(floats))
    refuses(IntegerTapError, lambda: gradients(model, ROWS, at="positive"), "holds bool", "floats of it: `floats`")
