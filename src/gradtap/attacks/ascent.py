"""Projected ascent: steps along a slope, back into a ball after each, from one start or several."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from gradtap import errors
from gradtap.asking import check_choice
from gradtap.attacks.balls import NORMS, Norm, inside, length, somewhere, steepest
from gradtap.attacks.stages import Field
from gradtap.graph.scores import widen
from gradtap.staged.quadrature import check_count
from gradtap.types import Tensor, TensorLike


class _Found(NamedTuple):
    """Where a climb has ended: points, whether they succeed, their loss, and the steps that each took."""

    point: Tensor
    success: Tensor
    loss: Tensor
    steps: Tensor


@dataclass(frozen=True)
class Ascent:
    """A search; `gradtap.attacks.pgd` says what its parameters mean.

    Raises:
      ArgumentError: One of them has a value outside of its choices.
    """

    norm: Norm
    steps: int
    momentum: float
    stop_early: bool
    random_start: bool
    restarts: int
    base: int

    def __post_init__(self) -> None:
        check_count("steps", self.steps)
        check_count("restarts", self.restarts)
        check_choice("norm", self.norm, NORMS)
        check_choice("random_start", self.random_start, (True, False))
        check_choice("stop_early", self.stop_early, (True, False))
        check_sizes("momentum", self.momentum)

    def __call__(self, field: Field) -> tuple[Tensor, Tensor]:
        """The points that were reached, and the steps that each example took."""
        start = widen(field.start)
        radius, step = (for_each(field.given[name], start) for name in ("epsilon", "step_size"))

        def climbed(restart: int) -> _Found:
            drawn = somewhere(start, radius, self.norm, [self.base, restart])
            begun = self.random_start or restart
            change = field.kept_in_bounds(start + drawn) - start if begun else tf.zeros_like(start)
            return self._climb(field, change, radius, step)

        best = climbed(0)
        for restart in range(1, self.restarts):
            if not _is_true(tf.reduce_all(best.success)):
                best = _better(best, climbed(restart))
        return best.point, best.steps

    def _climb(self, field: Field, change: Tensor, radius: Tensor, step: Tensor) -> _Found:
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


def for_each(value: TensorLike, start: Tensor) -> Tensor:
    """A number for each example, or one for all, shaped to be multiplied with the examples."""
    return tf.reshape(tf.cast(value, start.dtype), (-1, *([1] * (start.shape.rank - 1))))


def check_sizes(name: str, value: Any) -> None:
    """Raise unless something is a size, or one for each example.

    Raises:
      ArgumentError: It is not.
    """
    try:
        numbers = np.asarray(value, np.float64)
        fine = bool(np.all(np.isfinite(numbers)) and np.all(numbers >= 0))
    except (TypeError, ValueError):
        fine = False
    if not fine:
        raise errors.ArgumentError(f"{name}={value!r} is no size.", [], "0 or more; a number, or one for each example")
