"""A symmetric matrix at each tap, known by its products with vectors: many of them run together."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

import numpy as np
import tensorflow as tf

from gradtap import errors
from gradtap.asking import Settings, address_key, addresses, ask, check_choice
from gradtap.batching import free_memory
from gradtap.curvature.linearised import NOTHING_BENDS_OUTSIDE, gauss_newton_products, inner_tensors
from gradtap.differentiate import slopes_at
from gradtap.graph import surgery
from gradtap.graph.coupling import couples_examples
from gradtap.graph.resolve import Place, resolve
from gradtap.graph.tracing import ForwardGraph
from gradtap.program import program_for
from gradtap.second_order import differentiate_again, warn_of_zeros
from gradtap.staged.slope_legs import leg_with
from gradtap.staged.stages import Legs, Stage, Staged, refuse_states
from gradtap.targets import Target, as_target
from gradtap.types import Model, Structure, Tensor, TensorLike
from gradtap.vectors import placeholder_like

Matrix = Literal["hessian", "gauss_newton"]


def measured(
    model: Model,
    inputs: Structure,
    target: Any,
    at: Any,
    settings: Settings,
    measure: Callable[[Stage], list[Tensor]],
    count: int,
    *,
    matrix: str = "hessian",
) -> tuple[list[Place], list[list[Tensor]]]:
    """Measure something of the matrix at every tap, by its products with vectors; warn where there is nothing.

    Args:
      model: The model.
      inputs: One batch, or a dataset.
      target: The target.
      at: The taps.
      settings: The keywords of the call.
      measure: Given a stage, whose suffix takes activations and a vector for each, and returns the products; it
        returns tensors ``(batch, ...)``.
      count: How many of them. Where the last is all zero, so is the matrix.
      matrix: Which matrix.

    Returns:
      The places, and for each kind of result one tensor for each place.
    """
    check_choice("matrix", matrix, ("hessian", "gauss_newton"))
    wanted, at = as_target(target), addresses(at)

    def legs(graph: ForwardGraph, own: Settings) -> Legs:
        return _legs(graph, own, wanted, at, matrix)

    def work(stages: list[Stage], inputs: list[Tensor], arrays: list[TensorLike]) -> dict[str, list[Tensor]]:
        found = [measure(stage) for stage in stages]
        return {f"part {i}": [each[i] for each in found] for i in range(count)}

    question = Staged(wanted, (matrix, address_key(at)), legs, work)
    program, parts = ask(model, inputs, question, settings)
    if settings.checks:
        why = [NOTHING_BENDS_OUTSIDE] if matrix == "gauss_newton" else []
        warn_of_zeros(program.places, parts[f"part {count - 1}"], *why)
    return program.places, [parts[f"part {i}"] for i in range(count)]


def _legs(graph: ForwardGraph, settings: Settings, target: Target, at: Any, matrix: str) -> Legs:
    """A leg for each tap; its suffix takes a vector and returns the matrix's product with it, then the target."""
    refuse_coupling(graph, settings)
    places = resolve(graph, at)
    with surgery.inside(graph.graph):
        score = target.build(graph)
    kept, slopes, skipped = slopes_at(graph, places, score.value, repr(target), settings.unconnected)
    refuse_states(kept)
    inner = inner_tensors(graph, score.value, kept) if matrix == "gauss_newton" else []
    legs = []
    for place, slope in zip(kept, slopes, strict=True):
        with surgery.inside(graph.graph):
            vector = placeholder_like(place.tensor)
        if matrix == "gauss_newton":
            [product] = gauss_newton_products(graph, score.value, inner, [place], [vector])
        else:
            [product] = bent_along(graph, slope, vector, [place])
        legs.append(leg_with(graph, [place], [place], [product, score.value], score, [vector]))
    return Legs(legs, skipped)


def bent_along(graph: ForwardGraph, slope: Tensor, vector: Tensor, places: Sequence[Place]) -> list[Tensor]:
    """The derivatives at places of the product of a slope, there or elsewhere, with a vector."""
    found = differentiate_again([slope], [place.variable for place in places], along=[vector])
    with surgery.inside(graph.graph):
        # No path means that the slope does not depend on the activations: an exact zero.
        return [tf.zeros_like(p.tensor) if h is None else h for p, h in zip(places, found, strict=True)]


def refuse_coupling(graph: ForwardGraph, settings: Settings) -> None:
    """Raise where the examples of a batch share statistics, so that no example has a matrix of its own.

    Raises:
      ArgumentError: It says what has an answer there.
    """
    if settings.training and program_for(graph, "couples examples", lambda: [couples_examples(graph)])[0]:
        raise errors.ArgumentError(
            "with training=True the examples of a batch have a say in each other, and none has a matrix of its own.",
            [("why", "a layer computes statistics over the batch")],
            ["training=False", "gt.hvp, whose products are of the whole batch"],
        )


def products(stage: Stage, vectors: Callable[[slice], Tensor], count: int) -> Iterator[tuple[Tensor, Tensor]]:
    """So many vectors and the products with them, ``(runs, batch, ...)`` each, in parts."""
    here = stage.here[0]
    for part in stage.parts(count, f"products at {stage.leg.measured[0].key}"):
        given = vectors(part) * tf.ones_like(here)[None]
        points = [tf.repeat(moved[None], given.shape[0], axis=0) for moved in stage.here]
        yield given, stage.run(points, each=[given])[0]


def block(stage: Stage, chosen: Sequence[int]) -> Tensor:
    """The entries of each example's matrix between some units, ``(batch, k, k)``, by products with unit vectors."""
    size = unit_count(stage.here[0], stage.leg.measured[0].key)
    found = []
    for _, product in products(stage, one_hot(stage.here[0], chosen), len(chosen)):
        rows = flat(product)
        found.append(rows if list(chosen) == list(range(size)) else tf.gather(rows, chosen, axis=2))
    return tf.transpose(tf.concat(found, 0), [1, 2, 0])


def flat(tensor: Tensor) -> Tensor:
    """``(runs, batch, units)``."""
    return tf.reshape(tensor, (tensor.shape[0], tf.shape(tensor)[1], -1))


def one_hot(here: Tensor, chosen: Sequence[int]) -> Callable[[slice], Tensor]:
    """The unit vectors of some units, ``(runs, 1, ...)``."""
    size, shape = int(np.prod(here.shape[1:], dtype=np.int64)), tuple(here.shape[1:])
    return lambda part: tf.reshape(tf.one_hot(chosen[part], size, dtype=here.dtype), (-1, 1, *shape))


def unit_count(here: Tensor, key: str) -> int:
    """How many units an example has.

    Raises:
      SideError: The graph does not say.
    """
    shape = tuple(here.shape[1:])
    if None in shape:
        raise errors.SideError(
            f"`{key}` does not say how many units it has.", [("shape", str(shape))], "hvp needs not know"
        )
    return int(np.prod(shape, dtype=np.int64))


def check_size(numbers: int, here: Tensor, key: str, what: str, facts: errors.Facts, do: Sequence[str]) -> None:
    """Raise before a result would take more than half of the free memory.

    Args:
      numbers: How many each example has.
      here: The activations at the tap.
      key: The name of the tap.
      what: What it is called.
      facts: What is said of its size.
      do: What can be done instead.

    Raises:
      MemoryBudgetError: It says how large it is.
    """
    needed = 2 * numbers * int(here.shape[0] or 1) * here.dtype.size
    free = free_memory()
    if free is not None and needed > free / 2:
        raise errors.MemoryBudgetError(
            f"{what} at `{key}` would take {needed / 2e9:.1f} GB, and as much again while it is made; "
            f"{free / 1e9:.1f} GB of memory are free.",
            facts,
            do,
        )
