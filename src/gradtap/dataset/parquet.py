"""Tables in Parquet: a file, or a folder of files."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gradtap import errors
from gradtap.dataset.reading import Read, columns_of, read_each
from gradtap.types import Structure


class Table:
    """Rows of one or several Parquet files; the group of rows that is read is in memory.

    Args:
      path: A file, or a folder whose files are taken in the order of their names.
      columns: Which columns are the model's inputs; None for all.

    Raises:
      InputFileError: No such file or column, or the file is damaged.
    """

    uniform = False
    portable = True

    def __init__(self, path: Path, columns: Sequence[str] | None) -> None:
        self._path = path
        self._files = sorted(path.glob("*.parquet")) if path.is_dir() else [path]
        self._columns = list(columns) if columns else None
        self._kept: tuple[int, Any] | None = None
        self._places: list[tuple[int, int]] = []
        starts, names = [0], []
        for number in range(len(self._files)):
            file = self._open(number)
            names = file.schema_arrow.names
            for group in range(file.num_row_groups):
                self._places.append((number, group))
                starts.append(starts[-1] + file.metadata.row_group(group).num_rows)
        self._starts = np.array(starts)
        self.count = starts[-1]
        columns_of(dict.fromkeys(names), columns, f"`{path}`")
        self.names = self._columns or names

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_kept": None}

    def _open(self, number: int) -> Any:
        try:
            import pyarrow
            from pyarrow import parquet
        except ImportError:
            raise errors.MissingExtraError.of("store", "reading Parquet") from None
        try:
            return parquet.ParquetFile(self._files[number])
        except (OSError, pyarrow.ArrowException) as error:
            raise errors.InputFileError(
                f"`{self._files[number]}` cannot be read.", [("why", str(error)[:200])], "give a Parquet file"
            ) from None

    def facts(self) -> dict[str, Any]:
        """The columns and the number of rows."""
        return {"kind": "Parquet", "examples": self.count, "columns": list(self.names)}

    def content(self) -> str:
        """A digest of what the files' footers say of every column: sizes, ranges, counts; no row is read."""
        found = hashlib.sha256()
        for number in range(len(self._files)):
            footer = self._open(number).metadata
            for group in range(footer.num_row_groups):
                row_group = footer.row_group(group)
                for column in map(row_group.column, range(row_group.num_columns)):
                    found.update(repr(column.to_dict() | {"file_path": ""}).encode())
        return found.hexdigest()[:32]

    def read(self, start: int, stop: int) -> Read:
        """Row by row."""
        return read_each(range(start, stop), self._row)

    def _row(self, i: int) -> Structure:
        place = int(np.searchsorted(self._starts, i, side="right")) - 1
        kept = self._kept  # another thread may keep another group meanwhile
        if kept is None or kept[0] != place:
            number, group = self._places[place]
            kept = self._kept = place, self._open(number).read_row_group(group, columns=list(self.names))
        row, table = i - int(self._starts[place]), kept[1]
        return columns_of({name: _value(table[name], row) for name in self.names}, None, "the row")


def _value(column: Any, row: int) -> Any:
    """One entry as an array: a number, a list of them, a tensor, or an encoded image."""
    scalar = column[row]
    if hasattr(scalar, "to_numpy"):  # of a tensor of a fixed shape
        return scalar.to_numpy()
    value = scalar.as_py()
    if isinstance(value, dict) and isinstance(value.get("bytes"), bytes):
        value = value["bytes"]
    if value is None:
        raise ValueError("the entry is empty")
    if isinstance(value, bytes):
        return _decoded(value)
    array = np.asarray(value)
    return array.astype(_dtype(column.type)) if array.dtype.kind in "fiu" else array


def _dtype(kind: Any) -> Any:
    while hasattr(kind, "value_type"):
        kind = kind.value_type
    return kind.to_pandas_dtype()


def _decoded(data: bytes) -> Any:
    try:
        from PIL import Image
    except ImportError:
        raise errors.MissingExtraError.of("viz", "decoding an image") from None
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGB"), np.float32) / np.float32(255)
