"""Robust accuracy: how many examples are still said right under attacks of growing size."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from gradtap import errors
from gradtap.attacks.results import Adversarial
from gradtap.batching import is_dataset
from gradtap.staged.progress import tracked
from gradtap.types import Model, Structure

#: A function that is called as the attacks are.
Attack = Callable[..., Adversarial]


@dataclass(frozen=True)
class RobustAccuracy:
    """The share of examples that are still said right; see `gradtap.attacks.robust_accuracy`.

    Args:
      epsilons: The sizes of the attack, rising, ``(sizes,)``.
      accuracy: The share at each of them, ``(sizes,)``.
      count: How many examples there were.
    """

    epsilons: np.ndarray[Any, Any]
    accuracy: np.ndarray[Any, Any]
    count: int

    def table(self) -> str:
        """The curve as text."""
        rows = (f"{e:>8g}  {a:8.1%}" for e, a in zip(self.epsilons, self.accuracy, strict=True))
        return "\n".join([f"{'epsilon':>8}  accuracy", *rows])

    def __str__(self) -> str:
        return self.table()


def robust_accuracy(
    model: Model,
    data: Any,
    attack: Attack,
    epsilons: Sequence[float],
    *,
    batch_size: int = 128,
) -> RobustAccuracy:
    r"""The share of examples that are still said right, against the size of an attack.

    An example that falls to an attack falls to every larger one as well, since the larger ball holds the smaller. It is
    not attacked again.

    Args:
      model: See `gradtap.gradients`.
      data: ``(inputs, labels)``, or a `tf.data.Dataset` of such batches, streamed.
      attack: ``attack(model, inputs, labels, epsilon=...)``: one of `gradtap.attacks`, or a `functools.partial` of one.
      epsilons: Sizes; 0 is the accuracy without an attack.
      batch_size: Examples at a time, of arrays.

    Returns:
      `RobustAccuracy`: ``.epsilons`` rising, ``.accuracy`` and ``.count``; ``.table()``.

    Raises:
      GradtapError: One class for each cause; ``docs/errors`` has a page for each.

    Example:
      >>> import gradtap as gt, keras, numpy as np
      >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
      >>> x = np.full((5, 4), 0.5)
      >>> curve = gt.attacks.robust_accuracy(model, (x, np.argmax(model(x), 1)), gt.attacks.fgsm, [0.0, 0.1])
      >>> float(curve.accuracy[0])
      1.0

    References:
      Madry et al., Towards Deep Learning Models Resistant to Attacks, https://arxiv.org/abs/1706.06083, 2017.
    """
    sizes = np.asarray(epsilons, np.float64)
    if sizes.ndim != 1 or not sizes.size or not np.all(np.isfinite(sizes)) or np.any(sizes < 0):
        raise errors.ArgumentError(f"epsilons={epsilons!r} are no sizes.", [], "a list of numbers, 0 or more")
    sizes = np.unique(sizes)
    standing, count = np.zeros(len(sizes), np.int64), 0
    for inputs, labels in _batches(data, batch_size):
        right = np.asarray(labels).reshape(-1)
        alive = np.arange(len(right))
        count += len(right)
        for i, size in enumerate(sizes):
            rows = tf.nest.map_structure(lambda x, alive=alive: np.asarray(x)[alive], inputs)
            if len(alive):
                found = attack(model, rows, right[alive], epsilon=float(size))
                alive = alive[~np.asarray(found.success)]
            standing[i] += len(alive)
    if not count:
        raise errors.InputStructureError("the data hold no example.", [], "give at least one")
    return RobustAccuracy(sizes, standing / count, count)


def _batches(data: Any, size: int) -> Iterator[tuple[Structure, Any]]:
    if is_dataset(data):
        total = int(data.cardinality())
        for element in tracked(data, max(total, 0), "batches attacked"):
            if not isinstance(element, tuple) or len(element) < 2:
                raise errors.InputStructureError(
                    "the dataset gives no labels.",
                    [("received", errors.received(element))],
                    "batches of (inputs, labels)",
                )
            yield element[0], element[1]
        return
    if not isinstance(data, (tuple, list)) or len(data) != 2:
        raise errors.InputStructureError(
            "data is no pair of inputs and labels.", [("received", errors.received(data))], "(inputs, labels)"
        )
    inputs, labels = data
    labels = np.asarray(labels)
    counts = {len(np.asarray(leaf)) for leaf in tf.nest.flatten(inputs)} | {len(labels)}
    if len(counts) != 1:
        raise errors.TargetCountError(
            "inputs and labels differ in number.", [("numbers", ", ".join(map(str, sorted(counts))))], "one for each"
        )
    starts = range(0, len(labels), size)
    for start in tracked(starts, len(starts), "batches attacked"):
        part = slice(start, start + size)
        yield tf.nest.map_structure(lambda x, part=part: np.asarray(x)[part], inputs), labels[part]
