"""The sides of a layer's call: which tensors `input`, `preactivation`, `attention` and the others mean."""

from __future__ import annotations

from collections.abc import Mapping

from gradtap.graph import copies
from gradtap.graph import keras_internals as internals
from gradtap.graph.capture import LayerCall
from gradtap.graph.recurrent import LoopState
from gradtap.graph.tracing import ForwardGraph, TracedLayer
from gradtap.tap import Tap
from gradtap.types import Tensor

#: Layers that are nothing but an activation: what they are given is their pre-activation.
_ACTIVATION_LAYERS = frozenset({"Activation", "ReLU", "LeakyReLU", "PReLU", "ELU", "Softmax"})

#: What attention layers call the layers that make queries, keys and values, in Keras and in KerasHub.
_PROJECTIONS = ("_{}_dense", "{}_dense", "{}_projector", "_{}_projection", "{}_projection", "{}")


class StatesNotTraced(Exception):
    """The states of a recurrent layer were asked for, and this graph was traced without them."""


def tensors_of(graph: ForwardGraph, layer: TracedLayer, call: LayerCall, face: str) -> list[Tensor]:
    """The tensors on one side of a call; empty where it has no such side.

    Raises:
      StatesNotTraced: A recurrent layer's states are asked for in a graph that was traced without.
    """
    if face == "input" or (face == "output" and layer.kind == "InputLayer"):  # which gives what its model is given
        return _own_inputs(graph, call)
    if face == "output":
        return call.outputs
    if layer.kind == "InputLayer":
        return []  # a placeholder has one tensor and no inside
    if face in ("query", "key", "value"):
        return _projection(graph, layer, call, face)
    if face in ("hidden", "cell"):
        return _states(graph, layer, call, face)
    finders = {"preactivation": _preactivation, "attention": _attention}
    return finders[face](graph, layer, call) if face in finders else []


def available(graph: ForwardGraph, layer: TracedLayer, call: LayerCall) -> list[str]:
    """The sides that a call has."""
    faces = ["output", "input", "preactivation", "attention", "query", "key", "value", "hidden", "cell"]
    return [face for face in faces if _has(graph, layer, call, face)]


def _has(graph: ForwardGraph, layer: TracedLayer, call: LayerCall, face: str) -> bool:
    try:
        return bool(call.inputs if face == "input" else tensors_of(graph, layer, call, face))
    except StatesNotTraced:
        return face == "hidden" or "LSTM" in layer.kind


def _own_inputs(graph: ForwardGraph, call: LayerCall) -> list[Tensor]:
    """What a layer is given, apart from what others are given of the same tensor.

    Where a tensor goes to several layers, each of them gets one of its own, so that the gradient at a layer's input
    is what flows through that layer.
    """
    with graph.lock:
        call.inputs[:] = [copies.own_copy(graph.graph, t, call.first_op, call.last_op) for t in call.inputs]
    return call.inputs


def _own_output(graph: ForwardGraph, tensor: Tensor) -> Tensor:
    with graph.lock:
        return copies.own_output(graph.graph, tensor, graph.forward_ops)


def _within(graph: ForwardGraph, layer: TracedLayer, name: str, call: LayerCall) -> list[LayerCall]:
    """The calls of an inner layer during one call of an outer one."""
    inner = graph.calls.get(f"{layer.path}/{name}" if layer.path else name, [])
    return [c for c in inner if call.first_op <= c.first_op and c.last_op <= call.last_op]


def _preactivation(graph: ForwardGraph, layer: TracedLayer, call: LayerCall) -> list[Tensor]:
    if call.preactivation is not None:
        return [call.preactivation]
    if layer.kind in _ACTIVATION_LAYERS:
        return _own_inputs(graph, call)[:1]
    # An activation that is a layer itself is a child with records of its own.
    inner = _within(graph, layer, "activation", call)
    return inner[0].inputs[:1] if inner else []


def _attention(graph: ForwardGraph, layer: TracedLayer, call: LayerCall) -> list[Tensor]:
    """The probabilities, where they are: what the one softmax of the call gives.

    Where a `Softmax` layer makes them it is that layer's output, in which rows that are masked whole are zero. Keras's
    fused path has a softmax op. Asking the layer for its scores instead would take another path, whose activations
    differ at padded positions.
    """
    if not any("Attention" in kind.__name__ for kind in layer.classes):
        return []
    names = [t.path[len(layer.path) :].lstrip("/") for t in graph.layers if t.kind == "Softmax" and t is not layer]
    found = [c.outputs[0] for name in dict.fromkeys(names) for c in _within(graph, layer, name, call)]
    if not found:
        ops = graph.graph.get_operations()[call.first_op : call.last_op]
        found = [op.outputs[0] for op in ops if op.type == "Softmax"]
    return [_by_head(graph, layer, found[0])] if len(found) == 1 else []


def _by_head(graph: ForwardGraph, layer: TracedLayer, found: Tensor) -> Tensor:
    """Probabilities ``(batch, heads, query, key)``, where queries are grouped by the keys that they share."""
    held = layer.layer() if layer.layer else None
    heads = internals.query_heads(held)
    if found.shape.rank != 5 or heads is None or found.shape[1] * found.shape[2] != heads:
        return found
    with graph.lock:
        return copies.merged_axes(graph.graph, found)


def _projection(graph: ForwardGraph, layer: TracedLayer, call: LayerCall, face: str) -> list[Tensor]:
    if face in call.projections:
        return [call.projections[face]]
    for form in _PROJECTIONS:
        inner = _within(graph, layer, form.format(face), call)
        if inner:
            return inner[0].outputs[:1]
    return []


def _states(graph: ForwardGraph, layer: TracedLayer, call: LayerCall, face: str) -> list[Tensor]:
    if not layer.is_recurrent:
        return []
    if not graph.has_states:
        raise StatesNotTraced
    # Cells that are stacked have a hidden state each, and perhaps a cell state.
    return [state.values for state in call.states if state.kind == face]


def state_of(call: LayerCall, tensor: Tensor) -> LoopState | None:
    """The recurrent layer's state whose values a tensor holds; None where it is another tensor."""
    return next((s for s in call.states if s.values is tensor), None)


def numbered(call: LayerCall, tap: Tap) -> Tap:
    """A tap that picks an output by its key in the dict that the layer returned, with the output's number instead."""
    returned = call.output_structure
    by_key = {str(key): number for key, number in returned.items()} if isinstance(returned, Mapping) else {}
    number = by_key.get(str(tap.pick)) if tap.face == "output" else None
    return tap.picked(number) if isinstance(number, int) else tap
