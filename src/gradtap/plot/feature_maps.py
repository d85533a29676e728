"""The feature maps of a layer that matter most, each activation beside its gradient."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from gradtap.plot.canvas import Canvas
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
      Figure with one column for each channel.

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
    width = 2 * MARGIN + NAMES + len(chosen) * (PANEL + GAP) - GAP
    height = MARGIN + HEAD * (1 + bool(title)) + len(rows) * (high + SCALE)
    canvas = Canvas(width, height, ax)
    canvas.write(title, width / 2, height - 0.2, size=12)
    for i, (name, maps) in enumerate(rows.items()):
        bottom = height - HEAD * (1 + bool(title)) - (i + 1) * high - i * SCALE
        scale = robust_scale(maps[..., chosen])
        canvas.write(name, MARGIN + NAMES - 0.12, bottom + high / 2 + 0.08, size=9.5, ha="right")
        beyond = "≥ " * bool((np.abs(maps[..., chosen][np.isfinite(maps[..., chosen])]) > scale).any())
        reach = only_one_value(maps[..., chosen]) or f"to {beyond}{number(scale)}"
        for down, line in ((0.1, reach), (0.24, missing(maps[..., chosen]))):
            canvas.write(line, MARGIN + NAMES - 0.12, bottom + high / 2 - down, size=8, ha="right", faint=True)
        for column, channel in enumerate(chosen):
            axes = canvas.panel(MARGIN + NAMES + column * (PANEL + GAP), bottom, PANEL, high)
            axes.imshow(colours(maps[..., channel], scale), interpolation="nearest", aspect="auto")
            frame(axes)
            if i == 0:
                write(axes, f"channel {channel}", (0.5, 1), 5, size=9, va="bottom")
            if i == len(rows) - 1:
                write(axes, f"{weights[channel]:.3g}", (0.5, 0), -9, size=8, va="center", colour=FAINT)
    return canvas.figure


def _maps(name: str, values: Any) -> Array:
    array = np.asarray(values)
    if array.ndim != 3 or 0 in array.shape or array.dtype.kind not in "iufb":
        facts = [("expected", "real numbers (rows, columns, channels)"), ("received", f"{array.shape}, {array.dtype}")]
        raise PictureError(f"{name} are no feature maps of one example.", facts)
    return array.astype(np.float64)
