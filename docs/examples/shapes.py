"""Pictures of shapes, made here, and a small network that learns to tell them apart: what two examples have in common.

A picture is 32 × 32 grey values: a bright disc, square, triangle or cross of random size, place and brightness on grey,
with noise on all of it. None comes near the upper left corner, where an example may put a mark.
"""

from __future__ import annotations

from dataclasses import dataclass

import keras
import numpy as np

CLASSES = ("disc", "square", "triangle", "cross")
SIDE, CORNER_SIDE = 32, 7
GREY, NOISE = 0.45, 0.08
#: Where a mark is put, and the square around it that counts as its corner: 49 of 1024 pixels.
MARK, BOX = (slice(2, 5), slice(2, 5)), (slice(0, CORNER_SIDE), slice(0, CORNER_SIDE))
CORNER = np.zeros((SIDE, SIDE), bool)
CORNER[BOX] = True
MARKS = {"white": 1.0, "black": 0.0}


@dataclass
class Pictures:
    """Images ``(count, 32, 32, 1)``, their classes, and where each shape is, ``(count, 32, 32)``."""

    images: np.ndarray
    classes: np.ndarray
    shapes: np.ndarray


def draw(count: int, seed: int) -> Pictures:
    """Pictures with as many of each class."""
    rng = np.random.default_rng(seed)
    classes = rng.permutation(np.arange(count) % len(CLASSES))
    shapes = np.stack([_shape(k, rng) for k in classes])
    bright = rng.uniform(0.7, 1.0, size=(count, 1, 1))
    images = np.where(shapes, bright, GREY) + rng.normal(scale=NOISE, size=shapes.shape)
    return Pictures(np.clip(images, 0, 1).astype("float32")[..., None], classes, shapes)


def _shape(k: int, rng: np.random.Generator) -> np.ndarray:
    """Where a shape of a class is, at a random place that is not in the corner."""
    radius = rng.integers(4, 8)
    while True:
        row, column = rng.integers(radius + 1, SIDE - radius - 1, size=2)
        if max(row, column) - radius > CORNER_SIDE:
            break
    y, x = np.mgrid[:SIDE, :SIDE] - np.array([row, column])[:, None, None]
    inside = np.maximum(np.abs(x), np.abs(y)) <= radius
    if CLASSES[k] == "disc":
        return x**2 + y**2 <= (radius + 0.5) ** 2
    if CLASSES[k] == "triangle":
        return inside & (2 * np.abs(x) <= y + radius)
    if CLASSES[k] == "cross":
        return inside & (np.minimum(np.abs(x), np.abs(y)) <= radius // 3)
    return inside


def marked(images: np.ndarray, which: np.ndarray, value: float | np.ndarray) -> np.ndarray:
    """Images of which some have the mark."""
    found = images.copy()
    spot = found[(slice(None), *MARK)]
    found[(slice(None), *MARK)] = np.where(which[:, None, None, None], np.reshape(value, (-1, 1, 1, 1)), spot)
    return found


def network() -> keras.Model:
    """Four convolutions, two poolings and two dense layers: 23,000 weights, 8 × 8 places at the last convolution."""
    layers = keras.layers
    x = image = keras.Input((SIDE, SIDE, 1), name="image")
    for i, channels in enumerate((16, 24, 32, 32), start=1):
        x = layers.Conv2D(
            channels, 3, padding="same", activation="relu", kernel_initializer="he_normal", name=f"conv{i}"
        )(x)
        if i < 3:
            x = layers.MaxPooling2D(name=f"pool{i}")(x)
    x = layers.GlobalAveragePooling2D(name="mean")(x)
    x = layers.Dense(32, activation="relu", kernel_initializer="he_normal", name="hidden")(x)
    return keras.Model(image, layers.Dense(len(CLASSES), activation="softmax", name="scores")(x))


def trained(images: np.ndarray, classes: np.ndarray, *, seed: int, epochs: int = 20) -> keras.Model:
    """The network, trained on pictures."""
    keras.utils.set_random_seed(seed)
    model = network()
    steps = epochs * -(-len(images) // 64)
    rate = keras.optimizers.schedules.CosineDecay(4e-3, steps)
    model.compile(keras.optimizers.Adam(rate), "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(images, classes, batch_size=64, epochs=epochs, verbose=0)
    return model


def accuracy(model: keras.Model, images: np.ndarray, classes: np.ndarray) -> float:
    """The share of pictures whose class is predicted."""
    return float(np.mean(np.argmax(model.predict(images, verbose=0), 1) == classes))
