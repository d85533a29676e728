"""SmoothGrad and its kin: gradients in a neighbourhood of the activations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import tensorflow as tf

from gradtap import errors
from gradtap.asking import Settings, Unconnected, address_key, ask, check_choice
from gradtap.graph import surgery
from gradtap.graph.scores import widen
from gradtap.results import Attributions
from gradtap.staged.noise import generator, normal_like
from gradtap.staged.quadrature import check_count
from gradtap.staged.slope_legs import slope_legs
from gradtap.staged.stages import Stage, Staged
from gradtap.targets import as_target
from gradtap.types import Address, Model, Structure, Tensor, TensorLike


@surgery.unconverted
def smooth_grad(
    model: Model,
    inputs: Structure,
    *,
    target: Any = None,
    at: Address | Sequence[Address] = ":input",
    samples: int = 50,
    noise: float = 0.15,
    statistic: Literal["mean", "squared", "variance"] = "mean",
    unconnected: Unconnected = "error",
    batch_size: int | None = None,
    training: bool = False,
    seed: int | None = None,
    checks: bool = True,
) -> Attributions:
    r"""SmoothGrad: the mean gradient over activations with noise added to them.

    With :math:`\epsilon_i` normal of deviation :math:`\sigma`, the share ``noise`` of the range of an example's
    activations at the tap,

    .. math:: \frac{1}{n} \sum_i g(a + \epsilon_i), \qquad \frac{1}{n} \sum_i g(a + \epsilon_i)^2, \qquad
        \mathrm{Var}_i\; g(a + \epsilon_i) .

    At a tap inside of the model the noise is added there, and what bypasses the tap has none.

    Args:
      model: See `gradtap.gradients`.
      inputs: See `gradtap.gradients`.
      target: See `gradtap.gradients`.
      at: See `gradtap.gradients`. Several taps are taken one by one.
      samples: How many draws.
      noise: The deviation, as a share of the largest less the smallest of an example's activations.
      statistic: ``"mean"``; ``"squared"``, the mean of squares; or ``"variance"``, over the draws (divided by n).
      unconnected: See `gradtap.gradients`.
      batch_size: Most examples in flight at once, draws included; None chooses it from the size of the activations.
      training: See `gradtap.gradients`.
      seed: An int makes the draws the same each time; None draws anew. All examples are given the same draws.
      checks: See `gradtap.gradients`.

    Returns:
      `Attributions`: a mapping from address to a tensor of the shape and dtype of its activations.

    Raises:
      GradtapError: One class for each cause; ``docs/errors`` has a page for each.

    Example:
      Without noise it is the gradient.

      >>> import gradtap as gt, keras, numpy as np
      >>> hidden = keras.layers.Dense(4, activation="tanh")
      >>> model, x = keras.Sequential([keras.Input((3,)), hidden, keras.layers.Dense(2)]), np.ones((1, 3))
      >>> smooth = gt.attribution.smooth_grad(model, x, target=0, samples=2, noise=0.0).only
      >>> bool(np.allclose(smooth, gt.gradients(model, x, target=0, at=":input").only))
      True

    References:
      Smilkov, Thorat, Kim, Viegas, Wattenberg, SmoothGrad, https://arxiv.org/abs/1706.03825, 2017.
      Adebayo et al., Local Explanation Methods for Deep Neural Networks Lack Sensitivity to Parameter Values,
      https://arxiv.org/abs/1810.03307, 2018.
    """
    settings = Settings(unconnected, batch_size, training, seed, checks)
    check_count("samples", samples)
    check_choice("statistic", statistic, ("mean", "squared", "variance"))
    if isinstance(noise, bool) or not isinstance(noise, (int, float)) or not 0 <= noise < float("inf"):
        raise errors.ArgumentError(f"noise={noise!r} is not a share.", [], "noise=0.15 is 15 % of the range")
    wanted, base = as_target(target), int(generator(seed, 1).integers(2**31))

    def work(stages: list[Stage], inputs: list[Tensor], arrays: list[TensorLike]) -> dict[str, list[Tensor]]:
        found = [_chosen(statistic, *each) for stage in stages for each in _statistics(stage, samples, noise, base)]
        dtypes = [place.tensor.dtype for stage in stages for place in stage.leg.measured]
        return {"attributions": [tf.cast(value, dtype) for value, dtype in zip(found, dtypes, strict=True)]}

    name = ("smooth", address_key(at))
    question = Staged(wanted, name, lambda graph, own: slope_legs(graph, own, wanted, at), work)
    program, parts = ask(model, inputs, question, settings)
    return Attributions.at(program.places, parts["attributions"], skipped=program.skipped)


def _statistics(stage: Stage, samples: int, noise: float, base: int) -> list[tuple[Tensor, Tensor]]:
    """For each tap the mean of the slopes over the draws, and their variance."""
    here = [widen(h) for h in stage.here]
    widths = [noise * _range(h) for h in here]
    count, means, spreads = 0, [tf.zeros_like(h) for h in here], [tf.zeros_like(h) for h in here]
    for part in stage.parts(samples, f"noise at {stage.leg.measured[0].key}"):
        points = [
            tf.cast(h[None] + w[None] * _draws(h, part, base + i), own.dtype)
            for i, (h, w, own) in enumerate(zip(here, widths, stage.here, strict=True))
        ]
        more = part.stop - part.start
        for i, slopes in enumerate(map(widen, stage.run(points)[: len(here)])):
            own = tf.reduce_mean(slopes, 0)
            moved = own - means[i]
            spreads[i] += tf.reduce_sum((slopes - own[None]) ** 2, 0) + moved**2 * (count * more / (count + more))
            means[i] += moved * (more / (count + more))
        count += more
    return [(mean, spread / count) for mean, spread in zip(means, spreads, strict=True)]


def _range(tensor: Tensor) -> Tensor:
    """Largest less smallest of each example."""
    axes = list(range(1, tensor.shape.rank))
    return tf.reduce_max(tensor, axes, keepdims=True) - tf.reduce_min(tensor, axes, keepdims=True)


def _draws(tensor: Tensor, part: slice, base: int) -> Tensor:
    return tf.stack([normal_like(tensor, run, base) for run in range(part.start, part.stop)])


def _chosen(statistic: str, mean: Tensor, variance: Tensor) -> Tensor:
    return {"mean": mean, "variance": variance, "squared": variance + mean**2}[statistic]
