"""What is told about each tap, each weight and each recurrent state, and what is said of the whole."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from gradtap.html_table import html_table
from gradtap.showing import face

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Array = np.ndarray[Any, Any]
Kind = Literal["vanishing", "exploding", "dead", "saturated", "blocked", "underflow"]

#: The columns of a table of taps, and the widths of all but the first.
_HEAD = ("tap", "|activation|", "|gradient|", "ratio", "zeros", "dead", "cosine")
_WIDTHS = (12, 10, 8, 5, 5, 6)


@dataclass(frozen=True)
class Histogram:
    """How many numbers there are of each size, by powers of two, exactly.

    Args:
      edges: Rising, ``(bins + 1,)`` float64; the bin around 0 holds zeros and what is below 2^-126.
      counts: ``(bins,)`` int64.
    """

    edges: Array
    counts: Array


@dataclass(frozen=True)
class FlowRow:
    """One tap: what flows forward through it, and what flows back.

    A unit is an entry of the last axis (a channel, a feature); a norm is a 2-norm over all of an example's entries.

    Args:
      address: The tap.
      layer: Class of its layer.
      shape: Of its activations, the batch axis included as None.
      dtype: Of its activations.
      activation_norm: Mean over the examples of the activation's norm.
      activation_median: Median of the same, which one example cannot move.
      activation_mean: Mean of all entries.
      activation_deviation: Their standard deviation.
      gradient_norm: Mean over the examples of the gradient's norm.
      gradient_median: Median of the same.
      gradient_mean: Mean of all entries.
      gradient_deviation: Their standard deviation.
      zeros: Share of the activation's entries that are exactly 0.
      gradient_zeros: Share of the gradient's entries that are exactly 0.
      dead: Share of the units that are 0 on every example, at every place.
      saturated: Share of the entries within a hundredth of the range from a bound of a bounded activation; NaN where
        the activation is not bounded on both sides, and where the model returns it.
      signal_to_noise: Norm of the mean gradient over the deviation of the examples' gradients from it; NaN for one
        example, and where the examples of batches differ in shape.
      cosine: Mean over pairs of examples of the cosine between their gradients; NaN as above.
      ratio: The gradient's norm over that at the next tap; NaN at the last.
      on_trunk: Whether every way from the first tap to the target leads through this one.
      examples: How many examples were seen.
      gradient_norms: The gradient's norm for each example, ``(examples,)`` float64.
      activations: Histogram of the activation's entries.
      gradients: Histogram of the gradient's entries.
    """

    address: str
    layer: str
    shape: tuple[int | None, ...]
    dtype: str
    activation_norm: float
    activation_median: float
    activation_mean: float
    activation_deviation: float
    gradient_norm: float
    gradient_median: float
    gradient_mean: float
    gradient_deviation: float
    zeros: float
    gradient_zeros: float
    dead: float
    saturated: float
    signal_to_noise: float
    cosine: float
    ratio: float
    on_trunk: bool
    examples: int
    gradient_norms: Array = field(repr=False, compare=False)
    activations: Histogram = field(repr=False, compare=False)
    gradients: Histogram = field(repr=False, compare=False)

    def numbers(self) -> dict[str, Any]:
        """All that is one number or one word, by name: a line of a table."""
        return {name: value for name, value in vars(self).items() if isinstance(value, (str, bool, int, float))}

    def cells(self) -> tuple[str, ...]:
        """The address and the numbers that a table shows."""
        norms = (f"{self.activation_norm:.3g}", f"{self.gradient_norm:.3g}", f"{self.ratio:.3g}")
        return self.address, *norms, f"{self.zeros:.0%}", f"{self.dead:.0%}", f"{self.cosine:.2f}"


@dataclass(frozen=True)
class WeightRow:
    """One weight.

    Args:
      address: The weight as a tap, such as ``conv1:kernel``.
      shape: Of the weight.
      weight_norm: Its 2-norm.
      gradient_norm: 2-norm of the gradient of the target's mean over the examples.
      ratio: The one over the other: the relative change of the weight that a unit step would make.
      update_ratio: Norm of the change of the weight by the optimizer's step over the weight's norm; NaN where no step
        was seen. About a thousandth is usual.
    """

    address: str
    shape: tuple[int, ...]
    weight_norm: float
    gradient_norm: float
    ratio: float
    update_ratio: float = float("nan")

    def numbers(self) -> dict[str, Any]:
        """All that is one number or one word, by name: a line of a table."""
        return {name: value for name, value in vars(self).items() if isinstance(value, (str, int, float))}


@dataclass(frozen=True)
class TimeProfile:
    """The gradient of a recurrent state, step by step.

    Args:
      address: The state, such as ``lstm:hidden``.
      gradient_norms: Mean over the examples of the gradient's norm at each step of the input's time, ``(time,)``.
    """

    address: str
    gradient_norms: Array = field(compare=False)


@dataclass(frozen=True)
class Finding:
    """Something that is wrong with the flow, with the evidence and a remedy.

    Args:
      kind: ``"vanishing"``, ``"exploding"``, ``"dead"``, ``"saturated"``, ``"blocked"`` or ``"underflow"``.
      tap: Where.
      evidence: What was measured, in words and numbers.
      remedy: What to do about it.
      step: Of a training run, the step at which it was first seen; None for a single measurement.
    """

    kind: Kind
    tap: str
    evidence: str
    remedy: str
    step: int | None = None

    def __str__(self) -> str:
        when = "" if self.step is None else f" (step {self.step})"
        return f"{self.kind} at `{self.tap}`{when}: {self.evidence} {self.remedy}"


@dataclass(frozen=True)
class FlowMeasurement:
    """What flows through a network; see `gradtap.flow.measure`.

    Args:
      rows: One for each tap, in forward order.
      weights: One for each weight that the target depends on.
      profiles: One for each state of a recurrent layer.
      findings: What is wrong; empty for a healthy network.
      skipped: Taps that have no gradient, with the reason.
      target: Mean of the target over the examples.
      examples: How many examples were seen.
    """

    rows: list[FlowRow]
    weights: list[WeightRow]
    profiles: list[TimeProfile]
    findings: list[Finding]
    skipped: Mapping[str, str]
    target: float
    examples: int

    def table(self) -> str:
        """The taps and the findings as text."""
        lines = [_HEAD, *(row.cells() for row in self.rows)]
        first = max(len(line[0]) for line in lines)
        texts = [
            "  ".join([line[0].ljust(first), *(cell.rjust(w) for cell, w in zip(line[1:], _WIDTHS, strict=True))])
            for line in lines
        ]
        return "\n".join([*texts, *self._said()])

    def _said(self) -> list[str]:
        return [str(finding) for finding in self.findings] or ["nothing is wrong with the flow"]

    def _repr_html_(self) -> str:
        rows = [row.cells() for row in self.rows]
        return html_table(_HEAD, rows, caption=f"the flow of {self.examples} examples", below=self._said())

    def plot(self) -> Figure:
        """Norms and shares against depth, with the findings in the picture; see `gradtap.plot.flow`.

        Returns:
          A matplotlib figure.

        Raises:
          MissingExtraError: matplotlib is not installed.
        """
        figure: Figure = face("gradtap.plot", "flow")(self)
        return figure

    def as_json(self) -> dict[str, Any]:
        """All numbers and findings, in what JSON can hold; NaN and infinity become None."""
        return {
            "target": _plain(self.target),
            "examples": self.examples,
            "rows": [_plain(row.numbers()) for row in self.rows],
            "weights": [_plain(row.numbers()) for row in self.weights],
            "profiles": [{"address": p.address, "gradient_norms": _plain(p.gradient_norms)} for p in self.profiles],
            "findings": [asdict(finding) for finding in self.findings],
            "skipped": dict(self.skipped),
        }

    def __str__(self) -> str:
        return self.table()


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, np.ndarray):
        return [_plain(float(one)) for one in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value
