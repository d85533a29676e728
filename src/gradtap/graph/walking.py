"""Walks over a traced graph: what a tensor depends on, what depends on it."""

from __future__ import annotations

from collections.abc import Iterable

from gradtap.graph.surgery import is_float
from gradtap.types import Operation, Tensor


def ancestors(tensors: Iterable[Tensor], up_to: Iterable[Tensor] = ()) -> set[Operation]:
    """Every op that the tensors depend on through data, their own ops included.

    Args:
      tensors: Where to begin.
      up_to: What these depend on is left out, unless there is another way to it.
    """
    ends = {tensor.ref() for tensor in up_to}
    seen: set[Operation] = set()
    stack = [tensor.op for tensor in tensors if tensor.ref() not in ends]
    while stack:
        op = stack.pop()
        if op not in seen:
            seen.add(op)
            stack += [i.op for i in op.inputs if i.ref() not in ends]
    return seen


def descendants(tensors: Iterable[Tensor]) -> set[Operation]:
    """Every op that depends on the tensors through data."""
    seen: set[Operation] = set()
    stack = [op for tensor in tensors for op in tensor.consumers()]
    while stack:
        op = stack.pop()
        if op not in seen:
            seen.add(op)
            stack += [consumer for output in op.outputs for consumer in output.consumers()]
    return seen


def same_value_source(tensor: Tensor) -> Tensor:
    """Walk back through ops that only hand their input on; casts between float types count as such."""
    while True:
        op = tensor.op
        if op.type == "Identity" or (op.type == "Cast" and is_float(tensor) and is_float(op.inputs[0])):
            tensor = op.inputs[0]
        else:
            return tensor
