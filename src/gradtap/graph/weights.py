"""Weights as taps: the variables of layers, by the name that the layer gives them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import tensorflow as tf

from gradtap.graph import surgery
from gradtap.graph.tracing import ForwardGraph, TracedLayer
from gradtap.types import Tensor


def variable_of(weight: Any) -> Any:
    """The `tf.Variable` of a weight, which Keras 3 wraps."""
    return weight if isinstance(weight, tf.Variable) else weight.value


def weights_of(layer: Any) -> Sequence[Any]:
    """All weights of a layer, those below it included."""
    found = getattr(layer, "weights", None)
    return list(getattr(layer, "variables", ()) if found is None else found)


def named_weights(graph: ForwardGraph, layer: TracedLayer) -> Iterator[tuple[TracedLayer, str, Any]]:
    """The weights of floats in and below a layer.

    Yields:
      The layer that holds one itself, its name there, and its variable; the deepest layers first.
    """
    inside = [t for t in graph.layers if t.path == layer.path or not layer.path or t.path.startswith(f"{layer.path}/")]
    seen: set[int] = set()
    for traced in sorted(inside, key=lambda t: -len(t.steps)):
        held = traced.layer() if traced.layer else None
        for weight in weights_of(held) if held is not None else ():
            variable = variable_of(weight)
            if id(variable) not in seen and variable.dtype.is_floating:
                seen.add(id(variable))
                yield traced, weight.name.rpartition("/")[2].partition(":")[0], variable


def handle_in(graph: ForwardGraph, variable: Any) -> Tensor | None:
    """What stands for a variable in the traced graph; None where it is not read there."""
    return next((inside for outside, inside in graph.graph.captures if outside is variable.handle), None)


def value_of(graph: ForwardGraph, handle: Tensor, dtype: Any, shape: Any) -> Tensor:
    """The value of a variable as a tensor of the graph, read once."""
    with graph.lock:
        kept: dict[str, Tensor] = graph.programs.setdefault("weights", {})
        if handle.name not in kept:
            with surgery.inside(graph.graph):
                kept[handle.name] = tf.ensure_shape(tf.raw_ops.ReadVariableOp(resource=handle, dtype=dtype), shape)
        return kept[handle.name]
