"""Copies of a tensor that are put between an op and some of those that use its output, so that a tap has its own."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from gradtap.graph.surgery import inside, replace_input
from gradtap.types import Operation, Tensor


def own_copy(graph: Any, tensor: Tensor, first_op: int, last_op: int) -> Tensor:
    """Give a range of ops a tensor of their own in the place of one that others use too.

    Ranges are those of layer calls: one is inside of another, or apart from it. So the users of a copy that was put in
    before are all inside of the range, or they are more than those that are.

    Returns:
      The tensor that the range uses; ``tensor`` itself where nobody else uses it.
    """
    inside_range = set(graph.get_operations()[first_op:last_op])
    users: list[Operation] = []
    others: list[Operation] = []
    for op in tensor.consumers():
        served = _forward_users(op)
        if served and served <= inside_range:
            users.append(op)
        elif served & inside_range:
            return own_copy(graph, op.outputs[0], first_op, last_op)  # the copy of a wider range
        elif served:
            others.append(op)
    if not users or not others:
        return tensor
    if len(users) == 1 and _is_copy(users[0]):
        return users[0].outputs[0]
    with inside(graph):
        copy = tf.identity(tensor, name="own_input")
    replace_input(users, tensor, copy)
    return copy


def _is_copy(op: Operation) -> bool:
    return str(op.name).startswith("gradtap/own_")


def _forward_users(op: Operation) -> set[Operation]:
    """The op itself, those behind it where it is a copy, and none where it belongs to a target or a backward pass."""
    if _is_copy(op):
        return {user for consumer in op.outputs[0].consumers() for user in _forward_users(consumer)}
    return set() if str(op.name).startswith("gradtap/") else {op}


def own_output(graph: Any, tensor: Tensor, forward_ops: int) -> Tensor:
    """Put a tensor of its own between an op and those that use its output.

    The gradient rules of many ops (`Tanh`, `Softmax`, `Exp`) read the op's output. Where that is the very tensor that
    is tapped, a second derivative takes it to be held, and forgets that it depends on what comes before.

    Args:
      graph: The traced graph.
      tensor: What an op of the forward pass gives.
      forward_ops: How many ops the forward pass has; backward ops stay as they are.
    """
    own = [op for op in tensor.consumers() if op.name.startswith("gradtap/own_output")]
    if own:
        return own[0].outputs[0]
    forward = set(graph.get_operations()[:forward_ops])
    users = [op for op in tensor.consumers() if op in forward or op.name.startswith("gradtap/own_input")]
    if tensor.op.type in ("Identity", "Placeholder") or not users:
        return tensor
    with inside(graph):
        copy = tf.identity(tensor, name="own_output")
    replace_input(users, tensor, copy)
    return copy


def merged_axes(graph: Any, tensor: Tensor) -> Tensor:
    """A tensor with its second and third axis as one, put between an op and those that use its output."""
    users = list(tensor.consumers())
    known = [op.outputs[0] for op in users if op.name.startswith("gradtap/merged_axes")]
    if known:
        return known[0]
    with inside(graph):
        shape = tf.shape(tensor)
        static = [tensor.shape[0], tensor.shape[1] * tensor.shape[2], *tensor.shape[3:]]
        merged = tf.reshape(tensor, tf.concat([shape[:1], [static[1]], shape[3:]], 0), name="merged_axes")
        merged.set_shape(static)
        apart = tf.reshape(merged, shape, name="apart_axes")
        apart.set_shape(tensor.shape)
    replace_input(users, tensor, apart)
    return merged
