"""What a user passes as inputs, checked and turned into the flat tensors that a traced graph is fed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from gradtap import errors
from gradtap.graph.keras_internals import DeclaredInputs
from gradtap.types import Structure, Tensor


@dataclass(frozen=True)
class Feeds:
    """One batch of inputs, flattened.

    Args:
      tensors: One tensor for each leaf, batch first.
      structure: The nest they are passed to the model in, with positions at the leaves.
      names: One name for each leaf, for messages and addresses.
    """

    tensors: list[Tensor]
    structure: Structure
    names: tuple[str, ...]

    @property
    def batch_size(self) -> int | None:
        """Number of examples; None inside a `tf.function` that does not know it."""
        first = self.tensors[0].shape
        return first[0] if first.rank else None

    def rows(self, start: int, stop: int) -> Feeds:
        """Some examples of the batch."""
        return Feeds([t[start:stop] if t.shape.rank else t for t in self.tensors], self.structure, self.names)


def read_inputs(inputs: Structure, declared: DeclaredInputs | None, float_dtype: str | None) -> Feeds:
    """Check inputs against what the model says it takes and convert them.

    Args:
      inputs: One array or tensor ``(batch, ...)``, or a list, tuple or dict of them, as the model is called.
      declared: What the model declares; None where it declares nothing.
      float_dtype: The type that floats are converted to where nothing is declared; None leaves them.

    Returns:
      The feeds. Inputs of a declared type are converted to it, so integer images become float images here.

    Raises:
      InputStructureError: Too many or too few arrays, or other names.
      InputShapeError: Another rank or size than declared, or unequal numbers of examples.
      InputDtypeError: Text, ragged, symbolic or otherwise not numbers.
    """
    structure, leaves = _match(inputs, declared)
    names = declared.names if declared else _names(structure, len(leaves))
    dtypes = declared.dtypes if declared else (None,) * len(leaves)
    tensors: list[Tensor] = []
    wrong: list[errors.GradtapError] = []
    for leaf, name, dtype in zip(leaves, names, dtypes, strict=True):
        try:
            tensors.append(_tensor(leaf, name, dtype, float_dtype))
        except errors.GradtapError as error:
            wrong.append(error)
    errors.raise_all(wrong)
    if declared:
        wrong = [e for e in map(_shape_error, tensors, names, declared.shapes) if e]
        errors.raise_all(wrong)
    _check_batch(tensors, names)
    return Feeds(tensors, structure, names)


def _match(inputs: Structure, declared: DeclaredInputs | None) -> tuple[Structure, list[Any]]:
    inputs = _numbers_as_array(inputs)
    if declared is None:
        leaves = _flatten(inputs)
        if not leaves:
            raise errors.InputStructureError("`inputs` holds no array.", [], "pass what you would call the model with")
        return tf.nest.pack_sequence_as(inputs, list(range(len(leaves)))), leaves
    expected = len(declared.names)
    if isinstance(inputs, Mapping) and not _same_keys(inputs, declared.structure):
        missing = [name for name in declared.names if name not in inputs]
        if missing or len(inputs) > expected:
            raise _structure_error(declared, f"a dict with the keys {sorted(map(str, inputs))}")
        return declared.structure, [inputs[name] for name in declared.names]
    leaves = _flatten(inputs)
    if len(leaves) != expected:
        raise _structure_error(declared, f"{len(leaves)} arrays" if len(leaves) != 1 else "one array")
    if expected == 1:
        return declared.structure, leaves
    return declared.structure, leaves


def _same_keys(inputs: Mapping[Any, Any], structure: Structure) -> bool:
    return isinstance(structure, Mapping) and set(structure) == set(inputs)


def _flatten(inputs: Structure) -> list[Any]:
    return list(tf.nest.flatten(inputs))


def _numbers_as_array(inputs: Structure) -> Structure:
    """A nested list of plain numbers is one array, not a list of inputs."""
    if isinstance(inputs, (list, tuple)) and inputs:
        leaves = _flatten(inputs)
        if leaves and all(isinstance(leaf, (int, float, bool)) for leaf in leaves):
            try:
                return np.asarray(inputs)
            except ValueError:
                raise errors.RaggedInputError(
                    "The rows of `inputs` differ in length.", [], "pad them to one length, or pass one row at a time"
                ) from None
    return inputs


def _structure_error(declared: DeclaredInputs, given: str) -> errors.InputStructureError:
    takes = ", ".join(f"`{n}` {_text(s)}" for n, s in zip(declared.names, declared.shapes, strict=True))
    count = len(declared.names)
    remedies = ["pass a list in this order, or a dict with these names" if count > 1 else "pass one array"]
    if count == 1 and "arrays" in given:
        remedies = ["np.stack(images) makes one batch of a list of images"]
    return errors.InputStructureError(
        f"the model takes {count} input{'s' if count > 1 else ''}, got {given}.", [("takes", takes)], remedies
    )


def _names(structure: Structure, count: int) -> tuple[str, ...]:
    if isinstance(structure, Mapping) and len(structure) == count:
        return tuple(str(key) for key in sorted(structure))
    return tuple(str(i) for i in range(count))


def _tensor(leaf: Any, name: str, dtype: str | None, float_dtype: str | None) -> Tensor:
    if isinstance(leaf, tf.Tensor) and leaf.dtype != tf.string:
        return _cast(leaf, dtype, float_dtype)
    if _is_keras_tensor(leaf):
        raise errors.SymbolicInputError(
            f"input `{name}` is a symbolic Keras tensor, which holds no numbers.",
            [("received", f"{type(leaf).__name__} of shape {_text(leaf.shape)}")],
            "pass a batch of data, such as a NumPy array; a gradient is always taken at values",
        )
    if isinstance(leaf, (tf.RaggedTensor, tf.SparseTensor)) or type(leaf).__name__ == "RaggedTensorValue":
        raise errors.RaggedInputError(
            f"input `{name}` is a {type(leaf).__name__}.", [], "make it dense: x.to_tensor() or tf.sparse.to_dense(x)"
        )
    try:
        array = leaf if isinstance(leaf, tf.Variable) else np.asarray(leaf)
    except (ValueError, TypeError):
        array = np.empty(0, dtype=object)
    kind = getattr(array.dtype, "kind", "f") if isinstance(array, np.ndarray) else "f"
    if kind in "USO" and _holds_text(leaf, array):
        raise errors.StringInputError(
            f"input `{name}` holds text.",
            [],
            "turn text into token ids first (a tokenizer, or keras.layers.TextVectorization outside of the model)",
        )
    if kind not in "biufc" and not _is_extended_float(array):
        raise errors.InputDtypeError(
            f"input `{name}` cannot be made a tensor.",
            [("received", f"{type(leaf).__name__}" + (f" of {array.dtype}" if array is not leaf else ""))],
            "pass an array of numbers with the batch axis first; rows of unequal length must be padded",
        )
    return _cast(tf.convert_to_tensor(array), dtype, float_dtype)


def _is_extended_float(array: Any) -> bool:
    return "float" in str(array.dtype)  # bfloat16 and the float8 types have NumPy kind "V"


def _holds_text(leaf: Any, array: Any) -> bool:
    if array.dtype.kind in "US" or isinstance(leaf, tf.Tensor):
        return True
    return any(isinstance(item, (str, bytes)) for item in array.ravel()[:16])


def _is_keras_tensor(leaf: Any) -> bool:
    return type(leaf).__name__ == "KerasTensor"


def _cast(tensor: Tensor, dtype: str | None, float_dtype: str | None) -> Tensor:
    wanted = dtype or (float_dtype if tensor.dtype.is_floating else None)
    if wanted is None or tensor.dtype.name == wanted:
        return tensor
    if tensor.dtype.is_floating and wanted.startswith(("int", "uint", "bool")):
        return tensor if dtype is None else tf.cast(tensor, wanted)
    return tf.cast(tensor, wanted)


def _shape_error(tensor: Tensor, name: str, shape: tuple[int | None, ...]) -> errors.InputShapeError | None:
    given = tuple(tensor.shape) if tensor.shape.rank is not None else None
    if given is None or _fits(given, shape):
        return None
    remedies = []
    if len(given) == len(shape) - 1 and _fits(given, shape[1:]):
        remedies.append("add the batch axis: x[None]")
    elif len(given) == len(shape) and len(shape) == 4 and _fits((given[0], given[2], given[3], given[1]), shape):
        remedies.append("the channels come last here: np.transpose(x, (0, 2, 3, 1))")
    elif len(given) == len(shape) == 4:
        remedies.append(f"resize the images: keras.ops.image.resize(x, {_text(shape[1:3])})")
    else:
        remedies.append(f"reshape it to {_text(shape)}; the first axis is the batch")
    return errors.InputShapeError(
        f"input `{name}` has shape {_text(given)}, the model takes {_text(shape)}.", [], remedies
    )


def _fits(given: tuple[int | None, ...], shape: tuple[int | None, ...]) -> bool:
    if len(given) == len(shape) - 1 and shape[-1] == 1 and len(shape) > 2:
        given = (*given, 1)  # Keras adds a last axis of one itself, and takes one away
    elif len(given) == len(shape) + 1 and given[-1] == 1 and len(given) > 2:
        given = given[:-1]
    return len(given) == len(shape) and all(a == b or a is None or b is None for a, b in zip(given, shape, strict=True))


def _check_batch(tensors: list[Tensor], names: tuple[str, ...]) -> None:
    sizes = {n: t.shape[0] for n, t in zip(names, tensors, strict=True) if t.shape.rank}
    known = {size for size in sizes.values() if size is not None}
    scalars = [n for n, t in zip(names, tensors, strict=True) if t.shape.rank == 0]
    if scalars and not sizes:
        raise errors.InputShapeError(
            f"input `{scalars[0]}` is a single number.", [], "the first axis is the batch: pass shape (batch, ...)"
        )
    if len(known) > 1:
        counts = ", ".join(f"`{n}` {s}" for n, s in sizes.items())
        raise errors.InputShapeError(
            "the inputs hold unequal numbers of examples.", [("examples", counts)], "the first axis is the batch"
        )


def _text(shape: Any) -> str:
    entries = ["batch" if i == 0 and s is None else str(s) for i, s in enumerate(tuple(shape))]
    return f"({', '.join(entries)}{',' if len(entries) == 1 else ''})"
