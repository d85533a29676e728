"""Attributions that one forward and one backward pass give: a formula of activations and gradients at each tap."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

from gradtap.asking import Settings, ask
from gradtap.differentiate import NamedRules, OfTarget
from gradtap.graph.resolve import Place
from gradtap.graph.scores import Score
from gradtap.graph.tracing import ForwardGraph
from gradtap.results import Attributions
from gradtap.targets import as_target
from gradtap.types import Model, Structure, Tensor

#: From the graph, a tap and the gradient there to the attribution, in the graph.
Formula = Callable[[ForwardGraph, Place, Tensor], Tensor]


class _ByFormula(OfTarget):
    """A formula at each tap, in the same graph as the gradients."""

    copies = 1

    def __init__(
        self, target: Any, at: Any, name: Hashable, formula: Formula, rules: NamedRules | None, small: bool
    ) -> None:
        super().__init__(as_target(target), at, rules)
        self._name = name
        self._formula = formula
        self.copies = 0 if small else 1

    def options(self) -> tuple[Hashable, ...]:
        return (self._name,)

    def parts(
        self, graph: ForwardGraph, places: list[Place], slopes: list[Tensor], score: Score
    ) -> dict[str, list[Tensor]]:
        results = [self._formula(graph, place, slope) for place, slope in zip(places, slopes, strict=True)]
        return {"attributions": results, "score": [score.value]}


def attribute(
    model: Model,
    inputs: Structure,
    target: Any,
    at: Any,
    settings: Settings,
    *,
    name: Hashable,
    formula: Formula,
    rules: NamedRules | None = None,
    small: bool = False,
) -> Attributions:
    """Compute a formula of activations and gradients at every tap, in one pass for all of them.

    Args:
      model: See `gradtap.gradients`.
      inputs: See `gradtap.gradients`.
      target: See `gradtap.gradients`.
      at: See `gradtap.gradients`.
      settings: The keywords of the call.
      name: What decides the formula, hashable: equal names share a program.
      formula: Adds the attribution to the graph.
      rules: Other rules of back-propagation than the derivative.
      small: Whether a result is much smaller than the activations.
    """
    program, parts = ask(model, inputs, _ByFormula(target, at, name, formula, rules, small), settings)
    return Attributions.at(program.places, parts["attributions"], skipped=program.skipped)
