"""Effective receptive fields: how much each position of the input moves a unit, as gradients measure it."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any, Literal

import numpy as np
import tensorflow as tf

from gradtap import errors
from gradtap.asking import Settings, Unconnected, address_key, addresses, ask, watched
from gradtap.batching import rows_in_flight
from gradtap.differentiate import slopes_at
from gradtap.graph import cutting, surgery, walking
from gradtap.graph.keeping import Trace
from gradtap.graph.resolve import Place, resolve
from gradtap.graph.scores import shape_text, widen
from gradtap.graph.tracing import ForwardGraph
from gradtap.program import Program, assemble
from gradtap.receptive.gaussian import deviations
from gradtap.receptive.geometry import fields, seen_place
from gradtap.receptive.results import EffectiveField, EffectiveFields, ReceptiveField
from gradtap.staged.parts import in_parts
from gradtap.types import Address, Model, Structure, Tensor, TensorLike

Unit = Literal["center"] | int | tuple[int, ...]

#: Stands for the middle of an axis, whose length may be known only when the model runs.
_CENTER = np.iinfo(np.int32).min
#: Units whose gradients are taken in one run.
_UNITS_AT_ONCE = 16
#: Luo et al. count places within two deviations of a Gaussian's mass: above 1 - 0.9545 of the largest value.
_COUNTED = 1 - 0.9545


@surgery.unconverted
def effective(
    model: Model,
    inputs: Structure,
    *,
    at: Address | Sequence[Address],
    unit: Unit | list[Unit] = "center",
    along: Address = ":input",
    unconnected: Unconnected = "error",
    batch_size: int | None = None,
    training: bool = False,
    seed: int | None = None,
    checks: bool = True,
) -> EffectiveFields:
    r"""How much each position of the input moves a unit, on average over examples.

    For the activations :math:`a` at a tap the unit at place :math:`u` is the sum over the channels there, and the map
    is :math:`M_p = \operatorname{mean}_{n,c} |\partial \sum_k a_{n,u,k} / \partial x_{n,p,c}|` over examples and input
    channels. Inputs may be data, or noise for the network alone.

    Args:
      model: See `gradtap.gradients`.
      inputs: See `gradtap.gradients`; a dataset is streamed, and nothing of it is kept.
      at: See `gradtap.gradients`. Several are measured in the same run.
      unit: ``"center"``, the place of a unit among the axes between batch and channels, or a list of these.
      along: Whose positions are looked at: an input, or a layer before the others.
      unconnected: ``"zero"`` gives zeros for a unit that the input does not move.
      batch_size: Most examples in flight at once; None chooses it from the size of the activations.
      training: See `gradtap.gradients`.
      seed: See `gradtap.gradients`.
      checks: See `gradtap.gradients`.

    Returns:
      `EffectiveFields`: a mapping from address to a value with ``.map``, ``(height, width)`` for images, float64,
      NumPy; ``.sigma``, the deviation in positions along each axis of a Gaussian fitted to it by least squares; and
      ``.share``, what share of the theoretical field the places take whose value is above 4.55 % of the largest. With a
      list of units each has a first axis ``units``. With one tap the mapping itself has them too.

    Raises:
      UnconnectedTapError: The input does not move the unit.
      GradtapError: One class for each cause; ``docs/errors`` has a page for each.

    Example:
      >>> import gradtap as gt, keras, numpy as np
      >>> convs = [keras.layers.Conv2D(4, 3, padding="same", name=f"c{i}") for i in range(3)]
      >>> model = keras.Sequential([keras.Input((15, 15, 1)), *convs])
      >>> field = gt.receptive.effective(model, np.random.default_rng(0).normal(size=(2, 15, 15, 1)), at="c2")
      >>> field.map.shape, int(np.count_nonzero(field.map))
      ((15, 15), 49)

    References:
      Luo et al., Understanding the Effective Receptive Field in Deep Convolutional Neural Networks,
      https://arxiv.org/abs/1701.04128, 2016.
    """
    units = unit if isinstance(unit, list) else [unit]
    if not units:
        raise errors.ArgumentError(
            "unit=[] names no unit.", [], 'give "center", the place of a unit, or a list of these'
        )
    settings = Settings(unconnected, batch_size, training, seed, checks)
    maps: list[list[np.ndarray[Any, Any]]] = []
    for start in range(0, len(units), _UNITS_AT_ONCE):
        question = _UnitSlopes(at, units[start : start + _UNITS_AT_ONCE], along)
        program, first, found = _mean_maps(model, inputs, question, settings)
        maps = [a + b for a, b in zip(maps, found, strict=True)] if maps else found
    theory = fields(model, first, at, along, unconnected)
    results = []
    for place, of_units in zip(program.places, maps, strict=True):
        one = [_measured(m, theory[place.key], place, u) for m, u in zip(of_units, units, strict=True)]
        results.append(EffectiveField.of_units(one) if isinstance(unit, list) else one[0])
    return EffectiveFields.at(program.places, results, skipped=program.skipped)


class _UnitSlopes:
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
        middle = tf.shape(activations)[1 + axis] // 2
        here = tf.gather(
            here, tf.where(index[axis] == _CENTER, middle, index[axis] % tf.shape(activations)[1 + axis]), axis=1
        )
    return tf.reduce_sum(here, -1) if here.shape.rank > 1 else here


def _slope(graph: ForwardGraph, seen: Place, score: Tensor, place: Place, unconnected: str) -> Tensor:
    return slopes_at(graph, [seen], score, f"a unit of `{place.key}`", unconnected)[1][0]


def _summed(slope: Tensor) -> Tensor:
    """Absolute values, their mean over the channels and their sum over the examples, ``(1, *spatial)``."""
    sizes = tf.abs(widen(slope))
    return tf.reduce_sum(tf.reduce_mean(sizes, -1) if slope.shape.rank > 2 else sizes, 0, keepdims=True)


def _mean_maps(
    model: Model, inputs: Structure, question: _UnitSlopes, settings: Settings
) -> tuple[Program, Structure, list[list[np.ndarray[Any, Any]]]]:
    """The program that ran, the first batch, and for each tap the map of each unit."""
    program, first, count = None, None, 0
    sums: list[np.ndarray[Any, Any]] = []
    for batch, rows in in_parts(inputs, "batches measured", whole=settings.training):
        program, parts = ask(model, batch, question, settings)
        first = batch if first is None else first
        count += rows
        found = [np.asarray(np.sum(tensor, 0, dtype=np.float64)) for tensor in parts["maps"]]
        shapes = {m.shape for one in zip(sums, found, strict=False) for m in one}
        if len(shapes) > len({m.shape for m in found}):
            raise errors.InputShapeError(
                "the batches differ in shape, so their maps have no mean.", [], "bring the examples to one shape"
            )
        sums = [a + b for a, b in zip(sums, found, strict=True)] if sums else found
    if program is None or not count:
        raise errors.InputStructureError("there are no inputs to measure on.", [], "give at least one example")
    units = len(question.units)
    means = [total / count for total in sums]
    return program, first, [means[i : i + units] for i in range(0, len(means), units)]


def _measured(values: np.ndarray[Any, Any], theory: ReceptiveField, place: Place, unit: Unit) -> EffectiveField:
    """What a map says of a unit."""
    middle = unit == "center"
    index = tuple(n // 2 for n in theory.units) if middle else tuple(np.ravel(unit))
    index = tuple(int(i) % n for i, n in zip(index, theory.units, strict=True))
    area = float(np.prod([s.stop - s.start for s in theory.region(index)]))
    above = int(np.count_nonzero(values > _COUNTED * values.max(initial=0.0)))
    return EffectiveField(values, deviations(values), above / area if area else 0.0, index, theory)
