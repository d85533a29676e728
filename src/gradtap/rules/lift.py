"""The rules of DeepLIFT, op by op: how much of a change of an output each changing input accounts for.

Every batch holds the examples in its first half and their baselines in its second, so an op sees both at once. A rule
hands on the multiplier of the output in such a way that, over the inputs of an op, multiplier times change sums to the
multiplier times the change of the output. Then the attributions at any cut of the model sum to the target's change.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeAlias

import tensorflow as tf

from gradtap.graph import surgery
from gradtap.graph.rules import Rules
from gradtap.graph.varying import Varying
from gradtap.rules.layer_rules import plain
from gradtap.types import Operation, Tensor

#: Below this a change is none, and the derivative takes the place of the quotient.
NONE = 1e-10

_ELEMENTWISE = """
    Abs Acos Acosh Asin Asinh Atan Atanh Cos Cosh Elu Erf Erfc Exp Expm1 Inv LeakyRelu Log Log1p Pow Reciprocal Relu
    Relu6 Rsqrt Selu Sigmoid Sign Sin Sinh Softplus Softsign Sqrt Square Tan Tanh
"""
_LINEAR = """
    Add AddN AddV2 AvgPool AvgPool3D BatchToSpaceND BiasAdd BroadcastTo Cast CheckNumerics Concat ConcatV2
    Conv2DBackpropInput Conv3DBackpropInputV2 Cumsum DepthToSpace DepthwiseConv2dNative EnsureShape ExpandDims
    FusedBatchNormV3 GatherNd GatherV2 Identity IdentityN If MatrixBandPart MatrixDiagPart MatrixTranspose Mean
    MirrorPad Neg Pack Pad PadV2 PreventGradient Reshape ResizeBicubic ResizeBilinear ResizeNearestNeighbor
    ReverseSequence ReverseV2 Roll ScaleAndTranslate Select SelectV2 Slice Snapshot SpaceToBatchND SpaceToDepth
    Split SplitV Squeeze StatelessIf StatelessWhile StopGradient StridedSlice Sub Sum TensorListConcatV2
    TensorListFromTensor TensorListGetItem TensorListLength TensorListPopBack TensorListPushBack TensorListReserve
    TensorListSetItem TensorListStack Tile Transpose Unpack While
"""
#: Each output is a function of the one entry of the input that stands at its place.
ELEMENTWISE = frozenset(_ELEMENTWISE.split())
#: Linear in each of two inputs.
BILINEAR = frozenset({"Mul", "MatMul", "BatchMatMul", "BatchMatMulV2", "BatchMatMulV3", "Einsum", "Conv2D", "Conv3D"})
#: Linear in all inputs that carry floats.
LINEAR = frozenset(_LINEAR.split())

_Rule: TypeAlias = Callable[..., Any]


def rules_for(varying: Varying) -> Rules:
    """The rule of each type of op that is not linear, for a graph whose varying tensors are known."""
    return {kind: partial(rule, varying) for kind, rule in _RULES.items()}


def without_rule(varying: Varying, op: Operation) -> bool:
    """Whether an op through which floats vary can be handled by no rule."""
    given = varying.inputs(op)
    if op.type in ("Select", "SelectV2", "GatherV2", "GatherNd"):
        chooses = 0 if op.type.startswith("Select") else 1
        # What is chosen may change from the baseline to the input. A mask that token ids make is taken as it is.
        return chooses in given and _from_floats(varying, op.inputs[chooses])
    if op.type == "FusedBatchNormV3":
        return bool(op.get_attr("is_training")) or given != [0]
    if op.type in ELEMENTWISE:
        return len(given) > 1
    known = (
        BILINEAR | LINEAR | {"LogSoftmax", "Max", "MaxPool", "MaxPool3D", "Maximum", "Minimum", "RealDiv", "Softmax"}
    )
    return op.type not in known | {"SquaredDifference"}


def _from_floats(varying: Varying, tensor: Tensor) -> bool:
    """Whether a choice follows from varying floats, and not from token ids alone."""
    seen: set[Any] = set()
    stack = [tensor]
    while stack:
        one = stack.pop()
        if one.ref() not in seen and one in varying:
            if surgery.is_float(one):
                return True
            seen.add(one.ref())
            stack += one.op.inputs
    return False


def _other(tensor: Tensor) -> Tensor:
    """For each example what stands at its baseline, and for each baseline what stands at its example."""
    return tf.roll(tensor, tf.shape(tensor)[0] // 2, axis=0)


def _change(tensor: Tensor) -> Tensor:
    return tensor - _other(tensor)


def _mean(tensor: Tensor) -> Tensor:
    return (tensor + _other(tensor)) / 2


def _quotient_or(change: Tensor, by: Tensor, otherwise: Tensor) -> Tensor:
    """The quotient of two changes; where there is none to divide by, something else."""
    none = tf.abs(by) < tf.cast(NONE, by.dtype)
    return tf.where(none, otherwise, change / tf.where(none, tf.ones_like(by), by))


def _rescale(varying: Varying, op: Operation, slope: Tensor) -> list[Tensor | None]:
    found = plain(op, slope)
    [position] = varying.inputs(op) or [0]
    change = slope * _change(op.outputs[0])
    found[position] = _quotient_or(change, _change(op.inputs[position]), found[position])
    return found


def _midpoint(varying: Varying, op: Operation, slope: Tensor) -> list[Tensor | None]:
    """Of a product, each factor is multiplied with the mean of the other."""
    given = varying.inputs(op)
    if len(given) < 2:
        return plain(op, slope)
    again = surgery.op_like(op, [_mean(t) if i in given else t for i, t in enumerate(op.inputs)])
    return plain(again, slope)


def _through(varying: Varying, op: Operation, *slopes: Tensor) -> Sequence[Tensor]:
    """The ops of a function with a gradient of its own have rules themselves."""
    return slopes


def _quotient(varying: Varying, op: Operation, slope: Tensor) -> list[Tensor | None]:
    above, below = op.inputs
    given = varying.inputs(op)
    if 1 not in given:
        return plain(op, slope)
    inverse = 1 / below
    product = tf.multiply(_mean(above) if 0 in given else above, _mean(inverse))
    to_above, to_inverse = plain(product.op, slope)
    return [to_above, -inverse * _other(inverse) * to_inverse]


def _squared_difference(varying: Varying, op: Operation, slope: Tensor) -> list[Tensor | None]:
    difference = tf.subtract(*op.inputs)
    return plain(difference.op, slope * (difference + _other(difference)))


def _larger(varying: Varying, op: Operation, slope: Tensor) -> list[Tensor | None]:
    """max(a, b) = b + relu(a - b)."""
    return _of_two(op, slope, first=True)


def _smaller(varying: Varying, op: Operation, slope: Tensor) -> list[Tensor | None]:
    """min(a, b) = a - relu(a - b)."""
    return _of_two(op, slope, first=False)


def _of_two(op: Operation, slope: Tensor, first: bool) -> list[Tensor | None]:
    difference = tf.subtract(*op.inputs)
    on = tf.nn.relu(difference)
    share = _quotient_or(_change(on), _change(difference), tf.cast(difference > 0, slope.dtype))
    share = share if first else 1 - share
    total = tf.add(*op.inputs).op
    return [plain(total, slope * share)[0], plain(total, slope * (1 - share))[1]]


def _exponentials(op: Operation) -> tuple[Tensor, Tensor]:
    """exp(z - m), and its change over that of z; m is the largest entry of example and baseline. In float64."""
    z = tf.cast(op.inputs[0], tf.float64)
    largest = tf.reduce_max(z, -1, keepdims=True)
    e = tf.exp(z - tf.maximum(largest, _other(largest)))
    return e, _quotient_or(_change(e), _change(z), e)


def _softmax(varying: Varying, op: Operation, slope: Tensor) -> Tensor:
    """A product of exponentials with the inverse of their sum."""
    wide = tf.cast(slope, tf.float64)
    e, rate = _exponentials(op)
    inverse = 1 / tf.reduce_sum(e, -1, keepdims=True)
    to_inverse = tf.reduce_sum(wide * _mean(e), -1, keepdims=True)
    to_exponentials = wide * _mean(inverse) - to_inverse * inverse * _other(inverse)
    return tf.cast(to_exponentials * rate, slope.dtype)


def _log_softmax(varying: Varying, op: Operation, slope: Tensor) -> Tensor:
    """What it is given, less the logarithm of a sum of exponentials."""
    wide = tf.cast(slope, tf.float64)
    e, rate = _exponentials(op)
    total = tf.reduce_sum(e, -1, keepdims=True)
    log_rate = _quotient_or(_change(tf.math.log(total)), _change(total), 1 / total)
    return tf.cast(wide - tf.reduce_sum(wide, -1, keepdims=True) * log_rate * rate, slope.dtype)


def _pooled_max(varying: Varying, op: Operation, slope: Tensor) -> list[Tensor | None]:
    return [_at_winners(op, slope, op.outputs[0], lambda values: plain(op, values)[0])]


def _reduced_max(varying: Varying, op: Operation, slope: Tensor) -> list[Tensor | None]:
    if bool(op.get_attr("keep_dims")):
        output = op.outputs[0]
    else:
        axes = op.inputs[1]
        output = tf.reduce_max(op.inputs[0], axes, keepdims=True)
        slope = tf.reshape(slope, tf.shape(output))
    won = tf.cast(op.inputs[0] == output, slope.dtype)
    won = won / tf.reduce_sum(won, op.inputs[1], keepdims=True)
    return [_at_winners(op, slope, output, lambda values: won * values), None]


def _at_winners(op: Operation, slope: Tensor, output: Tensor, spread: Callable[[Tensor], Tensor]) -> Tensor:
    """Split the change of a maximum at the larger of the two: what lies above goes to the winners of each.

    Args:
      op: The op that takes the maximum.
      slope: The multiplier of its output.
      output: The maximum, of example and baseline.
      spread: Hands values of the output on to the winners of each row.
    """
    larger = tf.maximum(output, _other(output))
    own = spread(slope * (larger - _other(output)))
    others = _other(spread(_other(slope * (output - larger))))
    return _quotient_or(own + others, _change(op.inputs[0]), spread(slope))


_RULES: dict[str, _Rule] = {
    **dict.fromkeys(ELEMENTWISE, _rescale),
    **dict.fromkeys(BILINEAR, _midpoint),
    "IdentityN": _through,
    "LogSoftmax": _log_softmax,
    "Max": _reduced_max,
    "MaxPool": _pooled_max,
    "MaxPool3D": _pooled_max,
    "Maximum": _larger,
    "Minimum": _smaller,
    "RealDiv": _quotient,
    "Softmax": _softmax,
    "SquaredDifference": _squared_difference,
}
