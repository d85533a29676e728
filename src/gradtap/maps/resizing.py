"""Bring maps to another size, in any float type, inside of a graph or out of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import tensorflow as tf

from gradtap.types import Tensor

Interpolation = Literal["bilinear", "nearest"]


def resized(maps: Tensor, size: Any, interpolation: str, axes: Sequence[int]) -> Tensor:
    """Resize some axes of a tensor.

    Args:
      maps: Floats.
      size: The new length of each of ``axes``: ints, or an int tensor.
      interpolation: ``"bilinear"`` with half-pixel centres, clamped at the border; ``"nearest"`` takes index
        ``floor(i * in / out)``.
      axes: Which axes.
    """
    for number, axis in enumerate(axes):
        maps = _along(maps, axis, tf.cast(size[number], tf.int32), interpolation)
    return maps


def _along(maps: Tensor, axis: int, size: Tensor, interpolation: str) -> Tensor:
    old = tf.shape(maps)[axis]
    if interpolation == "nearest":
        return tf.gather(maps, tf.range(size) * old // size, axis=axis)
    # In float64 whatever the maps are: the places must not depend on it.
    places = (tf.cast(tf.range(size), tf.float64) + 0.5) * tf.cast(old, tf.float64) / tf.cast(size, tf.float64) - 0.5
    places = tf.clip_by_value(places, 0.0, tf.cast(old - 1, tf.float64))
    below = tf.cast(tf.floor(places), tf.int32)
    above = tf.minimum(below + 1, old - 1)
    share = tf.cast(places - tf.floor(places), maps.dtype)
    share = tf.reshape(share, [-1] + [1] * (maps.shape.rank - 1 - axis))
    return tf.gather(maps, below, axis=axis) * (1 - share) + tf.gather(maps, above, axis=axis) * share
