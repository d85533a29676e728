"""Pictures of receptive fields: what is measured beside what is possible, and the regions that excite a channel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from gradtap.plot.canvas import Canvas
from gradtap.plot.lettering import LARGEST, text_factor
from gradtap.plot.maps import Array, PictureError, as_picture, colours, robust_scale
from gradtap.plot.panels import CAPTION_LINE, FAINT, FRAME, INK, WIDER, caption_lines, frame, write, write_heading

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from gradtap.receptive.results import EffectiveField, EffectiveFields, StrongestPatches

# All in inches.
PANEL = 2.6
CROP = 1.05
GAP = 0.16
MARGIN = 0.12
HEAD = 0.62
TITLE = 0.3
FOOT = 0.3
NAMES = 1.5
#: Below a region.
VALUE = 0.28
#: Points of the circle and of the lines.
LINE = 1.3


def receptive(fields: EffectiveFields, *, title: str = "", ax: Axes | None = None) -> Figure:
    """Draw what moves a unit beside what it can see, one panel for each layer.

    The map is the mean absolute gradient, strongest where the colour is; the frame is the theoretical field, the dashed
    ellipse two deviations of the fitted Gaussian, and what is filled is the ``share`` of the field. Of a series the map
    is a line, and the field the shaded part.

    Args:
      fields: What `gradtap.receptive.effective` returns, of one unit for each tap.
      title: Line above the figure.
      ax: Axes to draw in; None for a new figure.

    Returns:
      Figure with one panel for each tap.

    Raises:
      PictureError: There are several units, or the input has more than two axes.
      MissingExtraError: matplotlib is not installed.

    Example:
      >>> import gradtap as gt, keras
      >>> model = keras.Sequential([keras.Input((15, 15, 1)), keras.layers.Conv2D(4, 7, name="conv")])
      >>> gt.plot.receptive(gt.receptive.effective(model, np.ones((1, 15, 15, 1)), at="conv")).savefig("field.png")
    """
    if not fields:
        raise PictureError("there is no field to draw.")
    found: dict[str, EffectiveField] = dict(fields)
    for name, field in found.items():
        if np.ndim(field.sigma) > 1 or np.ndim(field.map) > 2:
            raise PictureError(
                f"the field of `{name}` cannot be drawn.",
                [("received", f"a map {field.map.shape}")],
                "one unit at a time, of an image or of a series",
            )
    titled = TITLE * (bool(title) and ax is None)
    told = {name: _told(field) for name, field in found.items()}

    def area(text: float) -> tuple[float, float]:
        lines = max(len(caption_lines(line, WIDER * PANEL * 72 / text)) for line in told.values())
        head = HEAD + (lines - 1) * CAPTION_LINE / 72
        return 2 * MARGIN + len(found) * (PANEL + GAP) - GAP, head * text + PANEL + FOOT * text + titled

    text = min(text_factor(ax, area), LARGEST)
    canvas = Canvas(*area(text), ax, text)
    canvas.title(title)
    for column, (name, field) in enumerate(found.items()):
        axes = canvas.panel(MARGIN + column * (PANEL + GAP), FOOT * text, PANEL, PANEL)
        (_draw_map if field.map.ndim == 2 else _draw_line)(axes, field)
        write_heading(axes, name, told[name], canvas.by)
        deviation = " × ".join(f"{sigma:.3g}" for sigma in field.sigma)
        below = canvas.fit(f"deviation {deviation}", PANEL + GAP / 2, 9)
        below = canvas.fit(deviation, PANEL + GAP / 2, 9) if "…" in below else below
        write(axes, below, (0.5, 0), -10, size=9, va="center", colour=FAINT, by=canvas.by)
    return canvas.figure


def _told(field: EffectiveField) -> str:
    theory = "everything" if field.theory.everything else " × ".join(map(str, field.theory.size))
    return f"sees {theory}, fills {field.share:.0%}"


def _draw_map(axes: Axes, field: EffectiveField) -> None:
    from matplotlib.patches import Ellipse, Rectangle

    rows, columns = field.map.shape
    axes.imshow(colours(field.map, robust_scale(field.map)), interpolation="nearest")
    down, across = field.theory.of_unit(field.unit)
    corner = across[0] - 0.5, down[0] - 0.5
    box = Rectangle(corner, across[1] - across[0] + 1, down[1] - down[0] + 1, fill=False, color=INK, linewidth=LINE)
    axes.add_patch(box)
    if np.isfinite(field.sigma).all():
        weights = field.map / field.map.sum()
        center = float(weights.sum(0) @ np.arange(columns)), float(weights.sum(1) @ np.arange(rows))
        size = 4 * field.sigma[1], 4 * field.sigma[0]
        axes.add_patch(Ellipse(center, *size, fill=False, color=INK, linewidth=LINE, linestyle=(0, (3, 2))))
    axes.set_xlim(-0.5, columns - 0.5)
    axes.set_ylim(rows - 0.5, -0.5)
    frame(axes)


def _draw_line(axes: Axes, field: EffectiveField) -> None:
    ((first, last),) = field.theory.of_unit(field.unit)
    axes.axvspan(first - 0.5, last + 0.5, color=FRAME, linewidth=0, alpha=0.5)
    axes.plot(field.map, color=INK, linewidth=LINE)
    axes.set_xlim(-0.5, len(field.map) - 0.5)
    axes.set_ylim(0, None)
    axes.set_yticks([])
    axes.tick_params(labelsize=8, colors=FAINT, length=2, pad=-12)
    axes.spines[:].set_color(FRAME)


def patches(
    found: StrongestPatches | Mapping[str, StrongestPatches],
    images: Array | Sequence[Array] | None = None,
    *,
    title: str = "",
    ax: Axes | None = None,
) -> Figure:
    """Draw the regions that excite a channel most, the strongest first: one row for each channel.

    Args:
      found: What `gradtap.receptive.patches` returns, or several by what they are called.
      images: Pictures that the regions are cut out of, one for each example of the data, of the size of the input;
        without them what the network was given is shown.
      title: Line above the figure.
      ax: Axes to draw in; None for a new figure.

    Returns:
      Figure with one row for each channel, each region with its activation below.

    Raises:
      PictureError: There is nothing to draw, or a region is no picture.
      MissingExtraError: matplotlib is not installed.

    Example:
      >>> import gradtap as gt, keras
      >>> model = keras.Sequential([keras.Input((15, 15, 1)), keras.layers.Conv2D(4, 7, name="conv")])
      >>> images = np.random.default_rng(0).uniform(size=(12, 15, 15, 1))
      >>> gt.plot.patches(gt.receptive.patches(model, images, at="conv", channel=0)).savefig("patches.png")
    """
    rows = dict(found) if isinstance(found, Mapping) else {f"{found.at}\nchannel {found.channel}": found}
    longest = max((len(row) for row in rows.values()), default=0)
    if not longest:
        raise PictureError("there is no region to draw.")
    titled = TITLE * (bool(title) and ax is None)

    def area(text: float) -> tuple[float, float]:
        wide = 2 * MARGIN + NAMES * text + longest * (CROP + GAP) - GAP
        return wide, 2 * MARGIN + len(rows) * (CROP + VALUE * text) + titled

    text = min(text_factor(ax, area), LARGEST)
    width, height = area(text)
    canvas = Canvas(width, height, ax, text)
    canvas.title(title)
    for i, (name, row) in enumerate(rows.items()):
        bottom = height - MARGIN - titled - i * (CROP + VALUE * text) - CROP
        names = MARGIN + NAMES * text
        room = (NAMES - 0.16) * text
        canvas.write(name, names - 0.12 * text, bottom + CROP / 2, size=9.5, ha="right", room=room, lines=4)
        shown = [p.crop if images is None else np.asarray(images[p.example])[p.region] for p in row]
        for column, (patch, picture) in enumerate(zip(row, _on_one_scale(shown), strict=True)):
            axes = canvas.panel(names + column * (CROP + GAP), bottom, CROP, CROP)
            axes.imshow(as_picture(picture), interpolation="nearest")
            frame(axes)
            values = [f"{patch.activation:.{digits}g}" for digits in (3, 2, 1)]
            value = next((text for text in values if "…" not in canvas.fit(text, CROP + GAP / 2, 8)), "")
            write(axes, value, (0.5, 0), -8, size=8, va="center", colour=FAINT, by=canvas.by)
    return canvas.figure


def _on_one_scale(pictures: Sequence[Any]) -> list[Array]:
    """What a network was given is not from 0 to 1: all regions of a row are stretched together."""
    low, high = min(np.min(p) for p in pictures), max(np.max(p) for p in pictures)
    if all(np.issubdtype(p.dtype, np.integer) for p in pictures) or (low >= 0 and high <= 1):
        return list(pictures)
    return [(p - low) / ((high - low) or 1.0) for p in pictures]
