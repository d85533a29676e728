"""What a comparison found: the gradient against depth for every model, and one line for each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np

from gradtap.flow.intervals import Interval
from gradtap.html_table import html_table
from gradtap.showing import face

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_HEAD = ("model", "stage", "depth", "first", "last", "per layer", "dead", "curvature", "loss", "ms", "findings")
Stage = Literal["initial", "trained"]


@dataclass(frozen=True)
class ComparedTap:
    """One tap of one model, over all seeds.

    Args:
      name: The model.
      stage: ``"initial"``, or ``"trained"`` after the short training.
      address: The tap; of a step of a recurrent state ``state:hidden@t``.
      depth: Which it is from the input on, from 1: a block, or a step of time.
      gradient_norm: Geometric mean over the seeds of the gradient's norm.
      gradient_low: Lower end of its 95 % interval; NaN for one seed.
      gradient_high: Upper end.
      activation_norm: Geometric mean of the activation's norm; NaN for a step.
      dead: Mean share of units that are 0 on every example; NaN for a step.
      cosine: Mean cosine between the gradients of different examples; NaN for a step.
      curvature: Geometric mean of the Frobenius norm of the Hessian at the tap; NaN where it was not looked at.
      through_time: Whether depth counts steps of time.
    """

    name: str
    stage: Stage
    address: str
    depth: int
    gradient_norm: float
    gradient_low: float
    gradient_high: float
    activation_norm: float
    dead: float
    cosine: float
    curvature: float
    through_time: bool = False


@dataclass(frozen=True)
class ComparedModel:
    """One model at one stage, over all seeds.

    Args:
      name: The model.
      stage: ``"initial"`` or ``"trained"``.
      depth: How many taps or steps there are.
      first: Gradient's norm nearest to the input.
      last: Gradient's norm nearest to the output.
      per_layer: Factor by which the gradient's norm changes at each layer on its way back.
      dead: Mean share of dead units over the taps.
      curvature: Geometric mean over the taps at which it was looked at; NaN for none.
      loss: Mean of the target.
      seconds: Median time of one measurement, once everything is built.
      findings: In how many of the seeds each kind of finding came up.
      seeds: How many seeds there were.
    """

    name: str
    stage: Stage
    depth: int
    first: Interval
    last: Interval
    per_layer: Interval
    dead: float
    curvature: float
    loss: Interval
    seconds: float
    findings: Mapping[str, int]
    seeds: int


@dataclass(frozen=True)
class Comparison:
    """Models beside each other; see `gradtap.flow.compare`.

    Args:
      rows: One for each tap of each model at each stage, in forward order.
      models: One for each model at each stage.
    """

    rows: list[ComparedTap]
    models: list[ComparedModel] = field(default_factory=list)

    def table(self) -> str:
        """One line for each model and stage, as text."""
        lines = [_HEAD, *(_cells(model) for model in self.models)]
        widths = [max(len(line[column]) for line in lines) for column in range(len(_HEAD))]
        return "\n".join(
            "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
        )

    def plot(self) -> Figure:
        """The gradient's norm against depth, the models in one picture; see `gradtap.plot.flow`.

        Returns:
          A matplotlib figure.

        Raises:
          MissingExtraError: matplotlib is not installed.
        """
        figure: Figure = face("gradtap.plot", "flow")(self)
        return figure

    def __str__(self) -> str:
        return self.table()

    def _repr_html_(self) -> str:
        return html_table(_HEAD, [_cells(model) for model in self.models], caption="the flow of models, side by side")


def _cells(model: ComparedModel) -> tuple[str, ...]:
    said = ", ".join(f"{kind} ({count}/{model.seeds})" for kind, count in model.findings.items()) or "none"
    return (
        model.name,
        model.stage,
        str(model.depth),
        f"{model.first.mean:.2g}",
        f"{model.last.mean:.2g}",
        _with_interval(model.per_layer),
        f"{model.dead:.0%}",
        "" if np.isnan(model.curvature) else f"{model.curvature:.2g}",
        _with_interval(model.loss),
        f"{model.seconds * 1e3:.0f}",
        said,
    )


def _with_interval(value: Interval) -> str:
    if np.isnan(value.low):
        return f"{value.mean:.3g}"
    return f"{value.mean:.3g} [{value.low:.3g}, {value.high:.3g}]"
