"""The figures: one heat map, and the layers of a network beside the photograph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from textwrap import wrap
from typing import TYPE_CHECKING, Any

import numpy as np

from gradtap.plot.canvas import Canvas
from gradtap.plot.lettering import LARGEST, broken, text_factor
from gradtap.plot.maps import Array, Interpolation, PictureError, as_picture, robust_scale
from gradtap.plot.panels import CAPTION_LINE, WIDER, caption_lines, draw_map, draw_photograph, write_heading

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# All in inches. A panel's height follows from its picture.
PANEL_WIDTH = 2.9
GAP = 0.2
MARGIN = 0.12
TITLE_LINE = 0.28
NOTE_LINE = 0.19
HEADING = 0.55
SCALE = 0.36
# Letters to an inch, at the size that the note is written in.
NOTE_LETTERS = 13.5
# So many panels stand in one row; of more, at most so many.
ONE_ROW, MANY_ROWS = 8, 6


def heatmap(
    values: Array,
    image: Array | None = None,
    *,
    title: str = "",
    caption: str = "",
    note: str = "",
    interpolation: Interpolation = "bilinear",
    ax: Axes | None = None,
) -> Figure:
    """Draw one map over a photograph, with its scale below.

    Orange stands for positive values, blue for negative ones; the colour is strongest from the 99th percentile of the
    magnitudes above zero on (``robust_scale``), and an end of the scale that values lie beyond says so. What is not
    finite is striped grey, and counted in the scale line.

    Args:
      values: Map ``(rows, columns)``, such as gradient x activation summed over the channels.
      image: ``(height, width)``, ``(height, width, 1)`` or ``(height, width, 3)``, whole numbers from 0 to 255 or
        floats. It is shown grey under the map. Without one the map stands on white.
      title: First line above the map, such as the tap's address.
      caption: Second, fainter line, such as the size of the layer.
      note: Line below the figure.
      interpolation: ``"bilinear"``, or ``"nearest"`` to see the map's own cells.
      ax: Axes to draw in; None for a new figure.

    Returns:
      Figure of one panel; ``figure.savefig("map.png")`` writes it.

    Raises:
      PictureError: The map or the image has a shape that is not listed above.
      MissingExtraError: matplotlib is not installed.

    Example:
      >>> heatmap(np.ones((7, 7)), title="head_relu").savefig("map.png")
    """
    maps = {title: _one_map(values, image)}
    return layers(maps, image, captions=[caption], note=note, interpolation=interpolation, show_images=False, ax=ax)


def layers(
    maps: Mapping[str, Array],
    images: Array | Sequence[Array] | None = None,
    *,
    title: str = "",
    captions: Sequence[str] = (),
    image_captions: Sequence[str] = (),
    note: str = "",
    interpolation: Interpolation = "bilinear",
    show_images: bool = True,
    one_scale: bool = False,
    ax: Axes | None = None,
) -> Figure:
    """Draw the maps of several layers beside the photographs: one row per example, one column per layer.

    Every panel has a scale printed below it, by one rule (``robust_scale``): its own, or that of all maps together.

    Args:
      maps: Title, such as a tap's address, to a map ``(rows, columns)`` or to maps ``(batch, rows, columns)``.
      images: One image, or a batch or a list of images, as ``heatmap`` takes them. Without them the maps stand on
        white.
      title: Line above the whole figure.
      captions: One line per map, below its title; none at all, or as many as maps.
      image_captions: One line per example, below its photograph; none at all, or as many as examples.
      note: Line below the figure, such as what the colours mean.
      interpolation: ``"bilinear"``, or ``"nearest"`` to see the maps' own cells.
      show_images: Whether the photographs take the first column.
      one_scale: Whether the same colour means the same value in every panel. Magnitudes at different depths may differ
        by orders, and what is small then stays pale.
      ax: Axes to draw in; None for a new figure.

    Returns:
      Figure with ``batch`` rows and ``len(maps)`` columns, plus one for the photographs; of more than 8 panels, several
      rows for each example. In small axes the lines below the panels are left out.

    Raises:
      PictureError: There is no map, or numbers of examples or captions differ, or a shape cannot be drawn.
      MissingExtraError: matplotlib is not installed.

    Example:
      >>> layers({"conv1": np.ones((28, 28)), "conv2": np.ones((14, 14))}).savefig("layers.png")
    """
    columns = {name: _batch_of_maps(name, values) for name, values in maps.items()}
    examples = _number_of_examples(columns)
    pictures = _pictures(images, examples)
    _check_captions("captions", captions, "maps", len(columns))
    _check_captions("image_captions", image_captions, "examples", examples)
    photographs = int(show_images and pictures is not None)
    ratio = _height_over_width(pictures[0] if pictures else next(iter(columns.values()))[0])
    if pictures:
        note = " · ".join(filter(None, [note, _stretched(pictures, ratio)]))
    grid = _Grid(len(columns) + photographs, examples, PANEL_WIDTH * ratio, title if ax is None else "", note, captions)
    text = text_factor(ax, grid.size)
    if text > 4:  # scales below every panel would leave little of the panels
        grid = replace(grid, scaled=False)
        text = min(text_factor(ax, grid.size), LARGEST)
    width, height = grid.size(text)
    canvas = Canvas(width, height, ax, text)
    if ax is not None:
        canvas.title(title, 13)
    for index, line in enumerate(grid.titles):
        canvas.write(line, width / 2, height - (0.24 + index * TITLE_LINE) * text, size=13)
    for index, line in enumerate(grid.notes(text)):
        bottom = grid.foot(text) - MARGIN - (index + 0.5) * NOTE_LINE * text
        canvas.write(line, width / 2, bottom, size=9.5, faint=True)
    scale = robust_scale(np.concatenate([v.ravel() for v in columns.values()])) if one_scale else None
    for row in range(examples):
        for cell in range(len(columns) + photographs):
            left, top = grid.place(row, cell, text)
            axes = canvas.panel(left, height - top - grid.panel, PANEL_WIDTH, grid.panel)
            if pictures is not None and cell < photographs:
                draw_photograph(axes, pictures[row], _nth(image_captions, row) if grid.scaled else "", canvas.by)
                continue
            name, values = list(columns.items())[cell - photographs]
            if row == 0 or grid.lines > 1:
                write_heading(axes, name, _nth(captions, cell - photographs), canvas.by)
            picture = pictures[row] if pictures else None
            draw_map(axes, values[row], picture, interpolation, scale, by=canvas.by, scaled=grid.scaled)
    return canvas.figure


@dataclass(frozen=True)
class _Grid:
    """Where the panels are: each example in a row, or in several where there are many maps.

    Args:
      cells: Panels of one example.
      examples: How many.
      panel: Height of one, in inches.
      title: Above the figure.
      note: Below it.
      captions: One for each map.
      scaled: Whether there is room for a scale below each panel.
    """

    cells: int
    examples: int
    panel: float
    title: str
    note: str
    captions: Sequence[str]
    scaled: bool = True

    @property
    def lines(self) -> int:
        """Rows of panels for one example."""
        return 1 if self.cells <= ONE_ROW else -(-self.cells // MANY_ROWS)

    @property
    def across(self) -> int:
        """Panels in a row."""
        return -(-self.cells // self.lines)

    @property
    def width(self) -> float:
        """Of the figure, in inches."""
        return 2 * MARGIN + self.across * (PANEL_WIDTH + GAP) - GAP

    @property
    def titles(self) -> list[str]:
        """The lines above."""
        return broken(self.title, (self.width - 2 * MARGIN) * 72, 13, 4)

    def notes(self, text: float) -> list[str]:
        """The lines below."""
        return wrap(self.note, max(int(self.width * NOTE_LETTERS / text), 8))

    def foot(self, text: float) -> float:
        """Below the last row."""
        notes = self.notes(text)
        return MARGIN + bool(notes) * MARGIN + NOTE_LINE * text * len(notes)

    def heading(self, text: float) -> float:
        """Above a row with titles."""
        room = WIDER * PANEL_WIDTH * 72
        more = max((len(caption_lines(caption, room / text)) for caption in self.captions), default=1) - 1
        return (HEADING + max(more, 0) * CAPTION_LINE / 72) * text

    def below(self, text: float) -> float:
        """Below a panel."""
        return SCALE * text if self.scaled else GAP

    def size(self, text: float) -> tuple[float, float]:
        """Of everything, in inches."""
        rows = self.examples * self.lines
        headed = rows if self.lines > 1 else 1
        head = MARGIN + TITLE_LINE * text * len(self.titles) + headed * self.heading(text)
        return self.width, head + rows * (self.panel + self.below(text)) + self.foot(text)

    def place(self, example: int, cell: int, text: float) -> tuple[float, float]:
        """Left edge of a panel, and how far its upper edge is below the top."""
        row = example * self.lines + cell // self.across
        headed = row + 1 if self.lines > 1 else 1
        head = MARGIN + TITLE_LINE * text * len(self.titles) + headed * self.heading(text)
        left = MARGIN + cell % self.across * (PANEL_WIDTH + GAP)
        return left, head + row * (self.panel + self.below(text))


def _stretched(pictures: Sequence[Array], ratio: float) -> str:
    """What is said where pictures are drawn in other proportions than their own."""
    sizes = {picture.shape[:2]: picture.shape[0] / picture.shape[1] for picture in pictures}
    off = [size for size, own in sizes.items() if abs(own / ratio - 1) > 0.02]
    if not off:
        return ""
    drawn = f"1 : {1 / ratio:.3g}" if ratio < 1 else f"{ratio:.3g} : 1"
    named = ", ".join(f"{rows} × {columns}" for rows, columns in off[:3]) + ", …" * (len(off) > 3)
    return f"not in proportion: {named} pixels, drawn {drawn}"


def _one_map(values: Any, image: Any) -> Any:
    """Refuse what is often given in the place of a map, and say what to give."""
    if isinstance(values, Mapping):
        taps = list(values)
        remedy = f"pass result[{taps[-1]!r}][0], the map of one tap and one example" if taps else ()
        raise PictureError(
            "a result is no map.", [("received", type(values).__name__), ("taps", ", ".join(taps))], remedy
        )
    shape = np.shape(values)
    received = [("received", str(shape))]
    if len(shape) == 3 and np.ndim(image) == 2 and image is not None:
        raise PictureError(
            "the map and the image are swapped.",
            [("values", str(shape)), ("image", str(np.shape(image)))],
            "pass the map first: heatmap(values, image)",
        )
    if len(shape) == 3 and shape[0] != 1:
        remedies = [
            "with channels last, sum over them: values.sum(-1)",
            "with a batch first, pass values[0], or use plot.layers",
        ]
        raise PictureError("a heat map shows one map (rows, columns).", received, remedies)
    return values


def _check_captions(name: str, lines: Sequence[str], things: str, count: int) -> None:
    if isinstance(lines, str):
        raise PictureError(
            f"`{name}` is one text.", [("received", repr(lines))], f"pass a list, one for each of the {things}"
        )
    if len(lines) not in (0, count):
        raise PictureError(
            f"`{name}` are not as many as the {things}.", [(name, str(len(lines))), (things, str(count))]
        )


def _batch_of_maps(name: str, values: Any) -> Array:
    array = np.asarray(values)
    batch = array[np.newaxis] if array.ndim == 2 else array
    if batch.ndim != 3 or 0 in batch.shape or batch.dtype.kind not in "iufb":
        expected = "real numbers (rows, columns) or (batch, rows, columns)"
        raise PictureError(
            f"`{name}` is not a map.", [("expected", expected), ("received", f"{array.shape}, {array.dtype}")]
        )
    return batch.astype(np.float64)


def _number_of_examples(columns: Mapping[str, Array]) -> int:
    counts = {name: len(values) for name, values in columns.items()}
    if not counts:
        raise PictureError("there is no map to draw.")
    if len(set(counts.values())) > 1:
        facts = [("examples", ", ".join(f"{count} in `{name}`" for name, count in counts.items()))]
        raise PictureError("the maps have different numbers of examples.", facts)
    return next(iter(counts.values()))


def _pictures(images: Any, examples: int) -> list[Array] | None:
    if images is None:
        return None
    # A list is one image per example; so is an array with a batch axis before height, width and channels.
    batch = list(images) if isinstance(images, list | tuple) or np.ndim(images) == 4 else [images]
    if len(batch) != examples:
        raise PictureError(f"there are maps of {examples} examples but {len(batch)} images.")
    return [as_picture(np.asarray(image)) for image in batch]


def _height_over_width(picture: Array) -> float:
    # A very long or very flat picture would make a figure that no screen shows.
    return float(np.clip(picture.shape[0] / picture.shape[1], 0.2, 3.0))


def _nth(lines: Sequence[str], index: int) -> str:
    return lines[index] if index < len(lines) else ""
