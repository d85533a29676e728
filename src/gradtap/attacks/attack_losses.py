"""What an attack makes large: by default the cross-entropy of the labels, from what stands before the softmax."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import numpy as np
import tensorflow as tf

from gradtap import errors
from gradtap.graph.scores import Score, pick_output, pre_squash
from gradtap.graph.tracing import ForwardGraph
from gradtap.targets import as_target, loss
from gradtap.targets.protocol import Target
from gradtap.types import Tensor, TensorLike


def attack_target(given: Any, labels: Any) -> Target:
    """The target of an attack.

    Args:
      given: None for the cross-entropy, a Keras loss of the labels, or a value of `gradtap.targets`.
      labels: One class for each example, or what the loss compares with.
    """
    if given is None:
        return CrossEntropy(labels)
    if isinstance(given, str) or hasattr(given, "reduction") or _takes_two(given):
        return loss(given, labels)
    return as_target(given)


def _takes_two(given: Any) -> bool:
    code = getattr(given, "__code__", None)
    return code is not None and code.co_argcount - len(given.__defaults__ or ()) >= 2


class CrossEntropy:
    """The cross-entropy of classes, stable where a probability is 1.0."""

    def __init__(self, labels: Any) -> None:
        self.labels = tf.convert_to_tensor(labels)
        if not self.labels.dtype.is_integer or self.labels.shape.rank not in (0, 1):
            raise errors.TargetTypeError(
                f"labels={errors.received(labels)} are no classes.",
                [],
                ["ints, one for each example", "loss=... for labels of another kind"],
            )

    def key(self, graph: ForwardGraph) -> Hashable:
        return ("cross-entropy", self._loss(graph)[0])

    def _loss(self, graph: ForwardGraph) -> tuple[str, Tensor]:
        output, name = pick_output(graph, None)
        before = pre_squash(output)
        if output.shape.rank != 2:
            raise errors.TargetTypeError(
                f"output `{name}` is not (batch, classes), so there is no cross-entropy of one label for each example.",
                [("output", str(tuple(output.shape)))],
                "loss=... : a Keras loss of the labels, or a value of gt.targets",
            )
        classes = output.shape[1]
        known = tf.get_static_value(self.labels)
        most = 2 if classes == 1 else classes
        if known is not None and most is not None and np.size(known) and (np.min(known) < 0 or np.max(known) >= most):
            raise errors.ClassRangeError(
                f"the labels are {np.min(known)} to {np.max(known)}, and there are {most} classes.",
                [],
                "count classes from 0",
            )
        return ("binary" if classes == 1 else "sparse"), output if before is None else before

    def build(self, graph: ForwardGraph) -> Score:
        kind, logits = self._loss(graph)
        labels = tf.compat.v1.placeholder(self.labels.dtype, (None,), name="labels")
        wide = tf.cast(logits, tf.float32) if logits.dtype.size < 4 else logits
        spread = tf.broadcast_to(labels, [tf.shape(wide)[0]])
        if kind == "binary":
            value = tf.nn.sigmoid_cross_entropy_with_logits(tf.cast(spread, wide.dtype)[:, None], wide)[:, 0]
        else:
            value = tf.nn.sparse_softmax_cross_entropy_with_logits(spread, wide)
        return Score(value, [labels])

    def values(self, graph: ForwardGraph, batch: int | None) -> list[TensorLike]:
        labels = tf.reshape(self.labels, [-1])
        if batch is not None and labels.shape[0] not in (1, batch):
            raise errors.TargetCountError(
                f"{labels.shape[0]} labels for {batch} examples.", [], "give one class for each, or one for all"
            )
        return [labels]

    def __repr__(self) -> str:
        return "the cross-entropy of the labels"
