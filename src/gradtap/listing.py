"""Every place of a model that can be tapped, as a list and as a tree."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any, overload

import tensorflow as tf

from gradtap import errors
from gradtap.graph import keras_internals as internals
from gradtap.graph import surgery
from gradtap.graph.capture import LayerCall
from gradtap.graph.inputs import Feeds, read_inputs
from gradtap.graph.keeping import Trace
from gradtap.graph.model_files import as_trace
from gradtap.graph.tracing import ForwardGraph
from gradtap.tap import Tap
from gradtap.targets import as_target
from gradtap.types import Model, Structure, Tensor


@dataclass(frozen=True)
class TapEntry:
    """One place that can be tapped.

    Args:
      tap: The tap, for ``at=``.
      address: The same as text.
      layer: Name of the layer's class; ``"model"`` for the model itself.
      shape: Of the tensor, None in free axes; None where the layer did not run.
      dtype: Name of its type; empty where the layer did not run.
      calls: How often the layer runs in a forward pass.
      parameters: Number of weights of the layer and all below it.
      reached: Whether the target, or some output where none was given, has a gradient here.
    """

    tap: Tap
    address: str
    layer: str
    shape: tuple[int | None, ...] | None
    dtype: str
    calls: int
    parameters: int
    reached: bool


class TapList(Sequence[TapEntry]):
    """The entries of `gradtap.taps`: a list that prints as a tree, and as HTML in a notebook.

    Args:
      model: Name of the model's class.
      entries: In the order of the model.
    """

    def __init__(self, model: str, entries: Sequence[TapEntry]) -> None:
        self.model = model
        self._entries = list(entries)

    @overload
    def __getitem__(self, index: int) -> TapEntry: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[TapEntry]: ...
    def __getitem__(self, index: int | slice) -> TapEntry | Sequence[TapEntry]:
        return self._entries[index]

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[TapEntry]:
        return iter(self._entries)

    def __contains__(self, entry: object) -> bool:
        return entry in self._entries or any(entry in (e.address, e.tap) for e in self._entries)

    def __rich__(self) -> Any:
        """The tree, for `rich.print`."""
        from rich.text import Text
        from rich.tree import Tree

        root = Tree(Text(self.model, style="bold"))
        branches: dict[str, Any] = {"": root}
        for entry in self._entries:
            path = entry.tap.path
            if not path:
                root.add(_rich_row(entry.address, entry))
                continue
            parent = next((p for p in _parents(path) if p in branches), "")
            name = path[len(parent) :].lstrip("/") + entry.address[len(path) :]
            branch = branches[parent].add(_rich_row(name, entry))
            branches.setdefault(path, branch)
        return root

    def __str__(self) -> str:
        from io import StringIO

        from rich.console import Console

        page = StringIO()
        Console(file=page, width=120, color_system=None).print(self)
        return page.getvalue().rstrip()

    __repr__ = __str__

    def _repr_html_(self) -> str:
        head = "".join(f"<th>{name}</th>" for name in ("address", "layer", "shape", "dtype", "calls", "parameters", ""))
        rows = "".join(
            f"<tr><td><code>{'&emsp;' * e.tap.path.count('/')}{escape(e.address)}</code></td><td>{escape(e.layer)}</td>"
            f"<td>{_shape_text(e.shape)}</td><td>{e.dtype}</td><td>{e.calls}</td><td>{e.parameters:,}</td>"
            f"<td>{_remark(e)}</td></tr>"
            for e in self._entries
        )
        return f"<table><caption>{escape(self.model)}</caption><tr>{head}</tr>{rows}</table>"


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
    reached = _reached(graph, [tensor for _, tensor, *_ in found], target)
    entries = []
    for tap, tensor, kind, calls, parameters in found:
        shape = None if tensor is None else tuple(tensor.shape) if tensor.shape.rank is not None else ()
        dtype = "" if tensor is None else tensor.dtype.name
        hit = tensor is not None and id(tensor) in reached
        entries.append(TapEntry(tap, str(tap), kind, shape, dtype, calls, parameters, hit))
    return TapList(type(trace.model).__name__, entries)


def _graph(trace: Trace, inputs: Structure, training: bool) -> ForwardGraph:
    if inputs is not None:
        given = read_inputs(inputs, trace.source.declared_inputs(), trace.source.float_dtype())
        return trace.graphs.forward_graph(trace.source, given, training)
    feeds = _example_feeds(trace)
    if feeds is not None:
        return trace.graphs.forward_graph(trace.source, feeds, training)
    graph = trace.graphs.any_graph()
    if graph is None:
        raise errors.InputStructureError(
            f"{type(trace.model).__name__} does not say what inputs it takes.",
            [],
            "gt.taps(model, inputs) with a batch of data",
        )
    return graph


def _example_feeds(trace: Trace) -> Feeds | None:
    """One example of zeros in the form that the model declares, or that it was built with."""
    declared = trace.source.declared_inputs()
    if declared is not None:
        sizes = [[1 if n is None else n for n in shape] for shape in declared.shapes]
        tensors = [tf.zeros(s, d) for s, d in zip(sizes, declared.dtypes, strict=True)]
        # Free axes stay free in the trace: the declared shapes are what is traced.
        return Feeds(tensors, declared.structure, declared.names)
    shapes = internals.built_shapes(trace.model) if trace.source.is_keras else None
    if isinstance(shapes, tuple) and all(isinstance(n, int) or n is None for n in shapes):
        dtype = trace.source.float_dtype() or "float32"
        return Feeds([tf.zeros([1 if n is None else n for n in shapes], dtype)], 0, ("0",))
    return None


def _places(graph: ForwardGraph) -> Iterator[tuple[Tap, Tensor | None, str, int, int]]:
    total = graph.layers[0].parameters if graph.layers and not graph.layers[0].path else 0
    for side, names, tensors in (
        ("input", graph.input_names, graph.feeds),
        ("output", graph.output_names, graph.outputs),
    ):
        for name, tensor in zip(names, tensors, strict=True):
            tap = Tap("", side=side)
            yield tap if len(tensors) == 1 else tap.picked(name), tensor, "model", 1, total
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
            if call.preactivation is not None and not _is_linear(call):
                inner = Tap(tap.path, tap.call, "preactivation")
                yield inner, call.preactivation, layer.kind, len(calls), layer.parameters


def _is_linear(call: LayerCall) -> bool:
    """Whether the activation hands its input on, so that the pre-activation is the output."""
    return any(output.op.inputs and output.op.inputs[0] is call.preactivation for output in call.outputs)


def _reached(graph: ForwardGraph, tensors: Sequence[Tensor | None], target: Any) -> set[int]:
    floats = [t for t in tensors if t is not None and surgery.is_float(t)]
    with graph.lock:
        if target is None:
            score: Any = [o for o in graph.outputs if surgery.is_float(o)]
        else:
            wanted = as_target(target)
            wanted.key(graph)
            with surgery.inside(graph.graph):
                score = wanted.build(graph).value
        if not floats or (isinstance(score, list) and not score):
            return set()
        slopes = surgery.differentiate(score, floats)
    return {id(t) for t, slope in zip(floats, slopes, strict=True) if slope is not None}


def _parents(path: str) -> list[str]:
    names = path.split("/")
    return ["/".join(names[:i]) for i in range(len(names) - 1, 0, -1)]


def _rich_row(name: str, entry: TapEntry) -> Any:
    from rich.text import Text

    row = Text(name, style="bold cyan" if entry.reached else "dim")
    row.append(f"  {entry.layer}", style="green")
    if entry.shape is not None:
        row.append(f"  {_shape_text(entry.shape)} {entry.dtype}", style="default")
    if entry.parameters:
        row.append(f"  {entry.parameters:,} parameters", style="dim")
    remark = _remark(entry)
    if remark:
        row.append(f"  {remark}", style="yellow")
    return row


def _remark(entry: TapEntry) -> str:
    if entry.shape is None:
        return "does not run"
    return "" if entry.reached else "no gradient"


def _shape_text(shape: tuple[int | None, ...] | None) -> str:
    return "" if shape is None else "(" + ", ".join("·" if n is None else str(n) for n in shape) + ")"
