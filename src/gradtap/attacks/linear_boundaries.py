"""DeepFool: to the nearest boundary of a model that is taken for linear, again and again."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import tensorflow as tf

from gradtap.asking import Settings
from gradtap.attacks.arguments import check_ask, check_norm, check_sizes
from gradtap.attacks.attack_losses import Lead, without
from gradtap.attacks.balls import length, steepest
from gradtap.attacks.field import Bounds, Field, chosen, per_example
from gradtap.attacks.results import Adversarial
from gradtap.attacks.searching import Found
from gradtap.attacks.stages import attack
from gradtap.graph import surgery
from gradtap.staged.quadrature import check_count
from gradtap.types import Address, Model, Structure, Tensor, TensorLike

#: The least difference of two scores that a step aims to overcome: a tie moves all the same.
_LEAST = {tf.float32: 1e-6, tf.float64: 1e-12}

#: The norm in which slopes are measured where changes are measured in another.
_DUAL: dict[str, Literal["l1", "l2"]] = {"linf": "l1", "l2": "l2"}


@surgery.unconverted
def deep_fool(
    model: Model,
    inputs: Structure,
    labels: TensorLike,
    *,
    epsilon: TensorLike | None = None,
    steps: int = 50,
    norm: Literal["l2", "linf"] = "l2",
    overshoot: float = 0.02,
    candidates: int = 10,
    bounds: Bounds = (0, 1),
    targeted: bool = False,
    at: Address = ":input",
    batch_size: int | None = None,
    training: bool = False,
    seed: int | None = None,
    checks: bool = True,
) -> Adversarial:
    r"""DeepFool: a small change that takes an example across the nearest boundary between classes.

    With the logits :math:`z`, the label :math:`y`, :math:`f_k = z_k - z_y` and its gradient :math:`w_k`, each step goes
    to the nearest of the boundaries of the model that is linear in :math:`a`: :math:`r = |f_k| / \lVert w_k
    \rVert_2^2\, w_k` for the class :math:`k` of the smallest :math:`|f_k| / \lVert w_k \rVert_2` in ``"l2"``, :math:`r
    = |f_k| / \lVert w_k \rVert_1\, \mathrm{sign}(w_k)` for that of the smallest :math:`|f_k| / \lVert w_k \rVert_1` in
    ``"linf"``. The change is :math:`1 + \text{overshoot}` times the sum of the steps. A linear classifier takes one.

    Args:
      model: See `gradtap.gradients`.
      inputs: See `gradtap.gradients`.
      labels: See `fgsm`. An example that the model says otherwise from the start is left as it is.
      epsilon: None for the smallest change there is. Else examples that needed more are brought into that ball, and
        count by what the model says there; a number, or one for each example.
      steps: The most steps.
      norm: ``"l2"`` or ``"linf"``: what is made small.
      overshoot: How much further than to the boundaries, as a share of the way.
      candidates: How many classes are looked at, the label's among them: those of the largest scores at the start. Each
        costs a gradient in every step.
      bounds: See `fgsm`. Where the nearest boundary is outside of them, steps are cut off, and more are needed.
      targeted: The labels are what the model is to say. The paper has no such attack; here each step goes to the
        boundary between the label and the class that is ahead of it.
      at: See `fgsm`.
      batch_size: See `gradtap.gradients`.
      training: See `gradtap.gradients`.
      seed: See `gradtap.gradients`.
      checks: See `gradtap.gradients`.

    Returns:
      `Adversarial`: see `fgsm`; ``.distance`` is in the norm, ``.steps`` what each example needed.

    Raises:
      GradtapError: One class for each cause; ``docs/errors`` has a page for each.

    Example:
      >>> import gradtap as gt, keras, numpy as np
      >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
      >>> x = np.full((2, 4), 0.5)
      >>> found = gt.attacks.deep_fool(model, x, np.argmax(model(x), 1), bounds=None)
      >>> bool(np.all(found.success))
      True

    References:
      Moosavi-Dezfooli et al., DeepFool: a Simple and Accurate Method to Fool Deep Neural Networks,
        https://arxiv.org/abs/1511.04599, 2015.
    """
    check_ask(bounds, targeted)
    limits = {} if epsilon is None else {"epsilon": epsilon}
    for name, value in {"overshoot": overshoot, **limits}.items():
        check_sizes(name, value)
    return attack(
        model,
        inputs,
        labels,
        "margin" if targeted else Lead(labels),
        at,
        Settings("error", batch_size, training, seed, checks),
        search=_ToBoundaries(norm, steps, float(overshoot), candidates, bool(targeted)),
        targeted=targeted,
        bounds=bounds,
        per_example=limits,
    )


class _State(NamedTuple):
    total: Tensor
    rivals: Tensor
    moving: Tensor
    taken: Tensor


@dataclass(frozen=True)
class _ToBoundaries:
    """A search; `deep_fool` says what its parameters mean."""

    norm: Literal["l2", "linf"]
    steps: int
    overshoot: float
    candidates: int
    targeted: bool
    rounds: int = 1
    base: int = 0

    def __post_init__(self) -> None:
        check_count("steps", self.steps)
        check_count("candidates", self.candidates, 2)
        check_norm(self.norm, ("l2", "linf"))

    @property
    def at_once(self) -> int:
        return 1 if self.targeted else self.candidates - 1

    def key(self) -> Hashable:
        return (_ToBoundaries, self.norm, self.overshoot, self.candidates, self.targeted)

    def first(self, field: Field) -> Found:
        return Found.nothing(field)

    def begin(self, field: Field, best: Found, draw: Tensor) -> _State:
        return _State(field.none, self._rivals(field), ~best.success, best.taken)

    def _rivals(self, field: Field) -> Tensor:
        """The classes that are looked at beside the label, ``(batch, classes)``."""
        if self.targeted:
            return tf.zeros([field.examples, 1], tf.int32)
        scores = field.look(field.none).scores
        count = scores.shape[1]
        if count == 1:
            return tf.zeros([field.examples, 1], tf.int32)
        others = without(scores, field.labels)
        return tf.math.top_k(others, min(self.at_once, count - 1)).indices

    def _change(self, state: _State) -> Tensor:
        return (1 + self.overshoot) * state.total

    def step(self, field: Field, number: Tensor, state: _State) -> _State:
        change = self._change(state)
        if self.targeted:
            seen = field.look(change)
            slopes, leads = seen.slope[None], seen.loss[None]
        else:
            seen, slopes, leads = field.look_for(change, tf.transpose(state.rivals))
        moving = state.moving & ~field.succeeded(seen)
        step = self._step(slopes, leads)
        total = chosen(moving, state.total + step, state.total)
        return state._replace(total=total, moving=moving, taken=state.taken + tf.cast(moving, tf.int32))

    def _step(self, slopes: Tensor, leads: Tensor) -> Tensor:
        """To the nearest boundary.

        Args:
          slopes: Of the leads, ``(classes, batch, ...)``.
          leads: How far each class is above the label, ``(classes, batch)``.
        """
        short = tf.maximum(tf.abs(leads), tf.cast(_LEAST[leads.dtype], leads.dtype))
        flat = tf.reshape(slopes, tf.concat([[tf.size(leads)], tf.shape(slopes)[2:]], 0))
        sizes = tf.reshape(length(flat, _DUAL[self.norm]), tf.shape(leads))
        ways = tf.where(sizes > 0, short / sizes, tf.cast(float("inf"), short.dtype))
        nearest = tf.argmin(ways, 0)
        slope = tf.gather(tf.transpose(slopes, [1, 0, *range(2, slopes.shape.rank)]), nearest, batch_dims=1)
        way = tf.reduce_min(ways, 0)
        way = tf.where(tf.math.is_finite(way), way, tf.zeros_like(way))
        return per_example(way, slope) * steepest(slope, self.norm)

    def moving(self, state: _State) -> Tensor:
        return state.moving

    def end(self, field: Field, state: _State, best: Found) -> Found:
        return best._replace(change=self._change(state), taken=state.taken)

    def settled(self, best: Found) -> Tensor:
        return tf.constant(True)
