"""A traced graph cut in two at some tensors: what is computed once, and what runs again for other values there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gradtap.graph import surgery, walking
from gradtap.graph.tracing import ForwardGraph
from gradtap.types import Compiled, Operation, Tensor


@dataclass(frozen=True)
class Cut:
    """A graph in two parts.

    Args:
      prefix: Takes the inputs, the seeds and what the target is fed; returns the activations at the moved tensors, then
        what stands beside them.
      at_moved: Takes the inputs and the seeds; returns the activations at the moved tensors alone.
      suffix: Takes values for the moved tensors, what stands beside them, what the target is fed, and further feeds;
        returns the fetches. Nothing that the moved tensors do not change is computed in it, but for what depends on
        weights alone.
      moved: How many tensors are moved.
      rows: Whether the suffix takes any number of examples: nothing goes around the moved tensors.
      bytes_per_example: What all of the suffix's activations take, float tensors of the forward pass.
      bytes_kept: What of them a backward pass needs, so that it stays in memory until then.
    """

    prefix: Compiled
    at_moved: Compiled
    suffix: Compiled
    moved: int
    rows: bool
    bytes_per_example: int
    bytes_kept: int


#: Ops that read the shape of a tensor and not its values.
_SHAPES = frozenset({"Shape", "ShapeN", "Size", "Rank", "ZerosLike"})


def cut_at(
    graph: ForwardGraph,
    moved: Sequence[Tensor],
    fetches: Sequence[Tensor],
    *,
    target_feeds: Sequence[Tensor] = (),
    further_feeds: Sequence[Tensor] = (),
    held: Sequence[Tensor] = (),
) -> Cut:
    """Cut a graph at some tensors.

    What bypasses them, a skip connection or another branch, is computed once, in the prefix, and handed over at the
    last place where the moved tensors have no say in it.

    Args:
      graph: The forward graph, already extended by all that is fetched.
      moved: Tensors that the suffix is given other values for.
      fetches: What the suffix returns.
      target_feeds: What the target is fed; both parts take it.
      further_feeds: What only the suffix takes, last.
      held: Tensors ``(batch, ...)`` that stay as the inputs make them, though the moved tensors have a say in them.
    """
    behind = walking.descendants([*moved, *further_feeds])
    needed = walking.ancestors(fetches, up_to=[*moved, *held])
    around = _around(graph, moved, held, fetches, needed & behind)
    beside = [*held, *around]
    at_moved = surgery.prune(graph.wrapped, graph.all_feeds, moved)
    prefix = (
        surgery.prune(graph.wrapped, [*graph.all_feeds, *target_feeds], [*moved, *beside])
        if beside
        else lambda *feeds: at_moved(*feeds[: len(graph.all_feeds)])
    )
    suffix = surgery.prune(graph.wrapped, [*moved, *beside, *target_feeds, *further_feeds], fetches)
    return Cut(
        prefix,
        at_moved,
        suffix,
        len(moved),
        not around and all(tensor.shape.rank and tensor.shape[0] is None for tensor in moved),
        *bytes_per_example(graph, needed & behind),
    )


def _around(
    graph: ForwardGraph,
    moved: Sequence[Tensor],
    held: Sequence[Tensor],
    fetches: Sequence[Tensor],
    again: set[Operation],
) -> list[Tensor]:
    """What the ops that run again take of the inputs by ways around the moved tensors, in a fixed order."""
    behind = {tensor.ref() for op in again for tensor in op.outputs}
    known = {tensor.ref() for tensor in [*moved, *held]} | behind
    feeds = {feed.op for feed in graph.all_feeds}
    of_inputs = feeds | walking.descendants(graph.all_feeds)
    taken = [tensor for op in again for tensor in op.inputs] + list(fetches)
    found = {t.ref(): t for t in taken if t.ref() not in known and t.op in of_inputs}
    return sorted(found.values(), key=lambda tensor: tensor.name)


def bytes_per_example(graph: ForwardGraph, ops: set[Operation]) -> tuple[int, int]:
    """Of the float tensors of the forward pass among the outputs of some ops: all, and those that the others read.

    A free axis counts as 32.
    """
    forward = set(graph.graph.get_operations()[: graph.forward_ops])
    backward = ops - forward
    total = kept = 0
    for op in ops & forward:
        for tensor in op.outputs:
            if surgery.is_float(tensor) and tensor.shape.rank:
                size = int(np.prod([s or 32 for s in tensor.shape[1:]], dtype=np.int64)) * tensor.dtype.size
                total += size
                if any(user in backward and user.type not in _SHAPES for user in tensor.consumers()):
                    kept += size
    return total, kept
