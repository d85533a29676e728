"""Nodes and weights on [0, 1] for integrals along a path."""

from __future__ import annotations

import functools
from typing import Any, Literal, get_args

import numpy as np

from gradtap import errors

Rule = Literal["gausslegendre", "riemann_left", "riemann_right", "riemann_middle", "trapezoid"]
_Array = np.ndarray[Any, np.dtype[np.float64]]


def nodes_and_weights(rule: str, steps: int) -> tuple[_Array, _Array]:
    """Where a function is looked at, and how much each look counts.

    Args:
      rule: ``"gausslegendre"`` (exact for polynomials of degree ``2 * steps - 1``), ``"riemann_left"``,
        ``"riemann_right"``, ``"riemann_middle"`` or ``"trapezoid"``.
      steps: How many nodes.

    Returns:
      Nodes in [0, 1], rising, and weights that sum to one, float64 ``(steps,)`` each.

    Raises:
      ArgumentError: There is no such rule, or not for so few steps.
    """
    if rule not in get_args(Rule):
        choices = ", ".join(map(repr, get_args(Rule)))
        raise errors.ArgumentError(f"rule={rule!r} is not a choice.", [("choices", choices)], "give one of them")
    least = 2 if rule == "trapezoid" else 1
    check_count("steps", steps, least)
    if rule == "gausslegendre":
        return _gauss_legendre(int(steps))
    if rule == "trapezoid":
        ends = np.r_[0.5, np.ones(steps - 2), 0.5]
        return np.linspace(0.0, 1.0, steps), ends / (steps - 1)
    shift = {"riemann_left": 0.0, "riemann_middle": 0.5, "riemann_right": 1.0}[rule]
    return (np.arange(steps) + shift) / steps, np.full(steps, 1.0 / steps)


@functools.lru_cache(maxsize=64)
def _gauss_legendre(steps: int) -> tuple[_Array, _Array]:
    """The roots of a Legendre polynomial.

    NumPy takes the eigenvalues of a matrix of ``steps`` rows: 1 ms for 50, but it grows with the cube. From a few
    hundred on the roots are found by Newton's method, from the first term of their asymptotic form: 2 s for 16,384.
    """
    nodes, weights = np.polynomial.legendre.leggauss(steps) if steps <= 256 else _by_newton(steps)
    found = (1.0 + nodes) / 2.0, weights / 2.0
    for array in found:
        array.flags.writeable = False  # kept for the next caller
    return found


def _by_newton(steps: int) -> tuple[_Array, _Array]:
    """Roots of the Legendre polynomial of a high degree, and the weights that belong to them."""
    degree = float(steps)
    nodes = -np.cos(np.pi * (np.arange(1, steps + 1) - 0.25) / (degree + 0.5))
    slopes = np.ones(steps)
    for _ in range(4):  # each doubles the digits: the start has eight of them from here on
        before, value = np.ones(steps), nodes.copy()
        for k in range(2, steps + 1):
            before, value = value, ((2 * k - 1) * nodes * value - (k - 1) * before) / k
        slopes = degree * (nodes * value - before) / (nodes**2 - 1)
        nodes = nodes - value / slopes
    return nodes, 2 / ((1 - nodes**2) * slopes**2)


def check_count(name: str, value: Any, least: int = 1) -> None:
    """Raise unless a keyword is an int that is large enough.

    Raises:
      ArgumentError: It is not.
    """
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
        raise errors.ArgumentError(f"{name}={value!r} is not an int from {least} up.", [], f"{name}=50, for example")
