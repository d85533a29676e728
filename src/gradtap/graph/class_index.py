"""Which entry of an output is meant: a class, one class for each example, a position and a class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from gradtap import errors
from gradtap.types import Tensor

PREDICTED = "predicted"


class ClassIndex:
    """Indices into an output, one row for each example or one row for all.

    Args:
      k: An int, a list or array of ints, a tuple ``(row, column, k)``, or a list of such tuples.

    Raises:
      TargetTypeError: It is none of these.
    """

    def __init__(self, k: Any) -> None:
        self.asked = k
        self.per_example = not isinstance(k, tuple) and np.ndim(k) > 0
        rows = list(k) if self.per_example else [k]
        if not rows:
            raise errors.TargetCountError("the list of targets is empty.", [], "give one class for each example")
        cells = [[_integer(i, k) for i in (row if isinstance(row, tuple) else (row,))] for row in rows]
        if len({len(row) for row in cells}) != 1:
            raise errors.TargetTypeError(
                "the tuples of the target differ in length.", [("received", repr(k)[:120])], "give all of one form"
            )
        self.rows = np.asarray(cells, np.int32)
        self.is_tuple = isinstance(rows[0], tuple)

    @property
    def depth(self) -> int:
        """How many axes of the output an index names."""
        return int(self.rows.shape[1])

    def check(self, output: Tensor, name: str) -> None:
        """Raise unless every index lies in an output ``(batch, ...)``.

        Raises:
          TargetTypeError: The index names too few or too many axes.
          ClassRangeError: An index is outside of the output.
        """
        sizes = output.shape.as_list()[1:]
        if self.depth != len(sizes) or (self.is_tuple and len(sizes) == 1):
            raise self._wrong_depth(name, ("batch", *sizes))
        for axis, size in enumerate(sizes):
            outside = [int(i) for i in self.rows[:, axis] if size is not None and not -size <= i < size]
            if outside:
                which = "class" if axis == len(sizes) - 1 else f"position {axis} ="
                raise errors.ClassRangeError(
                    f"{which} {outside[0]} is out of range: output `{name}` has {size} there, 0 to {size - 1}.",
                    [("output", f"`{name}` ({', '.join(map(str, ('batch', *sizes)))})")],
                    f"give a number from 0 to {size - 1}",
                )

    def fed_rows(self, batch: int | None) -> np.ndarray[Any, Any]:
        """The rows to feed, checked against the number of examples where that is known.

        Raises:
          TargetCountError: There are as many targets as there are not examples.
        """
        if self.per_example and batch is not None and len(self.rows) != batch:
            raise errors.TargetCountError(
                f"{len(self.rows)} targets for {batch} example{'s' if batch != 1 else ''}.",
                [("received", repr(self.asked)[:120])],
                ["give one class for each example", "one int for all of them"],
            )
        return self.rows

    def _wrong_depth(self, name: str, shape: Sequence[Any]) -> errors.GradtapError:
        text = f"output `{name}` is ({', '.join(map(str, shape))})"
        if len(shape) == 1:
            return errors.TargetTypeError(
                f"{text}, one number per example: it has no class {self.asked!r}.", [], "leave out the target"
            )
        if len(shape) == 2 and self.is_tuple:
            row = self.asked if isinstance(self.asked, tuple) else self.asked[0]
            return errors.TargetTypeError(
                f"{text}: the tuple {row} could mean one class for each example, or a position and a class.",
                [],
                [f"target={list(row)} for one class for each example", f"target={row[-1]} for one class for all"],
            )
        form = ", ".join([f"position_{i}" for i in range(1, len(shape) - 1)] + ["k"])
        return errors.TargetTypeError(
            f"{text}: {self.asked!r} does not pick one number per example.",
            [],
            [f"give a tuple ({form})", "a list of such tuples", "a mask", "a callable: outputs -> (batch,)"],
        )


def _integer(value: Any, k: Any) -> int:
    array = np.asarray(value)
    if array.ndim or array.dtype.kind not in "iu":
        raise errors.TargetTypeError(
            f"{k!r} is not a class or a list of classes."[:200],
            [],
            ["give an int, a list of ints, or a tuple of ints", '"predicted"', "a callable: outputs -> (batch,)"],
        )
    return int(array)
