"""Attribution by perturbation: what the target becomes where parts of the activations are hidden."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from gradtap import errors
from gradtap.asking import Settings, Unconnected, address_key, ask
from gradtap.graph import surgery
from gradtap.graph.resolve import resolve
from gradtap.graph.scores import widen
from gradtap.graph.tracing import ForwardGraph
from gradtap.maps.class_maps import mean_over_positions
from gradtap.results import Attributions
from gradtap.staged.ablations import score_legs
from gradtap.staged.noise import generator
from gradtap.staged.quadrature import check_count
from gradtap.staged.stages import Stage, Staged
from gradtap.staged.windows import RandomMasks, Windows, check_lengths, over_channels, positions
from gradtap.targets import as_target
from gradtap.types import Address, Model, Structure, Tensor, TensorLike


@surgery.unconverted
def occlusion(
    model: Model,
    inputs: Structure,
    *,
    target: Any = None,
    at: Address | Sequence[Address] = ":input",
    window: int | Sequence[int],
    stride: int | Sequence[int] | None = None,
    value: Any = 0.0,
    unconnected: Unconnected = "error",
    batch_size: int | None = None,
    training: bool = False,
    seed: int | None = None,
    checks: bool = True,
) -> Attributions:
    r"""Occlusion: what the target loses where a window hides the activations.

    With :math:`x^{(w)}` the activations with all entries in window :math:`w` set to ``value``, and :math:`W_p` the
    windows that cover position :math:`p`,

    .. math:: \frac{1}{|W_p|} \sum_{w \in W_p} \big(F(x) - F(x^{(w)})\big) .

    It takes no gradient, and one run of the rest of the model for each window.

    Args:
      model: See `gradtap.gradients`.
      inputs: See `gradtap.gradients`.
      target: See `gradtap.gradients`.
      at: See `gradtap.gradients`. Several taps are taken one by one. Positions are all axes but the batch and the
        channels, which are hidden together; of activations ``(batch, units)`` each unit is a position.
      window: How many positions a window covers along each axis: an int, or one for each axis. Where an axis has fewer,
        all of them.
      stride: Positions from one window to the next, at most the window; None puts windows side by side. The last
        window of an axis ends at its border, so that every position is covered.
      value: What is put there: a number; ``"mean"``, over an example's positions, for each channel; or an array that
        broadcasts with the activations, such as ``(channels,)``, or ``(batch, ...)`` with a value for each example.
      unconnected: See `gradtap.gradients`.
      batch_size: Most examples in flight at once, windows included; None chooses it from the size of the activations.
      training: See `gradtap.gradients`.
      seed: See `gradtap.gradients`.
      checks: See `gradtap.gradients`.

    Returns:
      `Attributions`: a mapping from address to map ``(batch, *positions)``, of the dtype of the activations.

    Raises:
      GradtapError: One class for each cause; ``docs/errors`` has a page for each.

    Example:
      Of a linear model, one position at a time, it is the weight times the input.

      >>> import gradtap as gt, keras, numpy as np
      >>> dense = keras.layers.Dense(1, use_bias=False)
      >>> model, x = keras.Sequential([keras.Input((3,)), dense]), np.array([[1.0, 2.0, 3.0]])
      >>> lost = gt.attribution.occlusion(model, x, window=1).only
      >>> bool(np.allclose(lost, x * dense.kernel[:, 0], atol=1e-6))
      True

    References:
      Zeiler, Fergus, Visualizing and Understanding Convolutional Networks, https://arxiv.org/abs/1311.2901, 2013.
    """
    settings = Settings(unconnected, batch_size, training, seed, checks)
    check_lengths("window", window)
    if stride is not None:
        check_lengths("stride", stride)
    wanted, hidden = as_target(target), _HiddenBy(value, at)

    def work(stages: list[Stage], inputs: list[Tensor], arrays: list[TensorLike]) -> dict[str, list[Tensor]]:
        return {"attributions": [_losses(stage, window, stride, hidden.at(stage, arrays)) for stage in stages]}

    name = ("perturbation", address_key(at))
    question = Staged(wanted, name, lambda g, own: score_legs(g, own, wanted, at), work, arrays=hidden.arrays)
    program, parts = ask(model, inputs, question, settings)
    return Attributions.at(program.places, parts["attributions"], skipped=program.skipped)


@surgery.unconverted
def rise(
    model: Model,
    inputs: Structure,
    *,
    target: Any = None,
    at: Address | Sequence[Address] = ":input",
    masks: int = 1000,
    cells: int | Sequence[int] = 7,
    probability: float = 0.5,
    unconnected: Unconnected = "error",
    batch_size: int | None = None,
    training: bool = False,
    seed: int | None = None,
    checks: bool = True,
) -> Attributions:
    r"""RISE: the mean of random masks, each weighted by the target of what is seen through it.

    With masks :math:`M_i \in [0, 1]` that keep a position with probability :math:`\pi`,

    .. math:: \frac{1}{\pi N} \sum_{i=1}^{N} F(x \odot M_i)\, M_{i, p},

    an estimate of the mean of the target over the masks that keep position :math:`p`. A mask is a grid of ``cells``
    that are kept or not, one by one, enlarged bilinearly to one cell more than the positions and shifted at random
    within that cell. It takes no gradient, and one run of the rest of the model for each mask.

    The map is a target's mean plus what differs from position to position, and is as noisy as the first of them is
    large: a target that is the constant :math:`c` gives :math:`c` with a deviation of up to
    :math:`|c| \sqrt{(1 - \pi) / (\pi N)}` at each position, 3 % of :math:`c` for the defaults. Four times the masks
    halve it.

    Args:
      model: See `gradtap.gradients`.
      inputs: See `gradtap.gradients`.
      target: See `gradtap.gradients`. The method was made for probabilities.
      at: See `occlusion`. What is masked is multiplied by the mask, so its zero is what hides it.
      masks: How many are drawn.
      cells: How many cells a mask has along each axis of positions: an int, or one for each axis. Of activations
        ``(batch, units)``, which have no neighbours, each unit is a cell.
      probability: How likely a cell is kept, between 0 and 1.
      unconnected: See `gradtap.gradients`.
      batch_size: Most examples in flight at once, masks included; None chooses it from the size of the activations.
      training: See `gradtap.gradients`.
      seed: An int makes the masks the same each time; None draws anew. All examples and taps are given the same draws.
      checks: See `gradtap.gradients`.

    Returns:
      `Attributions`: a mapping from address to map ``(batch, *positions)``, of the dtype of the activations.

    Raises:
      GradtapError: One class for each cause; ``docs/errors`` has a page for each.

    Example:
      >>> import gradtap as gt, keras, numpy as np
      >>> conv, mean = keras.layers.Conv2D(4, 3), keras.layers.GlobalAveragePooling2D()
      >>> model = keras.Sequential([keras.Input((8, 8, 1)), conv, mean, keras.layers.Dense(2)])
      >>> gt.attribution.rise(model, np.ones((1, 8, 8, 1)), target=0, masks=20, cells=4, seed=0).only.shape
      TensorShape([1, 8, 8])

    References:
      Petsiuk, Das, Saenko, RISE: Randomized Input Sampling for Explanation of Black-box Models,
      https://arxiv.org/abs/1806.07421, 2018.
    """
    settings = Settings(unconnected, batch_size, training, seed, checks)
    check_count("masks", masks)
    check_lengths("cells", cells)
    is_number = isinstance(probability, (int, float, np.number)) and not isinstance(probability, bool)
    if not is_number or not 0 < probability < 1:
        raise errors.ArgumentError(
            f"probability={probability!r} is not between 0 and 1.", [], "probability=0.5 keeps half of the cells"
        )
    wanted, drawn = as_target(target), RandomMasks(cells, probability, int(generator(seed, 3).integers(2**31)))

    def work(stages: list[Stage], inputs: list[Tensor], arrays: list[TensorLike]) -> dict[str, list[Tensor]]:
        return {"attributions": [_through(stage, drawn, masks) for stage in stages]}

    name = ("perturbation", address_key(at))
    question = Staged(wanted, name, lambda graph, own: score_legs(graph, own, wanted, at), work)
    program, parts = ask(model, inputs, question, settings)
    return Attributions.at(program.places, parts["attributions"], skipped=program.skipped)


class _HiddenBy:
    """What is put in the place of activations.

    Args:
      value: As the user gave it.
      at: The taps.
    """

    def __init__(self, value: Any, at: Any) -> None:
        self._at = at
        self._is_mean = isinstance(value, str) and value == "mean"
        self._value: Any = None
        if self._is_mean:
            return
        self._value = None if isinstance(value, (bool, str, bytes)) or value is None else np.asarray(value)
        if self._value is None or self._value.dtype.kind not in "iuf":
            raise errors.ArgumentError(
                f"value={errors.received(value)} is nothing that activations can be set to.",
                [],
                ["give a number, or an array that broadcasts with the activations", '"mean" of each example'],
            )

    def arrays(self, graph: ForwardGraph, batch: int | None) -> list[TensorLike]:
        """The value with a row for each example, or one for all."""
        if self._is_mean:
            return []
        rank = max(place.tensor.shape.rank or 0 for place in resolve(graph, self._at))
        rows = self._value if 0 < rank == self._value.ndim else self._value[None]
        if batch is not None and rows.shape[0] not in (1, batch):
            raise errors.InputShapeError(
                f"the value has {rows.shape[0]} rows for {batch} examples.",
                [],
                "give one row for each example, or one for all",
            )
        return [rows]

    def at(self, stage: Stage, arrays: list[TensorLike]) -> Tensor:
        """The value at a tap, ``(1 or batch, ...)``, so that it broadcasts with the activations."""
        here = widen(stage.here[0])
        if self._is_mean:
            return mean_over_positions(here) if here.shape.rank > 2 else tf.reduce_mean(here, -1, keepdims=True)
        rows, rank = tf.cast(arrays[0], here.dtype), here.shape.rank
        shape = [rows.shape[0], *[1] * (rank - rows.shape.rank), *rows.shape[1:]]
        if len(shape) != rank or any(n not in (1, h) for n, h in zip(shape[1:], here.shape[1:], strict=True)):
            raise errors.InputShapeError(
                f"the value has shape {tuple(self._value.shape)}, and does not broadcast with the activations of "
                f"`{stage.leg.moved[0].key}`, {tuple(here.shape)}.",
                [],
                "give a number, or one for each channel: (channels,)",
            )
        return tf.reshape(rows, [-1 if n is None else n for n in shape])


def _losses(stage: Stage, window: Any, stride: Any, value: Tensor) -> Tensor:
    here, place = stage.here[0], stage.leg.measured[0]
    windows = Windows(positions(place, here), window, stride)
    whole = stage.run([here[None]])[0]
    lost = []
    for part in stage.parts(windows.count, f"windows over {place.key}"):
        hidden = over_channels(windows.masks(part), here)
        seen = tf.where(hidden, value[None], widen(here)[None])
        lost.append(whole - stage.run([tf.cast(seen, here.dtype)])[0])
    return tf.cast(windows.means(tf.concat(lost, 0)), here.dtype)


def _through(stage: Stage, drawn: RandomMasks, count: int) -> Tensor:
    here, place = stage.here[0], stage.leg.measured[0]
    sizes = positions(place, here)
    total = tf.zeros((), tf.float64)
    for part in stage.parts(count, f"masks over {place.key}"):
        masks = drawn.masks(part, sizes, units=here.shape.rank == 2)
        seen = widen(here)[None] * tf.cast(over_channels(masks, here), widen(here).dtype)
        scores = tf.cast(stage.run([tf.cast(seen, here.dtype)])[0], tf.float64)
        total += tf.tensordot(scores, masks, [[0], [0]])
    found = tf.cast(total / (drawn.probability * count), here.dtype)
    return found if stage.leg.reached else tf.zeros_like(found)
