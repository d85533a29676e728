"""Measurements of a training run as files of rows: CSV, or Parquet."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any, Protocol

from gradtap.errors import MissingExtraError
from gradtap.flow.rows import FlowMeasurement


class Records(Protocol):
    """Where the rows of each measurement go."""

    def write(self, step: int, epoch: int, found: FlowMeasurement) -> None:
        """Add the rows of a measurement, so that they are there even if the run is stopped right after."""


class CsvRecords:
    """Two files of comma-separated values, ``taps.csv`` and ``weights.csv``; what is there is replaced.

    Args:
      folder: Where they go.
    """

    def __init__(self, folder: Path) -> None:
        self._paths = {"taps": folder / "taps.csv", "weights": folder / "weights.csv"}
        for path in self._paths.values():
            path.write_text("", encoding="utf-8")

    def write(self, step: int, epoch: int, found: FlowMeasurement) -> None:
        """Append the rows of a measurement."""
        for name, lines in _lines(step, epoch, found).items():
            path = self._paths[name]
            begins = path.stat().st_size == 0
            with path.open("a", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, list(lines[0])) if lines else None
                if writer is not None and begins:
                    writer.writeheader()
                if writer is not None:
                    writer.writerows(lines)


class ParquetRecords:
    """Two folders of Parquet files, ``taps.parquet`` and ``weights.parquet``, with a file for each measurement.

    A file of Parquet cannot be read before it is finished, and a run may be stopped at any time.

    Args:
      folder: Where they go.

    Raises:
      MissingExtraError: pyarrow is not installed.
    """

    def __init__(self, folder: Path) -> None:
        try:
            import pyarrow
            import pyarrow.parquet
        except ImportError:
            raise MissingExtraError.of("store", "writing Parquet") from None
        self._arrow: Any = pyarrow
        self._folders = {"taps": folder / "taps.parquet", "weights": folder / "weights.parquet"}
        for path in self._folders.values():
            path.mkdir(parents=True, exist_ok=True)
            for old in path.glob("step-*.parquet"):
                old.unlink()

    def write(self, step: int, epoch: int, found: FlowMeasurement) -> None:
        """Write the file of a measurement."""
        for name, lines in _lines(step, epoch, found).items():
            if lines:
                table = self._arrow.Table.from_pylist(lines)
                self._arrow.parquet.write_table(table, self._folders[name] / f"step-{step:09d}.parquet")


#: What a monitor can be asked for.
FORMATS = ("csv", "parquet")


def make_records(form: str, folder: Path) -> Records:
    """The records of a form, in a folder that is there.

    Raises:
      MissingExtraError: The form needs a package that is not installed.
    """
    return ParquetRecords(folder) if form == "parquet" else CsvRecords(folder)


def _lines(step: int, epoch: int, found: FlowMeasurement) -> dict[str, list[dict[str, Any]]]:
    when = {"step": step, "epoch": epoch}
    return {
        "taps": [when | row.numbers() for row in found.rows],
        "weights": [when | row.numbers() for row in found.weights],
    }
