"""What every unit of a layer sees of the input, read off the ops between the two."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from gradtap import errors
from gradtap.batching import run_once
from gradtap.graph import explain, surgery, walking
from gradtap.graph.inputs import Feeds, read_inputs
from gradtap.graph.keeping import Trace
from gradtap.graph.model_files import as_trace
from gradtap.graph.randomness import seeds_for
from gradtap.graph.resolve import Place, resolve
from gradtap.graph.sides import StatesNotTraced
from gradtap.graph.tracing import ForwardGraph
from gradtap.listing import example_feeds
from gradtap.program import assemble, program_for
from gradtap.receptive.op_rules import passed
from gradtap.receptive.results import ReceptiveField, ReceptiveFields
from gradtap.receptive.spread import Spread
from gradtap.receptive.steps import Step
from gradtap.types import Address, Model, Operation, Structure, Tensor

#: What is taken where an axis of the input is free and no inputs are given: a multiple of every common stride.
_FREE = 256


def fields(
    model: Model, inputs: Structure, at: Address | Sequence[Address], along: Address, unconnected: str = "error"
) -> ReceptiveFields:
    """What the units at some taps see of another place.

    Args:
      model: The model.
      inputs: One batch, of which the shape alone counts; None for what the model declares.
      at: The taps.
      along: The place whose positions are counted.
      unconnected: ``"zero"`` for a field of size 0 where a tap does not depend on the place.

    Raises:
      InputStructureError: The model does not say what it takes, and no inputs were given.
      UnconnectedTapError: A tap does not depend on the place.
    """
    trace = as_trace(model)
    feeds = _one_example(trace, inputs)
    try:
        graph = trace.graphs.forward_graph(trace.source, feeds, False)
        return _fields_on(graph, feeds, at, along, unconnected)
    except StatesNotTraced:
        graph = trace.graphs.forward_graph(trace.source, feeds, False, True)
        return _fields_on(graph, feeds, at, along, unconnected)


def seen_place(graph: ForwardGraph, along: Address, places: Sequence[Place]) -> Place:
    """The one place whose positions are counted: of several inputs the one that all taps depend on.

    Raises:
      ArgumentError: There are several.
    """
    found = resolve(graph, along)
    if len(found) == 1:
        return found[0]
    behind = [walking.ancestors([place.tensor]) for place in places]
    fitting = [one for one in found if all(one.tensor.op in ops for ops in behind)]
    if len(fitting) == 1:
        return fitting[0]
    names = ", ".join(f"`{one.key}`" for one in fitting or found)
    raise errors.ArgumentError(
        f"along={along!r} means several places.",
        [("they are", names)],
        ["name one of them", "ask for the taps of one input at a time"],
    )


def _one_example(trace: Trace, inputs: Structure) -> Feeds:
    if inputs is None:
        feeds = example_feeds(trace, free=_FREE)
        if feeds is None:
            raise errors.InputStructureError(
                f"{type(trace.model).__name__} does not say what inputs it takes.",
                [],
                "inputs=x with a batch of data; its shape alone counts",
            )
        return feeds
    declared = trace.source.declared_inputs()
    feeds = read_inputs(inputs, declared, trace.source.float_dtype())
    fixed = declared is not None and any(shape and shape[0] is not None for shape in declared.shapes)
    one = [tf.zeros((1, *t.shape[1:]), t.dtype) if t.shape.rank else t for t in feeds.tensors]
    return feeds if fixed else Feeds(one, feeds.structure, feeds.names)


def _fields_on(graph: ForwardGraph, feeds: Feeds, at: Any, along: Address, unconnected: str) -> ReceptiveFields:
    places = resolve(graph, at)
    seen = seen_place(graph, along, places)
    if unconnected == "error":
        places = _connected(graph, places, seen)
    shapes = tuple(tuple(tensor.shape) for tensor in feeds.tensors)
    key = ("receptive fields", tuple(place.tensor.name for place in places), seen.tensor.name, shapes)
    found = program_for(graph, key, lambda: _walked(graph, feeds, places, seen))
    return ReceptiveFields.at(places, found)


def _connected(graph: ForwardGraph, places: Sequence[Place], seen: Place) -> list[Place]:
    """The places that depend on another; those that a pattern found may be left out."""
    behind = walking.descendants([seen.tensor]) | {seen.tensor.op}
    connected = [place for place in places if place.tensor.op in behind]
    apart = [place for place in places if place not in connected and not place.by_pattern]
    apart = apart or ([] if connected else list(places[:1]))
    errors.raise_all(
        [explain.unconnected(graph, seen.key, seen.variable, seen.layer, p.tensor, f"`{p.key}`", "at") for p in apart]
    )
    return connected


def _walked(graph: ForwardGraph, feeds: Feeds, places: Sequence[Place], seen: Place) -> list[ReceptiveField]:
    ops = _between(graph, places, seen)
    shapes, values = _known(graph, feeds, ops, [seen, *places])
    axes = _axes_of_space(shapes[seen.tensor.ref()])
    spreads: dict[Any, dict[int, Spread]] = {
        seen.tensor.ref(): {axis: Spread.of_input(axis, shapes[seen.tensor.ref()][axis]) for axis in axes}
    }
    for op in ops:
        for output, tensor in enumerate(op.outputs):
            if tensor.ref() not in spreads:
                spreads[tensor.ref()] = _seen_by(op, output, spreads, shapes, values)
    found = []
    for place in places:
        by_axis = spreads.get(place.tensor.ref(), {})
        lengths = tuple(shapes[seen.tensor.ref()][axis] for axis in axes)
        found.append(ReceptiveField.of([by_axis.get(axis) for axis in axes], lengths, shapes[place.tensor.ref()]))
    return found


def _seen_by(op: Operation, output: int, spreads: Any, shapes: Any, values: Any) -> dict[int, Spread]:
    found: dict[int, Spread] = {}
    for index, tensor in enumerate(op.inputs):
        step = Step(op, index, output, lambda t: shapes[t.ref()], lambda t: values[t.ref()])
        for axis, spread in spreads.get(tensor.ref(), {}).items():
            behind = passed(step, spread)
            if behind is not None:
                found[axis] = found[axis].united(behind, op.name) if axis in found else behind
    return found


def _between(graph: ForwardGraph, places: Sequence[Place], seen: Place) -> list[Operation]:
    """The ops of the forward pass from one place to the others, in an order in which each follows what it needs."""
    needed = walking.ancestors([place.tensor for place in places], up_to=[seen.tensor])
    ops = needed & walking.descendants([seen.tensor])
    return [op for op in graph.graph.get_operations() if op in ops]


def _known(
    graph: ForwardGraph, feeds: Feeds, ops: Sequence[Operation], places: Sequence[Place]
) -> tuple[dict[Any, tuple[int, ...]], dict[Any, np.ndarray[Any, Any]]]:
    """The shapes of all tensors about some ops, and what the small ones of integers hold, from one run of the model."""
    tensors = {t.ref(): t for op in ops for t in [*op.inputs, *op.outputs] if _has_shape(t)}
    tensors |= {place.tensor.ref(): place.tensor for place in places}
    shapes = {ref: tuple(t.shape.as_list()) for ref, t in tensors.items() if t.shape.is_fully_defined()}
    free = {ref: t for ref, t in tensors.items() if ref not in shapes}
    small = {ref: t for ref, t in tensors.items() if _says_where(t)}
    with surgery.inside(graph.graph):
        parts = {"shapes": [tf.shape(tensor) for tensor in free.values()], "values": list(small.values())}
    program = assemble(graph, graph.all_feeds, parts, list(places))
    found = run_once(program, [*feeds.tensors, *seeds_for(graph.draws, None)])
    shapes |= {ref: tuple(map(int, shape)) for ref, shape in zip(free, found["shapes"], strict=True)}
    return shapes, {ref: tensor.numpy() for ref, tensor in zip(small, found["values"], strict=True)}


def _has_shape(tensor: Tensor) -> bool:
    return tensor.dtype not in (tf.resource, tf.variant)


def _says_where(tensor: Tensor) -> bool:
    """Whether it may be an op's argument, such as an axis or a padding, or the scale of a resized image."""
    rank = tensor.shape.rank
    return (
        (tensor.dtype.is_integer or tensor.dtype == tf.float32) and rank is not None and rank <= 2 and _is_small(tensor)
    )


def _is_small(tensor: Tensor) -> bool:
    count = tensor.shape.num_elements()
    return count is not None and count <= 64


def _axes_of_space(shape: Sequence[int]) -> list[int]:
    """The axes between batch and channels; of (batch, n) the one that there is."""
    return list(range(1, max(len(shape) - 1, min(len(shape), 2))))
