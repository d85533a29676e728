"""Integrals of gradients along the straight line from a baseline to what stands at some taps."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import tensorflow as tf
from ml_dtypes import finfo  # NumPy's own knows no bfloat16; Keras brings this one along

from gradtap import errors
from gradtap.asking import Asked, Settings, address_key, ask, check_choice
from gradtap.batching import join
from gradtap.differentiate import slopes_at
from gradtap.graph import explain, surgery, walking
from gradtap.graph.resolve import Place, resolve
from gradtap.graph.scores import widen
from gradtap.graph.tracing import ForwardGraph
from gradtap.products import tangents_through
from gradtap.results import PathAttributions, TapValues
from gradtap.staged.baselines import BaselineReader
from gradtap.staged.quadrature import check_count, nodes_and_weights
from gradtap.staged.slope_legs import leg_with, moving_together, slope_legs, sums_together
from gradtap.staged.stages import Legs, Stage, Staged, expand, refuse_states, weighed
from gradtap.targets import Target
from gradtap.types import Model, Structure, Tensor, TensorLike
from gradtap.vectors import placeholder_like

#: Doublings of the steps before a tolerance is given up.
_MOST_STEPS = 1 << 14

Integrand = Literal["slope", "slope_times_change", "slope_times_flow", "slope_times_difference"]


@dataclass(frozen=True)
class Path:
    """How a path is followed.

    Args:
      baseline: Where it begins.
      rule: The quadrature, or ``"difference"``.
      steps: How many points are looked at.
      tolerance: Double the steps until the completeness error is below it; None leaves them.
    """

    baseline: BaselineReader
    rule: str
    steps: int
    tolerance: float | None = None

    def __post_init__(self) -> None:
        if self.rule == "difference":
            check_count("steps", self.steps)
        else:
            nodes_and_weights(self.rule, self.steps)
        tolerance = self.tolerance
        if tolerance is not None and (isinstance(tolerance, (bool, str)) or not tolerance > 0):
            raise errors.ArgumentError(
                f"tolerance={tolerance!r} is not a positive number.", [], "None leaves the steps"
            )


def integrate(
    model: Model,
    inputs: Structure,
    target: Target,
    path: Path,
    integrand: Integrand,
    settings: Settings,
    *,
    at: Any,
    along: Any = None,
    joint: bool = False,
) -> PathAttributions:
    r"""Integrate at the taps of ``at`` along a straight line.

    Args:
      model: See `gradtap.gradients`.
      inputs: See `gradtap.gradients`.
      target: What is differentiated.
      path: The line.
      integrand: ``"slope"`` for :math:`\partial F / \partial h`; ``"slope_times_change"`` for that times the whole
        change of h; ``"slope_times_flow"`` for that times the rate at which h follows the path;
        ``"slope_times_difference"`` for a sum of differences between neighbouring points.
      settings: The keywords of the call.
      at: Where the slope is measured.
      along: Where the path runs; None for where it is measured.
      joint: Without ``along``: move all taps on one path rather than each on its own.
    """
    check_choice("joint", joint, (True, False))
    work = _Integral(path, integrand, lambda graph: _moved(graph, at, along), along is not None)

    def legs(graph: ForwardGraph, settings: Settings) -> Legs:
        if along is None:
            return slope_legs(graph, settings, target, at, joint=joint)
        return _legs_along(graph, settings, target, at, along, integrand)

    def arrays(graph: ForwardGraph, batch: int | None) -> list[TensorLike]:
        return path.baseline.arrays(graph, _moved(graph, at, along), batch)

    name: Hashable = ("path", address_key(at), along and address_key(along), joint, integrand)
    question = Staged(target, name, legs, work, arrays=arrays, later={"change": work.change})
    asked: list[Asked] = []
    program, parts = ask(model, inputs, question, settings, asked)
    sums, measured, each = parts["sums"], program.places, along is not None
    names = list(moving_together(measured, joint))
    accounted = not (each and integrand == "slope")

    def delta() -> Any:
        changes = join([one.later("change") for one in asked])["change"]
        changes = changes * len(sums) if each else changes
        errors_of = [s - c for s, c in zip(sums, changes, strict=True)]
        return errors_of[0] if len(errors_of) == 1 else TapValues(zip(names, errors_of, strict=True))

    steps = parts["steps"][0]
    return PathAttributions.at(
        measured,
        parts["attributions"],
        skipped=program.skipped,
        delta=delta if accounted else None,
        steps=int(max(steps.numpy(), default=path.steps)) if hasattr(steps, "numpy") else path.steps,
    )


def _moved(graph: ForwardGraph, at: Any, along: Any) -> list[Place]:
    """Where the paths run, each tap once; integers stay as they are."""
    places = resolve(graph, at if along is None else along)
    return [place for place in places if surgery.is_float(place.tensor)]


def _legs_along(graph: ForwardGraph, settings: Settings, target: Target, at: Any, along: Any, integrand: str) -> Legs:
    """One leg that moves ``along`` and measures at all taps: slopes, what they are multiplied with, the target."""
    moved, places, unreached = resolve(graph, along), resolve(graph, at), dict[str, str]()
    refuse_states(moved)
    integers = [place for place in moved if not surgery.is_float(place.tensor)]
    errors.raise_all([explain.integer(graph, p.key, p.tensor, p.layer, "along") for p in integers])
    with surgery.inside(graph.graph):
        score = target.build(graph)
        fed = [placeholder_like(place.tensor) for place in moved] if integrand == "slope_times_flow" else []
    if integrand != "slope":
        places, unreached = _reached(moved, places, settings.unconnected)
    kept, fetches, skipped = slopes_at(graph, places, score.value, repr(target), settings.unconnected)
    skipped |= unreached
    if integrand == "slope_times_flow":
        fetches = fetches + tangents_through(graph, moved, fed, [place.tensor for place in kept])
    elif integrand == "slope_times_difference":
        fetches = fetches + [place.tensor for place in kept]
    return Legs([leg_with(graph, moved, kept, [*fetches, score.value], score, fed)], skipped)


def _reached(moved: Sequence[Place], places: Sequence[Place], unconnected: str) -> tuple[list[Place], dict[str, str]]:
    """The taps that follow a path, and those that a pattern fits and the path does not reach.

    Raises:
      UnconnectedTapError: The path does not reach a tap that was named.
    """
    behind, own = walking.descendants([place.tensor for place in moved]), {place.tensor.ref() for place in moved}
    beyond = [p for p in places if p.tensor.op not in behind and p.tensor.ref() not in own]
    named = [p for p in beyond if not p.by_pattern] if unconnected == "error" else []
    errors.raise_all(
        [
            errors.UnconnectedTapError(
                f"`{place.key}` does not depend on `{moved[0].key}`, along which the path runs.",
                [("why", "nothing that changes on the path flows through it")],
                ["along= a tap that comes before it", 'unconnected="zero" if zeros are what you mean'],
            )
            for place in named
        ]
    )
    left_out = [place for place in beyond if place.by_pattern]
    return [p for p in places if p not in left_out], {p.key: "the path does not reach it" for p in left_out}


class _Integral:
    """The work of a path method on one batch."""

    def __init__(self, path: Path, integrand: str, moved: Callable[[ForwardGraph], list[Place]], along: bool) -> None:
        self.path = path
        self.integrand = integrand
        self.moved = moved
        self.along = along

    def __call__(self, stages: list[Stage], inputs: list[Tensor], arrays: list[TensorLike]) -> dict[str, list[Tensor]]:
        parts: dict[str, list[Tensor]] = {"attributions": [], "sums": [], "steps": []}
        most = 0
        for stage, start in zip(stages, self._starts(stages, inputs, arrays), strict=True):
            found, steps = self._within_tolerance(stage, start)
            parts["attributions"] += [
                tf.cast(f, p.tensor.dtype) for f, p in zip(found, stage.leg.measured, strict=True)
            ]
            parts["sums"] += self._sums(stage, start, found)
            most = max(most, steps)
        rows = inputs[0].shape[0]
        parts["steps"] = [tf.fill(tf.shape(inputs[0])[:1] if rows is None else (rows,), most)]
        return parts

    def change(self, stages: list[Stage], inputs: list[Tensor], arrays: list[TensorLike]) -> dict[str, list[Tensor]]:
        """By how much the target changes from the baselines to the inputs, ``(batch,)`` for each leg."""
        starts = self._starts(stages, inputs, arrays)
        return {"change": [self._change(stage, start) for stage, start in zip(stages, starts, strict=True)]}

    def _starts(self, stages: list[Stage], inputs: list[Tensor], arrays: list[TensorLike]) -> list[list[Tensor]]:
        baseline = self.path.baseline
        if not baseline.is_at_tap:
            graph, one_row = stages[0].graph, all(stage.takes_one_row for stage in stages)
            given = baseline.inputs(graph, inputs, arrays, one_row=one_row)
            return [stage.elsewhere(given) for stage in stages]
        keys = (place.key for place in self.moved(stages[0].graph))
        by_key = dict(zip(keys, arrays, strict=True))
        return [baseline.values(stage.here, [by_key[p.key] for p in stage.leg.moved]) for stage in stages]

    def _within_tolerance(self, stage: Stage, start: list[Tensor]) -> tuple[list[Tensor], int]:
        path, steps = self.path, self.path.steps
        found = self._once(stage, start, steps)
        if path.tolerance is None:
            return found, steps
        change = self._change(stage, start)
        if not hasattr(change, "numpy"):
            raise errors.ArgumentError(
                "a tolerance needs values, and inside of a tf.function there are none yet.",
                [],
                "give the steps instead",
            )
        seen: list[float] = []
        rounding = 64 * _spacing(stage.here[0]) * float(tf.reduce_max(tf.abs(change)))
        while (error := _largest(self._sums(stage, start, found), change)) > path.tolerance:
            seen.append(error)
            # More steps make an error of rounding no smaller. A larger one may come down once the points are closer
            # than what is narrow on the path, as where a normalisation passes by a variance of zero.
            patience = 3 if error < rounding else 6
            if 2 * steps > _MOST_STEPS or (len(seen) > patience and min(seen[-3:]) > 0.5 * min(seen[:-3])):
                said = f"the completeness error is {error:.2g} after {steps} steps, above tolerance={path.tolerance:g}."
                errors.warn(errors.GradtapWarning(said))
                break
            steps *= 2
            found = self._once(stage, start, steps)
        return found, steps

    def _sums(self, stage: Stage, start: list[Tensor], found: list[Tensor]) -> list[Tensor]:
        """What is accounted for of the target's change, ``(batch,)``: at each tap, or by all that move together."""
        if self.integrand == "slope" and not self.along:
            found = [f * c for f, c in zip(found, _changes(stage, start), strict=True)]
        sums = [tf.reduce_sum(f, axis=list(range(1, f.shape.rank))) for f in found]
        return sums_together(stage.leg.measured, sums) if self.along else [tf.add_n(sums)]

    def _change(self, stage: Stage, start: list[Tensor]) -> Tensor:
        ends = [tf.stack([h, tf.broadcast_to(s, tf.shape(h))]) for h, s in zip(stage.here, start, strict=True)]
        further = stage.here if self.integrand == "slope_times_flow" else ()
        scores = [stage.run([end[i : i + 1] for end in ends], further)[-1][0] for i in range(2)]
        return scores[0] - scores[1]

    def _once(self, stage: Stage, start: list[Tensor], steps: int) -> list[Tensor]:
        start, change = [widen(s) for s in start], _changes(stage, start)
        if self.integrand == "slope_times_difference":
            return self._differences(stage, start, change, steps)
        nodes, weights = nodes_and_weights(self.path.rule, steps)
        by_flow = self.integrand == "slope_times_flow"
        further = [tf.cast(c, h.dtype) for c, h in zip(change, stage.here, strict=True)] if by_flow else []
        count = len(stage.leg.measured)
        totals: list[Tensor] = []
        for part in stage.parts(steps, f"path to {stage.leg.moved[0].key}"):
            fetched = stage.run(_points(stage, start, change, nodes[part]), further)
            terms = [widen(t) for t in fetched[:count]]
            if by_flow:
                terms = [t * widen(flow) for t, flow in zip(terms, fetched[count : 2 * count], strict=True)]
            sums = [weighed(weights[part], term) for term in terms]
            totals = sums if not totals else [a + b for a, b in zip(totals, sums, strict=True)]
        if self.integrand == "slope_times_change":
            return [total * c for total, c in zip(totals, change, strict=True)]
        return totals

    def _differences(self, stage: Stage, start: list[Tensor], change: list[Tensor], steps: int) -> list[Tensor]:
        """Sums of slopes times the differences of activations between neighbouring points of the path."""
        nodes, _ = nodes_and_weights("gausslegendre", steps + 1)
        count = len(stage.leg.measured)
        totals: list[Tensor] = []
        last: list[Tensor] = []
        for part in stage.parts(steps + 1, "path, by differences"):
            fetched = [widen(t) for t in stage.run(_points(stage, start, change, nodes[part]))[: 2 * count]]
            slopes, values = fetched[:count], fetched[count:]
            if last:
                before, at = zip(*last, strict=True)
                slopes = [tf.concat([b, s], 0) for b, s in zip(before, slopes, strict=True)]
                values = [tf.concat([a, v], 0) for a, v in zip(at, values, strict=True)]
            terms = [tf.reduce_sum(s[:-1] * (v[1:] - v[:-1]), 0) for s, v in zip(slopes, values, strict=True)]
            totals = terms if not totals else [a + b for a, b in zip(totals, terms, strict=True)]
            last = [(s[-1:], v[-1:]) for s, v in zip(slopes, values, strict=True)]
        return totals


def _changes(stage: Stage, start: list[Tensor]) -> list[Tensor]:
    """The whole way along the path at each moved tap."""
    return [widen(h) - widen(s) for h, s in zip(stage.here, start, strict=True)]


def _spacing(tensor: Tensor) -> float:
    """Of the numbers of a tensor's type, near one."""
    return float(finfo(tensor.dtype.as_numpy_dtype).eps)  # type: ignore[no-untyped-call]


def _largest(sums: list[Tensor], change: Tensor) -> float:
    """The largest completeness error of any example."""
    return max(float(tf.reduce_max(tf.abs(tf.cast(s, change.dtype) - change))) for s in sums)


def _points(stage: Stage, start: list[Tensor], change: list[Tensor], nodes: Any) -> list[Tensor]:
    """Points of the line at each moved tap, ``(nodes, batch, ...)``, of the dtype of the activations."""
    return [tf.cast(s + expand(nodes, c) * c, h.dtype) for s, c, h in zip(start, change, stage.here, strict=True)]
