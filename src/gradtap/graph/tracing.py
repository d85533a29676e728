"""Run a model's Python once into a graph, and keep the graph with the model, weakly.

The parts of a forward pass that a tap can name are in a `ForwardGraph`. `Graphs` holds those of one model, one for each
input signature and ``training`` flag, for as long as the model lives and keeps its structure.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import tensorflow as tf

from gradtap import errors
from gradtap.graph import surgery
from gradtap.graph.capture import LayerCall, Recorder
from gradtap.graph.fingerprint import Fingerprint
from gradtap.graph.inputs import Feeds
from gradtap.graph.naming import NamedLayer, named_layers
from gradtap.graph.randomness import Draw
from gradtap.graph.sources import Source
from gradtap.types import Layer, Model, Structure, Tensor

#: Wrapping a layer's call is visible to every thread for a moment, so one trace is made at a time.
_TRACING = threading.RLock()

_Shape = tuple[int | None, ...]


@dataclass(frozen=True)
class TracedLayer:
    """A layer of a traced model, without the layer: what it is called and what class it is.

    Args:
      layer: Weak; None for what cannot be referenced weakly.
      steps: From the model down, every name that each step goes by.
      kind: Name of its class.
      parameters: Number of weights it holds itself or below.
      classes: Its class and the classes it inherits from.
    """

    layer: weakref.ref[Layer] | None
    steps: tuple[tuple[str, ...], ...]
    kind: str
    parameters: int
    classes: tuple[type, ...]

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


class Graphs:
    """The forward graphs of one model, to which it never refers but weakly."""

    def __init__(self) -> None:
        self._fingerprint: Fingerprint | None = None
        self._by_key: dict[Any, ForwardGraph] = {}
        self._shapes: dict[Any, list[tuple[_Shape, ...]]] = {}

    def forward_graph(self, source: Source, feeds: Feeds, training: bool) -> ForwardGraph:
        """The graph for these inputs: one that was made before where it still holds, else a new one.

        Raises:
          ModelCallError: The model's own code raised.
        """
        if self._fingerprint is None or not self._fingerprint.matches(source.model):
            with _TRACING:
                self._by_key, self._shapes = {}, {}
                self._fingerprint = Fingerprint(source.model)
        kind = _kind(feeds, training)
        shapes = tuple(_static(t) for t in feeds.tensors)
        graph = self._by_key.get((kind, shapes))
        if graph is None:
            with _TRACING:
                graph = self._by_key.get((kind, shapes)) or self._trace(source, feeds, training, kind, shapes)
                self._by_key[kind, shapes] = graph
        return graph

    def __len__(self) -> int:
        return len(self._by_key)

    def any_graph(self) -> ForwardGraph | None:
        """A graph that was made before, for callers that need no particular one."""
        return next(reversed(self._by_key.values()), None)

    def _trace(
        self, source: Source, feeds: Feeds, training: bool, kind: Any, shapes: tuple[_Shape, ...]
    ) -> ForwardGraph:
        full = tuple(tuple(t.shape) for t in feeds.tensors)
        for known, graph in list(self._by_key.items()):
            if known[0] == kind and _admits([tuple(f.shape) for f in graph.feeds], full):
                return graph
        declared = source.declared_inputs()
        if declared and all(len(d) == len(s) for d, s in zip(declared.shapes, full, strict=True)):
            attempts = [declared.shapes]
        else:
            seen = self._shapes.setdefault(kind, [])
            attempts = [_free_axes(full, seen), _free_axes(full, ())]
            seen.append(shapes)
        graph = _first_that_traces(source, feeds, training, list(dict.fromkeys([*attempts, full])))
        # Building made variables, and the model may have set flags of its own: this is what was traced.
        self._fingerprint = Fingerprint(source.model)
        return graph


def _kind(feeds: Feeds, training: bool) -> Any:
    structure = None if feeds.structure == 0 else repr(feeds.structure)
    return (structure, feeds.names, tuple((t.dtype, t.shape.rank) for t in feeds.tensors), training)


def _static(tensor: Tensor) -> _Shape:
    return tuple(tensor.shape)[1:] if tensor.shape.rank else ()


def _free_axes(full: Sequence[_Shape], seen: Sequence[Sequence[_Shape]]) -> tuple[_Shape, ...]:
    """Leave the batch free, and every axis whose size has been seen to differ."""
    free = [list(shape) for shape in full]
    for axes in free:
        axes[:1] = [None] * len(axes[:1])
    for earlier in seen:
        for axes, other in zip(free, earlier, strict=True):
            axes[1:] = [a if a == b else None for a, b in zip(axes[1:], other, strict=True)]
    return tuple(tuple(axes) for axes in free)


def _admits(specs: Sequence[_Shape], full: Sequence[_Shape]) -> bool:
    return all(
        len(spec) == len(shape) and all(a is None or a == b for a, b in zip(spec, shape, strict=True))
        for spec, shape in zip(specs, full, strict=True)
    )


def _first_that_traces(
    source: Source, feeds: Feeds, training: bool, attempts: Sequence[tuple[_Shape, ...]]
) -> ForwardGraph:
    _build(source, feeds)
    failure: Exception | None = None
    for shapes in attempts:
        specs = [tf.TensorSpec(s, t.dtype) for s, t in zip(shapes, feeds.tensors, strict=True)]
        try:
            return trace_forward(source, specs, feeds.structure, feeds.names, training)
        except errors.GradtapError as error:
            failure = error  # the model may need the sizes that the next attempt gives
    raise failure if failure else errors.ModelCallError("the model was given nothing to run on.")


def _build(source: Source, feeds: Feeds) -> None:
    """Build a model that was never called as a call on these inputs would."""
    with tf.init_scope():
        try:
            source.ensure_built(feeds.tensors, feeds.structure)
        except Exception as error:
            raise _call_error(source, feeds.tensors, error, None) from error


def trace_forward(
    source: Source, specs: Sequence[Any], structure: Structure, names: tuple[str, ...], training: bool
) -> ForwardGraph:
    """Run the model's Python once into a graph.

    Args:
      source: The model, built.
      specs: A `tf.TensorSpec` for each input, None in the axes that stay free.
      structure: How the inputs are nested, positions at the leaves.
      names: One name for each input.
      training: Passed to the model.

    Raises:
      ModelCallError: The model's own code raised; the layer in which it did is named.
    """
    with tf.init_scope(), _TRACING:
        found = named_layers(source.model)
        recorder = Recorder(found)
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
            raise _call_error(source, specs, error, recorder.failed) from error
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
    return TracedLayer(weakref.ref(layer), named.steps, type(layer).__name__, int(count), type(layer).__mro__)


def _output_names(source: Source, positions: Structure, count: int) -> tuple[str, ...]:
    if isinstance(positions, dict) and len(positions) == count:
        return tuple(str(k) for k, _ in sorted(positions.items(), key=lambda item: item[1]))
    declared = source.output_names()
    if declared and len(declared) == count and len(set(declared)) == count:
        return tuple(declared)
    return tuple(str(i) for i in range(count))


def _call_error(source: Source, specs: Sequence[Any], error: Exception, layer: str | None) -> errors.GradtapError:
    if isinstance(error, errors.GradtapError):
        return error
    shapes = ", ".join(f"{tuple(spec.shape)} {spec.dtype.name}" for spec in specs)
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    facts = [("inputs", shapes)]
    if layer is not None:
        facts.append(("raised in", f"`{layer}`" if layer else "the model itself"))
    facts.append(("it said", f"{type(error).__name__}: " + "\n".join(lines[:6])))
    return errors.ModelCallError(
        f"{type(source.model).__name__} raised {type(error).__name__} in its forward pass.",
        facts,
        "call the model itself on these inputs: it should fail in the same way; "
        "NumPy code in `call` cannot be traced, TensorFlow or keras.ops code can",
    )


class _Kept:
    """Graphs by model, each gone with its model. Identity decides: a model may define equality as it likes."""

    def __init__(self) -> None:
        self._entries: dict[Any, tuple[weakref.ref[Any], Graphs]] = {}

    def get(self, model: Any) -> Graphs:
        owner, key = _owner(model)
        entry = self._entries.get(key)
        if entry is not None and entry[0]() is owner:
            return entry[1]
        graphs = Graphs()
        # What cannot be referenced weakly is traced anew each time, rather than kept alive.
        with suppress(TypeError):
            self._entries[key] = (weakref.ref(owner, self._dropper(key)), graphs)
        return graphs

    def drop(self, model: Any) -> None:
        self._entries.pop(_owner(model)[1], None)

    def _dropper(self, key: Any) -> Callable[[Any], None]:
        def drop(reference: Any) -> None:
            entry = self._entries.get(key)
            if entry is not None and entry[0] is reference:
                del self._entries[key]

        return drop


def _owner(model: Any) -> tuple[Any, Any]:
    """What a model's graphs live with: a bound method is made anew at each access, so its object is meant."""
    owner, function = getattr(model, "__self__", None), getattr(model, "__func__", None)
    return (model, id(model)) if owner is None or function is None else (owner, (id(owner), id(function)))


_KEPT = _Kept()


class Trace:
    """A model whose forward pass is kept as a graph; accepted wherever a model is.

    Args:
      model: Any model that gradtap takes.
      jit_compile: Compile with XLA. Slower on a CPU; falls back with a warning where XLA refuses the ops.

    A plain model is traced behind the scenes in the same way, and its graphs are kept weakly, with the model. A
    `Trace` that is held keeps its model, as any handle does.
    """

    __slots__ = ("__weakref__", "_graphs", "jit_compile", "model", "source")

    def __init__(self, model: Model, *, jit_compile: bool = False) -> None:
        self.source = Source(model)
        self.model = model
        self.jit_compile = jit_compile
        self._graphs = _KEPT.get(model)

    @property
    def graphs(self) -> Graphs:
        """The graphs made so far, and the means to make more."""
        return self._graphs

    def forget(self) -> None:
        """Drop every graph that was made; the next use traces the model anew."""
        _KEPT.drop(self.model)
        self._graphs = _KEPT.get(self.model)

    def __call__(self, *args: Any, **kwargs: Any) -> Structure:
        """Call the model itself."""
        return self.model(*args, **kwargs)

    def __repr__(self) -> str:
        return f"Trace({type(self.model).__name__}, graphs={len(self._graphs)})"
