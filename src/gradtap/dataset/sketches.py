"""Quantiles of any number of values, in a memory that does not grow."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from gradtap import errors
from gradtap.dataset.statistics import State, Statistic, counted, list_of_numbers

Array = np.ndarray[Any, Any]


def quantiles(
    of: Any = "gradients",
    *,
    q: Sequence[float] = (0.01, 0.25, 0.5, 0.75, 0.99),
    accuracy: float = 0.01,
    smallest: float = 1e-9,
    largest: float = 1e9,
) -> Statistic:
    r"""Quantiles of each channel, all places of all examples counted, each to a relative accuracy.

    Values are counted in bins whose edges are powers of :math:`\gamma = (1 + \alpha) / (1 - \alpha)`, one set for each
    sign; a bin's value is off by at most the share :math:`\alpha` from any value in it. Counts add up, so any split of
    the data gives exactly the same quantiles.

    Args:
      of: A method by name, or a function.
      q: Which quantiles, from 0 to 1: of n values in order, the one at the position floor(q (n - 1)).
      accuracy: :math:`\alpha`.
      smallest: What is closer to zero counts as zero.
      largest: What is farther from zero counts as this.

    Returns:
      A `Statistic` for `gradtap.dataset.run`; quantiles ``(channels, len(q))`` float64, and ``count`` ``(channels,)``.

    Raises:
      ArgumentError: A number is outside of its range.

    Example:
      >>> from gradtap import dataset
      >>> s = dataset.quantiles(q=[0.5])
      >>> state = s.update(s.init((1,)), np.arange(1.0, 102.0)[:, None], np.arange(101))
      >>> bool(abs(s.result(state)["quantiles"][0, 0] - 51) < 0.51)
      True

    References:
      Masson, Rim and Lee, DDSketch: A Fast and Fully-Mergeable Quantile Sketch with Relative-Error Guarantees,
      https://arxiv.org/abs/1908.10693, 2019.
    """
    wanted = list_of_numbers("q", q, "q=[0.5]")
    if not np.all((wanted >= 0) & (wanted <= 1)):
        raise errors.ArgumentError(
            "q has a number that is not from 0 to 1.", [("received", errors.received(q))], "q=[0.5]"
        )
    for name, value in (("accuracy", accuracy), ("smallest", smallest), ("largest", largest)):
        if not isinstance(value, (int, float, np.integer, np.floating)) or isinstance(value, bool):
            raise errors.ArgumentError(f"{name}={value!r} is not a number.", [], "leave it out")
    if not (0 < accuracy < 1 and 0 < smallest < largest < math.inf):
        raise errors.ArgumentError(
            f"accuracy={accuracy!r}, smallest={smallest!r}, largest={largest!r} cannot be.",
            [("takes", "0 < accuracy < 1, 0 < smallest < largest")],
            "leave them out",
        )
    step = math.log((1 + accuracy) / (1 - accuracy))
    first = math.ceil(math.log(smallest) / step)
    bins = math.ceil(math.log(largest) / step) - first + 1
    #: The middle of each bin, in the order of values: negative ones, zero, positive ones.
    middles = 2 * np.exp(step * (first + np.arange(bins))) / (math.exp(step) + 1)
    values_of_bins = np.concatenate([-middles[::-1], [0.0], middles])

    def update(state: State, values: Array, ids: Array) -> State:
        rows = values.reshape(-1, values.shape[-1] if values.ndim > 1 else 1).astype(np.float64)
        size = np.abs(rows)
        with np.errstate(divide="ignore"):
            place = np.clip(np.ceil(np.log(size) / step) - first, 0, bins - 1)
        place = np.where(size < smallest, 0, np.sign(rows) * (place + 1)).astype(np.int64) + bins
        return {"counts": state["counts"] + counted(place, 2 * bins + 1)}

    def result(state: State) -> State:
        counts = state["counts"]
        total = counts.sum(axis=1)
        position = np.floor(wanted * np.maximum(total - 1, 0)[:, None])
        up_to = np.cumsum(counts, axis=1)
        found = np.stack([np.searchsorted(row, at, side="right") for row, at in zip(up_to, position, strict=True)])
        quantile = values_of_bins[np.minimum(found, 2 * bins)]
        quantile[total == 0] = np.nan
        return {"quantiles": quantile, "count": total}

    return Statistic(
        "quantiles",
        of,
        lambda shape: {"counts": np.zeros((shape[-1] if shape else 1, 2 * bins + 1), np.int64)},
        update,
        lambda a, b: {"counts": a["counts"] + b["counts"]},
        result,
        {"quantiles": ["q"]},
        {"q": wanted.tolist(), "accuracy": accuracy, "smallest": smallest, "largest": largest},
        by_channel=True,
    )
