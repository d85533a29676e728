"""Statistics over a whole data set: triples of pure functions, so that any split of the data gives the same result."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from gradtap import errors

Array = np.ndarray[Any, Any]
State = dict[str, Array]
Per = Literal["unit", "channel"]


@dataclass(frozen=True)
class Statistic:
    """A statistic of what a method gives, as pure functions of states, which are dicts of arrays.

    With ``update`` a block of results is taken into a state, with ``merge`` two states become one. Merging must not
    depend on the order, but for rounding: then any split of the data gives the same result.

    Args:
      name: What it is called.
      of: What it is a statistic of: a method by name, or a function.
      init: Gives the state of no example, for the shape ``(...)`` of one example's result.
      update: From a state, the results ``(rows, ...)`` and the ids ``(rows,)`` of the examples to a state.
      merge: From two states to one.
      result: From a state to arrays by name; the one with the statistic's own name comes under the address itself.
      axes: The names of each result's axes, counted from the last; what is before them are the axes of a unit.
      options: What it was made with, for the record.
      by_channel: Whether it takes the last axis as that of the channels. A method that gives one map for all of them
        is then taken as one of a single channel.

    Example:
      The largest absolute value of each unit, which gradtap does not have.

      >>> import numpy as np
      >>> from gradtap import dataset
      >>> largest = dataset.Statistic(
      ...     "largest",
      ...     "gradients",
      ...     init=lambda shape: {"largest": np.zeros(shape)},
      ...     update=lambda s, x, ids: {"largest": np.maximum(s["largest"], np.abs(x).max(axis=0, initial=0.0))},
      ...     merge=lambda a, b: {"largest": np.maximum(a["largest"], b["largest"])},
      ... )
      >>> largest.update(largest.init((2,)), np.array([[1.0, -3.0], [2.0, 1.0]]), np.arange(2))
      {'largest': array([2., 3.])}
    """

    name: str
    of: Any
    init: Callable[[tuple[int, ...]], State]
    update: Callable[[State, Array, Array], State]
    merge: Callable[[State, State], State]
    result: Callable[[State], State] = field(default=dict)
    axes: Mapping[str, Sequence[str]] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    by_channel: bool = False


def mean(of: Any = "gradients", *, per: Per = "unit") -> Statistic:
    """The mean over all examples.

    Args:
      of: A method by name, or a function.
      per: ``"unit"`` keeps the shape of a tap; ``"channel"`` takes the mean over all places too.

    Returns:
      A `Statistic` for `gradtap.dataset.run`; its result has the shape of one example, or ``(channels,)``, in float64.

    Example:
      >>> from gradtap import dataset
      >>> dataset.mean("activations").name
      'mean'
    """
    moments = variance(of, per=per)
    return Statistic(
        "mean",
        of,
        moments.init,
        moments.update,
        moments.merge,
        lambda state: {"mean": state["mean"], "count": state["count"]},
        {},
        {"per": per},
        moments.by_channel,
    )


def variance(of: Any = "gradients", *, per: Per = "unit") -> Statistic:
    r"""The variance over all examples, :math:`\frac{1}{n} \sum_i (x_i - \bar x)^2`, and the mean beside it.

    Of two parts with the counts :math:`n_a, n_b` and means :math:`\bar a, \bar b`, the sums of squares add up with
    :math:`(\bar b - \bar a)^2\, n_a n_b / (n_a + n_b)`.

    Args:
      of: A method by name, or a function.
      per: ``"unit"`` keeps the shape of a tap; ``"channel"`` counts every place as a value of its channel.

    Returns:
      A `Statistic` for `gradtap.dataset.run`; results in float64: the variance under the address, and ``mean`` and
      ``count``.

    Example:
      >>> from gradtap import dataset
      >>> dataset.variance().name
      'variance'

    References:
      Chan, Golub and LeVeque, Updating Formulae and a Pairwise Algorithm for Computing Sample Variances,
      http://i.stanford.edu/pub/cstr/reports/cs/tr/79/773/CS-TR-79-773.pdf, 1979.
    """
    _check_per(per)

    def init(shape: tuple[int, ...]) -> State:
        own = shape if per == "unit" else shape[-1:]
        return {"count": np.zeros((), np.int64), "mean": np.zeros(own), "squares": np.zeros(own)}

    def update(state: State, values: Array, ids: Array) -> State:
        rows = _rows(values, per).astype(np.float64)
        if not len(rows):
            return state
        center = rows.mean(axis=0)
        part = {"count": np.array(len(rows)), "mean": center, "squares": ((rows - center) ** 2).sum(axis=0)}
        return merge(state, part)

    def merge(a: State, b: State) -> State:
        count = a["count"] + b["count"]
        if not count:
            return a
        apart, share = b["mean"] - a["mean"], b["count"] / count
        squares = a["squares"] + b["squares"] + apart**2 * a["count"] * share
        return {"count": count, "mean": a["mean"] + apart * share, "squares": squares}

    def result(state: State) -> State:
        spread = state["squares"] / state["count"] if state["count"] else np.full_like(state["squares"], np.nan)
        return {"variance": spread, "mean": state["mean"], "count": state["count"]}

    return Statistic("variance", of, init, update, merge, result, {}, {"per": per}, per == "channel")


def histogram(of: Any = "gradients", *, edges: Sequence[float]) -> Statistic:
    """How many values of each channel lie between each two edges, all places of all examples counted.

    Args:
      of: A method by name, or a function.
      edges: At least two numbers that rise; a value on an edge belongs to the bin above it, on the last edge to the
        last bin.

    Returns:
      A `Statistic` for `gradtap.dataset.run`; counts ``(channels, bins)`` int64, and ``below`` and ``above``
      ``(channels,)``.

    Raises:
      ArgumentError: The edges do not rise.

    Example:
      >>> from gradtap import dataset
      >>> dataset.histogram(edges=[-1.0, 0.0, 1.0]).init((2,))["histogram"].shape
      (2, 4)
    """
    bounds = list_of_numbers("edges", edges, "edges=[-1,0,1]")
    if len(bounds) < 2 or not np.all(np.diff(bounds) > 0):
        raise errors.ArgumentError(
            "the edges are not two or more numbers that rise.",
            [("received", errors.received(edges))],
            "edges=[-1,0,1]",
        )

    def update(state: State, values: Array, ids: Array) -> State:
        rows = _rows(values, "channel")
        place = np.searchsorted(bounds, rows, side="right")
        place[rows == bounds[-1]] = len(bounds) - 1
        return {"histogram": state["histogram"] + counted(place, len(bounds) + 1)}

    def result(state: State) -> State:
        counts = state["histogram"]
        return {"histogram": counts[:, 1:-1], "below": counts[:, 0], "above": counts[:, -1]}

    return Statistic(
        "histogram",
        of,
        lambda shape: {"histogram": np.zeros((_channels(shape), len(bounds) + 1), np.int64)},
        update,
        lambda a, b: {"histogram": a["histogram"] + b["histogram"]},
        result,
        {"histogram": ["bin"]},
        {"edges": bounds.tolist()},
        by_channel=True,
    )


def top_examples(of: Any = "activations", *, k: int = 9, reduce: Literal["max", "mean"] = "max") -> Statistic:
    """The examples that give each channel its largest values.

    Args:
      of: A method by name, or a function.
      k: How many for each channel.
      reduce: What stands for an example with many places: the largest of its values, or their mean.

    Returns:
      A `Statistic` for `gradtap.dataset.run`; the examples' ids ``(channels, k)`` int64, the largest first and -1 where
      there are fewer, and ``value``. Of equal values the earlier example comes first.

    Raises:
      ArgumentError: ``k`` is not positive, or ``reduce`` is not a choice.

    Example:
      >>> from gradtap import dataset
      >>> s = dataset.top_examples(k=1)
      >>> s.update(s.init((2,)), np.array([[1.0, 5.0], [3.0, 2.0]]), np.array([0, 1]))["top_examples"]
      array([[1],
             [0]])
    """
    if not isinstance(k, (int, np.integer)) or isinstance(k, bool) or k < 1:
        raise errors.ArgumentError(f"k={k!r} is not a positive int.", [], "k=9")
    if reduce not in ("max", "mean"):
        raise errors.ArgumentError(f"reduce={reduce!r} is not a choice.", [("choices", "max, mean")], 'reduce="max"')

    def init(shape: tuple[int, ...]) -> State:
        own = (_channels(shape), k)
        return {"top_examples": np.full(own, -1, np.int64), "value": np.full(own, -np.inf)}

    def update(state: State, values: Array, ids: Array) -> State:
        channels = _channels(values.shape[1:])
        places = values.reshape(len(values), values[:1].size // channels if len(values) else 1, channels)
        places = places.astype(np.float64)
        found = (places.max(axis=1) if reduce == "max" else places.mean(axis=1)).T
        return merge(state, {"top_examples": np.broadcast_to(ids, found.shape), "value": found})

    def merge(a: State, b: State) -> State:
        ids = np.concatenate([a["top_examples"], b["top_examples"]], axis=1)
        values = np.concatenate([a["value"], b["value"]], axis=1)
        order = np.lexsort((ids, -values), axis=1)[:, :k]
        return {
            "top_examples": np.take_along_axis(ids, order, axis=1),
            "value": np.take_along_axis(values, order, axis=1),
        }

    axes = {"top_examples": ["rank"], "value": ["rank"]}
    return Statistic("top_examples", of, init, update, merge, dict, axes, {"k": int(k), "reduce": reduce}, True)


def list_of_numbers(name: str, given: Any, such_as: str) -> Array:
    """A keyword's value as an array of float64 with one axis.

    Raises:
      ArgumentError: It is something else.
    """
    try:
        found = np.asarray(given, np.float64)
    except (TypeError, ValueError):
        found = np.zeros(())
    if found.ndim != 1 or not len(found):
        raise errors.ArgumentError(f"{name} is not a list of numbers.", [("received", errors.received(given))], such_as)
    return found


def counted(places: Array, bins: int) -> Array:
    """How often each channel has each place, int64 ``(channels, bins)``; places ``(rows, channels)``."""
    channels = places.shape[1]
    flat = places + np.arange(channels) * bins
    return np.bincount(flat.ravel(), minlength=channels * bins).reshape(channels, bins)


def _channels(shape: tuple[int, ...]) -> int:
    return shape[-1] if shape else 1


def _rows(values: Array, per: Per) -> Array:
    if per == "unit":
        return values
    return values.reshape(-1, values.shape[-1] if values.ndim > 1 else 1)


def _check_per(per: str) -> None:
    if per not in ("unit", "channel"):
        raise errors.ArgumentError(f"per={per!r} is not a choice.", [("choices", "'unit', 'channel'")], "per='unit'")
