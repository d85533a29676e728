"""Every place of a model that can be tapped."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import tensorflow as tf

from gradtap import errors
from gradtap.graph import keras_internals as internals
from gradtap.graph import op_names, sides, surgery
from gradtap.graph.capture import LayerCall
from gradtap.graph.inputs import Feeds, read_inputs
from gradtap.graph.keeping import Trace
from gradtap.graph.model_files import as_trace
from gradtap.graph.tracing import ForwardGraph, TracedLayer
from gradtap.tap import Tap
from gradtap.taplist import TapEntry, TapList
from gradtap.targets import as_target
from gradtap.types import Model, Structure, Tensor


def taps(model: Model, inputs: Structure = None, *, target: Any = None, training: bool = False) -> TapList:
    """List every address of a model with what is there.

    Args:
      model: A Keras model or layer, a `tf.Module`, a function, a `Trace`, or the path of a saved model.
      inputs: One batch as the model takes it. May be left out for a model that says what it takes, or has been called.
      target: What `TapEntry.reached` is about; any output where it is None.
      training: Passed to the model.

    Returns:
      The entries, in the order of the model. ``print`` shows them as a tree.

    Raises:
      InputStructureError: The model does not say what it takes, and no inputs were given.

    Example:
      >>> import gradtap as gt, keras
      >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, activation="relu", name="dense")])
      >>> [entry.address for entry in gt.taps(model)]
      [':input', ':output', 'dense', 'dense:preactivation']
    """
    trace = as_trace(model)
    graph = _graph(trace, inputs, training)
    found = list(_places(graph))
    variables = {id(s.values): s.perturbation for calls in graph.calls.values() for c in calls for s in c.states}
    reached = _reached(graph, {id(t): variables.get(id(t), t) for _, t, *_ in found if t is not None}, target)
    entries = []
    for tap, tensor, kind, calls, parameters in found:
        shape = None if tensor is None else tuple(tensor.shape) if tensor.shape.rank is not None else ()
        dtype = "" if tensor is None else tensor.dtype.name
        hit = tensor is not None and id(tensor) in reached
        looped = tap.path in graph.elsewhere
        entries.append(TapEntry(tap, str(tap), kind, shape, dtype, calls, parameters, hit, looped))
    return TapList(type(trace.model).__name__, entries)


def _graph(trace: Trace, inputs: Structure, training: bool) -> ForwardGraph:
    declared = trace.source.declared_inputs()
    feeds = example_feeds(trace) if inputs is None else read_inputs(inputs, declared, trace.source.float_dtype())
    if feeds is None:
        graph = trace.graphs.any_graph()
        if graph is None:
            raise errors.InputStructureError(
                f"{type(trace.model).__name__} does not say what inputs it takes.",
                [],
                "gt.taps(model, inputs) with a batch of data",
            )
        return graph
    graph = trace.graphs.forward_graph(trace.source, feeds, training)
    if any(layer.is_recurrent and layer.path in graph.calls for layer in graph.layers):
        return trace.graphs.forward_graph(trace.source, feeds, training, states=True)
    return graph


def example_feeds(trace: Trace, free: int = 1) -> Feeds | None:
    """One example of zeros in the form that the model declares, or that it was built with.

    Args:
      trace: The model.
      free: How long an axis is taken that the model leaves free, but for the batch.
    """
    declared = trace.source.declared_inputs()
    if declared is not None:
        sizes = [_filled(shape, free) for shape in declared.shapes]
        tensors = [tf.zeros(s, d) for s, d in zip(sizes, declared.dtypes, strict=True)]
        # Free axes stay free in the trace: the declared shapes are what is traced.
        return Feeds(tensors, declared.structure, declared.names)
    shapes = internals.built_shapes(trace.model) if trace.source.is_keras else None
    if isinstance(shapes, tuple) and all(isinstance(n, int) or n is None for n in shapes):
        dtype = trace.source.float_dtype() or "float32"
        return Feeds([tf.zeros(_filled(shapes, free), dtype)], 0, ("0",))
    return None


def _filled(shape: Sequence[int | None], free: int) -> list[int]:
    return [n if n is not None else free if axis else 1 for axis, n in enumerate(shape)]


def _places(graph: ForwardGraph) -> Iterator[tuple[Tap, Tensor | None, str, int, int]]:
    total = graph.layers[0].parameters if graph.layers and not graph.layers[0].path else 0
    for side, names, tensors in (
        ("input", graph.input_names, graph.feeds),
        ("output", graph.output_names, graph.outputs),
    ):
        for name, tensor in zip(names, tensors, strict=True):
            tap = Tap("", side=side)
            yield tap if len(tensors) == 1 else tap.picked(name), tensor, "model", 1, total
    if not any(layer.path for layer in graph.layers):
        for tensor in op_names.float_tensors(graph):
            yield Tap.op(tensor.name), tensor, tensor.op.type, 1, 0
    for layer in graph.layers:
        if not layer.path or layer.kind == "InputLayer":
            continue
        calls = graph.calls.get(layer.path, [])
        if not calls:
            yield Tap(layer.path), None, layer.kind, 0, layer.parameters
        for index, call in enumerate(calls):
            tap = Tap(layer.path, index if len(calls) > 1 else None)
            for k, tensor in enumerate(call.outputs):
                several = len(call.outputs) > 1
                yield tap.picked(k) if several else tap, tensor, layer.kind, len(calls), layer.parameters
            for inner, tensor in _inner_places(graph, layer, call, tap):
                yield inner, tensor, layer.kind, len(calls), layer.parameters


def _inner_places(graph: ForwardGraph, layer: TracedLayer, call: LayerCall, tap: Tap) -> Iterator[tuple[Tap, Tensor]]:
    """What a layer holds beside its output; its input is another's output."""
    for face in sides.available(graph, layer, call):
        if face in ("output", "input") or (
            face == "preactivation" and (call.preactivation is None or _is_linear(call))
        ):
            continue
        found = sides.tensors_of(graph, layer, call, face)
        one = Tap(tap.path, tap.call, face)
        for k, tensor in enumerate(found):
            yield one.picked(k) if len(found) > 1 else one, tensor


def _is_linear(call: LayerCall) -> bool:
    """Whether the activation is the whole layer, or hands its input on: its pre-activation has another address."""
    return call.preactivation is None or any(
        output.op.inputs and output.op.inputs[0] is call.preactivation for output in call.outputs
    )


def _reached(graph: ForwardGraph, variables: Mapping[int, Tensor], target: Any) -> set[int]:
    """Which tensors a target has a gradient at; each stands under the identity of the tensor that is listed."""
    floats = {key: t for key, t in variables.items() if surgery.is_float(t)}
    with graph.lock:
        if target is None:
            score: Any = [output for output in graph.outputs if surgery.is_float(output)]
        else:
            wanted = as_target(target)
            wanted.key(graph)
            with surgery.inside(graph.graph):
                score = wanted.build(graph).value
        if not floats or (isinstance(score, list) and not score):
            return set()
        slopes = surgery.differentiate(score, list(floats.values()))
    return {key for key, slope in zip(floats, slopes, strict=True) if slope is not None}
