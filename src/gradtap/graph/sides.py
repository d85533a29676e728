"""The sides of a layer's call: which tensors `input`, `preactivation`, `attention` and the others mean."""

from __future__ import annotations

from gradtap.graph import surgery
from gradtap.graph.capture import LayerCall
from gradtap.graph.tracing import ForwardGraph, TracedLayer
from gradtap.types import Tensor

#: Layers that are nothing but an activation: what they are given is their pre-activation.
_ACTIVATION_LAYERS = frozenset({"Activation", "ReLU", "LeakyReLU", "PReLU", "ELU", "Softmax"})

#: What attention layers call the layers that make queries, keys and values, in Keras and in KerasHub.
_PROJECTIONS = ("_{}_dense", "{}_dense", "{}_projector", "_{}_projection", "{}_projection", "{}")

#: What `Attention` and `AdditiveAttention` are given, in this order, where they project nothing.
_PLAIN_ATTENTION = {"Attention": ("query", "value", "key"), "AdditiveAttention": ("query", "value", "key")}


class StatesNotTraced(Exception):
    """The states of a recurrent layer were asked for, and this graph was traced without them."""


def tensors_of(graph: ForwardGraph, layer: TracedLayer, call: LayerCall, face: str) -> list[Tensor]:
    """The tensors on one side of a call; empty where it has no such side.

    Raises:
      StatesNotTraced: A recurrent layer's states are asked for in a graph that was traced without.
    """
    if face == "output":
        return call.outputs
    if face == "input":
        return _own_inputs(graph, call)
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
        call.inputs[:] = [surgery.own_copy(graph.graph, t, call.first_op, call.last_op) for t in call.inputs]
    return call.inputs


def _own_output(graph: ForwardGraph, tensor: Tensor) -> Tensor:
    with graph.lock:
        return surgery.own_output(graph.graph, tensor, graph.forward_ops)


def _within(graph: ForwardGraph, path: str, call: LayerCall) -> list[LayerCall]:
    """The calls of an inner layer during one call of an outer one."""
    inner = graph.calls.get(path, [])
    return [c for c in inner if call.first_op <= c.first_op and c.last_op <= call.last_op]


def _preactivation(graph: ForwardGraph, layer: TracedLayer, call: LayerCall) -> list[Tensor]:
    if call.preactivation is not None:
        call.preactivation = _own_output(graph, call.preactivation)
        return [call.preactivation]
    if layer.kind in _ACTIVATION_LAYERS:
        return _own_inputs(graph, call)[:1]
    # An activation that is a layer itself is a child with records of its own.
    inner = _within(graph, f"{layer.path}/activation", call)
    return inner[0].inputs[:1] if inner else []


def _attention(graph: ForwardGraph, layer: TracedLayer, call: LayerCall) -> list[Tensor]:
    """The probabilities, where they are: at the one softmax among the ops of the call.

    Keras's fused path has one, and so have KerasHub's layers. Asking the layer for its scores instead would take
    another path, whose activations differ at padded positions.
    """
    if "Attention" not in layer.kind:
        return []
    ops = graph.graph.get_operations()[call.first_op : call.last_op]
    found = [op.outputs[0] for op in ops if op.type == "Softmax"]
    if found:
        return [_own_output(graph, found[0])] if len(found) == 1 else []
    inner = _within(graph, f"{layer.path}/_softmax", call)  # a softmax over several axes is no Softmax op
    return inner[0].outputs[:1] if inner else []


def _projection(graph: ForwardGraph, layer: TracedLayer, call: LayerCall, face: str) -> list[Tensor]:
    for form in _PROJECTIONS:
        inner = _within(graph, f"{layer.path}/{form.format(face)}", call)
        if inner:
            return inner[0].outputs[:1]
    order = _PLAIN_ATTENTION.get(layer.kind)
    if order is None:
        return []
    given = _own_inputs(graph, call)
    position = order.index(face)
    return given[position : position + 1] or given[1:2]  # without a key, the value is the key


def _states(graph: ForwardGraph, layer: TracedLayer, call: LayerCall, face: str) -> list[Tensor]:
    if not layer.is_recurrent:
        return []
    if not graph.has_states:
        raise StatesNotTraced
    # Cells that are stacked have a hidden state each, and perhaps a cell state.
    return [state.values for state in call.states if state.kind == face]


def variable_of(call: LayerCall, tensor: Tensor) -> Tensor | None:
    """With respect to what a gradient at a tensor is taken, where not to the tensor: a state's perturbation."""
    return next((s.perturbation for s in call.states if s.values is tensor), None)
