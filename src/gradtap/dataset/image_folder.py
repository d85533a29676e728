"""A folder of images, and of folders of images."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from gradtap import errors
from gradtap.dataset.reading import Read, read_each
from gradtap.files.images import SUFFIXES, Layout, open_image, pixels_for
from gradtap.files.preprocessing import PREPROCESSINGS, preprocess

Array = np.ndarray[Any, Any]


class ImageFolder:
    """Every image in and below a folder, sorted by name.

    Args:
      folder: The folder.
      layout: How the model takes an image; height and width may be free.
      preprocessing: A key of `PREPROCESSINGS`.
    """

    portable = True

    def __init__(self, folder: Path, layout: Layout, preprocessing: str) -> None:
        if preprocessing not in PREPROCESSINGS:
            raise errors.ArgumentError(
                f"preprocess={preprocessing!r} is not a choice.", [("choices", ", ".join(PREPROCESSINGS))], "give one"
            )
        self._folder = folder.resolve()
        self._layout = layout
        self._preprocessing = preprocessing
        self.uniform = None not in (layout.height, layout.width)
        if not self.names:
            raise errors.InputFileError(
                f"the folder `{folder}` has no image.",
                [("looked for", " ".join(SUFFIXES))],
                "give a folder of images, or a .npy, .npz, .parquet or .zarr",
            )
        self.count = len(self.names)

    @cached_property
    def names(self) -> Sequence[str]:
        """The files, relative to the folder."""
        return sorted(path.relative_to(self._folder).as_posix() for path in _images_in(self._folder, set()))

    def facts(self) -> dict[str, Any]:
        """The names of the files and how they are read."""
        return {
            "kind": "a folder of images",
            "examples": self.count,
            "names": hashlib.sha256("\n".join(self.names).encode()).hexdigest()[:32],
            "preprocess": self._preprocessing,
            "size": [self._layout.height, self._layout.width, self._layout.channels],
        }

    def content(self) -> str:
        """A digest of the sizes of all files; no file is read."""
        sizes = (_size(self._folder / name) for name in self.names)
        return hashlib.sha256(" ".join(map(str, sizes)).encode()).hexdigest()[:32]

    def read(self, start: int, stop: int) -> Read:
        """Read, resize and prepare image by image."""
        return read_each(range(start, stop), self._one)

    def _one(self, i: int) -> Array:
        pixels, _ = pixels_for(open_image(self._folder / self.names[i]), self._layout)
        return preprocess(pixels, self._preprocessing)


def _images_in(folder: Path, above: set[Path]) -> Iterator[Path]:
    """Images in and below a folder, through links as well, but not in circles; hidden ones are left out."""
    here = above | {folder.resolve()}
    for path in folder.iterdir():
        if path.name.startswith("."):
            continue
        if path.is_dir():
            if path.resolve() not in here:
                yield from _images_in(path, here)
        elif path.suffix.lower() in SUFFIXES:
            yield path


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:  # it is gone, or a link that leads nowhere: reading it says so
        return -1
