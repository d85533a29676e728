"""What a network is trained for, as a target: the loss that is given, that it was compiled with, or a cross-entropy."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from gradtap import errors
from gradtap.graph.class_index import output_text
from gradtap.graph.model_files import as_trace
from gradtap.graph.scores import Score, pre_squash
from gradtap.graph.tracing import ForwardGraph
from gradtap.targets import Target, as_target, loss
from gradtap.targets.outputs import pick_differentiable
from gradtap.types import Structure, TensorLike


def objective(model: Any, target: Any, fn: Any, labels: Structure) -> Target:
    """The target that a call means.

    Args:
      model: The model itself, for the loss that it was compiled with.
      target: As the user gave it; None where a loss is meant.
      fn: A loss; None for the compiled one, else a cross-entropy for whole numbers.
      labels: One for each example; None where a target is given.

    Raises:
      ArgumentError: A target is given with labels, or a loss without.
    """
    if labels is None:
        if fn is not None:
            raise errors.ArgumentError(
                "a loss needs labels.", [("loss", errors.received(fn))], "labels=..., one for each example"
            )
        return as_target(target)
    if target is not None:
        raise errors.ArgumentError(
            "both a target and labels are given, which are two things to differentiate.",
            [("target", errors.received(target)), ("labels", errors.received(labels))],
            ["leave the labels out for the target", "leave the target out for the loss"],
        )
    fn = compiled_loss(model) if fn is None else fn
    if isinstance(fn, (Mapping, list, tuple)) or is_several(labels):
        return _Total(_of_outputs(fn, labels))
    return loss(fn, labels) if fn is not None else CrossEntropy(labels)


def is_several(labels: Structure) -> bool:
    """Whether labels are those of several outputs: a dict, or a list of arrays and not of numbers or rows."""
    if isinstance(labels, (list, tuple)):
        return bool(labels) and all(len(getattr(one, "shape", ())) > 0 for one in labels)
    return isinstance(labels, Mapping)


def compiled_loss(model: Any) -> Any:
    """The loss that a model was compiled with; None where it has none."""
    found = getattr(model, "loss", None) if getattr(model, "compiled", False) else None
    return None if callable(found) and getattr(found, "__self__", None) is model else found


def loss_to_train(model: Any, labels: Structure, fn: Any) -> Any:
    """What ``compile`` takes for the same objective as `objective` means.

    Args:
      model: The model, which was measured before.
      labels: One for each example.
      fn: The loss, where there is one.
    """
    own = compiled_loss(model) if fn is None else fn
    if own is not None:
        return own
    graph = as_trace(model).graphs.any_graph()
    if graph is None:
        raise errors.ArgumentError("the model was not traced.", [], 'loss="..."')
    if isinstance(labels, Mapping):
        return {name: CrossEntropy(one, name).function(graph) for name, one in labels.items()}
    if is_several(labels):
        return [CrossEntropy(one, number).function(graph) for number, one in enumerate(labels)]
    return CrossEntropy(labels).function(graph)


def _of_outputs(fn: Any, labels: Any) -> list[Target]:
    """The loss at each output that has one."""
    if not is_several(labels):
        labels = [labels]
    names: list[Any] = list(labels) if isinstance(labels, Mapping) else list(range(len(labels)))
    if isinstance(fn, (list, tuple)) and len(fn) == len(names):
        fn = dict(zip(names, fn, strict=True))
    if isinstance(fn, Mapping) and not set(names) <= set(fn) and len(fn) == len(names):
        fn = dict(zip(names, fn.values(), strict=True))  # losses by name, labels by position
    found: list[Target] = []
    for name in names:
        own = fn.get(name) if isinstance(fn, Mapping) else fn
        if isinstance(fn, Mapping) and own is None:
            continue  # an output without a loss
        found.append(loss(own, labels[name], name) if own is not None else CrossEntropy(labels[name], name))
    if not found:
        raise errors.ArgumentError(
            "no output has both a loss and labels.",
            [("losses", errors.received(fn)), ("labels for", ", ".join(map(str, names)))],
            "name the outputs alike in both",
        )
    return found


class _Total:
    """The sum of several targets."""

    def __init__(self, parts: Sequence[Target]) -> None:
        self.parts = parts

    def key(self, graph: ForwardGraph) -> Hashable:
        return ("total", *(part.key(graph) for part in self.parts))

    def build(self, graph: ForwardGraph) -> Score:
        scores = [part.build(graph) for part in self.parts]
        return Score(tf.add_n([score.value for score in scores]), [feed for score in scores for feed in score.feeds])

    def values(self, graph: ForwardGraph, batch: int | None) -> list[TensorLike]:
        return [value for part in self.parts for value in part.values(graph, batch)]

    def __repr__(self) -> str:
        return " + ".join(map(repr, self.parts))


class CrossEntropy:
    """Cross-entropy of whole numbers: of classes, or of yes and no where there is one number per example.

    It is formed from logits, unless a softmax or sigmoid ends the output.

    Args:
      labels: One for each example.
      output: Name or position of the output, for a model with several.
    """

    def __init__(self, labels: TensorLike, output: int | str | None = None) -> None:
        self.labels = np.asarray(labels)
        self.output = output
        if self.labels.dtype.kind not in "iub":
            raise errors.ArgumentError(
                "the labels are no whole numbers, so it takes a loss to compare them with what the model says.",
                [("labels", errors.received(self.labels))],
                ['loss="mse", or another loss of Keras', "compile the model: its loss is taken"],
            )

    def function(self, graph: ForwardGraph) -> Any:
        """The loss of Keras that fits the output."""
        tensor, _ = pick_differentiable(graph, self.output)
        from_logits = pre_squash(tensor) is None
        if tensor.shape.rank == 1 or tensor.shape[-1] == 1:
            return keras.losses.BinaryCrossentropy(from_logits=from_logits)
        return keras.losses.SparseCategoricalCrossentropy(from_logits=from_logits)

    def _loss(self, graph: ForwardGraph) -> Target:
        tensor, name = pick_differentiable(graph, self.output)
        fn = self.function(graph)
        if isinstance(fn, keras.losses.BinaryCrossentropy):
            return loss(fn, self.labels.astype("float32"), self.output)
        highest = int(self.labels.max()) if self.labels.size else 0
        if self.labels.size and (highest >= (tensor.shape[-1] or highest + 1) or self.labels.min() < 0):
            raise errors.ClassRangeError(
                f"a label is outside of {output_text(tensor, name)}.",
                [("labels", f"{self.labels.min()} to {highest}")],
                f"classes count from 0 to {tensor.shape[-1] - 1}",
            )
        return loss(fn, self.labels, self.output)

    def key(self, graph: ForwardGraph) -> Hashable:
        return ("cross-entropy", self._loss(graph).key(graph))

    def build(self, graph: ForwardGraph) -> Score:
        return self._loss(graph).build(graph)

    def values(self, graph: ForwardGraph, batch: int | None) -> list[TensorLike]:
        return self._loss(graph).values(graph, batch)

    def __repr__(self) -> str:
        return "cross-entropy of the labels"
