"""Models for attribution, each beside a plain Python function that runs the same layers step by step."""

from __future__ import annotations

from functools import cache

import keras
import tensorflow as tf
from keras import layers

from reference.models import draws, float64_policy

KINDS = {}


def _kind(function):
    KINDS[function.__name__] = function
    return function


@_kind
def skip():
    """A tap that a branch goes around, and one after it: ``stem``, ``tap``, ``late``."""
    own = {
        "stem": layers.Conv2D(3, 2, activation="tanh", name="stem"),
        "tap": layers.Conv2D(3, 3, padding="same", activation="softplus", name="tap"),
        "late": layers.Conv2D(4, 2, activation="gelu", name="late"),
        "pool": layers.GlobalAveragePooling2D(name="pool"),
        "scores": layers.Dense(3, activation="softmax", name="scores"),
    }

    def run(x, put):
        found = {":input": put.get(":input", x)}
        found["stem"] = put.get("stem", own["stem"](found[":input"]))
        found["tap"] = put.get("tap", own["tap"](found["stem"]))
        found["late"] = put.get("late", own["late"](found["tap"] * found["stem"] + found["stem"]))
        found["scores"] = own["scores"](own["pool"](found["late"]))
        return found

    x = keras.Input((5, 6, 2))
    stem = own["stem"](x)
    tap = own["tap"](stem)
    joined = layers.Add()([layers.Multiply()([tap, stem]), stem])
    return keras.Model(x, own["scores"](own["pool"](own["late"](joined)))), run


@_kind
def series():
    """A time series ``(batch, time, channels)``."""
    own = {
        "tap": layers.Conv1D(4, 2, activation="tanh", name="tap"),
        "late": layers.LSTM(3, name="late"),
        "scores": layers.Dense(3, activation="softmax", name="scores"),
    }

    def run(x, put):
        found = {":input": put.get(":input", x)}
        found["tap"] = put.get("tap", own["tap"](found[":input"]))
        found["late"] = put.get("late", own["late"](found["tap"]))
        found["scores"] = own["scores"](found["late"])
        return found

    x = keras.Input((7, 2))
    return keras.Model(x, own["scores"](own["late"](own["tap"](x)))), run


class ClassToken(layers.Layer):
    """Patches to tokens, with a class token before them."""

    def build(self, shape):
        self.token = self.add_weight(shape=(1, 1, shape[-1]), name="token")

    def call(self, patches):
        tokens = tf.reshape(patches, (tf.shape(patches)[0], 6, patches.shape[-1]))
        first = tf.repeat(tf.convert_to_tensor(self.token), tf.shape(patches)[0], axis=0)
        return tf.concat([first, tokens], 1)

    def compute_output_shape(self, shape):
        return (shape[0], 7, shape[-1])


@_kind
def vision_transformer():
    """Patches of an image of 6 times 4 as 3 times 2 tokens, a class token before them."""
    own = {
        "patches": layers.Conv2D(4, 2, 2, name="patches"),
        "tokens": ClassToken(name="tokens"),
        "tap": layers.Dense(4, activation="tanh", name="tap"),
        "attend": layers.MultiHeadAttention(2, 2, name="attend"),
        "scores": layers.Dense(3, activation="softmax", name="scores"),
    }

    def run(x, put):
        found = {":input": put.get(":input", x)}
        found["tap"] = put.get("tap", own["tap"](own["tokens"](own["patches"](found[":input"]))))
        found["scores"] = own["scores"](own["attend"](found["tap"], found["tap"])[:, 0])
        return found

    x = keras.Input((6, 4, 2))
    h = own["tap"](own["tokens"](own["patches"](x)))
    return keras.Model(x, own["scores"](own["attend"](h, h)[:, 0])), run


@cache
def net(kind):
    """A model, its step-by-step function, and three of its inputs, in float64."""
    keras.utils.set_random_seed(0)
    with float64_policy():
        model, run = KINDS[kind]()
    for i, weight in enumerate(model.weights):
        weight.assign(0.8 * draws(*weight.shape, seed=i))
    return model, run, draws(3, *model.input_shape[1:], seed=5)
