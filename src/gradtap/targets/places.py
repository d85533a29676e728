"""Targets inside of a model: a unit of a layer, a channel of it, and the difference of two targets."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any, Literal

import numpy as np
import tensorflow as tf

from gradtap import errors
from gradtap.graph.resolve import Place, resolve
from gradtap.graph.scores import Score, shape_text, widen
from gradtap.graph.tracing import ForwardGraph
from gradtap.targets.protocol import Target
from gradtap.types import Address, TensorLike

Reduce = Literal["mean", "sum", "max"]
_REDUCE = {"mean": tf.reduce_mean, "sum": tf.reduce_sum, "max": tf.reduce_max}


def _one_float(graph: ForwardGraph, tap: Address) -> Place:
    places = resolve(graph, tap)
    if len(places) != 1 or not places[0].tensor.dtype.is_floating:
        found = ", ".join(f"`{p.key}` {p.tensor.dtype.name}" for p in places[:8])
        raise errors.TargetTypeError(
            f"a target needs one tensor of floats, `{tap}` means {len(places)}.", [("found", found)], "name one of them"
        )
    return places[0]


class Neuron:
    """Some units of a layer, summed."""

    def __init__(self, tap: Address, index: Any) -> None:
        self.tap = tap
        self.index = index if isinstance(index, tuple) else (index,)
        for one in self.index:
            if not isinstance(one, (int, np.integer, slice)) or isinstance(one, bool):
                raise errors.TargetTypeError(
                    f"{errors.kind_of(one)} is no index of a unit.",
                    [("received", errors.received(index))],
                    "give an int, a slice, or a tuple of these, one for each axis but the batch",
                )

    def key(self, graph: ForwardGraph) -> Hashable:
        place = _one_float(graph, self.tap)
        sizes = place.tensor.shape.as_list()[1:]
        shape = shape_text(place.tensor)
        if len(self.index) != len(sizes):
            raise errors.TargetTypeError(
                f"{self.index} names {len(self.index)} axes; the activations at `{place.key}` are {shape}.",
                [],
                "give one index or slice for each axis but the batch",
            )
        for index, size in zip(self.index, sizes, strict=True):
            if not isinstance(index, slice) and size is not None and not -size <= index < size:
                raise errors.ClassRangeError(
                    f"unit {index} is out of range: `{place.key}` is {shape}.", [], f"give 0 to {size - 1}"
                )
        return "neuron", place.tensor.name, str(self.index)

    def build(self, graph: ForwardGraph) -> Score:
        value = widen(_one_float(graph, self.tap).tensor[(slice(None), *self.index)])
        return Score(tf.reduce_sum(value, axis=list(range(1, value.shape.rank))))

    def values(self, graph: ForwardGraph, batch: int | None) -> list[TensorLike]:
        return []

    def __repr__(self) -> str:
        return f"neuron({str(self.tap)!r}, {self.index})"


class Channel:
    """One channel of a layer, reduced over its positions."""

    def __init__(self, tap: Address, k: int, reduce: Reduce) -> None:
        self.tap = tap
        self.k = k
        self.reduce = reduce
        if not isinstance(k, (int, np.integer)) or isinstance(k, bool):
            raise errors.TargetTypeError(
                f"{errors.kind_of(k)} is no index of a channel.", [("received", errors.received(k))], "give an int"
            )
        if not isinstance(reduce, str) or reduce not in _REDUCE:
            raise errors.ArgumentError(
                f"reduce={reduce!r} is not a choice.", [("choices", ", ".join(map(repr, _REDUCE)))], "give one of them"
            )

    def key(self, graph: ForwardGraph) -> Hashable:
        place = _one_float(graph, self.tap)
        size = place.tensor.shape[-1] if place.tensor.shape.rank else None
        if size is not None and not -size <= self.k < size:
            raise errors.ClassRangeError(
                f"channel {self.k} is out of range: `{place.key}` has {size}, 0 to {size - 1}.",
                [("activations", shape_text(place.tensor))],
                f"give a number from 0 to {size - 1}",
            )
        return "channel", place.tensor.name, self.k, self.reduce

    def build(self, graph: ForwardGraph) -> Score:
        value = widen(_one_float(graph, self.tap).tensor[..., self.k])
        return Score(_REDUCE[self.reduce](value, axis=list(range(1, value.shape.rank))))

    def values(self, graph: ForwardGraph, batch: int | None) -> list[TensorLike]:
        return []

    def __repr__(self) -> str:
        return f"channel({str(self.tap)!r}, {self.k}, reduce={self.reduce!r})"


class Contrast:
    """One target less another."""

    def __init__(self, first: Target, second: Target) -> None:
        self.first = first
        self.second = second

    def key(self, graph: ForwardGraph) -> Hashable:
        return "contrast", self.first.key(graph), self.second.key(graph)

    def build(self, graph: ForwardGraph) -> Score:
        first, second = self.first.build(graph), self.second.build(graph)
        flags = [s.saturated for s in (first, second) if s.saturated is not None]
        saturated = tf.reduce_any(tf.stack(flags)) if flags else None
        feeds, held = [*first.feeds, *second.feeds], [*first.held, *second.held]
        return Score(first.value - second.value, feeds, saturated, held=held)

    def values(self, graph: ForwardGraph, batch: int | None) -> list[TensorLike]:
        return [*self.first.values(graph, batch), *self.second.values(graph, batch)]

    def __repr__(self) -> str:
        return f"contrast({self.first!r}, {self.second!r})"
