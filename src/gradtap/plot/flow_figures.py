"""Figures of gradient flow: one network tap by tap, several against depth, a training run over its steps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from gradtap.errors import MissingExtraError
from gradtap.plot.curves import DASHES, PALETTE
from gradtap.plot.maps import PictureError
from gradtap.plot.panels import FAINT, INK

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from gradtap.flow.comparison import Comparison
    from gradtap.flow.monitor import FlowMonitor
    from gradtap.flow.rows import FlowMeasurement

#: Names of more taps than this cannot be read below an axis.
_NAMES = 40


def flow(found: Any, *, ax: Axes | None = None) -> Figure:
    """Draw what `gradtap.flow` found: sizes of gradients on a logarithmic scale.

    Args:
      found: A measurement: activation and gradient tap by tap. A comparison: the gradient against depth, with 95 %
        intervals, one panel for each stage. A monitor: the gradient of every tap over the steps of training.
      ax: Axes to draw in; None for a new figure.

    Returns:
      The figure; ``figure.savefig("flow.png")`` writes it.

    Raises:
      PictureError: It is none of these, or there is nothing in it.
      MissingExtraError: matplotlib is not installed.

    Example:
      >>> import gradtap as gt
      >>> model = gt.flow.architectures.plain(4, 3, depth=3)
      >>> gt.plot.flow(gt.flow.measure(model, np.eye(4), labels=np.arange(4) % 3)).savefig("flow.png")
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingExtraError.of("viz", "drawing a picture") from None
    # They bring TensorFlow along, which a picture of arrays does not need.
    from gradtap.flow.comparison import Comparison
    from gradtap.flow.monitor import FlowMonitor
    from gradtap.flow.rows import FlowMeasurement

    kinds: dict[type, Any] = {FlowMeasurement: _measurement, Comparison: _comparison, FlowMonitor: _monitor}
    draw = kinds.get(type(found))
    if draw is None or not (getattr(found, "rows", None) or getattr(found, "history", None)):
        raise PictureError(
            "there is no flow to draw.",
            [("received", repr(found)[:100])],
            "what gt.flow.measure or gt.flow.compare gives",
        )
    count = len({row.stage for row in found.rows}) if isinstance(found, Comparison) else 1
    if ax is None:
        size = (4.8 * count + 1.6, 4.5) if isinstance(found, Comparison) else (9, 4.5)
        figure = Figure(figsize=size, dpi=120, facecolor="white", layout="constrained")
        panels = list(figure.subplots(1, count, sharey=True, squeeze=False)[0])
    elif count == 1:
        panels = [ax]
    else:
        ax.set_axis_off()
        panels = [ax.inset_axes((i / count, 0, 0.9 / count, 1)) for i in range(count)]
    draw(panels, found)
    drawn: Figure = panels[0].get_figure(root=True)
    return drawn


def _measurement(panels: list[Axes], found: FlowMeasurement) -> None:
    axes = _axes(panels[0], "", "")
    places = np.arange(len(found.rows))
    bad = {finding.tap: finding.kind for finding in found.findings}
    for name, label, colour in (("activation", "activation", PALETTE[4]), ("gradient", "gradient", PALETTE[0])):
        sizes = [getattr(row, f"{name}_norm") for row in found.rows]
        axes.plot(places, _positive(sizes), marker="o", markersize=3, color=colour, label=f"|{label}|")
    for place, row in zip(places, found.rows, strict=True):
        if row.address in bad:
            axes.axvline(float(place), color=PALETTE[1], linewidth=1)
            axes.annotate(
                bad[row.address],
                (place, 1),
                xycoords=("data", "axes fraction"),
                fontsize=9,
                color=PALETTE[1],
                xytext=(3, -10),
                textcoords="offset points",
            )
    step = -(-len(places) // _NAMES)
    axes.set_xticks(places[::step], [row.address for row in found.rows][::step], rotation=90, fontsize=7)
    axes.set_ylabel("mean 2-norm", color=INK)
    _legend(axes)


def _comparison(panels: list[Axes], found: Comparison) -> None:
    stages = list(dict.fromkeys(row.stage for row in found.rows))
    names = list(dict.fromkeys(row.name for row in found.rows))
    for axes, stage in zip(panels, stages, strict=True):
        titles = {"initial": "at initialisation", "trained": "after the short training"}
        _axes(axes, titles[stage], "depth: blocks, or steps of time")
        for number, name in enumerate(names):
            mine = [row for row in found.rows if (row.name, row.stage) == (name, stage)]
            through_time = [row for row in mine if row.through_time and ":hidden" in row.address]
            rows = through_time or [row for row in mine if not row.through_time]
            depths = [row.depth for row in rows]
            colour, dash = PALETTE[number % len(PALETTE)], DASHES[number // len(PALETTE) % len(DASHES)]
            dot = "o" if len(rows) == 1 else None
            axes.plot(
                depths, _positive([row.gradient_norm for row in rows]), dash, marker=dot, color=colour, label=name
            )
            low, high = (_positive([getattr(row, f"gradient_{end}") for row in rows]) for end in ("low", "high"))
            axes.fill_between(depths, low, high, color=colour, alpha=0.15, linewidth=0)
    panels[0].set_ylabel("|gradient|, mean over examples and seeds", color=INK)
    sizes = np.array([row.gradient_norm for row in found.rows if row.gradient_norm > 0])
    if len(sizes):  # an interval of two seeds may span the whole scale
        for axes in panels:
            axes.set_ylim(10 ** (np.log10(sizes.min()) - 1), 10 ** (np.log10(sizes.max()) + 1))
    panels[-1].legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, fontsize=9)


def _monitor(panels: list[Axes], found: FlowMonitor) -> None:
    axes = _axes(panels[0], "", "training step")
    steps = [moment.step for moment in found.history]
    addresses = [row.address for row in found.history[0].rows]
    from matplotlib import colormaps

    shades = colormaps["viridis"](np.linspace(0.05, 0.9, len(addresses)))
    for number, address in enumerate(addresses):
        label = address if number in (0, len(addresses) - 1) else None
        norms = [moment.rows[number].gradient_norm for moment in found.history]
        axes.plot(steps, _positive(norms), color=shades[number], linewidth=1.2, label=label)
    for finding in found.findings[:3]:
        axes.axvline(finding.step or 0, color=PALETTE[1], linewidth=1)
    axes.set_ylabel("|gradient|", color=INK)
    _legend(axes)


def _axes(axes: Axes, title: str, below: str) -> Axes:
    axes.set_yscale("log")
    axes.set_title(title, fontsize=11, color=INK)
    axes.set_xlabel(below, color=INK)
    axes.tick_params(colors=FAINT, labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#eaeef2")
    return axes


def _legend(axes: Axes) -> None:
    axes.legend(frameon=False, fontsize=9)


def _positive(values: Any) -> Any:
    """What a logarithmic scale can show; a gap for the rest."""
    array = np.asarray(values, np.float64)
    return np.where(np.isfinite(array) & (array > 0), array, np.nan)
