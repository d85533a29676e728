"""Second derivatives through normalisation layers, put right.

`tf.nn.moments` takes the mean inside of the variance through a `stop_gradient`. For a first derivative this is exact,
since the term that it drops is zero. For a second derivative it is not: TensorFlow's Hessians through
LayerNormalization and GroupNormalization are 3 to 25 % off, by nested tapes and by forward-over-reverse alike.

The ops in question are marked in our graphs with a gradient of their own, which passes through. It is left out only
while a first derivative is built, so that this stays equal to TensorFlow's bit for bit. A `stop_gradient` of the
user's own has another name, and stays.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import tensorflow as tf

from gradtap.types import Operation, Tensor

_GRADIENT = "GradtapMoments"
_FIRST_ORDER: ContextVar[bool] = ContextVar("gradtap_first_order", default=False)


@tf.RegisterGradient(_GRADIENT)
def _through(op: Operation, slope: Tensor) -> Tensor | None:
    return None if _FIRST_ORDER.get() else slope


@contextmanager
def first_order() -> Iterator[None]:
    """While a first derivative is built, TensorFlow's own rule holds."""
    token = _FIRST_ORDER.set(True)
    try:
        yield
    finally:
        _FIRST_ORDER.reset(token)


def mark(graph: Any) -> None:
    """Mark the means of a traced graph; once, right after the trace."""
    rule = tf.compat.v1.AttrValue(s=_GRADIENT.encode())
    for op in graph.get_operations():
        if op.type == "StopGradient" and op.name.endswith("moments/StopGradient"):
            op._set_attr("_gradient_op_type", rule)
