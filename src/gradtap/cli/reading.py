"""What stands on the command line as inputs: images, a folder of them, or a file of arrays."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gradtap.cli.arrays import Declared, as_model_inputs, shape_text
from gradtap.cli.options import Size
from gradtap.errors import InputFileError
from gradtap.files.arrays import load_arrays
from gradtap.files.images import SUFFIXES, Layout, open_image, pixels_for, unreadable
from gradtap.files.preprocessing import preprocess

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

ARRAY_SUFFIXES = (".npy", ".npz")


@dataclass(frozen=True)
class Inputs:
    """One batch, as the model is called with it.

    Args:
      values: An array ``(batch, ...)``, or a list or dict of them.
      names: One name for each example: the image's file, or the array's file with the row.
      pictures: ``(height, width, 3)`` for each example, to draw on; empty where the inputs are no pictures.
      description: What was read, in a few words.
    """

    values: Any
    names: list[str]
    pictures: list[Array]
    description: str


def find_files(paths: Iterable[Path]) -> list[Path]:
    """List the files that the arguments stand for, before anything slow begins.

    Args:
      paths: Files and folders; of a folder its images are taken, sorted by name.

    Returns:
      Any number of images, or one file of arrays.

    Raises:
      InputFileError: A file is missing, a folder has no image, or images and arrays are mixed.
    """
    files: list[Path] = []
    for path in paths:
        if path.is_dir():
            files += _images_in(path)
        elif path.exists():
            files.append(path)
        else:
            raise unreadable(path, "there is no such file")
    arrays = [file for file in files if file.suffix.lower() in ARRAY_SUFFIXES]
    if arrays and len(files) > 1:
        raise InputFileError(
            f"`{arrays[0]}` holds arrays and stands beside {len(files) - 1} other input{'s' * (len(files) > 2)}.",
            [("takes", "one .npy or .npz file, or any number of images and folders")],
            "put the examples into one array with np.stack; several inputs of one model go into one .npz by name",
        )
    return files


def read_inputs(
    files: Sequence[Path],
    declared: Declared,
    preprocessing: str | None,
    size: Size | None,
    *,
    without: Collection[str] = (),
) -> Inputs:
    """Read the files of ``find_files`` as one batch.

    Args:
      files: Any number of images, or one file of arrays.
      declared: What the model says it takes.
      preprocessing: A key of ``PREPROCESSINGS`` for images; None means ``unit``, or ``none`` for a model that takes
        whole numbers.
      size: What images are resized to where the model takes any size.
      without: Names of arrays beside the inputs that are none of them.

    Returns:
      The batch. Images are float32; arrays are as they are in the file.

    Raises:
      InputFileError: A file cannot be read, or does not fit the model.
    """
    if files[0].suffix.lower() in ARRAY_SUFFIXES:
        if preprocessing or size:
            raise InputFileError(
                f"`{files[0]}` holds arrays, which are taken as they are.",
                [("asked", "--preprocess and --size, which are for images")],
                "leave the options out, and prepare the array before it is saved",
            )
        return _read_arrays(files[0], declared, without)
    return _read_images(files, declared, preprocessing, size)


def _images_in(folder: Path) -> list[Path]:
    files = sorted(file for file in folder.iterdir() if file.is_file() and not file.name.startswith("."))
    images = [file for file in files if file.suffix.lower() in SUFFIXES]
    if not images:
        there = f"{len(files)} other files, such as `{files[0].name}`" if files else "no file"
        raise InputFileError(
            f"the folder `{folder}` has no image.", [("looked for", " ".join(SUFFIXES)), ("has", there)]
        )
    return images


def _read_images(files: Sequence[Path], declared: Declared, preprocessing: str | None, size: Size | None) -> Inputs:
    import numpy as np

    layout = image_layout(declared)
    preprocessing = preprocessing or default_preprocessing(declared)
    if preprocessing != "none" and _takes_whole_numbers(declared):
        raise InputFileError(
            f"the preprocessing `{preprocessing}` makes fractions, and the model takes whole numbers.",
            [("takes", ", ".join(f"`{name}` {spec.dtype}" for name, spec in declared.items()))],
            "--preprocess none",
        )
    if size is not None:
        _check_size(size, layout)
        layout = layout._replace(height=layout.height or size.height, width=layout.width or size.width)
    pixels, pictures = zip(*(pixels_for(open_image(file), layout) for file in files), strict=True)
    sizes = {picture.shape[:2]: file for picture, file in zip(pictures, files, strict=True)}
    if len(sizes) > 1:
        facts = [("sizes", ", ".join(f"{h}x{w} (`{file.name}`)" for (h, w), file in list(sizes.items())[:3]))]
        raise InputFileError(
            f"the {len(files)} images have {len(sizes)} sizes, and the model takes any: they do not make one batch.",
            facts,
            "--size 224x224 (height x width) resizes all of them",
        )
    height, width = next(iter(sizes))
    values = preprocess(np.stack(pixels), preprocessing)
    what = f"{len(files)} image{'s' * (len(files) > 1)}, {height} × {width}, preprocessing `{preprocessing}`"
    return Inputs(values, _distinct_names(files), list(pictures), what)


def _check_size(size: Size, layout: Layout) -> None:
    """A model of a fixed size gets that size; another one that was asked for would be forgotten without a word."""
    if (layout.height or size.height, layout.width or size.width) != size:
        takes = f"{layout.height or 'any'}x{layout.width or 'any'}"
        raise InputFileError(
            f"the model takes images of {takes} (height x width) and no other size.",
            [("asked", f"--size {size.height}x{size.width}")],
            "leave --size out: images are resized to what the model takes",
        )


def _takes_whole_numbers(declared: Declared) -> bool:
    return any("int" in spec.dtype for spec in declared.values())


def default_preprocessing(declared: Declared) -> str:
    """What is done to pixels where nobody says it: ``none`` for a model that takes whole numbers, else ``unit``."""
    return "none" if _takes_whole_numbers(declared) else "unit"


def image_layout(declared: Declared) -> Layout:
    """How a model takes an image.

    Raises:
      InputFileError: It takes no image, or more than one input.
    """
    takes = ", ".join(f"`{name}` {shape_text(spec.shape)}" for name, spec in declared.items())
    if len(declared) > 1:
        raise InputFileError(
            f"the model takes {len(declared)} inputs, which images alone do not make.",
            [("takes", takes)],
            "write one .npz with an array for each: np.savez('inputs.npz', "
            + ", ".join(f"{n}=..." for n in declared)
            + ")",
        )
    layout = Layout.of(next((spec.shape for spec in declared.values()), None))
    if layout is None:
        raise InputFileError("the model's input is not an image.", [("takes", takes)], "give a .npy of that shape")
    return layout


def _read_arrays(file: Path, declared: Declared, without: Collection[str]) -> Inputs:
    arrays = load_arrays(file)
    if len(arrays) > 1:
        arrays = {name: array for name, array in arrays.items() if name not in without or name in declared}
    values = as_model_inputs(file, arrays, declared)
    single = values if len(arrays) == 1 else None
    first = next(iter(arrays.values())) if single is None else single
    pictures = list(single) if single is not None and _is_picture(single) else []
    names = [f"{file.name}[{row}]" for row in range(len(first))] if first.ndim else [file.name]
    shapes = ", ".join(f"`{key}` {array.shape}" for key, array in arrays.items())
    return Inputs(values, names, pictures, f"{file.name}: {shapes if single is None else single.shape}")


def _is_picture(array: Array) -> bool:
    return array.ndim == 4 and array.shape[-1] in (1, 3, 4) and array.dtype.kind in "uif"


def _distinct_names(files: Sequence[Path]) -> list[str]:
    """File names, or whole paths where two files of different folders share a name."""
    names = [file.name for file in files]
    return names if len(set(names)) == len(names) else [str(file) for file in files]
