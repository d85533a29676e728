"""What is asked of a network's graph when its flow is measured."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from gradtap.asking import Settings
from gradtap.differentiate import OfTarget, slopes_at
from gradtap.flow.blocking import blocked, flat_after
from gradtap.flow.in_graph import bounds_of, is_measured, is_rectified, sums_at
from gradtap.flow.judging import Evidence
from gradtap.flow.trunk import trunk_of
from gradtap.graph import sides, surgery, walking
from gradtap.graph import weights as weights_of_layers
from gradtap.graph.keeping import Trace
from gradtap.graph.resolve import Place, is_several, resolve
from gradtap.graph.tracing import ForwardGraph, TracedLayer
from gradtap.program import Program, assemble
from gradtap.tap import Tap
from gradtap.targets import Target
from gradtap.types import Tensor, TensorLike

#: The two states of a cell that have a name.
_STATES = ("hidden", "cell")


class Measuring(OfTarget):
    """The sums of every tap, the gradients of every weight, and the profiles of recurrent states.

    Args:
      target: What is differentiated.
      at: Where.
      scale: What the target is multiplied with before; divided out again of all that is summed up.
    """

    weights = True

    def __init__(self, target: Target, at: Any, scale: float = 1.0) -> None:
        super().__init__(target, at)
        self.scale = scale

    def key(self, graph: ForwardGraph) -> Hashable:
        recurrent = any(layer.is_recurrent and layer.path in graph.calls for layer in graph.layers)
        if recurrent and not graph.has_states:
            raise sides.StatesNotTraced
        return super().key(graph)

    def options(self) -> tuple[Hashable, ...]:
        return ("flow",)

    def values(self, graph: ForwardGraph, batch: int | None) -> list[TensorLike]:
        return [*super().values(graph, batch), np.array([self.scale], np.float32)]

    def _is_everything(self) -> bool:
        return any(one == "**" for one in (self.at if is_several(self.at) else [self.at]))

    def build(self, trace: Trace, graph: ForwardGraph, settings: Settings) -> Program:
        asked = resolve(graph, self.at, weights=True)
        places = [*asked, *_states(graph, asked), *_weights(graph, asked, self._is_everything())]
        places = [p for p in {p.key: p for p in places}.values() if p.weight is not None or is_measured(p)]
        with surgery.inside(graph.graph):
            score = self.target.build(graph)
            scale = tf.compat.v1.placeholder(tf.float32, (1,), name="loss_scale")
            value = score.value * tf.cast(scale, score.value.dtype)
        kept, slopes, skipped = slopes_at(graph, places, value, repr(self.target), settings.unconnected)
        pairs = list(zip(kept, slopes, strict=True))
        taps = [pair for pair in pairs if pair[0].weight is None]
        weights = [pair for pair in pairs if pair[0].weight is not None]
        with surgery.inside(graph.graph):
            sums = [tensor for place, slope in taps for tensor in sums_at(graph, place, slope, scale)]
            parts = {
                "sums": sums,
                "weights": [(tf.cast(slope, tf.float32) / scale[0])[None] for _, slope in weights],
                "sizes": [tf.norm(tf.cast(place.tensor, tf.float64))[None] for place, _ in weights],
                "score": [score.value],
            }
        feeds = [*graph.all_feeds, *score.feeds, scale]
        watch: dict[str, Tensor] | None = {} if settings.checks else None  # no more than whether it is saturated
        program = assemble(
            graph, feeds, parts, kept, watch=watch, saturated=score.saturated, jit_compile=trace.jit_compile
        )
        program.skipped, program.target, program.copies = skipped, repr(self.target), 0
        gone = [place for place in places if place.key in skipped]
        evidence = _evidence(graph, [place for place, _ in taps], gone, score.value)
        outside = {inside.ref(): id(handle) for handle, inside in graph.graph.captures}
        evidence.handles.update(
            {place.key: outside[place.weight.ref()] for place, _ in weights if place.weight is not None}
        )
        program.notes = {"evidence": evidence}
        return program


def _states(graph: ForwardGraph, asked: Sequence[Place]) -> Iterator[Place]:
    """The states of the recurrent layers that were asked for."""
    paths = {place.layer.path for place in asked if place.layer is not None}
    for layer in graph.layers:
        calls = graph.calls.get(layer.path, []) if layer.is_recurrent and layer.path in paths else []
        for index, call in enumerate(calls):
            for face in _STATES:
                tap = Tap(layer.path, index if len(calls) > 1 else None, face)
                found = sides.tensors_of(graph, layer, call, face)
                for number, tensor in enumerate(found):
                    one = tap.picked(number) if len(found) > 1 else tap
                    yield Place(str(one), one, tensor, layer, by_pattern=True, state=sides.state_of(call, tensor))


def _weights(graph: ForwardGraph, asked: Sequence[Place], everything: bool) -> Iterator[Place]:
    """The weights that are trained, of the layers that were asked for; of the whole model where all of it was."""
    paths = {place.layer.path for place in asked if place.layer is not None}
    trained = _trained(graph)
    for layer, name, variable in weights_of_layers.named_weights(graph, TracedLayer(None, (), "", 0, ())):
        handle = weights_of_layers.handle_in(graph, variable)
        if handle is None or id(variable) not in trained or not (everything or layer.path in paths):
            continue
        value = weights_of_layers.value_of(graph, handle, variable.dtype, variable.shape)
        tap = Tap(layer.path, side=name)
        yield Place(str(tap), tap, value, layer, by_pattern=True, weight=handle)


def _trained(graph: ForwardGraph) -> set[int]:
    """The identities of the variables that training changes; a layer of Keras may be frozen and its variables not."""
    found: set[int] = set()
    for layer in graph.layers:
        held = layer.layer() if layer.layer else None
        weights = getattr(held, "trainable_weights", None)
        weights = getattr(held, "trainable_variables", None) if weights is None else weights
        found |= {id(weights_of_layers.variable_of(weight)) for weight in weights or ()}
    return found


def _evidence(graph: ForwardGraph, taps: Sequence[Place], gone: Sequence[Place], score: Tensor) -> Evidence:
    """What the graph itself says of the taps."""
    seen: set[Any] = set()
    repeated = set()
    for place in taps:
        source = walking.same_value_source(place.tensor).ref()
        repeated |= {place.key} if source in seen else set()
        seen.add(source)
    kinds = {layer.kind for layer in graph.layers if layer.path in graph.calls}
    return Evidence(
        trunk=set(trunk_of(taps, score)),
        bounded={place.key for place in taps if bounds_of(graph, place) is not None},
        rectified={place.key for place in taps if is_rectified(graph, place)},
        repeated=repeated,
        flat=flat_after(graph, taps, score),
        blocked=blocked(graph, gone, score),
        batch_norm="BatchNormalization" in kinds and not graph.training,
        backwards={place.key for place in taps if place.state is not None and _runs_backwards(place)},
    )


def _runs_backwards(place: Place) -> bool:
    held = place.layer.layer() if place.layer is not None and place.layer.layer is not None else None
    return bool(getattr(held, "go_backwards", False))
