"""Tests of significance: permutations of scores, the rank of a set among sets, and Holm's correction."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import chain, combinations
from math import comb
from typing import Any, TypeAlias

import numpy as np

_Array: TypeAlias = np.ndarray[Any, Any]

#: So many ways to divide the scores are all looked at; of more, a sample is drawn.
MOST_DIVISIONS = 200_000
DRAWS = 20_000

#: Differences of means below this are rounding.
_EQUAL = 1e-12


def permutation_p(own: _Array, null: _Array, draws: np.random.Generator) -> float:
    """The two-sided p-value of a difference of means, by permutation.

    The share of all divisions of the scores in two groups of these sizes whose means differ at least as much. Where
    there are more than 200,000 divisions, 20,000 are drawn, and the given one is counted with them.

    Args:
      own: Scores of the one kind.
      null: Scores of the other.
      draws: Where divisions are drawn from.
    """
    pooled = np.concatenate([own, null])
    count, total = len(own), pooled.sum()
    exact = comb(len(pooled), count) <= MOST_DIVISIONS
    if exact:
        sums = pooled[_divisions(len(pooled), count)].sum(1)
    else:
        sums = draws.permuted(np.tile(pooled, (DRAWS, 1)), axis=1)[:, :count].sum(1)
    differences = np.abs(sums / count - (total - sums) / len(null))
    as_large = np.count_nonzero(differences >= abs(own.mean() - null.mean()) - _EQUAL)
    return float(as_large / len(sums) if exact else (1 + as_large) / (1 + DRAWS))


@lru_cache(maxsize=4)
def _divisions(among: int, count: int) -> _Array:
    each = chain.from_iterable(combinations(range(among), count))
    return np.fromiter(each, np.int8, comb(among, count) * count).reshape(-1, count)


def rank_p(own: float, others: _Array) -> float:
    """The two-sided p-value of a score among scores that are as likely to be any of them: by distance from one half.

    Args:
      own: The score.
      others: The scores of what it is compared with.
    """
    as_far = np.count_nonzero(np.abs(others - 0.5) >= abs(own - 0.5) - _EQUAL)
    return float((1 + as_far) / (1 + len(others)))


def smallest_p(sets: int, test: str) -> float:
    """The smallest p-value that a test with so many random sets can give."""
    if test == "sets":
        return 1 / (1 + sets)
    divisions = comb(2 * sets, sets)
    return 2 / divisions if divisions <= MOST_DIVISIONS else 1 / (1 + DRAWS)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's correction: rejecting those at most alpha keeps the chance of any false alarm at alpha.

    The smallest of m is multiplied by m, the next by m - 1 and so on, none becomes smaller than the one before it, and
    none larger than 1.

    Example:
      >>> holm([0.01, 0.04, 0.03])
      [0.03, 0.06, 0.06]
    """
    corrected = [0.0] * len(p_values)
    largest = 0.0
    for rank, i in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[i]))
        corrected[i] = largest
    return corrected
