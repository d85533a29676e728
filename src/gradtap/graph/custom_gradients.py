"""Gradients that a model's own code defines, `tf.custom_gradient`, for ops that were copied into another graph.

Such a gradient is a Python function that remembers tensors of the graph in which it was made. In a program that was
cut out of that graph an outer tape would ask it for tensors that are not there: `tf.nn.silu` has one. So each copy
refers to its original, and its gradient is the original's, cut out as a function of what the op is given.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from itertools import count
from typing import Any

import tensorflow as tf

from gradtap.types import Compiled, Operation, Tensor

_GRADIENT = "GradtapCustomGradient"
_SOURCE = "_gradtap_source"
_names = count()
_sources: dict[str, _Source] = {}


class _Source:
    """An op with a gradient of its own, and that gradient as a function, made when it is asked for."""

    def __init__(self, wrapped: Any, op: Operation, name: str) -> None:
        self._wrapped = wrapped
        self._op = op
        self._name = name
        self._made: tuple[Compiled, list[int], list[int]] | None = None

    def gradient(self, inputs: Iterable[Tensor], slopes: Iterable[Tensor]) -> list[Tensor | None]:
        run, given, returned = self._made or self._make()
        inputs = list(inputs)
        found: list[Tensor | None] = [None] * len(inputs)
        for position, value in zip(returned, run(*(inputs[i] for i in given), *slopes), strict=True):
            found[position] = value
        return found

    def _make(self) -> tuple[Compiled, list[int], list[int]]:
        from gradtap.graph import surgery

        op = self._op
        with surgery.inside(op.graph):
            slopes = [tf.compat.v1.placeholder(t.dtype, t.shape, name="slope") for t in op.outputs]
            found = surgery.registered_gradient(self._name)(op, *slopes)
            kept = {i: tf.convert_to_tensor(g) for i, g in enumerate(found) if g is not None}
        given = [i for i, tensor in enumerate(op.inputs) if tensor.dtype != tf.resource]
        run = surgery.prune(self._wrapped, [*(op.inputs[i] for i in given), *slopes], list(kept.values()))
        self._made = run, given, list(kept)
        return self._made


@tf.RegisterGradient(_GRADIENT)
def _of_the_source(op: Operation, *slopes: Tensor) -> list[Tensor | None]:
    return _sources[op.get_attr(_SOURCE).decode()].gradient(op.inputs, slopes)


def refer_to_source(wrapped: Any, op: Operation, node: Any, copied_into: Any, own: str | None) -> None:
    """Let the copy of an op with a gradient of its own refer to it.

    Args:
      wrapped: The traced function.
      op: An op of its graph.
      node: The description that the copy is made from.
      copied_into: The graph of the copy; the reference goes with it.
      own: The name of the op's gradient, marks of ours apart.
    """
    if own is None or not own.startswith("CustomGradient"):
        return
    name = f"source_{next(_names)}"
    _sources[name] = _Source(wrapped, op, own)
    weakref.finalize(copied_into, _sources.pop, name, None)
    node.attr["_gradient_op_type"].s = _GRADIENT.encode()
    node.attr[_SOURCE].s = name.encode()
