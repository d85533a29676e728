"""The networks and the images of the migration pages; Keras 2.15, on which keract runs, builds the same ones."""

from __future__ import annotations

from functools import partial
from typing import Any

import keras
import numpy as np

layers = keras.layers


# The pages show what stands between here and `images`.
def drawn(model):
    """Weights and biases that any version of Keras draws alike."""
    rng = np.random.default_rng(0)
    model.set_weights([rng.normal(scale=0.25, size=w.shape) for w in model.get_weights()])
    return model


def network(skip=False):
    """Three convolutions and a softmax; with `skip`, conv2 has a way around it."""
    x = photo = keras.Input((32, 32, 3), name="photo")
    x = conv1 = layers.Conv2D(8, 3, padding="same", activation="relu", name="conv1")(x)
    x = layers.Conv2D(8, 3, padding="same", activation="relu", name="conv2")(x)
    x = layers.Add(name="add")([conv1, x]) if skip else x
    x = layers.MaxPooling2D(name="pool")(x)
    x = layers.Conv2D(16, 3, padding="same", activation="relu", name="conv3")(x)
    x = layers.GlobalAveragePooling2D(name="mean")(x)
    x = layers.Dense(10, name="logits")(x)
    return drawn(keras.Model(photo, layers.Activation("softmax", name="scores")(x)))


images = np.random.default_rng(1).uniform(size=(2, 32, 32, 3)).astype("float32")


# The same function of its input as `network()`, in other forms.
def _stack() -> list[Any]:
    return [
        layers.Conv2D(8, 3, padding="same", activation="relu", name="conv1"),
        layers.Conv2D(8, 3, padding="same", activation="relu", name="conv2"),
        layers.MaxPooling2D(name="pool"),
        layers.Conv2D(16, 3, padding="same", activation="relu", name="conv3"),
        layers.GlobalAveragePooling2D(name="mean"),
        layers.Dense(10, name="logits"),
        layers.Activation("softmax", name="scores"),
    ]


class Subclassed(keras.Model):
    """Layers in a list, and a forward pass of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.stack = _stack()

    def call(self, x: Any) -> Any:
        for layer in self.stack:
            x = layer(x)
        return x


def subclassed() -> Any:
    model = Subclassed()
    model(images)
    return drawn(model)


def sequential() -> Any:
    """Without an input layer: built by its first call."""
    model = keras.Sequential(_stack())
    model(images)
    return drawn(model)


def nested() -> Any:
    """The convolutions are a model inside the model."""
    stack, photo = _stack(), keras.Input((32, 32, 3), name="photo")
    x = photo
    for layer in stack[:4]:
        x = layer(x)
    backbone, x = keras.Model(photo, x, name="backbone"), None
    outside = keras.Input((32, 32, 3), name="image")
    x = backbone(outside)
    for layer in stack[4:]:
        x = layer(x)
    return drawn(keras.Model(outside, x))


def twice(in_a_row=True):
    """Another function: conv3 runs twice, the second time on its own output, or on two branches that are added."""
    x = photo = keras.Input((32, 32, 3), name="photo")
    x = layers.Conv2D(8, 3, padding="same", activation="relu", name="conv1")(x)
    conv3 = layers.Conv2D(8, 3, padding="same", activation="relu", name="conv3")
    if in_a_row:
        x = conv3(conv3(layers.MaxPooling2D(name="pool")(x)))
    else:
        x = layers.Add(name="add")([conv3(layers.MaxPooling2D(name="pool")(x)), conv3(layers.AveragePooling2D(2)(x))])
    x = layers.GlobalAveragePooling2D(name="mean")(x)
    x = layers.Dense(10, name="logits")(x)
    return drawn(keras.Model(photo, layers.Activation("softmax", name="scores")(x)))


#: In how each is said on the pages. In every one the layer that is asked for is `conv3`.
KINDS = {
    "functional": network,
    "Sequential without an Input": sequential,
    "subclassed": subclassed,
    "nested": nested,
    "layer called twice in a row": twice,
    "layer on two branches": partial(twice, in_a_row=False),
}
TWICE = ("layer called twice in a row", "layer on two branches")
