"""Results in a store, read as they are asked for."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from gradtap import errors
from gradtap.dataset.names import address_of
from gradtap.dataset.store import Store
from gradtap.html_table import html_table

Array = np.ndarray[Any, Any]

#: So many failures a notebook shows.
_SHOWN = 10


class StoredArray:
    """One array of a store; what is indexed is read, and nothing else.

    Args:
      array: The Zarr array.
      lengths: Where examples differ in shape: the own shape of each.
    """

    def __init__(self, array: Any, lengths: Any = None) -> None:
        self._array = array
        self._lengths = lengths

    @property
    def shape(self) -> tuple[int, ...]:
        """With the examples first; where they differ in shape, large enough for each."""
        return tuple(self._array.shape)

    @property
    def dtype(self) -> Any:
        """What the numbers are stored as."""
        return self._array.dtype

    @property
    def dimensions(self) -> tuple[str, ...]:
        """The names of the axes."""
        return tuple(self._array.metadata.dimension_names)

    @property
    def ndim(self) -> int:
        """How many axes there are."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """How many numbers there are."""
        return int(np.prod(self.shape))

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Any) -> Array:
        """Read a part, as NumPy slices it."""
        return np.asarray(self._array[index])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        return np.asarray(self._array[...], dtype)

    def example(self, i: int) -> Array:
        """Read one example in its own shape, without what fills it up to the shape of the largest."""
        if self._lengths is None:
            return self[i]
        return self[(i, *(slice(int(size)) for size in self._lengths[i]))]

    def __repr__(self) -> str:
        return f"StoredArray({self.shape}, {np.dtype(self.dtype).name})"


class Stored(Mapping[str, StoredArray]):
    """The results of a run: a read-only mapping from address to an array that is read when it is sliced.

    Args:
      store: The store.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._group = store.group
        self._names = {spec.key: spec.name for spec in store.specs if "::" not in spec.key}
        self._names |= store.header["results"]

    @property
    def path(self) -> Path:
        """Where the store is."""
        return self._store.path

    @property
    def done(self) -> Array:
        """Which blocks are done, bool ``(blocks,)``."""
        return self._store.done.copy()

    @property
    def complete(self) -> bool:
        """Whether all of them are."""
        return bool(self._store.done.all())

    @property
    def examples(self) -> int:
        """How many examples the data has."""
        return self._store.plan.examples

    @property
    def block(self) -> int:
        """How many examples a block has."""
        return self._store.plan.block

    @property
    def failures(self) -> dict[int, str]:
        """The examples that failed, by id, with the reason."""
        return self._store.failures

    def name(self, i: int) -> str:
        """What an example is called in the data, such as an image by its file; empty where it has no name."""
        return self._store.name(i)

    @property
    def made_of(self) -> dict[str, Any]:
        """What the run is made of: the fingerprints of model and data, the arguments, the versions."""
        return {key: self._store.header[key] for key in ("model", "data", "arguments", "versions")}

    @property
    def also(self) -> dict[str, dict[str, StoredArray]]:
        """What comes beside the results, by its name and by address: of an attack its success, say."""
        found: dict[str, dict[str, StoredArray]] = {}
        for spec in self._store.specs:
            if "::" in spec.key:
                what, _, home = spec.name.removeprefix("also/").partition("/")
                found.setdefault(what, {})[address_of(home)] = StoredArray(self._group[spec.name])
        for name in self._store.header.get("beside", []):
            what, _, home = name.removeprefix("also/").partition("/")
            if name in self._group:
                found.setdefault(what, {})[address_of(home)] = StoredArray(self._group[name])
        return found

    def __getitem__(self, address: str) -> StoredArray:
        name = self._names.get(str(address))
        if name is None:
            raise errors.MissingResultError(
                f"the store holds nothing under {str(address)!r}.",
                [("it holds", ", ".join(f"`{known}`" for known in list(self._names)[:12]))],
                "index it by an address that was asked for",
            )
        if name not in self._group:
            raise errors.MissingResultError(
                f"the statistic at `{address}` is not finished.", [], "run the same again: it goes on where it stopped"
            )
        varies = any(spec.name == name and spec.varies for spec in self._store.specs)
        return StoredArray(self._group[name], self._group[f"also/length/{name}"] if varies else None)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def to_xarray(self) -> Any:
        """All results as an ``xarray.Dataset``, by address; numbers are read when they are needed.

        Beside the results there are ``failure``, 0 where none, and the coordinates ``done`` and, where the data has
        names, such as those of image files, ``example``.

        Raises:
          MissingExtraError: xarray is not installed.
        """
        try:
            import xarray
        except ImportError:
            raise errors.MissingExtraError.of("store", "labelled arrays") from None
        found = {}
        for address, name in self._names.items():
            group, _, last = name.rpartition("/")
            opened = xarray.open_zarr(self.path, group=group or None, consolidated=False, chunks=None)
            found[address] = opened[last].variable
        beside: dict[str, Any] = {}
        if any("example" in variable.dims for variable in found.values()):
            found["failure"] = xarray.open_zarr(self.path, consolidated=False, chunks=None)["failure"].variable
            beside["done"] = ("example", np.repeat(self.done, self.block)[: self.examples])
            names = self._store.names()
            beside |= {"example": names} if names is not None else {}
        return xarray.Dataset(found, beside, attrs={"examples": self.examples})

    def __repr__(self) -> str:
        rows = [f"  {address!r}: {self[address]!r}" if name in self._group else f"  {address!r}: not finished"
                for address, name in self._names.items()]  # fmt: skip
        done = f"{int(self._store.done.sum())} of {len(self._store.done)} blocks done"
        return "\n".join([f"Stored({self.path}, {done}, {len(self.failures)} failures", *rows]) + ")"

    def _repr_html_(self) -> str:
        there = {address: self[address] for address, name in self._names.items() if name in self._group}
        rows = [
            [address, str(there[address].shape), np.dtype(there[address].dtype).name]
            if address in there
            else [address, "not finished", ""]
            for address in self
        ]
        failed = list(self.failures.items())
        below = [f"example {i} failed: {why}" for i, why in failed[:_SHOWN]]
        below += [f"and {len(failed) - _SHOWN} more"] if len(failed) > _SHOWN else []
        caption = f"{self.path}, {int(self.done.sum())} of {len(self.done)} blocks done"
        return html_table(["tap", "shape", "dtype"], rows, caption=caption, below=below)


def open(store: str | os.PathLike[str]) -> Stored:
    """Open the store of a run, of one that is still at work as well.

    Args:
      store: Its path.

    Returns:
      `Stored`: a mapping from address to an array that is read when it is sliced.

    Raises:
      StoreError: There is no store, or it was not made by `gradtap.dataset.run`.

    Example:
      >>> import keras, numpy as np
      >>> from gradtap import dataset
      >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, name="hidden"), keras.layers.Dense(2)])
      >>> _ = dataset.run(model, np.ones((10, 4)), "gradients", "opened.zarr", at="hidden", target=0)
      >>> dataset.open("opened.zarr")["hidden"][2:5].shape
      (3, 3)
    """
    return Stored(Store(Path(store).expanduser()))
