"""A model's rest from a tap on, as a function of the activations there; what comes before the tap never runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import tensorflow as tf

from gradtap import errors
from gradtap.graph import surgery, walking
from gradtap.graph.arrays import like
from gradtap.graph.inputs import read_inputs
from gradtap.graph.randomness import seeds_for
from gradtap.graph.resolve import Place, resolve
from gradtap.graph.sides import StatesNotTraced
from gradtap.graph.tracing import ForwardGraph
from gradtap.types import Address, Compiled, Structure, Tensor, TensorLike

if TYPE_CHECKING:
    from gradtap.graph.keeping import Trace


@dataclass(frozen=True)
class _Rest:
    """The rest of a traced forward pass.

    Args:
      place: Where the rest begins.
      run: Takes the activations, then what the rest needs of the inputs and the seeds.
      inputs: Positions of the inputs that a branch around the tap needs.
      draws: Positions of the random draws in the rest.
    """

    place: Place
    run: Compiled
    inputs: list[int]
    draws: list[int]


def suffix(trace: Trace, at: Address, inputs: Structure, training: bool) -> Callable[[TensorLike], Structure]:
    """See `Trace.suffix`."""
    feeds = read_inputs(inputs, trace.source.declared_inputs(), trace.source.float_dtype())
    graph = trace.graphs.forward_graph(trace.source, feeds, training)
    with graph.lock:
        rest = _rest(graph, at)
    beside = [feeds.tensors[i] for i in rest.inputs]
    batch = feeds.batch_size if beside and feeds.batch_size != 1 else None

    @surgery.unconverted
    def run(activations: TensorLike) -> Structure:
        value = like(activations, rest.place.tensor, batch, f"activations for `{rest.place.key}`")
        seeds = seeds_for([graph.draws[i] for i in rest.draws], None)
        fed = [value, *(_as_many(t, value) for t in beside), *map(tf.convert_to_tensor, seeds)]
        return graph.pack_outputs(rest.run(*fed))

    return run


def _rest(graph: ForwardGraph, at: Address) -> _Rest:
    try:
        places = resolve(graph, at)
    except StatesNotTraced:
        raise errors.SideError(
            f"nothing can begin at `{at}`: a recurrent layer makes its states inside of its loop.",
            [],
            "begin at the layer's output or its input",
        ) from None
    if len(places) != 1:
        raise errors.ArgumentError(
            f"at={at!r} means {len(places)} tensors; one is needed.",
            [("they are", ", ".join(f"`{p.key}`" for p in places[:8]))],
            "name one of them",
        )
    tap = places[0].tensor
    needed = walking.ancestors(graph.outputs, up_to=[tap])
    inputs = [i for i, feed in enumerate(graph.feeds) if feed.op in needed and feed is not tap]
    draws = [i for i, draw in enumerate(graph.draws) if draw.placeholder.op in needed]
    fed = [tap, *(graph.feeds[i] for i in inputs), *(graph.draws[i].placeholder for i in draws)]
    return _Rest(places[0], surgery.prune(graph.wrapped, fed, graph.outputs), inputs, draws)


def _as_many(tensor: Tensor, activations: Tensor) -> Tensor:
    """One row of the inputs stands for every row of the activations."""
    alone = tensor.shape.rank and tensor.shape[0] == 1
    return tf.repeat(tensor, tf.shape(activations)[0], axis=0) if alone else tensor
