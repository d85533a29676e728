"""Targets: what is differentiated. A target turns a model's outputs into one number per example.

A target is built into the graph once for each kind of target. What changes from call to call, the class or the
labels, is fed, so that the twentieth class costs no more than the second.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Hashable, Sequence
from functools import lru_cache
from typing import Any, Protocol, runtime_checkable

import numpy as np
import tensorflow as tf

from gradtap import errors
from gradtap.graph import surgery
from gradtap.graph.class_index import PREDICTED, ClassIndex
from gradtap.graph.scores import Score, pick_output, pre_squash, saturation, shape_text, widen
from gradtap.graph.tracing import ForwardGraph
from gradtap.types import Structure, Tensor, TensorLike

__all__ = ["Target", "class_score", "loss"]


@runtime_checkable
class Target(Protocol):
    """What every target can do."""

    def key(self, graph: ForwardGraph) -> Hashable:
        """Checks the target against the graph. Equal keys: the same ops, only the fed values differ."""

    def build(self, graph: ForwardGraph) -> Score:
        """Add the target's ops to the graph; called inside of it."""

    def values(self, graph: ForwardGraph, batch: int | None) -> list[TensorLike]:
        """What to feed to the score's placeholders; each has one row for each example, or one row for all."""


def class_score(k: Any, output: int | str | None = None, logits: bool = False) -> Target:
    r"""The score of a class: :math:`F_n = y_{n, k}`, or :math:`F_n = y_{n, k_n}` with one class for each example.

    Args:
      k: An int; a list or array of ints, one for each example; ``"predicted"`` for each example's largest score. For
        outputs of higher rank a tuple ``(row, column, k)``, a list of such tuples, or a mask ``(row, column, class)``,
        which sums the scores it selects (a mask of floats weighs them). Negative indices count from the end.
      output: Name or position of the output, for a model with several.
      logits: Take the value before a final softmax or sigmoid, found in the graph; the model is not rebuilt. Where the
        output does not end in one, the output itself is taken and a warning says so.

    Returns:
      A target, for the ``target=`` of any method.

    Raises:
      TargetTypeError: ``k`` is none of these.

    Example:
      >>> class_score(3, logits=True)
      class_score(3, logits=True)
    """
    if isinstance(k, str):
        if k != PREDICTED:
            raise errors.TargetTypeError(
                f'"{k}" is not a target.',
                [],
                [f'the only text that is one is "{PREDICTED}"', "give the class as an int"],
            )
        return _Predicted(output, logits)
    if isinstance(k, (np.ndarray, tf.Tensor)) and (len(k.shape) > 1 or k.dtype == bool):
        return _Mask(np.asarray(k), output, logits)
    return _ClassScore(ClassIndex(k.numpy() if isinstance(k, tf.Tensor) else k), output, logits)


def loss(fn: Any, y_true: Structure, output: int | str | None = None) -> Target:
    r"""A loss, one number per example: its reduction over the batch is removed.

    Args:
      fn: A Keras loss by name (``"mse"``), as a function, or as an object, whatever its ``reduction``.
      y_true: The labels ``(batch, ...)``.
      output: Name or position of the output, for a model with several.

    Returns:
      A target :math:`F_n = L(y_n^{true}, y_n)`; axes that the loss leaves beside the batch are averaged.

    Example:
      >>> loss("mse", [[0.0, 1.0]])
      loss('mse')
    """
    return _Loss(fn, y_true, output)


def as_target(target: Any) -> Target:
    """Read what a user gives as ``target=``.

    Raises:
      TargetTypeError: It is nothing that is understood.
    """
    if target is None:
        return _OneNumber()
    if isinstance(target, Target):
        return target
    if callable(target) and not _is_keras_loss(target):
        return _Function(target)
    if _is_keras_loss(target):
        raise errors.TargetTypeError(
            "a loss needs labels before it is a target.", [], "target=gt.targets.loss(fn, y_true)"
        )
    if isinstance(target, (dict, set, float, bytes)):
        raise errors.TargetTypeError(
            f"a {type(target).__name__} is not a target.",
            [("received", repr(target)[:120])],
            ["give an int, a list of ints, a callable outputs -> (batch,)", "a value from gt.targets"],
        )
    return class_score(target)


def _is_keras_loss(value: Any) -> bool:
    return any(c.__name__ == "Loss" for c in type(value).__mro__)


class _OneNumber:
    """No target: right for a model that has one number per example."""

    def key(self, graph: ForwardGraph) -> Hashable:
        shape = graph.outputs[0].shape
        if len(graph.outputs) == 1 and (shape.rank == 1 or (shape.rank == 2 and shape[1] == 1)):
            return "one number"
        outputs = zip(graph.output_names, graph.outputs, strict=True)
        raise errors.MissingTargetError(
            "the model has more than one number per example; say which one is differentiated.",
            [("outputs", ", ".join(f"`{n}` {shape_text(t)}" for n, t in outputs))],
            [
                "target=k, the score of class k",
                'target="predicted", the largest score of each example',
                "a callable: outputs -> (batch,)",
                "gt.targets.class_score(k, output=..., logits=True), gt.targets.loss(fn, y_true)",
            ],
        )

    def build(self, graph: ForwardGraph) -> Score:
        value = widen(graph.outputs[0])
        value = value[:, 0] if value.shape.rank == 2 else value
        return Score(value, saturated=saturation(value, graph.outputs[0]))

    def values(self, graph: ForwardGraph, batch: int | None) -> list[TensorLike]:
        return []

    def __repr__(self) -> str:
        return "the output"


class _OfOutput:
    """What targets that read one output share: which output, and whether before its softmax."""

    def __init__(self, output: int | str | None, logits: bool) -> None:
        self.output = output
        self.logits = logits

    def _scores(self, graph: ForwardGraph) -> Tensor:
        tensor, name = pick_output(graph, self.output)
        if not self.logits:
            return widen(tensor)
        before = pre_squash(tensor)
        if before is None:
            warnings.warn(
                errors.NoLogitsWarning(
                    f"output `{name}` does not end in a softmax or sigmoid: logits=True takes the output itself."
                ),
                stacklevel=2,
            )
        return widen(tensor if before is None else before)

    def _saturation(self, graph: ForwardGraph, value: Tensor) -> Tensor | None:
        return None if self.logits else saturation(value, pick_output(graph, self.output)[0])

    def _options(self) -> str:
        options = {"output": self.output, "logits": self.logits or None}
        return "".join(f", {name}={value!r}" for name, value in options.items() if value is not None)


class _ClassScore(_OfOutput):
    def __init__(self, index: ClassIndex, output: int | str | None, logits: bool) -> None:
        super().__init__(output, logits)
        self.index = index

    def key(self, graph: ForwardGraph) -> Hashable:
        tensor, name = pick_output(graph, self.output)
        self.index.check(tensor, name)
        return ("class", self.output, self.logits)

    def build(self, graph: ForwardGraph) -> Score:
        scores = self._scores(graph)
        indices = tf.compat.v1.placeholder(tf.int32, (None, self.index.depth), name="class")
        value = _gather(scores, indices)
        return Score(value, [indices], self._saturation(graph, value))

    def values(self, graph: ForwardGraph, batch: int | None) -> list[TensorLike]:
        rows = self.index.fed_rows(batch)
        return [_one_class(int(rows[0, 0])) if rows.shape == (1, 1) else rows]

    def __repr__(self) -> str:
        return f"class_score({self.index.asked!r}{self._options()})"


class _Predicted(_OfOutput):
    def key(self, graph: ForwardGraph) -> Hashable:
        tensor, name = pick_output(graph, self.output)
        if tensor.shape.rank != 2:
            raise errors.TargetTypeError(
                f'"{PREDICTED}" needs one row of class scores per example; output `{name}` is {shape_text(tensor)}.',
                [],
                ["give a tuple for the position and the class", "a mask", "a callable: outputs -> (batch,)"],
            )
        return (PREDICTED, self.output, self.logits)

    def build(self, graph: ForwardGraph) -> Score:
        winners = tf.argmax(pick_output(graph, self.output)[0], axis=-1, output_type=tf.int32)
        value = _gather(self._scores(graph), winners[:, None])
        return Score(value, saturated=self._saturation(graph, value))

    def values(self, graph: ForwardGraph, batch: int | None) -> list[TensorLike]:
        return []

    def __repr__(self) -> str:
        return f'class_score("{PREDICTED}"{self._options()})'


class _Mask(_OfOutput):
    """A weighted sum of an output's entries."""

    def __init__(self, mask: np.ndarray[Any, Any], output: int | str | None, logits: bool) -> None:
        super().__init__(output, logits)
        self.mask = mask

    def key(self, graph: ForwardGraph) -> Hashable:
        tensor, name = pick_output(graph, self.output)
        sizes = tensor.shape.as_list()[1:]
        own = self.mask.shape[-len(sizes) :] if sizes else ()
        fits = all(s is None or s == m for s, m in zip(sizes, own, strict=False))
        if self.mask.ndim not in (len(sizes), len(sizes) + 1) or not fits:
            raise errors.TargetTypeError(
                f"a mask of shape {self.mask.shape} does not fit output `{name}` {shape_text(tensor)}.",
                [],
                [
                    "give it the shape of one example's output, or of the whole batch",
                    "a list of ints is one-dimensional",
                ],
            )
        return ("mask", self.output, self.logits)

    def build(self, graph: ForwardGraph) -> Score:
        scores = self._scores(graph)
        weights = tf.compat.v1.placeholder(scores.dtype, (None, *scores.shape.as_list()[1:]), name="mask")
        return Score(tf.reduce_sum(scores * weights, axis=list(range(1, scores.shape.rank))), [weights])

    def values(self, graph: ForwardGraph, batch: int | None) -> list[TensorLike]:
        rank = pick_output(graph, self.output)[0].shape.rank
        if self.mask.ndim == rank and batch is not None and len(self.mask) != batch:
            raise errors.TargetCountError(
                f"{len(self.mask)} masks for {batch} examples.", [], "give one mask for all, or one for each example"
            )
        return [self.mask if self.mask.ndim == rank else self.mask[None]]

    def __repr__(self) -> str:
        return f"class_score(mask {self.mask.shape}{self._options()})"


class _Function:
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


class _Loss:
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


@lru_cache(maxsize=1024)
def _one_class(k: int) -> Tensor:
    """A class as a tensor: making one takes a noticeable part of a small model's call."""
    with tf.init_scope():
        return tf.constant([[k]], tf.int32)


def _gather(scores: Tensor, indices: Tensor) -> Tensor:
    """One entry of each example's scores; ``indices`` holds one row for each example, or one for all."""
    sizes = tf.shape(scores)[1:]
    indices = tf.where(indices < 0, indices + sizes, indices)
    rows = tf.broadcast_to(indices, tf.stack([tf.shape(scores)[0], tf.shape(indices)[1]]))
    return tf.gather_nd(scores, rows, batch_dims=1)


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
