"""Set one channel at a tap to zero after the other, and see what the target becomes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeAlias

import tensorflow as tf

from gradtap import errors
from gradtap.asking import Settings, address_key, ask
from gradtap.differentiate import slopes_at
from gradtap.graph import surgery, walking
from gradtap.graph.resolve import resolve
from gradtap.graph.tracing import ForwardGraph
from gradtap.results import Attributions
from gradtap.staged.slope_legs import leg_with
from gradtap.staged.stages import Legs, Stage, Staged, refuse_states
from gradtap.targets import Target, as_target
from gradtap.types import Model, Structure, Tensor, TensorLike

#: From a stage, the target as it is ``(batch,)``, with each channel at zero ``(batch, channels)``, and the inputs.
Finish: TypeAlias = Callable[[Stage, Tensor, Tensor, list[Tensor]], Tensor]


def ablate(
    model: Model, inputs: Structure, target: Any, at: Any, settings: Settings, *, finish: Finish
) -> Attributions:
    """Run the rest of the model once for every channel of every tap, with that channel at zero.

    Args:
      model: See `gradtap.gradients`.
      inputs: See `gradtap.gradients`.
      target: See `gradtap.gradients`.
      at: See `gradtap.gradients`.
      settings: The keywords of the call.
      finish: Makes the attribution of what was found at a tap.
    """
    wanted = as_target(target)

    def work(stages: list[Stage], inputs: list[Tensor], arrays: list[TensorLike]) -> dict[str, list[Tensor]]:
        found = []
        for stage in stages:
            here = stage.here[0]
            whole = stage.run([here[None]])[0][0]
            found.append(finish(stage, whole, _each_channel(stage, here), inputs))
        return {"attributions": found}

    question = Staged(wanted, ("ablation", address_key(at)), lambda g, own: score_legs(g, own, wanted, at), work)
    program, parts = ask(model, inputs, question, settings)
    return Attributions.at(program.places, parts["attributions"], skipped=program.skipped)


def _each_channel(stage: Stage, here: Tensor) -> Tensor:
    channels = here.shape[-1]
    place = stage.leg.measured[0]
    if channels is None or here.shape.rank < 2:
        raise errors.SideError(
            f"`{place.key}` has no channels: its activations are {tuple(place.tensor.shape)}.",
            [],
            "tap a layer that returns (batch, ..., channels)",
        )
    scores = []
    for part in stage.parts(channels, f"channels of {place.key}"):
        kept = 1 - tf.one_hot(range(part.start, part.stop), channels, dtype=here.dtype)
        kept = tf.reshape(kept, (-1, *([1] * (here.shape.rank - 1)), channels))
        scores.append(stage.run([here[None] * kept])[0])
    return tf.transpose(tf.concat(scores, 0))


def score_legs(graph: ForwardGraph, settings: Settings, target: Target, at: Any, *, aside: bool = False) -> Legs:
    """A leg for each tap, whose suffix returns the target.

    Args:
      graph: The traced forward pass.
      settings: The keywords of the call.
      target: What is looked at.
      at: The taps.
      aside: Whether the legs serve others.
    """
    places = resolve(graph, at)
    with surgery.inside(graph.graph):
        score = target.build(graph)
    kept, skipped = list(places), dict[str, str]()
    if not aside:
        kept, _, skipped = slopes_at(graph, places, score.value, repr(target), settings.unconnected)
    refuse_states(kept)
    legs = []
    for place in kept:
        reached = score.value.op in walking.descendants([place.tensor])
        leg = leg_with(graph, [place], [place], [score.value], score)
        legs.append(replace(leg, aside=aside, reached=reached))
    return Legs(legs, skipped)
