"""Run the rest of a model from a tap on, for its slope, its outputs and the loss: what every attack goes by."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from gradtap import errors
from gradtap.asking import Settings, address_key, ask
from gradtap.attacks.attack_losses import attack_target
from gradtap.attacks.balls import Norm, length
from gradtap.attacks.results import Adversarial
from gradtap.differentiate import slopes_at
from gradtap.graph import surgery
from gradtap.graph.resolve import resolve
from gradtap.graph.scores import pre_squash, widen
from gradtap.graph.tracing import ForwardGraph
from gradtap.staged.slope_legs import leg_with
from gradtap.staged.stages import Legs, Stage, Staged, refuse_states
from gradtap.targets.protocol import Target
from gradtap.types import Model, Structure, Tensor, TensorLike

Bounds = tuple[float, float] | None


class Seen(NamedTuple):
    """What a run of the rest of the model shows at a point."""

    slope: Tensor
    outputs: list[Tensor]
    loss: Tensor


class Field:
    """The rest of a model as an attack sees it, on one batch.

    Args:
      stage: The rest of the model from the tap on.
      labels: One class for each example, int; None where the loss is of another kind.
      targeted: Whether the labels are what the model is to say.
      bounds: Lowest and highest value of an input; None at another tap, or where there are none.
      given: What else there is for each example, by name.
    """

    def __init__(
        self, stage: Stage, labels: Tensor | None, targeted: bool, bounds: Bounds, given: Mapping[str, TensorLike]
    ) -> None:
        self.given = given
        self._stage = stage
        self._labels = labels
        self.sign = -1.0 if targeted else 1.0
        self._targeted = targeted
        self._bounds = bounds
        #: Where the attack begins.
        self.start = stage.here[0]

    def look(self, point: Tensor) -> Seen:
        """The slope of what is to become large, the outputs and that loss, at a point."""
        slope, *outputs, loss = (tensor[0] for tensor in self._stage.run([tf.cast(point, self.start.dtype)[None]]))
        return Seen(self.sign * widen(slope), outputs, self.sign * loss)

    def kept_in_bounds(self, point: Tensor) -> Tensor:
        """The nearest point with all entries within the bounds."""
        return point if self._bounds is None else tf.clip_by_value(point, *self._bounds)

    def succeeded(self, seen: Seen, first: Seen) -> Tensor:
        """Whether the model says something else than it should, or where targeted what it is to say, ``(batch,)``."""
        output = seen.outputs[0]
        if self._labels is None or output.shape.rank != 2:
            return seen.loss > first.loss
        if output.shape[1] == 1:
            middle = 0.5 if pre_squash(self._stage.graph.outputs[0]) is not None else 0.0
            said = tf.cast(output[:, 0] > middle, self._labels.dtype)
        else:
            said = tf.argmax(output, 1, output_type=self._labels.dtype)
        return tf.equal(said, self._labels) if self._targeted else tf.not_equal(said, self._labels)


#: Moves the points; from the field to the final points and how many steps each example took.
Search = Callable[[Field], tuple[Tensor, Tensor]]


def attack(
    model: Model,
    inputs: Structure,
    labels: Any,
    loss: Any,
    at: Any,
    settings: Settings,
    *,
    name: Hashable,
    search: Search,
    targeted: bool,
    bounds: Bounds,
    norm: Norm,
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
      name: What the programs are kept under.
      search: Moves the points.
      targeted: Whether the labels are what the model is to say.
      bounds: Lowest and highest value of an input.
      norm: In which the distance is measured.
      per_example: Checked numbers with one for each example, or one for all, by name; ``search`` reads them from the
        field's ``given``.
    """
    target = attack_target(loss, labels)
    classes = _classes(labels)

    def work(stages: list[Stage], inputs: list[Tensor], arrays: list[TensorLike]) -> dict[str, list[Tensor]]:
        [stage] = stages
        at_input = any(stage.leg.moved[0].tensor is feed for feed in stage.graph.feeds)
        own = bounds if at_input else None
        _check_bounds(stage.here[0], own)
        examples = tf.shape(stage.here[0])[:1]
        rows = None if classes is None else tf.broadcast_to(tf.convert_to_tensor(arrays[-1]), examples)
        field = Field(stage, rows, targeted, own, dict(zip(per_example, arrays, strict=False)))
        point, steps = search(field)
        final = field.look(point)
        first = field.look(field.start)
        change = widen(tf.cast(point, field.start.dtype)) - widen(field.start)
        return {
            "examples": [tf.cast(point, field.start.dtype)],
            "perturbation": [change],
            "success": [field.succeeded(final, first)],
            "distance": [length(change, norm)],
            "outputs": final.outputs,
            "steps": [steps],
        }

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
        target, (name, address_key(at)), lambda graph, own: _legs(graph, own, target, at), work, arrays=arrays
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
    return Legs([leg_with(graph, kept, kept, [*slopes, *graph.outputs, score.value], score)], skipped)


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
