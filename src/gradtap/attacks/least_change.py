"""The attack of Carlini and Wagner: the smallest change that does, by Adam, with the weight of success searched for."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any, NamedTuple

import tensorflow as tf

from gradtap.asking import Settings
from gradtap.attacks.arguments import check_above, check_ask, check_flag, check_sizes
from gradtap.attacks.balls import Norm
from gradtap.attacks.field import Bounds, Field, Seen, chosen, per_example
from gradtap.attacks.results import Adversarial
from gradtap.attacks.stages import attack
from gradtap.graph import surgery
from gradtap.staged.quadrature import check_count
from gradtap.types import Address, Model, Structure, Tensor, TensorLike

#: A value at its bound would be infinitely far in the space where Adam runs.
_INSIDE = 1 - 1e-6

#: Adam's decay rates and what keeps it from dividing by zero.
_FIRST, _SECOND, _SMALL = 0.9, 0.999, 1e-8

#: A weight that has not succeeded yet is made so many times as large.
_RAISED = 10.0

#: How often it is looked whether the objective still falls, and by what share it must.
_LOOKS, _FALLEN = 10, 1e-4


@surgery.unconverted
def carlini_wagner_l2(
    model: Model,
    inputs: Structure,
    labels: TensorLike,
    *,
    epsilon: TensorLike | None = None,
    steps: int = 1000,
    searches: int = 9,
    step_size: float = 0.01,
    confidence: float = 0.0,
    constant: float = 1e-3,
    bounds: Bounds = (0, 1),
    targeted: bool = False,
    loss: Any = "margin",
    at: Address = ":input",
    stop_early: bool = True,
    batch_size: int | None = None,
    training: bool = False,
    seed: int | None = None,
    checks: bool = True,
) -> Adversarial:
    r"""The attack of Carlini and Wagner: a change of the smallest 2-norm that makes the model say something else.

    Adam makes :math:`\lVert \delta \rVert_2^2 + c\, \max(-m(a + \delta), -\kappa)` small. The margin :math:`m` is
    :math:`\max_{i \ne y} z_i - z_y` of the logits, or minus that where targeted; the attack has succeeded where it is
    at least :math:`\kappa`. The weight :math:`c` is searched for each example: ten times as large until it succeeds,
    then by halves between what did and what did not. With bounds :math:`l` and :math:`h` Adam moves :math:`w` in
    :math:`a + \delta = \tfrac{l + h}{2} + \tfrac{h - l}{2} \tanh w`, which cannot leave them; without, and at another
    tap, it moves :math:`\delta` itself.

    Args:
      model: See `gradtap.gradients`.
      inputs: See `gradtap.gradients`.
      labels: See `fgsm`.
      epsilon: See `deep_fool`.
      steps: The most steps of Adam for each weight.
      searches: How many weights are tried, one after the other.
      step_size: Adam's learning rate, for :math:`w`, or in units of the tap.
      confidence: :math:`\kappa`, 0 or more, in units of the logits.
      constant: The first weight, above 0.
      bounds: See `fgsm`.
      targeted: See `fgsm`.
      loss: ``"margin"``, or a value of `gradtap.targets` that is above ``confidence`` where the attack has succeeded,
        such as ``contrast(a, b)``.
      at: See `fgsm`.
      stop_early: Leave a weight when, for an example, a tenth of the steps has not made the objective smaller by 0.01
        %.
      batch_size: See `gradtap.gradients`.
      training: See `gradtap.gradients`.
      seed: See `gradtap.gradients`.
      checks: See `gradtap.gradients`.

    Returns:
      `Adversarial`: see `fgsm`; ``.distance`` is the 2-norm, ``.steps`` counts those for all weights. An example for
        which
      nothing succeeded is returned as it was.

    Raises:
      GradtapError: One class for each cause; ``docs/errors`` has a page for each.

    Example:
      >>> import gradtap as gt, keras, numpy as np
      >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
      >>> x = np.full((2, 4), 0.5)
      >>> found = gt.attacks.carlini_wagner_l2(model, x, np.argmax(model(x), 1), bounds=None, steps=200)
      >>> bool(np.all(found.success))
      True

    References:
      Carlini and Wagner, Towards Evaluating the Robustness of Neural Networks, https://arxiv.org/abs/1608.04644, 2016.
    """
    check_ask(bounds, targeted)
    limits = {} if epsilon is None else {"epsilon": epsilon}
    for name, value in {"confidence": confidence, **limits}.items():
        check_sizes(name, value)
    for name, value in {"step_size": step_size, "constant": constant}.items():
        check_above(name, value)
    return attack(
        model,
        inputs,
        labels,
        loss,
        at,
        Settings("error", batch_size, training, seed, checks),
        search=_LeastChange(steps, searches, bool(stop_early)),
        targeted=targeted,
        bounds=bounds,
        per_example={"step_size": step_size, "confidence": confidence, "constant": constant, **limits},
    )


class _Best(NamedTuple):
    """What goes from one weight to the next.

    Args:
      change: The smallest that succeeded.
      size: Its 2-norm squared; infinite where there is none.
      weight: The next one.
      low: The largest that did not succeed, or 0.
      high: The smallest that did, or infinity.
      taken: All steps.
    """

    change: Tensor
    size: Tensor
    weight: Tensor
    low: Tensor
    high: Tensor
    taken: Tensor


class _State(NamedTuple):
    """What goes from step to step.

    Args:
      where: Where Adam is.
      first: Its average of slopes.
      second: Its average of squared slopes.
      weight: Of success.
      change: The smallest that succeeded, with this weight or one before.
      size: Its 2-norm squared.
      found: Whether a change has succeeded with this weight.
      objective: What Adam makes small, when it was last looked whether it falls.
      moving: Which examples move on.
      taken: All steps.
    """

    where: Tensor
    first: Tensor
    second: Tensor
    weight: Tensor
    change: Tensor
    size: Tensor
    found: Tensor
    objective: Tensor
    moving: Tensor
    taken: Tensor


@dataclass(frozen=True)
class _LeastChange:
    """A search; `carlini_wagner_l2` says what its parameters mean."""

    steps: int
    rounds: int
    stop_early: bool
    norm: Norm = "l2"
    base: int = 0
    at_once: int = 1

    def __post_init__(self) -> None:
        check_count("steps", self.steps)
        check_count("searches", self.rounds)
        check_flag("stop_early", self.stop_early)

    def key(self) -> Hashable:
        return (_LeastChange, self._period())

    def _period(self) -> int:
        """After how many steps it is looked whether the objective still falls; 0 for never."""
        return max(1, self.steps // _LOOKS) if self.stop_early else 0

    def first(self, field: Field) -> _Best:
        done = _done(field, field.look(field.none))
        zeros = tf.zeros([field.examples], field.none.dtype)
        largest = zeros + float("inf")
        size = tf.where(done, zeros, largest)
        return _Best(
            field.none,
            size,
            zeros + tf.reshape(field.numbers("constant"), [-1]),
            zeros,
            largest,
            tf.zeros_like(zeros, tf.int32),
        )

    def begin(self, field: Field, best: _Best, draw: Tensor) -> _State:
        none, far = field.none, tf.zeros_like(best.size) + float("inf")
        moving = best.size > 0
        return _State(_outset(field), none, none, best.weight, best.change, best.size, ~moving, far, moving, best.taken)

    def step(self, field: Field, number: Tensor, state: _State) -> _State:
        change, stretch = _change(field, state.where)
        seen = field.look(change)
        size = _squared(change)
        better = _done(field, seen) & state.moving & (size < state.size)
        short = tf.reshape(field.numbers("confidence"), [-1]) - seen.loss
        objective = size + state.weight * tf.nn.relu(short)
        moving, last = state.moving, state.objective
        if self._period():
            looked = tf.fill(tf.shape(moving), (number > 0) & (number % self._period() == 0))
            moving &= ~(looked & (objective > (1 - _FALLEN) * last))
            last = tf.where(looked, objective, last)
        pulled = per_example(tf.where(short > 0, state.weight, tf.zeros_like(short)), change)
        slope = (2 * change - pulled * seen.slope) * stretch
        first = _FIRST * state.first + (1 - _FIRST) * slope
        second = _SECOND * state.second + (1 - _SECOND) * slope**2
        times = tf.cast(number + 1, change.dtype)
        mean, spread = first / (1 - _FIRST**times), tf.sqrt(second / (1 - _SECOND**times))
        where = state.where - field.numbers("step_size") * mean / (spread + _SMALL)
        return state._replace(
            where=chosen(moving, where, state.where),
            first=first,
            second=second,
            change=chosen(better, change, state.change),
            size=tf.where(better, size, state.size),
            found=state.found | (_done(field, seen) & state.moving),
            objective=last,
            moving=moving,
            taken=state.taken + tf.cast(moving, tf.int32),
        )

    def moving(self, state: _State) -> Tensor:
        return state.moving

    def end(self, field: Field, state: _State, best: _Best) -> _Best:
        found, weight = state.found, state.weight
        high = tf.where(found, tf.minimum(best.high, weight), best.high)
        low = tf.where(found, best.low, tf.maximum(best.low, weight))
        bounded = tf.math.is_finite(high)
        middle = (low + tf.where(bounded, high, low)) / 2
        following = tf.where(bounded, middle, _RAISED * weight)
        return _Best(state.change, state.size, following, low, high, state.taken)

    def settled(self, best: _Best) -> Tensor:
        return tf.reduce_all(best.size <= 0)


def _done(field: Field, seen: Seen) -> Tensor:
    """Whether a point is what is sought: said otherwise, with the margin that is asked for."""
    return field.succeeded(seen) & (seen.loss >= tf.reshape(field.numbers("confidence"), [-1]))


def _outset(field: Field) -> Tensor:
    """Where Adam begins: at no change."""
    if field.bounds is None:
        return field.none
    low, high = field.bounds
    return tf.atanh(_INSIDE * tf.clip_by_value((2 * field.wide - low - high) / (high - low), -1, 1))


def _change(field: Field, where: Tensor) -> tuple[Tensor, Tensor]:
    """The change that Adam's point means, and its derivative."""
    if field.bounds is None:
        return where, tf.ones_like(where)
    low, high = field.bounds
    bent = tf.tanh(where)
    return (low + high) / 2 + (high - low) / 2 * bent - field.wide, (high - low) / 2 * (1 - bent**2)


def _squared(change: Tensor) -> Tensor:
    return tf.reduce_sum(tf.reshape(change, (tf.shape(change)[0], -1)) ** 2, 1)
