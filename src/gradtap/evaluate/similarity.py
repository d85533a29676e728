"""How alike two attributions are, example by example."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import tensorflow as tf

_Array: TypeAlias = np.ndarray[Any, Any]
#: From two arrays ``(batch, ...)`` to one number for each example.
Similarity: TypeAlias = Callable[[_Array, _Array], _Array]


def spearman(one: _Array, other: _Array) -> _Array:
    """Spearman's rank correlation, ``(batch,)``, from -1 to 1; NaN where one of the two is the same everywhere."""
    if not len(one):
        return np.zeros(0)
    a, b = (np.stack([_ranks(row) for row in rows(x)]) for x in (one, other))
    a, b = a - a.mean(1, keepdims=True), b - b.mean(1, keepdims=True)
    size = np.sqrt(np.sum(a**2, 1) * np.sum(b**2, 1))
    found: _Array = np.sum(a * b, 1) / np.where(size == 0, np.nan, size)
    return found


def absolute_spearman(one: _Array, other: _Array) -> _Array:
    """Spearman's rank correlation of the magnitudes, ``(batch,)``."""
    return spearman(np.abs(one), np.abs(other))


def structural(one: _Array, other: _Array) -> _Array:
    """The structural similarity of two pictures of magnitudes, each scaled to [0, 1]; channels are summed.

    References:
      Wang et al., Image Quality Assessment, https://doi.org/10.1109/TIP.2003.819861, 2004.
    """
    a, b = map(_picture, (one, other))
    window = min(11, *a.shape[1:3])
    found: _Array = tf.image.ssim(a, b, 1.0, filter_size=window).numpy()
    return found


NAMED: dict[str, Similarity] = {"spearman": spearman, "absolute_spearman": absolute_spearman, "ssim": structural}


def rows(values: _Array) -> _Array:
    """One row for each example, ``(batch, entries)``, of which there may be none."""
    flat: _Array = values.reshape(len(values), int(np.prod(values.shape[1:])))
    return flat


def _ranks(row: _Array) -> _Array:
    """From 0 up; equal values share the mean of theirs."""
    _, place, count = np.unique(row, return_inverse=True, return_counts=True)
    last = np.cumsum(count)
    mean: _Array = (last - (count + 1) / 2)[place]
    return mean


def _picture(values: _Array) -> _Array:
    magnitude = np.abs(values)
    picture = magnitude.sum(-1) if magnitude.ndim == 4 else magnitude
    largest = picture.max((1, 2), keepdims=True)
    scaled: _Array = (picture / np.where(largest == 0, 1.0, largest))[..., None].astype(np.float32)
    return scaled
