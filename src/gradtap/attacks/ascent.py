"""Projected ascent: steps along a slope, back into a ball after each, from one start or several."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import NamedTuple

import tensorflow as tf

from gradtap.attacks.arguments import check_flag, check_norm, check_sizes
from gradtap.attacks.balls import Norm, length, somewhere, steepest
from gradtap.attacks.field import Field, chosen, per_example
from gradtap.attacks.searching import Found
from gradtap.staged.quadrature import check_count
from gradtap.types import Tensor


class _State(NamedTuple):
    change: Tensor
    velocity: Tensor
    moving: Tensor
    taken: Tensor


@dataclass(frozen=True)
class Ascent:
    """A search; `gradtap.attacks.pgd` says what its parameters mean.

    Raises:
      ArgumentError: One of them has a value outside of its choices.
    """

    norm: Norm
    steps: int
    momentum: float = 0.0
    stop_early: bool = False
    random_start: bool = False
    rounds: int = 1
    base: int = 0
    at_once: int = 1

    def __post_init__(self) -> None:
        check_count("steps", self.steps)
        check_count("restarts", self.rounds)
        check_norm(self.norm)
        check_flag("random_start", self.random_start)
        check_flag("stop_early", self.stop_early)
        check_sizes("momentum", self.momentum)

    def key(self) -> Hashable:
        return (Ascent, self.norm, self.momentum, self.stop_early, self.random_start, self.rounds)

    def first(self, field: Field) -> Found:
        return Found.nothing(field)

    def begin(self, field: Field, best: Found, draw: Tensor) -> _State:
        taken = tf.zeros([field.examples], tf.int32)
        change = started(field, draw, self.norm, self.random_start, self.rounds)
        return _State(change, field.none, tf.ones_like(taken, tf.bool), taken)

    def step(self, field: Field, number: Tensor, state: _State) -> _State:
        seen = field.look(state.change)
        slope, velocity, moving = seen.slope, state.velocity, state.moving
        if self.stop_early:  # the first step moves every example
            moving &= ~(field.succeeded(seen) & (number > 0))
        if self.momentum:
            size = per_example(length(slope, "l1"), slope)
            velocity = slope = self.momentum * velocity + tf.math.divide_no_nan(slope, size)
        stepped = state.change + field.numbers("step_size") * steepest(slope, self.norm)
        moved = field.allowed(stepped, field.numbers("epsilon"), self.norm)
        return _State(chosen(moving, moved, state.change), velocity, moving, state.taken + tf.cast(moving, tf.int32))

    def moving(self, state: _State) -> Tensor:
        return state.moving

    def end(self, field: Field, state: _State, best: Found) -> Found:
        if self.rounds == 1:
            return best._replace(change=state.change, taken=state.taken)
        seen = field.look(state.change)
        return best.or_better(Found(state.change, field.succeeded(seen), seen.loss, state.taken))

    def settled(self, best: Found) -> Tensor:
        return tf.reduce_all(best.success)


def started(field: Field, draw: Tensor, norm: Norm, random_start: bool, rounds: int) -> Tensor:
    """The change that a round begins with: none, or one drawn from the ball; from the second round on always drawn."""
    if not random_start and rounds == 1:
        return field.none
    radius = field.numbers("epsilon")
    drawn = somewhere(field.none, radius, norm, draw)
    kept = field.allowed(drawn, radius, norm)
    return kept if random_start else tf.where(draw[1] > 0, kept, field.none)
