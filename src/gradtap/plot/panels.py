"""The parts of a figure: a photograph, a map on its picture with its scale, the lines above a column."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from gradtap.plot.lettering import broken, fitted, inches, width_of
from gradtap.plot.maps import Array, Interpolation, colours, enlarge_finite, faded_grey, robust_scale

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# A map is drawn with at least this many pixels along its longer side.
PANEL_PIXELS = 224
INK = "#1f2328"
FAINT = "#59636e"
FRAME = "#d1d9e0"
#: Points from one line of a caption to the next.
CAPTION_LINE = 13
#: Text may be wider than its panel by this factor: the gap to the next is 6 hundredths of a panel or more.
WIDER = 1.03


def draw_photograph(axes: Axes, picture: Array, caption: str, by: float = 1.0) -> None:
    """Show a picture ``(height, width, 3)`` with one line below it, or two smaller ones."""
    axes.imshow(picture, interpolation="antialiased", aspect="auto")
    frame(axes)
    room = WIDER * _width(axes)
    if width_of(caption, 10 * by) <= room:
        write(axes, caption, (0.5, 0), -10, size=10, va="center", by=by)
    else:
        write(axes, "\n".join(broken(caption, room, 8.5 * by, 2)), (0.5, 0), -3, size=8.5, va="top", by=by)


def _width(axes: Axes) -> float:
    """In points."""
    return inches(axes)[0] * 72


def draw_map(
    axes: Axes,
    values: Array,
    picture: Array | None,
    interpolation: Interpolation,
    scale: float | None = None,
    *,
    by: float = 1.0,
    scaled: bool = True,
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
    if scaled:
        _draw_scale(axes, values, scale, shared=shared, by=by)


def _hatched(drawn: Array, values: Array) -> Array:
    """Stripes where nothing is finite: plain grey could be taken for a part of the grey photograph."""
    rows, columns = np.indices(values.shape)
    dark = ~np.isfinite(values) & ((rows + columns) % 12 < 3)
    return np.where(dark[..., np.newaxis], 0.5 * drawn, drawn)


def write_heading(axes: Axes, title: str, caption: str, by: float = 1.0) -> None:
    """Write the title of a column above its first panel, and one fainter line between the two, or two."""
    room = WIDER * _width(axes)
    below = caption_lines(caption, room, by)
    lines = shortened_address(title)
    size = 11.0
    if "\n" in lines or width_of(lines, 11 * by) > room:
        size = 8.5
        words = " " in lines and "\n" not in lines
        two = broken(lines, room, 8.5 * by, 2) if words else lines.split("\n")
        # The end of an address tells it from the one beside it.
        lines = "\n".join(fitted(line, room, 8.5 * by, end=True) for line in two)
    up = 6 + CAPTION_LINE * len(below) + 1 if below else 6
    write(axes, lines, (0.5, 1), up, size=size, va="bottom", by=by)
    write(axes, "\n".join(below), (0.5, 1), 5, size=9.5, va="bottom", colour=FAINT, by=by)


def caption_lines(caption: str, room: float, by: float = 1.0) -> list[str]:
    """The lines of a caption above a panel so many points wide."""
    return broken(caption, room, 9.5 * by, 2)


def shortened_address(address: str, width: int = 34) -> str:
    r"""Break a long address once, after the slash nearest to its middle or between words, and cut what is too long.

    Example:
      >>> shortened_address("backbone/block3_sub_block2_out", 24)
      'backbone/\nblock3_sub_block2_out'
    """
    if len(address) <= width:
        return address
    places = (
        [index + 1 for index, letter in enumerate(address[:-1]) if letter in letters] for letters in ("/", " ", "_.:-")
    )
    found = next((ends for ends in places if ends), [len(address)])
    middle = min(found, key=lambda index: abs(index - len(address) / 2))
    halves = [half.strip() for half in (address[:middle], address[middle:]) if half]
    return "\n".join(half if len(half) <= width else f"{half[: width // 2]}…{half[-width // 2 :]}" for half in halves)


def _draw_scale(axes: Axes, values: Array, scale: float, *, shared: bool, by: float) -> None:
    write(axes, missing(values), (0.5, 0), -20, size=8, va="center", colour=FAINT, by=by)
    nothing = only_one_value(values)
    if nothing and not shared:
        write(axes, nothing, (0.5, 0), -10, size=8, va="center", colour=FAINT, by=by)
        return
    # Sized in points below the panel, whatever the panel's height is.
    height = inches(axes)[1] * 72
    draw_bar(axes.inset_axes((0.25, -13 * by / height, 0.5, 6 * by / height)), values, scale, by, _width(axes))


def draw_bar(bar: Axes, values: Array, scale: float, by: float = 1.0, room: float | None = None) -> None:
    """Fill axes with the colours of a scale, its ends beside it: with a sign where values lie beyond them.

    Where the numbers do not fit into the room, in points, the bar gives way to one line.
    """
    finite = values[np.isfinite(values)]
    lowest, highest = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
    low = -scale if lowest < 0 else 0.0
    left = "≤ " * (lowest < -scale) + number(low)
    right = "≥ " * (highest > scale) + number(scale)
    if room is not None and max(width_of(left, 8 * by), width_of(right, 8 * by)) > 0.28 * room:
        bar.set_axis_off()
        sign, beyond = "±" * (low < 0), "≥ " * (max(highest, -lowest) > scale)
        texts = f"{left} … {right}", f"{beyond}{sign}{number(scale)}", f"{sign}{number(scale)}"
        text = next((text for text in texts if width_of(text, 8 * by) <= room), "")
        bar.text(0.5, 0.45, text, transform=bar.transAxes, ha="center", va="center", fontsize=8 * by, color=FAINT)
        return
    bar.imshow(colours(np.linspace(low, scale, 256)[np.newaxis], scale), aspect="auto")
    frame(bar)
    for text, x, side in ((left, -0.04, "right"), (right, 1.04, "left")):
        bar.text(x, 0.45, text, transform=bar.transAxes, ha=side, va="center", fontsize=8 * by, color=FAINT)


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
    axes: Axes,
    text: str,
    place: tuple[float, float],
    points: float,
    *,
    size: float,
    va: str,
    colour: str = INK,
    by: float = 1.0,
) -> None:
    """Write a line at a place of a panel, in fractions of it, and so many points above, all smaller by a factor."""
    axes.annotate(
        text,
        place,
        (0, points * by),
        xycoords="axes fraction",
        textcoords="offset points",
        ha="center",
        va=va,
        fontsize=size * by,
        color=colour,
        # An address may hold a dollar sign, which would start a formula.
        parse_math=False,
    )
