"""From whatever a user hands over as data to a `Source`."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import tensorflow as tf

from gradtap import errors
from gradtap.batching import is_dataset
from gradtap.dataset import sequences
from gradtap.dataset.arrays import Arrays
from gradtap.dataset.image_folder import ImageFolder
from gradtap.dataset.model_inputs import (
    Columns,
    check_elements,
    declared_inputs,
    in_columns,
    inputs_among,
    number_of_inputs,
)
from gradtap.dataset.parquet import Table
from gradtap.dataset.reading import Source, columns_of
from gradtap.dataset.zarr_calls import zarr
from gradtap.files.arrays import load_arrays
from gradtap.files.images import SUFFIXES, Layout
from gradtap.graph.keeping import Trace
from gradtap.types import Structure

#: Data up to this size is hashed whole, larger data by examples that are spread over it.
_HASHED_WHOLE = 64 << 20
_SAMPLED = 64


def as_source(
    data: Any,
    trace: Trace,
    *,
    preprocess: str | None = None,
    size: Sequence[int] | None = None,
    columns: Sequence[str] | None = None,
    count: int | None = None,
) -> Source:
    """Find out what data is.

    Args:
      data: A path, arrays, a `tf.data.Dataset` of batches, a Keras ``PyDataset``, or a sequence of examples.
      trace: The model, which says how large an image it takes.
      preprocess: For images: what is done to their pixels.
      size: For images: height and width, where the model takes any.
      columns: For tables and files of several arrays: which are the inputs.
      count: For a `tf.data.Dataset`: how many examples it was found to have.

    Raises:
      InputFileError: There is no such file, or it cannot be read.
      InputStructureError: This is no data.
    """
    if isinstance(data, (str, os.PathLike)):
        return _of_path(_existing(data), trace, preprocess, size, columns)
    if preprocess is not None or size is not None:
        raise errors.ArgumentError(
            "preprocess= and image_size= are for folders of images.",
            [("received", errors.received(data))],
            "leave them out: other data is taken as it is",
        )
    if columns is not None and not isinstance(data, Mapping):
        raise _no_columns(data)
    if is_dataset(data):
        check_elements(data, trace)
        return sequences.Stream(data, count)
    data = in_columns(data, trace)
    if isinstance(data, Mapping):
        chosen = columns_of(dict(data), columns or inputs_among(data, trace), "the data")
        return Arrays(lambda: tf.nest.map_structure(_array, chosen), "arrays", portable=False)
    if isinstance(data, (np.ndarray, tf.Tensor, Columns)) or hasattr(data, "store_path"):  # the last is Zarr's
        several = isinstance(data, Columns)
        load = (lambda: [_array(column) for column in data]) if several else lambda: _array(data)
        return Arrays(load, "arrays" if several else "array", portable=False)
    if _is_py_dataset(data):
        return sequences.Batches(data, number_of_inputs(trace))
    if isinstance(data, (str, bytes)) or not (hasattr(data, "__len__") and hasattr(data, "__getitem__")):
        raise errors.InputStructureError(
            f"{errors.kind_of(data)} is no data.",
            [("takes", "paths, arrays, a tf.data.Dataset of batches, a PyDataset, a sequence of examples")],
            "give it a length and items: __len__ and __getitem__",
        )
    return sequences.Sequence(data, number_of_inputs(trace))


def facts_of(source: Source) -> dict[str, Any]:
    """What tells data from other data: what it says of itself, and a digest of its content."""
    content = getattr(source, "content", None)
    return source.facts() | {"content": content() if content else _digest(source)}


def _digest(source: Source) -> str:
    """A digest of all examples, or of some: spread over the data, or the first ones where it can only be read on."""
    found, size = hashlib.sha256(), 0
    step = max(1, source.count // _SAMPLED)
    for i in [] if isinstance(source, sequences.Stream) else range(0, source.count, step):
        size = max(size, _add(found, source.read(i, min(i + 1, source.count))))
    if size * source.count <= _HASHED_WHOLE:
        found, size = hashlib.sha256(), 0
        for i in range(0, source.count, _SAMPLED):
            size += _add(found, source.read(i, min(i + _SAMPLED, source.count)))
            if size > _HASHED_WHOLE:
                break
    return found.hexdigest()[:32]


def _add(found: Any, read: Any) -> int:
    """Take in what was read; returns its size in bytes."""
    size = 0
    for group in read.groups:
        for leaf in tf.nest.flatten(group.inputs):
            found.update(f"{leaf.shape} {leaf.dtype.str}".encode())
            found.update(np.ascontiguousarray(leaf).data if leaf.dtype.kind in "biufc" else repr(leaf).encode())
            size += leaf.nbytes
    found.update(repr(sorted(read.reasons)).encode())
    return size


def _array(data: Any) -> Any:
    """A tensor is read once; what maps a file, or opens it, is left as it is."""
    is_array = hasattr(data, "shape") and hasattr(data, "__getitem__") and not isinstance(data, tf.Tensor)
    return data if is_array else np.asarray(data)


def _is_py_dataset(data: Any) -> bool:
    import keras

    return isinstance(data, keras.utils.PyDataset)


def _existing(given: str | os.PathLike[str]) -> Path:
    path = Path(given).expanduser()
    if "://" in str(given):
        raise errors.InputFileError(
            f"`{given}` is no path.", [("why", "only files of this machine are read")], "mount it, or download it"
        )
    if not path.exists():
        beside = [other.name for other in path.parent.iterdir()] if path.parent.is_dir() else []
        close = errors.nearest(path.name, beside)
        facts = [("why", "there is no such file"), *([("nearest", close)] if close else [])]
        raise errors.InputFileError(f"`{given}` cannot be read.", facts, "give the path of a file or of a folder")
    return path.resolve()


def _of_path(
    path: Path, trace: Trace, preprocess: str | None, size: Sequence[int] | None, columns: Sequence[str] | None
) -> Source:
    is_table = path.suffix == ".parquet" or (path.is_dir() and any(path.glob("*.parquet")))
    is_images = path.is_dir() and not is_table and not (path / "zarr.json").exists() and not _is_old_zarr(path)
    if (preprocess is not None or size is not None) and not is_images:
        raise errors.ArgumentError(
            "preprocess= and image_size= are for folders of images.",
            [("received", f"`{path.name}`")],
            "leave them out: other data is taken as it is",
        )
    if columns is not None and (is_images or path.suffix == ".npy"):
        raise _no_columns(path)
    if is_images:
        whole = any("int" in dtype for dtype in declared_inputs(trace)[1])
        return ImageFolder(path, _layout(trace, size), preprocess or ("none" if whole else "unit"))
    if is_table:
        return Table(path, columns or inputs_among(dict.fromkeys(Table(path, None).names), trace))
    if path.is_dir():
        columns = columns or inputs_among(dict.fromkeys(_names_in_zarr(path)), trace)
        return Arrays(_ZarrArrays(path, columns), "Zarr", portable=True)
    if path.suffix == ".npz":
        columns = columns or inputs_among(dict.fromkeys(_names_in_npz(path)), trace)
    if path.suffix in (".npy", ".npz"):
        return Arrays(_ArrayFile(path, columns), path.suffix, portable=True)
    do = "give the folder that it is in" if path.suffix.lower() in SUFFIXES else "load it, and pass the arrays"
    raise errors.InputFileError(
        f"`{path}` is data of no known kind.", [("known", "folders of images, .npy, .npz, .parquet, .zarr")], do
    )


def _names_in_npz(path: Path) -> list[str]:
    """The names alone; no array is read. What is wrong with the file is said where it is."""
    try:
        with np.load(path, allow_pickle=False) as file:
            return list(file.files)
    except (OSError, ValueError, EOFError, BadZipFile):
        return []


def _names_in_zarr(path: Path) -> list[str]:
    node = zarr().open(path, mode="r")
    return sorted(node.array_keys()) if hasattr(node, "array_keys") else []


def _is_old_zarr(path: Path) -> bool:
    return (path / ".zarray").exists() or (path / ".zgroup").exists()


def _no_columns(data: Any) -> errors.ArgumentError:
    return errors.ArgumentError(
        "columns= is for tables, dicts and files of several arrays.",
        [("received", errors.received(data))],
        "leave it out",
    )


class _Rows:
    """A ``.npy`` that is mapped anew for each read: pages of a mapping that stays count as memory of the process."""

    def __init__(self, path: Path) -> None:
        self._path = path
        mapped = self._mapped()
        self.shape, self.dtype = mapped.shape, mapped.dtype

    def _mapped(self) -> Any:
        return np.load(self._path, mmap_mode="r", allow_pickle=False)

    def __getitem__(self, rows: slice) -> Any:
        return np.array(self._mapped()[rows])


class _ArrayFile:
    """Loads a file of arrays; a ``.npy`` is not read as a whole."""

    def __init__(self, path: Path, columns: Sequence[str] | None) -> None:
        self._path, self._columns = path, columns

    def __call__(self) -> Structure:
        if self._path.suffix == ".npz":
            return columns_of(load_arrays(self._path), self._columns, f"`{self._path}`")
        try:
            return _Rows(self._path)
        except (OSError, ValueError, EOFError, SyntaxError) as error:
            facts = [("why", "it is damaged, or holds objects" if "pickle" in str(error) else str(error)[:200])]
            raise errors.InputFileError(f"`{self._path}` cannot be read.", facts, "np.save it anew") from None


class _ZarrArrays:
    """Opens a Zarr array, or the arrays of a Zarr group."""

    def __init__(self, path: Path, columns: Sequence[str] | None) -> None:
        self._path, self._columns = path, columns

    def __call__(self) -> Structure:
        node = zarr().open(self._path, mode="r")
        if not hasattr(node, "array_keys"):
            return node
        return columns_of({name: node[name] for name in sorted(node.array_keys())}, self._columns, f"`{self._path}`")


def _layout(trace: Trace, size: Sequence[int] | None) -> Layout:
    shapes, _ = declared_inputs(trace)
    layout = Layout.of(shapes[0] if shapes else None) if len(shapes) < 2 else None
    if layout is None:
        takes = ", ".join(map(str, shapes))
        raise errors.InputFileError(
            "the model does not take an image.", [("takes", takes)], "pass arrays of that shape: .npy, .npz, .parquet"
        )
    if size is None:
        return layout
    height, width = size
    if (layout.height or height, layout.width or width) != (height, width):
        takes = f"{layout.height or 'any'} x {layout.width or 'any'}"
        raise errors.ArgumentError(
            f"image_size=({height}, {width}) is not what the model takes.", [("takes", takes)], "leave image_size= out"
        )
    return layout._replace(height=height, width=width)
