"""The regions of images that excite a feature most."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import numpy as np
import tensorflow as tf

from gradtap import errors
from gradtap.asking import Settings, address_key, ask, watched
from gradtap.batching import rows_in_flight
from gradtap.graph import cutting, surgery, walking
from gradtap.graph.keeping import Trace
from gradtap.graph.resolve import resolve
from gradtap.graph.scores import shape_text, widen
from gradtap.graph.tracing import ForwardGraph
from gradtap.program import Program, assemble
from gradtap.receptive.geometry import fields, seen_place
from gradtap.receptive.results import Patch, ReceptiveField, StrongestPatches
from gradtap.staged.parts import in_parts
from gradtap.staged.quadrature import check_count
from gradtap.types import Address, Model, Structure, Tensor, TensorLike

_Array = np.ndarray[Any, Any]


@surgery.unconverted
def patches(
    model: Model,
    data: Structure,
    *,
    at: Address,
    channel: int,
    k: int = 9,
    per_example: int = 1,
    along: Address = ":input",
    batch_size: int | None = None,
    training: bool = False,
    seed: int | None = None,
    checks: bool = True,
) -> StrongestPatches:
    r"""The regions of the inputs that excite a channel most, cut out of them.

    Of the activations :math:`a_{n,u,c}` of the channel the k largest are found, at most ``per_example`` of each
    example, and for each what its unit can see of the input (`gradtap.receptive.theoretical`) is cut out.

    Args:
      model: See `gradtap.gradients`.
      data: One array or structure of examples, or a `tf.data.Dataset` of batches; streamed, only what is found is kept.
      at: One address of a layer, whose activations are ``(batch, ..., channels)``.
      channel: Which channel.
      k: How many regions.
      per_example: At most so many of one example.
      along: What they are cut out of: an input, or a layer before.
      batch_size: Most examples in flight at once; None chooses it from the size of the activations.
      training: See `gradtap.gradients`.
      seed: See `gradtap.gradients`.
      checks: See `gradtap.gradients`.

    Returns:
      `StrongestPatches`: a sequence, the most excited first, fewer than k where there are fewer; each with ``.crop``,
      ``.activation``, ``.example``, the number of the example in the data, ``.unit`` and ``.region``, slices of the
      input.

    Raises:
      ClassRangeError: There is no such channel.
      GradtapError: One class for each cause; ``docs/errors`` has a page for each.

    Example:
      >>> import gradtap as gt, keras, numpy as np
      >>> model = keras.Sequential([keras.Input((16, 16, 1)), keras.layers.Conv2D(2, 5, name="conv")])
      >>> images = np.random.default_rng(0).normal(size=(20, 16, 16, 1))
      >>> found = gt.receptive.patches(model, images, at="conv", channel=1)
      >>> len(found), found[0].crop.shape
      (9, (5, 5, 1))

    References:
      Zeiler and Fergus, Visualizing and Understanding Convolutional Networks, https://arxiv.org/abs/1311.2901, 2013.
    """
    check_count("k", k)
    check_count("per_example", per_example)
    settings = Settings("error", batch_size, training, seed, checks)
    question = _Largest(at, channel, per_example, along)
    best: list[Patch] = []
    known: dict[Any, ReceptiveField] = {}
    count = 0
    for batch, rows in in_parts(data, "batches searched", whole=training):
        if not rows:
            continue
        _, parts = ask(model, batch, question, settings)
        values, units, inputs = (np.asarray(parts[name][0]) for name in ("values", "units", "inputs"))
        if inputs.shape[1:] not in known:
            known[inputs.shape[1:]] = fields(model, batch, at, along).only
        field = known[inputs.shape[1:]]
        for row, which in np.argwhere(values > (best[-1].activation if len(best) == k else -np.inf)):
            unit = tuple(int(i) for i in units[row, which])
            region = field.region(unit)
            crop = inputs[row][region].copy()
            best.append(Patch(crop, float(values[row, which]), count + int(row), unit, region))
        best = sorted(best, key=lambda patch: -patch.activation)[:k]
        count += rows
    if not count:
        raise errors.InputStructureError("the data hold no example.", [], "give at least one")
    return StrongestPatches(best, str(at), channel, count)


class _Largest:
    """The largest activations of a channel, with their places.

    Args:
      at: One address.
      channel: The channel.
      count: How many for each example.
      along: What is cut out of.
    """

    def __init__(self, at: Address, channel: int, count: int, along: Address) -> None:
        self.at = at
        self.channel = channel
        self.count = count
        self.along = along

    def key(self, graph: ForwardGraph) -> Hashable:
        self._activations(graph)
        return address_key(self.at), self.count, address_key(self.along)

    def build(self, trace: Trace, graph: ForwardGraph, settings: Settings) -> Program:
        places = resolve(graph, self.at)
        seen = seen_place(graph, self.along, places)
        with surgery.inside(graph.graph):
            channel = tf.compat.v1.placeholder(tf.int32, (None,), name="channel")
            activations = widen(places[0].tensor)
            chosen = tf.gather(activations, channel[0] % tf.shape(activations)[-1], axis=-1)
            flat = tf.reshape(chosen, (tf.shape(chosen)[0], -1))
            values, indices = tf.math.top_k(flat, tf.minimum(self.count, tf.shape(flat)[1]))
            units = _unravelled(indices, tf.shape(chosen)[1:], chosen.shape.rank - 1)
        parts = {"values": [values], "units": [units], "inputs": [seen.tensor]}
        watch = watched(graph, places) if settings.checks else None
        program = assemble(
            graph, [*graph.all_feeds, channel], parts, places, watch=watch, jit_compile=trace.jit_compile
        )
        program.copies = 0
        if not settings.training:
            program.in_flight = rows_in_flight(*cutting.bytes_per_example(graph, walking.ancestors([values])))
        return program

    def values(self, graph: ForwardGraph, batch: int | None) -> list[TensorLike]:
        return [np.array([self.channel], np.int32)]

    def _activations(self, graph: ForwardGraph) -> Tensor:
        places = resolve(graph, self.at)
        if len(places) != 1:
            raise errors.ArgumentError(
                f"patches are those of one tap; at={self.at!r} means {len(places)}.",
                [("they are", ", ".join(f"`{place.key}`" for place in places[:8]))],
                "name one of them",
            )
        tensor, key = places[0].tensor, places[0].key
        if not tensor.dtype.is_floating or (tensor.shape.rank or 0) < 2:
            raise errors.SideError(
                f"`{key}` has no channels.",
                [("activations", f"{shape_text(tensor)}, {tensor.dtype.name}")],
                "tap a layer that returns floats, (batch, ..., channels)",
            )
        if not isinstance(self.channel, (int, np.integer)) or isinstance(self.channel, bool):
            raise errors.ArgumentError(f"channel={self.channel!r} is not an int.", [], "give the number of a channel")
        size = tensor.shape[-1]
        if size is not None and not -size <= self.channel < size:
            raise errors.ClassRangeError(
                f"channel {self.channel} is out of range: `{key}` has {size}, 0 to {size - 1}.",
                [("activations", shape_text(tensor))],
                f"give a number from 0 to {size - 1}",
            )
        return tensor


def _unravelled(indices: Tensor, shape: Tensor, rank: int) -> Tensor:
    """Places ``(batch, count, axes)`` of flat indices ``(batch, count)``."""
    places = []
    for axis in reversed(range(rank)):
        places.append(indices % shape[axis])
        indices = indices // shape[axis]
    return tf.stack(places[::-1], -1) if places else tf.zeros(tf.concat([tf.shape(indices), [0]], 0), tf.int32)
