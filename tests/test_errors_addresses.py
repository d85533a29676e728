"""Addresses that are nearly right: calls in the wrong place, lists of layers, patterns that do not go deep enough."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import gradtap as gt
from gradtap.errors import (
    AddressSyntaxError,
    InputShapeError,
    ModelRunError,
    NoMatchError,
    TargetShapeError,
    UnknownTapError,
)
from refusals import ROWS, gradients, nested, refuses, rows, subclassed


@pytest.fixture(scope="module")
def siamese():
    """Two inputs through one encoder."""
    a, b = keras.Input((4,), name="a"), keras.Input((4,), name="b")
    stack = [layers.Dense(3, name="h", activation="relu"), layers.Dense(3, name="z")]
    encoder = keras.Sequential([keras.Input((4,)), *stack], name="encoder")
    return keras.Model([a, b], layers.Dense(2, name="scores")(layers.Subtract(name="less")([encoder(a), encoder(b)])))


class Deep(keras.Model):
    """Lists and dicts of layers, one of them in another layer."""

    def __init__(self):
        super().__init__()
        self.one = [layers.Dense(4)]
        self.named = {"left": [layers.Dense(4), layers.Dense(4)]}
        self.inner = subclassed().__class__()
        self.many = [layers.Dense(4) for _ in range(10)]

    def call(self, x):
        for layer in (*self.one, *self.named["left"], *self.many):
            x = layer(x)
        return self.inner(x)


@pytest.fixture(scope="module")
def deep():
    model = Deep()
    model.inner(ROWS)
    model(ROWS)
    return model


# -- calls -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("at", "meant"),
    [
        ("encoder[1]/h", "encoder/h[1]"),
        ("encoder[0]/h:preactivation", "encoder/h[0]:preactivation"),
        ("encoder[*]/h", "encoder/h[*]"),
    ],
)
def test_the_call_goes_last(siamese, at, meant):
    refuses(AddressSyntaxError, lambda: gradients(siamese, [ROWS, ROWS], at=at), f"the call goes last: `{meant}`")
    assert len(gradients(siamese, [ROWS, ROWS], at=meant)) == 1 + ("*" in at)


@pytest.mark.parametrize("at", ["a[1]b", "[1]/h", "a[1]/b[0]", "a[x]/b"])
def test_what_is_no_call_is_not_taken_for_one(at):
    assert "goes last" not in str(refuses(AddressSyntaxError, lambda: gradients(rows(), ROWS, at=at)))


def test_the_tree_of_a_model_that_runs_twice(siamese):
    lines = [line.rstrip() for line in str(gt.taps(siamese)).splitlines()]
    names = [line.lstrip("│├└─ ").split("  ")[0] for line in lines]
    depths = [len(line) - len(line.lstrip("│├└─ ")) for line in lines]
    start = names.index("encoder[0]")
    expected = ["encoder[0]", "encoder[1]", "encoder", "h[0]", "h[0]:preactivation", "h[1]", "h[1]:preactivation"]
    assert names[start : start + 7] == expected
    assert [depth // 4 for depth in depths[start : start + 7]] == [1, 1, 1, 2, 2, 2, 2]


# -- lists of layers ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("at", "parts"),
    [
        ("inner/blocks", ["holds 2 layers: `inner/blocks/0`, `inner/blocks/1`", "do          `inner/blocks/*`"]),
        ("blocks", ["`blocks` holds 2 layers: `inner/blocks/0`, `inner/blocks/1`", "do          `**/blocks/*` for"]),
        ("blocks:input", ["do          `**/blocks/*:input` for every one"]),
        ("one", ["`one` holds one layer: `one/0`", "do          `one/*` for it"]),
        ("one[0]", ["do          `one/0`: an item of a list", "or          `one/*`"]),
        ("many[3]:input", ["do          `many/3:input`: an item of a list", "or          `many/*:input`"]),
        ("many", ["`many/7` and 2 more"]),
        ("named", ["`named` holds 2 layers: `named/left/0`, `named/left/1`", "do          `named/**`"]),
        ("named/left", ["do          `named/left/*`"]),
        ("many/12", ["no layer `many/12`", "nearest     `many/"]),
    ],
)  # fmt: skip
def test_a_list_of_layers_is_no_layer(deep, at, parts):
    refuses(UnknownTapError, lambda: gradients(deep, ROWS, at=at), *parts)


@pytest.mark.parametrize("at", ["inner/blocks/*", "**/blocks/*", "one/*", "one/0", "many/3:input", "named/**"])
def test_what_is_advised_of_a_list_works(deep, at):
    assert len(gradients(deep, ROWS, at=at)) in (1, 2)


# -- patterns ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pattern", ["fc", "f?", "*f*"])
def test_a_pattern_that_would_match_deeper(pattern):
    model = keras.Sequential([keras.Input((4,)), nested()])
    said = [f"`**/{pattern}*:input` matches 3: ", "deeper      `", "/lower/fc`"]
    refuses(NoMatchError, lambda: gradients(model, ROWS, at=f"{pattern}*:input"), *said)
    assert len(gradients(model, ROWS, at=f"**/{pattern}*:input")) == 3


def test_a_pattern_that_matches_nowhere():
    error = refuses(NoMatchError, lambda: gradients(nested(), ROWS, at="*zz*"), "layers      `row`", "`**/name` looks")
    assert "deeper" not in str(error)
    assert "deeper" not in str(refuses(NoMatchError, lambda: gradients(nested(), ROWS, at=layers.Conv2D)))


# -- what else names a place -------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore::gradtap.errors.NoCurvatureWarning")
def test_entries_of_the_list_of_taps_are_addresses():
    listing = gt.taps(rows())
    entry = next(e for e in listing if e.address == "hidden")
    expected = gradients(rows(), ROWS, at="hidden")
    np.testing.assert_array_equal(gradients(rows(), ROWS, at=entry)["hidden"], expected.only)
    np.testing.assert_array_equal(gradients(rows(), ROWS, at=[entry])["hidden"], expected.only)
    assert list(gradients(rows(), ROWS, at=listing)) == [e.address for e in sorted(listing, key=_forward(listing))]
    assert list(gradients(rows(), ROWS, at=listing[2:4])) == ["hidden:preactivation", "hidden"]
    assert gt.vjp(rows(), ROWS, np.ones((2, 2)), at=entry, of=listing[1]).only.shape == (2, 3)
    assert gt.patch(rows(), ROWS, {entry: np.zeros((1, 3))}).shape == (2, 2)
    assert gt.hvp(rows(), ROWS, np.ones((2, 3)), target=0, at=entry).only.shape == (2, 3)


def _forward(listing):
    order = list(gradients(rows(), ROWS, at=[e.address for e in listing]))
    return lambda entry: order.index(entry.address)


@pytest.mark.filterwarnings("ignore::gradtap.errors.NoCurvatureWarning")
def test_a_generator_of_addresses_is_a_list_of_them():
    def names():
        yield from ("scores", "hidden")

    assert list(gradients(rows(), ROWS, at=names())) == ["hidden", "scores"]
    assert list(gt.activations(rows(), ROWS, at=names())) == ["hidden", "scores"]
    assert list(gt.vjp(rows(), ROWS, np.ones((2, 2)), at=names())) == ["hidden", "scores"]
    assert list(gt.jacobian(rows(), ROWS, at=iter(["hidden"]))) == ["hidden"]
    assert list(gt.hvp(rows(), ROWS, {"hidden": np.ones((2, 3))}, target=0, at=iter(["hidden"]))) == ["hidden"]
    dataset = tf.data.Dataset.from_tensor_slices(ROWS).batch(1)
    assert gradients(rows(), dataset, at=names())["hidden"].shape == (2, 3)


# -- inputs and values -------------------------------------------------------------------------------------------------


def test_a_dataset_without_batches():
    dataset = tf.data.Dataset.from_tensor_slices(ROWS)
    error = refuses(
        InputShapeError, lambda: gradients(rows(), dataset), "input `row` has shape (4,)", "dataset.batch(32)"
    )
    assert "x[None]" not in str(error)
    refuses(InputShapeError, lambda: gradients(rows(), ROWS[0]), "x[None]")
    assert gradients(rows(), dataset.batch(32)).only.shape == (2, 4)


def test_a_number_in_the_place_of_activations():
    parts = "the values for `hidden` have shape ()", "or (1, 3) for all examples", "lambda a: 0.0 * a"
    refuses(InputShapeError, lambda: gt.patch(rows(), ROWS, {"hidden": 0.0}), *parts)
    zeros, function = ({"hidden": value} for value in (np.zeros((1, 3)), lambda a: 0.0 * a))
    np.testing.assert_array_equal(gt.patch(rows(), ROWS, zeros), gt.patch(rows(), ROWS, function))


def test_a_target_with_something_for_each_example_of_the_batch():
    x = np.linspace(-1, 1, 24, dtype="float32").reshape(6, 4)
    weights = tf.constant([1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
    parts = "batch_size=None", "of the 6 examples at a time"

    def weighed(y):
        return weights * y[:, 0]

    refuses(ModelRunError, lambda: gradients(rows(), x, target=weighed, batch_size=2), "look at the target", *parts)
    refuses(TargetShapeError, lambda: gradients(rows(), x, target=weighed, batch_size=1), *parts)
    assert "batch_size" not in str(
        refuses(ModelRunError, lambda: gradients(rows(), x[:4], target=weighed), "look at the target")
    )
    assert gradients(rows(), x, target=weighed).only.shape == (6, 4)
