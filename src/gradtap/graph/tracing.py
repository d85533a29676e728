"""Run a model's Python once into a graph: the parts of a forward pass that a tap can name are in a `ForwardGraph`."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import tensorflow as tf

from gradtap import errors
from gradtap.graph import keras_internals as internals
from gradtap.graph import surgery
from gradtap.graph.capture import LayerCall, Recorder
from gradtap.graph.naming import NamedLayer, named_layers
from gradtap.graph.randomness import Draw
from gradtap.graph.sources import Source
from gradtap.types import Layer, Structure, Tensor

#: Wrapping a layer's call is visible to every thread for a moment, so one trace is made at a time.
TRACING = threading.RLock()


@dataclass(frozen=True)
class TracedLayer:
    """A layer of a traced model, without the layer: what it is called and what class it is.

    Args:
      layer: Weak; None for what cannot be referenced weakly.
      steps: From the model down, every name that each step goes by.
      kind: Name of its class.
      parameters: Number of weights it holds itself or below.
      classes: Its class and the classes it inherits from.
      is_recurrent: Whether it runs a cell in a loop whose states can be traced.
    """

    layer: weakref.ref[Layer] | None
    steps: tuple[tuple[str, ...], ...]
    kind: str
    parameters: int
    classes: tuple[type, ...]
    is_recurrent: bool = False

    @property
    def path(self) -> str:
        """The canonical path."""
        return "/".join(names[0] for names in self.steps)

    def is_layer(self, layer: Layer) -> bool:
        """Whether this is that very layer."""
        return self.layer is not None and self.layer() is layer


@dataclass
class ForwardGraph:
    """A model's forward pass as a graph, with every layer call named.

    Args:
      wrapped: The traced function; its ``.graph`` grows as backward passes are added.
      feeds: The input tensors.
      input_structure: How the inputs are nested, positions at the leaves.
      input_names: One name for each feed.
      outputs: The output tensors, flattened.
      output_structure: How the outputs are nested, positions at the leaves.
      output_names: One name for each output.
      layers: Everything that can be named, in the order of the model.
      calls: The recorded calls, by canonical path, in the order they ran.
      elsewhere: Paths of layers that ran inside a loop's or branch's own graph.
      draws: What the model draws from its random number generators.
      training: The flag the model was called with.
      forward_ops: How many ops the forward pass has; what was added to the graph since comes after.
      has_states: Whether the states of recurrent layers were traced.
      programs: What was built on this graph, by whoever built it.
      lock: Held while ops are added to the graph.
    """

    wrapped: Any
    feeds: list[Tensor]
    input_structure: Structure
    input_names: tuple[str, ...]
    outputs: list[Tensor]
    output_structure: Structure
    output_names: tuple[str, ...]
    layers: list[TracedLayer]
    calls: dict[str, list[LayerCall]]
    elsewhere: set[str]
    draws: list[Draw]
    training: bool
    forward_ops: int = 0
    has_states: bool = False
    programs: dict[Any, Any] = field(default_factory=dict)
    lock: threading.RLock = field(default_factory=threading.RLock)

    @property
    def all_feeds(self) -> list[Tensor]:
        """What every program on this graph is fed: the inputs, then the seeds of its draws."""
        return [*self.feeds, *(draw.placeholder for draw in self.draws)]

    @property
    def graph(self) -> Any:
        """The `FuncGraph` itself."""
        return self.wrapped.graph

    def pack_outputs(self, flat: Sequence[Any]) -> Structure:
        """Nest flat values the way the model nests its outputs."""
        return tf.nest.map_structure(lambda i: None if i is None else flat[i], self.output_structure)


def trace_forward(
    source: Source,
    specs: Sequence[Any],
    structure: Structure,
    names: tuple[str, ...],
    training: bool,
    states: bool = False,
) -> ForwardGraph:
    """Run the model's Python once into a graph.

    Args:
      source: The model, built.
      specs: A `tf.TensorSpec` for each input, None in the axes that stay free.
      structure: How the inputs are nested, positions at the leaves.
      names: One name for each input.
      training: Passed to the model.
      states: Trace recurrent layers so that their states can be tapped.

    Raises:
      ModelCallError: The model's own code raised; the layer in which it did is named.
    """
    with tf.init_scope(), TRACING:
        found = named_layers(source.model)
        recorder = Recorder(found, with_states=states)
        layers = [_traced(named) for named in found]
        box: list[Any] = []

        def forward(*tensors: Tensor) -> list[Tensor]:
            recorder.start()
            box[:] = [_as_tensors(source.call(tf.nest.map_structure(lambda i: tensors[i], structure), training))]
            return [value for value in tf.nest.flatten(box[0]) if value is not None]

        try:
            with recorder.recording():
                wrapped = surgery.wrap(forward, specs)
        except Exception as error:
            raise call_error(source, specs, error, recorder.failed) from error
        outputs = [value for value in tf.nest.flatten(box[0]) if value is not None]
        count = iter(range(len(outputs)))
        positions = tf.nest.map_structure(lambda value: None if value is None else next(count), box[0])
        return ForwardGraph(
            wrapped=wrapped,
            feeds=list(wrapped.inputs[: len(specs)]),
            input_structure=structure,
            input_names=names,
            outputs=outputs,
            output_structure=positions,
            output_names=_output_names(source, positions, len(outputs)),
            layers=layers,
            calls={path: calls for path, calls in recorder.calls.items() if path not in recorder.elsewhere},
            elsewhere=recorder.elsewhere,
            draws=recorder.draws,
            training=training,
            forward_ops=surgery.op_count(wrapped.graph),
            has_states=states,
        )


def _as_tensors(outputs: Structure) -> Structure:
    if all(value is None for value in tf.nest.flatten(outputs)):
        raise errors.ModelTypeError("the model returned nothing.", [], "return a tensor, or a dict or list of tensors")

    def own(value: Any) -> Tensor | None:
        if value is None:
            return None
        if isinstance(value, (tf.RaggedTensor, tf.SparseTensor)):
            raise errors.ModelTypeError(
                f"the model returns a {type(value).__name__}.", [], "return dense tensors: x.to_tensor()"
            )
        return tf.identity(tf.convert_to_tensor(value))

    return tf.nest.map_structure(own, outputs)


def _traced(named: NamedLayer) -> TracedLayer:
    layer = named.layer
    count = layer.count_params() if hasattr(layer, "count_params") and getattr(layer, "built", True) else 0
    return TracedLayer(
        weakref.ref(layer),
        named.steps,
        type(layer).__name__,
        int(count),
        type(layer).__mro__,
        internals.is_recurrent(layer),
    )


def _output_names(source: Source, positions: Structure, count: int) -> tuple[str, ...]:
    if isinstance(positions, Mapping):
        return tuple(name for name, _ in sorted(_named_leaves(positions), key=lambda item: item[1]))
    declared = source.output_names()
    if declared and len(declared) == count and len(set(declared)) == count:
        return tuple(declared)
    return tuple(str(i) for i in range(count))


def _named_leaves(positions: Structure) -> Iterator[tuple[str, int]]:
    """Where each output stands in a nest of dicts and lists, its keys joined by dots, and its position."""
    items = positions.items() if isinstance(positions, Mapping) else enumerate(positions)
    for key, value in items:
        if isinstance(value, int):
            yield str(key), value
        elif value is not None:
            yield from ((f"{key}.{name}", position) for name, position in _named_leaves(value))


def call_error(source: Source, specs: Sequence[Any], error: Exception, layer: str | None) -> errors.GradtapError:
    """What a model's own exception becomes, with the layer in which it was raised."""
    if isinstance(error, errors.GradtapError):
        return error
    shapes = ", ".join(f"{tuple(spec.shape)} {spec.dtype.name}" for spec in specs)
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    facts = [("inputs", shapes)]
    if layer is not None:
        facts.append(("raised in", f"`{layer}`" if layer else "the model itself"))
    facts.append(("it said", f"{type(error).__name__}: " + "\n".join(lines[:6])))
    said = f"{type(source.model).__name__} raised {type(error).__name__} in its forward pass."
    return errors.ModelCallError(said, facts, _remedies(str(error)))


def _remedies(said: str) -> list[str]:
    """What to do about an exception of the model's own code, by what it says."""
    alike = "it runs eagerly and cannot be traced: tf.function(model)(x) and model.predict(x) fail in the same way"
    if "to a numpy array" in said or "has no attribute 'numpy'" in said:
        return ["NumPy code in `call`: write it with TensorFlow or keras.ops", alike]
    if "as a Python `bool`" in said or "Python bool" in said:
        return ["a Python `if` on the value of a tensor: write it with tf.where or tf.cond", alike]
    return ["call the model itself on these inputs: it should fail in the same way"]
