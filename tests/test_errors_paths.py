"""What is said of a tap that the target does not depend on: the target's path, and where the tap is."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers

import gradtap as gt
from gradtap.errors import NonDifferentiableError, UnconnectedTapError
from refusals import ROWS, gradients, refuses, through


class Blocks(keras.Model):
    """Two layers in a list, then two heads."""

    def __init__(self):
        super().__init__()
        self.blocks = [layers.Dense(4), layers.Dense(4)]
        self.a, self.b = layers.Dense(2), layers.Dense(2)

    def call(self, x):
        for block in self.blocks:
            x = block(x)
        return {"one": self.a(x), "other": self.b(x)}


@pytest.fixture(scope="module")
def blocks():
    model = Blocks()
    model(ROWS)
    return model


@pytest.fixture(scope="module")
def heads():
    x = keras.Input((4,), name="x")
    hidden = layers.Dense(3, name="h")(x)
    return keras.Model(x, {"a": layers.Dense(2, name="a")(hidden), "b": layers.Dense(2, name="b")(hidden)})


@pytest.fixture(scope="module")
def softmax():
    stack = [layers.Dense(3, name="h"), layers.Dense(3, name="d"), layers.Softmax(name="out")]
    return keras.Sequential([keras.Input((4,), name="x"), *stack])


def one(model, at, target):
    return lambda: gt.gradients(model, ROWS, target=target, at=at)


def test_the_path_names_layers_of_a_list(blocks):
    target = gt.targets.class_score(0, output="one")
    refuses(UnconnectedTapError, one(blocks, "b", target), "its path    blocks/0 -> blocks/1 -> a\n")


def test_the_path_ends_inside_of_a_layer_where_the_target_does(blocks, softmax):
    refuses(UnconnectedTapError, one(blocks, "a", gt.targets.neuron("blocks/0", 0)), "its path    blocks/0\n")
    inner = keras.Sequential([keras.Input((4,)), layers.Dense(4, name="h"), layers.Dense(4, name="z")], name="inner")
    nested = keras.Sequential([keras.Input((4,), name="x"), inner, layers.Dense(2, name="top")])
    refuses(UnconnectedTapError, one(nested, "top", gt.targets.neuron("inner/h", 0)), "its path    x -> inner/h\n")
    refuses(UnconnectedTapError, one(nested, ":output", gt.targets.neuron("top:input", 0)), "its path    x -> inner\n")
    alone = keras.Sequential([keras.Input((4,), name="x"), layers.Dense(2, activation="softmax", name="p")])
    logits = gt.targets.class_score(0, logits=True)
    refuses(UnconnectedTapError, one(alone, "p", logits), "its path    x -> p:preactivation\n")


def test_a_tap_after_the_target_of_a_model_with_several_outputs(heads):
    said = "comes after what is differentiated, on the way to output `b`"
    refuses(UnconnectedTapError, one(heads, "b", gt.targets.neuron("h", 1)), said, "tap an earlier layer")
    refuses(UnconnectedTapError, lambda: gt.jacobian(heads, ROWS, of="h", at="b"), said)
    refuses(UnconnectedTapError, one(heads, "b", gt.targets.class_score(0, output="a")), "it feeds output `b` only")


def test_another_way_to_the_one_output():
    x = keras.Input((4,), name="x")
    a, b = layers.Dense(3, name="a")(x), layers.Dense(3, name="b")(x)
    model = keras.Model(x, layers.Dense(2, name="top")(layers.Add(name="add")([a, b])))
    refuses(UnconnectedTapError, one(model, "b", gt.targets.neuron("a", 1)), "it goes to the output by another way")
    refuses(UnconnectedTapError, one(model, "add", gt.targets.neuron("a", 1)), "comes after what is differentiated")


@pytest.mark.parametrize("of", ["a", ":output.a"])
def test_products_advise_their_own_keyword(heads, of):
    parts = f"`{of}` does not depend on `b`", f"of          `{of}`", 'do          of=":output.b"'
    for call in (
        lambda: gt.jacobian(heads, ROWS, of=of, at="b"),
        lambda: gt.vjp(heads, ROWS, np.ones((2, 2)), of=of, at="b"),
        lambda: gt.jvp(heads, ROWS, np.ones((2, 2)), of=of, at="b"),
    ):
        assert "target" not in str(refuses(UnconnectedTapError, call, *parts))
    assert gt.jacobian(heads, ROWS, of=":output.b", at="b").only.shape == (2, 2, 2)


def test_a_tap_at_the_softmax_is_after_the_predicted_class_s_logits_too(softmax):
    said = [
        "its path    x -> h -> d\n",
        "comes after what is differentiated, on the way to the output",
        "leave out logits=True",
    ]
    for k in (1, "predicted"):
        refuses(UnconnectedTapError, one(softmax, "out", gt.targets.class_score(k, logits=True)), *said)
    assert np.any(gradients(softmax, ROWS, target="predicted", at="out").only)


def test_a_choice_of_the_model_s_own_still_cuts(softmax):
    hard = through(lambda z: keras.ops.one_hot(keras.ops.argmax(z, axis=-1), 4))
    refuses(NonDifferentiableError, lambda: gradients(hard, ROWS, target="predicted", at="hidden"), "ArgMax in `cut`")

    def chosen(y):
        return keras.ops.sum(keras.ops.one_hot(keras.ops.argmax(y, axis=-1), 3), axis=-1)

    refuses(NonDifferentiableError, one(softmax, "out", chosen), "ArgMax in the target")
