"""What the tests of errors share: small models of every kind, and a check of a message's essential parts."""

from __future__ import annotations

from functools import cache
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

import gradtap as gt

IMAGES = np.linspace(0, 1, 128, dtype="float32").reshape(2, 8, 8, 1)
ROWS = np.linspace(-1, 1, 8, dtype="float32").reshape(2, 4)
WIDE = np.linspace(-1, 1, 6, dtype="float32").reshape(2, 3)
BOTH = {"left": ROWS, "right": WIDE}
TOKENS = np.array([[1, 2, 3], [0, 0, 9]])
STEPS = np.linspace(-1, 1, 40, dtype="float32").reshape(2, 5, 4)


def refuses(error: type, call: Any, *parts: str) -> Any:
    """Check that a call raises this very class, that its message holds the parts, and that it has the usual form."""
    with pytest.raises(gt.GradtapError) as caught:
        call()
    message = str(caught.value)
    assert type(caught.value) is error, f"{type(caught.value).__name__}: {message}"
    for part in parts:
        assert part in message, f"{part!r} is not in\n{message}"
    first, *facts, page = message.splitlines()
    assert first[0] != " " and first.rstrip() == first and first[-1] in ".)"
    assert all(line.startswith("  ") for line in facts)
    assert page == f"  more        {error.page()}"
    return caught.value


def label(value: Any) -> str:
    """The name of a parameter in a test's name; the same in every process."""
    return value if isinstance(value, str) else getattr(value, "__name__", type(value).__name__)


def gradients(model, x, *, target=0, at=":input", **options):
    """`gradtap.gradients`, of class 0 at the input unless told otherwise."""
    return gt.gradients(model, x, target=target, at=at, **options)


@cache
def images():
    """A classifier of images."""
    return keras.Sequential(
        [
            keras.Input((8, 8, 1), name="image"),
            layers.Conv2D(3, 3, activation="relu", name="conv1"),
            layers.MaxPooling2D(name="pool"),
            layers.Flatten(name="flat"),
            layers.Dense(4, activation="softmax", name="scores"),
        ]
    )


@cache
def rows():
    """A model of rows with two scores and no softmax."""
    hidden = layers.Dense(3, activation="tanh", name="hidden")
    return keras.Sequential([keras.Input((4,), name="row"), hidden, layers.Dense(2, name="scores")])


@cache
def number():
    """A model with one number per example."""
    hidden = layers.Dense(3, activation="tanh", name="hidden")
    return keras.Sequential([keras.Input((4,), name="row"), hidden, layers.Dense(1, name="number")])


@cache
def heads():
    """Two inputs and two outputs, by name."""
    left, right = keras.Input((4,), name="left"), keras.Input((3,), name="right")
    trunk = layers.Dense(5, activation="relu", name="trunk")(layers.Concatenate(name="join")([left, right]))
    aux = layers.Dense(2, name="aux_scores")(layers.Dense(2, name="aux_hidden")(trunk))
    return keras.Model({"left": left, "right": right}, {"scores": layers.Dense(3, name="scores")(trunk), "aux": aux})


@cache
def tokens():
    """An embedding of ten ids."""
    return keras.Sequential(
        [
            keras.Input((3,), dtype="int32", name="tokens"),
            layers.Embedding(10, 4, name="embedding"),
            layers.GlobalAveragePooling1D(name="mean"),
            layers.Dense(2, name="scores"),
        ],
        name="reader",
    )


@cache
def shared():
    """One layer that runs twice."""
    x, twice = keras.Input((4,), name="row"), layers.Dense(4, name="twice")
    return keras.Model(x, layers.Dense(2, name="scores")(twice(twice(x))))


@cache
def nested():
    """A model that holds two models with layers of the same names."""

    def tower(name):
        return keras.Sequential([keras.Input((4,), name=f"{name}_in"), layers.Dense(4, name="fc")], name=name)

    return keras.Sequential(
        [keras.Input((4,), name="row"), tower("lower"), tower("upper"), layers.Dense(2, name="fc2")]
    )


@cache
def recurrent():
    """A recurrent layer whose cell runs in a loop, with scores at every step."""
    cell = layers.RNN(layers.LSTMCell(3, name="cell"), return_sequences=True, name="rnn")
    return keras.Sequential([keras.Input((5, 4), name="steps"), cell, layers.Dense(6, name="scores")])


class Subclassed(keras.Model):
    """Layers as attributes, one of them for training only, one never used by the result, one never called."""

    def __init__(self):
        super().__init__()
        self.first = layers.Dense(3)
        self.blocks = [layers.Dense(3), layers.Dense(3)]
        self.aside, self.noise, self.idle = layers.Dense(2), layers.GaussianNoise(0.1), layers.Dense(2)
        self.head = layers.Dense(2)

    def build(self, shape):
        self.first.build((None, 4))
        for layer in (*self.blocks, self.aside, self.head):
            layer.build((None, 3))
        self.built = True

    def call(self, x, training=False):
        x = self.first(x)
        for block in self.blocks:
            x = block(x)
        self.aside(x)
        return self.head(self.noise(x, training=True) if training else x)


@cache
def subclassed():
    """A built `Subclassed`."""
    model = Subclassed()
    model(ROWS)
    return model


def through(function, name="cut"):
    """A model whose gradient has to pass a function."""
    x = keras.Input((4,), name="row")
    hidden = layers.Dense(4, activation="sigmoid", name="hidden")(x)
    return keras.Model(x, layers.Dense(2, name="scores")(layers.Lambda(function, name=name)(hidden)))
