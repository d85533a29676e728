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

import tensorflow as tf

from gradtap.types import Operation, Tensor

#: Name of the gradient that the marked ops have.
GRADIENT = "GradtapMoments"
_FIRST_ORDER: ContextVar[bool] = ContextVar("gradtap_first_order", default=False)


@tf.RegisterGradient(GRADIENT)
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


def is_mean(op: Operation) -> bool:
    """Whether an op is the `stop_gradient` on a mean that `tf.nn.moments` makes.

    It is known by its neighbours and by their names. A user's own stands among others, or bears another name.
    """
    scope, _, name = op.name.rpartition("/")
    if op.type != "StopGradient" or name != "StopGradient":
        return False
    used_by = {user.name for user in op.outputs[0].consumers() if user.type == "SquaredDifference"}
    return op.inputs[0].op.name == f"{scope}/mean" and f"{scope}/SquaredDifference" in used_by
