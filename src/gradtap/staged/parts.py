"""Data that are read part by part, so that any number of examples can be worked through."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import tensorflow as tf

from gradtap.batching import dataset_batches, is_dataset
from gradtap.staged.progress import tracked
from gradtap.types import Structure

#: Examples of a part of an array. What runs at once within a part is chosen by what it takes.
_AT_ONCE = 64


def in_parts(inputs: Structure, what: str, *, whole: bool = False) -> Iterator[tuple[Structure, int]]:
    """Parts of some inputs, or the batches of a dataset, each with its number of examples.

    Args:
      inputs: One batch as the model takes it, or a `tf.data.Dataset` of batches.
      what: What is done with them, for the progress bar.
      whole: Whether arrays stay in one, because the examples of a batch depend on each other.
    """
    if is_dataset(inputs):
        for batch in tracked(dataset_batches(inputs), max(int(inputs.cardinality()), 0), what):
            yield batch, _rows(batch)
        return
    if not any(np.ndim(leaf) for leaf in tf.nest.flatten(inputs)):  # nested lists of numbers are one array
        inputs = np.asarray(inputs)
    rows = _rows(inputs)
    if whole or rows <= _AT_ONCE:
        yield inputs, rows
        return
    starts = range(0, rows, _AT_ONCE)
    for start in tracked(starts, len(starts), what):
        part = slice(start, start + _AT_ONCE)
        yield tf.nest.map_structure(lambda x, part=part: x[part] if np.ndim(x) else x, inputs), len(range(rows)[part])


def _rows(batch: Structure) -> int:
    return min((len(leaf) for leaf in tf.nest.flatten(batch) if np.ndim(leaf)), default=0)
