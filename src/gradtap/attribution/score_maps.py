"""Class activation maps from runs of the model with parts of it changed: Score-CAM and Ablation-CAM."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from gradtap.asking import Settings, Unconnected, address_key, ask
from gradtap.graph import surgery
from gradtap.graph.resolve import resolve
from gradtap.graph.scores import widen
from gradtap.graph.tracing import ForwardGraph
from gradtap.maps.class_maps import Grid, Layout, MapOptions, Upsample
from gradtap.maps.resizing import Interpolation, resized
from gradtap.results import Attributions
from gradtap.staged.ablations import ablate, score_legs
from gradtap.staged.stages import Legs, Stage, Staged
from gradtap.targets import as_target
from gradtap.types import Address, Model, Structure, Tensor, TensorLike


@surgery.unconverted
def score_cam(
    model: Model,
    inputs: Structure,
    *,
    target: Any = None,
    at: Address | Sequence[Address] = ":input",
    relu: bool = True,
    upsample: Upsample = None,
    interpolation: Interpolation = "bilinear",
    grid: Grid = "found",
    unconnected: Unconnected = "error",
    batch_size: int | None = None,
    training: bool = False,
    seed: int | None = None,
    checks: bool = True,
) -> Attributions:
    r"""Score-CAM: channels weighted by the score of the input seen through each of them.

    With :math:`H_k` the channel :math:`k` brought to the size of the input and scaled to [0, 1],

    .. math:: \mathrm{relu}\Big(\sum_k w_k a_{p,k}\Big), \qquad w = \mathrm{softmax}_k\; F(x \odot H_k) .

    It takes no gradient, and one run of the model for each channel.

    Args:
      model: See `gradtap.gradients`.
      inputs: See `gradtap.gradients`.
      target: See `gradtap.gradients`.
      at: See `grad_cam`.
      relu: See `grad_cam`.
      upsample: See `grad_cam`.
      interpolation: See `grad_cam`.
      grid: See `grad_cam`.
      unconnected: See `gradtap.gradients`.
      batch_size: Most examples in flight at once, channels included; None chooses it from the size of the activations.
      training: See `gradtap.gradients`.
      seed: See `gradtap.gradients`.
      checks: See `gradtap.gradients`.

    Returns:
      `Attributions`: a mapping from address to map ``(batch, *spatial)``; ``(batch,)`` where a layer has no positions.

    Raises:
      GradtapError: One class for each cause; ``docs/errors`` has a page for each.

    Example:
      >>> import gradtap as gt, keras, numpy as np
      >>> conv, mean = keras.layers.Conv2D(4, 3, name="conv"), keras.layers.GlobalAveragePooling2D()
      >>> model = keras.Sequential([keras.Input((8, 8, 1)), conv, mean, keras.layers.Dense(2)])
      >>> x = np.ones((1, 8, 8, 1))
      >>> gt.attribution.score_cam(model, x, target=0, at="conv", upsample="input").only.shape
      TensorShape([1, 8, 8])

    References:
      Wang et al., Score-CAM, https://arxiv.org/abs/1910.01279, 2019.
    """
    settings = Settings(unconnected, batch_size, training, seed, checks)
    options = MapOptions(relu, upsample, interpolation, grid)
    wanted = as_target(target)

    def legs(graph: ForwardGraph, own: Settings) -> Legs:
        found = score_legs(graph, own, wanted, at)
        over = {graph.feeds[Layout(graph, place, options).over_input(graph)].ref() for place in found.measured}
        inputs = [place for place in resolve(graph, ":input") if place.tensor.ref() in over]
        seen = score_legs(graph, own, wanted, [place.tap for place in inputs], aside=True)
        return Legs([*found.legs, *seen.legs], found.skipped)

    def work(stages: list[Stage], inputs: list[Tensor], arrays: list[TensorLike]) -> dict[str, list[Tensor]]:
        graph = stages[0].graph
        through = {stage.leg.moved[0].tensor.ref(): stage for stage in stages if stage.leg.aside}
        maps = []
        for stage in stages:
            if not stage.leg.aside:
                layout = Layout(graph, stage.leg.moved[0], options)
                model = through[graph.feeds[layout.over_input(graph)].ref()]
                map_ = _by_scores(stage.here[0], model, layout, inputs)
                maps.append(map_ if stage.leg.reached else tf.zeros_like(map_))
        return {"attributions": maps}

    question = Staged(wanted, ("score_cam", address_key(at), options.key()), legs, work)
    program, parts = ask(model, inputs, question, settings)
    return Attributions.at(program.places, parts["attributions"], skipped=program.skipped)


@surgery.unconverted
def ablation_cam(
    model: Model,
    inputs: Structure,
    *,
    target: Any = None,
    at: Address | Sequence[Address] = ":input",
    relu: bool = True,
    upsample: Upsample = None,
    interpolation: Interpolation = "bilinear",
    grid: Grid = "found",
    unconnected: Unconnected = "error",
    batch_size: int | None = None,
    training: bool = False,
    seed: int | None = None,
    checks: bool = True,
) -> Attributions:
    r"""Ablation-CAM: channels weighted by what the score loses without each of them.

    With :math:`F_k` the target with channel :math:`k` at the tap set to zero,

    .. math:: \mathrm{relu}\Big(\sum_k w_k a_{p,k}\Big), \qquad w_k = \frac{F - F_k}{F} .

    It takes no gradient, and one run of the rest of the model for each channel.

    Args:
      model: See `gradtap.gradients`.
      inputs: See `gradtap.gradients`.
      target: See `gradtap.gradients`.
      at: See `grad_cam`.
      relu: See `grad_cam`.
      upsample: See `grad_cam`.
      interpolation: See `grad_cam`.
      grid: See `grad_cam`.
      unconnected: See `gradtap.gradients`.
      batch_size: Most examples in flight at once, channels included; None chooses it from the size of the activations.
      training: See `gradtap.gradients`.
      seed: See `gradtap.gradients`.
      checks: See `gradtap.gradients`.

    Returns:
      `Attributions`: a mapping from address to map ``(batch, *spatial)``; ``(batch,)`` where a layer has no positions.

    Raises:
      GradtapError: One class for each cause; ``docs/errors`` has a page for each.

    Example:
      >>> import gradtap as gt, keras, numpy as np
      >>> conv, mean = keras.layers.Conv2D(4, 3, name="conv"), keras.layers.GlobalAveragePooling2D()
      >>> model = keras.Sequential([keras.Input((8, 8, 1)), conv, mean, keras.layers.Dense(2)])
      >>> x = np.ones((1, 8, 8, 1))
      >>> gt.attribution.ablation_cam(model, x, target=0, at="conv", upsample="input").only.shape
      TensorShape([1, 8, 8])

    References:
      Desai, Ramaswamy, Ablation-CAM, https://doi.org/10.1109/WACV45572.2020.9093360, 2020.
    """
    settings = Settings(unconnected, batch_size, training, seed, checks)
    options = MapOptions(relu, upsample, interpolation, grid)
    key = options.key()

    def finish(stage: Stage, whole: Tensor, without: Tensor, inputs: list[Tensor]) -> Tensor:
        layout = Layout(stage.graph, stage.leg.moved[0], MapOptions(*key))
        weights = tf.math.divide_no_nan(whole[:, None] - without, whole[:, None])
        return _weighed(layout, stage.here[0], weights, inputs)

    return ablate(model, inputs, target, at, settings, finish=finish)


def _by_scores(activations: Tensor, model: Stage, layout: Layout, inputs: list[Tensor]) -> Tensor:
    laid = layout.laid(widen(activations))
    axes = list(range(1, layout.rank - 1))
    large = resized(laid, layout.size_over(inputs), "bilinear", axes)
    low, high = tf.reduce_min(large, axes, keepdims=True), tf.reduce_max(large, axes, keepdims=True)
    masks = tf.math.divide_no_nan(large - low, high - low)
    masks = tf.transpose(masks, [masks.shape.rank - 1, *range(masks.shape.rank - 1)])[..., None]
    scores = []
    for part in model.parts(masks.shape[0], f"channels of {model.leg.measured[0].key}"):
        seen = widen(model.here[0])[None] * tf.cast(masks[part], widen(model.here[0]).dtype)
        scores.append(model.run([tf.cast(seen, model.here[0].dtype)])[0])
    weights = tf.nn.softmax(tf.transpose(tf.concat(scores, 0)))
    return _weighed(layout, activations, weights, inputs)


def _weighed(layout: Layout, activations: Tensor, weights: Tensor, inputs: list[Tensor]) -> Tensor:
    laid = layout.laid(widen(activations))
    weights = tf.cast(weights, laid.dtype)
    weights = tf.reshape(weights, (-1, *([1] * (layout.rank - 2)), weights.shape[-1]))
    return tf.cast(layout.finished(weights * laid, inputs), activations.dtype)
