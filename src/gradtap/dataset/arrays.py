"""Arrays that hold one example in each row: in memory, in files that are mapped, or in Zarr."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from gradtap import errors
from gradtap.dataset.reading import Group, Read
from gradtap.types import Structure


class Arrays:
    """A nest of arrays with the examples along their first axes.

    Args:
      load: Gives the nest; called again in each process that reads.
      kind: What it is, in a word.
      portable: Whether another process can load it too.

    Raises:
      InputShapeError: The arrays differ in length, or one has no axis.
    """

    uniform = True

    def __init__(self, load: Callable[[], Structure], kind: str, *, portable: bool) -> None:
        self._load = load
        self._kind = kind
        self.portable = portable
        self._loaded: Structure = None
        leaves = tf.nest.flatten(self._nest())
        if not leaves:
            raise errors.InputStructureError("the data holds no array.", [], "pass what you would call the model with")
        lengths = [leaf.shape[0] if len(leaf.shape) else -1 for leaf in leaves]
        if -1 in lengths or len(set(lengths)) > 1:
            shapes = ", ".join(str(tuple(leaf.shape)) for leaf in leaves)
            raise errors.InputShapeError(
                "the arrays do not hold one example in each row.",
                [("shapes", shapes)],
                "the first axis of each array is the examples",
            )
        self.count = lengths[0]

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_loaded": None}

    def _nest(self) -> Structure:
        if self._loaded is None:
            self._loaded = self._load()
        return self._loaded

    def facts(self) -> dict[str, Any]:
        """Kind, shapes and types."""
        leaves = tf.nest.flatten(self._nest())
        of_one = [f"{np.dtype(leaf.dtype).name} {tuple(leaf.shape[1:])}" for leaf in leaves]
        return {"kind": self._kind, "examples": self.count, "example": ", ".join(of_one)}

    def read(self, start: int, stop: int) -> Read:
        """A slice of every array."""
        rows = tf.nest.map_structure(lambda leaf: np.asarray(leaf[start:stop]), self._nest())
        return Read([Group(np.arange(start, stop), rows)] if stop > start else [], {})
