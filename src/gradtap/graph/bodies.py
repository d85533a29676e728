"""The graphs inside of loops and branches, which gradients are built from."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator
from typing import Any

from gradtap.types import Operation, Tensor

#: Where a loop or a condition keeps the graphs that its own gradient is built from.
_BODIES = ("_body_graph", "_true_graph", "_false_graph")

_NUMBERS = itertools.count()
#: What TensorFlow, and we, have put behind the name of a body.
_PUT_BEHIND = re.compile(r"(_rewritten|_gradtap\d+)+$")


def with_inner(ops: Iterable[Operation]) -> Iterator[Operation]:
    """Some ops, and those of the bodies of the loops and of the branches among them, which gradients are built from."""
    for op in ops:
        yield op
        for name in _BODIES:
            body = getattr(op, name, None)
            if body is not None:
                yield from with_inner(body.get_operations())


def bodies(op: Operation) -> Iterator[tuple[Any, list[tuple[int, Tensor]], bool]]:
    """The graphs inside of a loop or a branch.

    Yields:
      A graph, pairs of the position of an input of the op and the tensor that it is inside, and whether the graph runs
      again on what it returns.
    """
    body = getattr(op, "_body_graph", None)
    if body is not None:
        yield body, list(enumerate(body.inputs)), True
    for name in ("_true_graph", "_false_graph"):
        branch = getattr(op, name, None)
        if branch is not None:
            yield branch, [(i + 1, tensor) for i, tensor in enumerate(branch.inputs)], False


def give_names_of_their_own(ops: Iterable[Operation]) -> int:
    """Give the bodies of loops and branches names that no other graph has.

    A gradient adds outputs to the body of a loop and registers it anew, for all graphs of the process, under its name
    with ``_rewritten`` behind it. A copy of the loop, in a program that was cut out, goes by the same name; were its
    gradient taken too, by an outer tape, there would be two functions of one name.

    Returns:
      How many there are.
    """
    found = 0
    for op in with_inner(ops):
        for attribute in ("_cond_graph", *_BODIES):
            body = getattr(op, attribute, None)
            if body is not None:
                body.name = f"{_PUT_BEHIND.sub('', body.name)}_gradtap{next(_NUMBERS)}"
                found += 1
    return found
