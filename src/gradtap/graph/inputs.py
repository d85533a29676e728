"""What a user passes as inputs, checked and turned into the flat tensors that a traced graph is fed."""

from __future__ import annotations

from array import array as python_array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Number
from typing import Any

import numpy as np
import tensorflow as tf

from gradtap import errors
from gradtap.graph import surgery
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


def read_inputs(
    inputs: Structure, declared: DeclaredInputs | None, float_dtype: str | None, of_dataset: bool = False
) -> Feeds:
    """Check inputs against what the model says it takes and convert them.

    Args:
      inputs: One array or tensor ``(batch, ...)``, or a list, tuple or dict of them, as the model is called.
      declared: What the model declares; None where it declares nothing.
      float_dtype: The type that floats are converted to where nothing is declared; None leaves them.
      of_dataset: Whether they are an element of a dataset.

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
        found = (_shape_error(*each, of_dataset) for each in zip(tensors, names, declared.shapes, strict=True))
        errors.raise_all([error for error in found if error])
    _check_batch(tensors, names)
    return Feeds(tensors, structure, names)


def _match(inputs: Structure, declared: DeclaredInputs | None) -> tuple[Structure, list[Any]]:
    inputs = _numbers_as_array(inputs)
    if declared is None:
        leaves = _flatten(inputs)
        if not leaves:
            raise errors.InputStructureError("`inputs` holds no array.", [], "pass what you would call the model with")
        return tf.nest.pack_sequence_as(inputs, list(range(len(leaves)))), leaves
    if isinstance(inputs, Mapping) and not _same_keys(inputs, declared.structure):
        if set(inputs) != set(declared.names):
            raise _keys_error(declared, list(inputs))
        return declared.structure, [inputs[name] for name in declared.names]
    leaves = _flatten(inputs)
    if len(leaves) != len(declared.names):
        raise _count_error(declared, leaves)
    return declared.structure, leaves


def _same_keys(inputs: Mapping[Any, Any], structure: Structure) -> bool:
    return isinstance(structure, Mapping) and set(structure) == set(inputs)


def _flatten(inputs: Structure) -> list[Any]:
    try:
        return list(tf.nest.flatten(inputs))
    except TypeError:
        raise errors.InputStructureError(
            "the keys of `inputs` are of several types, and have no order.",
            [("received", errors.received(list(inputs)) if isinstance(inputs, Mapping) else errors.received(inputs))],
            "give every input a name",
        ) from None


def _numbers_as_array(inputs: Structure) -> Structure:
    """A nested list of plain numbers is one array, not a list of inputs."""
    if isinstance(inputs, memoryview):  # which TensorFlow takes for a nest
        return np.asarray(inputs)
    if not isinstance(inputs, Sequence) or isinstance(inputs, (str, bytes)):
        return inputs
    leaves = _flatten(inputs)
    plain = all(isinstance(leaf, (Number, np.generic, str, bytes, type(None))) for leaf in leaves)
    if not plain or all(leaf is None for leaf in leaves):
        return inputs
    try:
        return np.asarray(inputs)
    except ValueError:
        raise errors.RaggedInputError(
            "the rows of `inputs` differ in length.",
            [("received", errors.received(inputs))],
            ["pad them to one length: keras.utils.pad_sequences(rows)", "pass one row at a time"],
        ) from None


def _takes(declared: DeclaredInputs) -> tuple[str, str]:
    return "takes", ", ".join(f"`{n}` {_text(s)}" for n, s in zip(declared.names, declared.shapes, strict=True))


def _counted(names: Sequence[str]) -> str:
    return f"the model takes {len(names)} input{'s' if len(names) > 1 else ''}"


def _keys_error(declared: DeclaredInputs, keys: list[Any]) -> errors.InputStructureError:
    facts = [_takes(declared)]
    missing = [name for name in declared.names if name not in keys]
    unknown = [str(key) for key in keys if key not in declared.names]
    if missing:
        facts.append(("missing", ", ".join(f"`{name}`" for name in missing)))
    if unknown:
        close = [(key, errors.nearest(key, missing, 1)) for key in unknown]
        facts.append(("unknown", ", ".join(f"`{key}`" + (f" (nearest {n})" if n else "") for key, n in close)))
    return errors.InputStructureError(
        f"{_counted(declared.names)}, got a dict with the keys {errors.received(keys)}.",
        facts,
        "pass a dict with these names" + (", or a list in this order" if len(declared.names) > 1 else ", or one array"),
    )


def _count_error(declared: DeclaredInputs, leaves: list[Any]) -> errors.InputStructureError:
    do = "pass a list in this order, or a dict with these names" if len(declared.names) > 1 else "pass one array"
    if len(declared.names) == 1 and leaves:
        alike = len({np.shape(leaf) for leaf in leaves if hasattr(leaf, "shape")}) == 1
        stack, labels = "np.stack(images) makes one batch of a list of images", "pass the inputs only, without labels"
        do = stack if alike else labels
    got = {0: "no array", 1: "one array"}.get(len(leaves), f"{len(leaves)} arrays")
    return errors.InputStructureError(f"{_counted(declared.names)}, got {got}.", [_takes(declared)], do)


def _names(structure: Structure, count: int) -> tuple[str, ...]:
    if isinstance(structure, Mapping) and len(structure) == count:
        return tuple(str(key) for key in sorted(structure))
    return tuple(str(i) for i in range(count))


def _tensor(leaf: Any, name: str, dtype: str | None, float_dtype: str | None) -> Tensor:
    if _is_symbolic(leaf):
        raise errors.SymbolicInputError(
            f"input `{name}` is a symbolic tensor, which holds no numbers.",
            [("received", errors.received(leaf))],
            "pass a batch of data, such as a NumPy array; a gradient is always taken at values",
        )
    _refuse_uneven(leaf, name)
    if dtype == "string":
        return _text_tensor(leaf, name)
    if isinstance(leaf, tf.Tensor) or hasattr(leaf, "__tf_tensor__"):
        tensor = tf.convert_to_tensor(leaf)
    else:
        tensor = _from_array(leaf, name)
    if tensor.dtype == tf.string:
        raise _text_error(leaf, name)
    return _cast(tensor, name, dtype, float_dtype)


def _is_symbolic(leaf: Any) -> bool:
    """Whether a leaf is a placeholder of Keras, or a tensor of a graph that is not being built just now."""
    if type(leaf).__name__ == "KerasTensor":
        return True
    graph = getattr(leaf, "graph", None) if isinstance(leaf, tf.Tensor) else None
    current = surgery.current_graph()
    while graph is not None and current is not None and current is not graph:
        current = getattr(current, "outer_graph", None)
    return graph is not current and graph is not None


def _refuse_uneven(leaf: Any, name: str) -> None:
    dense = {"RaggedTensor": "x.to_tensor()", "SparseTensor": "tf.sparse.to_dense(x)"}
    kind = next((kind for kind in dense if type(leaf).__name__ in (kind, f"{kind}Value")), None)
    if kind is None and hasattr(leaf, "toarray") and hasattr(leaf, "nnz"):  # of SciPy
        kind, dense = type(leaf).__name__, {type(leaf).__name__: "x.toarray()"}
    if kind is not None:
        raise errors.RaggedInputError(
            f"input `{name}` is {errors.kind_of(leaf)}, whose rows are not all stored in full.",
            [("received", errors.received(leaf))],
            f"make it dense: {dense[kind]}",
        )


def _text_tensor(leaf: Any, name: str) -> Tensor:
    try:
        return tf.convert_to_tensor(leaf, tf.string)
    except (TypeError, ValueError):
        raise errors.InputDtypeError(
            f"input `{name}` is {errors.kind_of(leaf)}, and the model takes text.",
            [("received", errors.received(leaf))],
            "pass an array of strings, with the batch axis first",
        ) from None


def _text_error(leaf: Any, name: str) -> errors.StringInputError:
    do = ["turn text into token ids first: a tokenizer, or a keras.layers.TextVectorization in front of the model"]
    if isinstance(leaf, str):
        do.append("read a file first: keras.utils.load_img(path), np.load(path)")
    return errors.StringInputError(f"input `{name}` holds text.", [("received", errors.received(leaf))], do)


def _from_array(leaf: Any, name: str) -> Tensor:
    """A tensor of whatever says that it is an array of numbers."""
    facts = [("received", errors.received(leaf))]
    do = ["pass an array of numbers with the batch axis first"]
    try:
        if _is_array(leaf):
            array = np.asarray(leaf)
            if array.dtype.kind in "US" or (array.dtype == object and _holds_text(array)):
                raise _text_error(leaf, name)
            # bfloat16 and the float8 types are of kind "V".
            if array.dtype.kind in "biufc" or "float" in str(array.dtype):
                return tf.convert_to_tensor(array)
            if array.dtype == object:
                do = ['an array of objects that are all numbers: x.astype("float32")']
    except errors.GradtapError:
        raise
    except Exception as error:  # whatever an object of the user's does when it is read
        facts.append(("it said", f"{type(error).__name__}: {error}"[:200]))
    what = "None" if leaf is None else "no array of numbers"
    raise errors.InputDtypeError(f"input `{name}` is {what}.", facts if leaf is not None else [], do)


def _is_array(leaf: Any) -> bool:
    """Whether NumPy is told how to read something; it would read any sequence, a whole data set included."""
    return isinstance(leaf, (Number, str, bytes, memoryview, python_array)) or hasattr(leaf, "__array__")


def _holds_text(array: Any) -> bool:
    return any(isinstance(item, (str, bytes)) for item in array.ravel()[:16])


def _cast(tensor: Tensor, name: str, dtype: str | None, float_dtype: str | None) -> Tensor:
    wanted = dtype or (float_dtype if tensor.dtype.is_floating else None)
    if wanted is None or tensor.dtype.name == wanted:
        return tensor
    to = tf.as_dtype(wanted)
    if tensor.dtype.is_complex and not to.is_complex:
        raise errors.InputDtypeError(
            f"input `{name}` is {tensor.dtype.name}, the model takes {wanted}: the imaginary part would be lost.",
            [],
            "pass real and imaginary part as channels: np.stack([x.real, x.imag], axis=-1)",
        )
    made = tf.cast(tensor, to)
    exact = to.is_floating or to.is_complex or not hasattr(made, "numpy")
    if not exact and not bool(tf.reduce_all(tf.cast(made, tensor.dtype) == tensor)):
        raise errors.InputDtypeError(
            f"input `{name}` is {tensor.dtype.name} with values that {wanted}, the type the model takes, cannot hold.",
            [("received", f"{_text(tensor.shape)} from {tf.reduce_min(tensor)} to {tf.reduce_max(tensor)}")],
            "pass whole numbers: token ids as they are, images before they are scaled to 0..1",
        )
    return made


def _shape_error(
    tensor: Tensor, name: str, shape: tuple[int | None, ...], of_dataset: bool
) -> errors.InputShapeError | None:
    given = tuple(tensor.shape) if tensor.shape.rank is not None else None  # said by `_check_batch`
    if given is None or _fits(given, shape):
        return None
    do = _reshape(given, shape)
    if of_dataset and do.startswith("add the batch axis"):
        do = "make batches of the dataset's examples: dataset.batch(32)"
    return errors.InputShapeError(f"input `{name}` has shape {_text(given)}, the model takes {_text(shape)}.", [], do)


def _reshape(given: tuple[int | None, ...], shape: tuple[int | None, ...]) -> str:
    """How a shape is brought into the one that is wanted."""
    if len(given) == len(shape) - 1 and _fits(given, shape[1:]):
        return "add the batch axis: x[None]"
    if len(given) == len(shape) - 2 and shape[-1] == 1 and _fits((1, *given), shape):
        return "add the batch axis and the channel axis: x[None, ..., None]"
    if len(given) != len(shape):
        return f"bring it to {len(shape)} axes, {_text(shape)}; the first axis is the batch"
    if len(shape) == 4 and _fits((given[0], given[2], given[3], given[1]), shape):
        return "the channels come last here: np.transpose(x, (0, 2, 3, 1))"
    differs = [i for i in range(1, len(shape)) if not _fits(given[i : i + 1], shape[i : i + 1])]
    if len(shape) == 4 and 3 not in differs and None not in shape[1:3]:
        return f"resize the images: keras.ops.image.resize(x, ({shape[1]}, {shape[2]}))"
    return "; ".join(f"axis {i} holds {given[i]} and must hold {shape[i]}" for i in differs)


def _fits(given: tuple[int | None, ...], shape: tuple[int | None, ...]) -> bool:
    if len(given) == len(shape) - 1 and shape[-1] == 1 and len(shape) > 2:
        given = (*given, 1)  # Keras adds a last axis of one itself, and takes one away
    elif len(given) == len(shape) + 1 and given[-1] == 1 and len(given) > 2:
        given = given[:-1]
    return len(given) == len(shape) and all(a == b or a is None or b is None for a, b in zip(given, shape, strict=True))


def _check_batch(tensors: list[Tensor], names: tuple[str, ...]) -> None:
    unknown = [n for n, t in zip(names, tensors, strict=True) if t.shape.rank is None]
    if unknown:
        raise errors.InputShapeError(
            f"input `{unknown[0]}` does not say how many axes it has.",
            [("why", "a tf.function was traced for a tensor of any shape")],
            "tf.ensure_shape(x, (None, ...)) with None for every axis that is free",
        )
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
