"""Dropout masks and other random draws of a traced model, made from fed seeds.

A Keras layer draws from a `SeedGenerator`, a variable that it advances at each draw. A traced graph would read the
variable and never advance it: two draws would be the same. So while tracing each draw becomes a placeholder, and
what it is fed is what the generator would have given, or what the caller's seed gives.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from gradtap.types import Tensor

_Seed = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Draw:
    """One draw of a random number generator in a traced graph.

    Args:
      placeholder: Where the seed is fed: uint32, shape (2,).
      generator: Whose draw it is; weak.
      before: For each earlier draw of the same generator in this forward pass, whether it was an ordered one.
    """

    placeholder: Tensor
    generator: weakref.ref[Any]
    before: tuple[bool, ...]


def recorded_next(generator: Any, original: Callable[..., Any], graph: Callable[[], Any], draws: list[Draw]) -> Any:
    """What takes the place of a generator's ``next`` while a model is traced.

    Args:
      generator: A Keras `SeedGenerator`.
      original: Its own ``next``.
      graph: Gives the graph to record; None for a caller that is not the trace's own.
      draws: Where the draws are collected.
    """
    reference = weakref.ref(generator)
    earlier: list[bool] = []

    def next_seed(ordered: bool = True) -> Any:
        into = graph()
        if into is None:
            return original(ordered)
        with into.as_default():
            placeholder = tf.compat.v1.placeholder(tf.uint32, (2,), name="seed")
        draws.append(Draw(placeholder, reference, tuple(earlier)))
        earlier.append(ordered)
        return placeholder

    return next_seed


def seeds_for(draws: Sequence[Draw], seed: int | None) -> list[_Seed]:
    """What to feed for each draw.

    Args:
      draws: The draws of a traced forward pass.
      seed: Any int gives draws of its own, the same for the same int; None gives what the model itself would draw
        next.

    Returns:
      A uint32 array of shape (2,) for each draw. No generator is advanced.
    """
    if seed is not None:
        state = np.random.SeedSequence(abs(seed)).generate_state(2 * len(draws), np.uint32)
        return list(state.reshape(-1, 2))
    return [_after(_state(draw.generator()), draw.before) for draw in draws]


def _state(generator: Any) -> _Seed:
    return np.zeros(2, np.uint32) if generator is None else np.asarray(generator.state.value, np.uint32)


def _after(state: _Seed, draws: Iterable[bool]) -> _Seed:
    """The state of a Keras generator after some draws; ordered ones count up, the others scatter."""
    for ordered in draws:
        state = state + np.array([0, 1], np.uint32) if ordered else (state + np.uint32(1)) * np.uint32(5387) % 933199
    return state.astype(np.uint32)
