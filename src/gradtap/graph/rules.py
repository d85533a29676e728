"""Gradient rules by type of op: other rules of back-propagation than the derivative, on the same graph.

Ops are marked once with a gradient of ours, which asks for the rule in force while a backward graph is being built,
and is TensorFlow's own where none is. So one trace serves all rules, and an outer tape differentiates what ran.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeAlias

import tensorflow as tf

from gradtap.graph import surgery
from gradtap.graph.bodies import with_inner
from gradtap.graph.tracing import ForwardGraph
from gradtap.types import Operation, Tensor

#: What a rule does for one type of op: the gradients of its inputs, from the op and the gradients of its outputs.
OpRule: TypeAlias = Callable[..., Any]
Rules: TypeAlias = Mapping[str, OpRule]

_GRADIENT = "GradtapRule"
_IN_FORCE: ContextVar[Rules | None] = ContextVar("gradtap_rules", default=None)


@tf.RegisterGradient(_GRADIENT)
def _by_rule(op: Operation, *slopes: Tensor) -> Any:
    rule = (_IN_FORCE.get() or {}).get(op.type) or surgery.own_gradient(op)
    return rule(op, *slopes)


@contextmanager
def in_force(graph: ForwardGraph, rules: Rules | None, among: Iterable[Operation] | None = None) -> Iterator[int]:
    """Let rules hold while a backward graph is built; loops and branches are reached as well.

    Args:
      graph: The traced forward pass.
      rules: A rule for each type of op that has one; None for the derivative.
      among: The ops to which they apply; None for those of the forward pass.

    Yields:
      How many ops have a rule.
    """
    if among is None:
        among = with_inner(graph.graph.get_operations()[: graph.forward_ops] if rules else [])
    ops = [op for op in among if op.type in (rules or {})]
    surgery.mark(ops, _GRADIENT, keep_own=True)
    token = _IN_FORCE.set(rules)
    try:
        yield len(ops)
    finally:
        _IN_FORCE.reset(token)
