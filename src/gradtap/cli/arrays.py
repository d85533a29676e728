"""Array files as what a model is called with."""

from __future__ import annotations

import tokenize
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from gradtap.cli.images import unreadable
from gradtap.cli.outcome import InputFileError

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

#: What NumPy raises on a damaged file depends on where the damage is: in the archive, its data, or an array's header.
DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    tokenize.TokenError,
    EOFError,
    ArithmeticError,
    LookupError,
    MemoryError,
    NotImplementedError,
    SyntaxError,
    TypeError,
    ValueError,
)


class InputSpec(NamedTuple):
    """What a model takes as one of its inputs: the shape with the batch axis, and the name of the dtype."""

    shape: tuple[int | None, ...]
    dtype: str


#: Name of each input of the model to what it takes; empty where the model does not say.
Declared = Mapping[str, InputSpec]


def load_arrays(file: Path) -> dict[str, Array]:
    """Read a ``.npy`` or ``.npz`` file; the array of a ``.npy`` is called ``array``.

    Args:
      file: The file. Objects in it, which could run code, are refused.

    Returns:
      Name to array, at least one.

    Raises:
      InputFileError: The file is damaged, of another kind, or holds objects.
    """
    import numpy as np

    try:
        with file.open("rb") as stream:
            loaded = np.load(stream, allow_pickle=False)
            arrays = {key: loaded[key] for key in loaded.files} if hasattr(loaded, "files") else {"array": loaded}
    except OSError as error:
        raise unreadable(file, error.strerror or str(error)) from None
    except DAMAGE as error:
        # NumPy takes whatever it does not know for a pickle and refuses it as such.
        why = "it is damaged, or holds objects instead of numbers" if "pickle" in str(error) else str(error)
        raise unreadable(file, why) from None
    if not arrays:
        raise unreadable(file, "it holds no array")
    return arrays


def as_model_inputs(file: Path, arrays: Mapping[str, Array], declared: Declared) -> Any:
    """Arrange arrays the way a model is called.

    Args:
      file: Where they come from.
      arrays: Name to array.
      declared: What the model says it takes.

    Returns:
      One array ``(batch, ...)``; a list, where several have no names of their own; or a dict by name.

    Raises:
      InputFileError: A single example does not fit the model.
    """
    if len(arrays) == 1:
        return _with_batch_axis(file, next(iter(arrays.values())), declared)
    if list(arrays) == [f"arr_{index}" for index in range(len(arrays))]:
        # np.savez names arrays so when they are given by position.
        return list(arrays.values())
    return dict(arrays)


def shape_text(shape: Sequence[int | None]) -> str:
    """Write a shape with its batch axis; an axis of any size reads so.

    Example:
      >>> shape_text((None, None, 3))
      '(batch, any, 3)'
    """
    words = ["any" if size is None else str(size) for size in shape]
    if shape and shape[0] is None:
        words[0] = "batch"
    return f"({', '.join(words)})"


def _with_batch_axis(file: Path, array: Array, declared: Declared) -> Array:
    """Add the batch axis to a single example, where the model's rank leaves no doubt that it is one."""
    shape = next(iter(declared.values())).shape if len(declared) == 1 else None
    if shape is None or array.ndim != len(shape) - 1:
        return array
    if all(takes in (None, has) for takes, has in zip(shape[1:], array.shape, strict=True)):
        return array[None]
    facts = [("takes", shape_text(shape)), ("has", shape_text(array.shape))]
    raise InputFileError(f"the array in `{file}` does not fit the model.", facts)
