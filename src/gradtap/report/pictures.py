"""Arrays as text that stands in a page."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np

from gradtap.errors import MissingExtraError
from gradtap.report.document import Array, Map

#: The largest number that is written; a value is this many steps of ``largest / _STEPS``.
_STEPS = 32767
#: Pictures are shown no larger than this.
_SIDE = 320


def packed(values: Map) -> dict[str, Any]:
    """A map as whole numbers of two bytes and their largest magnitude; what is not finite is 0."""
    array = np.nan_to_num(values.values.astype(np.float64), posinf=0.0, neginf=0.0)
    largest = float(np.max(np.abs(array), initial=0.0))
    steps = np.zeros(array.shape) if largest == 0 else array / largest * _STEPS
    numbers = np.round(steps).astype("<i2").tobytes()
    return {
        "rows": array.shape[0],
        "columns": array.shape[1],
        "of": list(values.shown_of),
        "over": values.over,
        "units": values.units,
        "largest": largest,
        "scale": _scale(array),
        "numbers": base64.b64encode(numbers).decode(),
    }


def _scale(values: Array) -> float:
    from gradtap.plot.maps import robust_scale

    return robust_scale(values)


def as_source(picture: Array) -> str:
    """A picture as the source of an ``img``."""
    try:
        from PIL import Image
    except ImportError:
        raise MissingExtraError.of("viz", "putting a picture into a page") from None
    image = Image.fromarray(picture)
    if max(image.size) > _SIDE:
        image.thumbnail((_SIDE, _SIDE))
    file = io.BytesIO()
    if min(image.size) < 64:  # few pixels are shown as they are
        image.save(file, "PNG", optimize=True)
        kind = "png"
    else:
        image.save(file, "JPEG", quality=85)
        kind = "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}"


def of_map(values: Array) -> str:
    """A map in its own colours as the source of an ``img``.

    Args:
      values: Of one example, ``(rows, columns)``, or ``(rows, columns, channels)``, which are summed.

    Returns:
      The source; empty where Pillow is not installed or the map has no positions.
    """
    from gradtap.plot.maps import colours, robust_scale

    plain = np.nan_to_num(values.astype(np.float64), posinf=0.0, neginf=0.0)
    summed = plain.sum(-1) if plain.ndim == 3 else plain
    return _or_nothing(colours(summed, robust_scale(summed))) if summed.size else ""


def of_image(image: Array) -> str:
    """An image as the source of an ``img``; empty where Pillow is not installed or it is no image."""
    from gradtap.plot.maps import PictureError, as_picture

    try:
        return _or_nothing(as_picture(image))
    except PictureError:
        return ""


def _or_nothing(picture: Array) -> str:
    try:
        return as_source(np.round(picture * 255).astype(np.uint8))
    except MissingExtraError:
        return ""
