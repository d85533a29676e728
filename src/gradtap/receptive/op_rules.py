"""How what is seen passes through the ops of a graph, one input of an op at a time.

An op that is not listed mixes all that it is given: what is said then is never too little.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from gradtap.receptive import window_rules
from gradtap.receptive.indexing import sliced
from gradtap.receptive.spread import Spread
from gradtap.receptive.steps import Step
from gradtap.receptive.windows import every, moved

Rule = Callable[[Step, Spread], Spread | None]

_ELEMENTWISE = """
Abs Acos Acosh Add AddN AddV2 Asin Asinh Atan Atan2 Atanh BiasAdd Bitcast BroadcastTo Cast Ceil CheckNumerics
ClipByValue Conj Cos Cosh Digamma Div DivNoNan Elu EnsureShape Equal Erf Erfc Erfinv Exp Expm1
FakeQuantWithMinMaxArgs FakeQuantWithMinMaxVars FakeQuantWithMinMaxVarsPerChannel Floor FloorDiv FloorMod
Greater GreaterEqual Identity Imag Inv IsFinite IsInf IsNan LRN LeakyRelu Less LessEqual Lgamma Log Log1p
LogicalAnd LogicalNot LogicalOr Maximum Minimum Mod Mul MulNoNan Ndtri Neg NextAfter NotEqual Pow
PreventGradient QuantizeAndDequantizeV2 QuantizeAndDequantizeV4 Real RealDiv Reciprocal Relu Relu6 Rint Round
Rsqrt Select SelectV2 Selu Sigmoid Sign Sin Sinh Snapshot Softplus Softsign Sqrt Square SquaredDifference
StopGradient Sub Tan Tanh TruncateDiv TruncateMod Xdivy Xlog1py Xlogy Zeta
"""
_REDUCTIONS = ["All", "Any", "EuclideanNorm", "Max", "Mean", "Min", "Prod", "Sum"]


def passed(step: Step, seen: Spread) -> Spread | None:
    """What the output of an op sees by one of its inputs; None where it depends on that input's shape alone."""
    rule = _RULES.get(step.op.type)
    # Of a slice, a window or a reduction only the first input holds what is looked at; the others say where.
    return seen.mixed(step.op.name) if rule is None else rule(step, seen)


def _elementwise(step: Step, seen: Spread) -> Spread:
    if seen.axis is None:
        return seen
    axis = seen.axis + len(step.after) - len(step.before)
    kept = step.before[seen.axis] == step.after[axis]
    return seen.moved(axis) if kept else seen.mixed(step.op.name)


def _each_by_itself(step: Step, seen: Spread) -> Spread | None:
    return seen if step.output == step.index else None


def _batch_norm(step: Step, seen: Spread) -> Spread:
    own = step.index == 0 and step.output == 0 and not step.op.get_attr("is_training")
    return seen if own else seen.mixed(step.op.name)


def _reversed(step: Step, seen: Spread) -> Spread:
    if step.index != 0 or seen.axis is None:
        return seen.mixed(step.op.name)
    if seen.axis not in {axis % len(step.before) for axis in step.ints(1)}:
        return seen
    size = step.before[seen.axis]
    return seen.through(every(-1, size - 1), size, step.op.name)


def _softmax(step: Step, seen: Spread) -> Spread:
    return seen.mixed(step.op.name) if seen.axis == len(step.before) - 1 else seen


def _reduced(step: Step, seen: Spread) -> Spread:
    if step.index != 0 or seen.axis is None:
        return seen.mixed(step.op.name)
    rank = len(step.before)
    axes = {axis % rank for axis in step.ints(1)}
    if seen.axis in axes:
        return seen.mixed(step.op.name)
    gone = 0 if step.op.get_attr("keep_dims") else sum(axis < seen.axis for axis in axes)
    return seen.moved(seen.axis - gone)


def _along(axis_input: int) -> Rule:
    def rule(step: Step, seen: Spread) -> Spread:
        own = step.index == 0 and seen.axis is not None
        same = not own or step.ints(axis_input)[0] % len(step.before) == seen.axis
        return seen.mixed(step.op.name) if same else seen

    return rule


def _matmul(step: Step, seen: Spread) -> Spread:
    """The rows of the first input and the columns of the second stay apart; what lies before them is broadcast."""
    if seen.axis is None:
        return seen
    flags = ("transpose_a", "transpose_b") if step.op.type == "MatMul" else ("adj_x", "adj_y")
    turned = bool(step.op.get_attr(flags[step.index]))
    rank, after = len(step.before), len(step.after)
    own = rank - 1 if turned != (step.index == 1) else rank - 2
    if seen.axis < rank - 2:
        axis = seen.axis + after - rank
        return seen.moved(axis) if step.before[seen.axis] == step.after[axis] else seen.mixed(step.op.name)
    return seen.moved(after - 2 + step.index) if seen.axis == own else seen.mixed(step.op.name)


def _einsum(step: Step, seen: Spread) -> Spread:
    equation = step.op.get_attr("equation").decode()
    if seen.axis is None or "." in equation:
        return seen.mixed(step.op.name)
    inputs, output = equation.replace(" ", "").split("->")
    label = inputs.split(",")[step.index][seen.axis]
    return seen.moved(output.index(label)) if label in output else seen.mixed(step.op.name)


def _reshaped(step: Step, seen: Spread) -> Spread:
    return seen.reshaped(step.before, step.after, step.op.name) if step.index == 0 else seen.mixed(step.op.name)


def _expanded(step: Step, seen: Spread) -> Spread:
    new = step.ints(1)[0] % len(step.after)
    return seen if seen.axis is None or seen.axis < new else seen.moved(seen.axis + 1)


def _squeezed(step: Step, seen: Spread) -> Spread:
    gone = [axis % len(step.before) for axis in step.op.get_attr("squeeze_dims")]
    gone = gone or [axis for axis, size in enumerate(step.before) if size == 1]
    if seen.axis is None or seen.axis in gone:
        return seen.mixed(step.op.name)
    return seen.moved(seen.axis - sum(axis < seen.axis for axis in gone))


def _transposed(step: Step, seen: Spread) -> Spread:
    return seen if seen.axis is None else seen.moved([n % len(step.before) for n in step.ints(1)].index(seen.axis))


def _padded(step: Step, seen: Spread) -> Spread:
    if step.index != 0 or seen.axis is None:
        return seen.mixed(step.op.name)
    before, after = step.value(step.op.inputs[1])[seen.axis]
    if not before and not after:
        return seen
    return seen.through(moved(int(before)), step.after[seen.axis], step.op.name)


def _concatenated(step: Step, seen: Spread) -> Spread:
    """Along another axis nothing changes; along this one the others stand before and behind, as padding does."""
    where, first = (0, 1) if step.op.type == "Concat" else (len(step.op.inputs) - 1, 0)
    if step.index == where or seen.axis is None:
        return seen.mixed(step.op.name)
    if step.ints(where)[0] % len(step.after) != seen.axis:
        return seen
    before = sum(step.shape(step.op.inputs[i])[seen.axis] for i in range(first, step.index))
    return seen.through(moved(before), step.after[seen.axis], step.op.name)


def _stacked(step: Step, seen: Spread) -> Spread:
    new = step.op.get_attr("axis") % len(step.after)
    return seen if seen.axis is None or seen.axis < new else seen.moved(seen.axis + 1)


def _unstacked(step: Step, seen: Spread) -> Spread:
    gone = step.op.get_attr("axis") % len(step.before)
    if seen.axis is None or seen.axis == gone:
        return _one_of(seen, step.output, step.op.name)
    return seen.moved(seen.axis - (gone < seen.axis))


def _one_of(seen: Spread, coordinate: int, because: str) -> Spread:
    here = seen.plain()
    if here.axis is None or here.outer != 1 or here.inner != 1 or here.interleaved != 1:
        return here.mixed(because)
    return Spread(type(here.field).constant(*here.field.at(coordinate)), here.positions, None, because=because)


def _split(step: Step, seen: Spread) -> Spread:
    value, axis = (1, 0) if step.op.type == "Split" else (0, 2)
    if step.index != value or seen.axis is None:
        return seen.mixed(step.op.name)
    if step.ints(axis)[0] % len(step.before) != seen.axis:
        return seen
    begin = sum(step.shape(other)[seen.axis] for other in step.op.outputs[: step.output])
    return seen.through(moved(-begin), step.after[seen.axis], step.op.name)


def _gathered(step: Step, seen: Spread) -> Spread:
    """Rows of a table, by numbers: where the numbers are looked at, their axes stand in the place of the table's."""
    if step.index > 1 or seen.axis is None:
        return seen.mixed(step.op.name)
    table, numbers = len(step.shape(step.op.inputs[0])), len(step.shape(step.op.inputs[1]))
    axis, batch = step.ints(2)[0] % table, step.op.get_attr("batch_dims") % (numbers + 1)
    if step.index == 1:
        return seen.moved(seen.axis if seen.axis < batch else axis + seen.axis - batch)
    if seen.axis < axis:
        return seen
    if seen.axis == axis:
        return _picked(step, seen) if numbers == 0 else seen.mixed(step.op.name)
    return seen.moved(seen.axis + numbers - batch - 1)


def _picked(step: Step, seen: Spread) -> Spread:
    return _one_of(seen, step.ints(1)[0], step.op.name)


def _looked_up(step: Step, seen: Spread) -> Spread:
    return seen if step.index == 1 and not step.op.get_attr("batch_dims") else seen.mixed(step.op.name)


def _tiled(step: Step, seen: Spread) -> Spread:
    if step.index != 0 or seen.axis is None:
        return seen.mixed(step.op.name)
    times = step.after[seen.axis] // max(step.before[seen.axis], 1)
    return replace(seen, outer=seen.outer * times)


def _sliced(step: Step, seen: Spread) -> Spread:
    if step.index != 0 or seen.axis is None:
        return seen.mixed(step.op.name)
    axis, reads, coordinate = sliced(
        step.op, [step.ints(i) for i in range(1, len(step.op.inputs))], step.before, seen.axis
    )
    if axis is None:
        return _one_of(seen, coordinate, step.op.name)
    if reads is None:
        return seen.moved(axis)
    behind = seen.through(reads, step.after[axis], step.op.name)
    return behind if behind.axis is None else behind.moved(axis)


_RULES: dict[str, Rule] = {
    **dict.fromkeys(_ELEMENTWISE.split(), _elementwise),
    **dict.fromkeys(_REDUCTIONS, _reduced),
    **dict.fromkeys(["BatchMatMul", "BatchMatMulV2", "BatchMatMulV3", "MatMul"], _matmul),
    **dict.fromkeys(["Shape", "ShapeN", "Size", "Rank", "ZerosLike", "OnesLike"], lambda step, seen: None),
    **dict.fromkeys(["Pad", "PadV2", "MirrorPad"], _padded),
    **dict.fromkeys(["Concat", "ConcatV2"], _concatenated),
    **dict.fromkeys(["Split", "SplitV"], _split),
    **dict.fromkeys(["Slice", "StridedSlice"], _sliced),
    **dict.fromkeys(["FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3"], _batch_norm),
    **dict.fromkeys(["Softmax", "LogSoftmax"], _softmax),
    **dict.fromkeys(["Cumsum", "Cumprod"], _along(1)),
    "ReverseV2": _reversed,
    "IdentityN": _each_by_itself,
    "Einsum": _einsum,
    "Reshape": _reshaped,
    "ExpandDims": _expanded,
    "Squeeze": _squeezed,
    "Transpose": _transposed,
    "Pack": _stacked,
    "Unpack": _unstacked,
    "GatherV2": _gathered,
    "ResourceGather": _looked_up,
    "Tile": _tiled,
    **window_rules.RULES,
}
