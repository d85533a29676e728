"""Norms of changes: how to step along a slope, how to stay inside of a ball, how to begin somewhere in it."""

from __future__ import annotations

from typing import Literal, TypeAlias

import tensorflow as tf

from gradtap.types import Tensor

Norm: TypeAlias = Literal["linf", "l2", "l1"]
NORMS = ("linf", "l2", "l1")

#: A step in the l1 norm moves so much of the entries, those of the largest slopes (Tramer, Boneh 2019 move 1 %).
_MOVED_BY_L1 = 0.01


def length(change: Tensor, norm: Norm) -> Tensor:
    """The norm of each example's change, ``(batch,)``."""
    flat = _flat(change)
    if norm == "linf":
        return tf.reduce_max(tf.abs(flat), 1)
    return tf.reduce_sum(tf.abs(flat), 1) if norm == "l1" else tf.norm(flat, axis=1)


def steepest(slope: Tensor, norm: Norm) -> Tensor:
    """The step of length one that raises a linear function most; in l1, one over the largest entries."""
    if norm == "linf":
        return tf.sign(slope)
    flat = _flat(slope)
    if norm == "l2":
        return tf.reshape(tf.math.divide_no_nan(flat, tf.norm(flat, axis=1, keepdims=True)), tf.shape(slope))
    count = tf.maximum(1, tf.cast(_MOVED_BY_L1 * tf.cast(tf.shape(flat)[1], tf.float32), tf.int32))
    least = tf.math.top_k(tf.abs(flat), count).values[:, -1:]
    moved = tf.where(tf.abs(flat) >= least, tf.sign(flat), tf.zeros_like(flat))
    share = tf.math.divide_no_nan(moved, tf.reduce_sum(tf.abs(moved), 1, keepdims=True))
    return tf.reshape(share, tf.shape(slope))


def inside(change: Tensor, radius: Tensor, norm: Norm) -> Tensor:
    """The nearest change whose norm is at most the radius.

    Args:
      change: ``(batch, ...)``.
      radius: ``(batch, 1, ...)``.
      norm: The norm.
    """
    if norm == "linf":
        return tf.clip_by_value(change, -radius, radius)
    flat, most = _flat(change), tf.reshape(radius, (-1, 1))
    if norm == "l2":
        found = flat * tf.minimum(
            tf.cast(1, flat.dtype), tf.math.divide_no_nan(most, tf.norm(flat, axis=1, keepdims=True))
        )
    else:
        found = tf.sign(flat) * tf.nn.relu(tf.abs(flat) - _threshold(tf.abs(flat), most))
    kept = tf.norm(flat, ord=1 if norm == "l1" else 2, axis=1, keepdims=True) <= most
    return tf.reshape(tf.where(kept, flat, found), tf.shape(change))


def inside_box(change: Tensor, radius: Tensor, low: Tensor, high: Tensor) -> Tensor:
    r"""The nearest change whose 1-norm is at most the radius and whose entries are within a box around zero.

    It is :math:`\mathrm{sign}(u)\, \min(\max(|u| - \lambda, 0), b)` with the room :math:`b` that the box leaves on that
    side. The sum over the entries falls in straight pieces as the threshold rises; their ends are sorted.

    Args:
      change: ``(batch, ...)``.
      radius: ``(batch, 1, ...)``.
      low: The least entries, 0 or less, of the shape of the change.
      high: The largest, 0 or more.
    """
    flat, most = _flat(change), tf.reshape(radius, (-1, 1))
    sizes, room = tf.abs(flat), _flat(tf.where(change >= 0, high, -low))
    ends = tf.concat([sizes, tf.nn.relu(sizes - room), tf.zeros_like(sizes[:, :1])], 1)
    turns = tf.concat([tf.ones_like(sizes), -tf.ones_like(sizes), tf.zeros_like(sizes[:, :1])], 1)
    order = tf.argsort(ends, 1, direction="DESCENDING", stable=True)
    ends, turns = (tf.gather(t, order, batch_dims=1) for t in (ends, turns))
    rising = tf.cumsum(turns, 1)
    sums = tf.cumsum(rising[:, :-1] * (ends[:, :-1] - ends[:, 1:]), 1)
    sums = tf.concat([tf.zeros_like(sums[:, :1]), sums], 1)
    last = tf.reduce_sum(tf.cast(sums <= most, tf.int32), 1, keepdims=True) - 1
    end, slope, reached = (tf.gather(t, tf.maximum(last, 0), batch_dims=1) for t in (ends, rising, sums))
    taken = tf.nn.relu(end - tf.math.divide_no_nan(most - reached, slope))
    found = tf.sign(flat) * tf.minimum(tf.nn.relu(sizes - taken), room)
    return tf.reshape(found, tf.shape(change))


def sparsest(slope: Tensor, share: Tensor) -> Tensor:
    """The step of 1-norm one along the signs of a share of the entries, those of the largest slopes.

    Args:
      slope: ``(batch, ...)``.
      share: ``(batch,)``, from 0 to 1.
    """
    flat = _flat(slope)
    count = tf.shape(flat)[1]
    place = tf.cast((1 - share) * tf.cast(count, share.dtype), tf.int32)
    rising = tf.sort(tf.abs(flat), axis=1)
    least = tf.gather(rising, tf.clip_by_value(place, 0, count - 1)[:, None], batch_dims=1)
    moved = tf.where(tf.abs(flat) >= least, tf.sign(flat), tf.zeros_like(flat))
    return tf.reshape(tf.math.divide_no_nan(moved, tf.reduce_sum(tf.abs(moved), 1, keepdims=True)), tf.shape(slope))


def _threshold(sizes: Tensor, most: Tensor) -> Tensor:
    """What is taken from each size so that the rest sums to a bound: Duchi et al. 2008."""
    ordered = tf.sort(sizes, axis=1, direction="DESCENDING")
    over = (tf.cumsum(ordered, 1) - most) / tf.cast(tf.range(1, tf.shape(sizes)[1] + 1), sizes.dtype)
    last = tf.reduce_sum(tf.cast(ordered > over, tf.int32), 1, keepdims=True) - 1
    return tf.gather(over, tf.maximum(last, 0), batch_dims=1)


def somewhere(like: Tensor, radius: Tensor, norm: Norm, seed: Tensor | list[int]) -> Tensor:
    """A change drawn evenly from the ball, the same for all examples but for their radius."""
    shape = tf.concat([[1], tf.shape(like)[1:]], 0)
    if norm == "linf":
        return radius * tf.random.stateless_uniform(shape, seed, -1.0, 1.0, like.dtype) * tf.ones_like(like)
    normal = tf.random.stateless_normal(shape, seed, dtype=like.dtype)
    if norm == "l1":
        # The entries of a point of the l1 sphere are exponential draws, scaled.
        even = tf.random.stateless_uniform(shape, [seed[0], seed[1] + 1], 1e-7, 1.0, like.dtype)
        normal = tf.sign(normal) * -tf.math.log(even)
    size = tf.cast(tf.reduce_prod(shape), like.dtype)
    far = tf.random.stateless_uniform([], [seed[0] + 1, seed[1]], 0.0, 1.0, like.dtype) ** (1 / size)
    one = normal / tf.reshape(length(normal, norm), tf.ones_like(tf.shape(normal)))
    return radius * far * one * tf.ones_like(like)


def _flat(tensor: Tensor) -> Tensor:
    return tf.reshape(tensor, (tf.shape(tensor)[0], -1))
