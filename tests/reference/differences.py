"""Central differences of plain NumPy functions, and the comparison with them."""

from __future__ import annotations

import numpy as np

#: Where truncation and rounding of a central difference in float64 are equally small.
STEP = 6e-6


def central_differences(function, at):
    """dF_n/da_n for every entry of the activations.

    Args:
      function: Maps activations ``(batch, ...)`` to one number per example ``(batch,)``, each example on its own.
      at: The activations.
    """
    at = np.asarray(at, np.float64)
    slope = np.empty_like(at)
    for entry in np.ndindex(at.shape[1:]):
        step = np.zeros_like(at)
        step[(slice(None), *entry)] = STEP
        slope[(slice(None), *entry)] = (function(at + step) - function(at - step)) / (2 * STEP)
    return slope


def directional_difference(function, at, direction):
    """The change of ``function`` along ``direction``: of a number, or of one number per example."""
    return (function(at + STEP * direction) - function(at - STEP * direction)) / (2 * STEP)


def assert_same_numbers(actual, expected, tolerance=1e-7, floor=1e-4):
    """Largest difference within ``tolerance`` of the largest expected number, which must not be about zero."""
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert actual.shape == expected.shape
    assert np.isfinite(actual).all()
    largest = np.max(np.abs(expected))
    assert largest > floor, f"nothing is compared: the expected numbers are at most {largest}"
    error = np.max(np.abs(actual.astype(np.float64) - expected)) / largest
    assert error < tolerance, f"relative error {error:.2e}"
