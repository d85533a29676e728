"""Whether the examples of a batch influence each other in a traced forward pass."""

from __future__ import annotations

import tensorflow as tf

from gradtap.graph import walking
from gradtap.graph.tracing import ForwardGraph
from gradtap.types import Operation

#: Ops that reduce the axes that their second input names.
_REDUCTIONS = frozenset(["Mean", "Sum", "Max", "Min", "Prod", "EuclideanNorm", "All", "Any"])


def couples_examples(graph: ForwardGraph) -> bool:
    """Whether an op of the forward pass takes in several examples: a reduction of the batch axis, batch statistics.

    What only chooses among examples, and what an op does inside of a loop, is not found.

    Args:
      graph: A traced forward pass.
    """
    depends = walking.descendants(graph.feeds) | {feed.op for feed in graph.feeds}
    between = (op for op in walking.ancestors(graph.outputs) & depends if not str(op.name).startswith("gradtap/"))
    sizes = {feed.shape[0] for feed in graph.feeds if feed.shape.rank}
    return any(_mixes(op, depends, sizes | {None}) for op in between)


def _mixes(op: Operation, depends: set[Operation], sizes: set[int | None]) -> bool:
    if op.type.startswith("FusedBatchNorm"):
        return bool(op.get_attr("is_training"))
    if op.type == "MatMul":  # of matrices (batch, ...): where both come from the inputs, one runs over all examples
        return all(i.op in depends for i in op.inputs)
    if op.type not in _REDUCTIONS:
        return False
    given, axes = op.inputs[0].shape, tf.get_static_value(op.inputs[1])
    if axes is None or not given.rank or given[0] not in sizes:
        return False
    return any(axis % given.rank == 0 for axis in axes.reshape(-1).tolist())
