"""How a layer with weights shares out its relevance: the rules of layer-wise relevance propagation.

A layer is a product of inputs a and weights w, together with what follows it alone and is affine: bias, batch
normalisation, a scale. That is what folding a batch normalisation into the weights comes to, and no weight is touched:
the output is y = s L(a, w) + t, with slopes s and an offset t that the folded ops have.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from gradtap.graph import surgery
from gradtap.types import Operation, Tensor

_WITH_WEIGHTS = """
    BatchMatMul BatchMatMulV2 BatchMatMulV3 Conv2D Conv2DBackpropInput Conv3D Conv3DBackpropInputV2
    DepthwiseConv2dNative Einsum MatMul
"""
_REARRANGING = "BatchToSpaceND Cast CheckNumerics EnsureShape ExpandDims Identity Reshape Squeeze Transpose"
#: The ops that multiply inputs with weights, each linear in both.
WITH_WEIGHTS = frozenset(_WITH_WEIGHTS.split())
#: Ops with one input that put its entries in another order or shape.
REARRANGING = frozenset(_REARRANGING.split())
#: Ops that add a number of its own to each entry.
SHIFTING = frozenset({"Add", "AddV2", "BiasAdd"})
NAMES = ("epsilon", "gamma", "alpha_beta", "z_box", "flat")

_LEAST = 1e-37
_LEAST_OF_HALF = 1e-7


@dataclass(frozen=True)
class LayerRule:
    """A rule with its parameters; `gradtap.attribution.lrp` says what they mean."""

    name: str
    epsilon: float = 1e-9
    gamma: float = 0.25
    alpha: float = 2.0
    beta: float = 1.0
    bounds: tuple[Any, Any] = (0.0, 1.0)


def away_from_zero(tensor: Tensor, epsilon: float) -> Tensor:
    """A denominator, moved away from zero by epsilon, or by the smallest number that its type can divide by."""
    least = max(epsilon, _LEAST_OF_HALF if tensor.dtype == tf.float16 else _LEAST)
    return tensor + tf.where(tensor < 0, tf.cast(-least, tensor.dtype), tf.cast(least, tensor.dtype))


def plain(op: Operation, slope: Tensor) -> list[Tensor | None]:
    """What TensorFlow hands back to each input of an op for the slope of its first output."""
    found = surgery.registered_gradient(op.type)(op, slope, *([None] * (len(op.outputs) - 1)))
    return list(found) if isinstance(found, (list, tuple)) else [found]


class Folded:
    """A layer, folded with the affine ops behind it.

    Args:
      op: The op that multiplies.
      position: Which of its inputs varies.
      behind: The affine ops that follow it, in order, each with the position of the input that comes from here.
    """

    def __init__(self, op: Operation, position: int, behind: Sequence[tuple[Operation, int]]) -> None:
        floats = [i for i, tensor in enumerate(op.inputs) if surgery.is_float(tensor) and i != position]
        self._op = op
        self._position = position
        self._weights_at = floats[0]
        self.inputs = op.inputs[position]
        self.weights = op.inputs[self._weights_at]
        end = behind[-1][0].outputs[0] if behind else op.outputs[0]
        output, slopes = end, tf.ones_like(end)
        for one, at in reversed(behind):
            slopes = plain(one, slopes)[at]
            if one.type in REARRANGING:
                output = plain(one, output)[at]
        #: Of the shape of what the op gives.
        self.output, self.slopes = output, slopes
        self.offset = output - slopes * op.outputs[0]
        #: Whether a slope may be something else than one.
        self.scaled = any(one.type not in REARRANGING | SHIFTING for one, _ in behind)

    def forward(self, inputs: Tensor, weights: Tensor) -> Tensor:
        """The product of other inputs with other weights."""
        return self._again(inputs, weights).outputs[0]

    def back(self, weights: Tensor, shares: Tensor) -> Tensor:
        """The transposed product of weights with what arrives at the output."""
        return plain(self._again(self.inputs, weights), shares)[self._position]

    def _again(self, inputs: Tensor, weights: Tensor) -> Operation:
        given = list(self._op.inputs)
        given[self._position], given[self._weights_at] = inputs, weights
        return surgery.op_like(self._op, given)


def share(layer: Folded, rule: LayerRule, relevance: Tensor) -> Tensor:
    """The relevance of the inputs of a layer, from that of its output."""
    return _SHARES[rule.name](layer, rule, relevance)


def _epsilon(layer: Folded, rule: LayerRule, relevance: Tensor) -> Tensor:
    per_unit = relevance / away_from_zero(layer.output, rule.epsilon)
    return layer.inputs * layer.back(layer.weights, per_unit * layer.slopes)


def _gamma(layer: Folded, rule: LayerRule, relevance: Tensor) -> Tensor:
    """Contributions of the sign of the output are favoured, so that no denominator is smaller than the output."""
    signed = _Signed(layer)
    above, below = tf.nn.relu(layer.inputs), -tf.nn.relu(-layer.inputs)
    found = 0.0
    for sign in (+1, -1):
        meant = tf.cast(layer.output < 0 if sign < 0 else layer.output >= 0, relevance.dtype)
        favoured = signed.forward(above, sign) + signed.forward(below, -sign) + sign * tf.nn.relu(sign * layer.offset)
        per_unit = meant * relevance / away_from_zero(layer.output + rule.gamma * favoured, rule.epsilon)
        own = layer.inputs * layer.back(layer.weights, per_unit * layer.slopes)
        more = above * signed.back(per_unit, sign) + below * signed.back(per_unit, -sign)
        found += own + rule.gamma * more
    return found


def _alpha_beta(layer: Folded, rule: LayerRule, relevance: Tensor) -> Tensor:
    signed = _Signed(layer)
    above, below = tf.nn.relu(layer.inputs), -tf.nn.relu(-layer.inputs)

    def part(sign: int) -> Tensor:
        """What contributions of one sign are given."""
        offset = sign * tf.nn.relu(sign * layer.offset)
        whole = signed.forward(above, sign) + signed.forward(below, -sign) + offset
        per_unit = relevance / away_from_zero(whole, rule.epsilon)
        return above * signed.back(per_unit, sign) + below * signed.back(per_unit, -sign)

    found = rule.alpha * part(+1)
    return found - rule.beta * part(-1) if rule.beta else found


def _z_box(layer: Folded, rule: LayerRule, relevance: Tensor) -> Tensor:
    signed = _Signed(layer)
    low, high = (tf.broadcast_to(tf.cast(b, layer.inputs.dtype), tf.shape(layer.inputs)) for b in rule.bounds)
    own = layer.slopes * layer.forward(layer.inputs, layer.weights)
    whole = own - signed.forward(low, +1) - signed.forward(high, -1)
    per_unit = relevance / away_from_zero(whole, rule.epsilon)
    found = layer.inputs * layer.back(layer.weights, per_unit * layer.slopes)
    return found - low * signed.back(per_unit, +1) - high * signed.back(per_unit, -1)


def _flat(layer: Folded, rule: LayerRule, relevance: Tensor) -> Tensor:
    ones = tf.ones_like(layer.weights)
    seen = layer.forward(tf.ones_like(layer.inputs), ones)
    return layer.back(ones, relevance / seen)


class _Signed:
    """The products of a folded layer with those of its weights alone that have one sign, s w > 0 or s w < 0."""

    def __init__(self, layer: Folded) -> None:
        self._layer = layer
        self._weights = {+1: tf.nn.relu(layer.weights), -1: -tf.nn.relu(-layer.weights)}
        self._slopes = {+1: tf.nn.relu(layer.slopes)}
        if layer.scaled:
            self._slopes[-1] = -tf.nn.relu(-layer.slopes)

    def forward(self, inputs: Tensor, sign: int) -> Tensor:
        parts = [slopes * self._layer.forward(inputs, self._weights[s * sign]) for s, slopes in self._slopes.items()]
        return tf.add_n(parts)

    def back(self, shares: Tensor, sign: int) -> Tensor:
        parts = [self._layer.back(self._weights[s * sign], shares * slopes) for s, slopes in self._slopes.items()]
        return tf.add_n(parts)


_SHARES: dict[str, Callable[[Folded, LayerRule, Tensor], Tensor]] = {
    "epsilon": _epsilon,
    "gamma": _gamma,
    "alpha_beta": _alpha_beta,
    "z_box": _z_box,
    "flat": _flat,
}
