"""Layer-wise relevance propagation: the target, shared out op by op among what it was computed from."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, Literal, TypeAlias

import numpy as np
import tensorflow as tf

from gradtap import errors
from gradtap.asking import Settings, Unconnected, address_key, ask, check_choice
from gradtap.differentiate import OfTarget, slopes_at
from gradtap.graph import surgery, walking
from gradtap.graph.bodies import with_inner
from gradtap.graph.resolve import Place, resolve
from gradtap.graph.rules import in_force
from gradtap.graph.scores import Score
from gradtap.graph.tracing import ForwardGraph
from gradtap.graph.varying import Varying
from gradtap.results import Attributions
from gradtap.rules.layer_rules import NAMES, WITH_WEIGHTS, LayerRule
from gradtap.rules.relevance import Flow
from gradtap.targets import as_target
from gradtap.types import Address, Model, Operation, Structure, Tensor, TensorLike

Rule = Literal["epsilon", "gamma", "alpha_beta", "z_box", "flat"]
RuleOf: TypeAlias = Rule | tuple[Rule, Mapping[str, Any]]
#: Rules by address, layer, layer class or type of op; the first that fits holds.
Composite: TypeAlias = Mapping[Any, RuleOf]


@surgery.unconverted
def lrp(
    model: Model,
    inputs: Structure,
    *,
    target: Any = None,
    at: Address | Sequence[Address] = ":input",
    rule: Rule | Composite = "epsilon",
    epsilon: float = 1e-9,
    gamma: float = 0.25,
    alpha: float = 2.0,
    beta: float = 1.0,
    bounds: tuple[TensorLike, TensorLike] = (0.0, 1.0),
    unconnected: Unconnected = "error",
    batch_size: int | None = None,
    training: bool = False,
    seed: int | None = None,
    checks: bool = True,
) -> Attributions:
    r"""Layer-wise relevance propagation: how much of the target each unit at a tap accounts for.

    The relevance :math:`R_j` of the output of a layer :math:`y_j = \sum_i a_i w_{ij} + b_j` is shared out among its
    inputs, :math:`R_i = \sum_j \frac{z_{ij}}{\sum_i z_{ij} + b_j} R_j`, beginning with the target itself. The rules
    differ in :math:`z_{ij}` and in the bias, which keeps its share:

    - ``"epsilon"``: :math:`a_i w_{ij}`, and the denominator is moved away from zero by ``epsilon``;
    - ``"gamma"``: :math:`a_i w_{ij}` and :math:`b_j`, those of the sign of :math:`y_j` times :math:`1 + \gamma`; where
      inputs and outputs are positive, as behind rectifiers, that is :math:`a_i (w_{ij} + \gamma w_{ij}^+)`;
    - ``"alpha_beta"``: :math:`\alpha` times the shares of the positive :math:`a_i w_{ij}` and :math:`b_j` among
      themselves, less :math:`\beta` times those of the negative ones;
    - ``"z_box"``, for pixels: :math:`a_i w_{ij} - l_i w_{ij}^+ - h_i w_{ij}^-` with ``bounds`` (l, h), no bias;
    - ``"flat"``: all inputs alike, no bias.

    What follows a layer alone and is affine, such as a batch normalisation, is folded into it; elsewhere, shifts and
    scales hand on what they are given, and so do activations. A sum shares, and a maximum hands to its winner, by the
    epsilon rule. Of a product of a gate (sigmoid, attention, inverse deviation) and a signal, the signal takes all.

    Args:
      model: See `gradtap.gradients`.
      inputs: See `gradtap.gradients`.
      target: See `gradtap.gradients`. Relevance is usually that of a logit:
        ``gt.targets.class_score(k, logits=True)``. A final softmax hands relevance on by the first term of its
        Taylor series, which does not sum to the target.
      at: See `gradtap.gradients`.
      rule: One for all layers with weights, or a mapping from address (globs included), layer, layer class or type of
        op to rule, or to ``(rule, {parameter: value})``; the first that fits holds, ``"epsilon"`` where none does.
      epsilon: In units of the layers' outputs; not negative.
      gamma: How much contributions of the sign of the output are favoured; not negative.
      alpha: The weight of positive contributions, ``1 + beta``.
      beta: The weight of negative contributions; not negative.
      bounds: Lowest and highest input of layers under ``"z_box"``: numbers, or arrays that broadcast against it.
      unconnected: See `gradtap.gradients`.
      batch_size: See `gradtap.gradients`.
      training: See `gradtap.gradients`.
      seed: See `gradtap.gradients`.
      checks: See `gradtap.gradients`.

    Returns:
      `Attributions`: a mapping from address to a tensor of the shape and dtype of its activations, in units of the
      target; zeros where relevance does not come by, as at a gate.

    Raises:
      NoRuleError: An op between a tap and the target has no rule; it is named.
      GradtapError: One class for each cause; ``docs/errors`` has a page for each.

    Example:
      Without biases, all of the target is found at the input.

      >>> import gradtap as gt, keras, numpy as np
      >>> hidden = keras.layers.Dense(4, activation="relu", name="hidden")
      >>> model = keras.Sequential([keras.Input((3,)), hidden, keras.layers.Dense(2)])
      >>> x = np.ones((1, 3))
      >>> r = gt.attribution.lrp(model, x, target=0, rule={"hidden": "gamma"})
      >>> bool(np.isclose(np.sum(r.only), model(x)[0, 0], rtol=1e-4))
      True

    References:
      Bach et al., On Pixel-Wise Explanations, https://doi.org/10.1371/journal.pone.0130140, 2015.
      Montavon et al., LRP: An Overview, https://doi.org/10.1007/978-3-030-28954-6_10, 2019: gamma, z-box.
      Andeol et al., https://arxiv.org/abs/2106.04923, 2021: gamma for activations of both signs.
      Arras et al., https://arxiv.org/abs/1706.07206, 2017: gates of recurrent layers.
      Ali et al., XAI for Transformers, https://arxiv.org/abs/2202.07304, 2022: attention, layer normalisation.
      Achtibat et al., AttnLRP, https://arxiv.org/abs/2402.05602, 2024: softmax, products of two signals.
    """
    settings = Settings(unconnected, batch_size, training, seed, checks)
    parameters: dict[str, Any] = {"epsilon": epsilon, "gamma": gamma, "alpha": alpha, "beta": beta, "bounds": bounds}
    composite = rule if isinstance(rule, Mapping) else {"**": rule}
    rules = {key: _rule(name, parameters) for key, name in composite.items()}
    question = _Relevance(target, at, rules, everywhere=not isinstance(rule, Mapping), epsilon=epsilon)
    program, parts = ask(model, inputs, question, settings)
    return Attributions.at(program.places, parts["attributions"], skipped=program.skipped)


def _rule(given: Any, parameters: dict[str, Any]) -> LayerRule:
    name, own = given if isinstance(given, tuple) and len(given) == 2 and isinstance(given[1], Mapping) else (given, {})
    check_choice("rule", name, NAMES)
    unknown = [what for what in own if what not in parameters]
    if unknown:
        raise errors.ArgumentError(
            f"{unknown[0]!r} is no parameter of a rule.", [("parameters", ", ".join(parameters))], "one of them"
        )
    parameters = parameters | dict(own)
    for what in ("epsilon", "gamma", "alpha", "beta"):
        number = parameters[what]
        if isinstance(number, bool) or not isinstance(number, (int, float, np.number)) or not number >= 0:
            raise errors.ArgumentError(f"{what}={number!r} is negative or no number.", [], "0 or more")
    if name == "alpha_beta" and not np.isclose(parameters["alpha"] - parameters["beta"], 1):
        difference = f"alpha={parameters['alpha']!r} less beta={parameters['beta']!r}"
        raise errors.ArgumentError(
            f"{difference} is not 1: relevance would not be conserved.",
            [],
            "alpha=2, beta=1 or alpha=1, beta=0",
        )
    try:
        low, high = (np.asarray(bound) for bound in parameters["bounds"])
    except (TypeError, ValueError):
        raise errors.ArgumentError("bounds is not a pair.", [], "bounds=(lowest, highest)") from None
    if low.dtype.kind not in "biuf" or high.dtype.kind not in "biuf" or not _broadcast_together(low, high):
        raise errors.ArgumentError(
            "bounds are no two arrays of numbers that go together.",
            [("shapes", f"{low.shape} and {high.shape}")],
            "numbers, or arrays of the shape of one example's inputs",
        )
    if name == "z_box" and np.any(low > high):
        raise errors.ArgumentError("a lower bound is above the higher one.", [], "bounds=(lowest, highest)")
    return LayerRule(name, **parameters | {"bounds": (low, high)})


def _broadcast_together(one: Any, other: Any) -> bool:
    try:
        np.broadcast_shapes(one.shape, other.shape)
    except ValueError:
        return False
    return True


class _Relevance(OfTarget):
    """Relevance in the place of slopes, begun with the target itself."""

    copies = 1

    def __init__(self, target: Any, at: Any, rules: dict[Any, LayerRule], *, everywhere: bool, epsilon: float) -> None:
        super().__init__(as_target(target), at)
        self._rules = rules
        self._everywhere = everywhere
        self._otherwise = LayerRule("epsilon", epsilon=epsilon)

    def options(self) -> tuple[Hashable, ...]:
        return ("lrp", self._otherwise.epsilon, *((address_key(key), _hashed(r)) for key, r in self._rules.items()))

    def slopes(
        self, graph: ForwardGraph, places: list[Place], score: Score, unconnected: str
    ) -> tuple[list[Place], list[Tensor], dict[str, str]]:
        # Where relevance does not come by, a slope tells what is off the path from what is a gate.
        kept, _, skipped = slopes_at(graph, places, score.value, repr(self.target), unconnected)
        needed = walking.ancestors([score.value])
        varying = Varying(graph.feeds, [op for op in graph.graph.get_operations() if op in needed], score.held)
        flow = Flow(varying, self._rule_of(graph))
        ends = [place.tensor for place in kept if place.state is None]
        _refuse(flow.lacking(score.value, ends if len(ends) == len(kept) else ()))
        with surgery.inside(graph.graph):
            begun = tf.reduce_sum(score.value**2) / 2  # whose slope is the target itself, for an outer tape as well
        with in_force(graph, flow.rules, among=varying.ops):
            found = surgery.differentiate(begun, [place.variable for place in kept])
        with surgery.inside(graph.graph):
            return (
                kept,
                [tf.zeros_like(p.tensor) if r is None else r for p, r in zip(kept, found, strict=True)],
                skipped,
            )

    def parts(
        self, graph: ForwardGraph, places: list[Place], slopes: list[Tensor], score: Score
    ) -> dict[str, list[Tensor]]:
        return {"attributions": slopes, "score": [score.value]}

    def _rule_of(self, graph: ForwardGraph) -> Callable[[Operation], LayerRule]:
        """The rule of each op: the first whose key fits."""
        if self._everywhere:
            [rule] = self._rules.values()
            return lambda op: rule
        ops = graph.graph.get_operations()[: graph.forward_ops]
        found: dict[tuple[str, str], LayerRule] = {}
        for key, rule in self._rules.items():
            meant = [op for op in _ops_of(graph, ops, key) if op.type in WITH_WEIGHTS]
            if not meant:
                raise errors.ArgumentError(
                    f"nothing that `{key}` means multiplies with weights, so its rule has nothing to do.",
                    [],
                    "name layers such as convolutions and dense ones, or types of op such as Conv2D, MatMul, Einsum",
                )
            for op in meant:
                found.setdefault((op.graph.name, op.name), rule)
        return lambda op: found.get((op.graph.name, op.name), self._otherwise)


def _ops_of(graph: ForwardGraph, ops: Sequence[Operation], key: Any) -> list[Operation]:
    """The ops that a key of a composite means: those of a type, or those of the calls of layers."""
    if isinstance(key, str) and key in WITH_WEIGHTS:
        return [op for op in with_inner(ops) if op.type == key]
    found: list[Operation] = []
    for place in resolve(graph, key):
        calls = graph.calls.get(place.tap.path, [])
        if not calls:
            raise errors.ArgumentError(
                f"`{place.key}` is no layer.",
                [],
                "a key of `rule` is an address of layers, a layer, a layer class, or a type of op",
            )
        call = calls[place.tap.call if isinstance(place.tap.call, int) else 0]
        found += with_inner(ops[call.first_op : call.last_op])
    return found


def _hashed(rule: LayerRule) -> Hashable:
    bounds = tuple((bound.shape, bound.tobytes()) for bound in rule.bounds)
    return rule.name, rule.epsilon, rule.gamma, rule.alpha, rule.beta, bounds


def _refuse(lacking: Sequence[Operation]) -> None:
    """Raise for ops without a rule.

    Raises:
      NoRuleError: It names the op.
    """
    by_type = {op.type: op for op in reversed(lacking)}
    errors.raise_all(
        [
            errors.NoRuleError(
                f"LRP has no rule for the op `{op.name}` ({op.type}), through which relevance would have to pass.",
                [],
                [
                    "another target: a class, a logit, a contrast"
                    if op.name.startswith("gradtap/")
                    else "tap a layer after it",
                    "gt.attribution.deep_lift and gt.attribution.integrated_gradients are other answers",
                ],
            )
            for op in list(by_type.values())[:4]
        ]
    )
