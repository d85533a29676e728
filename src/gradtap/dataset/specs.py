"""What a store holds for each result: its name, its shape, its type."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from gradtap.dataset.methods import BESIDE
from gradtap.dataset.names import array_names

Array = np.ndarray[Any, Any]

#: Axes of which the size is not known beforehand are cut into chunks of at least this size.
_CHUNK = 64


@dataclass(frozen=True)
class Spec:
    """One array of a store, with a row for each example.

    Args:
      key: The address, or the name of what comes beside it.
      name: The array's name in the store.
      shape: Of one example; where that varies, of the first.
      dtype: What the numbers are stored as.
      varies: Whether examples may differ in shape.
      axes: The names of one example's axes.
    """

    key: str
    name: str
    shape: tuple[int, ...]
    dtype: str
    varies: bool
    axes: tuple[str, ...]

    @property
    def chunk(self) -> tuple[int, ...]:
        """The part of one example that is in one chunk."""
        if not self.varies:
            return tuple(max(size, 1) for size in self.shape)
        return (*(max(size, _CHUNK) for size in self.shape[:-1]), *(max(size, 1) for size in self.shape[-1:]))

    @property
    def fill(self) -> Any:
        """What stands where there is no number: NaN, where the type has one."""
        return np.array(np.nan if np.dtype(self.dtype).kind in "fc" else 0, self.dtype)

    def as_json(self) -> dict[str, Any]:
        """For the attributes of a store."""
        return asdict(self) | {"shape": list(self.shape), "axes": list(self.axes)}

    @classmethod
    def of_json(cls, facts: Mapping[str, Any]) -> Spec:
        """From the attributes of a store."""
        return cls(**{**facts, "shape": tuple(facts["shape"]), "axes": tuple(facts["axes"])})


def specs_of(
    results: Mapping[str, Array], axes: Mapping[str, Sequence[str]], dtype: str | None, varies: bool
) -> list[Spec]:
    """The arrays that results like these need.

    Args:
      results: Those of one example or of several.
      axes: The names of their axes but that of the examples, by key.
      dtype: What floats are stored as; None for what they are.
      varies: Whether examples may differ in shape.
    """
    names = names_of(results)
    return [
        Spec(
            key,
            names[key],
            tuple(value.shape[1:]),
            dtype if dtype is not None and value.dtype.kind == "f" else value.dtype.name,
            varies and value.ndim > 1,
            tuple(axes[key]),
        )
        for key, value in results.items()
    ]


def names_of(keys: Iterable[str]) -> dict[str, str]:
    """The array's name of each key: of an address as `array_names` has it, of what comes beside it ``also/...``."""
    keys = list(keys)
    addresses = [key for key in keys if not key.startswith(BESIDE)]
    found = array_names(addresses)
    home = found[addresses[0]] if addresses else "result"
    return {key: found.get(key) or f"also/{key.removeprefix(BESIDE)}/{home}" for key in keys}
