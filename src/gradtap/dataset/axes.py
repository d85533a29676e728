"""What the axes of a result mean, as far as the tap says it: which are places, and whether there are channels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gradtap import errors
from gradtap.graph.resolve import resolve
from gradtap.graph.tracing import ForwardGraph
from gradtap.tap import Tap

Array = np.ndarray[Any, Any]

#: The axes of an example's activations, by how many there are; the last are the channels.
_BY_RANK = {0: (), 1: ("channel",), 2: ("time", "channel"), 3: ("height", "width", "channel")}
_CHANNELS_FIRST = {3: ("channel", "height", "width")}
_OF_ATTENTION = ("head", "query", "key")


def axes_of(graph: ForwardGraph, results: Mapping[str, Array]) -> dict[str, tuple[str, ...]]:
    """The names of each result's axes but that of the examples.

    A result with an axis less than the activations is one map for all channels together. Names go by the number of
    axes: what a layer means by its own is not known.

    Args:
      graph: The forward pass.
      results: Key to array ``(examples, ...)``.
    """
    return {key: _axes(graph, key, value.ndim - 1) for key, value in results.items()}


def _axes(graph: ForwardGraph, key: str, rank: int) -> tuple[str, ...]:
    try:
        face = Tap.parse(key).face
        [place] = resolve(graph, key)
        there = place.tensor.shape.rank
    except (errors.GradtapError, ValueError):  # what comes beside the results, or a method's own key
        face, there = "", None
    units = rank if there is None else there - 1
    names = _OF_ATTENTION if face == "attention" and units == 3 else _named(units)
    if rank == units:
        return names
    return names[:-1] if rank == units - 1 and "channel" in names[-1:] else _plain(rank)


def _named(rank: int) -> tuple[str, ...]:
    import keras

    first = _CHANNELS_FIRST.get(rank) if keras.config.image_data_format() == "channels_first" else None
    return first or _BY_RANK.get(rank) or _plain(rank)


def _plain(rank: int) -> tuple[str, ...]:
    return tuple(f"axis{i}" for i in range(1, rank + 1))


def has_channels(axes: Sequence[str]) -> bool:
    """Whether the last axis is that of the channels; a result without axes is one channel's."""
    return not axes or axes[-1] not in ("time", "width", "height")


def own_names(address: str, axes: Sequence[str]) -> list[str]:
    """The names of axes that belong to one array alone.

    Example:
      >>> own_names("block/conv1", ["height", "width"])
      ['block.conv1.height', 'block.conv1.width']
    """
    return [f"{address.replace('/', '.')}.{axis}" for axis in axes]
