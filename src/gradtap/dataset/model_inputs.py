"""Which of the data are the model's inputs: labels that come along, arrays in a list, columns with names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf

from gradtap import errors
from gradtap.dataset.reading import inputs_of
from gradtap.graph.keeping import Trace
from gradtap.graph.keras_internals import built_shapes


def declared_inputs(trace: Trace) -> tuple[list[tuple[int | None, ...]], list[str]]:
    """The shapes and the types of the model's inputs, as far as it says them."""
    declared = trace.source.declared_inputs()
    if declared is not None:
        return list(declared.shapes), [str(dtype) for dtype in declared.dtypes]
    shape = built_shapes(trace.model)  # a subclassed model declares nothing, but knows what it was built with
    if isinstance(shape, (tuple, list)) and shape and all(size is None or isinstance(size, int) for size in shape):
        return [(None, *shape[1:])], []
    return [], []


class Columns(list[Any]):
    """Arrays that are an input of the model each, and not examples."""


def in_columns(data: Any, trace: Trace) -> Any:
    """Tell arrays of many examples in a list or tuple from a list of examples, by how many axes the model takes.

    ``(x, y)`` is what Keras fits with: inputs and labels, of which the labels are left out.
    """
    shapes, _ = declared_inputs(trace)
    if not isinstance(data, (list, tuple)) or not data or not shapes:
        return data
    if isinstance(data, tuple) and len(data) in (2, 3):
        inputs = data[0]
        if _are_batches([inputs], shapes) or isinstance(inputs, Mapping):
            return inputs
        if isinstance(inputs, (list, tuple)) and _are_batches(inputs, shapes):
            return Columns(inputs)
    return Columns(data) if len(shapes) > 1 and _are_batches(data, shapes) else data


def _are_batches(arrays: Sequence[Any], shapes: Sequence[tuple[int | None, ...]]) -> bool:
    ranks = [len(array.shape) if hasattr(array, "shape") else -1 for array in arrays]
    return len(arrays) == len(shapes) and ranks == [len(shape) for shape in shapes]


def inputs_among(arrays: Mapping[str, Any], trace: Trace) -> list[str] | None:
    """The model's inputs among arrays with names, where all of them are there and others as well.

    Raises:
      InputStructureError: There are more arrays than inputs, and their names do not say which they are.
    """
    declared = trace.source.declared_inputs()
    if declared is None or len(arrays) <= len(declared.shapes):
        return None
    names = [str(name) for name in declared.names or ()]
    if names and set(names) <= set(arrays):
        return names
    takes = f"{len(declared.shapes)} input{'s' * (len(declared.shapes) > 1)}"
    raise errors.InputStructureError(
        f"the data has {len(arrays)} arrays, and the model takes {takes}.",
        [("it has", ", ".join(f"`{name}`" for name in arrays))],
        f"name those that are the inputs: columns={list(arrays)[: len(declared.shapes)]!r}",
    )


def number_of_inputs(trace: Trace) -> int:
    """How many inputs the model takes."""
    return max(1, len(declared_inputs(trace)[0]))


def check_elements(dataset: Any, trace: Trace) -> None:
    """Raise where the elements of a `tf.data.Dataset` are no batches of arrays."""
    leaves = tf.nest.flatten(inputs_of(dataset.element_spec))
    if any(isinstance(leaf, tf.RaggedTensorSpec) for leaf in leaves):
        raise errors.InputStructureError(
            "the dataset has ragged batches.", [], ["batch(1), for examples of any length", "padded_batch(64)"]
        )
    shapes, _ = declared_inputs(trace)
    ranks = [leaf.shape.rank for leaf in leaves]
    if len(shapes) == len(ranks) and ranks == [len(shape) - 1 for shape in shapes]:
        raise errors.InputStructureError(
            "the elements of the dataset are single examples.",
            [("elements", ", ".join(str(leaf.shape) for leaf in leaves))],
            "give it in batches: .batch(64)",
        )
