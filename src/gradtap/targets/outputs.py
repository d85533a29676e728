"""Targets that read an output: its one number, a class, the predicted class, a mask."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import tensorflow as tf

from gradtap import errors
from gradtap.graph.class_index import PREDICTED, ClassIndex, output_text
from gradtap.graph.scores import Score, pick_output, pre_squash, saturation, widen
from gradtap.graph.tracing import ForwardGraph
from gradtap.types import Tensor, TensorLike


class OneNumber:
    """No target: right for a model that has one number per example."""

    def key(self, graph: ForwardGraph) -> Hashable:
        if len(graph.outputs) == 1:
            tensor, _ = pick_differentiable(graph, None)
            if tensor.shape.rank == 1 or (tensor.shape.rank == 2 and tensor.shape[1] == 1):
                return "one number"
        raise _missing_target(graph)

    def build(self, graph: ForwardGraph) -> Score:
        value = widen(graph.outputs[0])
        value = value[:, 0] if value.shape.rank == 2 else value
        saturated = saturation(value, graph.outputs[0])
        return Score(value, saturated=saturated, squashed=saturated is not None)

    def values(self, graph: ForwardGraph, batch: int | None) -> list[TensorLike]:
        return []

    def __repr__(self) -> str:
        return "the model's one number per example"


def _missing_target(graph: ForwardGraph) -> errors.MissingTargetError:
    names, outputs = graph.output_names, graph.outputs
    alone = len(outputs) == 1
    texts = [output_text(t, "output" if alone and n == "0" else n) for n, t in zip(names, outputs, strict=True)]
    k = "k" if outputs[0].shape.rank == 2 else "(position, k)"
    score, predicted, option = f"target={k}", f'target="{PREDICTED}"', ""
    if not alone:
        option = f', output="{names[0]}"'
        score = f"target=gt.targets.class_score({k}{option})"
        predicted = f'target=gt.targets.class_score("{PREDICTED}"{option})'
    return errors.MissingTargetError(
        "the model has more than one number per example; say which one is differentiated.",
        [("outputs", ", ".join(texts))],
        [
            f"{score}, the score of class k",
            f"{predicted}, the largest score of each example",
            f"target=gt.targets.class_score({k}{option}, logits=True), the value before a softmax",
            f"target=gt.targets.loss(fn, y_true{option})",
            "a callable: outputs -> (batch,)",
        ],
    )


def pick_differentiable(graph: ForwardGraph, output: int | str | None) -> tuple[Tensor, str]:
    """The output that a target reads, and its name.

    Raises:
      OutputChoiceError: There are several and none is named, or the named one does not exist.
      TargetTypeError: It is of a type that has no gradient, or of unknown rank.
      TargetShapeError: It is one number for the whole batch.
    """
    tensor, name = pick_output(graph, output)
    text = output_text(tensor, name)
    if not tensor.dtype.is_floating:
        made = "return tf.math.real or tf.abs of it" if tensor.dtype.is_complex else "return what it is computed from"
        raise errors.TargetTypeError(
            f"{text} is of type {tensor.dtype.name}, which has no gradient.",
            [],
            [made, *(["name another output"] if len(graph.outputs) > 1 else [])],
        )
    if tensor.shape.rank is None:
        raise errors.TargetTypeError(
            f"{text} does not say how many axes it has.",
            [("why", "Python code in the model, such as tf.numpy_function, hides the shape")],
            ["tf.ensure_shape(y, (None, ...)) in the model", "a callable: outputs -> (batch,)"],
        )
    if tensor.shape.rank == 0:
        raise errors.TargetShapeError(
            f"{text} is a single number for the whole batch, not one number per example (batch,).",
            [("why", "a mean over the batch would scale every gradient by 1/batch")],
            "leave out the reduction over the batch axis in the model",
        )
    return tensor, name


class _OfOutput:
    """What targets that read one output share: which output, and whether before its softmax."""

    def __init__(self, output: int | str | None, logits: bool) -> None:
        if isinstance(output, bool) or not isinstance(logits, (bool, np.bool_)):
            raise errors.ArgumentError(
                f"output={output!r}, logits={logits!r} is not a choice.",
                [("output", "the name or the position of an output, or None"), ("logits", "True or False")],
                "gt.targets.class_score(k, output=..., logits=...)",
            )
        self.output = output
        self.logits = bool(logits)

    def _scores(self, graph: ForwardGraph) -> Tensor:
        tensor, name = pick_output(graph, self.output)
        if not self.logits:
            return widen(tensor)
        before = pre_squash(tensor)
        if before is None:
            errors.warn(
                errors.NoLogitsWarning(
                    f"{output_text(tensor, name)} does not end in a softmax or sigmoid: logits=True takes the output "
                    "itself."
                )
            )
        return widen(tensor if before is None else before)

    def _saturation(self, graph: ForwardGraph, value: Tensor) -> Tensor | None:
        return None if self.logits else saturation(value, pick_output(graph, self.output)[0])

    def _options(self) -> str:
        options = {"output": self.output, "logits": self.logits or None}
        return "".join(f", {name}={value!r}" for name, value in options.items() if value is not None)


class ClassScore(_OfOutput):
    """One entry of an output for each example; the entry is fed."""

    def __init__(self, index: ClassIndex, output: int | str | None, logits: bool) -> None:
        super().__init__(output, logits)
        self.index = index

    def key(self, graph: ForwardGraph) -> Hashable:
        tensor, name = pick_differentiable(graph, self.output)
        self.index.check(tensor, name)
        return ("class", self.output, self.logits)

    def build(self, graph: ForwardGraph) -> Score:
        scores = self._scores(graph)
        indices = tf.compat.v1.placeholder(tf.int32, (None, self.index.depth), name="class")
        value = _gather(scores, indices)
        saturated = self._saturation(graph, value)
        return Score(value, [indices], saturated, squashed=saturated is not None)

    def values(self, graph: ForwardGraph, batch: int | None) -> list[TensorLike]:
        rows = self.index.fed_rows(batch)
        return [_one_class(int(rows[0, 0])) if rows.shape == (1, 1) else rows]

    def of_rows(self, rows: Sequence[int]) -> ClassScore:
        """The same target for some of the examples; the classes are a list or an array."""
        asked = self.index.asked
        some = asked[np.asarray(rows)] if isinstance(asked, np.ndarray) else [asked[i] for i in rows]
        return ClassScore(ClassIndex(some), self.output, self.logits)

    def __repr__(self) -> str:
        return f"class_score({errors.received(self.index.asked)}{self._options()})"


class Predicted(_OfOutput):
    """The largest entry of each example's scores."""

    def key(self, graph: ForwardGraph) -> Hashable:
        tensor, name = pick_differentiable(graph, self.output)
        if tensor.shape.rank != 2:
            higher = ["give a tuple for the position and the class", "a mask", "a callable: outputs -> (batch,)"]
            raise errors.TargetTypeError(
                f'"{PREDICTED}" needs one row of class scores per example, unlike {output_text(tensor, name)}.',
                [],
                higher if tensor.shape.rank > 2 else "leave out the target: there is one number per example",
            )
        return (PREDICTED, self.output, self.logits)

    def build(self, graph: ForwardGraph) -> Score:
        winners = tf.argmax(pick_output(graph, self.output)[0], axis=-1, output_type=tf.int32)
        value = _gather(self._scores(graph), winners[:, None])
        saturated = self._saturation(graph, value)
        return Score(value, saturated=saturated, squashed=saturated is not None, held=[winners])

    def values(self, graph: ForwardGraph, batch: int | None) -> list[TensorLike]:
        return []

    def __repr__(self) -> str:
        return f'class_score("{PREDICTED}"{self._options()})'


class Mask(_OfOutput):
    """A weighted sum of an output's entries."""

    def __init__(self, mask: np.ndarray[Any, Any], output: int | str | None, logits: bool) -> None:
        super().__init__(output, logits)
        self.mask = mask
        if mask.dtype.kind not in "biuf":
            raise errors.TargetTypeError(f"a mask of {mask.dtype} selects nothing.", [], "give booleans, or weights")
        if mask.dtype.kind in "iu" and mask.ndim == 2 and mask.shape[1] == 1:
            raise errors.TargetTypeError(
                f"the {mask.shape} array of ints has two readings.",
                [("either", "one class for each example"), ("or", "a mask of one entry for each example")],
                ["target=k[:, 0] for one class for each example", "target=mask.astype(bool) for a mask"],
            )

    def key(self, graph: ForwardGraph) -> Hashable:
        tensor, name = pick_differentiable(graph, self.output)
        sizes = tensor.shape.as_list()[1:]
        own = self.mask.shape[-len(sizes) :] if sizes else ()
        fits = all(s is None or s == m for s, m in zip(sizes, own, strict=False))
        if self.mask.ndim not in (len(sizes), len(sizes) + 1) or not fits:
            raise errors.TargetTypeError(
                f"a mask of shape {self.mask.shape} does not fit {output_text(tensor, name)}.",
                [],
                [
                    "give it the shape of one example's output, or of the whole batch",
                    "one class for each example is a one-dimensional array of ints",
                ],
            )
        return ("mask", self.output, self.logits)

    def build(self, graph: ForwardGraph) -> Score:
        scores = self._scores(graph)
        weights = tf.compat.v1.placeholder(scores.dtype, (None, *scores.shape.as_list()[1:]), name="mask")
        return Score(tf.reduce_sum(scores * weights, axis=list(range(1, scores.shape.rank))), [weights])

    def values(self, graph: ForwardGraph, batch: int | None) -> list[TensorLike]:
        tensor = pick_output(graph, self.output)[0]
        rank = tensor.shape.rank
        if self.mask.ndim == rank and batch is not None and len(self.mask) != batch:
            raise errors.TargetCountError(
                f"{len(self.mask)} mask{'s' * (len(self.mask) != 1)} for {batch} example{'s' * (batch != 1)}.",
                [("received", errors.received(self.mask))],
                "give one mask for all, or one for each example",
            )
        # Half precision is widened before it is weighed.
        weights = self.mask.astype(np.float64 if tensor.dtype == tf.float64 else np.float32)
        return [weights if self.mask.ndim == rank else weights[None]]

    def __repr__(self) -> str:
        return f"class_score(mask {self.mask.shape}{self._options()})"


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
