"""Arrays that a user gives for tensors of a traced graph: converted, and checked against their shapes."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from gradtap import errors
from gradtap.types import Tensor, TensorLike


def like(value: TensorLike, tensor: Tensor, batch: int | None, what: str, otherwise: Sequence[str] = ()) -> Tensor:
    """An array of the dtype of a tensor of the graph, checked against its shape.

    Args:
      value: What was given.
      tensor: What it stands for.
      batch: The number of examples; None where it is not known, and any will do.
      what: What it is called in messages.
      otherwise: What may be given instead of an array.

    Raises:
      InputDtypeError: It cannot be made a tensor of that dtype.
      InputShapeError: Another shape; a batch axis of one stands for every example.
    """
    try:
        array = tf.cast(tf.convert_to_tensor(value), tensor.dtype)
    except (ValueError, TypeError, tf.errors.OpError) as error:
        raise errors.InputDtypeError(
            f"the {what} cannot be made a tensor.", [("received", repr(value)[:120])], "give an array of numbers"
        ) from error
    wanted = tensor.shape.as_list() if tensor.shape.rank is not None else None
    given = array.shape.as_list()
    if wanted is not None:
        wanted[:1] = [batch] * len(wanted[:1])
        fits = len(given) == len(wanted) and all(
            a == b or None in (a, b) or (i == 0 and a == 1) for i, (a, b) in enumerate(zip(given, wanted, strict=True))
        )
        if not fits:
            for_all = f", or {(1, *wanted[1:])} for all examples" if wanted else ""
            raise errors.InputShapeError(
                f"the {what} have shape {tuple(given)}, the activations {tuple(wanted)}.",
                [],
                [f"give them that shape{for_all}", *otherwise],
            )
    if batch is not None and given and given[0] == 1 and batch > 1:
        array = tf.repeat(array, batch, axis=0)
    return array
