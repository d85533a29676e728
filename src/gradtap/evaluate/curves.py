"""Deletion and insertion: what becomes of the target as the units that a method points at are taken away, or put in."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeAlias

import numpy as np
import tensorflow as tf

from gradtap import errors
from gradtap.asking import Settings, Unconnected, address_key, ask
from gradtap.evaluate.batches import each_batch
from gradtap.evaluate.explanations import Explanation, at_places, explained, has_own_tap, listed
from gradtap.graph import surgery
from gradtap.graph.resolve import Place
from gradtap.graph.scores import widen
from gradtap.predictions import held_target
from gradtap.results import TapValues
from gradtap.staged.ablations import score_legs
from gradtap.staged.quadrature import check_count
from gradtap.staged.stages import Stage, Staged
from gradtap.targets import as_target
from gradtap.types import Address, Model, Structure, Tensor, TensorLike

#: What stands where a unit is taken away: a number, "mean", an array, or a function of the activations.
Value: TypeAlias = TensorLike | str | Callable[[Tensor], TensorLike]


class Curves(TapValues):
    """The target along a deletion or an insertion, ``(batch, steps + 1)`` at each tap.

    Args:
      values: Pairs of a key and a curve.
      places: Where each belongs.
      fractions: The share of the positions that is changed at each point, ``(steps + 1,)``, from 0 to 1.
    """

    def __init__(
        self,
        values: Iterable[tuple[str, Tensor]],
        places: Sequence[Place] | None = None,
        *,
        fractions: np.ndarray[Any, Any] | None = None,
    ) -> None:
        super().__init__(values, places)
        self.fractions = np.zeros(0) if fractions is None else fractions

    @property
    def area(self) -> TapValues:
        """The area under each curve, ``(batch,)``: the mean of the target along it, by the trapezoidal rule."""
        return self.alike(TapValues, [tf.constant(np.trapezoid(self[key], self.fractions, axis=1)) for key in self])


@surgery.unconverted
def deletion(
    model: Model,
    inputs: Structure,
    explanation: Explanation,
    *,
    target: Any = None,
    at: Address | Sequence[Address] = ":input",
    steps: int = 20,
    value: Value = 0.0,
    unconnected: Unconnected = "error",
    batch_size: int | None = None,
    training: bool = False,
    seed: int | None = None,
    checks: bool = True,
) -> Curves:
    r"""Deletion: the target as the positions with the largest attributions are taken away, step by step.

    A good explanation makes it fall early, so a small area is good. After :math:`k` of :math:`n` steps the share
    :math:`k/n` of the positions, those of the largest attributions, holds ``value``.

    Args:
      model: See `gradtap.gradients`.
      inputs: See `gradtap.gradients`.
      explanation: A method (``gt.attribution.saliency``, a `functools.partial` of one), or attributions: a result, a
        mapping from address to array, an array. Of the shape of the activations, whose channels are summed, or
        without the axis of the channels. A method that is bound to a layer of its own,
        ``partial(grad_cam, at="conv5", upsample="input")``, keeps it.
      target: See `gradtap.gradients`; ``"predicted"`` stays what is predicted for the inputs.
      at: The taps whose activations are changed; see `gradtap.gradients`.
      steps: Into how many steps the positions are divided.
      value: What stands where a position is taken away: a number, ``"mean"`` over an example's positions, an array that
        broadcasts against the activations, or a function of them, such as a blur.
      unconnected: See `gradtap.gradients`.
      batch_size: Most examples in flight at once, steps included; None chooses it from the size of the activations.
      training: See `gradtap.gradients`.
      seed: See `gradtap.gradients`.
      checks: See `gradtap.gradients`.

    Returns:
      `Curves`: a mapping from address to the target ``(batch, steps + 1)``, in units of the target; ``.fractions``
      ``(steps + 1,)``, and ``.area`` with ``(batch,)`` at each tap.

    Raises:
      GradtapError: One class for each cause; ``docs/errors`` has a page for each.

    Example:
      >>> import gradtap as gt, keras, numpy as np
      >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1, use_bias=False)])
      >>> model.set_weights([np.array([[1.0], [4.0], [2.0], [3.0]])])
      >>> method = gt.attribution.activation_x_gradient
      >>> gt.evaluate.deletion(model, np.ones((1, 4)), method, target=0, steps=4).only.numpy().round(3).tolist()
      [[10.0, 6.0, 3.0, 1.0, 0.0]]

    References:
      Samek et al., Evaluating the Visualization of What a Deep Neural Network Has Learned,
      https://arxiv.org/abs/1509.06321, 2015.
      Petsiuk, Das, Saenko, RISE, https://arxiv.org/abs/1806.07421, 2018.
    """
    settings = Settings(unconnected, batch_size, training, seed, checks)
    return _curves(model, inputs, explanation, target, at, settings, steps, value, inserting=False)


@surgery.unconverted
def insertion(
    model: Model,
    inputs: Structure,
    explanation: Explanation,
    *,
    target: Any = None,
    at: Address | Sequence[Address] = ":input",
    steps: int = 20,
    value: Value = 0.0,
    unconnected: Unconnected = "error",
    batch_size: int | None = None,
    training: bool = False,
    seed: int | None = None,
    checks: bool = True,
) -> Curves:
    r"""Insertion: the target as the positions with the largest attributions are put in, step by step.

    It begins with ``value`` everywhere and ends with the activations as they are. A good explanation makes it rise
    early, so a large area is good.

    Args:
      model: See `gradtap.gradients`.
      inputs: See `gradtap.gradients`.
      explanation: See `deletion`.
      target: See `deletion`.
      at: See `deletion`.
      steps: See `deletion`.
      value: See `deletion`.
      unconnected: See `gradtap.gradients`.
      batch_size: See `deletion`.
      training: See `gradtap.gradients`.
      seed: See `gradtap.gradients`.
      checks: See `gradtap.gradients`.

    Returns:
      `Curves`: see `deletion`.

    Raises:
      GradtapError: One class for each cause; ``docs/errors`` has a page for each.

    Example:
      >>> import gradtap as gt, keras, numpy as np
      >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1, use_bias=False)])
      >>> model.set_weights([np.array([[1.0], [4.0], [2.0], [3.0]])])
      >>> method = gt.attribution.activation_x_gradient
      >>> gt.evaluate.insertion(model, np.ones((1, 4)), method, target=0, steps=4).only.numpy().round(3).tolist()
      [[0.0, 4.0, 7.0, 9.0, 10.0]]

    References:
      Petsiuk, Das, Saenko, RISE, https://arxiv.org/abs/1806.07421, 2018.
    """
    settings = Settings(unconnected, batch_size, training, seed, checks)
    return _curves(model, inputs, explanation, target, at, settings, steps, value, inserting=True)


def _curves(
    model: Model,
    inputs: Structure,
    explanation: Explanation,
    target: Any,
    at: Any,
    settings: Settings,
    steps: int,
    value: Value,
    *,
    inserting: bool,
) -> Curves:
    check_count("steps", steps)
    at = listed(at)

    def one(batch: Structure) -> Curves:
        held = held_target(model, batch, target, settings)
        maps = explained(model, batch, explanation, held, at)
        wanted = as_target(held)

        def work(stages: list[Stage], inputs: list[Tensor], arrays: list[TensorLike]) -> dict[str, list[Tensor]]:
            found = maps.alike(TapValues, arrays)
            keys = [stage.leg.measured[0].key for stage in stages]
            pairs = zip(stages, at_places(found, keys, elsewhere=has_own_tap(explanation)), strict=True)
            return {"curves": [_along(stage, map_, steps, value, inserting) for stage, map_ in pairs]}

        question = Staged(
            wanted,
            ("deletion", address_key(at)),
            lambda graph, own: score_legs(graph, own, wanted, at),
            work,
            arrays=lambda graph, batch: list(maps.values()),
        )
        program, parts = ask(model, batch, question, settings)
        fractions = np.arange(steps + 1) / steps
        return Curves.at(program.places, parts["curves"], fractions=fractions)

    return each_batch(
        inputs, explanation, one, lambda first, tensors: first.alike(Curves, tensors, fractions=first.fractions)
    )


def _along(stage: Stage, attributions: Tensor, steps: int, value: Value, inserting: bool) -> Tensor:
    """The target at every step, ``(batch, steps + 1)``."""
    here, key = stage.here[0], stage.leg.measured[0].key
    places = _over_positions(here, attributions, key)
    batch, count = places.shape
    # How many come before each, so that equal ones go in the order in which they lie.
    before = np.argsort(np.argsort(-places, axis=1, kind="stable"), axis=1, kind="stable")
    instead = _broadcast(_read(value, here, key), here, key)
    shape = (batch, *(here.shape[1:-1] if here.shape.rank > 2 else here.shape[1:]))
    scores = []
    for part in stage.parts(steps + 1, f"steps at {key}"):
        points = []
        for step in range(part.start, part.stop):
            chosen = (before < round(count * step / steps)).reshape(shape)
            chosen = chosen[..., None] if here.shape.rank > 2 else chosen
            points.append(tf.where(chosen == inserting, here, instead))
        scores.append(stage.run([tf.stack(points)])[-1])
    return tf.transpose(tf.concat(scores, 0))


def _read(value: Value, here: Tensor, key: str) -> Tensor:
    """What stands where a position is taken away, as a tensor that may be smaller than the activations."""
    if isinstance(value, str) and value == "mean":
        axes = list(range(1, here.shape.rank - 1)) if here.shape.rank > 2 else [1]
        return tf.reduce_mean(here, axes, keepdims=True)
    try:
        return tf.cast(value(here) if callable(value) else value, here.dtype)
    except Exception as error:
        raise errors.ArgumentError(
            f"value={errors.received(value)} is nothing that can stand at `{key}`.",
            [("it said", (str(error).splitlines() or [""])[0][:200])],
            ["a number, or an array that broadcasts", '"mean" of each example', "a function of the activations"],
        ) from error


def _over_positions(here: Tensor, attributions: Tensor, key: str) -> np.ndarray[Any, Any]:
    """One number for each position of each example."""
    values = np.asarray(widen(tf.convert_to_tensor(attributions)), np.float64)
    shape = tuple(here.shape)
    if values.shape == shape and len(shape) > 2:
        values = values.sum(-1)
    if values.shape != (shape[:-1] if len(shape) > 2 else shape):
        raise errors.ArgumentError(
            f"the attributions at `{key}` do not fit the activations there.",
            [("attributions", str(values.shape)), ("activations", str(shape))],
            "one number for each activation, or one for each position",
        )
    if not np.all(np.isfinite(values)):
        raise errors.ArgumentError(f"the attributions at `{key}` hold NaN or infinity.", [], "look at the method first")
    return values.reshape(len(values), -1)


def _broadcast(value: Tensor, here: Tensor, key: str) -> Tensor:
    try:
        return tf.broadcast_to(value, tf.shape(here))
    except tf.errors.InvalidArgumentError:
        raise errors.ArgumentError(
            f"value of shape {tuple(value.shape)} does not broadcast against the activations at `{key}`.",
            [("activations", str(tuple(here.shape)))],
            "a number, or an array of the shape of one example",
        ) from None
