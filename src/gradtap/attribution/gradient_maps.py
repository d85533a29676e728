"""Class activation maps from one backward pass."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from gradtap.asking import Settings, Unconnected
from gradtap.attributing import attribute
from gradtap.graph import surgery
from gradtap.graph.resolve import Place
from gradtap.graph.scores import widen
from gradtap.graph.tracing import ForwardGraph
from gradtap.maps.class_maps import Grid, Layout, MapOptions, Upsample, mean_over_positions, spatial_axes
from gradtap.maps.resizing import Interpolation
from gradtap.results import Attributions
from gradtap.types import Address, Model, Structure, Tensor


@surgery.unconverted
def grad_cam(
    model: Model,
    inputs: Structure,
    *,
    target: Any = None,
    at: Address | Sequence[Address] = ":input",
    relu: bool = True,
    upsample: Upsample = None,
    interpolation: Interpolation = "bilinear",
    grid: Grid = "found",
    sum_channels: bool = True,
    unconnected: Unconnected = "error",
    batch_size: int | None = None,
    training: bool = False,
    seed: int | None = None,
    checks: bool = True,
) -> Attributions:
    r"""Grad-CAM: channels weighted by the mean of their gradient.

    With the activations :math:`a_{p,k}` at position :math:`p` in channel :math:`k`,

    .. math:: \mathrm{relu}\Big(\sum_k w_k a_{p,k}\Big), \qquad
        w_k = \frac{1}{P} \sum_p \frac{\partial F}{\partial a_{p,k}} .

    Args:
      model: See `gradtap.gradients`.
      inputs: See `gradtap.gradients`.
      target: See `gradtap.gradients`.
      at: Layers that return ``(batch, ..., channels)``; see `gradtap.gradients`. All maps come from one pass.
      relu: Keep what speaks for the target only.
      upsample: The size the map is brought to: ``"input"`` for that of the model's input, a size, or None for that of
        the layer.
      interpolation: ``"bilinear"`` with half-pixel centres, or ``"nearest"``, index ``floor(i * in / out)``.
      grid: For the tokens ``(batch, tokens, channels)`` of a vision transformer: ``"found"`` from the proportions of
        the image, with the class token left out; ``(rows, columns)``; or None for a map along the tokens.
      sum_channels: False leaves the channels apart: ``(batch, *spatial, channels)``.
      unconnected: See `gradtap.gradients`.
      batch_size: See `gradtap.gradients`.
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
      >>> gt.attribution.grad_cam(model, x, target=0, at="conv", upsample="input").only.shape
      TensorShape([1, 8, 8])

    References:
      Selvaraju et al., Grad-CAM, https://arxiv.org/abs/1610.02391, 2016.
    """
    settings = Settings(unconnected, batch_size, training, seed, checks)
    options = MapOptions(relu, upsample, interpolation, grid, sum_channels)
    return _maps(model, inputs, target, at, settings, "grad_cam", _mean_slope, options)


@surgery.unconverted
def grad_cam_plus_plus(
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
    r"""Grad-CAM++: positive gradients weighted so that each place where a class is seen counts alike.

    .. math:: w_k = \sum_p \alpha_{p,k}\, \mathrm{relu}(g_{p,k}), \qquad
        \alpha_{p,k} = \frac{g_{p,k}^2}{2 g_{p,k}^2 + g_{p,k}^3 \sum_q a_{q,k}}, \qquad
        g = \frac{\partial F}{\partial a} ,

    which is the paper's form for the score before an exponential, the logit.

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
      batch_size: See `gradtap.gradients`.
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
      >>> gt.attribution.grad_cam_plus_plus(model, x, target=0, at="conv", upsample="input").only.shape
      TensorShape([1, 8, 8])

    References:
      Chattopadhyay et al., Grad-CAM++, https://arxiv.org/abs/1710.11063, 2017.
    """
    settings = Settings(unconnected, batch_size, training, seed, checks)
    options = MapOptions(relu, upsample, interpolation, grid)
    return _maps(model, inputs, target, at, settings, "grad_cam_plus_plus", _plus_plus, options)


@surgery.unconverted
def layer_cam(
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
    r"""LayerCAM: each position of each channel weighted by its own positive gradient.

    .. math:: \mathrm{relu}\Big(\sum_k \mathrm{relu}\big(\partial F / \partial a_{p,k}\big)\, a_{p,k}\Big) .

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
      batch_size: See `gradtap.gradients`.
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
      >>> gt.attribution.layer_cam(model, x, target=0, at="conv", upsample="input").only.shape
      TensorShape([1, 8, 8])

    References:
      Jiang, Zhang, Hou, Cheng, Wei, LayerCAM, https://doi.org/10.1109/TIP.2021.3089943, 2021.
    """
    settings = Settings(unconnected, batch_size, training, seed, checks)
    options = MapOptions(relu, upsample, interpolation, grid)
    return _maps(model, inputs, target, at, settings, "layer_cam", _positive_slope, options)


@surgery.unconverted
def hires_cam(
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
    r"""HiResCAM: each position of each channel weighted by its own gradient.

    .. math:: \mathrm{relu}\Big(\sum_k \frac{\partial F}{\partial a_{p,k}}\, a_{p,k}\Big) .

    Where only linear layers follow, it is exactly what each position adds to the score.

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
      batch_size: See `gradtap.gradients`.
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
      >>> gt.attribution.hires_cam(model, x, target=0, at="conv", upsample="input").only.shape
      TensorShape([1, 8, 8])

    References:
      Draelos, Carin, Use HiResCAM instead of Grad-CAM, https://arxiv.org/abs/2011.08891, 2020.
    """
    settings = Settings(unconnected, batch_size, training, seed, checks)
    options = MapOptions(relu, upsample, interpolation, grid)
    return _maps(model, inputs, target, at, settings, "hires_cam", _slope, options)


@surgery.unconverted
def xgrad_cam(
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
    r"""XGrad-CAM: channels weighted by the mean of their gradient where they are active.

    .. math:: w_k = \sum_p \frac{a_{p,k}}{\sum_q a_{q,k}} \frac{\partial F}{\partial a_{p,k}} .

    A channel whose activations sum to zero has no weight.

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
      batch_size: See `gradtap.gradients`.
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
      >>> gt.attribution.xgrad_cam(model, x, target=0, at="conv", upsample="input").only.shape
      TensorShape([1, 8, 8])

    References:
      Fu et al., Axiom-based Grad-CAM, https://arxiv.org/abs/2008.02312, 2020.
    """
    settings = Settings(unconnected, batch_size, training, seed, checks)
    options = MapOptions(relu, upsample, interpolation, grid)
    return _maps(model, inputs, target, at, settings, "xgrad_cam", _active_slope, options)


def _maps(
    model: Model,
    inputs: Structure,
    target: Any,
    at: Any,
    settings: Settings,
    name: str,
    weights: Callable[[Tensor, Tensor], Tensor],
    options: MapOptions,
) -> Attributions:
    def formula(graph: ForwardGraph, place: Place, slope: Tensor) -> Tensor:
        layout = Layout(graph, place, options)
        activations, slopes = layout.laid(widen(place.tensor)), layout.laid(widen(slope))
        return tf.cast(layout.finished(weights(activations, slopes) * activations, graph.feeds), place.tensor.dtype)

    key = (name, options.key())
    return attribute(model, inputs, target, at, settings, name=key, formula=formula, small=True)


def _mean_slope(activations: Tensor, slopes: Tensor) -> Tensor:
    return mean_over_positions(slopes)


def _plus_plus(activations: Tensor, slopes: Tensor) -> Tensor:
    axes = spatial_axes(slopes)
    square = slopes**2
    total = tf.reduce_sum(activations, axes, keepdims=True)
    alpha = tf.math.divide_no_nan(square, 2 * square + square * slopes * total)
    return tf.reduce_sum(alpha * tf.nn.relu(slopes), axes, keepdims=True)


def _positive_slope(activations: Tensor, slopes: Tensor) -> Tensor:
    return tf.nn.relu(slopes)


def _slope(activations: Tensor, slopes: Tensor) -> Tensor:
    return slopes


def _active_slope(activations: Tensor, slopes: Tensor) -> Tensor:
    axes = spatial_axes(slopes)
    total = tf.reduce_sum(activations, axes, keepdims=True)
    return tf.math.divide_no_nan(tf.reduce_sum(activations * slopes, axes, keepdims=True), total)
