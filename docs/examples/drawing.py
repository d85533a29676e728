"""Small pictures: what the examples' figures have in common."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from gradtap.plot.maps import colours, robust_scale

INK, FAINT = "#1f2328", "#59636e"


def save(figure: Figure, path: Path, *, width: int = 1600, colour_count: int = 256) -> None:
    """Write a figure as a PNG of few colours and at most so many pixels in width: a third of the bytes."""
    dots = min(figure.dpi, width / figure.get_figwidth())
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", dpi=dots, facecolor="white")
    picture = Image.open(drawn).convert("RGB")
    few = picture.quantize(colour_count, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.FLOYDSTEINBERG)
    few.save(path, optimize=True)


def coloured(values: np.ndarray, scale: float | None = None) -> np.ndarray:
    """A map as colours on white: vermilion above zero, blue below."""
    return colours(values, scale or robust_scale(values))


def blank(width: float, height: float) -> Figure:
    """An empty figure, in inches."""
    return Figure(figsize=(width, height), dpi=110, facecolor="white")


def over_channels(attribution: object) -> np.ndarray:
    """The sum over the channels, ``(batch, height, width)``."""
    return np.asarray(attribution, "float64").sum(-1)
