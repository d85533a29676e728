"""Run the rest of a model from a tap on, for its slope, its outputs and the loss: what every attack goes by."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from gradtap import errors
from gradtap.asking import Settings, address_key, ask
from gradtap.attacks.attack_losses import attack_target
from gradtap.attacks.field import Bounds, Frame
from gradtap.attacks.results import Adversarial
from gradtap.attacks.searching import Search, searched
from gradtap.differentiate import slopes_at
from gradtap.graph import surgery
from gradtap.graph.resolve import resolve
from gradtap.graph.scores import pre_squash
from gradtap.graph.tracing import ForwardGraph
from gradtap.staged.slope_legs import leg_with
from gradtap.staged.stages import Legs, Stage, Staged, refuse_states
from gradtap.targets.protocol import Target
from gradtap.types import Model, Structure, Tensor, TensorLike


def attack(
    model: Model,
    inputs: Structure,
    labels: Any,
    loss: Any,
    at: Any,
    settings: Settings,
    *,
    search: Search,
    targeted: bool,
    bounds: Bounds,
    per_example: dict[str, Any],
) -> Adversarial:
    """Attack a model at a tap.

    Args:
      model: See `gradtap.gradients`.
      inputs: See `gradtap.gradients`.
      labels: One class for each example, or what the loss compares with.
      loss: What is made large; None for the cross-entropy.
      at: One address.
      settings: The keywords of the call.
      search: Moves the points.
      targeted: Whether the labels are what the model is to say.
      bounds: Lowest and highest value of an input.
      per_example: Checked numbers with one for each example, or one for all, by name, as ``search`` asks its field.
    """
    target = attack_target(loss, labels, targeted)
    classes = _classes(labels)
    limits = None if bounds is None else (float(bounds[0]), float(bounds[1]))

    def work(stages: list[Stage], inputs: list[Tensor], arrays: list[TensorLike]) -> dict[str, list[Tensor]]:
        [stage] = stages
        at_input = any(stage.leg.moved[0].tensor is feed for feed in stage.graph.feeds)
        own = limits if at_input else None
        _check_bounds(stage.here[0], own)
        if classes is None:  # what the loss is where the attack begins, to tell success by
            told_by = (-1.0 if targeted else 1.0) * stage.run([stage.here[0][None]])[-1][0]
        else:
            told_by = tf.broadcast_to(tf.convert_to_tensor(arrays[-1]), tf.shape(stage.here[0])[:1])
        given = [tf.convert_to_tensor(array) for array in arrays[: len(per_example)]]
        fed = [tf.convert_to_tensor(value) for value in stage.fed]
        tensors = [stage.here[0], *stage.beside, *fed, told_by, *given]
        frame = Frame(
            suffix=stage.leg.cut.suffix,
            beside=len(stage.beside),
            fed=len(fed),
            has_labels=classes is not None,
            names=tuple(per_example),
            targeted=targeted,
            bounds=own,
            middle=0.5 if pre_squash(stage.graph.outputs[0]) is not None else 0.0,
            together=stage.fits(search.at_once),
            dtypes=stage.leg.dtypes,
        )
        found = searched(search, frame, tensors, stage.apart, stage.leg.compiled, "steps of an attack")
        if stage.leg.squashed:  # tells whether the loss was saturated where the attack began and where it ended
            for point in (stage.here[0], found.examples):
                stage.run([point[None]])
        parts = found._asdict()
        return {key: part if key == "outputs" else [part] for key, part in parts.items() if key != "loss"}

    def arrays(graph: ForwardGraph, batch: int | None) -> list[TensorLike]:
        given = [np.asarray(value) for value in per_example.values()]
        for what, value in zip(per_example, given, strict=True):
            if value.ndim > 1 or (value.ndim and batch not in (None, 0, len(value))):
                raise errors.ArgumentError(
                    f"{what} has shape {value.shape} for {batch} examples.",
                    [],
                    "a number for all, or one for each example",
                )
        return [*(np.reshape(v, -1) for v in given), *([] if classes is None else [tf.reshape(classes, [-1])])]

    question = Staged(
        target, ("attack", address_key(at)), lambda graph, own: _legs(graph, own, target, at), work, arrays=arrays
    )
    program, parts = ask(model, inputs, question, settings)
    found = {key: parts[key][0] for key in ("examples", "perturbation", "success", "distance", "steps")}
    return Adversarial(**found, outputs=program.pack_outputs(parts["outputs"]), tap=program.places[0].key)


def _classes(labels: Any) -> Tensor | None:
    if labels is None:
        return None
    tensor = tf.convert_to_tensor(labels)
    return tf.cast(tensor, tf.int32) if tensor.dtype.is_integer and tensor.shape.rank in (0, 1) else None


def _legs(graph: ForwardGraph, settings: Settings, target: Target, at: Any) -> Legs:
    places = resolve(graph, at)
    if len(places) != 1:
        raise errors.ArgumentError(
            "an attack changes one tap.",
            [("asked for", ", ".join(f"`{place.key}`" for place in places))],
            "name one of them",
        )
    with surgery.inside(graph.graph):
        score = target.build(graph)
    kept, slopes, skipped = slopes_at(graph, places, score.value, repr(target), "error", "loss")
    refuse_states(kept)
    before = pre_squash(graph.outputs[0])
    scores = graph.outputs[0] if before is None else before
    return Legs([leg_with(graph, kept, kept, [*slopes, scores, *graph.outputs, score.value], score)], skipped)


def _check_bounds(start: Tensor, bounds: Bounds) -> None:
    if bounds is None or not hasattr(start, "numpy") or not tf.size(start):
        return
    low, high = float(tf.reduce_min(start)), float(tf.reduce_max(start))
    if low < bounds[0] or high > bounds[1]:
        raise errors.ArgumentError(
            f"the inputs are outside of bounds={bounds}.",
            [("they are", f"{low:g} to {high:g}")],
            ["bounds=(lowest, highest) of what the model is given", "bounds=None where there are none"],
        )
