"""Sets of examples, read at taps: only their activations are kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from gradtap import errors
from gradtap.asking import Settings, ask
from gradtap.differentiate import Reading
from gradtap.graph.resolve import Place
from gradtap.graph.scores import widen
from gradtap.staged.noise import generator
from gradtap.staged.progress import tracked
from gradtap.types import Model, Structure, Tensor

_Array: TypeAlias = np.ndarray[Any, Any]


class Examples(NamedTuple):
    """Sets of examples at the taps.

    Args:
      places: The taps, in forward order.
      sets: For each set, by what messages call it, its activations at each tap, ``(examples, ...)``.
    """

    places: list[Place]
    sets: dict[str, list[_Array]]


def read_sets(model: Model, sets: Mapping[str, Structure], at: Any, settings: Settings) -> Examples:
    """Read the activations of several sets of examples at all taps, set by set.

    Args:
      model: The model.
      sets: Each set, an array of inputs or a dataset, by what messages call it.
      at: The addresses.
      settings: The keywords of the call.

    Raises:
      ArgumentError: A set has fewer than two examples, or activations that are not finite.
      IntegerTapError: A tap holds no real numbers.
      InputShapeError: The activations of two sets differ in shape.
    """
    # What is not finite is an error here, and no warning before it.
    settings = replace(settings, checks=False)
    places: list[Place] = []
    read: dict[str, list[_Array]] = {}
    for label, examples in tracked(sets.items(), len(sets), "sets of examples"):
        try:
            program, parts = ask(model, examples, Reading(at), settings)
        except errors.GradtapError as error:
            error.facts.append(("in", f"the examples of {label}"))
            raise
        places = program.places
        found = [_numbers(t, p, label) for t, p in zip(parts["activations"], places, strict=True)]
        read[label] = found
    _check_shapes(places, read)
    return Examples(places, read)


def _numbers(tensor: Tensor, place: Place, label: str) -> _Array:
    if not tensor.dtype.is_floating:
        raise errors.IntegerTapError(
            f"`{place.key}` holds {tensor.dtype.name}, in which no direction is a concept.",
            [("tensor", f"{tensor.dtype.name} {tuple(tensor.shape)}")],
            "tap what the model computes from it in floats, such as its embedding",
        )
    if not hasattr(tensor, "numpy"):
        raise errors.ArgumentError(
            "concepts are separated outside of TensorFlow, so not inside of a tf.function.",
            [],
            "make this call outside of the tf.function",
        )
    found = np.asarray(widen(tensor).numpy())
    if len(found) < 2:
        raise errors.ArgumentError(
            f"{label} has {len(found)} example{'s' * (len(found) != 1)}.",
            [("why", "one is kept for the accuracy, and at least one is needed to learn from")],
            "give at least two; some fifty are usual",
        )
    # A sum is one pass without a copy, and keeps NaN and infinity.
    rows = [i for i, total in enumerate(found.reshape(len(found), -1).sum(1)) if not np.isfinite(total)]
    if rows:
        raise errors.ArgumentError(
            f"the activations of {label} at `{place.key}` are not finite.",
            [("examples", ", ".join(map(str, rows[:8])) + (", ..." if len(rows) > 8 else ""))],
            "look for NaN in these examples: gt.activations(model, examples, at=...) names where it begins",
        )
    return found


def _check_shapes(places: list[Place], read: Mapping[str, list[_Array]]) -> None:
    for i, place in enumerate(places):
        shapes = {found[i].shape[1:]: label for label, found in read.items()}
        if len(shapes) > 1:
            raise errors.InputShapeError(
                f"the sets differ in the shape of their activations at `{place.key}`, so no vector is one of both.",
                [(str(shape), label) for shape, label in list(shapes.items())[:4]],
                "bring all examples to one size",
            )


def random_sets(given: Any, runs: int | None) -> dict[str, Structure]:
    """The random sets by name; or the one pool that they are drawn from.

    Raises:
      ArgumentError: There are fewer than two, or it is not said how many are drawn.
    """
    if runs is not None:
        if not isinstance(runs, (int, np.integer)) or isinstance(runs, bool) or runs < 2:
            raise errors.ArgumentError(
                f"runs={runs!r} is not an int of at least 2.", [], "so many random sets are drawn from the pool"
            )
        return {"the pool `random`": given}
    if not isinstance(given, (list, tuple)):
        raise errors.ArgumentError(
            f"`random` is {errors.kind_of(given)}, not a list of random sets.",
            [("received", errors.received(given))],
            ["give a list of sets: random=[a, b, c, ...]", "say how many to draw from one pool: random=pool, runs=20"],
        )
    if len(given) < 2:
        raise errors.ArgumentError(
            f"`random` has {len(given)} set{'s' * (len(given) != 1)}.",
            [("why", "the scores of random sets against each other are what a concept is compared with")],
            "give at least two; ten are usual",
        )
    return {f"random[{i}]": examples for i, examples in enumerate(given)}


def drawn(pool: list[_Array], runs: int, seed: int | None) -> list[list[_Array]]:
    """A pool, shuffled and cut into sets of equal size that share no example; the same at every tap.

    Raises:
      ArgumentError: The pool has fewer than two examples for each.
    """
    count = len(pool[0])
    if count < 2 * runs:
        raise errors.ArgumentError(
            f"the pool has {count} examples, {runs} sets of at least 2 need {2 * runs}.",
            [],
            ["give more random examples", f"runs={count // 2} or fewer"],
        )
    order = generator(seed, 72).permutation(count)
    size = count // runs
    parts = [order[i * size : (i + 1) * size] for i in range(runs)]
    return [[found[rows] for found in pool] for rows in parts]
