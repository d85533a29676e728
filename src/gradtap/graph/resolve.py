"""Find the tensors of a traced graph that addresses mean."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from gradtap import errors
from gradtap.graph import copies, explain, op_names, sides
from gradtap.graph import keras_internals as internals
from gradtap.graph import weights as weights_of_layers
from gradtap.graph.capture import LayerCall
from gradtap.graph.recurrent import LoopState
from gradtap.graph.tracing import ForwardGraph, TracedLayer
from gradtap.graph.unresolved import fits, hints, no_match, no_weight, some, spellings, unknown_layer
from gradtap.tap import SIDES, Tap, no_side
from gradtap.types import Address, Layer, Operation, Tensor


@dataclass(frozen=True)
class Place:
    """One tensor that an address means.

    Args:
      key: The name of its result: the address as written, else the canonical one.
      tap: The canonical tap.
      tensor: The tensor in the traced graph.
      layer: The layer it belongs to; None for an op.
      group: The address that was asked where it means several tensors, of which this is one.
      by_pattern: Whether it was found by a glob or a class, so that it may be skipped where it has no gradient.
      state: Of a recurrent layer: it is made inside of a loop, where nothing can be fed or differentiated directly.
      weight: Of a weight the variable in the graph; the tensor is its value, which has no batch axis.
    """

    key: str
    tap: Tap
    tensor: Tensor
    layer: TracedLayer | None = None
    group: str | None = None
    by_pattern: bool = False
    state: LoopState | None = None
    weight: Tensor | None = None

    @property
    def variable(self) -> Tensor:
        """With respect to what a gradient here is taken: the tensor itself, or the perturbation that it includes."""
        if self.weight is not None:
            return self.weight
        return self.tensor if self.state is None else self.state.perturbation

    @property
    def feeds(self) -> list[Tensor]:
        """What is fed where the values here are replaced; of a state, what is replaced and by what."""
        return [self.tensor] if self.state is None else [self.state.replaced, self.state.perturbation]


def resolve(graph: ForwardGraph, at: Address | Sequence[Address], *, weights: bool = False) -> list[Place]:
    """All tensors that the addresses mean, in forward order, each key once.

    Args:
      graph: A traced forward pass.
      at: An address, a `Tap`, an entry of the list of taps, a layer, a layer class, or a list of these.
      weights: Whether weights may be asked for, which have nothing for each example.

    Raises:
      GradtapError: One of the classes of unknown, ambiguous and misspelt addresses; several mistakes at once.
    """
    asked = list(at) if is_several(at) else [at]
    if not asked:
        raise errors.ArgumentError("`at` is empty.", [], "name at least one address; gt.taps(model) lists them")
    finder = _Finder(graph)
    places: dict[str, Place] = {}
    wrong: list[errors.GradtapError] = []
    for one in asked:
        try:
            for place in finder.find(one):
                if place.weight is not None and not weights:
                    raise no_weight(place.key)
                if place.key not in places or not place.by_pattern:  # asked by name as well: it may not be skipped
                    places[place.key] = place
        except errors.GradtapError as error:
            wrong.append(error)
    errors.raise_all(wrong)
    if len(places) == 1:
        return list(places.values())
    order = {op: float(i) for i, op in enumerate(graph.graph.get_operations())}
    return sorted(places.values(), key=lambda place: _position(graph, place, order))


def is_several(at: Any) -> bool:
    """Whether something is a list of addresses; the list that `gradtap.taps` gives is one."""
    return isinstance(at, (set, frozenset)) or (
        isinstance(at, Sequence) and not isinstance(at, (str, bytes, bytearray))
    )


class _Finder:
    def __init__(self, graph: ForwardGraph) -> None:
        self.graph = graph

    def find(self, asked: Address) -> list[Place]:
        if isinstance(asked, str):
            return self._by_tap(Tap.parse(asked), asked)
        if isinstance(asked, Tap):
            return self._by_tap(_checked(asked), str(asked))
        if isinstance(getattr(asked, "tap", None), Tap):  # an entry of the list of taps
            return self.find(asked.tap)
        if inspect.isclass(asked):
            return self._by_class(asked)
        if internals.is_callable_node(asked):
            path = self._path_of(asked)
            return self._by_tap(Tap(path), path or ":output")
        raise errors.AddressSyntaxError(
            f"{errors.kind_of(asked)} is not an address.",
            [("received", errors.received(asked))],
            [
                *hints(asked),
                "give an address such as `conv1`, a Tap, a layer of the model, a layer class, or a list of these",
                "gt.taps(model) lists every address",
            ],
        )

    def _by_tap(self, tap: Tap, written: str) -> list[Place]:
        if tap.side == "op":
            return [self._op(tap, written)]
        if tap.path and not any(t.path for t in self.graph.layers):
            return self._in_graph_without_layers(tap, written)
        if tap.is_weight:
            return self._weights(tap, written)
        if tap.is_pattern:
            layers = [t for t in self.graph.layers if t.path and fits(tap.path, t)]
            return self._all_of(layers, tap, f"`{written}`")
        layer = self._layer(tap, written)
        if tap.path == "" and tap.face in ("input", "output"):
            self._call_indices(tap, layer, 1, written)
            return self._pick(self._root_tensors(tap), tap, written, layer)
        calls = self.graph.calls.get(layer.path, [])
        if not calls:
            raise explain.not_run(self.graph, layer, written)
        places = []
        for index in self._call_indices(tap, layer, len(calls), written):
            one = sides.numbered(calls[index], Tap(layer.path, index if len(calls) > 1 else None, tap.side))
            key = str(one) if tap.call == "*" else written
            found = dict(enumerate(self._side(calls[index], one, layer, written)))
            places += [_of_call(place, calls[index]) for place in self._pick(found, one, key, layer)]
        return [replace(place, group=written) for place in places] if tap.call == "*" else places

    def _in_graph_without_layers(self, tap: Tap, written: str) -> list[Place]:
        names = op_names.tensors_named(self.graph, tap, written)
        found = {tensor.name: self._own(tensor) for tensor in names}
        if tap.is_pattern:
            if not found:
                raise errors.NoMatchError(
                    f"`{written}` matches no op of floats.", [], "gt.taps(model, inputs) lists them"
                )
            return [Place(name, Tap.op(name), tensor, by_pattern=True) for name, tensor in found.items()]
        if len(found) == 1:
            return [Place(written, Tap.op(name), tensor) for name, tensor in found.items()]
        return [Place(name, Tap.op(name), tensor, group=written) for name, tensor in found.items()]

    def _weights(self, tap: Tap, written: str) -> list[Place]:
        """The weights of a name: that of one layer, or those of all layers that fit a pattern."""
        if tap.call is not None:
            raise errors.AddressSyntaxError(
                f"`{written}` asks for a call of a weight, which all calls share.", [], f"`{tap.path}:{tap.side}`"
            )
        if tap.is_pattern:
            fitting = [t for t in self.graph.layers if t.path and fits(tap.path, t)]
            below = [(t, weight) for t in fitting for weight in weights_of_layers.named_weights(self.graph, t)]
            own = [weight for t, weight in below if weight[0] is t and weight[1] == tap.side]
            places = [self._weight(str(Tap(w[0].path, side=tap.side)), *w, by_pattern=True) for w in own]
            if not any(places):
                raise no_match(self.graph, tap, f"`{written}`", [])
            return [place for place in places if place is not None]
        layer = self._layer(tap, written)
        found = list(weights_of_layers.named_weights(self.graph, layer))
        of_name = [w for w in found if w[1] == tap.side]
        of_name = [w for w in of_name if w[0].path == layer.path] or of_name
        if not of_name:
            raise no_side(tap.side, written, [str(Tap(w[0].path, side=w[1])) for w in found])
        if len(of_name) > 1:
            raise errors.SideError(
                f"{_called(layer)} has {len(of_name)} weights `{tap.side}`, and `{written}` does not say which.",
                [("weights", some([str(Tap(w[0].path, side=w[1])) for w in of_name]))],
                "name the layer that holds it",
            )
        place = self._weight(written, *of_name[0], by_pattern=False)
        if place is None:
            raise errors.SideError(f"the weight `{written}` is not read in this forward pass.", [], "another weight")
        return [place]

    def _weight(self, key: str, layer: TracedLayer, name: str, variable: Any, *, by_pattern: bool) -> Place | None:
        handle = weights_of_layers.handle_in(self.graph, variable)
        if handle is None:
            return None
        value = weights_of_layers.value_of(self.graph, handle, variable.dtype, variable.shape)
        return Place(key, Tap(layer.path, side=name), value, layer, by_pattern=by_pattern, weight=handle)

    def _own(self, tensor: Tensor) -> Tensor:
        with self.graph.lock:
            return copies.own_output(self.graph.graph, tensor, self.graph.forward_ops)

    def _by_class(self, asked: type) -> list[Place]:
        layers = [layer for layer in self.graph.layers if asked in layer.classes]
        return self._all_of(layers, Tap("**"), f"class {asked.__name__}")

    def _all_of(self, layers: Iterable[TracedLayer], tap: Tap, what: str) -> list[Place]:
        places: dict[str, Place] = {}
        fitting: list[TracedLayer] = []
        for layer in map(self._primary, layers):
            if layer.kind == "InputLayer" and tap.face == "output" and tap.path == "**":
                continue  # `**` means layer outputs; the model's input has an address of its own
            fitting.append(layer)
            calls = self.graph.calls.get(layer.path, [])
            for index, call in enumerate(calls):
                if tap.call not in (None, "*", index):
                    continue
                one = Tap(layer.path, index if len(calls) > 1 else None, tap.side)
                try:
                    found = dict(enumerate(self._side(call, one, layer, str(one))))
                    several = self._pick(found, one, str(one), layer)
                except errors.SideError:
                    continue
                places.update({p.key: replace(_of_call(p, call), by_pattern=True) for p in several})
        if not places:
            raise no_match(self.graph, tap, what, fitting)
        return list(places.values())

    def _layer(self, tap: Tap, written: str) -> TracedLayer:
        path = tap.path
        exact = [t for t in self.graph.layers if path in spellings(t)]
        tails = exact or [t for t in self.graph.layers if path and any(s.endswith("/" + path) for s in spellings(t))]
        found = {self._primary(t).path: self._primary(t) for t in tails}
        if path == "" and not found:
            return TracedLayer(None, (), "", 0, ())
        if not found:
            raise unknown_layer(self.graph.layers, tap, written)
        if len(found) > 1:
            canonical = [t for t in found.values() if t.path == path]
            if len(canonical) == 1:
                return canonical[0]
            raise errors.AmbiguousTapError(
                f"`{written}` fits {len(found)} layers.",
                [("they are", ", ".join(f"`{p}`" for p in found))],
                ["write more of the path", f"`**/{path}` means all of them"],
            )
        return next(iter(found.values()))

    def _primary(self, layer: TracedLayer) -> TracedLayer:
        """The first name of a layer that is held in two places; its calls are recorded there."""
        held = layer.layer() if layer.layer else None
        same = (t for t in self.graph.layers if held is not None and t.is_layer(held))
        return next(same, layer)

    def _path_of(self, layer: Layer) -> str:
        for traced in self.graph.layers:
            if traced.is_layer(layer):
                return traced.path
        raise errors.UnknownTapError(
            f"the layer `{getattr(layer, 'name', layer)}` ({type(layer).__name__}) is not part of the model.",
            [("layers", some([t.path for t in self.graph.layers if t.path]))],
            "a copy of a layer is another layer; give its name to mean the model's own",
        )

    def _call_indices(self, tap: Tap, layer: TracedLayer, count: int, written: str) -> list[int]:
        if tap.call == "*":
            return list(range(count))
        if tap.call is None and count > 1:
            side = "" if tap.side == "output" else f":{tap.side}"
            raise errors.SharedLayerError(
                f"`{layer.path}` ({layer.kind}) runs {count} times in a forward pass; `{written}` does not say which.",
                [],
                [f"`{layer.path}[0]{side}` to `{layer.path}[{count - 1}]{side}`", f"`{layer.path}[*]{side}` for all"],
            )
        index = tap.call or 0
        if index >= count:
            raise errors.CallRangeError(
                f"{_called(layer)} runs {'once' if count == 1 else f'{count} times'}: there is no call {index}.",
                [("asked as", f"`{written}`")],
                f"calls count from 0: `{replace(tap, call=count - 1)}` is the last",
            )
        return [index]

    def _side(self, call: LayerCall, tap: Tap, layer: TracedLayer, written: str) -> list[Tensor]:
        found = sides.tensors_of(self.graph, layer, call, tap.face)
        if not found:
            has = ", ".join(f"`{face}`" for face in sides.available(self.graph, layer, call))
            inner = [p for p in self.graph.calls if p.startswith(f"{layer.path}/") and self._has(p, tap.face)]
            raise errors.SideError(
                f"{_called(layer)} has no `{tap.face}` (asked as `{written}`).",
                [("it has", has), *([("inside of it", some([f"{p}:{tap.face}" for p in inner]))] if inner else [])],
                "gt.taps(model) lists every address",
            )
        return found

    def _has(self, path: str, face: str) -> bool:
        layer = next((t for t in self.graph.layers if t.path == path), None)
        return layer is not None and face in sides.available(self.graph, layer, self.graph.calls[path][0])

    def _root_tensors(self, tap: Tap) -> dict[Any, Tensor]:
        graph = self.graph
        names, tensors = (
            (graph.input_names, graph.feeds) if tap.face == "input" else (graph.output_names, graph.outputs)
        )
        return dict(zip(names, tensors, strict=True))

    def _pick(self, found: dict[Any, Tensor], tap: Tap, key: str, layer: TracedLayer) -> list[Place]:
        """One of several tensors, or all of them under addresses of their own."""
        owner = layer if layer.path else None
        if tap.pick is not None:
            names = list(map(str, found))
            position = int(tap.pick) if tap.pick.isdigit() else -1
            chosen = names.index(tap.pick) if tap.pick in names else position
            if not 0 <= chosen < len(found):
                raise errors.SideError(
                    f"`{key}`: there is no {tap.face} `{tap.pick}`.",
                    [("there are", ", ".join(f"`{tap.picked(name)}`" for name in names))],
                    "pick one of them",
                )
            return [Place(key, tap, list(found.values())[chosen], owner)]
        if len(found) == 1:
            return [Place(key, tap, next(iter(found.values())), owner)]
        picked = [(tap.picked(name), tensor) for name, tensor in found.items()]
        return [Place(str(one), one, tensor, owner, group=key) for one, tensor in picked]

    def _op(self, tap: Tap, written: str) -> Place:
        graph = self.graph.graph
        try:
            return Place(written, tap, self._own(graph.get_tensor_by_name(tap.path)))
        except (KeyError, ValueError):
            names = [o.name for op in graph.get_operations() for o in op.outputs if not o.name.startswith("gradtap/")]
            close = errors.nearest(tap.path, names)
            raise errors.UnknownTapError(
                f"no op gives a tensor `{tap.path}` in the traced graph.",
                [("nearest", close)] if close else [],
                "op names are those of the traced graph, which start with the names of the layers",
            ) from None


def _checked(tap: Tap) -> Tap:
    """A tap that was made by hand, and so has not been through the grammar."""
    whole = isinstance(tap.call, int) and not isinstance(tap.call, bool) and tap.call >= 0
    sides = isinstance(tap.side, str) and (tap.face.isidentifier() or tap.face.isdigit())
    if not isinstance(tap.path, str) or not sides or not (whole or tap.call in (None, "*")):
        raise errors.AddressSyntaxError(
            f"{tap!r} is not a tap.",
            [
                ("path", "names joined by slashes, or empty for the model itself"),
                ("call", 'an int from 0, "*" for every call, or None for a layer that runs once'),
                ("side", ", ".join(SIDES)),
            ],
            "Tap.parse(address) reads an address",
        )
    return tap


def _called(layer: TracedLayer) -> str:
    """A layer as messages name it."""
    return f"`{layer.path}` ({layer.kind})" if layer.path else f"the model{f' ({layer.kind})' if layer.kind else ''}"


def _position(graph: ForwardGraph, place: Place, order: Mapping[Operation, float]) -> float:
    """Where a place stands in the forward pass; a copy that was put in later stands right behind its original."""
    op, copies = place.tensor.op, 0
    if place.weight is not None:
        path = place.tap.path
        while path and not graph.calls.get(path):
            path = path.rpartition("/")[0]
        return float(graph.calls[path][0].first_op) if graph.calls.get(path) else 0.0
    while op.name.startswith("gradtap/own_"):
        op, copies = op.inputs[0].op, copies + 1
    return order[op] + copies / 4


def _of_call(place: Place, call: LayerCall) -> Place:
    state = sides.state_of(call, place.tensor)
    return place if state is None else replace(place, state=state)
