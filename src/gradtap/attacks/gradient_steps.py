"""Attacks by steps along the gradient: the fast gradient sign method, and projected gradient descent."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from gradtap import errors
from gradtap.asking import Settings, check_choice
from gradtap.attacks.balls import NORMS, Norm, inside, length, somewhere, steepest
from gradtap.attacks.results import Adversarial
from gradtap.attacks.stages import Bounds, Field, attack
from gradtap.graph import surgery
from gradtap.graph.scores import widen
from gradtap.staged.noise import generator
from gradtap.staged.quadrature import check_count
from gradtap.types import Address, Model, Structure, Tensor, TensorLike


@surgery.unconverted
def fgsm(
    model: Model,
    inputs: Structure,
    labels: TensorLike,
    *,
    epsilon: TensorLike,
    bounds: Bounds = (0, 1),
    targeted: bool = False,
    loss: Any = None,
    at: Address = ":input",
    batch_size: int | None = None,
    training: bool = False,
    seed: int | None = None,
    checks: bool = True,
) -> Adversarial:
    r"""The fast gradient sign method: one step of the same size in every entry, along the sign of the gradient.

    For the loss :math:`L` and the activations :math:`a` at the tap, :math:`a + \epsilon\, \mathrm{sign}(\partial L /
    \partial a)`; minus where targeted.

    Args:
      model: See `gradtap.gradients`.
      inputs: See `gradtap.gradients`.
      labels: The class of each example, int ``(batch,)``, or one for all; where ``targeted``, what the model is to say.
      epsilon: The size of the step, in units of the tap; a number, or one for each example.
      bounds: Lowest and highest value of an input, to which examples are clipped; None where there are none. At another
        tap they do not apply.
      targeted: Make the loss small.
      loss: None for the cross-entropy, from the logits where a softmax or sigmoid ends the graph; a Keras loss by name,
        function or object, of ``labels``; or a value of `gradtap.targets`.
      at: One address: the input, or the activations of any layer.
      batch_size: See `gradtap.gradients`.
      training: See `gradtap.gradients`.
      seed: See `gradtap.gradients`.
      checks: See `gradtap.gradients`.

    Returns:
      `Adversarial`: ``.examples`` and ``.perturbation`` of the shape of the tap, ``.success``, ``.distance`` (the
      largest change), ``.steps`` ``(batch,)``, and the model's ``.outputs``.

    Raises:
      GradtapError: One class for each cause; ``docs/errors`` has a page for each.

    Example:
      >>> import gradtap as gt, keras, numpy as np
      >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, activation="softmax")])
      >>> found = gt.attacks.fgsm(model, np.full((2, 4), 0.5), [0, 1], epsilon=0.1)
      >>> bool(np.all(np.abs(found.perturbation) <= 0.1 + 1e-6))
      True

    References:
      Goodfellow et al., Explaining and Harnessing Adversarial Examples, https://arxiv.org/abs/1412.6572, 2014.
    """
    settings = Settings("error", batch_size, training, seed, checks)
    _check(epsilon, bounds, targeted)

    def search(field: Field) -> tuple[Tensor, Tensor]:
        start = widen(field.start)
        radius = _radius(field.given["epsilon"], start)
        point = field.kept_in_bounds(start + radius * tf.sign(field.look(field.start).slope))
        return point, tf.ones([tf.shape(start)[0]], tf.int32)

    return attack(
        model,
        inputs,
        labels,
        loss,
        at,
        settings,
        name="attack",
        search=search,
        targeted=targeted,
        bounds=bounds,
        norm="linf",
        per_example={"epsilon": epsilon},
    )


@surgery.unconverted
def pgd(
    model: Model,
    inputs: Structure,
    labels: TensorLike,
    *,
    epsilon: TensorLike,
    step_size: TensorLike,
    steps: int,
    norm: Norm = "linf",
    bounds: Bounds = (0, 1),
    targeted: bool = False,
    loss: Any = None,
    at: Address = ":input",
    random_start: bool = False,
    restarts: int = 1,
    momentum: float = 0.0,
    stop_early: bool = True,
    batch_size: int | None = None,
    training: bool = False,
    seed: int | None = None,
    checks: bool = True,
) -> Adversarial:
    r"""Projected gradient descent: steps along the gradient, back into a ball around the input after each.

    A step goes along :math:`\mathrm{sign}(g)` in ``"linf"``, along :math:`g / |g|_2` in ``"l2"``, and along the 1 % of
    entries with the largest slopes in ``"l1"``.

    Args:
      model: See `gradtap.gradients`.
      inputs: See `gradtap.gradients`.
      labels: See `fgsm`.
      epsilon: The radius of the ball, in units of the tap; a number, or one for each example.
      step_size: The length of a step in the norm; a number, or one for each example.
      steps: How many steps.
      norm: ``"linf"``, ``"l2"`` or ``"l1"``, over all entries of an example.
      bounds: See `fgsm`.
      targeted: See `fgsm`.
      loss: See `fgsm`.
      at: See `fgsm`.
      random_start: Begin at a point drawn from the ball; all examples are given the same draw.
      restarts: How often to begin anew, each time at a drawn point but for the first without ``random_start``. Of each
        example the best is kept: one that succeeded, else that of the largest loss.
      momentum: How much of the direction before, itself scaled to a 1-norm of one, goes into the next.
      stop_early: An example that has succeeded moves no further.
      batch_size: See `gradtap.gradients`.
      training: See `gradtap.gradients`.
      seed: Draws where to begin; None draws anew.
      checks: See `gradtap.gradients`.

    Returns:
      `Adversarial`: see `fgsm`; ``.distance`` is in the norm.

    Raises:
      GradtapError: One class for each cause; ``docs/errors`` has a page for each.

    Example:
      >>> import gradtap as gt, keras, numpy as np
      >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, activation="softmax")])
      >>> found = gt.attacks.pgd(model, np.full((2, 4), 0.5), [0, 1], epsilon=0.2, step_size=0.05, steps=9, norm="l2")
      >>> bool(np.all(found.distance <= 0.2 + 1e-6))
      True

    References:
      Madry et al., Towards Deep Learning Models Resistant to Attacks, https://arxiv.org/abs/1706.06083, 2017.
      Dong et al., Boosting Adversarial Attacks with Momentum, https://arxiv.org/abs/1710.06081, 2017.
    """
    settings = Settings("error", batch_size, training, seed, checks)
    _check(epsilon, bounds, targeted)
    _check_numbers("step_size", step_size)
    check_count("steps", steps)
    check_count("restarts", restarts)
    check_choice("norm", norm, NORMS)
    for name, value in (("random_start", random_start), ("stop_early", stop_early)):
        check_choice(name, value, (True, False))
    _check_numbers("momentum", momentum)
    base = int(generator(seed, 6).integers(2**31))
    climb = _Climb(norm, steps, float(momentum), stop_early)

    def search(field: Field) -> tuple[Tensor, Tensor]:
        start = widen(field.start)
        radius = _radius(field.given["epsilon"], start)
        step = _radius(field.given["step_size"], start)

        def climbed(restart: int) -> _Found:
            drawn = somewhere(start, radius, norm, [base, restart])
            change = field.kept_in_bounds(start + drawn) - start if random_start or restart else tf.zeros_like(start)
            return climb.run(field, change, radius, step)

        best = climbed(0)
        for restart in range(1, restarts):
            if not _is_true(tf.reduce_all(best.success)):
                best = _better(best, climbed(restart))
        return best.point, best.steps

    return attack(
        model,
        inputs,
        labels,
        loss,
        at,
        settings,
        name="attack",
        search=search,
        targeted=targeted,
        bounds=bounds,
        norm=norm,
        per_example={"epsilon": epsilon, "step_size": step_size},
    )


class _Found(NamedTuple):
    """Where a climb has ended: points, whether they succeed, their loss, and the steps that each took."""

    point: Tensor
    success: Tensor
    loss: Tensor
    steps: Tensor


class _Climb(NamedTuple):
    """Projected ascent from one start."""

    norm: Norm
    steps: int
    momentum: float
    stop_early: bool

    def run(self, field: Field, change: Tensor, radius: Tensor, step: Tensor) -> _Found:
        start = widen(field.start)
        rank = start.shape.rank
        first = seen = field.look(start + change)
        taken = tf.zeros([tf.shape(start)[0]], tf.int32)
        moving = tf.ones_like(taken, tf.bool)
        velocity = tf.zeros_like(start)
        for _ in range(self.steps):
            slope = seen.slope
            if self.momentum:
                size = tf.reshape(length(slope, "l1"), (-1, *([1] * (rank - 1))))
                velocity = slope = self.momentum * velocity + tf.math.divide_no_nan(slope, size)
            moved = inside(change + step * steepest(slope, self.norm), radius, self.norm)
            moved = field.kept_in_bounds(start + moved) - start
            change = tf.where(tf.reshape(moving, (-1, *([1] * (rank - 1)))), moved, change)
            taken += tf.cast(moving, tf.int32)
            seen = field.look(start + change)
            if self.stop_early:
                moving &= ~field.succeeded(seen, first)
                if _is_true(~tf.reduce_any(moving)):
                    break
        return _Found(start + change, field.succeeded(seen, first), seen.loss, taken)


def _better(one: _Found, other: _Found) -> _Found:
    """Row by row the one that succeeds, else that of the larger loss."""
    takes = (other.success & ~one.success) | ((other.success == one.success) & (other.loss > one.loss))

    def chosen(a: Tensor, b: Tensor) -> Tensor:
        return tf.where(tf.reshape(takes, (-1, *([1] * (a.shape.rank - 1)))), b, a)

    return _Found(*(chosen(a, b) for a, b in zip(one, other, strict=True)))


def _is_true(flag: Tensor) -> bool:
    """Whether something is known to hold; inside of a `tf.function` nothing is."""
    return bool(flag.numpy()) if hasattr(flag, "numpy") else False


def _radius(value: TensorLike, start: Tensor) -> Tensor:
    """A number for each example, or one for all, shaped to be multiplied with the examples."""
    return tf.reshape(tf.cast(value, start.dtype), (-1, *([1] * (start.shape.rank - 1))))


def _check(epsilon: Any, bounds: Any, targeted: Any) -> None:
    _check_numbers("epsilon", epsilon)
    check_choice("targeted", targeted, (True, False))
    if bounds is not None and (np.shape(bounds) != (2,) or not bounds[0] < bounds[1]):
        raise errors.ArgumentError(f"bounds={bounds!r} is no pair.", [], "bounds=(lowest, highest), or None")


def _check_numbers(name: str, value: Any) -> None:
    try:
        numbers = np.asarray(value, np.float64)
        fine = bool(np.all(np.isfinite(numbers)) and np.all(numbers >= 0))
    except (TypeError, ValueError):
        fine = False
    if not fine:
        raise errors.ArgumentError(f"{name}={value!r} is no size.", [], "0 or more; a number, or one for each example")
