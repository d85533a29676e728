"""Pictures of text: tokens on the colours of their values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from gradtap.plot.canvas import Canvas
from gradtap.plot.lettering import inches
from gradtap.plot.maps import Array, PictureError, colours, robust_scale
from gradtap.plot.panels import frame

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# All in inches.
MARGIN = 0.12
TITLE = 0.32
#: Of the text of tokens; DejaVu Sans Mono, which comes with matplotlib, is 0.602 of its size wide.
POINTS = 11.0
LETTER = 0.602 * POINTS / 72
LINE = 0.3


def tokens(
    words: Sequence[str] | Sequence[Sequence[str]],
    values: Array | Sequence[Array],
    *,
    width: float = 8.0,
    title: str = "",
    ax: Axes | None = None,
) -> Figure:
    """Draw text in which the colour behind each token is its value: orange above zero, blue below.

    Args:
      words: Tokens of one text, or of several.
      values: One number for each token ``(tokens,)``, or as many for each text.
      width: Of the figure, in inches; lines are broken to fit.
      title: Line above the text.
      ax: Axes to draw in; None for a new figure.

    Returns:
      Figure with each text on lines of its own. One scale holds for all of them.

    Raises:
      PictureError: There is no token, or tokens and values differ in number.
      MissingExtraError: matplotlib is not installed.

    Example:
      >>> tokens(["not", "bad", "at", "all"], [0.3, 0.8, 0.0, -0.1]).savefig("tokens.png")
    """
    one = all(isinstance(word, str) for word in words)
    texts: list[list[str]] = [[str(word) for word in words]] if one else [list(text) for text in words]
    rows = [np.asarray(values)] if len(texts) == 1 and np.ndim(values) == 1 else [np.asarray(row) for row in values]
    if not any(texts):
        raise PictureError("there is no token to draw.")
    if [len(text) for text in texts] != [row.size for row in rows]:
        facts = [("tokens", str([len(text) for text in texts])), ("values", str([row.shape for row in rows]))]
        raise PictureError("tokens and values differ in number.", facts)
    width = width if ax is None else _best_width(texts, width, inches(ax))
    laid, height = _laid(texts, width)
    titled = TITLE * (bool(title) and ax is None)
    height += titled
    canvas = Canvas(width, height, ax)
    canvas.title(title)
    scale = robust_scale(np.concatenate([row.ravel() for row in rows]))
    top = height - MARGIN - titled
    for lines, row in zip(laid, rows, strict=True):
        for line in lines:
            for index, word, begin in line:
                left = MARGIN + begin * LETTER
                box = canvas.panel(left - 0.3 * LETTER, top - LINE + 0.02, (len(word) + 0.6) * LETTER, LINE - 0.04)
                shade = colours(np.array([[float(row.ravel()[index])]]), 1.6 * scale)
                box.set_facecolor(tuple(shade[0, 0]))
                frame(box)
                box.spines[:].set_visible(False)
                canvas.write(word, left, top - LINE / 2, size=POINTS, ha="left", va="center", family="DejaVu Sans Mono")
            top -= LINE
        top -= LINE / 2
    return canvas.figure


def _laid(texts: Sequence[Sequence[str]], width: float) -> tuple[list[list[list[tuple[int, str, int]]]], float]:
    """The lines of every text, and the height of all, in inches."""
    laid = [_lines(text, int((width - 2 * MARGIN) / LETTER)) for text in texts]
    return laid, 2 * MARGIN + (sum(len(lines) for lines in laid) + 0.5 * (len(laid) - 1)) * LINE


def _best_width(texts: Sequence[Sequence[str]], width: float, room: tuple[float, float]) -> float:
    """The width at which text fills somebody's axes best: lines are broken there before letters shrink."""
    widths = [float(one) for one in np.geomspace(width, min(width, 1.5), 24)]
    return max(widths, key=lambda wide: min(room[0] / wide, room[1] / _laid(texts, wide)[1], 1.0))


def _lines(text: Sequence[str], letters: int) -> list[list[tuple[int, str, int]]]:
    """Lines of tokens, each with its number and the letter that it begins at."""
    lines: list[list[tuple[int, str, int]]] = [[]]
    at = 0
    for index, word in enumerate(text):
        # A dollar sign would start a formula, and what cannot be seen would have no width.
        shown = "".join(letter if letter.isprintable() else "·" for letter in word) or "·"
        shown = shown if len(shown) <= letters else f"{shown[: max(letters - 1, 0)]}…"
        if lines[-1] and at + len(shown) > letters:
            lines.append([])
            at = 0
        lines[-1].append((index, shown, at))
        at += len(shown) + 1
    return lines
