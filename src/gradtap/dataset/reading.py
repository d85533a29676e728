"""What every kind of data can do: say how many examples it has and what they are, and hand out a range of them."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

import numpy as np
import tensorflow as tf

from gradtap import errors
from gradtap.types import Structure

Array = np.ndarray[Any, Any]

#: An example counts as unreadable, whatever was raised while it was read; its reason is cut off after this.
_LONGEST_REASON = 200


class Group(NamedTuple):
    """Examples of one shape, as one batch.

    Args:
      ids: Which examples of the data they are.
      inputs: A nest of arrays, the examples along the first axis.
    """

    ids: Array
    inputs: Structure


class Read(NamedTuple):
    """A range of examples that were read.

    Args:
      groups: Those that can be used, by shape.
      reasons: Why the others cannot, by id.
      digests: Of each of them that can be used, by id; see `digests_of`.
    """

    groups: list[Group]
    reasons: dict[int, str]
    digests: Mapping[int, int] = MappingProxyType({})


class Source(Protocol):
    """Data of any kind."""

    #: How many examples there are.
    count: int
    #: Whether all examples have one shape.
    uniform: bool
    #: Whether another process can read them too.
    portable: bool

    def facts(self) -> dict[str, Any]:
        """What tells this data from other data, cheaply: its kind, its size and digests, ready for JSON."""

    def read(self, start: int, stop: int) -> Read:
        """Examples ``start`` to ``stop``; what cannot be read is told, and does not raise."""


class Elsewhere:
    """Data that only another process can read, which sends what it reads."""

    count = 0
    uniform = False
    portable = False

    def facts(self) -> dict[str, Any]:
        """Nothing is known of it here."""
        return {}

    def read(self, start: int, stop: int) -> Read:
        """Not here."""
        raise RuntimeError("this data is read in another process")


def inputs_of(element: Structure) -> Structure:
    """An element without the labels and weights that come along, as Keras orders them."""
    return element[0] if isinstance(element, tuple) else element


def reason_of(error: BaseException) -> str:
    """An error as the reason of one example, on one line."""
    if isinstance(error, errors.GradtapError):
        facts = dict(error.facts)
        # Not the headline where there is a cause: it names the file, and a reason is kept once for all that share it.
        text = facts.get("why") or " ".join(filter(None, [error.headline, facts.get("it said")]))
    else:
        text = f"{type(error).__name__}: {error}".rstrip(": ")
    text = " ".join(text.split())
    return text if len(text) <= _LONGEST_REASON else f"{text[: _LONGEST_REASON - 3]}..."


def read_each(ids: Iterable[int], one: Callable[[int], Structure]) -> Read:
    """Read examples one by one; those of one shape become one batch.

    Args:
      ids: Which.
      one: Reads one of them, without a batch axis.
    """
    kinds: dict[Any, list[tuple[int, Structure]]] = {}
    reasons: dict[int, str] = {}
    for i in ids:
        try:
            example = tf.nest.map_structure(_as_array, one(i))
            leaves = tf.nest.flatten(example)
        except Exception as error:  # of whatever kind the user's data raises
            reasons[i] = reason_of(error)
            continue
        kind = tuple((leaf.shape, leaf.dtype.str) for leaf in leaves)
        kinds.setdefault((len(leaves), kind), []).append((i, example))
    return Read([_stacked(examples) for examples in kinds.values()], reasons)


def _as_array(leaf: Any) -> Array:
    array = np.asarray(leaf)
    if array.dtype == object:
        raise TypeError(f"it is no array of numbers but {errors.received(leaf)}")
    return array


def _stacked(examples: Sequence[tuple[int, Structure]]) -> Group:
    ids = np.array([i for i, _ in examples], np.int64)
    return Group(ids, tf.nest.map_structure(lambda *leaves: np.stack(leaves), *(example for _, example in examples)))


def usable(read: Read) -> Read:
    """Leave out the examples that hold NaN or infinity, with the reason, and take the digests of the others."""
    groups, reasons = [], dict(read.reasons)
    for ids, inputs in read.groups:
        good = np.ones(len(ids), bool)
        for leaf in tf.nest.flatten(inputs):
            good &= finite_rows(leaf)
        if good.all():
            groups.append(Group(ids, inputs))
            continue
        reasons |= dict.fromkeys(ids[~good].tolist(), "the input has NaN or infinity")
        if good.any():
            groups.append(Group(ids[good], tf.nest.map_structure(lambda leaf, kept=good: leaf[kept], inputs)))
    return Read(groups, reasons, digests_of(groups))


def digests_of(groups: Sequence[Group]) -> dict[int, int]:
    """A number for each example that changes where any value of it does: 1 to 2^32 - 1, and 0 stands for none.

    It finds what was changed, and not what somebody hides: it is a checksum.
    """
    found: dict[int, int] = {}
    for ids, inputs in groups:
        leaves = [np.ascontiguousarray(leaf) for leaf in tf.nest.flatten(inputs)]
        start = zlib.crc32(" ".join(f"{leaf.shape[1:]} {leaf.dtype.str}" for leaf in leaves).encode())
        for row, i in enumerate(ids.tolist()):
            value = start
            for leaf in leaves:
                plain = leaf.dtype.kind in "biufc"
                value = zlib.crc32(leaf[row].tobytes() if plain else repr(leaf[row].tolist()).encode(), value)
            found[i] = value or 1
    return found


def finite_rows(array: Array) -> Array:
    """Which rows hold neither NaN nor infinity, bool ``(rows,)``."""
    if array.dtype.kind not in "fc":
        return np.ones(len(array), bool)
    with np.errstate(all="ignore"):  # a sum is finite only where all of it is, and is the fastest thing to ask
        if bool(np.isfinite(array.sum(dtype=np.float32 if array.dtype == np.float16 else None))):
            return np.ones(len(array), bool)
    return np.asarray(np.isfinite(array.reshape(len(array), -1)).all(axis=1))


def columns_of(arrays: Mapping[str, Any], columns: Sequence[str] | None, where: str) -> Structure:
    """Arrays by name, or one of them, as a model is called with them.

    Args:
      arrays: Name to array.
      columns: Which of them are the inputs; None for all.
      where: What holds them, for messages.

    Raises:
      InputFileError: There is no such array.
    """
    for name in columns or ():
        if name not in arrays:
            raise errors.InputFileError(
                f"{where} has no `{name}`.",
                [("it has", ", ".join(f"`{known}`" for known in arrays)), ("nearest", errors.nearest(name, arrays))],
                "name those that are the model's inputs: columns=[...]",
            )
    chosen = {name: arrays[name] for name in columns or arrays}
    if len(chosen) == 1:
        return next(iter(chosen.values()))
    if list(chosen) == [f"arr_{i}" for i in range(len(chosen))]:  # np.savez names arrays so that are given by position
        return list(chosen.values())
    return chosen
