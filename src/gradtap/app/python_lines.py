"""The lines of Python that give what the explorer shows: they stand on their own and need no file but those named."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gradtap.files.images import MODES, Layout, open_image
from gradtap.files.preprocessing import CAFFE_MEAN, IMAGENET_DEVIATION, IMAGENET_MEAN

#: What is read off one forward and one backward pass.
READINGS = ("activation", "gradient", "activation_x_gradient")
_READ = {
    "activation": "g.activations.only",
    "gradient": "g.only",
    "activation_x_gradient": "(g.only * g.activations.only)",
}
#: `gradtap.files.preprocessing.preprocess`, as somebody would write it.
_PREPROCESSED = {
    "none": "",
    "unit": "inputs = inputs / 255",
    "symmetric": "inputs = inputs / 127.5 - 1",
    "tflite": "inputs = (inputs - 127) / 128",
    "imagenet": f"inputs = (inputs / 255 - np.float32({list(IMAGENET_MEAN)})) / np.float32({list(IMAGENET_DEVIATION)})",
    "caffe": f"inputs = inputs[..., ::-1] - np.float32({list(CAFFE_MEAN)})",
}


@dataclass(frozen=True)
class Picked:
    """What a map is of, beside its model and its image.

    Args:
      at: Address of the layer.
      method: Its name.
      target: See `gradtap.gradients`.
      keywords: What the method is given beside.
      over: How the channels become one map: ``mean``, ``sum``, the number of one, or None where there are none.
    """

    at: str
    method: str
    target: Any
    keywords: dict[str, Any]
    over: str | int | None


def model_lines(path: str | None, name: str, *, unsafe: bool) -> list[str]:
    """The model from its file."""
    if path is None:
        return [f"# model: {name}"]
    return [f"model = gt.trace({path!r}{', safe_mode=False' if unsafe else ''})"]


def image_lines(path: Path, shown_as: str, layout: Layout, size: tuple[int, int], preprocessing: str) -> list[str]:
    """An image file as the model takes it; the same steps as in `gradtap.files.images`.

    Args:
      path: Where the file is now.
      shown_as: How it is written in the lines.
      layout: How the model takes an image.
      size: Height and width of what the model is given.
      preprocessing: A key of `gradtap.files.preprocessing.PREPROCESSINGS`.
    """
    from PIL import Image

    with Image.open(path) as file:
        file.load()
        kind, transparent = file.mode, file.has_transparency_data
    read = open_image(path)
    lines = [f"with Image.open({shown_as!r}) as file:", "    image = ImageOps.exif_transpose(file)"]
    if kind.startswith("I"):
        lines.append("image = Image.fromarray((np.asarray(image).clip(0, 65535) // 257).astype(np.uint8))")
    elif transparent and kind not in ("L", "1"):
        lines.append('image = image.convert("RGBA")')
        if layout.channels != 4:  # what is transparent shows white
            lines.append('image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)')
    elif kind not in ("L", "1", "RGB"):
        lines.append('image = image.convert("RGB")')
    lines.append(f'image = image.convert("{MODES[layout.channels]}")')
    height, width = size
    if read.size != (width, height):
        lines.append(f"image = image.resize(({width}, {height}), Image.Resampling.BICUBIC)")
    inputs = "inputs = np.asarray(image, np.float32)[None]"
    if layout.channel_axis is not None and layout.channels == 1:
        inputs = "inputs = np.asarray(image, np.float32)[None, ..., None]"
    lines.append(inputs + (".transpose(0, 3, 1, 2)" if layout.channel_axis == 1 else ""))
    return [*lines, *filter(None, [_PREPROCESSED[preprocessing]])]


def map_lines(picked: Picked) -> list[str]:
    """The map itself, of the first and only example."""
    keywords = "".join(f", {key}={value!r}" for key, value in picked.keywords.items())
    call = f'model, inputs, target={picked.target!r}, at="{picked.at}"{keywords}'
    if picked.method in READINGS:
        lines = [f"g = gt.gradients({call})", f"values = np.asarray({_READ[picked.method]})[0]"]
    else:
        lines = [f"values = np.asarray(gt.attribution.{picked.method}({call}).only)[0]"]
    if isinstance(picked.over, int):
        lines.append(f"values = values[..., {picked.over}]")
    elif picked.over is not None:
        lines.append(f"values = values.{picked.over}(-1)  # over the channels")
    return lines


def whole(model: list[str], image: list[str], found: list[str]) -> str:
    """All of it, with what it imports."""
    imports = ["import gradtap as gt", "import numpy as np", "from PIL import Image, ImageOps"]
    return "\n".join([*imports, "", *model, *image, *found]) + "\n"
