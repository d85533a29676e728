"""Array files as what a model is called with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from gradtap.errors import InputFileError

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]


class InputSpec(NamedTuple):
    """What a model takes as one of its inputs: the shape with the batch axis, and the name of the dtype."""

    shape: tuple[int | None, ...]
    dtype: str


#: Name of each input of the model to what it takes; empty where the model does not say.
Declared = Mapping[str, InputSpec]


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
