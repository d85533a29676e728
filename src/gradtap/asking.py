"""From a question to its answer: read the inputs, find the trace, build the program once, run it over the batch.

Every public function of this floor is a `Question` and one call of `ask`.
"""

from __future__ import annotations

import weakref
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np

from gradtap import errors
from gradtap.batching import dataset_batches, is_dataset, over_dataset, run_batch, run_parts
from gradtap.graph import keras_internals as internals
from gradtap.graph.coupling import couples_examples
from gradtap.graph.inputs import Feeds, read_inputs
from gradtap.graph.keeping import Trace
from gradtap.graph.model_files import as_trace
from gradtap.graph.randomness import seeds_for
from gradtap.graph.resolve import Place, is_several
from gradtap.graph.sides import StatesNotTraced
from gradtap.graph.tracing import ForwardGraph
from gradtap.program import Program, program_for
from gradtap.tap import Tap
from gradtap.taplist import TapEntry
from gradtap.types import Model, Structure, Tensor, TensorLike

Unconnected = Literal["error", "zero"]
Parts = dict[str, list[Tensor]]


@dataclass(frozen=True)
class Settings:
    """The keywords that every call ends in.

    Args:
      unconnected: ``"error"`` or ``"zero"``: what to do where there is no gradient.
      batch_size: Most examples in flight at once; None for all.
      training: Passed to the model.
      seed: Draws the dropout masks of ``training=True``; None takes the model's own next ones.
      checks: Warn of NaN, infinity and saturation, in the same run.

    Raises:
      ArgumentError: One of them has a value outside of its choices.
    """

    unconnected: str = "error"
    batch_size: int | None = None
    training: bool = False
    seed: int | None = None
    checks: bool = True

    def __post_init__(self) -> None:
        check_choice("unconnected", self.unconnected, ("error", "zero"))
        check_choice("training", self.training, (True, False))
        check_choice("checks", self.checks, (True, False))
        size = self.batch_size
        if size is not None and (not isinstance(size, (int, np.integer)) or isinstance(size, bool) or size < 1):
            raise errors.ArgumentError(f"batch_size={size!r} is not a positive int.", [], "None runs all at once")
        if self.seed is not None and not isinstance(self.seed, (int, np.integer)):
            raise errors.ArgumentError(
                f"seed={self.seed!r} is not an int.", [], "None takes the model's own next draws"
            )


class Question(Protocol):
    """What is to be computed on a forward graph."""

    def key(self, graph: ForwardGraph) -> Hashable:
        """Check the question against the graph. Equal keys: the same program, only fed values differ; None: never."""

    def build(self, trace: Trace, graph: ForwardGraph, settings: Settings) -> Program:
        """Extend the graph and cut the program out of it; it is fed ``graph.all_feeds`` and the values, in order."""

    def values(self, graph: ForwardGraph, batch: int | None) -> list[TensorLike]:
        """What is fed beside the inputs; each has one row for each example, or one row for all."""


class Asked(NamedTuple):
    """A question that was answered on one batch, with what is needed to ask more; it does not hold the model."""

    program: Program
    inputs: list[Tensor]
    seeds: Sequence[TensorLike]
    values: list[TensorLike]
    batch_size: int | None

    def later(self, name: str) -> Parts:
        """What one of the program's later programs gives on the same batch."""
        more = replace(self.program.later[name], target=self.program.target)
        return run_batch(more, self.inputs, seeds=self.seeds, values=self.values, batch_size=self.batch_size)


def ask(
    model: Model, inputs: Structure, question: Question, settings: Settings, asked: list[Asked] | None = None
) -> tuple[Program, Parts]:
    """Answer a question about a model on a batch, or on a dataset of batches.

    Args:
      model: The model.
      inputs: One batch, or a dataset.
      question: What is to be computed.
      settings: The keywords of the call.
      asked: Given what is needed to ask more, batch by batch.

    Returns:
      The program that ran and what it fetched, by part.
    """
    trace = as_trace(model)
    in_batches = is_dataset(inputs)

    def one(batch: Structure) -> tuple[Program, Parts]:
        feeds = read_inputs(batch, trace.source.declared_inputs(), trace.source.float_dtype(), in_batches)
        program, graph, values = _prepare(trace, feeds, question, settings, in_batches)
        # The program is kept for every target of its kind; messages are about this one.
        program = replace(program, target=getattr(question, "target", ""))
        _warn_of_coupling(graph, settings, feeds)
        seeds = seeds_for(graph.draws, settings.seed)
        if asked is not None:
            asked.append(Asked(program, feeds.tensors, seeds, values, settings.batch_size))
        return program, run_batch(program, feeds.tensors, seeds=seeds, values=values, batch_size=settings.batch_size)

    return over_dataset(inputs, one) if in_batches else one(inputs)


def stream(model: Model, inputs: Structure, question: Question, settings: Settings) -> Iterator[tuple[Program, Parts]]:
    """Answer a question about a model on one batch, run by run: for what is summed up and not put side by side.

    Args:
      model: The model.
      inputs: One batch.
      question: What is to be computed.
      settings: The keywords of the call.

    Yields:
      The program, and what one run of it fetched, by part.
    """
    trace = as_trace(model)
    feeds = read_inputs(inputs, trace.source.declared_inputs(), trace.source.float_dtype())
    program, graph, values = _prepare(trace, feeds, question, settings, in_batches=False)
    program = replace(program, target=getattr(question, "target", ""))
    _warn_of_coupling(graph, settings, feeds)
    seeds = seeds_for(graph.draws, settings.seed)
    runs = run_parts(program, feeds.tensors, seeds=seeds, values=values, batch_size=settings.batch_size)
    yield from ((program, parts) for parts in runs)


def built(model: Model, inputs: Structure, question: Question, settings: Settings) -> Program:
    """The program that would answer a question, built and not run: what is wrong is said before long work begins.

    Args:
      model: The model.
      inputs: One batch, or a dataset, of which the first batch is looked at.
      question: What is to be computed.
      settings: The keywords of the call.

    Raises:
      InputStructureError: The dataset is empty.
    """
    trace = as_trace(model)
    in_batches = is_dataset(inputs)
    batch = next(dataset_batches(inputs), None) if in_batches else inputs
    if in_batches and batch is None:
        raise errors.InputStructureError("the dataset is empty.", [], "pass a dataset with at least one batch")
    feeds = read_inputs(batch, trace.source.declared_inputs(), trace.source.float_dtype(), in_batches)
    return _prepare(trace, feeds, question, settings, in_batches)[0]


def _refuse_one_for_each(question: Question, graph: ForwardGraph) -> None:
    """A value for each example cannot go with a dataset: every batch would be given the same ones."""
    try:
        question.values(graph, 0)
    except errors.GradtapError as error:
        raise errors.TargetCountError(
            "with a dataset a target holds for every example; this one is made for the examples of one batch.",
            [("received", errors.received(getattr(question, "target", question)))],
            ['one class for all, "predicted", or a callable', "a call for each batch, with the targets of that batch"],
        ) from error


def _prepare(
    trace: Trace, feeds: Feeds, question: Question, settings: Settings, in_batches: bool
) -> tuple[Program, ForwardGraph, list[TensorLike]]:
    try:
        return _prepare_on(trace, feeds, question, settings, in_batches, states=False)
    except StatesNotTraced:
        return _prepare_on(trace, feeds, question, settings, in_batches, states=True)


def _prepare_on(
    trace: Trace, feeds: Feeds, question: Question, settings: Settings, in_batches: bool, *, states: bool
) -> tuple[Program, ForwardGraph, list[TensorLike]]:
    graph = trace.graphs.forward_graph(trace.source, feeds, bool(settings.training), states)
    own = question.key(graph)
    key = own and (type(question), own, settings.unconnected, settings.checks, trace.jit_compile)
    program = program_for(graph, key, lambda: question.build(trace, graph, settings))
    if in_batches:
        _refuse_one_for_each(question, graph)
    return program, graph, question.values(graph, feeds.batch_size)


def watched(graph: ForwardGraph, places: Sequence[Place]) -> dict[str, Tensor]:
    """What is looked at for NaN and infinity: the inputs, then the activations in forward order."""
    inputs = {f"input `{name}`": feed for name, feed in zip(graph.input_names, graph.feeds, strict=True)}
    return inputs | {f"the activations at `{place.key}`": place.tensor for place in places}


def addresses(at: Any) -> Any:
    """What was given as ``at=``, such that it can be read more than once: a generator becomes a list."""
    return list(at) if isinstance(at, Iterator) else at


def address_key(at: Any) -> Hashable:
    """What was asked, as a key; layers weakly, so that a kept program keeps no model."""
    if is_several(at):
        return tuple(map(address_key, at))
    at = at.tap if isinstance(at, TapEntry) else at
    if isinstance(at, (str, Tap, type)):
        return at
    # Whatever else is given is no address; resolving it says so.
    return weakref.ref(at) if internals.is_callable_node(at) else ("not an address", id(at))


def check_choice(name: str, value: Any, choices: Sequence[Any]) -> None:
    """Raise unless a keyword has one of its values.

    Raises:
      ArgumentError: It says which there are.
    """
    if not any(value is choice or (type(value) is type(choice) and value == choice) for choice in choices):
        raise errors.ArgumentError(
            f"{name}={value!r} is not a choice.", [("choices", ", ".join(map(repr, choices)))], "give one of them"
        )


def _warn_of_coupling(graph: ForwardGraph, settings: Settings, feeds: Feeds) -> None:
    batch, size = feeds.batch_size, settings.batch_size
    if not settings.training or size is None or batch is None or batch <= size:
        return
    several = f"{size} example{'s' * (size > 1)} at a time"
    found = []
    if program_for(graph, "couples examples", lambda: [couples_examples(graph)])[0]:
        found.append(f"what is computed over the batch, such as batch statistics, is over {several}, not over {batch}")
    if graph.draws:
        found.append(f"random masks are drawn for {several}, the same for each part, not for {batch}")
    if found:
        errors.warn(
            errors.BatchCouplingWarning(
                f"with training=True {', and '.join(found)}; batch_size=None runs all of them together."
            )
        )
