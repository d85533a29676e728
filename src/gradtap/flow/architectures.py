"""Small networks of one kind each, with the activation function and the depth as parameters, to be compared.

Each takes vectors ``(batch, features)`` and returns logits ``(batch, classes)``. What comes out of each block has the
name ``block_1``, ``block_2`` and so on, so that depth can be counted.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable

import keras
from keras import layers

from gradtap import errors
from gradtap.types import Model, Tensor

#: Activations that keep the size of what flows with the initialisation named here; He's for all others.
_GLOROT = frozenset(
    {"linear", "tanh", "sigmoid", "softsign", "hard_tanh", "hard_sigmoid", "sparse_sigmoid", "softmax", "log_softmax"}
    | {"log_sigmoid", "softplus", "exponential", "tanh_shrink", "hard_shrink", "soft_shrink", "sparsemax"}
)
_HEADS = 4

__all__ = ["activations", "attention", "normalised", "plain", "recurrent", "residual"]


def activations() -> list[str]:
    """The names of all activation functions of Keras that need no more than what they are applied to.

    Returns:
      Names, sorted; ``glu``, which halves its input, is given twice as much by the networks of this module.

    Example:
      >>> {"relu", "gelu", "tanh", "sigmoid"} <= set(activations())
      True
    """
    found = []
    for name, function in vars(keras.activations).items():
        if name.startswith("_") or name in ("get", "serialize", "deserialize") or not inspect.isfunction(function):
            continue
        required = [p for p in inspect.signature(function).parameters.values() if p.default is p.empty]
        if len(required) == 1:
            found.append(name)
    return sorted(found)


def plain(features: int, classes: int, *, activation: str = "relu", depth: int = 16, width: int = 64) -> Model:
    r"""A plain network: :math:`h_{l} = \phi(W_l h_{l-1})`.

    Args:
      features: Size of an example.
      classes: Number of logits.
      activation: Name of an activation function of Keras.
      depth: Number of hidden layers.
      width: Units in each.

    Returns:
      A Keras model.

    Example:
      >>> plain(8, 3, depth=2).output_shape
      (None, 3)
    """
    x = inputs = keras.Input((features,))
    for block in _blocks(depth):
        x = _activated(_dense(activation, width, block)(x), activation, block)
    return _ended(inputs, x, classes)


def normalised(features: int, classes: int, *, activation: str = "relu", depth: int = 16, width: int = 64) -> Model:
    r"""A plain network with layer normalisation before each activation: :math:`h_l = \phi(\mathrm{LN}(W_l h_{l-1}))`.

    Args:
      features: Size of an example.
      classes: Number of logits.
      activation: Name of an activation function of Keras.
      depth: Number of hidden layers.
      width: Units in each.

    Returns:
      A Keras model.

    Example:
      >>> normalised(8, 3, depth=2).output_shape
      (None, 3)
    """
    x = inputs = keras.Input((features,))
    for block in _blocks(depth):
        x = layers.LayerNormalization()(_dense(activation, width, block)(x))
        x = _activated(x, activation, block)
    return _ended(inputs, x, classes)


def residual(features: int, classes: int, *, activation: str = "relu", depth: int = 16, width: int = 64) -> Model:
    r"""A network of skip connections: :math:`h_l = h_{l-1} + W_l\, \phi(\mathrm{LN}(h_{l-1}))`.

    Args:
      features: Size of an example.
      classes: Number of logits.
      activation: Name of an activation function of Keras.
      depth: Number of blocks.
      width: Units in each.

    Returns:
      A Keras model.

    Example:
      >>> residual(8, 3, depth=2).output_shape
      (None, 3)
    """
    inputs = keras.Input((features,))
    x = layers.Dense(width, name="stem")(inputs)
    for block in _blocks(depth):
        inner = _widened(layers.LayerNormalization()(x), activation, width)
        x = layers.Add(name=block)([x, layers.Dense(width, kernel_initializer=_initializer(activation))(inner)])
    return _ended(inputs, x, classes)


def recurrent(features: int, classes: int, *, activation: str = "relu", depth: int = 16, width: int = 64) -> Model:
    r"""A recurrent network that is given the same vector at each step: :math:`h_t = \phi(W x + U h_{t-1})`.

    Its depth is the number of steps, and its gradients against depth are :math:`|\partial L / \partial h_t|`.

    Args:
      features: Size of an example.
      classes: Number of logits.
      activation: Name of an activation function of Keras; ``glu`` cannot be one.
      depth: Number of steps.
      width: Units of the state.

    Returns:
      A Keras model.

    Raises:
      ArgumentError: The activation halves its input, which no state can be.

    Example:
      >>> recurrent(8, 3, depth=2).output_shape
      (None, 3)
    """
    if activation == "glu":
        raise errors.ArgumentError("glu halves its input, so a state cannot go through it.", [], "another activation")
    inputs = keras.Input((features,))
    x = layers.RepeatVector(depth)(inputs)
    x = layers.SimpleRNN(width, activation=activation, kernel_initializer=_initializer(activation), name="state")(x)
    return _ended(inputs, x, classes)


def attention(features: int, classes: int, *, activation: str = "gelu", depth: int = 16, width: int = 64) -> Model:
    r"""A transformer over the entries of the vector: attention and :math:`W_2\,\phi(W_1\,\cdot)`, each with a skip.

    Args:
      features: Size of an example, which is the number of tokens.
      classes: Number of logits.
      activation: Name of an activation function of Keras.
      depth: Number of blocks.
      width: Size of a token, a multiple of 4.

    Returns:
      A Keras model.

    Example:
      >>> attention(8, 3, depth=2).output_shape
      (None, 3)
    """
    inputs = keras.Input((features,))
    # Each entry has a direction of its own, by which its place is known.
    x = layers.EinsumDense("bf,fw->bfw", (features, width), bias_axes="fw", name="tokens")(inputs)
    for block in _blocks(depth):
        here = layers.LayerNormalization()(x)
        x = layers.Add()([x, layers.MultiHeadAttention(_HEADS, max(1, width // _HEADS))(here, here)])
        inner = layers.LayerNormalization()(x)
        inner = _activated(_dense(activation, width, block)(inner), activation, None)
        x = layers.Add(name=block)([x, layers.Dense(width)(inner)])
    x = layers.GlobalAveragePooling1D()(layers.LayerNormalization()(x))
    return _ended(inputs, x, classes)


#: The architectures by name.
BY_NAME: dict[str, Callable[..., Model]] = {
    "plain": plain,
    "residual": residual,
    "normalised": normalised,
    "recurrent": recurrent,
    "attention": attention,
}


def _blocks(depth: int) -> list[str]:
    return [f"block_{number + 1}" for number in range(depth)]


def _initializer(activation: str) -> str:
    if activation == "selu":
        return "lecun_normal"
    return "glorot_uniform" if activation in _GLOROT else "he_normal"


def _dense(activation: str, width: int, block: str) -> keras.layers.Layer:
    units = width * (2 if activation == "glu" else 1)
    return layers.Dense(units, kernel_initializer=_initializer(activation), name=block.replace("block", "linear"))


def _activated(x: Tensor, activation: str, name: str | None) -> Tensor:
    if activation == "glu":  # a layer of it would say that it keeps the size
        half, gate = keras.ops.split(x, 2, axis=-1)
        return layers.Multiply(name=name)([half, layers.Activation("sigmoid")(gate)])
    return layers.Activation(activation, name=name)(x)


def _widened(x: Tensor, activation: str, width: int) -> Tensor:
    """The activation of something that it may halve."""
    if activation == "glu":
        x = layers.Dense(2 * width)(x)
    return _activated(x, activation, None)


def _ended(inputs: Tensor, x: Tensor, classes: int) -> Model:
    return keras.Model(inputs, layers.Dense(classes, name="logits")(x))
