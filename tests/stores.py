"""What the tests of whole data sets share: a small model, its data, and how two stores are compared."""

from __future__ import annotations

import os
from pathlib import Path

import keras
import numpy as np

layers = keras.layers


def images_model():
    """A network of 6x6x2 images with two classes; always the same weights."""
    keras.utils.set_random_seed(3)
    stack = [
        layers.Conv2D(3, 3, activation="relu", name="conv1"),
        layers.BatchNormalization(name="norm"),
        layers.Flatten(name="flat"),
        layers.Dense(2, activation="softmax", name="scores"),
    ]
    return keras.Sequential([keras.Input((6, 6, 2), name="image"), *stack])


def images(count=23):
    return np.random.default_rng(5).normal(size=(count, 6, 6, 2)).astype("float32")


def sequence_model():
    """A recurrent network of sequences of any length."""
    keras.utils.set_random_seed(4)
    stack = [layers.LSTM(3, return_sequences=True, name="lstm"), layers.Dense(2, name="scores")]
    return keras.Sequential([keras.Input((None, 2), name="steps"), *stack, layers.GlobalAveragePooling1D(name="mean")])


def arrays_of(store):
    """Every array of a store, by its path in it."""
    import zarr

    found = {}
    for folder, _, files in os.walk(store):
        if "zarr.json" in files:
            node = zarr.open(folder, mode="r")
            if hasattr(node, "shape"):
                found[str(Path(folder).relative_to(store))] = node[...]
    return found


def assert_same(a, b):
    """Two stores hold the same arrays, to the last bit, and say the same of what failed."""
    from gradtap import dataset

    first, second = arrays_of(a), arrays_of(b)
    assert first.keys() == second.keys() and first
    for name, value in first.items():
        if name != "failure":  # the codes may be dealt out in another order
            np.testing.assert_array_equal(value, second[name], err_msg=name)
    assert dataset.open(a).failures == dataset.open(b).failures
