"""Draws of our own, the same for the same seed, however the batch is cut."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from gradtap.types import Tensor

_Draws = np.ndarray[Any, Any]


def generator(seed: int | None, purpose: int) -> np.random.Generator:
    """NumPy draws for one purpose; other draws for each call where there is no seed."""
    return np.random.default_rng(np.random.SeedSequence(None if seed is None else abs(seed), spawn_key=(purpose,)))


def normal_like(tensor: Tensor, run: int, base: int) -> Tensor:
    """Standard normal draws of the shape of one example's activations, ``(1, ...)``.

    All examples are given the same draws, so that a row of a batch is the same as that example alone, and so are the
    runs however many are made at once.

    Args:
      tensor: ``(batch, ...)``.
      run: Which run.
      base: From the seed.
    """
    shape = tf.concat([[1], tf.shape(tensor)[1:]], 0)
    wide = tensor.dtype if tensor.dtype == tf.float64 else tf.float32
    return tf.ensure_shape(
        tf.random.stateless_normal(shape, [base, run], dtype=wide), (1, *tensor.shape[1:]) if tensor.shape.rank else ()
    )
