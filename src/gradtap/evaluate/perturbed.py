"""Infidelity and sensitivity: what an explanation says of perturbations, and what they make of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import tensorflow as tf

from gradtap import errors
from gradtap.asking import Settings, Unconnected, address_key, ask
from gradtap.evaluate.batches import each_batch
from gradtap.evaluate.explanations import Explanation, Method, at_places, explained, listed
from gradtap.evaluate.similarity import rows
from gradtap.graph import surgery
from gradtap.graph.scores import widen
from gradtap.predictions import held_target
from gradtap.results import TapValues
from gradtap.staged.ablations import score_legs
from gradtap.staged.noise import generator, normal_like
from gradtap.staged.progress import tracked
from gradtap.staged.quadrature import check_count
from gradtap.staged.stages import Stage, Staged
from gradtap.targets import Target, as_target
from gradtap.types import Address, Model, Structure, Tensor, TensorLike


@surgery.unconverted
def infidelity(
    model: Model,
    inputs: Structure,
    explanation: Explanation,
    *,
    target: Any = None,
    at: Address | Sequence[Address] = ":input",
    samples: int = 50,
    noise: float = 0.1,
    perturbations: TensorLike | None = None,
    normalize: bool = False,
    unconnected: Unconnected = "error",
    batch_size: int | None = None,
    training: bool = False,
    seed: int | None = None,
    checks: bool = True,
) -> TapValues:
    r"""Infidelity: how far off the change is that an explanation foretells for perturbations.

    For perturbations :math:`I_k` of the activations :math:`a`, and attributions :math:`\phi`,

    .. math:: \frac 1K \sum_k \left(\beta\, I_k \cdot \phi - (F(a) - F(a - I_k))\right)^2, \qquad \beta = 1.

    Here :math:`\phi` is a slope; divide attributions that are multiplied with their unit's distance from a baseline by
    it first.

    Args:
      model: See `gradtap.gradients`.
      inputs: See `gradtap.gradients`.
      explanation: A method or attributions, of the shape of the activations; see `deletion`.
      target: See `deletion`.
      at: The taps whose activations are perturbed; see `gradtap.gradients`.
      samples: How many perturbations are drawn for each example.
      noise: The deviation of the normal draws, as a share of the range of each example's activations.
      perturbations: ``(samples, batch, ...)`` to be taken in the place of draws; for one tap.
      normalize: Take the :math:`\beta` of each example that makes it smallest, so that the scale of the attributions
        does not count.
      unconnected: See `gradtap.gradients`.
      batch_size: Most examples in flight at once, samples included; None chooses it from the size of the activations.
      training: See `gradtap.gradients`.
      seed: Draws the perturbations; None draws anew. All examples are given the same draws.
      checks: See `gradtap.gradients`.

    Returns:
      `TapValues`: a mapping from address to the infidelity ``(batch,)``, in squared units of the target.

    Raises:
      GradtapError: One class for each cause; ``docs/errors`` has a page for each.

    Example:
      A gradient is faithful to a linear model.

      >>> import gradtap as gt, keras, numpy as np
      >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
      >>> found = gt.evaluate.infidelity(model, np.ones((2, 4)), gt.attribution.saliency, target=0, noise=0.0)
      >>> found.only.numpy().tolist()
      [0.0, 0.0]

    References:
      Yeh et al., On the (In)fidelity and Sensitivity of Explanations, https://arxiv.org/abs/1901.09392, 2019.
    """
    settings = Settings(unconnected, batch_size, training, seed, checks)
    check_count("samples", samples)
    _check_size("noise", noise)
    at, draws = listed(at), _Draws(samples, noise, int(generator(seed, 3).integers(2**31)))

    def one(batch: Structure) -> TapValues:
        held = held_target(model, batch, target, settings)
        found = explained(model, batch, explanation, held, at)
        return _infidelities(model, batch, found, as_target(held), at, draws, perturbations, normalize, settings)

    return each_batch(inputs, explanation, one, lambda first, tensors: first.alike(TapValues, tensors))


@dataclass(frozen=True)
class _Draws:
    """Perturbations to be drawn: how many, their deviation as a share of the range, and the number they begin from."""

    count: int
    noise: float
    base: int


def _infidelities(
    model: Model,
    batch: Structure,
    found: TapValues,
    target: Target,
    at: Any,
    draws: _Draws,
    given: TensorLike | None,
    normalize: bool,
    settings: Settings,
) -> TapValues:
    """At each tap, of attributions that are there already."""

    def work(stages: list[Stage], inputs: list[Tensor], arrays: list[TensorLike]) -> dict[str, list[Tensor]]:
        explained_here = found.alike(TapValues, arrays[: len(found)])
        moves = arrays[len(found)] if len(arrays) > len(found) else None
        taps = at_places(explained_here, [stage.leg.measured[0].key for stage in stages])
        values = []
        for i, (stage, attributions) in enumerate(zip(stages, taps, strict=True)):
            drawn = _Perturbations(stage.here[0], moves, len(stages), replace(draws, base=draws.base + i))
            values.append(_infidelity(stage, attributions, drawn, normalize))
        return {"infidelity": values}

    question = Staged(
        target,
        ("infidelity", address_key(at)),
        lambda graph, own: score_legs(graph, own, target, at),
        work,
        arrays=lambda graph, batch: [*found.values(), *_rows_first(given)],
    )
    program, parts = ask(model, batch, question, settings)
    return TapValues.at(program.places, parts["infidelity"])


def _rows_first(perturbations: TensorLike | None) -> list[TensorLike]:
    """Given perturbations, ``(batch, samples, ...)``, so that they are cut with the batch."""
    if perturbations is None:
        return []
    given = np.asarray(perturbations)
    return [given.swapaxes(0, 1)] if given.ndim > 1 else [given]


class _Perturbations:
    """What is taken away from the activations at a tap, run by run.

    Args:
      here: The activations.
      given: ``(batch, samples, ...)``; None to draw.
      taps: How many taps there are.
      draws: What is drawn where none are given.
    """

    def __init__(self, here: Tensor, given: TensorLike | None, taps: int, draws: _Draws) -> None:
        self._given = None
        self._base = draws.base
        self.count = draws.count
        if given is not None:
            shape = tuple(given.shape)
            if taps > 1 or shape[2:] != tuple(here.shape[1:]) or shape[0] not in (1, here.shape[0]):
                raise errors.ArgumentError(
                    "the perturbations do not fit the activations.",
                    [("perturbations", f"of one example: {shape[1:]}"), ("activations", str(tuple(here.shape)))],
                    "(samples, batch, ...) for one tap",
                )
            self._given = tf.cast(tf.convert_to_tensor(np.asarray(given).swapaxes(0, 1)), widen(here).dtype)
            self.count = shape[1]
        axes = list(range(1, here.shape.rank))
        wide = widen(here)
        self._width = draws.noise * (
            tf.reduce_max(wide, axes, keepdims=True) - tf.reduce_min(wide, axes, keepdims=True)
        )
        self._like = wide

    def of(self, part: slice) -> Tensor:
        """``(runs, batch, ...)``."""
        if self._given is not None:
            return self._given[part] * tf.ones_like(self._like)[None]
        drawn = [normal_like(self._like, run, self._base) for run in range(part.start, part.stop)]
        return self._width[None] * tf.stack(drawn)


def _infidelity(stage: Stage, attributions: Tensor, perturbations: _Perturbations, normalize: bool) -> Tensor:
    here, key = stage.here[0], stage.leg.measured[0].key
    if tuple(attributions.shape) != tuple(here.shape):
        raise errors.ArgumentError(
            f"the attributions at `{key}` do not have the shape of the activations.",
            [("attributions", str(tuple(attributions.shape))), ("activations", str(tuple(here.shape)))],
            "infidelity needs one number for each activation; a map has none",
        )
    whole = stage.run([here[None]])[-1][0]
    axes = list(range(2, here.shape.rank + 1))
    foretold, seen = [], []
    for part in stage.parts(perturbations.count, f"perturbations at {key}"):
        moved = perturbations.of(part)
        after = stage.run([tf.cast(widen(here)[None] - moved, here.dtype)])[-1]
        foretold.append(tf.cast(tf.reduce_sum(moved * widen(attributions)[None], axes), whole.dtype))
        seen.append(whole[None] - after)
    said, found = tf.concat(foretold, 0), tf.concat(seen, 0)
    if normalize:
        said *= tf.math.divide_no_nan(tf.reduce_sum(said * found, 0), tf.reduce_sum(said * said, 0))
    return tf.reduce_mean((said - found) ** 2, 0)


@surgery.unconverted
def sensitivity(
    model: Model,
    inputs: Structure,
    method: Method,
    *,
    target: Any = None,
    at: Address | Sequence[Address] = ":input",
    samples: int = 10,
    radius: float = 0.02,
    perturbations: TensorLike | None = None,
    batch_size: int | None = None,
    training: bool = False,
    seed: int | None = None,
    checks: bool = True,
) -> TapValues:
    r"""Sensitivity: how much an explanation changes where the input changes a little.

    For perturbations :math:`\delta_k` of the input :math:`x` and the attributions :math:`\Phi`,

    .. math:: \max_k \frac{\lVert \Phi(x + \delta_k) - \Phi(x) \rVert_2}{\lVert \Phi(x) \rVert_2} .

    Args:
      model: See `gradtap.gradients`.
      inputs: One batch of floats, or a `tf.data.Dataset` of batches; of a model with one input.
      method: A method; see `deletion`.
      target: See `gradtap.gradients`; ``"predicted"`` stays what is predicted for the inputs.
      at: Where the attributions are; the input is what is perturbed.
      samples: How many perturbations are drawn for each example.
      radius: Draws are uniform within so much of each entry, in units of the input.
      perturbations: ``(samples, batch, ...)`` to be taken in the place of draws.
      batch_size: See `gradtap.gradients`.
      training: See `gradtap.gradients`.
      seed: Draws the perturbations; None draws anew. All examples are given the same draws.
      checks: See `gradtap.gradients`.

    Returns:
      `TapValues`: a mapping from address to the sensitivity ``(batch,)``, without a unit.

    Raises:
      GradtapError: One class for each cause; ``docs/errors`` has a page for each.

    Example:
      The gradient of a linear model is the same everywhere.

      >>> import gradtap as gt, keras, numpy as np
      >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
      >>> gt.evaluate.sensitivity(model, np.ones((2, 4)), gt.attribution.saliency, target=0).only.numpy().tolist()
      [0.0, 0.0]

    References:
      Yeh et al., On the (In)fidelity and Sensitivity of Explanations, https://arxiv.org/abs/1901.09392, 2019.
    """
    settings = Settings("error", batch_size, training, seed, checks)
    check_count("samples", samples)
    _check_size("radius", radius)
    if not callable(method):
        raise errors.ArgumentError(
            f"{errors.received(method)} is no method: the attributions of other inputs are needed.", [], "give a method"
        )
    at = listed(at)

    def one(batch: Structure) -> TapValues:
        held = held_target(model, batch, target, settings)
        [x] = leaves = tf.nest.flatten(batch) if len(tf.nest.flatten(batch)) == 1 else [None]
        x = None if x is None else np.asarray(x)
        if x is None or (x.dtype.kind != "f" and perturbations is None):
            raise errors.InputStructureError(
                "sensitivity perturbs one input of floats.", [("inputs", errors.received(batch))], "give one such input"
            )
        del leaves
        before = explained(model, batch, method, held, at)
        largest = {key: np.zeros(len(x)) for key in before}
        moves = _moves(x, perturbations, samples, radius, seed)
        for moved in tracked(moves, len(moves), "perturbations"):
            other = tf.nest.pack_sequence_as(batch, [(x + moved).astype(x.dtype)])
            after = explained(model, other, method, held, at)
            for key, own in largest.items():
                np.maximum(own, _relative_change(before[key], after[key]), out=own)
        return before.alike(TapValues, [tf.constant(value, widen(before[key]).dtype) for key, value in largest.items()])

    return each_batch(inputs, method, one, lambda first, tensors: first.alike(TapValues, tensors))


def _check_size(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float, np.number)) or not 0 <= value < float("inf"):
        raise errors.ArgumentError(f"{name}={value!r} is no size.", [], "0 or more")


def _moves(
    x: np.ndarray[Any, Any], given: TensorLike | None, samples: int, radius: float, seed: int | None
) -> list[np.ndarray[Any, Any]]:
    if given is None:
        rng = generator(seed, 4)
        return [rng.uniform(-radius, radius, size=(1, *x.shape[1:])) for _ in range(samples)]
    moves = np.asarray(given)
    if moves.ndim != x.ndim + 1 or moves.shape[2:] != x.shape[1:] or moves.shape[1] not in (1, len(x)):
        raise errors.ArgumentError(
            "the perturbations do not fit the inputs.",
            [("perturbations", str(moves.shape)), ("inputs", str(x.shape))],
            "(samples, batch, ...)",
        )
    return list(moves)


def _relative_change(before: Tensor, after: Tensor) -> np.ndarray[Any, Any]:
    a, b = (rows(np.asarray(widen(t), np.float64)) for t in (before, after))
    size = np.linalg.norm(a, axis=1)
    found: np.ndarray[Any, Any] = np.linalg.norm(b - a, axis=1) / np.where(size == 0, 1.0, size)
    return found
