"""Results as tables of HTML, which notebooks show in the place of their text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import NamedTuple

#: Of a picture in a cell, in pixels.
_HEIGHT = 64


class Picture(NamedTuple):
    """A picture in a cell.

    Args:
      source: A ``data:`` URI.
      alternative: What is read out in its place.
    """

    source: str
    alternative: str


Cell = str | Picture


def html_table(
    head: Sequence[str], rows: Iterable[Sequence[Cell]], *, caption: str = "", below: Iterable[str] = ()
) -> str:
    """Write a table; all text is escaped.

    Args:
      head: The names of the columns.
      rows: The cells of each row; the first one is an address, and is set as code.
      caption: What the table is.
      below: Sentences that follow it.

    Returns:
      HTML.

    Example:
      >>> html_table(["tap"], [["a<b"]])
      '<table><tr><th>tap</th></tr><tr><td><code>a&lt;b</code></td></tr></table>'
    """
    title = f"<caption>{escape(caption)}</caption>" if caption else ""
    names = "".join(f"<th>{escape(name)}</th>" for name in head)
    body = "".join(f"<tr>{''.join(_cell(i, cell) for i, cell in enumerate(row))}</tr>" for row in rows)
    said = "".join(f"<p>{escape(sentence)}</p>" for sentence in below)
    return f"<table>{title}<tr>{names}</tr>{body}</table>{said}"


def _cell(column: int, cell: Cell) -> str:
    if isinstance(cell, Picture):
        how = f'height="{_HEIGHT}" style="image-rendering:pixelated"'
        return f'<td><img src="{escape(cell.source)}" alt="{escape(cell.alternative)}" {how}></td>'
    return f"<td><code>{escape(cell)}</code></td>" if column == 0 else f"<td>{escape(cell)}</td>"
