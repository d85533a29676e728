"""Targets that are code: a callable of the outputs, and a loss."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any

import tensorflow as tf

from gradtap import errors
from gradtap.graph import surgery
from gradtap.graph.scores import Score, pick_output, shape_text, widen
from gradtap.graph.tracing import ForwardGraph
from gradtap.types import Structure, Tensor, TensorLike


class Function:
    """A callable of the model's outputs."""

    def __init__(self, function: Callable[[Structure], Tensor]) -> None:
        self.function = function

    def key(self, graph: ForwardGraph) -> Hashable:
        return ("function", _fingerprint(self._call, graph.outputs, graph))

    def build(self, graph: ForwardGraph) -> Score:
        return Score(self._call(*graph.outputs, graph=graph))

    def _call(self, *outputs: Tensor, graph: ForwardGraph) -> Tensor:
        try:
            value = self.function(graph.pack_outputs(outputs))
        except Exception as error:
            raise errors.TargetTypeError(
                f"the target `{self!r}` raised {type(error).__name__} on the model's outputs.",
                [("outputs", ", ".join(map(shape_text, graph.outputs))), ("it said", str(error)[:400])],
                "a target takes the outputs as the model returns them and gives one number per example",
            ) from error
        return _per_example(value, repr(self), outputs[0])

    def values(self, graph: ForwardGraph, batch: int | None) -> list[TensorLike]:
        return []

    def __repr__(self) -> str:
        return getattr(self.function, "__qualname__", repr(self.function))


class Loss:
    """A loss without its reduction; the labels are fed."""

    def __init__(self, fn: Any, y_true: Structure, output: int | str | None) -> None:
        import keras

        self.fn = fn
        self.output = output
        try:
            self.labels = tf.convert_to_tensor(y_true)
            self._function = keras.losses.get(fn) if isinstance(fn, str) else fn
        except (ValueError, TypeError) as error:
            raise errors.TargetTypeError(
                f"loss({fn!r}, ...) cannot be read.", [("it said", str(error).splitlines()[0])], "see keras.losses"
            ) from error
        if not callable(getattr(self._function, "call", self._function)):
            raise errors.TargetTypeError(f"{fn!r} is not a loss.", [], "give a Keras loss by name, function or object")

    def key(self, graph: ForwardGraph) -> Hashable:
        tensor, name = pick_output(graph, self.output)
        labels = tf.TensorSpec((None, *self.labels.shape[1:]), self.labels.dtype)
        ops = _fingerprint(self._call, [tensor, labels], graph)
        return ("loss", name, ops, labels)

    def build(self, graph: ForwardGraph) -> Score:
        labels = tf.compat.v1.placeholder(self.labels.dtype, (None, *self.labels.shape[1:]), name="labels")
        return Score(self._call(pick_output(graph, self.output)[0], labels, graph=graph), [labels])

    def _call(self, output: Tensor, labels: Tensor, graph: ForwardGraph) -> Tensor:
        # A loss object's `call` is the loss before its reduction; a function has none.
        unreduced = getattr(self._function, "call", self._function)
        try:
            value = tf.convert_to_tensor(unreduced(labels, widen(output)))
        except Exception as error:
            raise errors.TargetTypeError(
                f"loss({self.fn!r}, ...) raised {type(error).__name__} on the output {shape_text(output)}.",
                [("labels", f"{tuple(self.labels.shape)} {self.labels.dtype.name}"), ("it said", str(error)[:400])],
                "the labels must fit the loss: ints for a sparse one, one-hot rows or values otherwise",
            ) from error
        if value.shape.rank and value.shape.rank > 1:
            value = tf.reduce_mean(value, axis=list(range(1, value.shape.rank)))
        return _per_example(value, repr(self), output)

    def values(self, graph: ForwardGraph, batch: int | None) -> list[TensorLike]:
        if self.labels.shape.rank == 0 or (batch is not None and self.labels.shape[0] != batch):
            raise errors.TargetCountError(
                f"labels of shape {tuple(self.labels.shape)} for {batch} examples.", [], "give one label per example"
            )
        return [self.labels]

    def __repr__(self) -> str:
        return f"loss({self.fn!r})"


def is_keras_loss(value: Any) -> bool:
    """Whether something is a loss object of Keras."""
    return any(c.__name__ == "Loss" for c in type(value).__mro__)


def _per_example(value: Any, name: str, output: Tensor) -> Tensor:
    """Check that a target is ``(batch,)``, and widen it."""
    tensor = tf.convert_to_tensor(value) if not isinstance(value, (tuple, list, dict)) else None
    if tensor is None or tensor.shape.rank not in (1, None):
        shape = "a " + type(value).__name__ if tensor is None else str(tuple(tensor.shape))
        scalar = tensor is not None and tensor.shape.rank == 0
        raise errors.TargetShapeError(
            f"the target `{name}` gives {shape}, not one number per example (batch,).",
            [("why", "a mean over the batch would scale every gradient by 1/batch")] if scalar else [],
            "leave out the reduction over the batch axis" if scalar else "pick or reduce all axes but the first",
        )
    if not surgery.is_float(tensor):
        raise errors.TargetShapeError(
            f"the target `{name}` is of type {tensor.dtype.name}, which has no gradient.",
            [],
            "a target is a float that depends smoothly on the outputs; an argmax or a comparison is not",
        )
    batch = output.shape[0]
    if batch is not None and tensor.shape[0] not in (None, batch):
        raise errors.TargetShapeError(
            f"the target `{name}` gives {tensor.shape[0]} numbers for {batch} examples.", [], "reduce the other axes"
        )
    return widen(tensor)


def _fingerprint(function: Callable[..., Tensor], tensors: Sequence[Any], graph: ForwardGraph) -> Hashable:
    """What a callable does, rather than which object it is.

    It is run into a scratch graph each time: a lambda made anew in a loop gives the same ops and is built once, while
    one that reads a variable of the caller's which has changed since gives other ops and is built again. Comparing the
    objects would get one of the two wrong.
    """
    specs = [tf.TensorSpec(t.shape, t.dtype) for t in tensors]
    with tf.init_scope():
        scratch = surgery.wrap(lambda *outputs: function(*outputs, graph=graph), specs)
    return scratch.graph.as_graph_def().SerializeToString(deterministic=True), _Captured(scratch)


class _Captured:
    """The tensors that a callable captured, compared by identity and kept, so that no other takes their place."""

    def __init__(self, scratch: Any) -> None:
        self._tensors = [external for external, _ in scratch.graph.captures]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, _Captured) or len(self._tensors) != len(other._tensors):
            return False
        return all(a is b for a, b in zip(self._tensors, other._tensors, strict=True))

    def __hash__(self) -> int:
        return hash(tuple(map(id, self._tensors)))
