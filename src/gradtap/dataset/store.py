"""The store of a run: a Zarr group with an array for each tap, and a record of what is done and of what failed.

Data are written first, then what failed, then that a block is done. Whoever is killed between two of these leaves a
block that is computed anew, and nothing else.
"""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from gradtap import errors
from gradtap.dataset.axes import own_names
from gradtap.dataset.blocks import Plan
from gradtap.dataset.specs import Spec
from gradtap.dataset.zarr_calls import zarr

Array = np.ndarray[Any, Any]
State = dict[str, Array]

#: The layout of stores; another number is another layout.
LAYOUT = 2
#: Where the digests of what was read are.
DIGESTS = "also/digest"
#: Where the names of the examples are.
NAMES = "also/name"
_COMPRESSIONS = ("fast", "small", "none")
#: Records with a number for each block or example are written in pieces of this many.
_RECORDS = 1 << 16
#: Digests, which every block has, in smaller ones.
_DIGESTS_TOGETHER = 1 << 12
#: Codes are stored in 16 bits; what no code is left for shares the last one.
_MOST_REASONS = (1 << 16) - 2


def compressors(name: str) -> Any:
    """How chunks are compressed, as Zarr takes it.

    Raises:
      ArgumentError: There is no such choice.
    """
    if name not in _COMPRESSIONS:
        raise errors.ArgumentError(
            f"compression={name!r} is not a choice.", [("choices", ", ".join(_COMPRESSIONS))], 'compression="fast"'
        )
    codecs = zarr().codecs
    made: dict[str, Callable[[], Any]] = {
        "fast": lambda: codecs.BloscCodec(cname="lz4", clevel=5, shuffle="bitshuffle"),
        "small": lambda: codecs.BloscCodec(cname="zstd", clevel=1, shuffle="bitshuffle"),
        "none": lambda: None,
    }
    return made[name]()


def create(
    path: Path,
    header: Mapping[str, Any],
    plan: Plan,
    specs: Sequence[Spec],
    states: Mapping[str, State],
    compression: str,
    names: Sequence[str],
) -> None:
    """Make a store; it appears whole or not at all.

    Args:
      path: Where.
      header: What the run is made of.
      plan: How it is cut.
      specs: The arrays with a row for each example.
      states: For a statistic: the state of no example, by the name of the result's array.
      compression: How chunks are compressed.
      names: One for each example, where they have any.

    Raises:
      StoreError: The folder cannot be written to.
    """
    codec = compressors(compression)
    temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}.part")
    with written(path):
        try:
            group = zarr().open_group(temporary, mode="w", attributes={"gradtap": dict(header)})
            _records(group, plan)
            if names:
                _names(group, names)
            for spec in specs:
                _array(group, spec, plan, codec)
            for name, state in states.items():
                for leaf, value in state.items():
                    group.create_array(
                        f"parts/{name}/{leaf}",
                        shape=(plan.tasks, *value.shape),
                        chunks=(1, *(max(size, 1) for size in value.shape)),
                        dtype=value.dtype,
                        compressors=codec,
                        dimension_names=["part", *own_names(name, [f"{leaf}{i}" for i in range(value.ndim)])],
                    )
            os.rename(temporary, path)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def _records(group: Any, plan: Plan) -> None:
    """What is done, by block; what failed, and digests of what was read, by example."""
    for name, length, axis, dtype, together in (
        ("done", plan.blocks, "block", "bool", _RECORDS),
        ("failure", plan.examples, "example", "u2", _RECORDS),
        (DIGESTS, plan.examples, "example", "u4", _DIGESTS_TOGETHER),
    ):
        array = group.create_array(
            name,
            shape=(length,),
            chunks=(max(1, min(length, together)),),
            dtype=dtype,
            fill_value=0,
            compressors=None,
            dimension_names=[axis],
        )
        if name == "failure":
            array.attrs["reasons"] = []


def _names(group: Any, names: Sequence[str]) -> None:
    """The names of the examples, as bytes: texts have no type yet in Zarr that all of its readers know."""
    encoded = [name.encode() for name in names]
    width = max([1, *map(len, encoded)])
    rows = np.frombuffer(b"".join(name.ljust(width, b"\0") for name in encoded), np.uint8).reshape(-1, width)
    array = group.create_array(
        NAMES,
        shape=rows.shape,
        chunks=(max(1, min(len(rows), _RECORDS)), width),
        dtype="uint8",
        dimension_names=["example", "name.byte"],
    )
    array[:] = rows


def _array(group: Any, spec: Spec, plan: Plan, codec: Any) -> None:
    group.create_array(
        spec.name,
        shape=(plan.examples, *spec.shape),
        chunks=(plan.block, *spec.chunk),
        dtype=spec.dtype,
        fill_value=spec.fill,
        compressors=codec,
        dimension_names=["example", *own_names(spec.key, spec.axes)],
        attributes={"address": spec.key},
    )
    if spec.varies:
        group.create_array(
            f"also/length/{spec.name}",
            shape=(plan.examples, len(spec.shape)),
            chunks=(plan.block, len(spec.shape)),
            dtype="int32",
            fill_value=0,
            compressors=None,
            dimension_names=["example", *own_names(spec.key, ["axis"])],
        )


@contextmanager
def written(path: Path) -> Iterator[None]:
    """Whatever the system says against writing, as an error that tells what to do."""
    try:
        yield
    except errors.GradtapError:
        raise
    except OSError as error:
        full = error.errno in (28, 122)  # no space, no quota
        do = "make room and run the same again: it goes on where it stopped" if full else "name another folder"
        raise errors.StoreError(f"`{path}` cannot be written.", [("why", error.strerror or str(error))], do) from error


def remove_leftovers(path: Path) -> None:
    """Remove what a run that was killed has left beside the store; the lock is held."""
    for stray in path.parent.glob(f"{path.name}.????????.part"):
        shutil.rmtree(stray, ignore_errors=True)
    for kind in ("job", "keras"):
        for stray in path.parent.glob(f"{path.name}.????????.{kind}"):
            stray.unlink(missing_ok=True)


class Store:
    """A store that was made.

    Args:
      path: Where it is.

    Raises:
      StoreError: There is no store, or it is none of gradtap's.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.group = _opened(path)
        self.header: dict[str, Any] = dict(self.group.attrs["gradtap"])
        run = self.header["run"]
        self.plan = Plan(run["examples"], run["block"], run["blocks_of_task"])
        self.specs = [Spec.of_json(facts) for facts in self.header["arrays"]]
        self._arrays: dict[str, Any] = {}
        self.done: Array = self.group["done"][:]
        self._failure = self.group["failure"]
        self.codes: Array = self._failure[:]
        self.reasons: list[str] = list(self._failure.attrs["reasons"])
        self.digests: Array = self.group[DIGESTS][:]

    # -- data ----------------------------------------------------------------------------------------------------------

    def write(self, block: int, values: Mapping[str, Array], shapes: Mapping[str, Array]) -> None:
        """Write the rows of a block; any process may, each its own blocks.

        Args:
          block: Which.
          values: Key to array ``(rows, ...)``.
          shapes: Where examples may differ in shape: the own shape of each, int ``(rows, axes)``.
        """
        rows = self.plan.rows(block)
        with written(self.path):
            for spec in self.specs:
                value = values[spec.key]
                array = self._fitting(spec, value.shape[1:])
                if array.shape[1:] != value.shape[1:]:
                    value = padded(value, array.shape[1:], spec.fill)
                array[rows.start : rows.stop] = value
                if spec.varies:
                    self._named(f"also/length/{spec.name}")[rows.start : rows.stop] = shapes[spec.key]

    def write_part(self, task: int, states: Mapping[str, State]) -> None:
        """Write the state of one task of a statistic."""
        with written(self.path):
            for name, state in states.items():
                for leaf, value in state.items():
                    self._named(f"parts/{name}/{leaf}")[task] = value

    def part(self, name: str, task: int, leaves: Iterable[str]) -> State:
        """Read the state of one task."""
        return {leaf: np.asarray(self._named(f"parts/{name}/{leaf}")[task]) for leaf in leaves}

    def write_result(self, name: str, value: Array, axes: Sequence[str], address: str) -> None:
        """Write a result of a whole statistic."""
        value = np.asarray(value)
        with written(self.path):
            array = self.group.create_array(
                name,
                shape=value.shape,
                chunks=tuple(max(size, 1) for size in value.shape),
                dtype=value.dtype,
                dimension_names=axes,
                attributes={"address": address},
                overwrite=True,
            )
            array[...] = value

    def _named(self, name: str) -> Any:
        if name not in self._arrays:
            self._arrays[name] = self.group[name]
        return self._arrays[name]

    def _fitting(self, spec: Spec, shape: tuple[int, ...]) -> Any:
        """The array, made larger where an example needs it; one process at a time changes its shape."""
        array = self._named(spec.name)
        if all(has >= needs for has, needs in zip(array.shape[1:], shape, strict=True)):
            return array
        if not spec.varies:
            raise errors.StoreError(
                f"the results at `{spec.key}` have another shape than those of the first example.",
                [("first", str(spec.shape)), ("now", str(shape))],
                "a method must give one shape for inputs of one shape",
            )
        import fcntl

        growing = self.path.with_name(f"{self.path.name}.growing")
        with growing.open("w") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            array = self._arrays[spec.name] = zarr().open_array(self.path / spec.name, mode="r+")
            wanted = tuple(map(max, array.shape[1:], shape))
            if wanted != array.shape[1:]:
                array.resize((array.shape[0], *wanted))
        return array

    # -- the record, which one process keeps ---------------------------------------------------------------------------

    def record(self, rows: range, reasons: Mapping[int, str], digests: Mapping[int, int]) -> None:
        """Write down what was read of some examples, which of them failed, and why; the others did not."""
        read = np.array([digests.get(i, 0) for i in rows], np.uint32)
        if not np.array_equal(read, self.digests[rows.start : rows.stop]):
            with written(self.path):
                self._named(DIGESTS)[rows.start : rows.stop] = read
            self.digests[rows.start : rows.stop] = read
        codes = np.zeros(len(rows), np.uint16)
        for i, reason in reasons.items():
            codes[i - rows.start] = self._code(reason)
        if np.array_equal(codes, self.codes[rows.start : rows.stop]):
            return
        with written(self.path):
            self._failure[rows.start : rows.stop] = codes
        self.codes[rows.start : rows.stop] = codes

    def _code(self, reason: str) -> int:
        if len(self.reasons) >= _MOST_REASONS:
            reason = "another reason"
        if reason not in self.reasons:
            self.reasons.append(reason)
            with written(self.path):
                self._failure.attrs["reasons"] = self.reasons
        return self.reasons.index(reason) + 1

    def mark(self, blocks: Sequence[int], done: bool) -> None:
        """Write down that blocks are done, or are to be done anew."""
        self.done[list(blocks)] = done
        first, last = min(blocks), max(blocks)
        with written(self.path):
            self.group["done"][first : last + 1] = self.done[first : last + 1]

    def update_header(self, header: Mapping[str, Any]) -> None:
        """Replace what the run is said to be made of."""
        self.header = dict(header)
        with written(self.path):
            self.group.attrs["gradtap"] = self.header

    @property
    def failures(self) -> dict[int, str]:
        """Why examples failed, by id."""
        return {int(i): self.reasons[self.codes[i] - 1] for i in np.flatnonzero(self.codes)}

    def name(self, i: int) -> str:
        """What an example is called in the data; empty where it has no name."""
        return bytes(self._named(NAMES)[i]).rstrip(b"\0").decode() if NAMES in self.group else ""

    def names(self) -> list[str] | None:
        """What the examples are called in the data; None where they have no names."""
        if NAMES not in self.group:
            return None
        return [bytes(row).rstrip(b"\0").decode() for row in self._named(NAMES)[:]]

    def clean(self) -> None:
        """Remove what was needed while the store grew."""
        with suppress(OSError):
            self.path.with_name(f"{self.path.name}.growing").unlink()


def padded(value: Array, shape: Sequence[int], fill: Any) -> Array:
    """Rows of a larger shape, with a number that stands for none where they have no entry."""
    larger = np.full((len(value), *shape), fill, value.dtype)
    larger[tuple(slice(size) for size in value.shape)] = value
    return larger


def _opened(path: Path) -> Any:
    if not path.exists():
        raise errors.StoreError(f"there is no store at `{path}`.", [], "dataset.run makes one")
    try:
        group = zarr().open_group(path, mode="r+", use_consolidated=False)
        layout = group.attrs["gradtap"]["layout"]
    except errors.GradtapError:
        raise
    except (OSError, ValueError, KeyError, TypeError) as error:
        facts = [("why", "it was not made by dataset.run"), ("it said", f"{type(error).__name__}: {error}"[:160])]
        raise errors.StoreError(f"`{path}` is no store of results.", facts, "give another path") from None
    if layout != LAYOUT:
        raise errors.StoreError(
            f"`{path}` has layout {layout}; this version of gradtap reads {LAYOUT}.", [], "use the version that made it"
        )
    return group
