"""Run the rest of a model many times on one batch: the stage on which paths, noise and ablations play."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
import tensorflow as tf

from gradtap import errors
from gradtap.asking import Settings
from gradtap.batching import rows_in_flight
from gradtap.graph.cutting import Cut
from gradtap.graph.keeping import Trace
from gradtap.graph.resolve import Place
from gradtap.graph.scores import at_limit
from gradtap.graph.surgery import is_float
from gradtap.graph.tracing import ForwardGraph
from gradtap.program import Program, not_finite, program_for, with_xla
from gradtap.staged.progress import tracked
from gradtap.targets import Target
from gradtap.types import Tensor, TensorLike


@dataclass(frozen=True)
class Leg:
    """One cut of the graph, with what it is about.

    Args:
      cut: The two parts.
      moved: Where the suffix begins.
      measured: What the fetches are about, so many of each kind.
      aside: Whether it serves the other legs and has no result of its own.
      squashed: Whether the target ends in a softmax or sigmoid, so that it can be saturated.
      reached: Whether the moved taps have a say in the target.
      dtypes: The types of what the suffix returns.
      compiled: What a method has compiled around the suffix, by what it depends on; kept as long as the leg. None where
        XLA compiles the suffix, which may refuse to and then goes on without.
    """

    cut: Cut
    moved: list[Place]
    measured: list[Place]
    aside: bool = False
    squashed: bool = False
    reached: bool = True
    dtypes: tuple[tf.DType, ...] = ()
    compiled: dict[Hashable, Any] | None = field(default_factory=dict)


@dataclass(frozen=True)
class Legs:
    """What is kept with the graph of a staged question.

    Args:
      legs: The cuts.
      skipped: Places that were left out, with the reason.
    """

    legs: list[Leg]
    skipped: dict[str, str] = field(default_factory=dict)

    @property
    def measured(self) -> list[Place]:
        """What all legs measure, in order."""
        return [place for leg in self.legs if not leg.aside for place in leg.measured]

    def with_xla(self) -> Legs:
        """The same with their suffixes compiled by XLA."""
        cuts = [replace(leg.cut, suffix=with_xla(leg.cut.suffix)) for leg in self.legs]
        return Legs(
            [replace(leg, cut=cut, compiled=None) for leg, cut in zip(self.legs, cuts, strict=True)], self.skipped
        )

    @property
    def rows_in_flight(self) -> int:
        """How many examples the largest suffix is given at once where the caller does not say."""
        return min(rows_in_flight(leg.cut.bytes_per_example, leg.cut.bytes_kept) for leg in self.legs)


class Stage:
    """One leg on one batch: what stands at the moved taps, and the suffix for whatever else is put there.

    Args:
      graph: The traced forward pass.
      leg: The cut.
      inputs: The model's inputs.
      seeds: What the model's draws are fed.
      fed: What the target is fed.
      at_once: Most examples in flight.
      coupled: Whether the examples of a run have a say in each other, so that each run takes the batch as it is.
    """

    def __init__(
        self,
        graph: ForwardGraph,
        leg: Leg,
        inputs: Sequence[Tensor],
        seeds: Sequence[TensorLike],
        fed: Sequence[TensorLike],
        at_once: int,
        coupled: bool,
    ) -> None:
        self.graph = graph
        self.leg = leg
        #: Whether the model may be given a single example in the place of the batch.
        self.takes_one_row = not coupled and all(not feed.shape.rank or feed.shape[0] is None for feed in graph.feeds)
        found = list(leg.cut.prefix(*inputs, *seeds, *fed))
        #: The activations at the moved taps, ``(batch, ...)``.
        self.here: list[Tensor] = found[: leg.cut.moved]
        #: What goes around them, and what stays as the inputs make it.
        self.beside = found[leg.cut.moved :]
        self.fed = list(fed)
        self._seeds = seeds
        self.batch: int | None = self.here[0].shape[0]
        #: Whether the examples are apart from each other, so that there may be more of them, or fewer.
        self.apart = leg.cut.rows and not coupled and self.batch is not None
        self._runs_at_once = max(1, at_once // max(self.batch or 1, 1)) if self.apart else 1
        #: Whether each example's target was saturated wherever it was looked at, ``(batch,)``; None where it cannot be.
        self.saturated: Tensor | None = None

    def fits(self, runs: int) -> bool:
        """Whether so many runs can be laid side by side in the batch axis at once."""
        return self._runs_at_once >= runs

    def of_rows(self, rows: Sequence[int]) -> Stage:
        """The same with some of the examples; only where they are apart from each other."""
        if len(rows) == self.batch and list(rows) == list(range(len(rows))):
            return self
        part = copy(self)
        part.here, part.beside, part.fed = (
            [self._taken(tensor, rows) for tensor in tensors] for tensors in (self.here, self.beside, self.fed)
        )
        part.batch, part.saturated = len(rows), None
        return part

    def elsewhere(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        """The activations at the moved taps for other inputs."""
        return list(self.leg.cut.at_moved(*inputs, *self._seeds))

    def parts(self, count: int, what: str) -> Iterator[slice]:
        """So many runs, in parts that are made at once, with progress."""
        size = self._runs_at_once
        starts = range(0, count, size)
        for start in tracked(starts, len(starts), what):
            yield slice(start, min(start + size, count))

    def run(
        self, points: Sequence[Tensor], further: Sequence[Tensor] = (), each: Sequence[Tensor] = ()
    ) -> list[Tensor]:
        """Run the suffix for several values at once.

        Args:
          points: For each moved tap ``(runs, batch, ...)``.
          further: What else the suffix takes, ``(batch, ...)`` each; the same for every run.
          each: What it takes after that, ``(runs, batch, ...)`` each.

        Returns:
          The fetches, ``(runs, batch, ...)`` each; the last is the target.
        """
        fetched = self._run(points, further, each)
        if self.leg.squashed:
            now = tf.reduce_all(at_limit(fetched[-1], fetched[-1].dtype), 0)
            self.saturated = now if self.saturated is None else self.saturated & now
        return fetched

    def _run(self, points: Sequence[Tensor], further: Sequence[Tensor], each: Sequence[Tensor]) -> list[Tensor]:
        runs = points[0].shape[0]
        if runs == 1:
            own = (tensor[0] for tensor in each)
            fetched = self.leg.cut.suffix(*(p[0] for p in points), *self.beside, *self.fed, *further, *own)
            return [tensor[None] for tensor in fetched]
        rows, own_rows = ([tf.reshape(p, (-1, *p.shape[2:])) for p in tensors] for tensors in (points, each))
        beside, fed, more = ([self._again(t, runs) for t in ts] for ts in (self.beside, self.fed, further))
        fetched = self.leg.cut.suffix(*rows, *beside, *fed, *more, *own_rows)
        return [tf.reshape(tensor, (runs, -1, *tensor.shape[1:])) for tensor in fetched]

    def _again(self, tensor: TensorLike, runs: int) -> TensorLike:
        """Rows for every run, where a tensor has one for each example."""
        if not self._has_rows(tensor):
            return tensor
        return tf.tile(tensor, [runs, *([1] * (len(tensor.shape) - 1))])

    def _taken(self, tensor: TensorLike, rows: Sequence[int]) -> TensorLike:
        """Some rows, where a tensor has one for each example."""
        return tf.gather(tensor, list(rows)) if self._has_rows(tensor) else tensor

    def _has_rows(self, tensor: TensorLike) -> bool:
        shape: Any = getattr(tensor, "shape", ())
        return bool(len(shape)) and shape[0] == self.batch


class Work(Protocol):
    """What a method does with its stages, on one batch of inputs."""

    def __call__(self, stages: list[Stage], inputs: list[Tensor], arrays: list[TensorLike]) -> dict[str, list[Tensor]]:
        """The parts of the result, each tensor with the batch axis first."""


class Staged:
    """A question that runs the suffix of a model many times.

    Args:
      target: What is differentiated or looked at.
      name: What the legs are kept under, beside the target: all that decides which they are.
      legs: Makes them, under the graph's lock.
      work: What is done with them.
      arrays: What else has rows for the examples: given the graph and the number of examples.
      later: More work on the same feeds, done on request.
    """

    def __init__(
        self,
        target: Target,
        name: Hashable,
        legs: Callable[[ForwardGraph, Settings], Legs],
        work: Work,
        *,
        arrays: Callable[[ForwardGraph, int | None], list[TensorLike]] | None = None,
        later: dict[str, Work] | None = None,
    ) -> None:
        self.target = target
        self._name = name
        self._legs = legs
        self._work = work
        self._arrays = arrays or (lambda graph, batch: [])
        self._later = later or {}

    def key(self, graph: ForwardGraph) -> Hashable:
        return None  # what is done between the runs is the method's own; the cuts are kept

    def values(self, graph: ForwardGraph, batch: int | None) -> list[TensorLike]:
        return [*self.target.values(graph, batch), *self._arrays(graph, batch)]

    def build(self, trace: Trace, graph: ForwardGraph, settings: Settings) -> Program:
        key = (type(self), self._name, self.target.key(graph), settings.unconnected, trace.jit_compile)

        def made() -> Legs:
            legs = self._legs(graph, settings)
            return legs.with_xla() if trace.jit_compile else legs

        legs = program_for(graph, key, made)
        most = settings.batch_size or legs.rows_in_flight
        inputs, seeds = len(graph.feeds), len(graph.draws)
        fed = len(self.target.values(graph, None))

        def program(work: Work, checks: bool) -> Program:
            counts: dict[str, int] = {}
            watched: list[str] = []

            def run(*feeds: Tensor) -> list[Tensor]:
                given, drawn, rest = feeds[:inputs], feeds[inputs : inputs + seeds], feeds[inputs + seeds :]
                stages = [Stage(graph, leg, given, drawn, rest[:fed], most, settings.training) for leg in legs.legs]
                parts = work(stages, list(given), list(rest[fed:]))
                if checks:
                    watch = _watched(graph.input_names, given, legs.measured, parts)
                    flags = {name: not_finite(tensor) for name, tensor in watch.items()}
                    rows = [stage.saturated for stage in stages if stage.saturated is not None]
                    if rows:
                        flags["saturated"] = tf.reduce_any(tf.stack(rows))
                    watched[:] = flags
                    parts["flags"] = [tf.stack(list(flags.values()))]
                counts.update({name: len(tensors) for name, tensors in parts.items()})
                return [tensor for tensors in parts.values() for tensor in tensors]

            made = Program(run, legs.measured, counts, graph.pack_outputs, watched, legs.skipped, copies=1)
            made.in_flight = None if settings.training else most
            return made

        main = program(self._work, settings.checks)
        main.later = {name: program(work, False) for name, work in self._later.items()}
        return main


def _watched(
    names: Sequence[str], inputs: Sequence[Tensor], measured: Sequence[Place], parts: dict[str, list[Tensor]]
) -> dict[str, Tensor]:
    """What is looked at for NaN and infinity: the inputs, then the results."""
    found = {f"input `{name}`": tensor for name, tensor in zip(names, inputs, strict=True)}
    results = zip(measured, parts.get("attributions", ()), strict=False)
    found |= {f"the result at `{place.key}`": tensor for place, tensor in results}
    return {name: tensor for name, tensor in found.items() if is_float(tensor)}


def refuse_states(places: Sequence[Place]) -> None:
    """Raise where a place cannot be given other values.

    Raises:
      SideError: It is a state that a recurrent layer makes inside of its loop.
    """
    states = [place.key for place in places if place.state is not None]
    if states:
        raise errors.SideError(
            f"`{states[0]}` cannot be replaced: a recurrent layer makes its states inside of its loop.",
            [],
            "move the layer's output or its input",
        )


def expand(value: Any, like: Tensor) -> Tensor:
    """Numbers ``(runs,)`` shaped to be multiplied with ``(batch, ...)``, which gives ``(runs, batch, ...)``."""
    shape = (-1, *([1] * like.shape.rank))
    if isinstance(value, np.ndarray):  # one op in the place of three
        return tf.constant(value.astype(like.dtype.as_numpy_dtype).reshape(shape))
    return tf.reshape(tf.cast(tf.convert_to_tensor(value), like.dtype), shape)


def weighed(weights: Any, terms: Tensor) -> Tensor:
    """The weighted sum over the first axis, as a product of matrices: nothing else of the size of ``terms`` is made.

    Args:
      weights: Numbers ``(runs,)``, NumPy.
      terms: ``(runs, ...)``.
    """
    row = weights.astype(terms.dtype.as_numpy_dtype)[None]
    if terms.shape[0] == 1:
        return terms[0] * row[0, 0]
    shape = terms.shape[1:] if terms.shape[1:].is_fully_defined() else tf.shape(terms)[1:]
    return tf.reshape(tf.linalg.matmul(row, tf.reshape(terms, (terms.shape[0], -1))), shape)
