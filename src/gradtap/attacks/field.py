"""The rest of a model from a tap on, as an attack sees it: its slope, its outputs and the loss at any change."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import tensorflow as tf

from gradtap.attacks.balls import Norm, inside, inside_box
from gradtap.graph.scores import widen
from gradtap.types import Compiled, Tensor

Bounds = tuple[float, float] | None


class Seen(NamedTuple):
    """What a run of the rest of the model shows at a point.

    Args:
      slope: Of the loss, ``(batch, ...)``.
      scores: The first output, before its softmax or sigmoid where it has one.
      outputs: The model's outputs.
      loss: What is to become large, ``(batch,)``.
    """

    slope: Tensor
    scores: Tensor
    outputs: list[Tensor]
    loss: Tensor


@dataclass(frozen=True)
class Frame:
    """What of an attack is the same for every batch.

    Args:
      suffix: Takes a point, what stands beside it and what the target is fed; returns slope, scores, outputs and loss.
      beside: How many tensors stand beside the point.
      fed: How many tensors the target is fed.
      has_labels: Whether there are classes to tell success by.
      names: Of what else there is for each example.
      targeted: Whether the labels are what the model is to say.
      bounds: Lowest and highest value of an input; None at another tap, or where there are none.
      middle: From where on a single output means class 1.
      together: Whether several runs are laid side by side in the batch axis.
      dtypes: Of what the suffix returns.
    """

    suffix: Compiled
    beside: int
    fed: int
    has_labels: bool
    names: tuple[str, ...]
    targeted: bool
    bounds: Bounds
    middle: float
    together: bool
    dtypes: tuple[tf.DType, ...]


class Field:
    """A batch under attack. Changes are what is added to where it begins, float32 or wider.

    Args:
      frame: What is the same for every batch.
      tensors: Where the attack begins; what stands beside; what the target is fed; the labels, or else the loss where
        it begins; and what else there is for each example.
    """

    def __init__(self, frame: Frame, tensors: Sequence[Tensor]) -> None:
        rest = list(tensors)
        self._frame = frame
        #: Where the attack begins.
        self.start = rest.pop(0)
        self._beside = [rest.pop(0) for _ in range(frame.beside)]
        self._fed = [rest.pop(0) for _ in range(frame.fed)]
        self._told_by = rest.pop(0)
        self._given = dict(zip(frame.names, rest, strict=True))
        #: The same, float32 or wider.
        self.wide = widen(self.start)
        self.sign = -1.0 if frame.targeted else 1.0

    @property
    def none(self) -> Tensor:
        """No change at all."""
        return tf.zeros_like(self.wide)

    @property
    def examples(self) -> Tensor:
        """How many there are."""
        return tf.shape(self.start)[0]

    @property
    def labels(self) -> Tensor:
        """The classes, int32 ``(batch,)``."""
        return self._told_by

    @property
    def bounds(self) -> Bounds:
        """Lowest and highest value, where there are any."""
        return self._frame.bounds

    def numbers(self, name: str) -> Tensor:
        """What is given for each example, or one for all, shaped to be multiplied with changes."""
        return per_example(tf.cast(self._given[name], self.wide.dtype), self.wide)

    def point(self, change: Tensor) -> Tensor:
        """Where a change leads, within the bounds and of the type of the tap."""
        return tf.cast(self._kept(self.wide + change), self.start.dtype)

    def allowed(self, change: Tensor, radius: Tensor, norm: Norm) -> Tensor:
        """A change brought into the ball and then within the bounds, which leaves it in the ball."""
        inner = inside(change, radius, norm)
        return inner if self.bounds is None else self._kept(self.wide + inner) - self.wide

    def nearest_allowed(self, change: Tensor, radius: Tensor) -> Tensor:
        """The nearest change of those that are in the l1 ball and within the bounds."""
        if self.bounds is None:
            return inside(change, radius, "l1")
        low, high = self.bounds
        return inside_box(change, radius, low - self.wide, high - self.wide)

    def within(self, change: Tensor, norm: Norm) -> Tensor:
        """A change brought into the ball of the given epsilon, where one is given."""
        return self.allowed(change, self.numbers("epsilon"), norm) if "epsilon" in self._given else change

    def look(self, change: Tensor) -> Seen:
        """What a change shows."""
        return self._seen(self._frame.suffix(self.point(change), *self._beside, *self._fed))

    def look_for(self, change: Tensor, classes: Tensor) -> tuple[Seen, Tensor, Tensor]:
        """What a change shows where the target is fed the labels and, run by run, another class for each example.

        Args:
          change: ``(batch, ...)``.
          classes: ``(runs, batch)``.

        Returns:
          What the first run shows; the slopes ``(runs, batch, ...)`` and the losses ``(runs, batch)`` of all.
        """
        point, runs = self.point(change), classes.shape[0]
        given = [point, *self._beside, self._told_by]
        if self._frame.together:
            rows = [tf.tile(tensor, [runs, *([1] * (tensor.shape.rank - 1))]) for tensor in given]
            fetched = self._frame.suffix(*rows, tf.reshape(classes, [-1]))
            parts = [tf.reshape(t, tf.concat([[runs, tf.shape(point)[0]], tf.shape(t)[1:]], 0)) for t in fetched]
        else:
            parts = tf.map_fn(
                lambda row: self._frame.suffix(*given, row), classes, fn_output_signature=list(self._frame.dtypes)
            )
        return self._seen([part[0] for part in parts]), self.sign * widen(parts[0]), self._signed(parts[-1])

    def _seen(self, fetched: Sequence[Tensor]) -> Seen:
        slope, scores, *outputs, loss = fetched
        return Seen(self.sign * widen(slope), scores, outputs, self._signed(loss))

    def _signed(self, loss: Tensor) -> Tensor:
        return self.sign * tf.cast(loss, self.wide.dtype)  # the tap and the outputs may be of different types

    def _kept(self, point: Tensor) -> Tensor:
        return point if self.bounds is None else tf.clip_by_value(point, *self.bounds)

    def succeeded(self, seen: Seen) -> Tensor:
        """Whether the model says something else than it should, or where targeted what it is to say, ``(batch,)``."""
        output = seen.outputs[0]
        if not self._frame.has_labels or output.shape.rank != 2:
            return seen.loss > tf.cast(self._told_by, seen.loss.dtype)
        labels = self._told_by
        if output.shape[1] == 1:
            said = tf.cast(output[:, 0] > self._frame.middle, labels.dtype)
        else:
            said = tf.argmax(output, 1, output_type=labels.dtype)
        return tf.equal(said, labels) if self._frame.targeted else tf.not_equal(said, labels)


def per_example(value: Tensor, like: Tensor) -> Tensor:
    """Numbers ``(batch,)``, or one, shaped to go with ``(batch, ...)``."""
    return tf.reshape(value, (-1, *([1] * (like.shape.rank - 1))))


def chosen(flags: Tensor, one: Tensor, other: Tensor) -> Tensor:
    """Row by row one or the other."""
    return tf.where(per_example(flags, one), one, other)
