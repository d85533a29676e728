"""Targets that are code: a callable of the outputs, and a loss."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Hashable, Sequence
from contextlib import suppress
from typing import Any

import tensorflow as tf

from gradtap import errors
from gradtap.graph import surgery
from gradtap.graph.class_index import output_text
from gradtap.graph.scores import Score, pick_output, pre_squash, shape_text, squash_anew, widen
from gradtap.graph.tracing import ForwardGraph
from gradtap.targets.outputs import pick_differentiable
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
                [
                    "a target takes the outputs as the model returns them and gives one number per example",
                    "it is traced into a graph: TensorFlow or keras.ops code can be, NumPy code and `if` cannot",
                ],
            ) from error
        return _per_example(value, repr(self), outputs[0])

    def values(self, graph: ForwardGraph, batch: int | None) -> list[TensorLike]:
        return []

    def __repr__(self) -> str:
        return getattr(self.function, "__qualname__", None) or errors.received(self.function)


class Loss:
    """A loss without its reduction; the labels are fed."""

    def __init__(self, fn: Any, y_true: Structure, output: int | str | None) -> None:
        import keras

        self.fn = fn
        self.output = output
        self._is_of_keras = isinstance(fn, str) or is_keras_loss(fn)
        own = getattr(fn, "__name__", None) or getattr(fn, "name", None)
        self.name = repr(fn) if isinstance(fn, str) or not own else str(own)
        try:
            self._function = keras.losses.get(fn) if isinstance(fn, str) else fn
            self.labels = tf.convert_to_tensor(y_true)
        except Exception as error:
            raise errors.TargetTypeError(
                f"loss({self.name}, ...) cannot be read: "
                + ("the labels are no array." if hasattr(self, "_function") else "Keras has no such loss."),
                [("labels", errors.received(y_true)), ("it said", (str(error).splitlines() or [""])[0][:200])],
                "give a loss of keras.losses by name, function or object, and labels as an array (batch, ...)",
            ) from error
        if isinstance(fn, type) or not callable(getattr(self._function, "call", self._function)):
            raise errors.TargetTypeError(
                f"{errors.received(fn)} is not a loss.", [], "give a Keras loss by name, function or object"
            )
        if self.labels.dtype == tf.string:
            raise errors.TargetTypeError(
                f"the labels of loss({self.name}, ...) are text.", [], "give the classes as ints, or as one-hot rows"
            )

    def key(self, graph: ForwardGraph) -> Hashable:
        tensor, name = pick_differentiable(graph, self.output)
        self._check_labels(tensor, output_text(tensor, name))
        labels = tf.TensorSpec((None, *self.labels.shape[1:]), self.labels.dtype)
        ops = _fingerprint(self._call, [tensor, labels], graph)
        return ("loss", name, ops, labels)

    def _check_labels(self, output: Tensor, text: str) -> None:
        """Refuse labels that Keras would spread over the classes without a word."""
        ranks = self.labels.shape.rank, output.shape.rank
        if (
            self._is_of_keras
            and "sparse" not in self.name.lower()
            and ranks[0] == ranks[1] - 1 > 0
            and output.shape[-1] != 1
        ):
            raise errors.TargetTypeError(
                f"loss({self.name}, ...) compares entry by entry, and the labels lack the last axis of {text}.",
                [("labels", f"{tuple(self.labels.shape)} {self.labels.dtype.name}")],
                [f"one-hot rows: keras.ops.one_hot(labels, {output.shape[-1]})", '"sparse_categorical_crossentropy"'],
            )

    def build(self, graph: ForwardGraph) -> Score:
        labels = tf.compat.v1.placeholder(self.labels.dtype, (None, *self.labels.shape[1:]), name="labels")
        return Score(self._call(pick_output(graph, self.output)[0], labels, graph=graph), [labels])

    def _call(self, output: Tensor, labels: Tensor, graph: ForwardGraph) -> Tensor:
        try:
            value = self._of_scores(widen(output), labels)
            if pre_squash(output) is not None and self._is_of_keras:
                # From a probability that was rounded to 0 no gradient comes back, so Keras forms a cross-entropy from
                # what stands before a softmax, which it knows by its op. The last two terms cancel for all that comes
                # before the softmax; to the probabilities themselves they leave the loss as it is written.
                again = widen(tf.cast(squash_anew(output), output.dtype))
                stable = squash_anew(output, widen(output).dtype)
                value = self._unreduced(labels, stable) + (value - self._of_scores(again, labels))
        except Exception as error:
            raise errors.TargetTypeError(
                f"loss({self.name}, ...) raised {type(error).__name__} on the output {shape_text(output)}.",
                [("labels", f"{tuple(self.labels.shape)} {self.labels.dtype.name}"), ("it said", str(error)[:400])],
                [
                    "the labels must fit the loss: ints for a sparse one, one-hot rows or values otherwise",
                    *(["give the labels as floats"] if self.labels.dtype.is_integer and not self._is_of_keras else []),
                ],
            ) from error
        if value.shape.rank and value.shape.rank > 1:
            value = tf.reduce_mean(value, axis=list(range(1, value.shape.rank)))
        return _per_example(value, repr(self), output)

    def _of_scores(self, scores: Tensor, labels: Tensor) -> Tensor:
        """The loss as it is written, whatever the scores come from."""
        return self._unreduced(labels, tf.identity(scores))

    def _unreduced(self, labels: Tensor, scores: Tensor) -> Tensor:
        # A loss object's `call` is the loss before its reduction; a function has none.
        function = getattr(self._function, "call", self._function)
        return tf.convert_to_tensor(function(*_of_one_form(labels, scores)))

    def values(self, graph: ForwardGraph, batch: int | None) -> list[TensorLike]:
        if self.labels.shape.rank == 0 or (batch is not None and self.labels.shape[0] != batch):
            raise errors.TargetCountError(
                f"labels of shape {tuple(self.labels.shape)} for {batch} example{'s' * (batch != 1)}.",
                [("loss", repr(self))],
                "give one label per example",
            )
        return [self.labels]

    def of_rows(self, rows: Sequence[int]) -> Loss:
        """The same loss for some of the examples."""
        return Loss(self.fn, tf.gather(self.labels, rows), self.output)

    def __repr__(self) -> str:
        return f"loss({self.name})"


def _of_one_form(labels: Tensor, scores: Tensor) -> tuple[Tensor, Tensor]:
    """Labels and scores as Keras hands them to any loss: floats of one type, an axis of one where only one has it."""
    labels = tf.cast(labels, scores.dtype) if labels.dtype.is_floating else labels
    ranks = labels.shape.rank, scores.shape.rank
    if ranks[1] == ranks[0] + 1 and scores.shape[-1] == 1:
        return (labels[:, None], scores) if ranks[0] == 1 else (labels, tf.squeeze(scores, -1))
    if ranks[0] == ranks[1] + 1 and labels.shape[-1] == 1:
        return (labels, scores[:, None]) if ranks[1] == 1 else (tf.squeeze(labels, -1), scores)
    return labels, scores


def is_keras_loss(value: Any) -> bool:
    """Whether something is a loss of Keras: an object, a class, or one of its functions."""
    kind = value if isinstance(value, type) else type(value)
    of_losses = re.fullmatch(r"(tf_)?keras\.src\.losses(\.losses)?", str(getattr(value, "__module__", "")))
    return any(c.__name__ == "Loss" for c in kind.__mro__) or (inspect.isfunction(value) and of_losses is not None)


def _per_example(value: Any, name: str, output: Tensor) -> Tensor:
    """Check that a target is ``(batch,)``, and widen it."""
    tensor = None
    if not isinstance(value, (tuple, list, dict)):
        with suppress(TypeError, ValueError):  # ragged, sparse, None
            tensor = tf.convert_to_tensor(value)
    if tensor is None:
        raise errors.TargetShapeError(
            f"the target `{name}` gives {errors.kind_of(value)}, not one number per example (batch,).",
            [("outputs", shape_text(output))],
            "return one tensor, with one number for each example",
        )
    if not tensor.dtype.is_floating:
        raise errors.TargetTypeError(
            f"the target `{name}` is of type {tensor.dtype.name}, which has no gradient.",
            [],
            "take tf.math.real or tf.abs of it"
            if tensor.dtype.is_complex
            else "a target is a float that depends smoothly on the outputs; an argmax or a comparison is not",
        )
    if tensor.shape.rank not in (1, None):
        scalar = tensor.shape.rank == 0
        do = "leave out the reduction over the batch axis" if scalar else "pick or reduce all axes but the first"
        raise errors.TargetShapeError(
            f"the target `{name}` gives {shape_text(tensor)}, not one number per example (batch,).",
            [("why", "a mean over the batch would scale every gradient by 1/batch")] if scalar else [],
            do if tensor.shape.rank != 2 or tensor.shape[1] != 1 else "take away the last axis: [:, 0]",
        )
    batch = output.shape[0] if output.shape.rank else None
    if batch is not None and tensor.shape[0] not in (None, batch):
        raise errors.TargetShapeError(
            f"the target `{name}` gives {tensor.shape[0]} numbers for {batch} examples.",
            [("outputs", shape_text(output))],
            "pick or reduce all axes but the first",
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
