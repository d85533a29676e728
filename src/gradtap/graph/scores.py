"""Scores in a traced graph: which output is meant, what stands before its softmax, whether it is saturated."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import tensorflow as tf
from ml_dtypes import finfo  # NumPy's own knows no bfloat16; Keras brings this one along

from gradtap import errors
from gradtap.graph import walking
from gradtap.graph.tracing import ForwardGraph
from gradtap.types import Tensor

#: What ends an output of probabilities, by the type of its op.
_SQUASHING = {"Softmax": tf.nn.softmax, "Sigmoid": tf.sigmoid}


@dataclass
class Score:
    """A target, built into a graph.

    Args:
      value: One number per example, ``(batch,)``, float32 or wider.
      feeds: Placeholders for what the target brings along.
      saturated: Whether the score of some example is at the limit of a softmax or sigmoid: a boolean scalar.
      squashed: Whether the value is itself what a softmax or sigmoid gives, so that its own size tells.
      held: What the inputs alone decide, ``(batch, ...)``: other activations at a tap do not change it.
    """

    value: Tensor
    feeds: list[Tensor] = field(default_factory=list)
    saturated: Tensor | None = None
    squashed: bool = False
    held: list[Tensor] = field(default_factory=list)


def pick_output(graph: ForwardGraph, output: int | str | None) -> tuple[Tensor, str]:
    """The output that a target means, and its name.

    Raises:
      OutputChoiceError: There are several and none is named, or the named one does not exist.
    """
    names = graph.output_names
    choices = [("outputs", ", ".join(f"`{n}` {shape_text(t)}" for n, t in zip(names, graph.outputs, strict=True)))]
    if output is None:
        if len(graph.outputs) > 1:
            raise errors.OutputChoiceError(
                f"the model has {len(names)} outputs and the target does not say which.",
                choices,
                f'name one: gt.targets.class_score(k, output="{names[0]}"), or give a callable of all outputs',
            )
        return graph.outputs[0], "output" if names[0] == "0" else names[0]
    position = names.index(str(output)) if str(output) in names else output
    if not isinstance(position, int) or not -len(names) <= position < len(names):
        raise errors.OutputChoiceError(f"the model has no output `{output}`.", choices, "name one of these")
    return graph.outputs[position], names[position]


def pre_squash(tensor: Tensor) -> Tensor | None:
    """The value before a final softmax or sigmoid; None where the tensor does not end in one."""
    op = walking.same_value_source(tensor).op
    return op.inputs[0] if op.type in _SQUASHING else None


def squash_anew(tensor: Tensor, dtype: Any = None) -> Tensor:
    """The final softmax or sigmoid of a tensor as an op of its own: the same numbers, and nothing that a tap can cut.

    Args:
      tensor: An output with a `pre_squash`.
      dtype: What to compute in; None for what the model does.
    """
    op = walking.same_value_source(tensor).op
    return _SQUASHING[op.type](tf.cast(op.inputs[0], dtype or op.inputs[0].dtype))


def saturation(value: Tensor, output: Tensor) -> Tensor | None:
    """Whether some score of a softmax or sigmoid is so close to its limit that rounding has eaten its gradient.

    Args:
      value: ``(batch,)``, entries of the output.
      output: The output they are taken from.
    """
    if pre_squash(output) is None:
        return None
    return tf.reduce_any(at_limit(value, output.dtype))


def at_limit(value: Tensor, dtype: Any) -> Tensor:
    """Where a softmax or sigmoid is at 0 or 1, but for the rounding of the type that it was computed in."""
    limits = finfo(dtype.as_numpy_dtype)  # type: ignore[no-untyped-call]
    return (1.0 - value < 2.0 * float(limits.eps)) | (value < float(limits.tiny))


def widen(tensor: Tensor) -> Tensor:
    """Half precision to float32: the target and the first gradient are formed in it."""
    return tf.cast(tensor, tf.float32) if tensor.dtype in (tf.float16, tf.bfloat16) else tensor


def shape_text(tensor: Tensor) -> str:
    """A shape as messages show it: ``(batch, 10)``."""
    if tensor.shape.rank is None:
        return "(unknown)"
    sizes = ["batch" if i == 0 and s is None else str(s) for i, s in enumerate(tensor.shape.as_list())]
    return f"({', '.join(sizes)}{',' if len(sizes) == 1 else ''})"
