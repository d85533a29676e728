"""Recurrent layers as eager loops, float64, written from their definitions, with a tape that watches every state.

A step is ``step(x, states, keep) -> (output, states)``: it calls ``keep(k, state)`` on the k-th new state and goes on
with what that returns, so that all that is made of a state within its own step is made of the watched one.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from reference.layers import weights


def lstm(cell, activation=tf.tanh):
    """Gates in the order i, f, c, o."""
    w = weights(cell)

    def step(x, states, keep, first=0):
        h, c = states
        i, f, g, o = tf.split(x @ w["kernel"] + h @ w["recurrent_kernel"] + w["bias"], 4, -1)
        c = keep(first + 1, tf.sigmoid(f) * c + tf.sigmoid(i) * activation(g))
        h = keep(first, tf.sigmoid(o) * activation(c))
        return h, [h, c]

    return step


def gru(cell):
    """Gates in the order z, r, h; the reset gate before or after the recurrent product."""
    w = weights(cell)

    def step(x, states, keep, first=0):
        (h,) = states
        recurrent = w["recurrent_kernel"]
        inner, outer = w["bias"] if cell.reset_after else (w["bias"], np.zeros_like(w["bias"]))
        xz, xr, xh = tf.split(x @ w["kernel"] + inner, 3, -1)
        hz, hr, hh = tf.split(h @ recurrent + outer, 3, -1)
        z, r = tf.sigmoid(xz + hz), tf.sigmoid(xr + hr)
        proposal = r * hh if cell.reset_after else (r * h) @ recurrent[:, 2 * h.shape[1] :]
        h = keep(first, z * h + (1 - z) * tf.tanh(xh + proposal))
        return h, [h]

    return step


def simple(cell):
    w = weights(cell)

    def step(x, states, keep, first=0):
        h = keep(first, tf.tanh(x @ w["kernel"] + states[0] @ w["recurrent_kernel"] + w["bias"]))
        return h, [h]

    return step


def conv_lstm(cell):
    """A two-dimensional ConvLSTM of stride 1 and the same size; its recurrent activation is the plain sigmoid."""
    w = weights(cell)

    def convolved(x, kernel):
        return tf.nn.conv2d(x, tf.constant(kernel), 1, "SAME")

    def step(x, states, keep, first=0):
        h, c = states
        gates = convolved(x, w["kernel"]) + w["bias"] + convolved(h, w["recurrent_kernel"])
        i, f, g, o = tf.split(gates, 4, -1)
        c = keep(first + 1, tf.sigmoid(f) * c + tf.sigmoid(i) * tf.tanh(g))
        h = keep(first, tf.sigmoid(o) * tf.tanh(c))
        return h, [h, c]

    return step


def stacked(*steps_and_counts):
    """Cells on top of each other, each with its number of states."""

    def step(x, states, keep, first=0):
        new = []
        for one, count in steps_and_counts:
            at = first + len(new)
            x, own = one(x, states[len(new) : len(new) + count], keep, at)
            new += own
        return x, new

    return step


def run(step, x, initial, score, mask=None, backwards=False):
    """The loop, and the gradients of a score with respect to every state after every step.

    Args:
      step: See above.
      x: ``(batch, time, ...)``.
      initial: The states to begin with.
      score: Of ``outputs (batch, time, ...)`` in the order of the loop and the last states, ``(batch,)``.
      mask: ``(batch, time)``; where it is False the states, and the output, stay as they are.
      backwards: Begin at the end.

    Returns:
      The outputs, the score, and for each state its values and gradients ``(batch, time, ...)`` in the order of the
      input's time.
    """
    order = list(range(x.shape[1]))[:: -1 if backwards else 1]
    kept = [{} for _ in initial]
    states = [tf.constant(s) for s in initial]
    with tf.GradientTape(persistent=True) as tape:
        outputs = []
        output = None
        for t in order:
            on = None if mask is None else tf.constant(np.asarray(mask)[:, t])
            old = states

            def keep(k, state, t=t, on=on, old=old):
                kept[k][t] = tf.identity(state if on is None else _where(on, state, old[k]))
                tape.watch(kept[k][t])
                return kept[k][t]

            new, states = step(tf.constant(x[:, t]), old, keep)
            output = new if on is None else _where(on, new, tf.zeros_like(new) if output is None else output)
            outputs.append(output)
        result = score(tf.stack(outputs, 1), states)
        total = tf.reduce_sum(result)
    found = []
    for of_one in kept:
        at = [of_one[t] for t in sorted(of_one)]
        slopes = tape.gradient(total, at, unconnected_gradients="zero")
        found.append((tf.stack(at, 1).numpy(), tf.stack(slopes, 1).numpy()))
    return tf.stack(outputs, 1).numpy(), result.numpy(), found


def _where(mask, one, other):
    return tf.where(tf.reshape(mask, [-1, *[1] * (one.shape.rank - 1)]), one, other)
