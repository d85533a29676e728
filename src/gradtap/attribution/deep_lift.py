"""DeepLIFT: the difference from a baseline, handed back op by op."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import tensorflow as tf

from gradtap import errors
from gradtap.asking import Settings, Unconnected, address_key, ask, check_choice
from gradtap.differentiate import slopes_at
from gradtap.graph import surgery, walking
from gradtap.graph.resolve import Place, resolve
from gradtap.graph.rules import in_force
from gradtap.graph.scores import widen
from gradtap.graph.tracing import ForwardGraph
from gradtap.graph.varying import Varying
from gradtap.results import PathAttributions, TapValues
from gradtap.rules.lift import rules_for, without_rule
from gradtap.staged.baselines import Baseline, BaselineReader
from gradtap.staged.slope_legs import leg_with, moving_together, sums_together
from gradtap.staged.stages import Legs, Stage, Staged
from gradtap.targets import Target, as_target
from gradtap.types import Address, Model, Operation, Structure, Tensor, TensorLike


@surgery.unconverted
def deep_lift(
    model: Model,
    inputs: Structure,
    *,
    target: Any = None,
    at: Address | Sequence[Address] = ":input",
    baseline: Baseline = 0.0,
    rule: Literal["rescale"] = "rescale",
    unconnected: Unconnected = "error",
    batch_size: int | None = None,
    training: bool = False,
    seed: int | None = None,
    checks: bool = True,
) -> PathAttributions:
    r"""DeepLIFT: what each unit at a tap adds to the difference of the target from its value at a baseline.

    With the activations :math:`h` for the input and :math:`h'` for the baseline, :math:`m \odot (h - h')`, where the
    multipliers :math:`m` are handed back from the target op by op: linear ops as by the derivative, a function of one
    entry by :math:`\Delta y / \Delta z`, products by the mean of the other factor, a softmax as exponentials over their
    sum, a maximum split at the larger of the two. At any cut of the model the attributions sum to
    :math:`F(x) - F(x')`.

    Args:
      model: See `gradtap.gradients`.
      inputs: See `gradtap.gradients`.
      target: See `integrated_gradients`.
      at: See `gradtap.gradients`.
      baseline: An input; see `integrated_gradients`. `at_tap` is not taken: input and baseline run through the model
        from its input on.
      rule: ``"rescale"``.
      unconnected: See `gradtap.gradients`.
      batch_size: See `gradtap.gradients`.
      training: False: an example and its baseline would draw masks of their own.
      seed: See `gradtap.gradients`.
      checks: See `gradtap.gradients`.

    Returns:
      `PathAttributions`: a mapping from address to a tensor of the shape and dtype of its activations; ``.delta`` is
      the sum at a tap less the difference of the target.

    Raises:
      NoRuleError: An op between a tap and the target has no rule; it is named.
      GradtapError: One class for each cause; ``docs/errors`` has a page for each.

    Example:
      >>> import gradtap as gt, keras, numpy as np
      >>> hidden = keras.layers.Dense(4, activation="relu", name="hidden")
      >>> model = keras.Sequential([keras.Input((3,)), hidden, keras.layers.Dense(2, activation="softmax")])
      >>> a = gt.attribution.deep_lift(model, np.ones((1, 3)), target=0, at=[":input", "hidden"])
      >>> bool(np.all(np.abs(a.delta["hidden"]) < 1e-6))
      True

    References:
      Shrikumar, Greenside, Kundaje, Learning Important Features Through Propagating Activation Differences,
      https://arxiv.org/abs/1704.02685, 2017.
    """
    settings = Settings(unconnected, batch_size, training, seed, checks)
    check_choice("rule", rule, ("rescale",))
    wanted, start = as_target(target), BaselineReader(baseline)
    _check(start, training)

    def arrays(graph: ForwardGraph, batch: int | None) -> list[TensorLike]:
        return start.arrays(graph, [], batch)

    def work(stages: list[Stage], inputs: list[Tensor], arrays: list[TensorLike]) -> dict[str, list[Tensor]]:
        [stage] = stages
        given = start.inputs(stage.graph, inputs, arrays, one_row=False)
        *fetched, score = stage.run([tf.stack(pair) for pair in zip(stage.here, given, strict=True)])
        count = len(stage.leg.measured)
        found = [m[0] * (h[0] - h[1]) for m, h in zip(fetched[:count], fetched[count:], strict=True)]
        change = score[0] - score[1]
        wide = [tf.reduce_sum(widen(f), list(range(1, f.shape.rank))) for f in found]
        sums = sums_together(stage.leg.measured, wide)
        return {"attributions": found, "delta": [s - tf.cast(change, s.dtype) for s in sums]}

    name = ("deep_lift", address_key(at))
    question = Staged(wanted, name, lambda graph, own: _legs(graph, own, wanted, at), work, arrays=arrays)
    program, parts = ask(model, inputs, question, settings)
    places, deltas = program.places, parts["delta"]
    apart = TapValues(zip(moving_together(places), deltas, strict=True))
    delta = deltas[0] if len(deltas) == 1 else apart
    return PathAttributions.at(places, parts["attributions"], skipped=program.skipped, delta=lambda: delta, steps=1)


def _check(baseline: BaselineReader, training: bool) -> None:
    if training:
        raise errors.ArgumentError(
            "deep_lift does not take training=True: an example and its baseline would draw masks of their own.",
            [],
            "training=False, or gt.attribution.integrated_gradients",
        )
    if baseline.is_at_tap:
        raise errors.ArgumentError(
            "deep_lift runs the baseline through the model from its input on: at_tap(...) is no input.",
            [],
            "give an input, or a function of the inputs",
        )


def _legs(graph: ForwardGraph, settings: Settings, target: Target, at: Any) -> Legs:
    """One leg that moves all inputs and returns multipliers and activations at the taps, then the target."""
    moved, places = resolve(graph, ":input"), resolve(graph, at)
    with surgery.inside(graph.graph):
        score = target.build(graph)
        # The examples stand in the first half; what the baselines score is no part of the sum.
        examples = score.value[: tf.shape(score.value)[0] // 2]
    needed = walking.ancestors([score.value])
    varying = Varying(graph.feeds, [op for op in graph.graph.get_operations() if op in needed], score.held)
    _check_rules(graph, varying, places)
    with in_force(graph, rules_for(varying), among=varying.ops):
        kept, multipliers, skipped = slopes_at(graph, places, examples, repr(target), settings.unconnected, order=2)
    leg = leg_with(graph, moved, kept, [*multipliers, *(place.tensor for place in kept), score.value], score)
    if not leg.cut.rows:
        raise errors.ModelTypeError(
            "deep_lift runs examples and baselines as one batch, which this model does not take.",
            [("inputs", ", ".join(str(tuple(feed.shape)) for feed in graph.feeds))],
            "build the model with a free batch axis",
        )
    return Legs([leg], skipped)


def _check_rules(graph: ForwardGraph, varying: Varying, places: Sequence[Place]) -> None:
    """Raise for an op between the taps and the target that no rule can handle.

    Raises:
      NoRuleError: It names the op.
    """
    behind = walking.descendants([place.variable for place in places])
    lacking = [op for op in varying.ops if (op.graph is not graph.graph or op in behind) and without_rule(varying, op)]
    by_type = {op.type: op for op in reversed(lacking)}
    errors.raise_all([_no_rule(op) for op in list(by_type.values())[:4]])


def _no_rule(op: Operation) -> errors.NoRuleError:
    in_target = op.name.startswith("gradtap/")
    return errors.NoRuleError(
        f"DeepLIFT has no rule for the op `{op.name}` ({op.type}), "
        + ("of the target." if in_target else "through which the target depends on the tap."),
        [],
        [
            "another target: a class, a logit, a contrast" if in_target else "tap a layer after it",
            "gt.attribution.integrated_gradients needs no rules",
        ],
    )
