"""Means over seeds, with the interval in which the mean over all seeds is likely to be."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

#: Two-sided quantiles of Student's t distribution at 95 %, for 1, 2, ... degrees of freedom.
_STUDENT = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131)
_STUDENT_MORE = ((20, 2.086), (30, 2.042), (60, 2.000), (10**9, 1.960))
#: Stands for an exact zero where the logarithm is taken: the smallest number of float32.
_TINY = 1e-45


class Interval(NamedTuple):
    """A mean over seeds, with its 95 % interval.

    Args:
      mean: The mean; of sizes the geometric one.
      low: Lower end of the interval; NaN for one seed.
      high: Upper end.
    """

    mean: float
    low: float
    high: float


def of_values(values: Sequence[float]) -> Interval:
    """The mean of values, with Student's interval; values that are NaN are left out."""
    known = np.array([value for value in values if not np.isnan(value)], np.float64)
    if len(known) < 2:
        return Interval(float(known[0]) if len(known) else float("nan"), float("nan"), float("nan"))
    mean = float(known.mean())
    with np.errstate(invalid="ignore"):
        half = _student(len(known) - 1) * float(known.std(ddof=1)) / np.sqrt(len(known))
    return Interval(mean, mean - half, mean + half)


def of_sizes(values: Sequence[float]) -> Interval:
    """The geometric mean of sizes, with the interval of their logarithms: sizes differ by factors."""
    logarithms = of_values([float(np.log(value or _TINY)) for value in values])
    with np.errstate(over="ignore"):
        return Interval(*(float(np.exp(one)) for one in logarithms))


def _student(degrees: int) -> float:
    if degrees <= len(_STUDENT):
        return _STUDENT[degrees - 1]
    return next(value for most, value in _STUDENT_MORE if degrees <= most)
