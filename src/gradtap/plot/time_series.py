"""Pictures of series: the signal, and below it what counts at each step."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from gradtap.plot.canvas import Canvas
from gradtap.plot.curves import DASHES, PALETTE
from gradtap.plot.lettering import fitted, inches, width_of
from gradtap.plot.maps import NEGATIVE, NOT_FINITE, POSITIVE, Array, PictureError, colours, robust_scale
from gradtap.plot.panels import FAINT, FRAME, INK, missing, number, only_one_value

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# All in inches.
MARGIN = 0.12
TITLE = 0.32
SERIES = 7.0, 1.5
#: To the right, for the names of features and the scale.
SIDE = 1.0
GAP = 0.14
#: Lines of a signal: blue and vermilion mean a sign in the panel below.
SIGNAL = (INK, PALETTE[2], PALETTE[3], "#8c959f")
#: So many lines are named.
LEGEND = 12


def series(
    values: Array, signal: Array | None = None, *, title: str = "", steps: Array | None = None, ax: Axes | None = None
) -> Figure:
    """Draw what counts in a series: bars for one number a step, or a strip for each feature, below the signal.

    Args:
      values: ``(steps,)``, or ``(steps, features)`` for a strip each: attributions, or norms of gradients at the
        states of a recurrent layer.
      signal: The series itself, ``(steps,)`` or ``(steps, features)``, drawn above as lines.
      title: Line above the figure.
      steps: What stands at the axis, ``(steps,)``; 0, 1, ... where it is None.
      ax: Axes to draw in; None for a new figure.

    Returns:
      Figure with the signal above the values.

    Raises:
      PictureError: Signal and values differ in length, or there are more axes than two.
      MissingExtraError: matplotlib is not installed.

    Example:
      >>> series(np.sin(np.arange(30.0)), np.arange(30.0)).savefig("series.png")
    """
    bars = np.asarray(values, np.float64)
    lines = None if signal is None else np.asarray(signal, np.float64)
    if bars.ndim not in (1, 2) or not bars.size or (lines is not None and len(lines) != len(bars)):
        facts = [("values", str(bars.shape)), ("signal", "None" if lines is None else str(lines.shape))]
        raise PictureError("this is no series.", facts)
    rows = 1 + (lines is not None)
    several = bars.ndim == 2 or (lines is not None and lines.ndim == 2)
    left, beside, foot = 2 * MARGIN + 0.5, SIDE * several, 2 * MARGIN + 0.2
    titled = TITLE * (bool(title) and ax is None)
    wide, high = SERIES
    if ax is not None:  # a series has no proportions to keep: it fills the axes
        room = inches(ax)
        wide = max(room[0] - left - beside - 2 * MARGIN, 1.0)
        high = max((room[1] - foot - MARGIN) / rows - GAP, 0.4)
    width, height = left + wide + beside + 2 * MARGIN, foot + rows * (high + GAP) + MARGIN + titled
    canvas = Canvas(width, height, ax)
    canvas.title(title)
    below = canvas.panel(left, foot, wide, high)
    _draw_values(canvas, below, bars, (left + wide, foot, high))
    panels = [below]
    if lines is not None:
        above = canvas.panel(left, foot + high + GAP, wide, high)
        _draw_signal(above, lines, canvas.by)
        panels.append(above)
    for axes in panels:
        axes.set_xlim(-0.5, len(bars) - 0.5)
        axes.tick_params(labelsize=8 * canvas.by, colors=FAINT, length=2)
        axes.spines[:].set_color(FRAME)
    if steps is not None:
        texts = [fitted(text, 100, 8) for text in _texts(np.asarray(steps))]
        widest = max(width_of(text, 8) for text in texts)
        every = max(math.ceil((widest + 8) / (wide * 72 / len(bars))), math.ceil(len(bars) / 12))
        below.set_xticks(range(0, len(bars), every), texts[::every], parse_math=False)
    return canvas.figure


def _draw_values(canvas: Canvas, axes: Axes, bars: Array, corner: tuple[float, float, float]) -> None:
    """Bars, or a strip for each feature; how far colours reach stands at the right, from a corner and a height."""
    right, bottom, high = corner
    places = np.arange(len(bars))
    if bars.ndim == 1:
        ink = [tuple(POSITIVE if value > 0 else NEGATIVE) for value in bars]
        axes.bar(places, np.where(np.isfinite(bars), bars, 0), width=0.9, color=ink)
        axes.axhline(0, color=FRAME, linewidth=0.8)
        for place in places[~np.isfinite(bars)]:
            axes.axvspan(place - 0.45, place + 0.45, color=tuple(NOT_FINITE), linewidth=0)
        canvas.write(missing(bars), right, bottom + high + GAP / 2, size=8, ha="right", faint=True)
        return
    scale = robust_scale(bars)
    features = bars.shape[1]
    extent = (-0.5, len(bars) - 0.5, features, 0)
    axes.imshow(colours(bars.T, scale), aspect="auto", interpolation="nearest", extent=extent)
    every = math.ceil(features / 8)
    axes.set_yticks(np.arange(0, features, every) + 0.5, [str(feature) for feature in range(0, features, every)])
    beyond = "≥ " * bool((np.abs(bars[np.isfinite(bars)]) > scale).any())
    for line, text in enumerate([only_one_value(bars) or f"to {beyond}{number(scale)}", missing(bars)]):
        canvas.write(text, right + 0.06, bottom + high / 2 - 0.14 * line, size=8, ha="left", faint=True)


def _draw_signal(axes: Axes, lines: Array, by: float) -> None:
    axes.set_xticks([])
    if lines.ndim == 1:
        axes.plot(lines, linewidth=1.2, color=INK)
        return
    for feature, line in enumerate(lines.T):
        colour, dashes = SIGNAL[feature % len(SIGNAL)], DASHES[feature // len(SIGNAL) % len(DASHES)]
        axes.plot(line, dashes, linewidth=1.2, color=colour, label=str(feature))
    shown, _ = axes.get_legend_handles_labels()
    more = f"feature\nfirst {LEGEND} of {len(shown)}" if len(shown) > LEGEND else "feature"
    legend = axes.legend(
        handles=shown[:LEGEND],
        title=more,
        ncols=1 + (min(len(shown), LEGEND) > LEGEND // 2),
        loc="upper left",
        bbox_to_anchor=(1.0, 1.06),
        frameon=False,
        fontsize=8 * by,
        title_fontsize=8 * by,
        labelcolor=FAINT,
        handlelength=1.2,
        columnspacing=0.8,
        labelspacing=0.25,
    )
    legend.get_title().set_color(FAINT)


def _texts(steps: Array) -> list[str]:
    """What stands at the steps, with no more digits than tell neighbours apart."""
    if steps.dtype.kind != "f" or len(steps) < 2 or not np.isfinite(steps).all():
        return [str(step) for step in steps]
    apart = np.abs(np.diff(steps))
    least = float(apart[apart > 0].min()) if (apart > 0).any() else 1.0
    if np.abs(steps).max() >= 1e6 or least < 1e-6:
        return [f"{step:.4g}" for step in steps]
    digits = max(math.ceil(-math.log10(least)) + 1, 0) if (steps % 1).any() else 0
    return [f"{step:.{digits}f}".rstrip("0").rstrip(".") if digits else f"{step:.0f}" for step in steps]
