"""Add up what runs have fetched, and turn the sums of a tap into its row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from gradtap.flow.in_graph import BINS, Sums
from gradtap.flow.rows import Array, FlowRow, Histogram, TimeProfile
from gradtap.graph.resolve import Place

_EXPONENTS = BINS // 2
_BIAS = 127
#: Exponents of infinity and NaN.
_NOT_FINITE = _EXPONENTS - 1

#: A histogram of nothing.
EMPTY = Histogram(np.zeros(1), np.zeros(0, np.int64))


class TapTotals:
    """The sums of one tap over all runs so far.

    Args:
      place: The tap.
      bounded: Whether its activation is bounded on both sides.
      on_trunk: Whether everything flows through it.
      scale: What the target was multiplied with before it was differentiated.
    """

    def __init__(self, place: Place, *, bounded: bool, on_trunk: bool, scale: float) -> None:
        self.place = place
        self._scale = scale
        self._bounded = bounded
        self._on_trunk = on_trunk
        self._norms: list[Array] = []
        self._totals = np.zeros(6)
        self._units: Array | None = None
        self._exponents = np.zeros((2, BINS), np.int64)
        self._directions: Array | None = None
        self._differ = self._units_differ = False
        self._steps = np.zeros(0)
        self._step_examples = np.zeros(0)

    def add(self, fetched: Sequence[Any]) -> None:
        """Add what a run fetched of the tap, which may be what several runs did, side by side."""
        sums = Sums(*map(np.asarray, fetched))
        if not len(sums.examples):
            return
        self._norms.append(sums.examples)
        self._totals += sums.totals.sum(0)
        self._exponents += sums.exponents.sum(0, dtype=np.int64)
        units, directions = sums.units.sum(0), sums.directions.sum(0)
        # What a unit is depends on the shape, and so does the direction of a gradient.
        self._units_differ |= self._units is not None and self._units.shape != units.shape
        if not self._units_differ:
            self._units = units if self._units is None else self._units + units
        self._differ |= self._directions is not None and self._directions.shape != directions.shape
        if not self._differ:
            self._directions = directions if self._directions is None else self._directions + directions
        self._add_steps(sums.steps.sum(0), len(sums.examples))

    def _add_steps(self, steps: Array, examples: int) -> None:
        """Sequences of different lengths are laid upon each other at their ends, where the gradient comes from."""
        longer = max(len(steps), len(self._steps))
        self._steps = _padded(self._steps, longer) + _padded(steps, longer)
        self._step_examples = _padded(self._step_examples, longer) + _padded(np.full(len(steps), examples), longer)

    def row(self) -> FlowRow:
        """The numbers of the tap; all NaN without an example."""
        with np.errstate(invalid="ignore", over="ignore"):
            return self._row()

    def _row(self) -> FlowRow:
        norms = np.concatenate(self._norms) if self._norms else np.zeros((0, 2))
        count, entries = len(norms), float(self._exponents[0].sum()) or float("nan")
        a_sum, a_squares, g_sum, g_squares, a_zeros, g_zeros = self._totals
        layer, tensor = self.place.layer, self.place.tensor
        signal, cosine = self._agreement(count, g_squares)
        return FlowRow(
            address=self.place.key,
            layer=layer.kind if layer else "",
            shape=tuple(tensor.shape) if tensor.shape.rank is not None else (),
            dtype=tensor.dtype.name,
            activation_norm=_of(np.mean, norms[:, 0]),
            activation_median=_of(np.median, norms[:, 0]),
            activation_mean=a_sum / entries,
            activation_deviation=_deviation(a_sum, a_squares, entries),
            gradient_norm=_of(np.mean, norms[:, 1]),
            gradient_median=_of(np.median, norms[:, 1]),
            gradient_mean=g_sum / entries,
            gradient_deviation=_deviation(g_sum, g_squares, entries),
            zeros=a_zeros / entries,
            gradient_zeros=g_zeros / entries,
            dead=self._share_of_units(0),
            saturated=self._saturated(),
            signal_to_noise=signal,
            cosine=cosine,
            ratio=float("nan"),
            on_trunk=self._on_trunk,
            examples=count,
            gradient_norms=norms[:, 1],
            activations=_histogram(self._exponents[0]),
            gradients=_histogram(self._exponents[1], self._scale),
        )

    def profile(self) -> TimeProfile:
        """The gradient of a recurrent state at each step."""
        with np.errstate(invalid="ignore"):
            return TimeProfile(self.place.key, self._steps / self._step_examples)

    @property
    def samples(self) -> int:
        """How often each unit was seen."""
        return 0 if self._units is None or self._units_differ else int(self._units[2].max(initial=0))

    @property
    def always_on(self) -> float:
        """Share of the units that were never 0."""
        return self._share_of_units(1)

    def _share_of_units(self, active: int) -> float:
        """How many units were never 0, or always."""
        if self._units is None or self._units_differ:
            return float("nan")
        return _of(np.mean, self._units[0] == active * self._units[2])

    def _saturated(self) -> float:
        if not self._bounded or self._units is None or self._units_differ:
            return float("nan")
        return float(self._units[1].sum() / max(self._units[2].sum(), 1))

    def _agreement(self, count: int, g_squares: float) -> tuple[float, float]:
        """Signal to noise, and the mean cosine, of the gradients of different examples."""
        if self._differ or self._directions is None or count < 2:
            return float("nan"), float("nan")
        whole, of_units = (float(np.sum(d * d)) for d in self._directions)
        noise = max(g_squares / count - whole / count**2, 0.0)
        moving = sum(int(np.count_nonzero(norms[:, 1])) for norms in self._norms)
        pairs = moving * (moving - 1)
        cosine = (of_units - moving) / pairs if pairs else float("nan")
        if noise <= 1e-30 * g_squares / count:
            return (float("inf") if whole else float("nan")), cosine
        return float(np.sqrt(whole) / count / np.sqrt(noise)), cosine


def with_ratios(rows: Sequence[FlowRow]) -> list[FlowRow]:
    """The rows with the ratio of each gradient to that at the next tap."""
    following = [*(row.gradient_norm for row in rows[1:]), float("nan")][: len(rows)]
    return [
        replace(row, ratio=row.gradient_norm / after if after else float("nan"))
        for row, after in zip(rows, following, strict=True)
    ]


def _padded(values: Array, length: int) -> Array:
    return np.concatenate([np.zeros(length - len(values)), values])


def _of(summary: Any, values: Array) -> float:
    return float(summary(values)) if len(values) else float("nan")


def _deviation(total: float, squares: float, entries: float) -> float:
    return float(np.sqrt(np.maximum(np.float64(squares) / entries - (np.float64(total) / entries) ** 2, 0.0)))


def _histogram(exponents: Array, scale: float = 1.0) -> Histogram:
    """Counts by sign and exponent as a histogram over the reals, without the empty bins at its ends."""
    positive, negative = exponents[:_EXPONENTS], exponents[_EXPONENTS:]
    seen = np.flatnonzero((positive + negative)[1:_NOT_FINITE])
    low, high = (int(seen[0]) + 1, int(seen[-1]) + 1) if len(seen) else (_BIAS, _BIAS)
    sizes = np.ldexp(1.0, np.arange(low, high + 2) - _BIAS) / scale
    edges = np.concatenate([-sizes[::-1], sizes])
    around_zero = positive[0] + negative[0]
    counts = np.concatenate([negative[low : high + 1][::-1], [around_zero], positive[low : high + 1]])
    return Histogram(edges, counts)


def exponents_of(histogram: Histogram) -> tuple[Array, Array]:
    """The sizes that a histogram has, as powers of two, and how many entries there are of each; zeros left out."""
    half = len(histogram.counts) // 2
    sizes = np.log2(histogram.edges[half + 1 : -1])
    return sizes, histogram.counts[half + 1 :] + histogram.counts[:half][::-1]
