"""
An LSTM through time
====================

A recurrent layer is one layer in a summary, and as many as there are steps in a
gradient. Its states are hidden in a loop. gradtap taps them there: **the gradients at
every step's hidden state and cell are those of a loop that is written out by hand**,
and they show how long the network remembers, and what.
"""

# %%
# The task: twenty-five random numbers, one of them marked. The answer is the marked
# one, which must be kept to the end.
import keras
import numpy as np
import tensorflow as tf

import gradtap as gt

STEPS = 25


def draw(count, seed):
    rng = np.random.default_rng(seed)
    values, marks = rng.uniform(-1, 1, (count, STEPS)), np.zeros((count, STEPS))
    where = rng.integers(2, STEPS // 2, count)
    marks[np.arange(count), where] = 1
    return (
        np.stack([values, marks], -1).astype("float32"),
        values[np.arange(count), where].astype("float32"),
        where,
    )


x, y, _ = draw(4000, 0)
keras.utils.set_random_seed(0)
lstm, answer = keras.layers.LSTM(16, name="lstm"), keras.layers.Dense(1, name="answer")
model = keras.Sequential([keras.Input((STEPS, 2)), lstm, answer])
model.compile(keras.optimizers.Adam(1e-2), "mse")
model.fit(x, y, epochs=20, batch_size=100, verbose=0)

x, y, where = draw(200, 1)
error = model.evaluate(x, y, verbose=0)
print(f"mean squared error {error:.4f}, of always saying 0: {np.mean(y**2):.2f}")
assert error < 0.01

# %%
# The states at every step
# ------------------------
# ``:hidden`` and ``:cell`` are sides of the layer, of the shape (batch, steps, units),
# whether or not it returns them.
g = gt.gradients(model, x, at=[":input", "lstm:hidden", "lstm:cell"])
for tap, gradient in g.items():
    print(tap, gradient.shape)

# %%
# By hand the loop has to be written out, gates and all, for a cell that hides its
# states gives no tape a chance.
kernel, recurrent, bias = lstm.weights
with tf.GradientTape() as tape:
    h = c = tf.zeros((len(x), 16))
    hiddens, cells = [], []
    for t in range(STEPS):
        i, f, new, o = tf.split(x[:, t] @ kernel + h @ recurrent + bias, 4, axis=1)
        c = tf.sigmoid(f) * c + tf.sigmoid(i) * tf.tanh(new)
        tape.watch(c)
        h = tf.sigmoid(o) * tf.tanh(c)
        tape.watch(h)
        cells.append(c)
        hiddens.append(h)
    out = answer(h)
by_hand = dict(
    zip(["lstm:hidden", "lstm:cell"], tape.gradient(out, [hiddens, cells]), strict=True)
)
for name, steps in by_hand.items():
    stacked = np.stack(steps, 1)
    apart = float(np.max(np.abs(g[name] - stacked)) / np.max(np.abs(stacked)))
    print(f"{name}: largest difference, of the largest gradient: {apart:.1e}")
    assert apart < 1e-5

# %%
# What it remembers
# -----------------
# The right answer rises by 1 with the marked number, and not at all with the others. So
# do the gradients at the input:
slopes, rows = g[":input"].numpy()[..., 0], np.arange(len(x))
marked = slopes[rows, where]
others = np.abs(slopes[x[..., 1] == 0]).mean()
print(
    f"at the marked number {marked.mean():.2f}, at the others {others:.3f} in magnitude"
)
assert abs(marked.mean() - 1) < 0.05 and others < 0.1

# %%
# One example: above, the numbers and the mark; below, the gradient at each number.
example = int(np.argmax(np.abs(y) > 0.7))
figure_of_slopes = gt.plot.series(
    slopes[example], x[example], title="How the answer rises with each number"
)
assert int(np.argmax(slopes[example])) == where[example]

# %%
# And the size of the gradient at the cell, step by step. Kept values pass through the
# cell: its gradient neither dies nor grows beyond bounds between the mark and the end,
# which is what an LSTM is built for.
sizes = np.linalg.norm(g["lstm:cell"], axis=-1)
figure_of_sizes = gt.plot.series(
    sizes[example], x[example], title="Size of the gradient at the cell, step by step"
)
kept = sizes[rows, where] / sizes[:, -1]
print(f"at the mark over at the last step: {kept.min():.1f} to {kept.max():.1f}")
assert kept.min() > 2 and kept.max() < 8
