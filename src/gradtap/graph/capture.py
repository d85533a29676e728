"""Record which tensors every layer is given and returns, while a model is traced.

Each layer's ``call`` is wrapped on the instance, for the duration of the trace alone: when the traced graph runs,
nothing is hooked. The wrap records only for the thread and the graph that it was made for, so other threads may use
the model meanwhile, and whatever happens the layers are put back as they were found.
"""

from __future__ import annotations

import inspect
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import tensorflow as tf

from gradtap.graph import keras_internals as internals
from gradtap.graph import surgery
from gradtap.graph.naming import NamedLayer
from gradtap.graph.randomness import Draw, recorded_next
from gradtap.graph.recurrent import LoopState, recorded_inner_loop, recorded_rnn
from gradtap.types import Layer, Structure, Tensor

_ABSENT = object()

#: Attributes that a forward pass does not set and another thread might (`fit` does): never put back. Losses are: an
#: activity regulariser would leave symbolic tensors of our graph in them.
_LEFT_ALONE = internals.BOOKKEEPING - {"_losses", "_loss_ids", "_called", "_losses_override"}


@dataclass
class LayerCall:
    """One call of a layer in the traced graph.

    Args:
      inputs: The tensors it was given, flattened, positional arguments first.
      outputs: The tensors it returned, flattened.
      output_structure: The nest it returned, with positions at the leaves.
      preactivation: What its ``activation`` was applied to; None where it has none.
      states: Of a recurrent layer, where they were asked for.
      projections: The query, key and value of an attention layer that projects none.
      first_op: Number of ops in the graph before the call.
      last_op: Number of ops in the graph after the call.
    """

    inputs: list[Tensor]
    outputs: list[Tensor] = field(default_factory=list)
    output_structure: Structure = 0
    preactivation: Tensor | None = None
    states: list[LoopState] = field(default_factory=list)
    projections: dict[str, Tensor] = field(default_factory=dict)
    first_op: int = 0
    last_op: int = 0


class Recorder:
    """Collects the calls of a model's layers during one trace.

    Args:
      layers: Every layer to record, named. One that is listed twice is recorded under its first path.
      with_states: Record the states of recurrent layers at every step.
    """

    def __init__(self, layers: Sequence[NamedLayer], with_states: bool = False) -> None:
        self._with_states = with_states
        self._layers = {id(named.layer): named for named in reversed(layers)}
        self._thread = threading.get_ident()
        self._graph: Any = None
        self._calls_under_way: list[LayerCall] = []
        self._layers_under_way: list[weakref.ref[Layer]] = []
        self.calls: dict[str, list[LayerCall]] = {}
        #: Paths of layers that ran in another graph than the traced one: a loop's or a branch's body.
        self.elsewhere: set[str] = set()
        #: What the model drew from its random number generators.
        self.draws: list[Draw] = []
        #: The layer whose call raised first, innermost.
        self.failed: str | None = None

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Wrap every layer, and put every one back as it was, its other attributes included."""
        undo: list[tuple[dict[str, Any], str, Any]] = []
        found = [(_attributes(n.layer), _snapshot(_attributes(n.layer))) for n in self._layers.values()]
        try:
            for named in self._layers.values():
                self._wrap_layer(named.layer, named.path, undo)
            for generator in internals.seed_generators([n.layer for n in self._layers.values()]):
                attributes = _attributes(generator)
                undo.append((attributes, "next", attributes.get("next", _ABSENT)))
                attributes["next"] = recorded_next(generator, generator.next, self._graph_if_ours, self.draws)
            keras2 = internals.keras2_backend() if self._with_states else None
            if keras2 is not None:
                undo.append((vars(keras2), "rnn", keras2.rnn))
                keras2.rnn = recorded_rnn(keras2.rnn, self._layer_under_way, self._record_states)
            with internals.without_assignments(), surgery.functions_opened(self._is_recording):
                yield
        finally:
            for attributes, name, value in reversed(undo):
                _put_back(attributes, name, value)
            for attributes, before in found:
                _restore(attributes, before)
            self._layers.clear()

    def start(self) -> None:
        """Take the graph that is being built as the one to record."""
        self._graph = surgery.current_graph()

    def _wrap_layer(self, layer: Layer, path: str, undo: list[tuple[dict[str, Any], str, Any]]) -> None:
        attributes = _attributes(layer)
        name = internals.call_attribute(layer)
        method = getattr(type(layer), name, None)
        is_function = hasattr(method, "python_function") and name not in attributes
        original = surgery.opened(method, layer) if is_function else getattr(layer, name)
        undo.append((attributes, name, attributes.get(name, _ABSENT)))
        attributes[name] = self._recorded_call(layer, path, original)
        if hasattr(layer, internals.ADAPTING):  # a trace is for shapes that are no batch's
            undo.append((attributes, internals.ADAPTING, attributes.get(internals.ADAPTING, _ABSENT)))
            attributes[internals.ADAPTING] = lambda *_: None
        if attributes.get("_remat_mode") is not None:
            # Its wrapper takes no keywords in a graph, and would hide what is inside of the layer.
            undo.append((attributes, "_remat_mode", attributes["_remat_mode"]))
            attributes["_remat_mode"] = None
        activation = attributes.get("activation")
        if self._with_states and internals.is_recurrent(layer):
            self._wrap_loop(layer, attributes, undo)
        if internals.attends_unprojected(layer):
            for method, names in internals.ATTENDING.items():
                undo.append((attributes, method, attributes.get(method, _ABSENT)))
                attributes[method] = self._recorded_attending(getattr(layer, method), names)
        if callable(activation) and not internals.is_callable_node(activation):
            undo.append((attributes, "activation", activation))
            attributes["activation"] = self._recorded_activation(activation)

    def _wrap_loop(self, layer: Layer, attributes: dict[str, Any], undo: list[tuple[dict[str, Any], str, Any]]) -> None:
        if hasattr(layer, "inner_loop"):
            undo.append((attributes, "inner_loop", attributes.get("inner_loop", _ABSENT)))
            attributes["inner_loop"] = recorded_inner_loop(
                layer, layer.inner_loop, self._is_recording, self._record_states
            )
        elif internals.KERAS2_FUSED in attributes:
            undo.append((attributes, internals.KERAS2_FUSED, attributes[internals.KERAS2_FUSED]))
            attributes[internals.KERAS2_FUSED] = False

    def _layer_under_way(self) -> Layer | None:
        return self._layers_under_way[-1]() if self._is_recording() and self._layers_under_way else None

    def _is_ours(self) -> bool:
        return threading.get_ident() == self._thread and self._graph is not None

    def _graph_if_ours(self) -> Any:
        return self._graph if self._is_ours() else None

    def _is_recording(self) -> bool:
        return self._is_ours() and surgery.current_graph() is self._graph

    def _record_states(self, states: list[LoopState]) -> None:
        self._calls_under_way[-1].states = states

    def _recorded_call(self, layer: Layer, path: str, original: Callable[..., Any]) -> Callable[..., Any]:
        reference = weakref.ref(layer)

        def call(*args: Any, **kwargs: Any) -> Any:
            if not self._is_ours():
                return original(*args, **kwargs)
            if surgery.current_graph() is not self._graph:
                if surgery.is_inside(surgery.current_graph(), self._graph):
                    self.elsewhere.add(path)
                return original(*args, **kwargs)
            if internals.takes_batch_for_length(reference(), args):
                raise ValueError(f"`{path}` needs to know how many steps the sequence has")
            record = LayerCall(_tensors([args, kwargs], self._graph), first_op=surgery.op_count(self._graph))
            self._calls_under_way.append(record)
            self._layers_under_way.append(reference)
            try:
                result = original(*args, **kwargs)
            except BaseException:
                self.failed = path if self.failed is None else self.failed
                raise
            finally:
                self._calls_under_way.pop()
                self._layers_under_way.pop()
            result = self._own_tensors(result, record)
            record.last_op = surgery.op_count(self._graph)
            self.calls.setdefault(path, []).append(record)
            self._record_inputs(reference(), path, record)
            return result

        call.__wrapped__ = original  # type: ignore[attr-defined]  # its signature is the original's
        return call

    def _own_tensors(self, result: Structure, record: LayerCall) -> Structure:
        """Give each output a tensor of its own: a layer that returns its input would be tapped with all its users."""
        flat = tf.nest.flatten(result)
        own = [_identity(t) if _is_tensor(t, self._graph) else t for t in flat]
        record.outputs = [t for t in own if _is_tensor(t, self._graph)]
        positions = iter(range(len(own)))
        leaves = [next(positions) if _is_tensor(t, self._graph) else None for t in own]
        record.output_structure = tf.nest.pack_sequence_as(result, leaves)
        return tf.nest.pack_sequence_as(result, own)

    def _record_inputs(self, layer: Layer | None, path: str, record: LayerCall) -> None:
        """A functional model's input layers never run; what the model was given is what they stand for."""
        if layer is None or not internals.is_named_container(layer):
            return
        for placeholder, tensor in zip(internals.input_layers(layer), record.inputs, strict=False):
            if placeholder is not None:
                below = f"{path}/{placeholder.name}" if path else str(placeholder.name)
                given = LayerCall([tensor], [tensor], first_op=record.first_op, last_op=record.last_op)
                self.calls.setdefault(below, []).append(given)

    def _recorded_attending(self, original: Callable[..., Any], names: Sequence[str]) -> Callable[..., Any]:
        """Give query, key and value a tensor each, though the layer may have been given the same one for all."""
        signature = inspect.signature(original)

        def attend(*args: Any, **kwargs: Any) -> Any:
            given = signature.bind(*args, **kwargs)
            for name in names:
                if self._is_recording() and _is_tensor(given.arguments.get(name), self._graph):
                    own = _identity(given.arguments[name])
                    self._calls_under_way[-1].projections[name] = given.arguments[name] = own
            return original(*given.args, **given.kwargs)

        return attend

    def _recorded_activation(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def activation(x: Any, *args: Any, **kwargs: Any) -> Any:
            if self._is_ours() and self._calls_under_way and _is_tensor(x, self._graph):
                # Of its own: an activation layer is given what others may be given too.
                self._calls_under_way[-1].preactivation = x = _identity(x)
            return original(x, *args, **kwargs)

        return activation


def _is_tensor(value: Any, graph: Any) -> bool:
    return isinstance(value, tf.Tensor) and getattr(value, "graph", None) is graph


def _tensors(structure: Any, graph: Any) -> list[Tensor]:
    return [value for value in tf.nest.flatten(structure) if _is_tensor(value, graph)]


def _identity(tensor: Tensor) -> Tensor:
    own = tf.identity(tensor)
    # Keras hangs masks and logits on tensors; whoever looks for them must find them on the new one.
    for name, value in vars(tensor).items():
        if name.startswith("_keras"):
            setattr(own, name, value)
    return own


def _attributes(layer: Layer) -> dict[str, Any]:
    attributes: dict[str, Any] = layer.__dict__
    return attributes


def _snapshot(attributes: dict[str, Any]) -> dict[str, Any]:
    """The attributes of a layer that its own code may set, and what its lists and dicts hold; not deeper."""
    kept = {}
    for name, value in attributes.items():
        if name in _LEFT_ALONE:
            continue
        content = list(value) if isinstance(value, list) else dict(value) if isinstance(value, dict) else None
        kept[name] = (value, content)
    return kept


def _restore(attributes: dict[str, Any], before: dict[str, Any]) -> None:
    for name in [n for n in attributes if n not in before and n not in _LEFT_ALONE]:
        del attributes[name]
    for name, (value, content) in before.items():
        if attributes.get(name, _ABSENT) is not value:
            attributes[name] = value
        if content is not None and not _same(value, content):
            _refill(value, content)


def _refill(container: Any, content: Any) -> None:
    # Keras tracks what enters its containers; this is no entry, so the methods of the plain types are used.
    if isinstance(container, list):
        list.clear(container)
        list.extend(container, content)
    else:
        dict.clear(container)
        dict.update(container, content)


def _same(value: Any, content: Any) -> bool:
    if len(value) != len(content):
        return False
    if isinstance(content, list):
        return all(a is b for a, b in zip(value, content, strict=True))
    return all(k in value and value[k] is v for k, v in content.items())


def _put_back(attributes: dict[str, Any], name: str, value: Any) -> None:
    if value is _ABSENT:
        attributes.pop(name, None)
    else:
        attributes[name] = value
