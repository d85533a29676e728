"""All that the runs of a measurement have fetched, added up, and what comes of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from gradtap.flow.in_graph import Sums
from gradtap.flow.judging import Evidence, judge
from gradtap.flow.merging import TapTotals, with_ratios
from gradtap.flow.rows import Array, FlowMeasurement, WeightRow
from gradtap.program import Program
from gradtap.types import Tensor

_FETCHED = len(Sums._fields)


class Totals:
    """The sums of all runs so far.

    Args:
      program: What ran.
      scale: What the target was multiplied with before it was differentiated.
    """

    def __init__(self, program: Program, scale: float) -> None:
        self._program = program
        self._known: Evidence = replace(program.notes["evidence"], loss_scale=scale)
        taps = [place for place in program.places if place.weight is None]
        self._taps = [
            TapTotals(
                place, bounded=place.key in self._known.bounded, on_trunk=place.key in self._known.trunk, scale=scale
            )
            for place in taps
        ]
        self._weights = [place for place in program.places if place.weight is not None]
        self._slopes: list[Tensor] = []
        self._sizes: list[float] = []
        self._target = 0.0
        self._examples = 0

    def add(self, parts: Mapping[str, Sequence[Any]]) -> None:
        """Add what one run fetched."""
        score = np.asarray(parts["score"][0], np.float64)
        if not len(score):
            return
        self._examples += len(score)
        self._target += float(score.sum())
        for number, tap in enumerate(self._taps):
            tap.add(parts["sums"][number * _FETCHED : (number + 1) * _FETCHED])
        self._sizes = [float(size[0]) for size in parts["sizes"]]
        slopes = [slope[0] for slope in parts["weights"]]
        pairs = zip(self._slopes, slopes, strict=True)
        self._slopes = [so_far + more for so_far, more in pairs] if self._slopes else slopes

    def measurement(self, *, judged: bool, updates: Mapping[int, float]) -> FlowMeasurement:
        """What all runs together say.

        Args:
          judged: Whether findings are looked for.
          updates: Update ratios of weights, by the identity of their variables' handles.
        """
        rows = with_ratios([tap.row() for tap in self._taps if tap.place.state is None])
        profiles = [tap.profile() for tap in self._taps if tap.place.state is not None]
        samples = {tap.place.key: tap.samples for tap in self._taps}
        always_on = {tap.place.key: tap.always_on for tap in self._taps}
        known = replace(self._known, samples=samples, always_on=always_on)
        return FlowMeasurement(
            rows=rows,
            weights=self._weight_rows(updates),
            profiles=profiles,
            findings=judge(rows, profiles, known) if judged else [],
            skipped=dict(self._program.skipped),
            target=self._target / self._examples if self._examples else float("nan"),
            examples=self._examples,
        )

    def _weight_rows(self, updates: Mapping[int, float]) -> list[WeightRow]:
        """Weights as the mean over the examples would change them."""
        if not self._examples:
            return []
        rows = []
        for place, slope, size in zip(self._weights, self._slopes, self._sizes, strict=True):
            norm = norm_of(np.asarray(slope)) / self._examples
            ratio = norm / size if size else float("nan")
            update = updates.get(self._known.handles.get(place.key, 0), float("nan"))
            rows.append(WeightRow(place.key, tuple(slope.shape), size, norm, ratio, update))
        return rows


def norm_of(values: Array) -> float:
    """2-norm of all entries; small ones do not vanish and large ones do not overflow."""
    wide = values.astype(np.float64, copy=False).reshape(-1)
    return float(np.sqrt(np.dot(wide, wide)))
