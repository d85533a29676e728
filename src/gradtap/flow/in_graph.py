"""What is summed up of a tap inside of the graph, so that neither activations nor gradients have to be handed over.

Every tensor has a leading axis: one row for each example, or one row for all examples of a run. Rows are put side by
side and sums are added, so that any split of the examples gives the same numbers. Sums are formed in float64: the
square of a gradient that has vanished or exploded does not fit in float32.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache, partial
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from gradtap.graph import surgery, walking
from gradtap.graph.resolve import Place
from gradtap.graph.tracing import ForwardGraph
from gradtap.types import Tensor

#: One bin for each sign and exponent of float32: its first nine bits.
BINS = 512
_MANTISSA_BITS = 23

#: Between what a bounded activation lies, by the op that makes it or by the name of a Keras activation.
_BOUNDS: Mapping[str, tuple[float, float]] = {
    "Tanh": (-1.0, 1.0),
    "Sigmoid": (0.0, 1.0),
    "Softsign": (-1.0, 1.0),
    "hard_tanh": (-1.0, 1.0),
    "hard_sigmoid": (0.0, 1.0),
    "sparse_sigmoid": (0.0, 1.0),
}
#: What is 0 where its slope is 0, by the op that makes it or by the name of a Keras activation.
_RECTIFIERS = frozenset({"Relu", "Relu6", "Maximum"})
_RECTIFYING = frozenset(
    {
        "relu",
        "relu6",
        "gelu",
        "silu",
        "swish",
        "hard_silu",
        "hard_swish",
        "mish",
        "sparse_plus",
        "squareplus",
        "threshold",
    }
)
#: An activation within this share of its range from a bound is saturated.
_NEAR = 0.01


class Sums(NamedTuple):
    """What one run fetches of one tap, in this order.

    Args:
      examples: 2-norms of the activation and of the gradient, ``(batch, 2)`` float64.
      totals: Sum and sum of squares of the activations, then of the gradients, and how many of each are exactly zero,
        ``(1, 6)`` float64.
      units: How often each unit is not zero, how often it is near a bound, and out of how many times,
        ``(1, 3, units)`` int64.
      exponents: How many activations, then gradients, there are of each sign and exponent, ``(1, 2, 512)`` int32.
      directions: Sum over the examples of the gradient, then of the gradient over its norm, ``(1, 2, entries)``
        float64.
      steps: Of a recurrent state, the sum over the examples of the gradient's norm at each step, ``(1, time)``
        float64; else ``(1, 0)``.
    """

    examples: Tensor
    totals: Tensor
    units: Tensor
    exponents: Tensor
    directions: Tensor
    steps: Tensor


def sums_at(graph: ForwardGraph, place: Place, slope: Tensor, scale: Tensor) -> Sums:
    """Add the sums of a tap to the graph.

    Args:
      graph: The forward graph.
      place: The tap; no weight.
      slope: The gradient there, of the target times the scale.
      scale: ``(1,)``; the exponents alone are those of the scaled gradient.
    """
    held = place.layer.layer() if place.layer is not None and place.layer.layer is not None else None
    channels_first = getattr(held, "data_format", None) == "channels_first"
    specs = [tf.TensorSpec(tensor.shape, tensor.dtype) for tensor in (place.tensor, slope, scale)]
    function = _function(*specs, bounds_of(graph, place), channels_first, place.state is not None)
    return Sums(*function(place.tensor, slope, scale))


@lru_cache(maxsize=512)
def _function(
    activation: Any, slope: Any, scale: Any, bounds: tuple[float, float] | None, channels_first: bool, is_state: bool
) -> Any:
    """One function for all taps of one form: as ops of each graph they would take most of the time to build it."""
    summed = partial(_sums, bounds=bounds, channels_first=channels_first, is_state=is_state)
    with tf.init_scope():
        return tf.function(summed, autograph=False).get_concrete_function(activation, slope, scale)


def _sums(
    activation: Tensor,
    slope: Tensor,
    scale: Tensor,
    *,
    bounds: tuple[float, float] | None,
    channels_first: bool,
    is_state: bool,
) -> list[Tensor]:
    a, positions, units = _flat(activation, channels_first)
    g = _flat(slope, channels_first)[0] / tf.cast(scale, tf.float64)
    norms = [tf.sqrt(tf.reduce_sum(x * x, 1)) for x in (a, g)]
    zeros = [tf.reduce_sum(tf.cast(tf.equal(x, 0), tf.float64)) for x in (a, g)]
    parts = [tf.reduce_sum(a), tf.reduce_sum(a * a), tf.reduce_sum(g), tf.reduce_sum(g * g), *zeros]
    unit = tf.math.divide_no_nan(g, norms[1][:, None])
    return [
        tf.stack(norms, 1),
        tf.stack(parts)[None],
        _units(tf.reshape(a, [-1, units]), bounds)[None],
        tf.stack([_exponents(activation), _exponents(slope)])[None],
        tf.stack([tf.reduce_sum(g, 0), tf.reduce_sum(unit, 0)])[None],
        _steps(tf.reshape(g, [-1, positions, units]), is_state)[None],
    ]


def bounds_of(graph: ForwardGraph, place: Place) -> tuple[float, float] | None:
    """Between what the activations of a tap lie; None where they are not bounded on both sides.

    What the model returns is left out: a sigmoid that ends a model is meant to come close to 0 and 1.
    """
    source = walking.same_value_source(place.tensor)
    if any(walking.same_value_source(output) is source for output in graph.outputs):
        return None
    held = place.layer.layer() if place.layer is not None and place.layer.layer is not None else None
    is_output = place.tap.face == "output"
    name = getattr(getattr(held, "activation", None), "__name__", "") if is_output else ""
    return _BOUNDS.get(source.op.type) or _BOUNDS.get(name)


def is_rectified(graph: ForwardGraph, place: Place) -> bool:
    """Whether a tap is the output of an activation that is flat where it is 0: there no gradient passes."""
    if place.tap.face != "output" or bounds_of(graph, place) is not None:
        return False
    if walking.same_value_source(place.tensor).op.type in _RECTIFIERS:
        return True
    held = place.layer.layer() if place.layer is not None and place.layer.layer is not None else None
    return getattr(getattr(held, "activation", None), "__name__", "linear") in _RECTIFYING


def _flat(tensor: Tensor, channels_first: bool) -> tuple[Tensor, Any, Any]:
    """``(batch, positions * units)`` in float64, and the two numbers; units are the last axis, or the channels."""
    wide = tf.cast(tf.math.abs(tensor) if tensor.dtype.is_complex else tensor, tf.float64)
    rank = wide.shape.rank
    if rank is not None and rank > 2 and channels_first:
        wide = tf.transpose(wide, [0, *range(2, rank), 1])
    if rank is None or rank < 2:
        return tf.reshape(wide, [tf.shape(wide)[0], -1]), -1 if rank is None else 1, 1
    static = wide.shape.as_list()[1:]
    sizes = tf.unstack(tf.shape(wide))[1:] if None in static else static
    positions, units = tf.reduce_prod(sizes[:-1]) if None in static else int(np.prod(sizes[:-1], dtype=int)), sizes[-1]
    return tf.reshape(wide, [-1, positions * units]), positions, units


def _units(values: Tensor, bounds: tuple[float, float] | None) -> Tensor:
    active = tf.math.count_nonzero(values, 0)
    near = tf.zeros_like(active)
    if bounds is not None:
        margin = _NEAR * (bounds[1] - bounds[0])
        near = tf.math.count_nonzero((values < bounds[0] + margin) | (values > bounds[1] - margin), 0)
    return tf.stack([active, near, tf.fill(tf.shape(active), tf.shape(values, tf.int64)[0])])


def _exponents(tensor: Tensor) -> Tensor:
    """How many entries there are of each sign and exponent; bins 0 and 256 hold zeros and what is below 2^-126."""
    real = tf.math.abs(tensor) if tensor.dtype.is_complex else tensor
    bits = tf.bitcast(tf.reshape(tf.cast(real, tf.float32), [-1]), tf.int32)
    bins = tf.bitwise.bitwise_and(tf.bitwise.right_shift(bits, _MANTISSA_BITS), BINS - 1)
    none: Any = tf.zeros([0], tf.int32)
    return tf.raw_ops.DenseBincount(input=bins, size=BINS, weights=none, binary_output=False)


def _steps(slopes: Tensor, is_state: bool) -> Tensor:
    if not is_state:
        return tf.zeros([0], tf.float64)
    return tf.reduce_sum(tf.sqrt(tf.reduce_sum(slopes * slopes, 2)), 0)


def is_measured(place: Place) -> bool:
    """Whether there is anything to be summed up at a place: numbers for each example."""
    return place.weight is None and surgery.is_float(place.tensor) and place.tensor.shape.rank != 0
