"""The networks that are measured, each built anew with the same weights at every call."""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf

SEED = 0


def images(batch: int, *shape: int) -> tf.Tensor:
    """Normal noise, the same at every call: `(batch, *shape)`."""
    return tf.constant(np.random.default_rng(SEED).normal(size=(batch, *shape)).astype("float32"))


def resnet50() -> keras.Model:
    """ResNet50 with seeded random weights: what is timed does not depend on training."""
    keras.utils.set_random_seed(SEED)
    return keras.applications.ResNet50(weights=None)


class TinyCNN(keras.Model):
    """The subclassed 28x28 network of the README."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = keras.layers.Conv2D(32, 3, activation="relu", padding="same", name="conv1")
        self.pool1 = keras.layers.MaxPooling2D(name="pool1")
        self.conv2 = keras.layers.Conv2D(64, 3, activation="relu", padding="same", name="conv2")
        self.pool2 = keras.layers.MaxPooling2D(name="pool2")
        self.flatten = keras.layers.Flatten(name="flatten")
        self.dense1 = keras.layers.Dense(10, activation="softmax", name="dense1")

    def call(self, x: tf.Tensor) -> tf.Tensor:
        return self.after_conv1(self.conv1(x))

    def after_conv1(self, hidden: tf.Tensor) -> tf.Tensor:
        """What follows `conv1`: the part of the forward pass that a hand-written tape restates."""
        return self.dense1(self.flatten(self.pool2(self.conv2(self.pool1(hidden)))))


def tiny_cnn() -> keras.Model:
    keras.utils.set_random_seed(SEED)
    model = TinyCNN()
    model(tf.zeros((1, 28, 28, 1)))
    return model


def functional_cnn(*, softmax_apart: bool = False) -> keras.Model:
    """Three convolutions, functional; `softmax_apart` ends in the layers `logits` and `scores` instead of one."""
    keras.utils.set_random_seed(SEED)
    x = inputs = keras.Input((28, 28, 1))
    for number, filters in enumerate((16, 32, 32), start=1):
        x = keras.layers.Conv2D(filters, 3, activation="relu", padding="same", name=f"conv{number}")(x)
        x = keras.layers.MaxPooling2D(name=f"pool{number}")(x)
    x = keras.layers.GlobalAveragePooling2D(name="mean")(x)
    if softmax_apart:
        x = keras.layers.Dense(10, name="logits")(x)
        return keras.Model(inputs, keras.layers.Activation("softmax", name="scores")(x))
    return keras.Model(inputs, keras.layers.Dense(10, activation="softmax", name="scores")(x))


def up_to(model: keras.Model, layer: str) -> keras.Model:
    """The functional model cut after one of its layers."""
    return keras.Model(model.inputs, model.get_layer(layer).output)


def nested() -> keras.Model:
    """A functional backbone inside a Sequential."""
    whole = functional_cnn()
    backbone = keras.Model(whole.inputs, whole.get_layer("pool3").output, name="backbone")
    head = [keras.layers.Flatten(name="flatten"), keras.layers.Dense(10, activation="softmax", name="scores")]
    return keras.Sequential([keras.Input((28, 28, 1)), backbone, *head])


def shared_layer() -> keras.Model:
    """`shared` runs twice, the second time on its own output."""
    keras.utils.set_random_seed(SEED)
    inputs = keras.Input((28, 28, 1))
    shared = keras.layers.Conv2D(16, 3, activation="relu", padding="same", name="shared")
    x = shared(shared(keras.layers.Conv2D(16, 3, strides=2, activation="relu", name="stem")(inputs)))
    x = keras.layers.GlobalAveragePooling2D(name="mean")(x)
    return keras.Model(inputs, keras.layers.Dense(10, activation="softmax", name="scores")(x))


def residual() -> keras.Model:
    """`branch` lies on one of two ways from the input to the output: it does not cut the graph."""
    keras.utils.set_random_seed(SEED)
    inputs = keras.Input((28, 28, 1))
    stem = keras.layers.Conv2D(16, 3, strides=2, activation="relu", name="stem")(inputs)
    branch = keras.layers.Conv2D(16, 3, activation="relu", padding="same", name="branch")(stem)
    x = keras.layers.Conv2D(16, 3, activation="relu", name="after")(keras.layers.Add(name="add")([stem, branch]))
    x = keras.layers.GlobalAveragePooling2D(name="mean")(x)
    return keras.Model(inputs, keras.layers.Dense(10, activation="softmax", name="scores")(x))
