"""Gradient methods: what one forward and one backward pass say."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import tensorflow as tf

from gradtap.asking import Settings, Unconnected, check_choice
from gradtap.attributing import attribute
from gradtap.graph import surgery
from gradtap.maps.class_maps import spatial_axes
from gradtap.results import Attributions
from gradtap.staged.ablations import ablate
from gradtap.staged.stages import Stage
from gradtap.types import Address, Model, Structure, Tensor


@surgery.unconverted
def saliency(
    model: Model,
    inputs: Structure,
    *,
    target: Any = None,
    at: Address | Sequence[Address] = ":input",
    absolute: bool = False,
    unconnected: Unconnected = "error",
    batch_size: int | None = None,
    training: bool = False,
    seed: int | None = None,
    checks: bool = True,
) -> Attributions:
    r"""The gradient of the target at a tap.

    .. math:: \partial F / \partial a \quad\text{or}\quad |\partial F / \partial a| .

    Args:
      model: See `gradtap.gradients`.
      inputs: See `gradtap.gradients`.
      target: See `gradtap.gradients`.
      at: See `gradtap.gradients`.
      absolute: Take absolute values: how strongly, and not in which direction.
      unconnected: See `gradtap.gradients`.
      batch_size: See `gradtap.gradients`.
      training: See `gradtap.gradients`.
      seed: See `gradtap.gradients`.
      checks: See `gradtap.gradients`.

    Returns:
      `Attributions`: a mapping from address to a tensor of the shape and dtype of its activations.

    Raises:
      GradtapError: One class for each cause; ``docs/errors`` has a page for each.

    Example:
      >>> import gradtap as gt, keras, numpy as np
      >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
      >>> a = gt.attribution.saliency(model, np.ones((1, 3)), target=0, absolute=True)
      >>> bool(np.allclose(a.only, np.abs(model.layers[0].kernel[:, 0])))
      True

    References:
      Simonyan, Vedaldi, Zisserman, Deep Inside Convolutional Networks, https://arxiv.org/abs/1312.6034, 2013.
    """
    settings = Settings(unconnected, batch_size, training, seed, checks)
    check_choice("absolute", absolute, (True, False))
    return attribute(
        model,
        inputs,
        target,
        at,
        settings,
        name=("saliency", absolute),
        formula=lambda graph, place, slope: tf.abs(slope) if absolute else slope,
    )


@surgery.unconverted
def activation_x_gradient(
    model: Model,
    inputs: Structure,
    *,
    target: Any = None,
    at: Address | Sequence[Address] = ":input",
    unconnected: Unconnected = "error",
    batch_size: int | None = None,
    training: bool = False,
    seed: int | None = None,
    checks: bool = True,
) -> Attributions:
    r"""Activation times gradient: at the input, input times gradient.

    .. math:: a \odot \partial F / \partial a .

    The first-order estimate of what the target loses when a unit is set to zero.

    Args:
      model: See `gradtap.gradients`.
      inputs: See `gradtap.gradients`.
      target: See `gradtap.gradients`.
      at: See `gradtap.gradients`.
      unconnected: See `gradtap.gradients`.
      batch_size: See `gradtap.gradients`.
      training: See `gradtap.gradients`.
      seed: See `gradtap.gradients`.
      checks: See `gradtap.gradients`.

    Returns:
      `Attributions`: a mapping from address to a tensor of the shape and dtype of its activations.

    Raises:
      GradtapError: One class for each cause; ``docs/errors`` has a page for each.

    Example:
      The score of a linear model without bias is the sum of its attributions.

      >>> import gradtap as gt, keras, numpy as np
      >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, use_bias=False)])
      >>> x = np.array([[1.0, 2.0, 3.0]])
      >>> a = gt.attribution.activation_x_gradient(model, x, target=0)
      >>> bool(np.allclose(np.sum(a.only), model(x)[0, 0]))
      True

    References:
      Shrikumar, Greenside, Shcherbina, Kundaje, Not Just a Black Box, https://arxiv.org/abs/1605.01713, 2016.
    """
    settings = Settings(unconnected, batch_size, training, seed, checks)
    return attribute(
        model,
        inputs,
        target,
        at,
        settings,
        name="activation x gradient",
        formula=lambda graph, place, slope: place.tensor * slope,
    )


@surgery.unconverted
def channel_importance(
    model: Model,
    inputs: Structure,
    *,
    target: Any = None,
    at: Address | Sequence[Address] = ":input",
    by: Literal["gradient", "ablation"] = "gradient",
    unconnected: Unconnected = "error",
    batch_size: int | None = None,
    training: bool = False,
    seed: int | None = None,
    checks: bool = True,
) -> Attributions:
    r"""How much each channel, each feature map, of a layer moves the target.

    With the channel :math:`k` of the activations :math:`a` over the positions :math:`p`,

    .. math:: \sum_p a_{p,k} \frac{\partial F}{\partial a_{p,k}} \approx F(a) - F(a \text{ with } a_{\cdot,k} = 0) .

    The left side takes one pass for all channels; the right side is exact, and takes one run of the rest of the model
    for each channel.

    Args:
      model: See `gradtap.gradients`.
      inputs: See `gradtap.gradients`.
      target: See `gradtap.gradients`.
      at: See `gradtap.gradients`.
      by: ``"gradient"`` for the left side, ``"ablation"`` for the right one.
      unconnected: See `gradtap.gradients`.
      batch_size: See `gradtap.gradients`.
      training: See `gradtap.gradients`.
      seed: See `gradtap.gradients`.
      checks: See `gradtap.gradients`.

    Returns:
      `Attributions`: a mapping from address to a tensor ``(batch, channels)``.

    Raises:
      GradtapError: One class for each cause; ``docs/errors`` has a page for each.

    Example:
      Under a linear head both are exact.

      >>> import gradtap as gt, keras, numpy as np
      >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(4, name="hidden"), keras.layers.Dense(2)])
      >>> x = np.ones((1, 3))
      >>> a = gt.attribution.channel_importance(model, x, target=0, at="hidden")
      >>> b = gt.attribution.channel_importance(model, x, target=0, at="hidden", by="ablation")
      >>> bool(np.allclose(a.only, b.only, atol=1e-6)), a.only.shape
      (True, TensorShape([1, 4]))

    References:
      Molchanov, Tyree, Karras, Aila, Kautz, Pruning Convolutional Neural Networks for Resource Efficient Inference,
      https://arxiv.org/abs/1611.06440, 2016.
    """
    settings = Settings(unconnected, batch_size, training, seed, checks)
    check_choice("by", by, ("gradient", "ablation"))
    if by == "ablation":
        return ablate(model, inputs, target, at, settings, finish=_lost)
    return attribute(
        model,
        inputs,
        target,
        at,
        settings,
        name="channel importance",
        formula=lambda graph, place, slope: _over_positions(place.tensor * slope),
        small=True,
    )


def _lost(stage: Stage, whole: Tensor, without: Tensor, inputs: list[Tensor]) -> Tensor:
    return tf.cast(whole[:, None] - without, stage.here[0].dtype)


def _over_positions(products: Tensor) -> Tensor:
    return tf.reduce_sum(products, spatial_axes(products))
