"""The feature maps of a layer that matter most, each activation beside its gradient."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from gradtap.plot.canvas import Canvas
from gradtap.plot.lettering import LARGEST, text_factor
from gradtap.plot.maps import Array, PictureError, colours, robust_scale
from gradtap.plot.panels import FAINT, frame, missing, number, only_one_value, write

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# All in inches.
PANEL = 1.3
GAP = 0.1
MARGIN = 0.12
NAMES = 0.95
HEAD = 0.3
SCALE = 0.3
# So many channels stand in one row; of more, at most so many.
ONE_ROW, MANY_ROWS = 10, 8


def channels(
    activations: Array,
    gradients: Array | None = None,
    *,
    k: int = 8,
    importance: Array | None = None,
    title: str = "",
    ax: Axes | None = None,
) -> Figure:
    """Draw the feature maps of one example that matter most: activations above, gradients below.

    One scale holds for all activations and one for all gradients, so that channels can be compared.

    Args:
      activations: ``(rows, columns, channels)``.
      gradients: Of the same shape; None for the activations alone.
      k: How many channels; all of them where there are fewer.
      importance: ``(channels,)``, such as `gradtap.attribution.channel_importance` gives; the largest magnitudes come
        first. None for the sum of gradient x activation, or of the magnitudes of the activations where there are no
        gradients.
      title: Line above the figure.
      ax: Axes to draw in; None for a new figure.

    Returns:
      Figure with one column for each channel; of more than 10, several rows.

    Raises:
      PictureError: A shape cannot be drawn, or ``k`` is below 1.
      MissingExtraError: matplotlib is not installed.

    Example:
      >>> channels(np.ones((7, 7, 3)), np.ones((7, 7, 3)), k=2).savefig("channels.png")
    """
    rows = {"activation": _maps("activations", activations)}
    if gradients is not None:
        rows["gradient"] = _maps("gradients", gradients)
        if rows["gradient"].shape != rows["activation"].shape:
            facts = [("activations", str(rows["activation"].shape)), ("gradients", str(rows["gradient"].shape))]
            raise PictureError("activations and gradients differ in shape.", facts)
    product = rows["activation"] * rows.get("gradient", np.sign(rows["activation"]))
    # One NaN says nothing about the rest of its channel.
    product = np.where(np.isfinite(product), product, 0)
    weights = product.sum((0, 1)) if importance is None else np.asarray(importance, np.float64)
    if weights.shape != product.shape[2:]:
        raise PictureError(
            "importance has another number of channels.",
            [("importance", str(weights.shape)), ("channels", str(product.shape[2]))],
        )
    if k < 1:
        raise PictureError("there is no channel to draw.", [("k", str(k))])
    chosen = np.argsort(-np.abs(weights), kind="stable")[:k]
    high = PANEL * product.shape[0] / product.shape[1]
    blocks = 1 if len(chosen) <= ONE_ROW else -(-len(chosen) // MANY_ROWS)
    across = -(-len(chosen) // blocks)
    titled = HEAD * (bool(title) and ax is None)

    def area(text: float) -> tuple[float, float]:
        block = HEAD * text + len(rows) * (high + SCALE * text)
        return 2 * MARGIN + NAMES * text + across * (PANEL + GAP) - GAP, MARGIN + titled + blocks * block

    text = min(text_factor(ax, area), LARGEST)
    width, height = area(text)
    canvas = Canvas(width, height, ax, text)
    canvas.title(title)
    names = MARGIN + NAMES * text
    for i, (name, maps) in enumerate(rows.items()):
        shown = maps[..., chosen]
        scale = robust_scale(shown)
        for place, channel in enumerate(chosen):
            block, column = divmod(place, across)
            top = height - titled - (block + 1) * HEAD * text - (block * len(rows) + i) * (high + SCALE * text)
            if column == 0:
                _write_name(canvas, name, shown, scale, (names - 0.12 * text, top - high / 2), text)
            axes = canvas.panel(names + column * (PANEL + GAP), top - high, PANEL, high)
            axes.imshow(colours(maps[..., channel], scale), interpolation="nearest", aspect="auto")
            frame(axes)
            if i == 0:
                heading = canvas.fit(f"channel {channel}", PANEL + GAP / 2, 9)
                heading = str(channel) if "…" in heading else heading
                write(axes, heading, (0.5, 1), 5, size=9, va="bottom", by=canvas.by)
            if i == len(rows) - 1:
                values = [f"{weights[channel]:.{digits}g}" for digits in (3, 2, 1)]
                weight = next((text for text in values if "…" not in canvas.fit(text, PANEL + GAP / 2, 8)), "")
                write(axes, weight, (0.5, 0), -9, size=8, va="center", colour=FAINT, by=canvas.by)
    return canvas.figure


def _write_name(canvas: Canvas, name: str, shown: Array, scale: float, place: tuple[float, float], text: float) -> None:
    """Write what a row is, and how far its colours reach."""
    beyond = "≥ " * bool((np.abs(shown[np.isfinite(shown)]) > scale).any())
    reach = only_one_value(shown) or f"to {beyond}{number(scale)}"
    canvas.write(name, place[0], place[1] + 0.08 * text, size=9.5, ha="right")
    for down, line in ((0.1, reach), (0.24, missing(shown))):
        canvas.write(line, place[0], place[1] - down * text, size=8, ha="right", faint=True)


def _maps(name: str, values: Any) -> Array:
    array = np.asarray(values)
    if array.ndim != 3 or 0 in array.shape or array.dtype.kind not in "iufb":
        facts = [("expected", "real numbers (rows, columns, channels)"), ("received", f"{array.shape}, {array.dtype}")]
        raise PictureError(f"{name} are no feature maps of one example.", facts)
    return array.astype(np.float64)
