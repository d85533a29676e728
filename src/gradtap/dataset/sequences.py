"""Sequences of examples and of batches: lists, a Keras ``PyDataset``, a ``tf.data.Dataset``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from gradtap import errors
from gradtap.batching import dataset_batches
from gradtap.dataset.reading import Group, Read, inputs_of, read_each, reason_of
from gradtap.types import Structure


class Sequence:
    """Anything with a length whose items are examples, or tuples of an example and its label.

    Args:
      items: The sequence.
      inputs: How many the model takes: a tuple of as many, if more than one, is an example and no label.
    """

    uniform = False
    portable = False

    def __init__(self, items: Any, inputs: int = 1) -> None:
        self._items = items
        self._inputs = inputs
        self.count = len(items)

    def facts(self) -> dict[str, Any]:
        """The class and the length."""
        return {"kind": type(self._items).__name__, "examples": self.count}

    def read(self, start: int, stop: int) -> Read:
        """Item by item."""
        return read_each(range(start, stop), lambda i: _inputs_of(self._items[i], self._inputs))


class Batches:
    """A Keras ``PyDataset``, or anything whose items are batches of one size, but for the last.

    Args:
      batches: The sequence of batches.
      inputs: See `Sequence`.
    """

    uniform = False
    portable = False

    def __init__(self, batches: Any, inputs: int = 1) -> None:
        self._batches = batches
        self._inputs = inputs
        self._number = len(batches)
        self._kept: tuple[int, Structure] | None = None
        self._size = _rows(self._batch(0)) if self._number else 1
        self.count = (self._number - 1) * self._size + _rows(self._batch(self._number - 1)) if self._number else 0

    def facts(self) -> dict[str, Any]:
        """The class, the number of examples and of those in a batch."""
        return {"kind": type(self._batches).__name__, "examples": self.count, "batch": self._size}

    def _batch(self, number: int) -> Structure:
        if self._kept is None or self._kept[0] != number:
            self._kept = number, tf.nest.map_structure(np.asarray, _inputs_of(self._batches[number], self._inputs))
        return self._kept[1]

    def read(self, start: int, stop: int) -> Read:
        """The batches that the range reaches into."""
        read = Read([], {})
        for number in range(start // self._size, -(-stop // self._size)):
            first = number * self._size
            lowest, highest = max(start, first), min(stop, first + self._size)
            expected = min(self._size, self.count - first)
            try:
                batch = self._batch(number)
                if _rows(batch) != expected:
                    raise ValueError(f"batch {number} has {_rows(batch)} examples, not {expected}")
            except Exception as error:  # of whatever kind the user's data raises
                read.reasons.update(dict.fromkeys(range(lowest, highest), reason_of(error)))
                continue
            read.groups.append(Group(np.arange(lowest, highest), _part(batch, lowest - first, highest - first)))
        return _joined(read)


class Stream:
    """A ``tf.data.Dataset`` of batches, which can only be read from its beginning on.

    Args:
      dataset: The dataset.
      count: How many examples it was found to have. Where neither this nor the dataset says it, all of it is read once.

    Raises:
      InputStructureError: The dataset has no end, or fails.
    """

    uniform = False
    portable = False

    def __init__(self, dataset: Any, count: int | None = None) -> None:
        self._dataset = dataset
        self._iterator: Iterator[Structure] = iter(())
        self._waiting: Structure = None
        self._position = 0
        self._ended = False
        self.count = _count(dataset, count)
        self._start()

    def facts(self) -> dict[str, Any]:
        """What the dataset says of its elements."""
        spec = [f"{leaf.dtype.name} {leaf.shape}" for leaf in tf.nest.flatten(inputs_of(self._dataset.element_spec))]
        return {"kind": "tf.data.Dataset", "examples": self.count, "example": ", ".join(spec)}

    def _start(self) -> None:
        self._iterator, self._waiting, self._position = dataset_batches(self._dataset), None, 0

    def read(self, start: int, stop: int) -> Read:
        """Go on to the range, from the beginning where it was passed already."""
        if start < self._position:
            self._start()
        read = Read([], {})
        while self._position < stop:
            if self._waiting is None or not _rows(self._waiting):
                try:
                    batch = next(self._iterator, None)
                except errors.InputStructureError as error:  # where it goes on after that is not known
                    read.reasons.update(dict.fromkeys(range(max(start, self._position), stop), reason_of(error)))
                    self._start()
                    break
                if batch is None:
                    missing = range(max(start, self._position), stop)
                    read.reasons.update(dict.fromkeys(missing, f"the dataset ended after {self._position} examples"))
                    self._start()
                    break
                self._waiting = tf.nest.map_structure(np.asarray, batch)
            lowest, rows = self._position, _rows(self._waiting)
            taken = min(rows, (stop if lowest >= start else start) - lowest)
            part, self._waiting = _part(self._waiting, 0, taken), _part(self._waiting, taken, rows)
            self._position += taken
            if lowest >= start:
                read.groups.append(Group(np.arange(lowest, lowest + taken), part))
        return _joined(read)


def _inputs_of(element: Structure, inputs: int) -> Structure:
    whole = isinstance(element, tuple) and len(element) == inputs > 1 and not any(map(tf.nest.is_nested, element))
    return list(element) if whole else inputs_of(element)


def _count(dataset: Any, known: int | None) -> int:
    """How many examples a dataset of batches has; it is read where nothing says so."""
    batches = tf.get_static_value(dataset.cardinality())
    sizes = {leaf.shape[0] if leaf.shape.rank else None for leaf in tf.nest.flatten(dataset.element_spec)}
    if batches is not None and batches >= 0 and len(sizes) == 1 and None not in sizes:
        return int(batches * sizes.pop())
    return sum(map(_rows, dataset_batches(dataset))) if known is None else known


def _rows(batch: Structure) -> int:
    shape = np.shape(tf.nest.flatten(batch)[0])
    return shape[0] if shape else 0


def _part(batch: Structure, start: int, stop: int) -> Structure:
    return tf.nest.map_structure(lambda leaf: leaf[start:stop], batch)


def _joined(read: Read) -> Read:
    """Neighbours of one shape in one batch."""
    by_shape: dict[Any, list[Group]] = {}
    for group in read.groups:
        kind = tuple((leaf.shape[1:], leaf.dtype.str) for leaf in tf.nest.flatten(group.inputs))
        by_shape.setdefault(kind, []).append(group)
    groups = [
        same[0]
        if len(same) == 1
        else Group(
            np.concatenate([group.ids for group in same]),
            tf.nest.map_structure(lambda *leaves: np.concatenate(leaves), *(group.inputs for group in same)),
        )
        for same in by_shape.values()
    ]
    return Read(groups, read.reasons)
