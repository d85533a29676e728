"""Whole Hessians at a tap, example by example, and blocks of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from gradtap import errors
from gradtap.asking import Settings, Unconnected
from gradtap.curvature.matrices import block, check_size, measured, unit_count
from gradtap.graph import surgery
from gradtap.results import TapValues
from gradtap.staged.stages import Stage
from gradtap.types import Address, Model, Structure, Tensor

_INSTEAD = [
    "units=[...] for a block of it",
    "hessian_diagonal, trace_estimate, top_eigenpairs",
    "gt.hvp for products with vectors",
]


@surgery.unconverted
def hessian(
    model: Model,
    inputs: Structure,
    *,
    target: Any = None,
    at: Address | Sequence[Address],
    units: Sequence[Any] | None = None,
    unconnected: Unconnected = "error",
    batch_size: int | None = None,
    training: bool = False,
    seed: int | None = None,
    checks: bool = True,
) -> TapValues:
    r"""The Hessian of a target with respect to the activations at a tap, for each example.

    :math:`H_{ij} = \partial^2 F / \partial a_i \partial a_j`, column by column from Hessian-vector products; what comes
    before the tap runs once.

    Args:
      model: See `gradtap.gradients`.
      inputs: See `gradtap.gradients`.
      target: See `gradtap.gradients`.
      at: See `gradtap.gradients`.
      units: Only the block of these units: indices of one example's activations, each an int or a tuple; None for all.
      unconnected: See `gradtap.gradients`.
      batch_size: Most examples in flight at once, columns included; None chooses it from the size of the activations.
      training: See `gradtap.gradients`; refused where the examples of a batch have a say in each other.
      seed: See `gradtap.gradients`.
      checks: See `gradtap.gradients`.

    Returns:
      `TapValues`: a mapping from address to ``(batch, *shape, *shape)`` for activations ``(batch, *shape)``, of their
      dtype; ``(batch, k, k)`` for k units. Exact zeros, with a warning, where nothing bends between tap and target.

    Raises:
      MemoryBudgetError: It would take more than half of the free memory; the message says what to use instead.
      GradtapError: One class for each cause; ``docs/errors`` has a page for each.

    Example:
      >>> import gradtap as gt, keras, numpy as np
      >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(4, activation="tanh"), keras.layers.Dense(2)])
      >>> gt.curvature.hessian(model, np.ones((5, 3)), target=0, at=":input").only.shape
      TensorShape([5, 3, 3])

    References:
      Pearlmutter, Fast Exact Multiplication by the Hessian, https://doi.org/10.1162/neco.1994.6.1.147, 1994.
    """

    def whole(stage: Stage) -> list[Tensor]:
        here, key = stage.here[0], stage.leg.measured[0].key
        chosen = _units(here, units, key)
        check_size(
            len(chosen) ** 2, here, key, "the Hessian", [("units", f"{len(chosen):,} of each example")], _INSTEAD
        )
        found, shape = block(stage, chosen), here.shape[1:]
        return [found if units is not None else tf.reshape(found, (-1, *shape, *shape))]

    settings = Settings(unconnected, batch_size, training, seed, checks)
    places, (values,) = measured(model, inputs, target, at, settings, whole, 1)
    return TapValues.at(places, values)


def _units(here: Tensor, units: Sequence[Any] | None, key: str) -> list[int]:
    """The flat indices of the units that are asked for."""
    size, shape = unit_count(here, key), tuple(here.shape[1:])
    if units is None:
        return list(range(size))
    try:
        places = [np.ravel_multi_index(u if isinstance(u, tuple) else np.unravel_index(u, shape), shape) for u in units]
    except (TypeError, ValueError) as error:
        raise errors.ArgumentError(
            f"units={units!r} are no units of `{key}`."[:200],
            [("one example's activations", str(shape)), ("it said", str(error))],
            "indices: ints of the flat activations, or tuples",
        ) from None
    return [int(place) for place in places]
