"""Targets: what is differentiated. A target turns a model's outputs into one number per example.

A target is built into the graph once for each kind of target. What changes from call to call, the class or the
labels, is fed, so that the twentieth class costs no more than the second.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from gradtap import errors
from gradtap.graph.class_index import PREDICTED, ClassIndex
from gradtap.targets.functions import Function, Loss, is_keras_loss
from gradtap.targets.outputs import ClassScore, Mask, OneNumber, Predicted
from gradtap.targets.places import Channel, Contrast, Neuron, Reduce
from gradtap.targets.protocol import Target
from gradtap.types import Address, Structure

__all__ = ["Target", "as_target", "channel", "class_score", "contrast", "loss", "neuron"]


def class_score(k: Any, output: int | str | None = None, logits: bool = False) -> Target:
    r"""The score of a class: :math:`F_n = y_{n, k}`, or :math:`F_n = y_{n, k_n}` with one class for each example.

    Args:
      k: An int; a list or array of ints, one for each example; ``"predicted"`` for each example's largest score. For
        outputs of higher rank a tuple ``(row, column, k)``, a list of such tuples, or a mask ``(row, column, class)``,
        which sums the scores it selects (a mask of floats weighs them). Negative indices count from the end.
      output: Name or position of the output, for a model with several.
      logits: Take the value before a final softmax or sigmoid, found in the graph; the model is not rebuilt. Where the
        output does not end in one, the output itself is taken and a warning says so.

    Returns:
      A target, for the ``target=`` of any method.

    Raises:
      TargetTypeError: ``k`` is none of these.

    Example:
      >>> class_score(3, logits=True)
      class_score(3, logits=True)
    """
    if isinstance(k, str):
        if k != PREDICTED:
            raise errors.TargetTypeError(
                f"{errors.received(k)} is not a target.",
                [],
                [f'the only text that is one is "{PREDICTED}"', "give the class as an int"],
            )
        return Predicted(output, logits)
    k = _as_numpy(k)
    if isinstance(k, np.ndarray) and (k.ndim > 1 or (k.ndim == 1 and k.dtype == bool)):
        return Mask(k, output, logits)
    return ClassScore(ClassIndex(k), output, logits)


def _as_numpy(k: Any) -> Any:
    """An array of any library as one of NumPy; all else as it is."""
    if not (hasattr(k, "shape") or hasattr(k, "__array__")) or isinstance(k, (np.ndarray, np.generic)):
        return k
    try:
        return np.asarray(k.numpy() if callable(getattr(k, "numpy", None)) else k)
    except Exception as error:
        rank = getattr(getattr(k, "shape", None), "rank", None)
        pick = "lambda y: y[:, k]" if rank == 0 else "lambda y: tf.gather(y, k, batch_dims=1)"
        do = [f"inside a tf.function: a callable, {pick}", "give an int, or a list of ints"]
        raise errors.TargetTypeError(
            f"{errors.kind_of(k)} without values is not a target.",
            [("received", errors.received(k)), ("it said", f"{type(error).__name__}: {error}"[:200])],
            do if isinstance(k, tf.Tensor) else do[1:],
        ) from error


def loss(fn: Any, y_true: Structure, output: int | str | None = None) -> Target:
    r"""A loss, one number per example: its reduction over the batch is removed.

    Args:
      fn: A Keras loss by name (``"mse"``), as a function, or as an object, whatever its ``reduction``.
      y_true: The labels ``(batch, ...)``. As in Keras, floats get the type of the output (float32 where that is half
        precision), and for an output ``(batch, 1)`` labels ``(batch,)`` get its last axis.
      output: Name or position of the output, for a model with several.

    Returns:
      A target :math:`F_n = L(y_n^{true}, y_n)`; axes that the loss leaves beside the batch are averaged.

    Raises:
      TargetTypeError: ``fn`` is no loss, or the labels cannot be made a tensor.

    Example:
      >>> loss("mse", [[0.0, 1.0]])
      loss('mse')
    """
    return Loss(fn, y_true, output)


def neuron(tap: Address, index: Any) -> Target:
    r"""A unit of a layer as the target: what it responds to, or, at a later tap, what it changes.

    Args:
      tap: Where the unit is: one address.
      index: One index for each axis but the batch: ``(row, column, k)``, or an int for activations ``(batch, units)``.
        Slices are allowed; what they select is summed.

    Returns:
      A target :math:`F_n = \sum a_{n, index}`.

    Example:
      >>> neuron("conv1", (0, slice(None), 3))
      neuron('conv1', (0, slice(None, None, None), 3))
    """
    return Neuron(tap, index)


def channel(tap: Address, k: int, reduce: Reduce = "mean") -> Target:
    r"""A channel of a layer as the target: what in the input, or in an earlier layer, is crucial to a filter.

    Args:
      tap: Where the channel is: one address.
      k: Index on the last axis.
      reduce: How the positions become one number: ``"mean"``, ``"sum"`` or ``"max"``.

    Returns:
      A target :math:`F_n = \operatorname{reduce}_p a_{n, p, k}`.

    Raises:
      ArgumentError: ``reduce`` is none of these.

    Example:
      >>> channel("conv1", 3, reduce="max")
      channel('conv1', 3, reduce='max')
    """
    return Channel(tap, k, reduce)


def contrast(a: Any, b: Any) -> Target:
    """What speaks for one target rather than another: their difference, example by example.

    Args:
      a: A target, or what is taken for one: a class, a callable.
      b: The target that is subtracted.

    Returns:
      A target :math:`F_n = a_n - b_n`.

    Example:
      >>> contrast(3, 5)
      contrast(class_score(3), class_score(5))
    """
    return Contrast(as_target(a), as_target(b))


def as_target(target: Any) -> Target:
    """Read what a user gives as ``target=``.

    Args:
      target: None, an int, a list or array of ints, a tuple, a mask, ``"predicted"``, a callable
        ``outputs -> (batch,)`` or a `Target`.

    Returns:
      The target it stands for. None stands for the model's one number per example.

    Raises:
      TargetTypeError: It is nothing that is understood.

    Example:
      >>> as_target([3, 1])
      class_score([3, 1])
    """
    if target is None:
        return OneNumber()
    if isinstance(target, type):
        remedy = "give an object of it" if not is_keras_loss(target) else "target=gt.targets.loss(fn, y_true)"
        raise errors.TargetTypeError(f"the class `{target.__name__}` is not a target.", [], remedy)
    if isinstance(target, Target):
        return target
    if is_keras_loss(target):
        raise errors.TargetTypeError(
            "a loss needs labels before it is a target.",
            [("received", errors.received(target))],
            "target=gt.targets.loss(fn, y_true)",
        )
    if callable(target):
        return Function(target)
    if isinstance(target, (dict, set, frozenset, float, bytes, bytearray)):
        raise errors.TargetTypeError(
            f"{errors.kind_of(target)} is not a target.",
            [("received", errors.received(target))],
            ["give an int, a list of ints, a callable outputs -> (batch,)", "a value from gt.targets"],
        )
    return class_score(target)
