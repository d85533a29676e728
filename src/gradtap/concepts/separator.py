"""A linear separator of two sets of points: regularised logistic regression, solved exactly by Newton's method.

The slope lies in the span of the examples. Where there are more features than examples all that is needed of them is
the matrix of their inner products, and the problem has as many unknowns as there are examples.
"""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

import numpy as np

from gradtap.staged.noise import generator

_Array: TypeAlias = np.ndarray[Any, Any]

#: Features that are looked at in one go: a block of float64 of 600 examples takes 80 MB.
_BLOCK = 1 << 14

#: Newton's method doubles the digits in each step; this many are needed by no problem that has a solution.
_MOST_STEPS = 100


class Separator(NamedTuple):
    r"""The plane :math:`\sum_i a_i \langle x_i - c, h - c \rangle + b = 0`.

    Args:
      weights: :math:`a` ``(examples,)``, whose sum is zero.
      offset: :math:`b`, with :math:`c` the point that the inner products are about.
    """

    weights: _Array
    offset: float


def logistic_loss(slope: _Array, offset: float, points: _Array, positive: _Array, penalty: float) -> float:
    r"""The penalised loss: the mean over each set of :math:`\log(1 + e^{-y f}) / 2`, and :math:`\lambda |w|^2 / 2`.

    Args:
      slope: :math:`w` ``(features,)``.
      offset: :math:`b`.
      points: ``(examples, features)``; :math:`f = w \cdot x + b`.
      positive: Which of them belong to the concept, ``(examples,)``, bool.
      penalty: :math:`\lambda`.
    """
    margins = np.where(positive, 1.0, -1.0) * (points @ slope + offset)
    return float(shares(positive) @ np.logaddexp(0.0, -margins) + 0.5 * penalty * (slope @ slope))


def shares(positive: _Array) -> _Array:
    """The weight of each example in the loss: each set has half of it, whatever its size."""
    count = int(np.count_nonzero(positive))
    return np.where(positive, 0.5 / max(count, 1), 0.5 / max(len(positive) - count, 1))


def minimise(points: _Array, positive: _Array, penalty: float) -> tuple[_Array, float]:
    """The slope and the offset with the smallest `logistic_loss`, by Newton's method with steps that never climb."""
    wide = np.concatenate([points, np.ones((len(points), 1))], 1)
    ridge = np.append(np.full(points.shape[1], penalty), 0.0)
    weight, sought = shares(positive), positive.astype(np.float64)
    found = np.zeros(wide.shape[1])
    loss = logistic_loss(found[:-1], found[-1], points, positive, penalty)
    for _ in range(_MOST_STEPS):
        chance = _sigmoid(wide @ found)
        slope = wide.T @ (weight * (chance - sought)) + ridge * found
        curvature = (wide.T * (weight * chance * (1 - chance))) @ wide + np.diag(ridge)
        step = np.linalg.solve(curvature, slope)
        gain = float(slope @ step)
        if gain <= 1e-24:
            break
        size = 1.0
        while size > 1e-10:
            there = found - size * step
            reached = logistic_loss(there[:-1], there[-1], points, positive, penalty)
            if reached <= loss - 1e-4 * size * gain or gain < 1e-12:
                break
            size *= 0.5
        found, loss = there, reached
    return found[:-1], float(found[-1])


def _sigmoid(value: _Array) -> _Array:
    return np.exp(-np.logaddexp(0.0, -value))


def separate(
    positive: _Array, penalty: float, *, gram: _Array | None = None, points: _Array | None = None
) -> Separator | None:
    """Separate examples, given by their inner products or by their coordinates; the result is the same.

    The penalty is relative to the mean squared distance of the examples from their mean, so that the scale of the
    activations is of no account.

    Args:
      positive: Which examples belong to the concept, ``(examples,)``, bool.
      penalty: Of the squared norm of the slope.
      gram: Inner products ``(examples, examples)``, about any point.
      points: Coordinates ``(examples, features)``, about any point.

    Returns:
      The plane; None where no direction tells the sets apart: all examples are equal, or the sets are.
    """
    if points is not None:
        centre = points.mean(0)
        rows, means = points - centre, points @ centre
        spread, largest = float(np.mean(np.sum(rows**2, 1))), float(np.max(np.sum(points**2, 1)))
        rows = rows / np.sqrt(spread or 1.0)
    else:
        products = np.asarray(gram)
        means = products.mean(0)
        about = products - means - means[:, None] + means.mean()
        spread, largest = float(np.trace(about)) / len(about), float(np.max(np.diag(products)))
        rows = _coordinates(about / (spread or 1.0))
    if spread <= 1e-24 * largest:
        return None
    slope, offset = minimise(rows, positive, penalty)
    if np.linalg.norm(slope) < 1e-9:
        return None
    # At the minimum the slope is the sum of the examples, each by what is still wrong with it, over the penalty.
    wrong = shares(positive) * (positive - _sigmoid(rows @ slope + offset)) / penalty
    weights = (wrong - wrong.mean()) / spread
    return Separator(weights, offset - float(weights @ means))


def _coordinates(gram: _Array) -> _Array:
    """Points with these inner products, in as few dimensions as they need."""
    values, vectors = np.linalg.eigh(gram)
    kept = values > len(values) * np.finfo(np.float64).eps * values[-1]
    return np.asarray(vectors[:, kept] * np.sqrt(values[kept]))


def inner_products(rows: _Array, centre: _Array) -> _Array:
    """The inner products of examples about a point, in float64, a block of features at a time.

    Args:
      rows: ``(examples, features)``.
      centre: ``(features,)``.
    """
    total = np.zeros((len(rows), len(rows)))
    for part in _blocks(rows.shape[1]):
        block = rows[:, part].astype(np.float64) - centre[part]
        total += block @ block.T
    return total


def combined(weights: _Array, rows: _Array, centre: _Array) -> tuple[_Array, _Array]:
    """Sums of examples, each made of norm 1, and what their norms were.

    Args:
      weights: ``(sums, examples)``; a sum of zeros stays zero.
      rows: ``(examples, features)``.
      centre: ``(features,)``, what the examples are about.

    Returns:
      The sums ``(sums, features)`` in float64 of the rows' own width, and their norms ``(sums,)``.
    """
    kind = rows.dtype if rows.dtype == np.float64 else np.dtype(np.float32)
    found = np.empty((len(weights), rows.shape[1]), kind)
    squares = np.zeros(len(weights))
    largest = np.max(np.abs(weights), axis=1, initial=0.0)
    relative = weights / np.where(largest > 0, largest, 1.0)[:, None]
    for part in _blocks(rows.shape[1]):
        block = relative @ (rows[:, part].astype(np.float64) - centre[part])
        squares += np.sum(block**2, 1)
        found[:, part] = block
    norms = np.sqrt(squares)
    found /= np.where(norms > 0, norms, 1.0)[:, None].astype(kind)
    return found, norms * largest


def _blocks(features: int) -> list[slice]:
    return [slice(start, start + _BLOCK) for start in range(0, features, _BLOCK)]


def kept_aside(count: int, share: float, seed: int | None) -> _Array:
    """Which examples of a set are kept for the accuracy, ``(count,)``, bool: at least one, and never all."""
    kept = min(max(round(share * count), 1), count - 1)
    chosen = np.zeros(count, bool)
    chosen[generator(seed, 71).permutation(count)[:kept]] = True
    return chosen
