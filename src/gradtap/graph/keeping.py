"""Keep the graphs of a model with the model, weakly, for as long as it lives and keeps its structure.

`Graphs` holds those of one model: one for each input signature and ``training`` flag, and one more where the states of
recurrent layers were asked for.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from copy import copy
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from gradtap import errors
from gradtap.graph.fingerprint import Fingerprint
from gradtap.graph.inputs import Feeds
from gradtap.graph.sources import Source
from gradtap.graph.surgery import is_whole
from gradtap.graph.tracing import TRACING, ForwardGraph, call_error, trace_forward
from gradtap.types import Address, Model, Structure, Tensor, TensorLike

_Shape = tuple[int | None, ...]


class Graphs:
    """The forward graphs of one model, to which it never refers but weakly.

    Args:
      stand_ins: Handles of variables that are read in the place of the model's own, by the identity of those.
    """

    def __init__(self, stand_ins: Mapping[int, Tensor] | None = None) -> None:
        self._stand_ins = stand_ins or {}
        self._fingerprint: Fingerprint | None = None
        self._by_key: dict[Any, ForwardGraph] = {}
        self._shapes: dict[Any, list[tuple[_Shape, ...]]] = {}

    def forward_graph(self, source: Source, feeds: Feeds, training: bool, states: bool = False) -> ForwardGraph:
        """The graph for these inputs: one that was made before where it still holds, else a new one.

        Args:
          source: The model.
          feeds: Its inputs.
          training: Passed to the model.
          states: Whether the states of recurrent layers are to be tapped.

        Raises:
          ModelCallError: The model's own code raised.
        """
        if self._fingerprint is None or not self._fingerprint.matches(source.kept_with):
            with TRACING:
                self._by_key, self._shapes = {}, {}
                self._fingerprint = Fingerprint(source.kept_with)
        if not all(is_whole(graph.graph) for graph in list(self._by_key.values())):
            with TRACING:
                self._by_key = {key: graph for key, graph in self._by_key.items() if is_whole(graph.graph)}
        kind = _kind(feeds, training, states)
        shapes = tuple(_static(t) for t in feeds.tensors)
        graph = self._by_key.get((kind, shapes))
        if graph is None:
            with TRACING:
                graph = self._by_key.get((kind, shapes)) or self._trace(source, feeds, kind, shapes)
                # A graph for one number of examples must not answer for another.
                self._by_key[kind, shapes if _batch_is_free(graph) else _full(feeds)] = graph
        return graph

    def __len__(self) -> int:
        return len(self._by_key)

    def any_graph(self) -> ForwardGraph | None:
        """A graph that was made before, for callers that need no particular one."""
        return next(reversed(self._by_key.values()), None)

    def _trace(self, source: Source, feeds: Feeds, kind: _Kind, shapes: tuple[_Shape, ...]) -> ForwardGraph:
        full = _full(feeds)
        for known, graph in list(self._by_key.items()):
            if known[0] == kind and _admits([tuple(f.shape) for f in graph.feeds], full):
                return graph
        declared = source.declared_inputs()
        if declared and all(len(d) == len(s) for d, s in zip(declared.shapes, full, strict=True)):
            attempts = [declared.shapes, _free_axes(full, ())]
        else:
            seen = self._shapes.setdefault(kind, [])
            attempts = [_free_axes(full, seen), _free_axes(full, ())]
            seen.append(shapes)
        graph = _first_that_traces(source, feeds, kind, list(dict.fromkeys([*attempts, full])))
        graph.wrapped.stand_ins = self._stand_ins
        # Building made variables, and the model may have set flags of its own: this is what was traced.
        self._fingerprint = Fingerprint(source.kept_with)
        return graph


@dataclass(frozen=True)
class _Kind:
    """What a graph is traced for, but for the sizes."""

    structure: str | None
    names: tuple[str, ...]
    types: tuple[Any, ...]
    training: bool
    states: bool


def _kind(feeds: Feeds, training: bool, states: bool) -> _Kind:
    structure = None if feeds.structure == 0 else repr(feeds.structure)
    return _Kind(structure, feeds.names, tuple((t.dtype, t.shape.rank) for t in feeds.tensors), training, states)


def _static(tensor: Tensor) -> _Shape:
    return tuple(tensor.shape)[1:] if tensor.shape.rank else ()


def _full(feeds: Feeds) -> tuple[_Shape, ...]:
    return tuple(tuple(tensor.shape) for tensor in feeds.tensors)


def _batch_is_free(graph: ForwardGraph) -> bool:
    return all(feed.shape.rank == 0 or feed.shape[0] is None for feed in graph.feeds)


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
    source: Source, feeds: Feeds, kind: _Kind, attempts: Sequence[tuple[_Shape, ...]]
) -> ForwardGraph:
    _build(source, feeds, kind.training)
    failure: Exception | None = None
    for shapes in attempts:
        specs = [tf.TensorSpec(s, t.dtype) for s, t in zip(shapes, feeds.tensors, strict=True)]
        try:
            return trace_forward(source, specs, feeds.structure, feeds.names, kind.training, kind.states)
        except errors.GradtapError as error:
            failure = error  # the model may need the sizes that the next attempt gives
    raise failure if failure else errors.ModelCallError("the model was given nothing to run on.")


def _build(source: Source, feeds: Feeds, training: bool) -> None:
    """Build a model that was never called as a call on these inputs would."""
    with tf.init_scope():
        try:
            source.ensure_built(feeds.tensors, feeds.structure, training)
        except Exception as error:
            raise call_error(source, feeds.tensors, error, None) from error


class _Kept:
    """Graphs by model, each gone with its model. Identity decides: a model may define equality as it likes."""

    def __init__(self) -> None:
        self._entries: dict[Any, tuple[weakref.ref[Any], Graphs]] = {}

    def get(self, model: Any, variant: str | None = None) -> Graphs:
        owner, key = _owner(model, variant)
        entry = self._entries.get(key)
        if entry is not None and entry[0]() is owner:
            return entry[1]
        graphs = Graphs()
        # What cannot be referenced weakly is traced anew each time, rather than kept alive.
        with suppress(TypeError):
            self._entries[key] = (weakref.ref(owner, self._dropper(key)), graphs)
        return graphs

    def drop(self, model: Any, variant: str | None = None) -> None:
        self._entries.pop(_owner(model, variant)[1], None)

    def _dropper(self, key: Any) -> Callable[[Any], None]:
        def drop(reference: Any) -> None:
            entry = self._entries.get(key)
            if entry is not None and entry[0] is reference:
                del self._entries[key]

        return drop


def _owner(model: Any, variant: str | None) -> tuple[Any, Any]:
    """What a model's graphs live with: a bound method is made anew at each access, so its object is meant."""
    owner, function = getattr(model, "__self__", None), getattr(model, "__func__", None)
    if owner is None or function is None:
        return model, (id(model), variant)
    return owner, (id(owner), id(function), variant)


_KEPT = _Kept()


class Trace:
    """A model whose forward pass is kept as a graph; accepted wherever a model is.

    Args:
      model: Any model that gradtap takes.
      jit_compile: Compile with XLA. Slower on a CPU; falls back with a warning where XLA refuses the ops.
      signature: Which signature of a loaded SavedModel.

    A plain model is traced behind the scenes in the same way, and its graphs are kept weakly, with the model. A
    `Trace` that is held keeps its model, as any handle does.
    """

    __slots__ = ("__weakref__", "_graphs", "_signature", "jit_compile", "model", "source")

    def __init__(self, model: Model, *, jit_compile: bool = False, signature: str | None = None) -> None:
        self.source = Source(model, signature)
        self.model = self.source.model
        self.jit_compile = jit_compile
        self._graphs = _KEPT.get(self.source.kept_with, signature)
        self._signature = signature

    @property
    def graphs(self) -> Graphs:
        """The graphs made so far, and the means to make more."""
        return self._graphs

    def with_graphs(self, graphs: Graphs) -> Trace:
        """The same model with graphs of its own."""
        other = copy(self)
        other._graphs = graphs
        return other

    def forget(self) -> None:
        """Drop every graph that was made; the next use traces the model anew."""
        _KEPT.drop(self.source.kept_with, self._signature)
        self._graphs = _KEPT.get(self.source.kept_with, self._signature)

    def suffix(self, at: Address, inputs: Structure, *, training: bool = False) -> Callable[[TensorLike], Structure]:
        """The rest of the model from a tap on, as a function of the activations there.

        What comes before the tap never runs again. Where a branch goes around the tap, that branch is computed from
        ``inputs`` at each call. New values of weights are seen at once; the structure is that of the model when the
        function was made, so after a change to it (another activation, another layer) make a new one.

        Args:
          at: Where the rest begins: one address.
          inputs: One batch as the model takes it. Where the tap cuts the model in two, only their shapes matter.
          training: Passed to the model.

        Returns:
          A function from activations ``(batch, ...)`` to the model's outputs, nested as the model returns them. It may
          be called inside of a `tf.function`, and differentiated by a tape. The number of examples is free, unless a
          branch goes around the tap: then it is that of ``inputs``, or one of the two is 1.

        Raises:
          GradtapError: One class for each cause; ``docs/errors`` has a page for each.

        Example:
          >>> import gradtap as gt, keras, numpy as np
          >>> layers = [keras.layers.Dense(3, name="hidden"), keras.layers.Dense(2)]
          >>> model = keras.Sequential([keras.Input((4,)), *layers])
          >>> rest = gt.trace(model).suffix("hidden", np.ones((1, 4)))
          >>> bool(np.allclose(rest(np.zeros((5, 3))), layers[1].bias))
          True
        """
        from gradtap.graph.suffixes import suffix

        return suffix(self, at, inputs, training)

    def __call__(self, *args: Any, **kwargs: Any) -> Structure:
        """Call the model itself."""
        return self.model(*args, **kwargs)

    def __repr__(self) -> str:
        return f"Trace({type(self.model).__name__}, graphs={len(self._graphs)})"
