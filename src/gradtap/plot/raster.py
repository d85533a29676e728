"""Pictures of a few pixels that need nothing but NumPy: what a training run writes while it goes on."""

from __future__ import annotations

import numpy as np

from gradtap.plot.maps import Array

_HEIGHT = 120
_DECADES = 12
_WIDEST = 480
_INK, _GRID, _GROUND = (31, 35, 40), (209, 217, 224), (255, 255, 255)


def profile_pixels(norms: Array) -> Array:
    """Bars of a gradient at each step of time, on a scale of twelve decades that ends at the largest.

    Args:
      norms: ``(time,)``.

    Returns:
      ``(120, width, 3)`` uint8; the faint lines are three decades apart, and a step that is NaN or 0 has no bar.
    """
    steps = len(norms)
    if steps > _WIDEST:  # the largest of neighbours, so that no peak is lost
        norms = np.array([part.max() for part in np.array_split(np.asarray(norms), _WIDEST)])
    wide = max(1, _WIDEST // max(len(norms), 1))
    pixels = np.full((_HEIGHT, max(1, len(norms)) * wide, 3), _GROUND, np.uint8)
    pixels[:: _HEIGHT * 3 // _DECADES] = _GRID
    shown = np.isfinite(norms) & (norms > 0)
    if not shown.any():
        return pixels
    decades = np.log10(norms[shown] / norms[shown].max())
    heights = np.clip((1 + decades / _DECADES) * _HEIGHT, 1, _HEIGHT).astype(int)
    for place, height in zip(np.flatnonzero(shown), heights, strict=True):
        pixels[_HEIGHT - height :, place * wide : (place + 1) * wide - (wide > 2)] = _INK
    return pixels
