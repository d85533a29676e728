"""Targets that read an output: its one number, a class, the predicted class, a mask."""

from __future__ import annotations

import warnings
from collections.abc import Hashable
from functools import lru_cache
from typing import Any

import numpy as np
import tensorflow as tf

from gradtap import errors
from gradtap.graph.class_index import PREDICTED, ClassIndex
from gradtap.graph.scores import Score, pick_output, pre_squash, saturation, shape_text, widen
from gradtap.graph.tracing import ForwardGraph
from gradtap.types import Tensor, TensorLike


class OneNumber:
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


class ClassScore(_OfOutput):
    """One entry of an output for each example; the entry is fed."""

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


class Predicted(_OfOutput):
    """The largest entry of each example's scores."""

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


class Mask(_OfOutput):
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
