"""Run a search over a batch: in rounds of steps, compiled around the rest of the model, a second or so at a time."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import Any, NamedTuple, Protocol

import numpy as np
import tensorflow as tf

from gradtap.attacks.balls import Norm, length
from gradtap.attacks.field import Field, Frame, chosen
from gradtap.graph.scores import widen
from gradtap.staged.progress import stretches
from gradtap.types import Compiled, Tensor

#: More compiled searches than this beside one suffix are more than a person asks; the oldest is dropped.
_KEPT = 32


class Search(Protocol):
    """A way to move a batch: so many rounds of so many steps.

    A best is a named tuple of what goes from round to round, with ``change`` and ``taken``; a state is one of what goes
    from step to step. Both hold tensors only, with the examples first.
    """

    @property
    def rounds(self) -> int:
        """How many rounds."""

    @property
    def steps(self) -> int:
        """The most steps of a round."""

    @property
    def norm(self) -> Norm:
        """In which the distance is measured."""

    @property
    def base(self) -> int:
        """Seeds what is drawn."""

    @property
    def at_once(self) -> int:
        """How many classes a step looks at."""

    def key(self) -> Hashable:
        """All that decides what the functions below do, but for the tensors that they are given."""

    def first(self, field: Field) -> Any:
        """The best before the first round."""

    def begin(self, field: Field, best: Any, draw: Tensor) -> Any:
        """The state before the first step of a round, given a seed ``(2,)`` whose last number is that of the round."""

    def step(self, field: Field, number: Tensor, state: Any) -> Any:
        """The state after one more step."""

    def moving(self, state: Any) -> Tensor:
        """Which examples move on, ``(batch,)``."""

    def end(self, field: Field, state: Any, best: Any) -> Any:
        """The best after a round."""

    def settled(self, best: Any) -> Tensor:
        """Whether further rounds change nothing, a scalar."""


class Found(NamedTuple):
    """What goes from round to round in searches that keep the best of several.

    Args:
      change: ``(batch, ...)``.
      success: ``(batch,)``.
      loss: ``(batch,)``.
      taken: How many steps, ``(batch,)`` int32.
    """

    change: Tensor
    success: Tensor
    loss: Tensor
    taken: Tensor

    @classmethod
    def nothing(cls, field: Field) -> Found:
        """Worse than whatever is found."""
        taken = tf.zeros([field.examples], tf.int32)
        change = field.none
        return cls(
            change,
            tf.zeros_like(taken, tf.bool),
            tf.fill([field.examples], tf.cast(-float("inf"), change.dtype)),
            taken,
        )

    def or_better(self, other: Found) -> Found:
        """Row by row the one that succeeds, else that of the larger loss."""
        takes = (other.success & ~self.success) | ((other.success == self.success) & (other.loss > self.loss))
        return Found(*(chosen(takes, b, a) for a, b in zip(self, other, strict=True)))


class Reached(NamedTuple):
    """Where an attack has ended; see `gradtap.attacks.results.Adversarial`."""

    examples: Tensor
    perturbation: Tensor
    success: Tensor
    distance: Tensor
    steps: Tensor
    outputs: list[Tensor]
    loss: Tensor


class _Parts:
    """The parts of a round, each a function of the batch's tensors and of what the parts before it gave."""

    def __init__(self, search: Search, frame: Frame) -> None:
        self._search = search
        self._frame = frame

    def open(self, tensors: list[Tensor], draw: Tensor) -> tuple[Any, Any]:
        field = Field(self._frame, tensors)
        best = self._search.first(field)
        return best, self._search.begin(field, best, draw)

    def begin(self, tensors: list[Tensor], best: Any, draw: Tensor) -> Any:
        return self._search.begin(Field(self._frame, tensors), best, draw)

    def advance(self, tensors: list[Tensor], state: Any, start: Tensor, stop: Tensor) -> tuple[Any, Tensor]:
        field = Field(self._frame, tensors)

        def go_on(number: Tensor, state: Any) -> Tensor:
            return (number < stop) & tf.reduce_any(self._search.moving(state))

        def one(number: Tensor, state: Any) -> Any:
            after = self._search.step(field, number, state)
            for old, new in zip(tf.nest.flatten(state), tf.nest.flatten(after), strict=True):
                new.set_shape(old.shape)  # a loop keeps what is known of the shapes
            return number + 1, after

        _, state = tf.while_loop(go_on, one, (start, state), parallel_iterations=1)
        return state, self._search.moving(state)

    def end(self, tensors: list[Tensor], state: Any, best: Any) -> tuple[Any, Tensor]:
        best = self._search.end(Field(self._frame, tensors), state, best)
        return best, self._search.settled(best)

    def conclude(self, tensors: list[Tensor], best: Any) -> Reached:
        field = Field(self._frame, tensors)
        change = field.within(best.change, self._search.norm)
        final, point = field.look(change), field.point(change)
        change = widen(point) - widen(field.start)
        distance = length(change, self._search.norm)
        return Reached(point, change, field.succeeded(final), distance, best.taken, final.outputs, final.loss)

    def close(self, tensors: list[Tensor], state: Any, best: Any) -> Reached:
        return self.conclude(tensors, self.end(tensors, state, best)[0])


class _Compiled:
    """The same, each compiled at its first call; the number of examples stays free."""

    def __init__(self, parts: _Parts) -> None:
        self._parts = parts
        self._made: dict[str, Compiled] = {}

    def __getattr__(self, name: str) -> Compiled:
        return lambda *given: self._call(name, given)

    def _call(self, name: str, given: Any) -> Any:
        if name not in self._made:
            signature = tf.nest.map_structure(_any_number_of, given)
            part = tf.function(getattr(self._parts, name), input_signature=signature, autograph=False)
            # Called as it is, each batch of another size would count for its warning of functions traced too often.
            self._made[name] = part.get_concrete_function()
        return self._made[name](*given)


def _any_number_of(tensor: Tensor) -> tf.TensorSpec:
    return tf.TensorSpec([None, *tensor.shape[1:]] if tensor.shape.rank else [], tensor.dtype)


def _advanced(parts: Any, tensors: list[Tensor], state: Any, apart: bool, ways: Iterable[tuple[int, int]]) -> Any:
    """The state after all steps of a round; once half of the examples stand still, the others go on without them."""
    flat = tf.nest.flatten(state)
    whole, rows = flat, np.arange(len(flat[0]))
    for start, stop in ways:
        state, moving = parts.advance(tensors, state, tf.constant(start), tf.constant(stop))
        flags = moving.numpy()
        if not flags.any():
            break
        if apart and 2 * np.sum(flags) <= len(flags):
            whole, rows = _put(whole, rows, state), rows[flags]
            kept = np.flatnonzero(flags)
            tensors = [tf.gather(t, kept) if t.shape.rank and t.shape[0] == len(flags) else t for t in tensors]
            state = tf.nest.map_structure(lambda t, kept=kept: tf.gather(t, kept), state)
    found: Any = tf.nest.pack_sequence_as(state, _put(whole, rows, state))
    return found


def _put(whole: list[Tensor], rows: np.ndarray[Any, Any], state: Any) -> list[Tensor]:
    """The tensors of a state with some rows replaced."""
    flat = tf.nest.flatten(state)
    if len(rows) == len(flat[0]) == len(whole[0]):
        return list(flat)
    return [tf.tensor_scatter_nd_update(one, rows[:, None], other) for one, other in zip(whole, flat, strict=True)]


def searched(
    search: Search, frame: Frame, tensors: list[Tensor], apart: bool, kept: dict[Hashable, Any] | None, what: str
) -> Reached:
    """Where a search leads.

    Args:
      search: How to move.
      frame: What is the same for every batch.
      tensors: Of the batch; see `Field`.
      apart: Whether examples can be taken out of the batch.
      kept: Where compiled searches are kept; None runs op by op.
      what: For the progress bar.
    """
    parts: Any = _Parts(search, frame)
    symbolic = not hasattr(tensors[0], "numpy")
    if kept is not None and not symbolic:
        key = (search.key(), frame, tuple(map(_any_number_of, tensors)))
        if key not in kept and len(kept) >= _KEPT:
            kept.pop(next(iter(kept)), None)
        parts = kept.setdefault(key, _Compiled(parts))
    best, state = parts.open(tensors, tf.constant([search.base, 0]))
    for turn in range(search.rounds):
        if turn:
            state = parts.begin(tensors, best, tf.constant([search.base, turn]))
        if symbolic:
            state, _ = parts.advance(tensors, state, tf.constant(0), tf.constant(search.steps))
        else:
            state = _advanced(parts, tensors, state, apart, stretches(search.steps, what))
        if search.rounds == 1:
            closed: Reached = parts.close(tensors, state, best)
            return closed
        best, settled = parts.end(tensors, state, best)
        if not symbolic and bool(settled):
            break
    concluded: Reached = parts.conclude(tensors, best)
    return concluded
