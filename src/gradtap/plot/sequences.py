"""Pictures along a sequence: coloured text, a series with what counts in it, and the heads of attention."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from gradtap.plot.canvas import Canvas
from gradtap.plot.maps import NEGATIVE, NOT_FINITE, POSITIVE, Array, PictureError, colours, robust_scale
from gradtap.plot.panels import FAINT, FRAME, INK, frame, missing, number, only_one_value, write

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
SERIES = 7.0, 1.5
HEAD = 1.7
GAP = 0.14


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
    laid = [_lines(text, int((width - 2 * MARGIN) / LETTER)) for text in texts]
    count = sum(len(lines) for lines in laid) + 0.5 * (len(laid) - 1)
    height = 2 * MARGIN + TITLE * bool(title) + count * LINE
    canvas = Canvas(width, height, ax)
    canvas.write(title, width / 2, height - 0.2, size=12)
    scale = robust_scale(np.concatenate([row.ravel() for row in rows]))
    top = height - MARGIN - TITLE * bool(title)
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


def _lines(text: Sequence[str], letters: int) -> list[list[tuple[int, str, int]]]:
    """Lines of tokens, each with its number and the letter that it begins at."""
    lines: list[list[tuple[int, str, int]]] = [[]]
    at = 0
    for index, word in enumerate(text):
        # A dollar sign would start a formula, and what cannot be seen would have no width.
        shown = "".join(letter if letter.isprintable() else "·" for letter in word)[: max(letters, 1)] or "·"
        if lines[-1] and at + len(shown) > letters:
            lines.append([])
            at = 0
        lines[-1].append((index, shown, at))
        at += len(shown) + 1
    return lines


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
    wide, high = SERIES
    rows = 1 + (lines is not None)
    width, height = wide + 4 * MARGIN + 0.5, rows * (high + GAP) + 3 * MARGIN + TITLE * bool(title) + 0.2
    canvas = Canvas(width, height, ax)
    canvas.write(title, width / 2, height - 0.2, size=12)
    left, places = 2 * MARGIN + 0.5, np.arange(len(bars))
    below = canvas.panel(left, 2 * MARGIN + 0.2, wide, high)
    if bars.ndim == 1:
        ink = [tuple(POSITIVE if value > 0 else NEGATIVE) for value in bars]
        below.bar(places, np.where(np.isfinite(bars), bars, 0), width=0.9, color=ink)
        below.axhline(0, color=FRAME, linewidth=0.8)
        for place in places[~np.isfinite(bars)]:
            below.axvspan(place - 0.45, place + 0.45, color=tuple(NOT_FINITE), linewidth=0)
        canvas.write(missing(bars), left + wide, 2 * MARGIN + 0.2 + high + GAP / 2, size=8, ha="right", faint=True)
    else:
        scale = robust_scale(bars)
        shown = colours(bars.T, scale)
        beyond = "≥ " * bool((np.abs(bars[np.isfinite(bars)]) > scale).any())
        reach = only_one_value(bars).replace("no finite", "no finite\n") or f"to {beyond}{number(scale)}"
        for line, text in enumerate([reach, *missing(bars).rsplit(" ", 1)]):
            canvas.write(text, left - 0.06, 2 * MARGIN + 0.2 + high / 2 - 0.14 * line, size=8, ha="right", faint=True)
        below.imshow(shown, aspect="auto", interpolation="nearest", extent=(-0.5, len(bars) - 0.5, bars.shape[1], 0))
        below.set_yticks([])
    panels = [below]
    if lines is not None:
        above = canvas.panel(left, 2 * MARGIN + 0.2 + high + GAP, wide, high)
        above.plot(places, lines, linewidth=1.2, color=INK if lines.ndim == 1 else None)
        above.set_xticks([])
        panels.append(above)
    for axes in panels:
        axes.set_xlim(-0.5, len(bars) - 0.5)
        axes.tick_params(labelsize=8, colors=FAINT, length=2)
        axes.spines[:].set_color(FRAME)
    if steps is not None:
        every = np.unique(np.linspace(0, len(bars) - 1, min(len(bars), 8)).astype(int))
        below.set_xticks(every, [str(np.asarray(steps)[i]) for i in every])
    return canvas.figure


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
    heads = heads[None] if heads.ndim == 2 else heads
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
    longest = max((len(str(word)) for word in [*(words or ()), *(queries or ())]), default=0)
    edge = 0.075 * min(longest, 14) + 0.06 if longest else 0.0
    columns = min(columns, len(heads))
    rows = -(-len(heads) // columns)
    step = HEAD + 0.26
    width = 2 * MARGIN + edge * (queries is not None) + columns * (HEAD + GAP) - GAP
    height = MARGIN + rows * step + TITLE * bool(title) + edge * (words is not None)
    canvas = Canvas(width, height, ax)
    canvas.write(title, width / 2, height - 0.2, size=12)
    scale = float(np.max(np.abs(heads), where=np.isfinite(heads), initial=0)) or 1.0
    for head, matrix in enumerate(heads):
        row, column = divmod(head, columns)
        left = MARGIN + edge * (queries is not None) + column * (HEAD + GAP)
        axes = canvas.panel(left, height - TITLE * bool(title) - (row + 1) * step, HEAD, HEAD)
        axes.imshow(colours(matrix, scale), interpolation="nearest", aspect="auto")
        frame(axes)
        write(axes, f"head {head}", (0.5, 1), 4, size=9, va="bottom")
        if queries is not None and column == 0:
            _name(axes.set_yticks, queries)
        if words is not None and head >= len(heads) - columns:
            _name(axes.set_xticks, words, rotation=90)
        axes.tick_params(labelsize=7, colors=FAINT, length=0, pad=1)
    return canvas.figure


def _name(set_ticks: Any, words: Sequence[str], **how: Any) -> None:
    set_ticks(range(len(words)), [str(word)[:14] for word in words], parse_math=False, **how)
