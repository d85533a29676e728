"""Curves: robust accuracy against the size of an attack, deletion and insertion, completeness against steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from gradtap.errors import MissingExtraError
from gradtap.plot.lettering import fitted, width_of
from gradtap.plot.maps import Array, PictureError
from gradtap.plot.panels import FAINT, FRAME, INK

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from gradtap.results import PathAttributions

#: Okabe and Ito's palette, dark ones first: told apart with every common form of colour blindness.
PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000")
#: After the last colour they begin again, drawn in another way.
DASHES = ("-", "--", ":", "-.")
WIDTH, HEIGHT = 6.4, 4.2
#: The names of more lines than this stand beside the figure.
FEW = 6


@dataclass(frozen=True)
class _Line:
    """A line and what its axes mean.

    Args:
      x: ``(points,)``.
      y: ``(points,)``.
      axes: The words below and beside.
      band: Lower and upper ends of a band around it, ``(points,)`` each.
      is_share: Whether the values go from 0 to 1 and are shown as percentages.
      is_error: Whether both axes are logarithmic.
    """

    x: Array
    y: Array
    axes: tuple[str, str]
    band: tuple[Array, Array] | None = None
    is_share: bool = False
    is_error: bool = False


def curve(results: Any, *, title: str = "", note: str = "", ax: Axes | None = None) -> Figure:
    """Draw how something falls or rises: robust accuracy, deletion and insertion, or completeness.

    Args:
      results: What `gradtap.attacks.robust_accuracy` returned; what `gradtap.evaluate.deletion` or ``insertion``
        returned, drawn as the mean over the examples with the middle half of them as a band; a list of what one method
        returned for several numbers of steps, such as integrated gradients, drawn as the mean of ``|delta|`` against
        ``.steps``, both logarithmic; or a pair ``(x, y)`` of arrays ``(points,)``. Or a mapping from names to such
        results, all of one kind: a line for each. A result at several taps is a line for each tap.
      title: Line above the figure.
      note: Fainter line below it.
      ax: Axes to draw into, such as a panel of a figure of your own; None makes a figure.

    Returns:
      Figure of one panel, or that of ``ax``.

    Raises:
      PictureError: There is nothing to draw, or what is given is none of these, or the kinds differ.
      MissingExtraError: matplotlib is not installed.

    Example:
      >>> curve({"natural": ([0.0, 0.1, 0.2], [0.98, 0.4, 0.05])}).savefig("curve.png")
    """
    # A result is a mapping as well, of a class of its own.
    named = results if isinstance(results, Mapping) and not hasattr(type(results), "only") else {"": results}
    lines = {name: line for key, result in named.items() for name, line in _lines(str(key), result).items()}
    _check(lines)
    if ax is None:
        try:
            from matplotlib.figure import Figure
        except ImportError:
            raise MissingExtraError.of("viz", "drawing a picture") from None
        beside = _beside(lines)
        figure = Figure(figsize=(WIDTH + beside, HEIGHT), dpi=120, facecolor="white", layout="constrained")
        ax = figure.add_subplot()
    else:
        beside = 0.0
    for number, (name, line) in enumerate(lines.items()):
        _draw(ax, name, line, PALETTE[number % len(PALETTE)], DASHES[number // len(PALETTE) % len(DASHES)])
    _dress(ax, list(lines.values()), title, note)
    if any(lines):
        _name(ax, beside > 0, len(lines) > FEW)
    return ax.figure  # type: ignore[return-value]


def _lines(name: str, result: Any) -> dict[str, _Line]:
    """The lines of one result, by name."""
    # They bring TensorFlow along, which a picture of arrays does not need.
    from gradtap.attacks.robustness import RobustAccuracy
    from gradtap.evaluate.curves import Curves
    from gradtap.results import PathAttributions

    if isinstance(result, RobustAccuracy):
        return {name: _Line(result.epsilons, result.accuracy, ("epsilon", "robust accuracy"), is_share=True)}
    if isinstance(result, Curves):
        words = "share of the positions that is changed", "target"
        return {_at(name, key, result): _spread(result.fractions, np.asarray(result[key]), words) for key in result}
    if isinstance(result, Sequence) and result and all(isinstance(one, PathAttributions) for one in result):
        return _completeness(name, result)
    try:
        x, y = (np.asarray(values, np.float64) for values in result)
    except (TypeError, ValueError):
        raise PictureError(
            f"{_called(name)} is no curve.",
            [
                (
                    "expected",
                    "a result of robust_accuracy, deletion or insertion, a list of path results, or a pair (x, y)",
                )
            ],
        ) from None
    if x.ndim != 1 or x.shape != y.shape or not x.size:
        raise PictureError(f"{_called(name)} is no curve.", [("shapes", f"{x.shape} and {y.shape}")])
    return {name: _Line(x, y, ("", ""))}


def _called(name: str) -> str:
    return f"`{name}`" if name else "what is given"


def _at(name: str, key: str, result: Mapping[str, Any]) -> str:
    return name if len(result) == 1 else f"{name} at {key}" if name else key


def _spread(x: Array, rows: Array, words: tuple[str, str]) -> _Line:
    if not len(rows):
        raise PictureError("there is no example to draw.")
    low, high = np.quantile(rows, [0.25, 0.75], axis=0)
    return _Line(x, rows.mean(0), words, (low, high) if len(rows) > 1 else None)


def _completeness(name: str, results: Sequence[PathAttributions]) -> dict[str, _Line]:
    ordered = sorted(results, key=lambda result: result.steps)
    steps = np.array([result.steps for result in ordered])
    words = "steps", "completeness error, mean of |delta|"
    deltas = [_by_tap(result) for result in ordered]
    errors = {key: np.array([np.abs(delta[key]).mean() for delta in deltas]) for key in deltas[0]}
    return {_at(name, key, errors): _Line(steps, y, words, is_error=True) for key, y in errors.items()}


def _by_tap(result: PathAttributions) -> dict[str, Array]:
    """The completeness errors ``(batch,)`` of each tap, or of one path for all."""
    delta = result.delta if isinstance(result.delta, Mapping) else {"": result.delta}
    return {key: np.asarray(value) for key, value in delta.items()}


def _check(lines: Mapping[str, _Line]) -> None:
    if not lines:
        raise PictureError("there is no curve to draw.")
    kinds = {line.axes for line in lines.values()}
    if len(kinds) > 1:
        facts = [("kinds", ", ".join(sorted(f"{y or 'y'} against {x or 'x'}" for x, y in kinds)))]
        raise PictureError("the curves are of different kinds.", facts)


def _draw(ax: Axes, name: str, line: _Line, colour: str, dashes: str) -> None:
    few = len(line.x) <= 25
    y = np.where(line.y > 0, line.y, np.nan) if line.is_error else line.y  # an error of 0 has no logarithm
    ax.plot(line.x, y, dashes, color=colour, label=name or None, linewidth=1.8, marker="o" if few else "", markersize=4)
    if line.band is not None:
        ax.fill_between(line.x, *line.band, color=colour, alpha=0.15, linewidth=0)


def _dress(ax: Axes, lines: Sequence[_Line], title: str, note: str) -> None:
    line = lines[0]
    ax.set_xlabel(line.axes[0], color=INK)
    if note:
        ax.annotate(
            note,
            (0.5, 0),
            (0, -40),
            xycoords="axes fraction",
            textcoords="offset points",
            ha="center",
            va="top",
            color=FAINT,
            fontsize=9.5,
            parse_math=False,
        )
    ax.set_ylabel(line.axes[1], color=INK)
    ax.set_title(title, color=INK, fontsize=12, parse_math=False)
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[["left", "bottom"]].set_color(FRAME)
    ax.tick_params(colors=FAINT)
    ax.grid(color=FRAME, linewidth=0.6, alpha=0.7)
    ax.set_axisbelow(True)
    if line.is_error:
        ax.set_xscale("log")
        ax.set_yscale("log")
        steps = sorted({int(x) for each in lines for x in each.x})
        ax.set_xticks(steps, map(str, steps))
        ax.minorticks_off()
    if line.is_share:
        ax.set_ylim(-0.02, 1.02)
        ax.set_yticks([0, 0.2, 0.4, 0.6, 0.8, 1], [f"{share}%" for share in (0, 20, 40, 60, 80, 100)])


def _beside(lines: Mapping[str, _Line]) -> float:
    """Inches to the right for the names, which would cover the lines; 0 where they are few."""
    return max(width_of(_cut(name), 10) for name in lines) / 72 + 0.6 if len(lines) > FEW else 0.0


def _cut(name: str) -> str:
    return fitted(name, 280, 10)


def _name(ax: Axes, outside: bool, many: bool) -> None:
    """Name the lines: inside, or to the right of a figure of its own; smaller where many are in somebody's axes."""
    handles, names = ax.get_legend_handles_labels()
    where: dict[str, Any] = {"loc": "upper left", "bbox_to_anchor": (1.01, 1)} if outside else {"loc": "best"}
    size = 10 if outside or not many else 7
    where |= {"frameon": many and not outside, "edgecolor": "none", "framealpha": 0.85}  # readable over the lines
    legend = ax.legend(handles, [_cut(name) for name in names], labelcolor=INK, fontsize=size, **where)
    for text in legend.get_texts():
        text.set_parse_math(False)
