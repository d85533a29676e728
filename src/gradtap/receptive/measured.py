"""Effective receptive fields: how much each position of the input moves a unit, as gradients measure it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from gradtap import errors
from gradtap.asking import Settings, Unconnected, ask
from gradtap.graph import surgery
from gradtap.graph.resolve import Place
from gradtap.program import Program
from gradtap.receptive.gaussian import deviations
from gradtap.receptive.geometry import fields
from gradtap.receptive.results import EffectiveField, EffectiveFields, ReceptiveField
from gradtap.receptive.unit_slopes import Unit, UnitSlopes
from gradtap.staged.parts import in_parts
from gradtap.types import Address, Model, Structure

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
        question = UnitSlopes(at, units[start : start + _UNITS_AT_ONCE], along)
        program, first, found = _mean_maps(model, inputs, question, settings)
        maps = [a + b for a, b in zip(maps, found, strict=True)] if maps else found
    theory = fields(model, first, at, along, unconnected)
    results = []
    for place, of_units in zip(program.places, maps, strict=True):
        one = [_measured(m, theory[place.key], place, u) for m, u in zip(of_units, units, strict=True)]
        results.append(EffectiveField.of_units(one) if isinstance(unit, list) else one[0])
    return EffectiveFields.at(program.places, results, skipped=program.skipped)


def _mean_maps(
    model: Model, inputs: Structure, question: UnitSlopes, settings: Settings
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
