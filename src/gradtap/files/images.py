"""Image files as pixels of the size and the channels that a model takes."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from gradtap.errors import InputFileError, MissingExtraError

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image

    Array = np.ndarray[Any, Any]

#: What a folder is searched for; a file named on the command line may be of any kind that Pillow reads.
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".gif", ".tif", ".tiff")
MODES = {1: "L", 3: "RGB", 4: "RGBA"}


class Layout(NamedTuple):
    """How a model takes one image; None where it takes any height or width."""

    height: int | None
    width: int | None
    channels: int
    channel_axis: int | None

    @classmethod
    def of(cls, shape: tuple[int | None, ...] | None) -> Layout | None:
        """Read the layout from the shape of an input with its batch axis; None for what is not an image."""
        match shape:
            case None:
                return cls(None, None, 3, -1)
            case (_, height, width):
                return cls(height, width, 1, None)
            case (_, height, width, None):
                return cls(height, width, 3, -1)
            case (_, height, width, 1 | 3 | 4 as channels):
                return cls(height, width, channels, -1)
            case (_, 1 | 3 | 4 as channels, height, width):
                return cls(height, width, channels, 1)
        return None


def open_image(path: Path) -> Image:
    """Read an image file, upright as its EXIF orientation says.

    Args:
      path: A file of any kind that Pillow reads; of an animation the first picture.

    Returns:
      Image of its native size, in mode L, RGB or RGBA.

    Raises:
      InputFileError: The file is missing, no image, damaged, or larger than Pillow's limit.
      MissingExtraError: Pillow is not installed.
    """
    try:
        from PIL import Image, ImageOps, UnidentifiedImageError
    except ImportError:
        raise MissingExtraError.of("viz", "reading an image") from None
    try:
        with Image.open(path) as file:
            file.load()
            return _eight_bits(ImageOps.exif_transpose(file) or file)
    except UnidentifiedImageError:
        raise unreadable(path, "it is not an image of a known kind") from None
    except Image.DecompressionBombError as error:
        raise unreadable(path, str(error)) from None
    # Pillow's decoders raise what they meet in a damaged file.
    except (OSError, SyntaxError, ValueError, EOFError, LookupError, ArithmeticError, TypeError, struct.error) as error:
        raise unreadable(path, getattr(error, "strerror", None) or str(error)) from None


def unreadable(path: Path, why: str) -> InputFileError:
    """Say why a file cannot be read."""
    return InputFileError(f"`{path}` cannot be read.", [("why", why)])


def pixels_for(image: Image, layout: Layout) -> tuple[Array, Array]:
    """Bring an image to the size and the channels of a model's input, whatever its aspect ratio was.

    Args:
      image: Upright image of any size.
      layout: What the model takes.

    Returns:
      The pixels as the model takes one example, uint8 from 0 to 255; and the same as ``(height, width, 3)`` to show.
    """
    import numpy as np
    from PIL.Image import Resampling

    size = (layout.width or image.width, layout.height or image.height)
    fitted = _converted(image, MODES[layout.channels])
    if fitted.size != size:
        fitted = fitted.resize(size, Resampling.BICUBIC)
    shown = np.asarray(_converted(fitted, "RGB"))
    pixels = np.asarray(fitted)
    if layout.channel_axis is not None and pixels.ndim == 2:
        pixels = pixels[..., np.newaxis]
    return (pixels.transpose(2, 0, 1) if layout.channel_axis == 1 else pixels), shown


def _eight_bits(image: Image) -> Image:
    """Bring every kind of image to 8 bits; Pillow's own conversion of 16 bits would clip all but the darkest."""
    import numpy as np
    from PIL import Image as images

    if image.mode.startswith("I"):
        return images.fromarray((np.asarray(image).clip(0, 65535) // 257).astype(np.uint8))
    if image.mode == "F":
        raise ValueError("it holds floats, whose range is unknown: save it as .npy")
    if image.mode in ("L", "1"):
        return image.convert("L")
    return image.convert("RGBA" if image.has_transparency_data else "RGB")


def _converted(image: Image, mode: str) -> Image:
    """Convert to another mode; what is transparent shows white, not the colours hidden under it."""
    from PIL import Image as images

    if image.mode == "RGBA" and mode != "RGBA":
        white = images.new("RGBA", image.size, "white")
        image = images.alpha_composite(white, image)
    return image.convert(mode)
