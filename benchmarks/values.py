"""How far one set of numbers is from another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

EQUAL = 1e-4  # of the largest |truth|: float32 sums taken in another order stay well under it
FLIP = 3e-2  # one ReLU unit that lands on the other side of zero moves a deep float32 gradient by up to this much


def difference(values: Any, truth: Any) -> float:
    """Largest absolute difference, relative to the largest absolute true value; infinite if the shapes differ."""
    values, truth = np.asarray(values), np.asarray(truth)
    if values.shape != truth.shape or not np.all(np.isfinite(values)):
        return float("inf")
    return float(np.max(np.abs(values - truth)) / np.max(np.abs(truth)))


def verdict(values: Sequence[Any], truths: Sequence[Any]) -> tuple[str, float]:
    """Say in words whether a tool's gradients are the true ones, and give the error.

    A tool that returns fewer gradients than the layer has calls is told which call it took, or that it took none.
    """
    if len(values) == len(truths):
        error = max(difference(v, t) for v, t in zip(values, truths, strict=True))
        return ("equal" if error <= EQUAL else "equal but for a ReLU flip" if error <= FLIP else "wrong"), error
    errors = [difference(values[0], truth) for truth in truths]
    call = int(np.argmin(errors))
    taken = f"call {call} of {len(truths)} only" if errors[call] <= FLIP else f"none of the {len(truths)} calls"
    return f"wrong: {taken}, silently", errors[call]
