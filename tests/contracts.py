"""The table of methods that every contract is checked for, and the small models that they are checked on.

A new method is one line of `METHODS`.
"""

from __future__ import annotations

import tempfile
import zlib
from dataclasses import dataclass, field
from functools import cache, wraps
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import layers

import gradtap as gt
from reference.models import policy

SIZE = (5, 5, 2)


def made_once(make):
    """Keep a model; it is made out of any graph, though a test may ask for it first inside of a `tf.function`."""

    @cache
    @wraps(make)
    def kept(*how):
        with tf.init_scope():
            return make(*how)

    return kept


def usual(inputs):
    """Two rows for each input, as what an average over data needs; of what is no image zeros."""

    def rows(x):
        return np.stack([np.full(x.shape[1:], value * (len(x.shape) > 2)) for value in (0.1, 0.4)])

    return tf.nest.map_structure(rows, inputs)


@dataclass(frozen=True)
class Method:
    """A method under contract.

    Args:
      name: In `gradtap.attribution`.
      gives: What its result has the shape of: the ``"activations"``, a ``"map"`` of them without channels, the
        ``"channels"``, or the ``"input"``.
      extra: Further keywords; a function makes one of the inputs.
      draws: What it draws at random, ``"noise"``, ``"rows"`` of data or ``"masks"``; nothing where
        empty.
      in_training: Whether it takes ``training=True``.
    """

    name: str
    gives: str = "activations"
    extra: dict[str, Any] = field(default_factory=dict)
    draws: str = ""
    in_training: bool = True

    @property
    def label(self):
        """For the names of tests."""
        return "-".join([self.name, *(str(v) for v in self.extra.values() if isinstance(v, str))])

    def __call__(self, model, inputs, **ask):
        """Call it, of class 1 unless told otherwise."""
        given = inputs
        if any(callable(value) for value in self.extra.values()):
            given = next(iter(inputs))[0] if isinstance(inputs, tf.data.Dataset) else inputs
            given = tf.nest.map_structure(lambda x: x if hasattr(x, "dtype") else np.asarray(x), given)
        extra = {name: value(given) if callable(value) else value for name, value in self.extra.items()}
        return getattr(gt.attribution, self.name)(model, inputs, **{"target": 1} | extra | ask)

    def shape(self, activations, inputs):
        """The shape of a result, from those of activations and input."""
        of = {"activations": activations, "map": activations[:-1], "input": inputs}
        return of.get(self.gives) or (activations[0], activations[-1])


METHODS = [
    Method("saliency"),
    Method("saliency", extra={"absolute": True}),
    Method("activation_x_gradient"),
    Method("channel_importance", "channels"),
    Method("channel_importance", "channels", {"by": "ablation"}),
    Method("smooth_grad", extra={"samples": 4, "seed": 1}, draws="noise"),
    Method("integrated_gradients", extra={"steps": 4}),
    Method("conductance", extra={"steps": 4}),
    Method("conductance", extra={"steps": 4, "rule": "difference"}),
    Method("internal_influence", extra={"steps": 4}),
    Method("expected_gradients", extra={"baselines": usual, "samples": 4, "seed": 1}, draws="rows"),
    Method("grad_cam", "map", {"relu": False}),
    Method("grad_cam_plus_plus", "map", {"relu": False}),
    Method("layer_cam", "map", {"relu": False}),
    Method("hires_cam", "map", {"relu": False}),
    Method("xgrad_cam", "map", {"relu": False}),
    Method("score_cam", "map", {"relu": False}),
    Method("ablation_cam", "map", {"relu": False}),
    Method("occlusion", "map", {"window": 2}),
    Method("rise", "map", {"masks": 6, "cells": 3, "seed": 1}, draws="masks"),
    Method("guided_backprop"),
    Method("deconvnet"),
    Method("guided_grad_cam", "input"),
    Method("deep_lift", in_training=False),
    Method("lrp", extra={"epsilon": 1e-15}),  # a further sum is one more place where it counts
    Method("lrp", extra={"rule": "alpha_beta", "epsilon": 1e-15}),
]
#: Those that are no methods of this form: a kind of baseline, and what is asked of other models or in another way.
NO_METHODS = {"at_tap", "attention_relevance", "attribution_patching"}


def images(rows=3, dtype="float64", seed=0):
    """Images in [0, 1]; the first rows are the same however many there are."""
    drawn = [np.random.default_rng([seed, row]).random(SIZE) for row in range(rows)]
    return np.asarray(drawn, dtype).reshape(rows, *SIZE)


def _weighed(model):
    """Weights that depend on the names of the layers alone; drawn so that no method gives only zeros."""
    for layer in model._flatten_layers(include_self=False):
        if not isinstance(layer, keras.Model):
            for i, weight in enumerate(layer.weights):
                rng = np.random.default_rng([zlib.crc32(layer.name.encode()), i, 229])
                weight.assign(0.5 * rng.normal(size=weight.shape))
    return model


def _made():
    return [
        layers.Conv2D(3, 2, activation="relu", name="conv"),
        layers.Conv2D(4, 2, activation="gelu", name="tap"),
        layers.GlobalAveragePooling2D(name="pool"),
        layers.Dense(3, activation="softmax", name="scores"),
    ]


@made_once
def plain(dtype="float64"):
    """The model that all others are compared with."""
    with policy(dtype, "float64" if dtype == "float64" else "float32"):
        return _weighed(keras.Sequential([keras.Input(SIZE, name="image"), *_made()]))


class Subclassed(keras.Model):
    """The same model, with its layers as attributes; it counts how often its Python runs."""

    def __init__(self):
        super().__init__()
        self.conv, self.tap, self.pool, self.scores = _made()
        self.on_call = lambda: None

    def call(self, x):
        RUNS.append(1)
        self.on_call()
        return self.scores(self.pool(self.tap(self.conv(x))))


RUNS: list[int] = []


def subclassed():
    """A new `Subclassed`."""
    with policy("float64", "float64"):
        model = Subclassed()
        model(images(1))
        return _weighed(model)


@made_once
def form(name):
    """The plain model in another form."""
    if name == "subclassed":
        return subclassed()
    if name == "loaded":
        with tempfile.TemporaryDirectory() as folder:
            plain().save(Path(folder, "model.keras"))
            return keras.saving.load_model(Path(folder, "model.keras"))
    with policy("float64", "float64"):
        first, *rest = _made()
        inside = keras.Sequential([keras.Input(SIZE), first, rest[0]], name="inside")
        return _weighed(keras.Sequential([keras.Input(SIZE), inside, *rest[1:]]))


@made_once
def beside(kind):
    """The plain model with a second input, which adds nothing where it is zero, in a dict or in a list."""
    with policy("float64", "float64"):
        image, side = keras.Input(SIZE, name="image"), keras.Input((2,), name="side")
        conv, tap, pool, scores = _made()
        shift = layers.Dense(3, use_bias=False, name="shift")(side)
        scores = layers.Dense(3, name="scores")(pool(tap(conv(image))))
        y = layers.Softmax(name="softmax")(layers.Add(name="add")([scores, shift]))
        given = {"image": image, "side": side} if kind == "dict" else [image, side]
        return _weighed(keras.Model(given, y))


@made_once
def dropped():
    """The plain model with dropout."""
    with policy("float64", "float64"):
        conv, *rest = _made()
        return _weighed(keras.Sequential([keras.Input(SIZE), conv, layers.Dropout(0.4), *rest]))


@made_once
def maze(kind):
    """A convolution that runs twice, once beside another output; or two frozen ones with the same weights."""
    with policy("float64", "float64"):
        image = keras.Input(SIZE, name="image")
        made = {n: layers.Conv2D(2, 2, padding="same", activation="tanh", name=n) for n in ("one", "two")}
        if kind == "shared":
            made = dict.fromkeys(made, layers.Conv2D(2, 2, padding="same", activation="tanh", name="shared"))
        h = made["two"](layers.Activation("gelu", name="between")(made["one"](image)))
        pooled = layers.GlobalAveragePooling2D(name="pool")(h)
        aside = layers.Conv2D(2, 2, name="aside")(image)
        more = layers.GlobalAveragePooling2D(name="pool_aside")(aside)
        model = keras.Model(image, {"scores": layers.Dense(3, name="scores")(pooled), "more": more})
    _weighed(model)
    if kind == "frozen":
        model.trainable = False
        for name in ("one", "two"):
            for weight, same in zip(model.get_layer(name).weights, maze("shared").get_layer("shared").weights):
                weight.assign(same)
    return model


@made_once
def tokens():
    """An embedding of ten ids."""
    embedding = layers.Embedding(10, 4, name="embedding")
    pool = layers.GlobalAveragePooling1D(name="mean")
    return keras.Sequential([keras.Input((3,), dtype="int32", name="ids"), embedding, pool, layers.Dense(3)])
