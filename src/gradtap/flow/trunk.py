"""The trunk of a network: the taps that everything flows through, so that their gradients tell how it fares with depth.

What stands on a branch, the gate of a block or a query, has a gradient of its own size. Along the trunk each tap has
all of the gradient that goes on to those before it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import tensorflow as tf

from gradtap.graph import surgery, walking
from gradtap.graph.resolve import Place
from gradtap.types import Operation, Tensor


def trunk_of(places: Sequence[Place], score: Tensor) -> list[str]:
    """The keys of the taps that every way from the first of them to the score leads through, in forward order.

    A way follows floats: a mask that is computed from token ids is no way for a gradient. An op is on all ways where
    the ways to it times the ways on from it are all the ways there are.

    Args:
      places: Taps that have a gradient, in forward order.
      score: What is differentiated.
    """
    places = [place for place in places if place.state is None and place.weight is None]
    if not places:
        return []
    start = places[0].tensor.op
    order = _in_order(start, walking.ancestors([score]))
    if score.op not in order:
        return []
    to, back = _ways(order, start), _ways(order, score.op, backwards=True)
    whole = to[score.op]
    return [p.key for p in places if p.tensor.op in order and to[p.tensor.op] * back[p.tensor.op] == whole]


def _users(op: Operation, among: Iterable[Operation]) -> list[Operation]:
    """The ops that read the floats of an op, each as often as it does."""
    return [
        user
        for output in op.outputs
        if surgery.is_float(output) or output.dtype == tf.variant  # lists of tensors, which loops fill
        for user in dict.fromkeys(output.consumers())
        if user in among
        for given in user.inputs
        if given is output
    ]


def _in_order(start: Operation, among: set[Operation]) -> dict[Operation, list[Operation]]:
    """Each op that floats reach from the start, before those that read it, with these."""
    users: dict[Operation, list[Operation]] = {}
    finished: list[Operation] = []
    stack = [(start, False)]
    while stack:
        op, is_left = stack.pop()
        if is_left:
            finished.append(op)
        elif op not in users:
            users[op] = _users(op, among)
            stack.append((op, True))
            stack += [(user, False) for user in users[op] if user not in users]
    return {op: users[op] for op in reversed(finished)}


def _ways(
    order: dict[Operation, list[Operation]], start: Operation, *, backwards: bool = False
) -> dict[Operation, int]:
    """In how many ways floats get from one op to every other, or from every other to it."""
    ways = dict.fromkeys(order, 0)
    ways[start] = 1
    for op in reversed(order) if backwards else order:
        for user in order[op]:
            if backwards:
                ways[op] += ways[user]
            else:
                ways[user] += ways[op]
    return ways
