"""Projected ascent whose steps grow smaller by themselves: at checkpoints, wherever they have stopped to help."""

from __future__ import annotations

import math
from collections.abc import Hashable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from gradtap.attacks.arguments import check_flag, check_norm
from gradtap.attacks.ascent import started
from gradtap.attacks.balls import Norm, sparsest, steepest
from gradtap.attacks.field import Field, Seen, chosen, per_example
from gradtap.attacks.searching import Found
from gradtap.staged.quadrature import check_count
from gradtap.types import Tensor

#: Croce and Hein 2020: how much of a step is the new one, and the share of steps that must have helped.
_NEW, _HELPED = 0.75, 0.75

#: Croce and Hein 2021, in l1: the first share of entries, what divides it and the step, the least step in epsilons, and
#: how far the number of changed entries must have fallen to begin again with a whole step.
_FIRST_SHARE, _DIVIDED, _LEAST_STEP, _FALLEN = 0.2, 1.5, 0.1, 0.95


class _State(NamedTuple):
    """What goes from step to step; all but the changes and the slope are ``(batch,)``.

    Args:
      change: Where the next look goes.
      before: Where the one before the last went.
      loss: What the last look showed.
      best: Of all changes the one of the largest loss.
      best_loss: Its loss.
      best_slope: Its slope.
      won: Whether a change has succeeded.
      won_change: Of those the one of the largest loss.
      won_loss: Its loss.
      rate: The size of a step, in epsilons.
      rises: How often the loss has risen since the last checkpoint.
      loss_then: The best loss at the last checkpoint.
      cut_then: Whether the last checkpoint has cut the step.
      share: In l1, the share of entries that a step changes.
      changed: In l1, how many entries of the best had changed at the last checkpoint.
      taken: How many steps were taken.
    """

    change: Tensor
    before: Tensor
    loss: Tensor
    best: Tensor
    best_loss: Tensor
    best_slope: Tensor
    won: Tensor
    won_change: Tensor
    won_loss: Tensor
    rate: Tensor
    rises: Tensor
    loss_then: Tensor
    cut_then: Tensor
    share: Tensor
    changed: Tensor
    taken: Tensor


@dataclass(frozen=True)
class ScheduledAscent:
    """A search; `gradtap.attacks.auto_pgd` says what its parameters mean.

    Raises:
      ArgumentError: One of them has a value outside of its choices.
    """

    norm: Norm
    steps: int
    stop_early: bool
    random_start: bool
    rounds: int
    base: int
    at_once: int = 1

    def __post_init__(self) -> None:
        check_count("steps", self.steps)
        check_count("restarts", self.rounds)
        check_norm(self.norm)
        check_flag("random_start", self.random_start)
        check_flag("stop_early", self.stop_early)

    def key(self) -> Hashable:
        return (ScheduledAscent, self.norm, self.steps, self.stop_early, self.random_start, self.rounds)

    def first(self, field: Field) -> Found:
        return Found.nothing(field)

    def begin(self, field: Field, best: Found, draw: Tensor) -> _State:
        zeros = tf.zeros_like(best.loss)
        change = started(field, draw, self.norm, self.random_start, self.rounds)
        off, none, lowest = tf.zeros_like(zeros, tf.bool), field.none, zeros - float("inf")
        return _State(
            change=change,
            before=change,
            loss=lowest,
            best=change,
            best_loss=lowest,
            best_slope=none,
            won=off,
            won_change=change,
            won_loss=lowest,
            rate=zeros + (1.0 if self.norm == "l1" else 2.0),
            rises=zeros,
            loss_then=lowest,
            cut_then=off,
            share=zeros + _FIRST_SHARE,
            changed=zeros + _entries(none),
            taken=tf.zeros_like(best.taken),
        )

    def step(self, field: Field, number: Tensor, state: _State) -> _State:
        seen = field.look(state.change)
        state = _seen(state, seen, field.succeeded(seen))
        window = tf.cast(tf.gather(tf.constant(windows(self.norm, self.steps)), number), state.rises.dtype)
        state, again = (_sparser if self.norm == "l1" else _slower)(state, window)
        change, slope = chosen(again, state.best, state.change), chosen(again, state.best_slope, seen.slope)
        moving = self.moving(state)
        moved = chosen(moving, self._moved(field, state, change, slope, number), state.change)
        return state._replace(change=moved, before=change, taken=state.taken + tf.cast(moving, tf.int32))

    def _moved(self, field: Field, state: _State, change: Tensor, slope: Tensor, number: Tensor) -> Tensor:
        radius = field.numbers("epsilon")
        size = radius * per_example(state.rate, change)
        if self.norm == "l1":
            return field.nearest_allowed(change + size * sparsest(slope, state.share), radius)
        aimed = field.allowed(change + size * steepest(slope, self.norm), radius, self.norm)
        new = tf.cast(tf.where(number > 0, _NEW, 1.0), change.dtype)
        both = change + new * (aimed - change) + (1 - new) * (change - state.before)
        return field.allowed(both, radius, self.norm)

    def moving(self, state: _State) -> Tensor:
        return ~state.won if self.stop_early else tf.ones_like(state.won)

    def end(self, field: Field, state: _State, best: Found) -> Found:
        seen = field.look(state.change)
        state = _seen(state, seen, field.succeeded(seen))
        change, loss = (
            chosen(state.won, *both) for both in [(state.won_change, state.best), (state.won_loss, state.best_loss)]
        )
        return best.or_better(Found(change, state.won, loss, state.taken))

    def settled(self, best: Found) -> Tensor:
        return tf.reduce_all(best.success) if self.stop_early else tf.constant(False)


def _seen(state: _State, seen: Seen, success: Tensor) -> _State:
    """The state that knows what the last look has shown."""
    higher = seen.loss > state.best_loss
    wins = success & (seen.loss > state.won_loss)
    is_later = tf.math.is_finite(state.loss)
    return state._replace(
        loss=seen.loss,
        best=chosen(higher, state.change, state.best),
        best_loss=tf.where(higher, seen.loss, state.best_loss),
        best_slope=chosen(higher, seen.slope, state.best_slope),
        won=state.won | success,
        won_change=chosen(wins, state.change, state.won_change),
        won_loss=tf.where(wins, seen.loss, state.won_loss),
        rises=state.rises + tf.cast(is_later & (seen.loss > state.loss), state.rises.dtype),
        loss_then=tf.where(is_later, state.loss_then, seen.loss),
    )


def _slower(state: _State, window: Tensor) -> tuple[_State, Tensor]:
    """At a checkpoint: half the step, and back to the best, where too few steps helped or none since the last."""
    stuck = ~state.cut_then & (state.best_loss <= state.loss_then)
    cut = ((state.rises < _HELPED * window) | stuck) & (window > 0)
    at_check = tf.fill(tf.shape(cut), window > 0)
    kept = state._replace(
        rate=tf.where(cut, state.rate / 2, state.rate),
        rises=tf.where(at_check, tf.zeros_like(state.rises), state.rises),
        loss_then=tf.where(at_check, state.best_loss, state.loss_then),
        cut_then=tf.where(at_check, cut, state.cut_then),
    )
    return kept, cut


def _sparser(state: _State, window: Tensor) -> tuple[_State, Tensor]:
    """At a checkpoint, in l1: the share of entries that the best tells, and a whole step again where they are fewer."""
    flat = tf.reshape(state.best, (tf.shape(state.best)[0], -1))
    changed = tf.reduce_sum(tf.cast(flat != 0, state.changed.dtype), 1)
    fewer = changed < _FALLEN * state.changed
    at_check = tf.fill(tf.shape(fewer), window > 0)
    least = tf.maximum(state.rate / _DIVIDED, tf.cast(_LEAST_STEP, state.rate.dtype))
    kept = state._replace(
        rate=tf.where(at_check, tf.where(fewer, tf.ones_like(least), least), state.rate),
        share=tf.where(at_check, changed / _entries(flat) / _DIVIDED, state.share),
        changed=tf.where(at_check, changed, state.changed),
    )
    return kept, fewer & at_check


def _entries(change: Tensor) -> Tensor:
    """How many entries an example has."""
    return tf.cast(tf.reduce_prod(tf.shape(change)[1:]), change.dtype)


def windows(norm: Norm, steps: int) -> np.ndarray[Any, Any]:
    """For each step the number of steps since the checkpoint before, where it is a checkpoint, and 0 where it is none.

    Args:
      norm: In ``"l1"`` checkpoints are 4 % of the steps apart. Else the first comes after 22 % of them, and each time
        the stretch is 3 % of them shorter, but for 6 % at least.
      steps: How many there are.
    """
    if norm == "l1":
        period = max(1, math.ceil(0.04 * steps))
        places = [*range(0, steps, period)]
    else:
        shares = [0.0, 0.22]
        while shares[-1] < 1:
            shares.append(shares[-1] + max(shares[-1] - shares[-2] - 0.03, 0.06))
        places = sorted({math.ceil(round(share * steps, 9)) for share in shares})
    found = np.zeros(steps + 1, np.int32)
    for before, place in pairwise(places):
        if place <= steps:
            found[place] = place - before
    return found
