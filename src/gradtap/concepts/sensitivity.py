"""How a target changes along directions at taps, for every input; of the gradients nothing else is kept."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any, TypeAlias

import numpy as np
import tensorflow as tf

from gradtap import errors
from gradtap.asking import Settings, ask
from gradtap.batching import rows_in_flight
from gradtap.differentiate import OfTarget
from gradtap.graph import walking
from gradtap.graph.cutting import bytes_per_example
from gradtap.graph.keeping import Trace
from gradtap.graph.resolve import Place
from gradtap.graph.scores import Score, widen
from gradtap.graph.tracing import ForwardGraph
from gradtap.program import Program
from gradtap.types import Model, Structure, Tensor, TensorLike

_Array: TypeAlias = np.ndarray[Any, Any]


class Sensitivity(OfTarget):
    r"""The products :math:`v \cdot \partial F_n / \partial a_n` of the gradients at taps with directions there.

    Args:
      target: What is differentiated.
      at: The addresses.
      directions: For each tap ``(1, directions, features)``, flat; fed, so that other ones need no other program.
    """

    copies = 0

    def __init__(self, target: Any, at: Any, directions: Sequence[Tensor] = ()) -> None:
        super().__init__(target, at)
        self.directions = list(directions)

    def options(self) -> tuple[Hashable, ...]:
        return ("along directions",)

    def values(self, graph: ForwardGraph, batch: int | None) -> list[TensorLike]:
        return [*super().values(graph, batch), *self.directions]

    def parts(
        self, graph: ForwardGraph, places: list[Place], slopes: list[Tensor], score: Score
    ) -> dict[str, list[Tensor]]:
        fed = [tf.compat.v1.placeholder(widen(s).dtype, (1, None, None), name="directions") for s in slopes]
        score.feeds.extend(fed)
        products, shapes = [], []
        for slope, directions in zip(slopes, fed, strict=True):
            rows = tf.reshape(widen(slope), (tf.shape(slope)[0], -1))
            # Where the inputs are of another size than the examples, that is said from the shapes, not by this product.
            common = tf.minimum(tf.shape(rows)[1], tf.shape(directions)[2])
            products.append(tf.linalg.matmul(rows[:, :common], directions[0, :, :common], transpose_b=True))
            shapes.append(tf.repeat(tf.shape(slope)[None, 1:], tf.shape(slope)[0], axis=0))
        return {"products": products, "shapes": shapes, "score": [score.value]}

    def build(self, trace: Trace, graph: ForwardGraph, settings: Settings) -> Program:
        before = len(graph.graph.get_operations())
        program = super().build(trace, graph, settings)
        if not settings.training:
            made = graph.graph.get_operations()[before:]
            needed = walking.ancestors(tensor for op in made for tensor in op.outputs)
            program.in_flight = rows_in_flight(*bytes_per_example(graph, needed))
        return program


def derivatives_along(
    model: Model,
    inputs: Structure,
    target: Any,
    at: Any,
    directions: Sequence[_Array],
    settings: Settings,
    shapes: Sequence[tuple[int, ...]],
) -> list[_Array]:
    """Directional derivatives of a target, for all taps in one pass over the inputs.

    Args:
      model: The model.
      inputs: One batch, or a dataset of batches.
      target: What is differentiated, a `Target`.
      at: The addresses.
      directions: For each tap that has a gradient ``(directions, features)``, float32 or float64.
      settings: The keywords of the call.
      shapes: For each tap that of one example's activations.

    Returns:
      For each tap ``(inputs, directions)``.

    Raises:
      InputShapeError: The activations of the inputs have another shape than the directions.
      ArgumentError: There are no inputs.
    """
    question = Sensitivity(target, at, [tf.constant(d[None]) for d in directions])
    program, parts = ask(model, inputs, question, settings)
    for place, found, shape in zip(program.places, parts["shapes"], shapes, strict=True):
        rows = np.asarray(found)
        if not len(rows):
            raise errors.ArgumentError("there are no inputs.", [], "give at least one")
        other = next((tuple(row.tolist()) for row in rows if tuple(row) != shape), None)
        if other is not None:
            raise errors.InputShapeError(
                f"the activations of the inputs at `{place.key}` have another shape than those of the concepts.",
                [("of an input", str(other)), ("of an example", str(shape))],
                "bring inputs and examples to one size",
            )
    return [np.asarray(found) for found in parts["products"]]
