"""Programs: callables pruned from a forward graph, built once for each kind of question and kept with the graph."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import tensorflow as tf

from gradtap import errors
from gradtap.graph import surgery
from gradtap.graph.resolve import Place
from gradtap.graph.tracing import ForwardGraph
from gradtap.types import Compiled, Structure, Tensor

_Built = TypeVar("_Built")

#: More programs than this on one graph are more than a person asks; the oldest is dropped.
_KEPT_PROGRAMS = 256


@dataclass
class Program:
    """A compiled callable with the meaning of what it takes and returns.

    Args:
      run: Takes the fed tensors, returns the fetched ones, flat.
      places: The taps it is about.
      counts: How many fetched tensors belong to each named part, in order.
      watched: What each finiteness flag is about; the flags are the last fetched tensor. Empty without checks.
      skipped: Places that were left out, with the reason.
      target: What is differentiated, as messages show it.
      pack_outputs: Nests the model's flat outputs as the model returns them.
      copies: How often the result holds a tensor of the size of its taps.
      in_flight: Most examples at once where the call does not say; None for all.
      later: Programs that take the same, for what is computed only on request.
      notes: What was found out while it was built, for whoever asked.
    """

    run: Compiled
    places: list[Place]
    counts: dict[str, int]
    pack_outputs: Callable[[Sequence[Tensor]], Structure]
    watched: list[str] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    target: str = ""
    copies: int = 2  # the activations come with their gradients
    in_flight: int | None = None
    later: dict[str, Program] = field(default_factory=dict)
    notes: dict[str, Any] = field(default_factory=dict)

    def split(self, fetched: Sequence[Tensor]) -> dict[str, list[Tensor]]:
        """The fetched tensors by the part they belong to."""
        parts, start = {}, 0
        for name, count in self.counts.items():
            parts[name] = list(fetched[start : start + count])
            start += count
        return parts


def program_for(graph: ForwardGraph, key: Hashable | None, build: Callable[[], _Built]) -> _Built:
    """The program kept under a key, built where there is none yet; without a key it is not kept.

    Whatever is built by adding ops to the graph is kept in the same way.
    """
    if key is None:
        return build()
    kept: _Built | None = graph.programs.get(key)
    if kept is not None:
        return kept
    with graph.lock:
        kept = graph.programs.get(key)
        if kept is None:
            kept = build()
            if len(graph.programs) >= _KEPT_PROGRAMS:
                del graph.programs[next(iter(graph.programs))]
            graph.programs[key] = kept
        return kept


def assemble(
    graph: ForwardGraph,
    feeds: Sequence[Tensor],
    parts: Mapping[str, Sequence[Tensor]],
    places: list[Place],
    *,
    watch: dict[str, Tensor] | None = None,
    saturated: Tensor | None = None,
    jit_compile: bool = False,
) -> Program:
    """Cut a program out of a graph.

    Args:
      graph: The forward graph, already extended by all that is fetched.
      feeds: What the program takes, in order.
      parts: What it returns, by name.
      places: The taps it is about.
      watch: Tensors to check for NaN and infinity in the same run, by what they are.
      saturated: A boolean scalar to warn of in the same run.
      jit_compile: Compile with XLA.
    """
    counts = {name: len(tensors) for name, tensors in parts.items()}
    fetches = [tensor for tensors in parts.values() for tensor in tensors]
    watched: list[str] = []
    if watch is not None:
        with surgery.inside(graph.graph):
            flags = {name: not_finite(t) for name, t in watch.items() if surgery.is_float(t)}
            if saturated is not None:
                flags["saturated"] = saturated
            if flags:
                watched = list(flags)
                fetches.append(tf.stack(list(flags.values())))
                counts["flags"] = 1
    run = surgery.prune(graph.wrapped, feeds, fetches)
    return Program(with_xla(run) if jit_compile else run, places, counts, graph.pack_outputs, watched)


def not_finite(tensor: Tensor) -> Tensor:
    """Whether a tensor holds NaN or infinity: a sum is one fast pass and keeps either."""
    # Half precision would overflow.
    wide = tf.cast(tensor, tf.float32) if tensor.dtype in (tf.float16, tf.bfloat16) else tensor
    return tf.logical_not(tf.math.is_finite(tf.math.real(tf.reduce_sum(wide))))


def report(program: Program, parts: dict[str, list[Tensor]]) -> None:
    """Warn of what the flags of a run show."""
    flags = parts.get("flags")
    if not flags or not hasattr(flags[0], "numpy"):
        return
    raised = flags[0].numpy()
    if not raised.any():
        return
    named = [name for name, flag in zip(program.watched, raised, strict=True) if flag]
    if "saturated" in named:
        errors.warn(
            errors.SaturatedTargetWarning(
                f"the target {program.target} is saturated for some examples: their softmax or sigmoid is at its "
                "limit, where rounding has left no gradient. gt.targets.class_score(k, logits=True) differentiates the "
                "value before it."
            )
        )
    first = next((name for name in named if name != "saturated"), None)
    if first is not None:
        errors.warn(
            errors.NonFiniteWarning(f"NaN or infinity in {first}, the first of the tensors looked at that holds any.")
        )


def with_xla(run: Compiled) -> Compiled:
    """Compile with XLA, and go on without it, with a warning, where it refuses the ops."""
    compiled = tf.function(run, jit_compile=True, autograph=False)
    state = {"run": compiled}

    def attempt(*args: Any) -> Any:
        try:
            return state["run"](*args)
        except (tf.errors.InvalidArgumentError, tf.errors.UnimplementedError, tf.errors.InternalError) as error:
            if state["run"] is run:
                raise
            errors.warn(
                errors.GradtapWarning(f"XLA refuses this model, going on without it: {str(error).splitlines()[0]}")
            )
            state["run"] = run
            return run(*args)

    return attempt
