"""The parts of a figure: a photograph, a map on its picture with its scale, the lines above a column."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from gradtap.plot.maps import Array, Interpolation, colours, enlarge_finite, faded_grey, robust_scale

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# A map is drawn with at least this many pixels along its longer side.
PANEL_PIXELS = 224
INK = "#1f2328"
FAINT = "#59636e"
FRAME = "#d1d9e0"


def draw_photograph(axes: Axes, picture: Array, caption: str) -> None:
    """Show a picture ``(height, width, 3)`` with one line below it."""
    axes.imshow(picture, interpolation="antialiased", aspect="auto")
    frame(axes)
    write(axes, caption, (0.5, 0), -10, size=10, va="center")


def draw_map(
    axes: Axes, values: Array, picture: Array | None, interpolation: Interpolation, scale: float | None = None
) -> None:
    """Show a map ``(rows, columns)`` over its picture ``(height, width, 3)``, or on white, with its scale below."""
    shared = scale is not None
    scale = scale or robust_scale(values)
    rows, columns = values.shape if picture is None else picture.shape[:2]
    # A picture of few pixels would also cut the map into few: its pixels are repeated.
    times = -(-PANEL_PIXELS // max(rows, columns))
    ground = None if picture is None else faded_grey(picture).repeat(times, axis=0).repeat(times, axis=1)
    shown = enlarge_finite(values, rows * times, columns * times, interpolation)
    axes.imshow(_hatched(colours(shown, scale, ground), shown), interpolation="antialiased", aspect="auto")
    frame(axes)
    _draw_scale(axes, values, scale, shared=shared)


def _hatched(drawn: Array, values: Array) -> Array:
    """Stripes where nothing is finite: plain grey could be taken for a part of the grey photograph."""
    rows, columns = np.indices(values.shape)
    dark = ~np.isfinite(values) & ((rows + columns) % 12 < 3)
    return np.where(dark[..., np.newaxis], 0.5 * drawn, drawn)


def write_heading(axes: Axes, title: str, caption: str) -> None:
    """Write the title of a column above its first panel, and a fainter line between the two."""
    lines = shortened_address(title)
    write(axes, lines, (0.5, 1), 20 if caption else 6, size=8.5 if "\n" in lines else 11, va="bottom")
    write(axes, caption, (0.5, 1), 5, size=9.5, va="bottom", colour=FAINT)


def shortened_address(address: str, width: int = 34) -> str:
    r"""Break a long address once, after the slash nearest to its middle, and cut what is still too long.

    Example:
      >>> shortened_address("backbone/block3_sub_block2_out", 24)
      'backbone/\nblock3_sub_block2_out'
    """
    if len(address) <= width:
        return address
    slashes = [index + 1 for index, letter in enumerate(address) if letter == "/"] or [len(address) // 2]
    middle = min(slashes, key=lambda index: abs(index - len(address) / 2))
    halves = address[:middle], address[middle:]
    return "\n".join(half if len(half) <= width else f"{half[: width // 2]}…{half[-width // 2 :]}" for half in halves)


def _draw_scale(axes: Axes, values: Array, scale: float, *, shared: bool) -> None:
    write(axes, missing(values), (0.5, 0), -20, size=8, va="center", colour=FAINT)
    nothing = only_one_value(values)
    if nothing and not shared:
        write(axes, nothing, (0.5, 0), -10, size=8, va="center", colour=FAINT)
        return
    # Sized in points below the panel, whatever the panel's height is.
    height = axes.get_window_extent().height * 72 / axes.figure.dpi
    draw_bar(axes.inset_axes((0.25, -13 / height, 0.5, 6 / height)), values, scale)


def draw_bar(bar: Axes, values: Array, scale: float) -> None:
    """Fill axes with the colours of a scale, its ends beside it: with a sign where values lie beyond them."""
    finite = values[np.isfinite(values)]
    lowest, highest = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
    low = -scale if lowest < 0 else 0.0
    bar.imshow(colours(np.linspace(low, scale, 256)[np.newaxis], scale), aspect="auto")
    frame(bar)
    left = "≤ " * (lowest < -scale) + number(low)
    right = "≥ " * (highest > scale) + number(scale)
    for text, x, side in ((left, -0.04, "right"), (right, 1.04, "left")):
        bar.text(x, 0.45, text, transform=bar.transAxes, ha=side, va="center", fontsize=8, color=FAINT)


def only_one_value(values: Array) -> str:
    """What takes the place of a scale where there is nothing but zeros, or nothing finite; empty otherwise."""
    finite = values[np.isfinite(values)]
    return "" if finite.any() else "all zero" if finite.size else "no finite value"


def missing(values: Array) -> str:
    """How many values are not finite; empty where all are, or none is."""
    count = int((~np.isfinite(values)).sum())
    return f"{count} not finite" if 0 < count < values.size else ""


def number(value: float) -> str:
    """Two digits of an end of a scale."""
    return f"{value:.2g}".replace("-", "\N{MINUS SIGN}")


def frame(axes: Axes) -> None:
    """Take the ticks away and draw a faint frame."""
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_color(FRAME)


def write(
    axes: Axes, text: str, place: tuple[float, float], points: float, *, size: float, va: str, colour: str = INK
) -> None:
    """Write a line at a place of a panel, in fractions of it, and so many points above."""
    axes.annotate(
        text,
        place,
        (0, points),
        xycoords="axes fraction",
        textcoords="offset points",
        ha="center",
        va=va,
        fontsize=size,
        color=colour,
        # An address may hold a dollar sign, which would start a formula.
        parse_math=False,
    )
