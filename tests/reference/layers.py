"""Forward passes of layers in NumPy, float64, written from their definitions; weights are read from Keras layers."""

from __future__ import annotations

from math import erf

import numpy as np


def weights(layer):
    """The weights of a layer by the last part of their names, as float64."""
    return {
        getattr(w, "path", w.name).rsplit("/", 1)[-1].removesuffix(":0"): np.asarray(w.numpy(), np.float64)
        for w in layer.weights
    }


def relu(x):
    return np.maximum(x, 0)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def softmax(x):
    shifted = np.exp(x - x.max(-1, keepdims=True))
    return shifted / shifted.sum(-1, keepdims=True)


def gelu(x):
    """TensorFlow rounds the root of one half to float32, whatever the type."""
    return x * (1 + np.vectorize(erf)(x * float(np.float32(0.5**0.5)))) / 2


def dense(x, layer):
    """Without the activation, whatever the layer has."""
    w = weights(layer)
    return x @ w["kernel"] + w.get("bias", 0)


def convolution(x, layer):
    """2-D convolution of stride 1 without the activation, window by window; ``same`` or ``valid``."""
    w = weights(layer)
    rows, columns = w["kernel"].shape[:2]
    if layer.padding == "same":
        x = np.pad(x, ((0, 0), ((rows - 1) // 2, rows // 2), ((columns - 1) // 2, columns // 2), (0, 0)))
    height, width = x.shape[1] - rows + 1, x.shape[2] - columns + 1
    y = sum(x[:, i : i + height, j : j + width] @ w["kernel"][i, j] for i in range(rows) for j in range(columns))
    return y + w.get("bias", 0)


def max_pool(x, size=2):
    batch, height, width, channels = x.shape
    whole = x[:, : height // size * size, : width // size * size]
    return whole.reshape(batch, height // size, size, width // size, size, channels).max((2, 4))


def batch_normalization(x, layer):
    """As in inference: by the moving statistics."""
    w = weights(layer)
    return (x - w["moving_mean"]) / np.sqrt(w["moving_variance"] + layer.epsilon) * w["gamma"] + w["beta"]


def layer_normalization(x, layer):
    w = weights(layer)
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + layer.epsilon) * w["gamma"] + w["beta"]


def lstm(x, layer, mask=None, state=None):
    """Every hidden state ``(batch, time, units)`` and the last cell state; gates in the order i, f, c, o.

    Args:
      x: ``(batch, time, features)``.
      layer: The Keras layer.
      mask: ``(batch, time)``; where it is False the states stay as they are.
      state: The hidden and the cell state to begin with; zeros where it is None.
    """
    w = weights(layer.cell)
    h, c = state or (np.zeros((len(x), layer.units)),) * 2
    mask = np.ones(x.shape[:2], bool) if mask is None else mask
    hidden = []
    for t in range(x.shape[1]):
        i, f, g, o = np.split(x[:, t] @ w["kernel"] + h @ w["recurrent_kernel"] + w["bias"], 4, -1)
        new_c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        new_h = sigmoid(o) * np.tanh(new_c)
        h, c = (np.where(mask[:, t, None], new, old) for new, old in ((new_h, h), (new_c, c)))
        hidden.append(h)
    return np.stack(hidden, 1), c


def gru(x, layer):
    """Every hidden state ``(batch, time, units)``; gates in the order z, r, h, ``reset_after``."""
    w = weights(layer.cell)
    h = np.zeros((len(x), layer.units))
    hidden = []
    for t in range(x.shape[1]):
        xz, xr, xh = np.split(x[:, t] @ w["kernel"] + w["bias"][0], 3, -1)
        hz, hr, hh = np.split(h @ w["recurrent_kernel"] + w["bias"][1], 3, -1)
        z = sigmoid(xz + hz)
        h = z * h + (1 - z) * np.tanh(xh + sigmoid(xr + hr) * hh)
        hidden.append(h)
    return np.stack(hidden, 1)


def attention(query, value, layer):
    """Keras's ``MultiHeadAttention(query, value)`` without masks and dropout."""
    w = {part: weights(getattr(layer, f"_{part}_dense")) for part in ("query", "key", "value", "output")}
    q, k, v = (
        np.einsum("btd,dhk->bthk", x, w[part]["kernel"]) + w[part].get("bias", 0)
        for x, part in ((query, "query"), (value, "key"), (value, "value"))
    )
    scores = np.einsum("bqhk,bthk->bhqt", q, k) / np.sqrt(q.shape[-1])
    mixed = np.einsum("bhqt,bthk->bqhk", softmax(scores), v)
    return np.einsum("bqhk,hkd->bqd", mixed, w["output"]["kernel"]) + w["output"].get("bias", 0)
