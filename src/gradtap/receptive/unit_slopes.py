"""Gradients of single units of layers with respect to the input, all in one backward graph."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any, Literal

import numpy as np
import tensorflow as tf

from gradtap import errors
from gradtap.asking import Settings, address_key, addresses, watched
from gradtap.batching import rows_in_flight
from gradtap.differentiate import slopes_at
from gradtap.graph import cutting, surgery, walking
from gradtap.graph.keeping import Trace
from gradtap.graph.resolve import Place, resolve
from gradtap.graph.scores import shape_text, widen
from gradtap.graph.tracing import ForwardGraph
from gradtap.program import Program, assemble
from gradtap.receptive.geometry import seen_place
from gradtap.types import Address, Tensor, TensorLike

Unit = Literal["center"] | int | tuple[int, ...]

#: Stands for the middle of an axis, whose length may be known only when the model runs.
_CENTER = np.iinfo(np.int32).min


class UnitSlopes:
    """Absolute gradients of units, summed over the examples of a run and the channels of the input.

    Args:
      at: The addresses.
      units: The units of each.
      along: Whose positions are looked at.
    """

    def __init__(self, at: Any, units: Sequence[Unit], along: Address) -> None:
        self.at = addresses(at)
        self.units = units
        self.along = along

    def key(self, graph: ForwardGraph) -> Hashable:
        for place in resolve(graph, self.at):
            self._indices(place)
        return address_key(self.at), len(self.units), address_key(self.along)

    def build(self, trace: Trace, graph: ForwardGraph, settings: Settings) -> Program:
        places = resolve(graph, self.at)
        seen = seen_place(graph, self.along, places)
        kept: list[Place] = []
        maps: list[Tensor] = []
        feeds: list[Tensor] = []
        skipped: dict[str, str] = {}
        for place in places:
            with surgery.inside(graph.graph):
                feed = tf.compat.v1.placeholder(tf.int32, (None, len(self.units), len(spatial(place))), name="units")
                scores = [_unit(widen(place.tensor), feed[0, i]) for i in range(len(self.units))]
            feeds.append(feed)
            try:
                slopes = [_slope(graph, seen, score, place, settings.unconnected) for score in scores]
            except errors.UnconnectedTapError as error:
                if not place.by_pattern:
                    raise
                skipped[place.key] = str(error).splitlines()[0]
                continue
            kept.append(place)
            with surgery.inside(graph.graph):
                maps += [_summed(slope) for slope in slopes]
        watch = watched(graph, kept) if settings.checks else None
        feeds = [*graph.all_feeds, *feeds]
        program = assemble(graph, feeds, {"maps": maps}, kept, watch=watch, jit_compile=trace.jit_compile)
        program.skipped, program.copies = skipped, 0
        if not settings.training:
            program.in_flight = rows_in_flight(*cutting.bytes_per_example(graph, walking.ancestors(maps)))
        return program

    def values(self, graph: ForwardGraph, batch: int | None) -> list[TensorLike]:
        # A first axis of one: what has as many rows as there are examples would be dealt out to them.
        return [self._indices(place)[np.newaxis] for place in resolve(graph, self.at)]

    def _indices(self, place: Place) -> np.ndarray[Any, Any]:
        """The place of each unit ``(units, axes)``, the middle where it is asked for."""
        axes = spatial(place)
        return np.array([self._index(place, axes, unit) for unit in self.units], np.int32).reshape(
            len(self.units), len(axes)
        )

    def _index(self, place: Place, axes: Sequence[int | None], unit: Unit) -> tuple[int, ...]:
        if isinstance(unit, str) and unit == "center":
            return (_CENTER,) * len(axes)
        index = unit if isinstance(unit, tuple) else (unit,)
        fits = len(index) == len(axes) and all(
            isinstance(i, (int, np.integer)) and not isinstance(i, bool) and (n is None or -n <= i < n)
            for i, n in zip(index, axes, strict=False)
        )
        if not fits:
            raise errors.ArgumentError(
                f"unit={unit!r} is no place of `{place.key}`.",
                [("activations", shape_text(place.tensor))],
                'give "center", or one index for each axis between batch and channels',
            )
        return tuple(int(i) for i in index)


def spatial(place: Place) -> list[int | None]:
    """The lengths of the axes between batch and channels.

    Raises:
      SideError: The activations have no axis for the examples, or are integers.
    """
    tensor = place.tensor
    if not tensor.shape.rank or not tensor.dtype.is_floating:
        raise errors.SideError(
            f"`{place.key}` has no units that gradients could be taken of.",
            [("activations", f"{tuple(tensor.shape)}, {tensor.dtype.name}")],
            "tap a layer that returns floats, (batch, ..., channels)",
        )
    return list(tensor.shape.as_list()[1:-1])


def _unit(activations: Tensor, index: Tensor) -> Tensor:
    """The sum over the channels at one place, ``(batch,)``."""
    here = activations
    for axis in range(activations.shape.rank - 2):
        size = tf.shape(activations)[1 + axis]
        here = tf.gather(here, tf.where(index[axis] == _CENTER, size // 2, index[axis] % size), axis=1)
    return tf.reduce_sum(here, -1) if here.shape.rank > 1 else here


def _slope(graph: ForwardGraph, seen: Place, score: Tensor, place: Place, unconnected: str) -> Tensor:
    return slopes_at(graph, [seen], score, f"a unit of `{place.key}`", unconnected)[1][0]


def _summed(slope: Tensor) -> Tensor:
    """Absolute values, their mean over the channels and their sum over the examples, ``(1, *spatial)``."""
    sizes = tf.abs(widen(slope))
    return tf.reduce_sum(tf.reduce_mean(sizes, -1) if slope.shape.rank > 2 else sizes, 0, keepdims=True)
