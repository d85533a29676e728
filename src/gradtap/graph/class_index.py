"""Which entry of an output is meant: a class, one class for each example, a position and a class."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from contextlib import suppress
from functools import cached_property
from typing import Any

import numpy as np

from gradtap import errors
from gradtap.types import Tensor

PREDICTED = "predicted"

#: Indices are fed as int32; no axis is longer.
_LONGEST = 2**31


class ClassIndex:
    """Indices into an output, one row for each example or one row for all.

    Args:
      k: An int, a list or array of ints, a tuple ``(row, column, k)``, or a list of such tuples.

    Raises:
      TargetTypeError: It is none of these.
    """

    def __init__(self, k: Any) -> None:
        self.asked = k
        self.per_example = _is_list(k)
        rows = [k] if not self.per_example else k.tolist() if isinstance(k, np.ndarray) else list(k)
        self.is_tuple = any(isinstance(row, tuple) for row in rows)
        self._cells = [[_integer(i, k) for i in (row if isinstance(row, tuple) else (row,))] for row in rows]
        #: How many axes of the output an index names.
        self.depth = len(self._cells[0]) if self._cells else 1
        if any(len(row) != self.depth for row in self._cells):
            raise errors.TargetTypeError(
                "the tuples of the target differ in length.", [("received", errors.received(k))], "give all of one form"
            )

    @cached_property
    def rows(self) -> np.ndarray[Any, Any]:
        """The indices, one row for each example or one for all; after `check`."""
        return np.asarray(self._cells, np.int32).reshape(-1, self.depth)

    def check(self, output: Tensor, name: str) -> None:
        """Raise unless every index lies in an output ``(batch, ...)``.

        Raises:
          TargetTypeError: The index names too few or too many axes.
          ClassRangeError: An index is outside of the output.
        """
        sizes = output.shape.as_list()[1:]
        if self.depth != len(sizes) or (self.is_tuple and len(sizes) == 1):
            raise self._wrong_depth(output, name)
        for axis, (size, column) in enumerate(zip(sizes, zip(*self._cells, strict=True), strict=False)):
            longest = _LONGEST if size is None else size
            outside = [i for i in column if not -longest <= i < longest]
            if outside:
                one, many = ("class", "classes") if axis == len(sizes) - 1 else ("position", "positions")
                there = f"the {many} 0 to {longest - 1}" if longest > 1 else f"only {one} 0"
                where = "" if len(sizes) == 1 else f" on axis {axis + 1}"
                raise errors.ClassRangeError(
                    f"{one} {outside[0]} is out of range: {output_text(output, name)} has {there}{where}.",
                    [("asked", errors.received(self.asked))],
                    f"give a number from 0 to {longest - 1}; -1 is the last" if longest > 1 else "leave out the target",
                )

    def fed_rows(self, batch: int | None) -> np.ndarray[Any, Any]:
        """The rows to feed, checked against the number of examples where that is known.

        Raises:
          TargetCountError: There are as many targets as there are not examples.
        """
        count = len(self.rows)
        if self.per_example and batch is not None and count != batch:
            each, alone = ("a tuple", "a tuple") if self.is_tuple else ("one class", "an int")
            raise errors.TargetCountError(
                f"{count} target{'s' * (count != 1)} for {batch} example{'s' * (batch != 1)}.",
                [("received", errors.received(self.asked))],
                [f"give {each} for each example", f"{alone} without the list holds for all of them"],
            )
        return self.rows

    def _wrong_depth(self, output: Tensor, name: str) -> errors.GradtapError:
        text = output_text(output, name)
        rank, asked = output.shape.rank, errors.received(self.asked)
        if rank == 1:
            return errors.TargetTypeError(
                f"{text} is one number per example: it has no class {asked}.", [], "leave out the target"
            )
        if rank == 2 and self.is_tuple:
            return self._ambiguous_tuple(text)
        form = ", ".join([f"position_{i}" for i in range(1, rank - 1)] + ["k"])
        do = [f"give a tuple ({form})", "a list of such tuples", "a mask", "a callable: outputs -> (batch,)"]
        if rank == 2:
            do = ["give an int, or a list of ints"]
        return errors.TargetTypeError(f"{asked} does not pick one number per example of {text}.", [], do)

    def _ambiguous_tuple(self, text: str) -> errors.TargetTypeError:
        asked = errors.received(self.asked)
        if self.per_example or not self._cells[0]:
            return errors.TargetTypeError(
                f"{asked} does not pick one number per example of {text}: tuples are for outputs of higher rank.",
                [],
                "give a list of ints, one class for each example",
            )
        first, last = list(self.asked), self.asked[-1]
        return errors.TargetTypeError(
            f"the tuple {asked} has two readings for {text}.",
            [("either", "one class for each example"), ("or", "a position and a class, as for outputs of higher rank")],
            [f"target={first} for one class for each example", f"target={last} for class {last} of every example"],
        )


def output_text(output: Tensor, name: str) -> str:
    """An output as messages name it: ``output `logits` (batch, 10)``."""
    sizes = output.shape.as_list() if output.shape.rank is not None else ["unknown shape"]
    entries = ["batch" if i == 0 and s is None else str(s) for i, s in enumerate(sizes)]
    named = "the output" if name == "output" else f"output `{name}`"
    return f"{named} ({', '.join(entries)}{',' * (len(entries) == 1 and output.shape.rank is not None)})"


def _is_list(k: Any) -> bool:
    """Whether something holds one index for each example."""
    if isinstance(k, np.ndarray):
        return k.ndim > 0
    return isinstance(k, Sequence) and not isinstance(k, (tuple, str, bytes, bytearray, memoryview))


def _integer(value: Any, k: Any) -> int:
    if not isinstance(value, (bool, np.bool_)):
        with suppress(Exception):  # whatever an object of the user's does when it is asked
            return operator.index(value)
    do = ["give an int, a list of ints, or a tuple of ints", '"predicted"', "a callable: outputs -> (batch,)"]
    if isinstance(value, (list, np.ndarray)):
        do.insert(0, "one-hot rows: np.argmax(rows, axis=1); a mask: np.array(mask)")
    elif isinstance(value, (bool, np.bool_)):
        do.insert(0, "a mask: np.array(mask)")
    raise errors.TargetTypeError(
        f"{errors.received(k)} is not a class or a list of classes.",
        [("received", f"{errors.kind_of(k)}" + (f" that holds {errors.kind_of(value)}" if value is not k else ""))],
        do,
    )
