"""From numbers to colours: the scale of a map, its enlargement, its colours on a picture. NumPy only."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from gradtap.errors import GradtapError

Array = np.ndarray[Any, Any]
Interpolation = Literal["bilinear", "nearest"]

# Vermilion and blue of Okabe and Ito's palette: told apart with every common form of colour blindness.
POSITIVE = np.array([0.835, 0.369, 0.0])
NEGATIVE = np.array([0.0, 0.447, 0.698])
PERCENTILE = 99.0
#: Of what is NaN or infinite: a grey is no colour of the scale, and letters stay readable on it.
NOT_FINITE = np.array([0.72, 0.72, 0.72])


class PictureError(GradtapError):
    """What was given to a plot function has no shape or range that can be drawn."""


def robust_scale(values: Array) -> float:
    """Give the magnitude that takes the strongest colour: the 99th percentile of those that are not zero.

    One outlier then does not turn the rest of a map pale. Nothing is interpolated: the scale is the smallest magnitude
    of the map that at least 99 in 100 of its magnitudes above zero do not exceed. Zeros do not count, so that a few
    places in an empty map set the scale by themselves.

    Args:
      values: Map of any shape; values that are not finite are left out.

    Returns:
      The scale, above 0; 1.0 for a map without any value that is finite and not 0.

    Example:
      >>> robust_scale(np.array([[0.0, -2.0]]))
      2.0
    """
    magnitudes = np.abs(values[np.isfinite(values)]).astype(np.float64)
    magnitudes = magnitudes[magnitudes > 0]
    return float(np.percentile(magnitudes, PERCENTILE, method="inverted_cdf")) if magnitudes.size else 1.0


def enlarge(values: Array, height: int, width: int, interpolation: Interpolation = "bilinear") -> Array:
    """Enlarge a map to the size of a picture.

    Args:
      values: Map ``(rows, columns)``.
      height: Rows of the result.
      width: Columns of the result.
      interpolation: ``"bilinear"`` with half-pixel centres, or ``"nearest"``, which shows every cell as a square.

    Returns:
      Map ``(height, width)``, float64; what is not finite counts as 0.

    Raises:
      PictureError: The interpolation has another name.
    """
    if interpolation not in ("bilinear", "nearest"):
        raise PictureError(f"there is no interpolation {interpolation!r}.", [("there are", "'bilinear', 'nearest'")])
    rows = _weights(values.shape[0], height, interpolation)
    columns = _weights(values.shape[1], width, interpolation)
    return rows @ np.nan_to_num(values.astype(np.float64), posinf=0.0, neginf=0.0) @ columns.T


def enlarge_finite(values: Array, height: int, width: int, interpolation: Interpolation = "bilinear") -> Array:
    """Enlarge a map as ``enlarge`` does, and keep what is not finite: its cells are NaN in the result.

    The other cells are interpolated among themselves, so that none of them turns pale beside a NaN.

    Args:
      values: Map ``(rows, columns)``.
      height: Rows of the result.
      width: Columns of the result.
      interpolation: As ``enlarge`` takes it.

    Returns:
      Map ``(height, width)``, float64.

    Raises:
      PictureError: The interpolation has another name.
    """
    large = enlarge(values, height, width, interpolation)
    finite = np.isfinite(values)
    if finite.all():
        return large
    counted = enlarge(finite, height, width, interpolation)
    shown = enlarge(finite, height, width, "nearest") > 0
    return np.where(shown, large / np.where(counted > 0, counted, 1), np.nan)


def _weights(size: int, target: int, interpolation: Interpolation) -> Array:
    """Matrix ``(target, size)`` whose rows say how much each old cell counts in a new one."""
    matrix = np.zeros((target, size))
    new = np.arange(target)
    if interpolation == "nearest":
        matrix[new, new * size // target] = 1.0
        return matrix
    position = np.clip((new + 0.5) * size / target - 0.5, 0, size - 1)
    lower = np.floor(position).astype(int)
    upper = np.minimum(lower + 1, size - 1)
    matrix[new, lower] += 1 - (position - lower)
    matrix[new, upper] += position - lower
    return matrix


def colours(values: Array, scale: float, background: Array | None = None) -> Array:
    """Lay a map's colours over a picture: vermilion raises the target, blue lowers it, and zero shows the picture.

    Args:
      values: Map ``(height, width)``; what is not finite becomes grey.
      scale: Magnitude that takes the strongest colour.
      background: Picture ``(height, width, 3)`` from 0 to 1; without one the ground is white.

    Returns:
      Picture ``(height, width, 3)``, float64 from 0 to 1.
    """
    finite = np.isfinite(values)
    strength = np.clip(np.abs(np.where(finite, values, 0)) / scale, 0, 1)[..., np.newaxis]
    # Linear: weak values stay near the picture, so that the few strong places are what the eye meets.
    opacity = strength if background is None else 0.9 * strength
    ground = np.ones(3) if background is None else background
    ink = np.where((values > 0)[..., np.newaxis], POSITIVE, NEGATIVE)
    return np.where(finite[..., np.newaxis], (1 - opacity) * ground + opacity * ink, NOT_FINITE)


def as_picture(image: Array) -> Array:
    """Bring an image, or what a network was given for one, to colours from 0 to 1.

    Args:
      image: ``(height, width)``, ``(height, width, 1)`` or ``(height, width, 3 or 4)``: whole numbers from 0 to 255, or
        floats. Floats outside 0 to 1, such as a network's input from -1 to 1, are stretched to that range.

    Returns:
      Picture ``(height, width, 3)``, float64 from 0 to 1.

    Raises:
      PictureError: The array has another shape.
    """
    array = np.asarray(image)
    if array.ndim == 2:
        array = array[..., np.newaxis]
    if array.ndim != 3 or array.shape[-1] not in (1, 3, 4) or 0 in array.shape:
        facts = [
            ("expected", "(height, width), (height, width, 1) or (height, width, 3)"),
            ("received", str(image.shape)),
        ]
        raise PictureError("this array is not an image.", facts)
    array = array[..., :3]
    if np.issubdtype(array.dtype, np.integer):
        picture = np.clip(array.astype(np.float64) / 255, 0, 1)
    else:
        picture = np.nan_to_num(array.astype(np.float64), posinf=0.0, neginf=0.0)
        low, high = picture.min(), picture.max()
        if low < 0 or high > 1:
            picture = (picture - low) / (high - low or 1.0)
    return np.broadcast_to(picture, (*picture.shape[:2], 3))


def faded_grey(picture: Array) -> Array:
    """Take the colour out of a picture and lighten it, so that a map's colours stand out on it.

    Args:
      picture: ``(height, width, 3)`` from 0 to 1.

    Returns:
      Grey picture of the same shape, from 0.25 to 1.
    """
    luminance = picture @ np.array([0.2126, 0.7152, 0.0722])
    return np.repeat((0.25 + 0.75 * luminance)[..., np.newaxis], 3, axis=-1)
