"""What an attack makes large: by default the cross-entropy of the labels, from what stands before the softmax."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import numpy as np
import tensorflow as tf

from gradtap import errors
from gradtap.graph.scores import Score, pick_output, pre_squash, widen
from gradtap.graph.tracing import ForwardGraph
from gradtap.targets import as_target, loss
from gradtap.targets.protocol import Target
from gradtap.types import Tensor, TensorLike

#: Keeps a ratio finite where all logits are the same.
_TINY = 1e-12


def attack_target(given: Any, labels: Any, targeted: bool) -> Target:
    """The target of an attack.

    Args:
      given: None for the cross-entropy, ``"margin"``, ``"dlr"``, a Keras loss of the labels, or a value of
        `gradtap.targets`.
      labels: One class for each example, or what the loss compares with.
      targeted: Whether the labels are what the model is to say.
    """
    if given is None:
        return CrossEntropy(labels)
    if isinstance(given, str) and given in ("dlr", "margin"):
        return Margin(labels) if given == "margin" else Ratio(labels, targeted)
    if isinstance(given, str) or hasattr(given, "reduction") or _takes_two(given):
        return loss(given, labels)
    return as_target(given)


def _takes_two(given: Any) -> bool:
    code = getattr(given, "__code__", None)
    return code is not None and code.co_argcount - len(given.__defaults__ or ()) >= 2


class OfLabels:
    """A number for each example of its scores before the softmax and of its label.

    Args:
      labels: One class for each example, or one for all.

    Raises:
      TargetTypeError: They are no classes.
    """

    #: As messages show it.
    name = ""
    #: How many classes it takes; a single output of two classes is one less.
    least = 1

    def __init__(self, labels: Any) -> None:
        given = tf.convert_to_tensor(labels)
        if not given.dtype.is_integer or given.shape.rank not in (0, 1):
            raise errors.TargetTypeError(
                f"labels={errors.received(labels)} are no classes.",
                [],
                ["ints, one for each example", "loss=... for labels of another kind"],
            )
        self.labels = tf.cast(given, tf.int32)

    def key(self, graph: ForwardGraph) -> Hashable:
        return (type(self).__name__, *self._options(), self._logits(graph).shape[1] == 1)

    def _options(self) -> tuple[Hashable, ...]:
        return ()

    def _logits(self, graph: ForwardGraph) -> Tensor:
        output, name = pick_output(graph, None)
        before = pre_squash(output)
        if output.shape.rank != 2:
            raise errors.TargetTypeError(
                f"output `{name}` is not (batch, classes), so there is no {self.name} of one label for each example.",
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
        if classes is not None and classes < self.least:
            raise errors.TargetTypeError(
                f"{self.name} needs {self.least} classes, and output `{name}` has {classes}.",
                [],
                "leave out loss=, for the cross-entropy",
            )
        return output if before is None else before

    def build(self, graph: ForwardGraph) -> Score:
        logits = self._logits(graph)
        labels = tf.compat.v1.placeholder(tf.int32, (None,), name="labels")
        wide = widen(logits)
        spread = tf.broadcast_to(labels, [tf.shape(wide)[0]])
        value, further, held = self.value(wide, spread)
        return Score(value, [labels, *further], held=held)

    def value(self, logits: Tensor, labels: Tensor) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        """The number ``(batch,)``, what else is fed, and what stays as the inputs make it."""
        raise NotImplementedError

    def values(self, graph: ForwardGraph, batch: int | None) -> list[TensorLike]:
        labels = tf.reshape(self.labels, [-1])
        if batch is not None and labels.shape[0] not in (1, batch):
            raise errors.TargetCountError(
                f"{labels.shape[0]} labels for {batch} examples.", [], "give one class for each, or one for all"
            )
        return [labels]

    def __repr__(self) -> str:
        return f"{self.name} of the labels"


class CrossEntropy(OfLabels):
    """The cross-entropy of classes, stable where a probability is 1.0."""

    name = "the cross-entropy"

    def value(self, logits: Tensor, labels: Tensor) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        if logits.shape[1] == 1:
            ones = tf.cast(labels, logits.dtype)[:, None]
            return tf.nn.sigmoid_cross_entropy_with_logits(ones, logits)[:, 0], [], []
        return tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits), [], []


class Margin(OfLabels):
    """How far the best of the other classes is above that of the label."""

    name = "the margin"

    def value(self, logits: Tensor, labels: Tensor) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        if logits.shape[1] == 1:
            return away_from(logits, labels), [], []
        return tf.reduce_max(without(logits, labels), 1) - of_class(logits, labels), [], []


class Ratio(OfLabels):
    """The difference of logits ratio of Croce and Hein: a margin that no scale of the logits changes.

    Args:
      labels: See `OfLabels`.
      targeted: Whether the labels are what the model is to say. Then it is made small, as every loss is.
    """

    name = "the difference of logits ratio"

    def __init__(self, labels: Any, targeted: bool) -> None:
        super().__init__(labels)
        self._targeted = targeted
        self.least = 4 if targeted else 3

    def _options(self) -> tuple[Hashable, ...]:
        return (self._targeted,)

    def value(self, logits: Tensor, labels: Tensor) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        ordered = tf.sort(logits, 1, direction="DESCENDING")
        own = of_class(logits, labels)
        if not self._targeted:
            other = tf.reduce_max(without(logits, labels), 1)
            return (other - own) / (ordered[:, 0] - ordered[:, 2] + _TINY), [], []
        said = tf.argmax(without(logits, labels), 1, output_type=tf.int32)  # of the inputs as they are
        spread = ordered[:, 0] - 0.5 * (ordered[:, 2] + ordered[:, 3])
        return (of_class(logits, said) - own) / (spread + _TINY), [], [said]


class Lead(OfLabels):
    """How far a class that is fed is above that of the label."""

    name = "the lead"

    def value(self, logits: Tensor, labels: Tensor) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        rivals = tf.compat.v1.placeholder(tf.int32, (None,), name="rivals")
        if logits.shape[1] == 1:
            return away_from(logits, labels), [rivals], []
        spread = tf.broadcast_to(rivals, [tf.shape(logits)[0]])
        return of_class(logits, spread) - of_class(logits, labels), [rivals], []

    def values(self, graph: ForwardGraph, batch: int | None) -> list[TensorLike]:
        labels = super().values(graph, batch)[0]
        return [labels, labels]


def of_class(logits: Tensor, classes: Tensor) -> Tensor:
    """One entry of each row."""
    return tf.gather(logits, classes, axis=1, batch_dims=1)


def without(logits: Tensor, classes: Tensor) -> Tensor:
    """Rows in which one entry each is as low as can be."""
    taken = tf.one_hot(classes, tf.shape(logits)[1], on_value=True, off_value=False, dtype=tf.bool)
    return tf.where(taken, logits.dtype.min, logits)


def away_from(logits: Tensor, labels: Tensor) -> Tensor:
    """How far a single output is on the side of the other of two classes."""
    return (1 - 2 * tf.cast(labels, logits.dtype)) * logits[:, 0]
