"""Activation patching: what a clean activation changes in a corrupt run, for all taps at once or one by one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from gradtap import errors
from gradtap.asking import Settings, Unconnected, address_key, addresses, ask, check_choice
from gradtap.batching import dataset_batches, is_dataset
from gradtap.differentiate import activations, gradients
from gradtap.graph import surgery
from gradtap.graph.scores import widen
from gradtap.predictions import held_target
from gradtap.results import Gradients, PatchingEffects, TapValues
from gradtap.staged.ablations import score_legs
from gradtap.staged.stages import Stage, Staged
from gradtap.targets import as_target
from gradtap.types import Address, Model, Structure, Tensor, TensorLike


@surgery.unconverted
def attribution_patching(
    model: Model,
    clean: Structure,
    corrupt: Structure,
    *,
    target: Any = None,
    at: Address | Sequence[Address],
    exact: bool = False,
    unconnected: Unconnected = "error",
    batch_size: int | None = None,
    training: bool = False,
    seed: int | None = None,
    checks: bool = True,
) -> PatchingEffects:
    r"""Attribution patching: what each clean activation would change, put into the corrupt run, to first order.

    With the activations :math:`a` of the clean and :math:`a'` of the corrupt run,

    .. math:: (a - a') \odot \left.\frac{\partial F}{\partial a}\right|_{a'} .

    Its sum over a tap estimates :math:`F(a' \leftarrow a) - F(a')`, what activation patching finds in one run for each
    tap. Here all taps take two forward passes and one backward pass together.

    Args:
      model: See `gradtap.gradients`.
      clean: Inputs on which the model does what is to be explained, as `gradtap.gradients` takes them.
      corrupt: Inputs of the same shapes on which it does not; row by row the counterpart of ``clean``.
      target: See `gradtap.gradients`; ``"predicted"`` is the class that is predicted for ``clean``.
      at: See `gradtap.gradients`.
      exact: Patch one tap after the other as well, in one run of the rest of the model for each: ``.exact`` holds what
        was found, and ``.failures`` names the taps where the estimate is off by more than half.
      unconnected: See `gradtap.gradients`.
      batch_size: See `gradtap.gradients`.
      training: See `gradtap.gradients`.
      seed: See `gradtap.gradients`.
      checks: See `gradtap.gradients`.

    Returns:
      `PatchingEffects`: a mapping from address to the estimated effect of each unit, of the shape and dtype of the
      activations, in units of the target; ``.estimate`` has the sum at each tap, ``(batch,)``.

    Raises:
      InputShapeError: The shapes of the two runs differ.
      GradtapError: One class for each cause; ``docs/errors`` has a page for each.

    Example:
      Where the rest of the model is linear, the estimate is exact.

      >>> import gradtap as gt, keras, numpy as np
      >>> hidden = keras.layers.Dense(4, activation="relu", name="hidden")
      >>> model = keras.Sequential([keras.Input((3,)), hidden, keras.layers.Dense(2)])
      >>> clean, corrupt = np.ones((1, 3)), np.zeros((1, 3))
      >>> effects = gt.attribution.attribution_patching(model, clean, corrupt, target=0, at="hidden", exact=True)
      >>> bool(np.allclose(effects.estimate["hidden"], effects.exact["hidden"], atol=1e-6)), effects.failures
      (True, [])

    References:
      Nanda, Attribution Patching: Activation Patching at Industrial Scale,
      https://www.neelnanda.io/mechanistic-interpretability/attribution-patching, 2023.
      Kramár et al., AtP*, https://arxiv.org/abs/2403.00745, 2024: where the estimate fails.
    """
    settings = Settings(unconnected, batch_size, training, seed, checks)
    check_choice("exact", exact, (True, False))
    at = addresses(at)
    pairs = [_effects(model, *pair, target, at, exact, settings) for pair in _pairs(clean, corrupt)]
    if not pairs:
        raise errors.InputStructureError("the datasets hold no batch.", [], "give at least one")
    return pairs[0] if len(pairs) == 1 else _joined(pairs)


def _pairs(clean: Structure, corrupt: Structure) -> list[tuple[Structure, Structure]]:
    if not is_dataset(clean) and not is_dataset(corrupt):
        return [(clean, corrupt)]
    if not (is_dataset(clean) and is_dataset(corrupt)):
        raise errors.InputStructureError(
            "one of clean and corrupt is a dataset and the other is not.", [], "give two datasets, or two batches"
        )
    try:
        return list(zip(dataset_batches(clean), dataset_batches(corrupt), strict=True))
    except ValueError:
        raise errors.InputStructureError(
            "the datasets of clean and of corrupt differ in their numbers of batches.",
            [],
            "batch n of one is the counterpart of batch n of the other",
        ) from None


def _effects(
    model: Model, clean: Structure, corrupt: Structure, target: Any, at: Any, exact: bool, settings: Settings
) -> PatchingEffects:
    _check_shapes(clean, corrupt)
    same: dict[str, Any] = {
        "batch_size": settings.batch_size,
        "training": settings.training,
        "seed": settings.seed,
        "checks": settings.checks,
    }
    target = held_target(model, clean, target, settings)
    slopes = gradients(model, corrupt, target=target, at=at, **same | {"unconnected": settings.unconnected})
    found = activations(model, clean, at=list(slopes.taps().values()), **same)
    there = {key: found[tap] for key, tap in slopes.taps().items()}
    values = [(there[key] - slopes.activations[key]) * slopes[key] for key in slopes]
    sums = [tf.reduce_sum(widen(v), list(range(1, v.shape.rank))) for v in values]
    return slopes.alike(
        PatchingEffects,
        values,
        skipped=slopes.skipped,
        estimate=slopes.alike(TapValues, sums),
        exact=_patched(model, corrupt, target, slopes, there, settings) if exact else None,
    )


def _joined(parts: Sequence[PatchingEffects]) -> PatchingEffects:
    """The examples of several batches in one."""

    def concatenated(of: Sequence[TapValues]) -> list[Tensor]:
        return [tf.concat([one[key] for one in of], 0) for key in of[0]]

    first = parts[0]
    exact = [part.exact for part in parts] if first.has_exact else None
    return first.alike(
        PatchingEffects,
        concatenated(parts),
        skipped=first.skipped,
        estimate=first.alike(TapValues, concatenated([part.estimate for part in parts])),
        exact=exact and first.alike(TapValues, concatenated(exact)),
    )


def _patched(
    model: Model, corrupt: Structure, target: Any, slopes: Gradients, there: dict[str, Tensor], settings: Settings
) -> TapValues:
    """By how much the target changes with each tap alone as it is in the clean run."""
    wanted, at = as_target(target), list(slopes.taps().values())

    def work(stages: list[Stage], inputs: list[Tensor], arrays: list[TensorLike]) -> dict[str, list[Tensor]]:
        changes = []
        for stage, value in zip(stages, arrays, strict=True):
            here = stage.here[0]
            after, before = (stage.run([v[None]])[-1][0] for v in (tf.cast(value, here.dtype), here))
            changes.append(after - before)
        return {"changes": changes}

    question = Staged(
        wanted,
        ("activation patching", address_key(at)),
        lambda graph, own: score_legs(graph, own, wanted, at),
        work,
        arrays=lambda graph, batch: [there[key] for key in slopes],
    )
    _, parts = ask(model, corrupt, question, settings)
    return slopes.alike(TapValues, parts["changes"])


def _check_shapes(clean: Structure, corrupt: Structure) -> None:
    shapes = [[tuple(np.shape(leaf)) for leaf in tf.nest.flatten(given)] for given in (clean, corrupt)]
    if shapes[0] != shapes[1]:
        raise errors.InputShapeError(
            "clean and corrupt differ in shape, so no activation of one can stand in the other.",
            [("clean", ", ".join(map(str, shapes[0]))), ("corrupt", ", ".join(map(str, shapes[1])))],
            "bring token sequences to one length; row n of one is the counterpart of row n of the other",
        )
