"""Baselines: the reference point of methods that follow a path, as a user gives it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import tensorflow as tf

from gradtap import errors
from gradtap.graph.arrays import like
from gradtap.graph.resolve import Place
from gradtap.graph.tracing import ForwardGraph
from gradtap.types import Structure, Tensor, TensorLike


@dataclass(frozen=True)
class AtTap:
    """A baseline in the space of the activations at a tap; see `at_tap`.

    Args:
      value: A number, ``(1, ...)`` or ``(batch, ...)``; for several taps a mapping from address.
    """

    value: Any


#: A number, an input, a function of the inputs, or a value at the tap.
Baseline: TypeAlias = float | TensorLike | Structure | Callable[[Structure], Structure] | AtTap


def at_tap(value: Any) -> AtTap:
    """Give a baseline in the space of the activations at the tap, not in that of the inputs.

    Args:
      value: A number for all units; an array of the shape of the activations, ``(1, ...)`` for all examples or
        ``(batch, ...)`` with one for each; for several taps a mapping from address to one of these.

    Returns:
      A baseline, for the ``baseline=`` of a method that follows a path.

    Raises:
      ArgumentError: It is a function, text or None.

    Example:
      >>> at_tap(0.0)
      AtTap(value=0.0)
    """
    if callable(value) or value is None or isinstance(value, (str, bytes)):
        raise errors.ArgumentError(
            f"at_tap({errors.received(value)}) is no value.",
            [],
            ["give a number, an array, or a mapping from address", "a baseline that is a function takes the inputs"],
        )
    return AtTap(value)


class BaselineReader:
    """Turns a baseline into tensors at the moved taps.

    What has a row for each example is cut with the batch, so it travels as arrays beside the inputs.

    Args:
      baseline: As the user gave it.
    """

    def __init__(self, baseline: Any) -> None:
        self.baseline = baseline
        self._is_number = isinstance(baseline, (int, float, np.number)) and not isinstance(baseline, (bool, np.bool_))
        if baseline is None or isinstance(baseline, (bool, str, bytes)):
            raise errors.ArgumentError(
                f"baseline={baseline!r} is no baseline.",
                [],
                ["give a number, an input, or a function of the inputs", "gt.attribution.at_tap(v) for a value there"],
            )

    @property
    def is_at_tap(self) -> bool:
        """Whether it is given where the path runs."""
        return isinstance(self.baseline, AtTap)

    def arrays(self, graph: ForwardGraph, places: Sequence[Place], batch: int | None) -> list[TensorLike]:
        """What is fed beside the inputs: a row for each example, or one for all."""
        if isinstance(self.baseline, AtTap):
            return [
                _rows(value, place.tensor, batch, f"baseline at `{place.key}`")
                for place, value in zip(places, self._by_place(places), strict=True)
            ]
        if self._is_number or callable(self.baseline):
            return []
        leaves = _leaves(self.baseline, graph)
        return [
            _rows(leaf, feed, batch, f"baseline for input `{name}`")
            for name, feed, leaf in zip(graph.input_names, graph.feeds, leaves, strict=True)
        ]

    def inputs(
        self, graph: ForwardGraph, inputs: Sequence[Tensor], arrays: Sequence[TensorLike], *, one_row: bool
    ) -> list[Tensor]:
        """The baseline as inputs: one row where it is the same for all examples and that is allowed, else as many."""
        if self._is_number:
            filled = zip(graph.input_names, inputs, strict=True)
            arrays = [_filled(x[:1] if one_row and x.shape.rank else x, self.baseline, n) for n, x in filled]
        elif callable(self.baseline):
            structure = tf.nest.map_structure(lambda i: inputs[i], graph.input_structure)
            leaves = _leaves(_called(self.baseline, structure), graph)
            named = zip(graph.input_names, graph.feeds, leaves, strict=True)
            batch = inputs[0].shape[0]
            arrays = [_rows(leaf, feed, batch, f"baseline for input `{n}`") for n, feed, leaf in named]
        found = [tf.convert_to_tensor(array) for array in arrays]
        rows = (
            inputs if not one_row or any(b.shape.rank and b.shape[0] != 1 for b in found) else [x[:1] for x in inputs]
        )
        return [_as_many(b, x) for b, x in zip(found, rows, strict=True)]

    def values(self, here: Sequence[Tensor], arrays: Sequence[TensorLike]) -> list[Tensor]:
        """The baseline at the taps, of the shape of what is there."""
        return [tf.broadcast_to(tf.cast(value, h.dtype), tf.shape(h)) for value, h in zip(arrays, here, strict=True)]

    def _by_place(self, places: Sequence[Place]) -> list[Any]:
        value = self.baseline.value
        if not isinstance(value, Mapping):
            return [value] * len(places)
        known = dict(value)
        missing = [p.key for p in places if p.key not in known and str(p.tap) not in known and p.group not in known]
        if missing:
            raise errors.ArgumentError(
                "the baseline has no value for some taps.",
                [("missing", ", ".join(f"`{key}`" for key in missing))],
                "give one value for all, or one under each address",
            )
        return [known.get(p.key, known.get(str(p.tap), known.get(p.group))) for p in places]


def reference_inputs(baselines: Structure, graph: ForwardGraph, inputs: Sequence[Tensor]) -> list[Tensor]:
    """Inputs that stand for what is usual, one tensor for each input of the model, any number of rows.

    Raises:
      InputShapeError: They do not fit the model, or differ in their numbers of rows.
    """
    if callable(baselines) or isinstance(baselines, tf.data.Dataset):
        raise errors.ArgumentError(
            f"baselines={errors.received(baselines)} holds no arrays.",
            [],
            "give rows of data in the form of the model's inputs: next(iter(dataset.unbatch().batch(100)))",
        )
    leaves = _leaves(baselines, graph)
    named = zip(graph.input_names, graph.feeds, leaves, strict=True)
    found = [
        tf.convert_to_tensor(_rows(leaf, feed, None, f"baselines for input `{name}`")) for name, feed, leaf in named
    ]
    for rows, own in zip(found, inputs, strict=True):
        _as_many(rows[:1], own)  # says so where they differ in shape
    counts = {tensor.shape[0] for tensor in found}
    if len(counts) != 1 or 0 in counts:
        raise errors.InputShapeError(
            "the baselines differ in their numbers of rows, or have none.",
            [("rows", ", ".join(str(tensor.shape[0]) for tensor in found))],
            "give at least one row, and as many for each input",
        )
    return found


def _called(function: Callable[[Any], Any], inputs: Structure) -> Structure:
    try:
        return function(inputs)
    except Exception as error:
        raise errors.ArgumentError(
            f"the baseline function raised {type(error).__name__} on the inputs.",
            [("it said", str(error)[:400])],
            "it takes the inputs as the model takes them, and returns the baseline in the same form",
        ) from error


def _leaves(baseline: Structure, graph: ForwardGraph) -> list[Any]:
    """One array for each input, in the order of the graph."""
    names = graph.input_names
    if isinstance(baseline, Mapping) and set(map(str, baseline)) == set(names):
        return [baseline[name] if name in baseline else baseline[int(name)] for name in names]
    if len(names) == 1 and isinstance(baseline, (list, tuple)) and not hasattr(baseline[0] if baseline else 0, "shape"):
        return [np.asarray(baseline)]
    leaves = list(tf.nest.flatten(baseline))
    if len(leaves) != len(names):
        raise errors.ArgumentError(
            f"the baseline holds {len(leaves)} arrays for {len(names)} inputs.",
            [("inputs", ", ".join(f"`{name}`" for name in names))],
            ["give one for each, in the form in which the model takes its inputs", "a number holds for all of them"],
        )
    return leaves


def _rows(value: Any, tensor: Tensor, batch: int | None, what: str) -> TensorLike:
    """A value of the dtype of a tensor of the graph, one row for each example or one for all."""
    array = value if hasattr(value, "shape") else np.asarray(value)
    rank = tensor.shape.rank
    if rank and len(array.shape) == 0:
        _check_whole(array, tensor, what)
        return tf.reshape(tf.cast(array, tensor.dtype), [1] * rank)
    if rank and len(array.shape) == rank - 1:
        array = array[None]
    _check_whole(array, tensor, what)
    many = array.shape[0] if len(array.shape) else 1
    if batch is not None and many not in (1, batch):
        raise errors.InputShapeError(
            f"the {what} has {many} rows for {batch} examples.", [], "give one row for each example, or one for all"
        )
    return like(array, tensor, None, what)


def _check_whole(array: Any, tensor: Tensor, what: str) -> None:
    if tensor.dtype.is_integer and hasattr(array, "dtype") and hasattr(array, "__array__"):
        values = np.asarray(array)
        if values.dtype.kind == "f" and np.any(values != np.round(values)):
            raise errors.InputDtypeError(
                f"the {what} holds fractions, and the model takes {tensor.dtype.name}.",
                [],
                ["give whole numbers: for token ids the id of a neutral token", "gt.attribution.at_tap(v)"],
            )
        limits = tensor.dtype.limits
        if np.any(values < limits[0]) or np.any(values > limits[1]):
            raise errors.InputDtypeError(
                f"the {what} holds numbers that {tensor.dtype.name}, the type the model takes, cannot hold.",
                [("received", f"{values.min()} to {values.max()}"), ("it holds", f"{limits[0]} to {limits[1]}")],
                "give numbers in this range",
            )


def _filled(inputs: Tensor, number: float, name: str) -> Tensor:
    _check_whole(np.asarray(number), inputs, f"baseline for input `{name}`")
    return tf.fill(tf.shape(inputs), tf.cast(np.asarray(number), inputs.dtype))


def _as_many(baseline: Tensor, inputs: Tensor) -> Tensor:
    """One row stands for every example; axes of size one are spread as well."""
    given, wanted = baseline.shape.as_list(), inputs.shape.as_list()
    if len(given) == len(wanted) and any(
        a not in (1, b) and None not in (a, b) for a, b in zip(given, wanted, strict=True)
    ):
        raise errors.InputShapeError(
            f"the baseline has shape {tuple(given)}, the inputs {tuple(wanted)}.",
            [],
            ["give it the shape of the inputs, with one row for all or one for each", "a function of the inputs"],
        )
    return tf.broadcast_to(baseline, tf.shape(inputs)) if baseline.shape.rank == inputs.shape.rank else baseline
