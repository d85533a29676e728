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
from gradtap.targets.protocol import Target
from gradtap.types import Structure

__all__ = ["Target", "as_target", "class_score", "loss"]


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
                f'"{k}" is not a target.',
                [],
                [f'the only text that is one is "{PREDICTED}"', "give the class as an int"],
            )
        return Predicted(output, logits)
    if isinstance(k, (np.ndarray, tf.Tensor)) and (len(k.shape) > 1 or k.dtype == bool):
        return Mask(np.asarray(k), output, logits)
    return ClassScore(ClassIndex(k.numpy() if isinstance(k, tf.Tensor) else k), output, logits)


def loss(fn: Any, y_true: Structure, output: int | str | None = None) -> Target:
    r"""A loss, one number per example: its reduction over the batch is removed.

    Args:
      fn: A Keras loss by name (``"mse"``), as a function, or as an object, whatever its ``reduction``.
      y_true: The labels ``(batch, ...)``.
      output: Name or position of the output, for a model with several.

    Returns:
      A target :math:`F_n = L(y_n^{true}, y_n)`; axes that the loss leaves beside the batch are averaged.

    Example:
      >>> loss("mse", [[0.0, 1.0]])
      loss('mse')
    """
    return Loss(fn, y_true, output)


def as_target(target: Any) -> Target:
    """Read what a user gives as ``target=``.

    Raises:
      TargetTypeError: It is nothing that is understood.
    """
    if target is None:
        return OneNumber()
    if isinstance(target, Target):
        return target
    if callable(target) and not is_keras_loss(target):
        return Function(target)
    if is_keras_loss(target):
        raise errors.TargetTypeError(
            "a loss needs labels before it is a target.", [], "target=gt.targets.loss(fn, y_true)"
        )
    if isinstance(target, (dict, set, float, bytes)):
        raise errors.TargetTypeError(
            f"a {type(target).__name__} is not a target.",
            [("received", repr(target)[:120])],
            ["give an int, a list of ints, a callable outputs -> (batch,)", "a value from gt.targets"],
        )
    return class_score(target)
