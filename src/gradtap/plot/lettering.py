"""How wide text is, where it is broken, and how much room it needs in axes that are small."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: Text becomes no smaller than this share of its own size: 8 points of 10.
LEGIBLE = 0.8
#: How many times larger than the panels text is laid out at most: beyond, nothing of the panels would be left.
LARGEST = 10.0


@lru_cache(4096)
def width_of(text: str, size: float) -> float:
    """Width of a line in points, at a size in points."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    width, _, _ = text_to_path.get_text_width_height_descent(text, FontProperties(size=size), ismath=False)
    return float(width)


def fitted(text: str, room: float, size: float, *, end: bool = False) -> str:
    """Cut a line that is wider than its room, in points, and put an ellipsis there: its end, or all but its end."""
    if width_of(text, size) <= room:
        return text
    if end:
        return fitted(text[::-1], room, size)[::-1]
    fits = [end for end in range(len(text)) if width_of(f"{text[:end].rstrip()}…", size) <= room]
    return f"{text[: max(fits, default=0)].rstrip()}…"


def broken(text: str, room: float, size: float, most: int) -> list[str]:
    """Break text into lines that fit their room, in points: at spaces, and words too long after a slash or the like.

    Args:
      text: What is written; a line break in it stays.
      room: Width of a line.
      size: Of the letters.
      most: How many lines there may be; the last one is cut.

    Returns:
      The lines; none for empty text.
    """
    lines: list[str] = []
    for paragraph in text.split("\n") if text else []:
        lines.append("")
        for piece in _pieces(paragraph, room, size):
            if lines[-1] and width_of((lines[-1] + piece).rstrip(), size) > room:
                lines.append("")
            lines[-1] += piece
    kept = [line.strip() for line in lines]
    if len(kept) > most:
        kept = [*kept[: most - 1], " ".join(kept[most - 1 :])]
    return [fitted(line, room, size) for line in kept]


def _pieces(text: str, room: float, size: float) -> list[str]:
    pieces: list[str] = []
    for word in re.findall(r"\S+\s*", text):
        short = width_of(word.rstrip(), size) <= room
        pieces += [word] if short else re.findall(r"[^/_.:-]*[/_.:-]+\s*|[^/_.:-]+", word)
    return pieces


def text_factor(ax: Axes | None, area: Callable[[float], tuple[float, float]]) -> float:
    """How many times larger than its panels text must be laid out to stay legible in somebody's axes.

    Everything in somebody's axes shrinks alike. What is laid out for text is made larger before by this factor, and the
    panels give way.

    Args:
      ax: The axes; None for a figure of its own, where nothing shrinks.
      area: Gives width and height of everything in inches, with the lengths for text multiplied by the factor.

    Returns:
      The factor, from 1; infinite where not even the largest is enough.
    """
    if ax is None:
        return 1.0
    wide, high = inches(ax)
    for factor in np.geomspace(1, LARGEST, 50):
        width, height = area(float(factor))
        if factor * min(wide / width, high / height) >= LEGIBLE:
            return float(factor)
    return float("inf")


def inches(ax: Axes) -> tuple[float, float]:
    """Width and height of axes."""
    extent = ax.get_window_extent()
    dots: float = ax.get_figure(root=True).dpi  # type: ignore[union-attr]
    return extent.width / dots, extent.height / dots
