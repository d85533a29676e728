"""Feature matching: an input that looks like one thing and is, at some layer, another."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from gradtap import errors
from gradtap.asking import address_key
from gradtap.attacks.field import Bounds
from gradtap.attacks.gradient_steps import pgd
from gradtap.attacks.results import Adversarial
from gradtap.differentiate import activations
from gradtap.graph import surgery
from gradtap.graph.resolve import resolve
from gradtap.graph.scores import Score, widen
from gradtap.graph.tracing import ForwardGraph
from gradtap.types import Address, Model, Structure, Tensor, TensorLike


@dataclass(frozen=True, repr=False)
class Matched(Adversarial):
    """Inputs whose activations have come closer to those of guides; see `gradtap.attacks.feature_match`.

    Args:
      examples: The changed inputs, ``(batch, ...)``.
      perturbation: The examples less what they were.
      success: Whether the activations have come closer, ``(batch,)``.
      distance: The largest change of each example, ``(batch,)``, in units of the input.
      outputs: What the model says of the examples, nested as it returns it.
      steps: How many steps each example took, ``(batch,)`` int32.
      tap: Where the change was made.
      remaining: What is left of the distance between the activations of input and guide, ``(batch,)``, as a share of
        what it was.
    """

    remaining: Tensor = None


@surgery.unconverted
def feature_match(
    model: Model,
    inputs: Structure,
    guides: Structure,
    *,
    at: Address,
    epsilon: TensorLike,
    steps: int,
    step_size: TensorLike | None = None,
    bounds: Bounds = (0, 1),
    batch_size: int | None = None,
    training: bool = False,
    seed: int | None = None,
    checks: bool = True,
) -> Matched:
    r"""Feature matching: change inputs a little, until their activations at a tap resemble those of guides.

    It makes :math:`\lVert h(x + \delta) - h(x_g) \rVert_2^2` small while :math:`\lVert \delta \rVert_\infty \le
    \epsilon`, by projected steps along the sign of its gradient.

    Args:
      model: See `gradtap.gradients`.
      inputs: One batch.
      guides: Other inputs of the same shapes: row n is what row n of ``inputs`` is to resemble.
      at: One address: where activations are compared.
      epsilon: The largest change of an entry, in units of the input; a number, or one for each example.
      steps: How many steps.
      step_size: The size of a step; None for 2.5 epsilon / steps.
      bounds: See `fgsm`.
      batch_size: See `gradtap.gradients`.
      training: See `gradtap.gradients`.
      seed: See `gradtap.gradients`.
      checks: See `gradtap.gradients`.

    Returns:
      `Matched`: as of `fgsm`; ``.success`` says whether the activations have come closer, and ``.remaining`` what is
      left of their distance, ``(batch,)``, as a share of what it was.

    Raises:
      GradtapError: One class for each cause; ``docs/errors`` has a page for each.

    Example:
      >>> import gradtap as gt, keras, numpy as np
      >>> layers = [keras.layers.Dense(2, name="hidden"), keras.layers.Dense(2)]
      >>> model = keras.Sequential([keras.Input((8,)), *layers])
      >>> x, guide = np.full((1, 8), 0.4), np.full((1, 8), 0.6)
      >>> found = gt.attacks.feature_match(model, x, guide, at="hidden", epsilon=0.1, steps=20)
      >>> bool(found.remaining[0] < 1)
      True

    References:
      Sabour et al., Adversarial Manipulation of Deep Representations, https://arxiv.org/abs/1511.05122, 2015.
    """
    shapes = [[tuple(np.shape(leaf)) for leaf in tf.nest.flatten(given)] for given in (inputs, guides)]
    if shapes[0] != shapes[1]:
        raise errors.InputShapeError(
            "inputs and guides differ in shape.",
            [("inputs", str(shapes[0])), ("guides", str(shapes[1]))],
            "give one guide for each example",
        )
    same: dict[str, Any] = {"batch_size": batch_size, "training": training, "seed": seed, "checks": checks}
    wanted, before = (activations(model, given, at=at, **same).only for given in (guides, inputs))
    step = 2.5 * np.asarray(epsilon, np.float64) / steps if step_size is None else step_size
    found = pgd(
        model,
        inputs,
        None,
        loss=_Resemblance(at, wanted),
        epsilon=epsilon,
        step_size=step,
        steps=steps,
        bounds=bounds,
        stop_early=False,
        **same,
    )
    after = activations(model, found.examples, at=at, **same).only
    distances = [_distance(h, wanted) for h in (after, before)]
    remaining = tf.math.divide_no_nan(*distances)
    return Matched(**vars(found) | {"success": distances[0] < distances[1]}, remaining=remaining)


def _distance(one: Tensor, other: Tensor) -> Tensor:
    change = tf.reshape(widen(one) - widen(other), (tf.shape(one)[0], -1))
    return tf.norm(change, axis=1)


class _Resemblance:
    """Minus the squared distance of the activations at a tap from others."""

    def __init__(self, at: Address, wanted: Tensor) -> None:
        self._at = at
        self._wanted = wanted

    def key(self, graph: ForwardGraph) -> Hashable:
        return ("resemblance", address_key(self._at))

    def build(self, graph: ForwardGraph) -> Score:
        [place] = resolve(graph, self._at)
        here = widen(place.tensor)
        wanted = tf.compat.v1.placeholder(here.dtype, (None, *here.shape[1:]), name="guides")
        return Score(-tf.reduce_sum((here - wanted) ** 2, list(range(1, here.shape.rank))), [wanted])

    def values(self, graph: ForwardGraph, batch: int | None) -> list[TensorLike]:
        return [widen(self._wanted)]

    def __repr__(self) -> str:
        return f"the resemblance at `{self._at}`"
