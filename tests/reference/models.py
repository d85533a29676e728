"""What tests need to make models: the float64 policy, and inputs."""

from __future__ import annotations

from contextlib import contextmanager

import keras
import numpy as np


@contextmanager
def policy(name, floatx="float32"):
    """Layers made inside have this dtype policy."""
    before = keras.config.dtype_policy(), keras.config.floatx()
    keras.config.set_floatx(floatx)
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_floatx(before[1])
        keras.config.set_dtype_policy(before[0])


def float64_policy():
    """Layers and inputs made inside are of float64."""
    return policy("float64", "float64")


def draws(*shape, seed=0):
    """Standard normal numbers, float64, the same for the same shape and seed."""
    return np.random.default_rng(seed).normal(size=shape)
