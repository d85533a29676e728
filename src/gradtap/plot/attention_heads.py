"""Pictures of attention: a matrix for each head."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from gradtap.plot.canvas import Canvas
from gradtap.plot.lettering import LARGEST, inches, text_factor, width_of
from gradtap.plot.maps import Array, PictureError, colours
from gradtap.plot.panels import FAINT, draw_bar, frame, missing, only_one_value, write

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# All in inches.
MARGIN = 0.12
TITLE = 0.32
HEAD = 1.7
GAP = 0.14
#: Above a head.
NAME = 0.26
#: For the scale.
FOOT = 0.36


def attention(
    weights: Array,
    words: Sequence[str] | None = None,
    *,
    queries: Sequence[str] | None = None,
    title: str = "",
    columns: int = 4,
    ax: Axes | None = None,
) -> Figure:
    """Draw the heads of an attention layer as matrices: a row for each query, a column for each key.

    Args:
      weights: ``(heads, queries, keys)`` of one example, or one matrix: probabilities, or their gradients, where blue
        is below zero. One scale holds for all heads.
      words: What the keys are, and the queries where they are not named.
      queries: What the queries are.
      title: Line above the figure.
      columns: Heads in a row of the figure.
      ax: Axes to draw in; None for a new figure.

    Returns:
      Figure with a panel for each head.

    Raises:
      PictureError: The weights are no matrices, or the words are not as many as the keys.
      MissingExtraError: matplotlib is not installed.

    Example:
      >>> attention(np.eye(3)[None], ["a", "b", "c"]).savefig("attention.png")
    """
    heads = np.asarray(weights, np.float64)
    single = heads.ndim == 2
    heads = heads[None] if single else heads
    if heads.ndim != 3 or not heads.size:
        batch = heads.ndim == 4
        remedy = f"{'drop the batch axis' if len(heads) == 1 else 'draw one example'}: weights[0]" if batch else ()
        facts = [("expected", "(heads, queries, keys) or (queries, keys)"), ("received", str(heads.shape))]
        raise PictureError("this is no attention of one example.", facts, remedy)
    queries = words if queries is None and heads.shape[1] == heads.shape[2] else queries
    for names, size in ((words, heads.shape[2]), (queries, heads.shape[1])):
        if names is not None and len(names) != size:
            raise PictureError(
                "words and weights differ in number.", [("words", str(len(names))), ("places", str(size))]
            )
    edge = max((width_of(_cut(word), 7) / 72 + 0.06 for word in [*(words or ()), *(queries or ())]), default=0.0)
    columns = min(columns, len(heads))
    rows = -(-len(heads) // columns)
    titled = TITLE * (bool(title) and ax is None)

    def area(text: float) -> tuple[float, float]:
        wide = 2 * MARGIN + edge * text * (queries is not None) + columns * (HEAD + GAP) - GAP
        high = MARGIN + rows * (HEAD + NAME * text) + edge * text * (words is not None) + FOOT * text
        return wide, high + titled

    text = min(text_factor(ax, area), LARGEST)
    width, height = area(text)
    canvas = Canvas(width, height, ax, text)
    canvas.title(title)
    scale = float(np.max(np.abs(heads), where=np.isfinite(heads), initial=0)) or 1.0
    for head, matrix in enumerate(heads):
        row, column = divmod(head, columns)
        left = MARGIN + edge * text * (queries is not None) + column * (HEAD + GAP)
        axes = canvas.panel(left, height - titled - (row + 1) * (HEAD + NAME * text), HEAD, HEAD)
        axes.imshow(colours(matrix, scale), interpolation="nearest", aspect="auto")
        frame(axes)
        write(axes, "" if single else f"head {head}", (0.5, 1), 4, size=9, va="bottom", by=canvas.by)
        if queries is not None and column == 0:
            _name(axes.set_yticks, queries, inches(axes)[1], canvas.by)
        if words is not None and head >= len(heads) - columns:
            _name(axes.set_xticks, words, inches(axes)[0], canvas.by, rotation=90)
        axes.tick_params(labelsize=7 * canvas.by, colors=FAINT, length=0, pad=1)
        axes.tick_params(axis="x", pad=4 * canvas.by)  # the first column's name stands beside the last row's
    _draw_scale(canvas, heads, scale, width / 2, text)
    return canvas.figure


def _draw_scale(canvas: Canvas, heads: Array, scale: float, middle: float, text: float) -> None:
    if nothing := only_one_value(heads):
        canvas.write(nothing, middle, MARGIN + 0.1 * text, size=8, faint=True)
    else:
        bar = canvas.panel(middle - HEAD / 4, MARGIN + 0.14 * text, HEAD / 2, 6 / 72 * text)
        draw_bar(bar, heads, scale, canvas.by)
    canvas.write(missing(heads), middle, MARGIN + 0.02 * text, size=8, faint=True)


def _cut(word: object, letters: int = 14) -> str:
    text = str(word)
    return text if len(text) <= letters else f"{text[: letters - 1]}…"


def _name(set_ticks: Any, words: Sequence[str], length: float, by: float, **how: Any) -> None:
    """Name the cells along so many inches: every one, or every second, third, ... where they would touch."""
    every = math.ceil((7 * by + 1) * len(words) / (length * 72))
    set_ticks(range(0, len(words), every), [_cut(word) for word in words][::every], parse_math=False, **how)
