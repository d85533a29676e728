"""Vectors that are multiplied with derivatives: one for each tap, checked and fed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf

from gradtap import errors
from gradtap.graph.arrays import like
from gradtap.graph.resolve import Place, resolve
from gradtap.graph.tracing import ForwardGraph
from gradtap.results import TapValues
from gradtap.types import Tensor, TensorLike


def one_place(graph: ForwardGraph, address: Any, keyword: str) -> Place:
    """The one tensor that an address means.

    Raises:
      ArgumentError: It means several, or integers.
    """
    places = resolve(graph, address)
    if len(places) != 1:
        raise errors.ArgumentError(
            f"{keyword}={address!r} means {len(places)} tensors; one is needed.",
            [("they are", ", ".join(f"`{p.key}`" for p in places[:8]))],
            "name one of them",
        )
    return places[0]


def placeholder_like(tensor: Tensor) -> Tensor:
    """A place to feed values of the shape of a tensor, any number of examples."""
    shape = tensor.shape if tensor.shape.rank is None else (None, *tensor.shape[1:])
    return tf.compat.v1.placeholder(tensor.dtype, shape, name="fed")


def for_each_example(vector: Tensor, tensor: Tensor) -> Tensor:
    """A vector that was fed, with a row for each example of a tensor, though one may have been given for all."""
    return tf.broadcast_to(vector, tf.shape(tensor))


def vectors_for(places: Sequence[Place], given: Any, batch: int | None, what: str) -> list[TensorLike]:
    """One array for each place, from a mapping by address, or from one array for the one place."""
    if isinstance(given, Mapping):
        by_key = TapValues.at(places, [None] * len(places))
        unknown = [str(key) for key in given if key not in by_key]
        missing = [p.key for p in places if p.key not in given and str(p.tap) not in given]
        if unknown or missing:
            raise errors.ArgumentError(
                f"the {what} do not fit the taps.",
                [("without one", ", ".join(missing) or "none"), ("for no tap", ", ".join(unknown) or "none")],
                "give one array for each address in `at`, under the same address",
            )
        arrays = [given[p.key] if p.key in given else given[str(p.tap)] for p in places]
    elif len(places) == 1:
        arrays = [given]
    else:
        raise errors.ArgumentError(
            f"{len(places)} taps need a mapping of {what}, not one array.", [], f"{what}={{address: array, ...}}"
        )
    named = zip(arrays, places, strict=True)
    return [like(array, place.tensor, batch, f"{what} for `{place.key}`") for array, place in named]
