"""A Gaussian fitted to a map, by least squares."""

from __future__ import annotations

from math import sqrt
from typing import Any

import numpy as np

_Array = np.ndarray[Any, Any]

_STEPS = 100
#: A change of the parameters below this ends the search; deviations are given in positions.
_SMALL = 1e-6
#: A Gaussian so many times wider than the map is level on it.
_FLAT = 100


def deviations(values: _Array) -> tuple[float, ...]:
    r"""The deviation along each axis of :math:`A \exp(-\sum_i (x_i - c_i)^2 / 2 \sigma_i^2)` where it lies closest.

    The squares of the differences are made least by the method of Levenberg and Marquardt, from the centre and the
    spread of what exceeds a tenth of the largest value.

    Args:
      values: A map, not negative, ``(rows, columns)`` or of any number of axes.

    Returns:
      One number for each axis, in positions; NaN for a map of zeros, infinity for one that is level.

    References:
      Marquardt, An Algorithm for Least-Squares Estimation of Nonlinear Parameters, https://doi.org/10.1137/0111030,
      1963.
    """
    peak = float(values.max(initial=0.0))
    if not peak > 0.0:
        return (float("nan"),) * values.ndim
    heights = (values / peak).astype(np.float64)
    found, damping = _beginning(heights), 1e-3
    error, slopes = _difference(heights, found)
    for _ in range(_STEPS):
        normal, pull = slopes @ slopes.T, slopes @ error
        # Not solved outright: of one position alone no width is the best, and the equations are singular.
        step = np.linalg.lstsq(normal + damping * np.diag(np.diag(normal)), pull, rcond=None)[0]
        tried = found - step
        tried_error, tried_slopes = _difference(heights, tried)
        if tried_error @ tried_error < error @ error:
            found, error, slopes, damping = tried, tried_error, tried_slopes, damping / 3
            if np.max(np.abs(step)) < _SMALL:
                break
        else:
            damping *= 4
            if damping > 1e12:
                break
    sigmas = _sigmas(found, values.ndim)
    return tuple(float(s) if s < _FLAT * n else float("inf") for s, n in zip(sigmas, values.shape, strict=True))


def _beginning(heights: _Array) -> _Array:
    """Amplitude, centres and logarithms of the deviations, from the moments of the upper nine tenths."""
    upper = np.where(heights > 0.1, heights, 0.0)
    centres, spreads = [], []
    for axis in range(heights.ndim):
        profile = upper.sum(tuple(i for i in range(heights.ndim) if i != axis))
        places = np.arange(len(profile))
        centre = float(profile @ places / profile.sum())
        centres.append(centre)
        # One position alone has a spread as well: that of a cell.
        spreads.append(sqrt(float(profile @ (places - centre) ** 2 / profile.sum()) + 1 / 12))
    return np.array([1.0, *centres, *np.log(spreads)])


def _sigmas(parameters: _Array, axes: int) -> _Array:
    widths: _Array = np.exp(np.clip(parameters[1 + axes :], -5.0, 12.0))
    return widths


def _difference(heights: _Array, parameters: _Array) -> tuple[_Array, _Array]:
    """Gaussian less map, flat, and its derivative with respect to each parameter ``(parameters, positions)``."""
    n = heights.ndim
    with np.errstate(over="ignore", under="ignore"):
        sigmas = _sigmas(parameters, n)
        offsets = [np.arange(size) - c for size, c in zip(heights.shape, parameters[1 : 1 + n], strict=True)]
        grids = np.meshgrid(*(o / s for o, s in zip(offsets, sigmas, strict=True)), indexing="ij")
        shape = np.exp(-0.5 * sum(grid**2 for grid in grids))
        bell = parameters[0] * shape
    slopes = [shape, *(bell * g / s for g, s in zip(grids, sigmas, strict=True)), *(bell * g**2 for g in grids)]
    return (bell - heights).ravel(), np.stack([slope.ravel() for slope in slopes])
