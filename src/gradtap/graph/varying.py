"""Which tensors of a traced graph change with the inputs, inside of loops and branches as well."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from gradtap.graph import surgery
from gradtap.graph.bodies import bodies
from gradtap.types import Operation, Tensor

#: What these give does not depend on the values of what they are given.
_OF_SHAPES = frozenset({"Shape", "ShapeN", "Size", "Rank", "ZerosLike", "OnesLike"})


class Varying:
    """The tensors that change with some others.

    Args:
      sources: Where it begins.
      ops: The ops to look at, in the order in which they were made.
      held: Tensors that are taken to stay as they are.
    """

    def __init__(self, sources: Iterable[Tensor], ops: Iterable[Operation], held: Iterable[Tensor] = ()) -> None:
        self._refs = {tensor.ref() for tensor in sources}
        self._held = {tensor.ref() for tensor in held}
        self._ops: dict[int, Operation] = {}
        self._walk(ops)

    def __contains__(self, tensor: Tensor) -> bool:
        return tensor.ref() in self._refs

    @property
    def ops(self) -> Sequence[Operation]:
        """The ops through which floats vary, those of loop bodies and branches included."""
        return list(self._ops.values())

    def inputs(self, op: Operation) -> list[int]:
        """Which inputs of an op vary."""
        return [i for i, tensor in enumerate(op.inputs) if tensor in self]

    def _walk(self, ops: Iterable[Operation]) -> None:
        for op in ops:
            given = self.inputs(op)
            if not given or op.type in _OF_SHAPES:
                continue
            for graph, inside, again in bodies(op):
                self._enter(graph, [tensor for i, tensor in inside if i in given], again)
            self._refs |= {tensor.ref() for tensor in op.outputs} - self._held
            if any(carries(op.inputs[i]) for i in given) and any(carries(tensor) for tensor in op.outputs):
                self._ops[id(op)] = op

    def _enter(self, graph: Any, given: Iterable[Tensor], again: bool) -> None:
        """A loop's body is walked until what it hands to its next turn adds nothing."""
        self._refs |= {tensor.ref() for tensor in given}
        seen = -1
        while len(self._refs) > seen:
            seen = len(self._refs)
            self._walk(graph.get_operations())
            if again:
                turns = zip(graph.inputs, graph.outputs, strict=False)
                self._refs |= {start.ref() for start, end in turns if end in self}


def carries(tensor: Tensor) -> bool:
    """Whether gradients flow through a tensor: floats, and the lists that loops keep them in."""
    return surgery.is_float(tensor) or tensor.dtype.name == "variant"
