"""Small smooth models of every kind in float64, each with a layer `tap` and one after it, `later`."""

from __future__ import annotations

from functools import cache

import keras
from keras import layers

from reference.models import draws, float64_policy

KINDS = {}


def _kind(function):
    KINDS[function.__name__] = function
    return function


def _functional(shape, body):
    x = keras.Input(shape)
    return keras.Model(x, layers.Dense(3, activation="softmax", name="scores")(body(x)))


@_kind
def dense():
    def body(x):
        h = layers.Dense(4, activation="tanh", name="tap")(x)
        return layers.Dense(5, activation="softplus", name="later")(h)

    return _functional((3,), body), (3,)


@_kind
def convolution():
    def body(x):
        h = layers.Conv2D(2, 2, activation="gelu", name="tap")(x)
        norm = layers.BatchNormalization(
            moving_mean_initializer=keras.initializers.RandomNormal(stddev=0.3),
            moving_variance_initializer=keras.initializers.RandomUniform(0.5, 2.0),
        )
        h = layers.AveragePooling2D(2, 1)(norm(h))
        return layers.Flatten()(layers.DepthwiseConv2D(2, activation="mish", name="later")(h))

    return _functional((5, 5, 2), body), (5, 5, 2)


@_kind
def skip():
    def body(x):
        h = layers.Dense(4, activation="tanh", name="stem")(x)
        branch = layers.Dense(4, activation="sigmoid", name="tap")(h)
        joined = layers.Add(name="joined")([layers.Multiply()([h, branch]), h])
        return layers.Dense(4, activation="elu", name="later")(joined)

    return _functional((3,), body), (3,)


@_kind
def shared():
    def body(x):
        h = layers.Dense(3, name="tap")(x)
        twice = layers.Dense(3, activation="tanh", name="twice")
        return layers.Dense(4, activation="tanh", name="later")(twice(twice(h)))

    return _functional((3,), body), (3,)


@_kind
def normalised():
    def body(x):
        h = layers.Conv2D(4, 2, name="tap")(x)
        h = layers.GroupNormalization(2, name="group")(h)
        h = layers.LayerNormalization(axis=[1, 2, 3], name="later")(layers.Activation("tanh")(h))
        return layers.Flatten()(h)

    return _functional((3, 3, 2), body), (3, 3, 2)


@_kind
def attention():
    def body(x):
        h = layers.Dense(4, name="tap")(x)
        h = layers.LayerNormalization()(h + layers.MultiHeadAttention(2, 3, name="attend")(h, h))
        h = layers.LayerNormalization(name="later")(h + layers.Dense(4, activation="gelu")(h))
        return layers.GlobalAveragePooling1D()(h)

    return _functional((3, 2), body), (3, 2)


@_kind
def recurrent():
    def body(x):
        h = layers.Dense(2, name="tap")(x)
        return layers.LSTM(3, name="later")(h)

    return _functional((4, 2), body), (4, 2)


@_kind
def pooled():
    """Max-pooling behind a gelu and a batch normalisation: at random weights no two entries are equal."""

    def body(x):
        h = layers.Conv2D(2, 2, activation="gelu", name="tap")(x)
        norm = layers.BatchNormalization(
            moving_mean_initializer=keras.initializers.RandomNormal(stddev=0.3),
            moving_variance_initializer=keras.initializers.RandomUniform(0.5, 2.0),
        )
        h = layers.MaxPooling2D(2, 2)(norm(h))
        return layers.Flatten()(layers.Activation("tanh", name="later")(h))

    return _functional((5, 5, 2), body), (5, 5, 2)


@_kind
def gated():
    def body(x):
        h = layers.Dense(2, name="tap")(x)
        return layers.GRU(3, name="later")(h)

    return _functional((4, 2), body), (4, 2)


@cache
def smooth(kind):
    """A model with random weights and three of its inputs."""
    keras.utils.set_random_seed(len(kind))
    with float64_policy():
        model, shape = KINDS[kind]()
    for i, weight in enumerate(model.weights):
        if "moving" not in weight.path:
            weight.assign(0.7 * draws(*weight.shape, seed=i) + ("gamma" in weight.path))
    return model, draws(3, *shape, seed=7)
