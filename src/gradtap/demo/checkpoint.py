"""Reads a PyTorch checkpoint of the legacy format without PyTorch, and without running what is in it.

Such a file is a sequence of pickles followed by raw numbers: a magic number, a protocol version, a description of the
machine that wrote it, the state dict (whose tensors only name their storages), the list of storage keys, and then
every storage as an int64 count and its little-endian values. A pickle can call any function it names, so this
reader lets it name a handful: ``OrderedDict``, the two rebuild functions (replaced by harmless records here) and the
storage types. Everything else is refused before it is looked up.
"""

from __future__ import annotations

import math
import os
import pickle
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from gradtap.errors import GradtapError

MAGIC_NUMBER = 0x1950A86A20F9469CFC6C
PROTOCOL_VERSION = 1001
# The format has no bfloat16 equivalent in NumPy; the others are plain little-endian arrays.
STORAGE_TYPES = {
    "DoubleStorage": "<f8",
    "FloatStorage": "<f4",
    "HalfStorage": "<f2",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "|i1",
    "ByteStorage": "|u1",
    "BoolStorage": "|b1",
}


class CheckpointError(GradtapError):
    """A checkpoint file that cannot be read, or that asks for more than arrays."""


class _Storage(NamedTuple):
    """What the pickle says of a storage; its values come later in the file."""

    key: str
    dtype: str
    size: int


class _Tensor(NamedTuple):
    """A view into a storage, in elements."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class _RestrictedUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        """Answer the few names that a state dict needs; refuse every other one without importing it."""
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return self._tensor
        if (module, name) == ("torch._utils", "_rebuild_parameter"):
            return self._parameter
        if module == "torch" and name in STORAGE_TYPES:
            # A string, not a dtype: a pickle may set the state of any object it holds, and a string has none.
            return STORAGE_TYPES[name]
        raise CheckpointError(
            f"the checkpoint asks for `{module}.{name}`, which is not needed to store arrays: refused"
        )

    def persistent_load(self, pid: Any) -> _Storage:
        """Turn the reference to a storage into a record."""
        match pid:
            case ("storage", str(dtype), str(key), str(), int(count), None):
                return _Storage(key, dtype, count)
            case _:
                raise CheckpointError(f"the checkpoint refers to a storage in an unknown way: {pid!r}")

    @staticmethod
    def _tensor(storage: Any, offset: Any, shape: Any, strides: Any, *_gradient_flags: Any) -> _Tensor:
        return _Tensor(storage, offset, shape, strides)

    @staticmethod
    def _parameter(tensor: Any, *_gradient_flags: Any) -> Any:
        return tensor


def read_checkpoint(path: str | Path) -> dict[str, np.ndarray[Any, Any]]:
    """Read the arrays of a legacy PyTorch checkpoint.

    Args:
      path: A ``.pth`` file whose content is a flat state dict.

    Returns:
      Name to array, in the order of the file, with the shapes and dtypes of the checkpoint.

    Raises:
      CheckpointError: The file is missing, truncated, of another format, or asks for anything but arrays.
    """
    try:
        with open(path, "rb") as file:
            _read_header(file)
            state = _RestrictedUnpickler(file).load()
            keys = _RestrictedUnpickler(file).load()
            records = _checked_records(state)
            storages = _read_storages(file, keys, records)
    except OSError as error:
        raise _unreadable(path, error.strerror or str(error)) from error
    except CheckpointError as error:
        raise _unreadable(path, error.headline) from None
    except (pickle.UnpicklingError, EOFError, ValueError, TypeError, LookupError, AttributeError, MemoryError) as error:
        # What the C unpickler raises on bytes that are no pickle depends on the bytes.
        raise _unreadable(path, f"it is not a pickle of arrays ({error})") from error
    return {name: _view(tensor, storages[tensor.storage.key]) for name, tensor in records.items()}


def _unreadable(path: str | Path, why: str) -> CheckpointError:
    facts = [("file", str(path)), ("why", why)]
    return CheckpointError("the checkpoint cannot be read.", facts, "install the package that holds the file again")


def _read_header(file: BinaryIO) -> None:
    if _RestrictedUnpickler(file).load() != MAGIC_NUMBER:
        raise CheckpointError("it does not start with the magic number of the legacy PyTorch format")
    version = _RestrictedUnpickler(file).load()
    if version != PROTOCOL_VERSION:
        raise CheckpointError(f"its protocol version is {version!r}, expected {PROTOCOL_VERSION}")
    machine = _RestrictedUnpickler(file).load()
    if not isinstance(machine, dict) or machine.get("little_endian") is not True:
        raise CheckpointError("it was not written by a little-endian machine")


def _checked_records(state: Any) -> dict[str, _Tensor]:
    """Check that the state dict is flat and that every tensor lies inside its storage."""
    if not isinstance(state, Mapping):
        raise CheckpointError(f"it holds a {type(state).__name__}, expected a flat state dict")
    for name, tensor in state.items():
        if not isinstance(name, str) or not isinstance(tensor, _Tensor) or not isinstance(tensor.storage, _Storage):
            raise CheckpointError(f"its entry {name!r} is a {type(tensor).__name__}, expected a tensor")
        numbers = (tensor.offset, *tensor.shape, *tensor.strides, tensor.storage.size)
        if not all(isinstance(number, int) and number >= 0 for number in numbers):
            raise CheckpointError(f"the sizes of `{name}` are not all whole numbers from 0 up")
        if len(tensor.shape) != len(tensor.strides):
            raise CheckpointError(f"`{name}` has {len(tensor.shape)} axes but {len(tensor.strides)} strides")
        steps = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.strides, strict=True))
        beyond = 0 not in tensor.shape and tensor.offset + steps >= tensor.storage.size
        # A stride of 0 repeats values: a few bytes could ask for any amount of memory.
        if beyond or math.prod(tensor.shape) > tensor.storage.size:
            raise CheckpointError(f"`{name}` reaches beyond its storage of {tensor.storage.size} values")
        if tensor.storage.dtype not in STORAGE_TYPES.values():
            raise CheckpointError(f"`{name}` has the unknown storage type {tensor.storage.dtype!r}")
    return dict(state)


def _read_storages(file: BinaryIO, keys: Any, records: Mapping[str, _Tensor]) -> dict[str, np.ndarray[Any, Any]]:
    declared = {tensor.storage.key: tensor.storage for tensor in records.values()}
    if any(declared[tensor.storage.key] != tensor.storage for tensor in records.values()):
        raise CheckpointError("two tensors describe one storage differently")
    if not isinstance(keys, list) or set(keys) != set(declared):
        raise CheckpointError("its list of storages does not fit its tensors")
    storages = {}
    for key in keys:
        storage = declared[key]
        count = int.from_bytes(_read_exactly(file, 8), "little", signed=True)
        if count != storage.size:
            raise CheckpointError(f"storage {key} has {count} values, its tensors say {storage.size}")
        dtype = np.dtype(storage.dtype)
        storages[key] = np.frombuffer(_read_exactly(file, count * dtype.itemsize), dtype)
    return storages


def _read_exactly(file: BinaryIO, size: int) -> bytes:
    # Compared before reading: `read` would first allocate what a damaged count asks for.
    missing = size - (os.fstat(file.fileno()).st_size - file.tell())
    if missing > 0:
        raise CheckpointError(f"it ends {missing} bytes too early")
    return file.read(size)


def _view(tensor: _Tensor, storage: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Copy a tensor out of its storage; ``_checked_records`` made sure that it lies inside."""
    if 0 in tensor.shape:
        return np.zeros(tensor.shape, storage.dtype)
    strides = tuple(stride * storage.itemsize for stride in tensor.strides)
    return np.lib.stride_tricks.as_strided(storage[tensor.offset :], tensor.shape, strides, writeable=False).copy()
