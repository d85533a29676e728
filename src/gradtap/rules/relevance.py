"""Layer-wise relevance propagation, op by op: what arrives at an op is shared out among what it was given.

The backward graph carries relevance in the place of slopes, and starts from the target itself. Where a layer has no
bias, each rule hands on as much as it is given, so the relevance at any cut of the model sums to the target.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, TypeAlias

import tensorflow as tf

from gradtap.graph.bodies import bodies
from gradtap.graph.rules import Rules
from gradtap.graph.varying import Varying, carries
from gradtap.rules.layer_rules import (
    REARRANGING,
    SHIFTING,
    WITH_WEIGHTS,
    Folded,
    LayerRule,
    away_from_zero,
    plain,
    share,
)
from gradtap.types import Operation, Tensor

_ACTIVATIONS = "Elu Erf LeakyRelu Relu Relu6 Selu Sigmoid Softplus Softsign Tanh"
#: Each output is a function of the one entry of the input that stands at its place: it is one unit with it.
ACTIVATIONS = frozenset(_ACTIVATIONS.split())
#: Relevance goes where the values come from: these only choose, or put in another place.
_CHOOSING = """
    BatchToSpaceND BroadcastTo Cast CheckNumerics Concat ConcatV2 DepthToSpace EnsureShape ExpandDims GatherNd GatherV2
    Identity IdentityN If MatrixBandPart MatrixDiagPart MatrixTranspose Maximum Minimum MirrorPad
    Pack Pad PadV2 PreventGradient Reshape ReverseSequence ReverseV2 Roll Select SelectV2 Slice Snapshot SpaceToBatchND
    SpaceToDepth Split SplitV Squeeze StatelessIf StatelessWhile StopGradient StridedSlice TensorListConcatV2
    TensorListFromTensor TensorListGetItem TensorListLength TensorListPopBack TensorListPushBack TensorListReserve
    TensorListSetItem TensorListStack Tile Transpose Unpack While
"""
CHOOSING = frozenset(_CHOOSING.split())
#: The winner of several places takes all.
POOLING = frozenset({"Max", "MaxPool", "MaxPool3D"})
#: Sums with fixed weights.
_SUMMING = """
    Add AddN AddV2 AvgPool AvgPool3D BiasAdd Cumsum FusedBatchNormV3 Mean ResizeBicubic ResizeBilinear
    ResizeNearestNeighbor ScaleAndTranslate Sub Sum
"""
SUMMING = frozenset(_SUMMING.split())
#: What multiplies each entry with a number of its own.
SCALING = frozenset({"Mul", "Neg", "RealDiv"})

#: What makes a factor a gate of the other one, the surer the smaller: it says how much passes and takes no relevance.
_GATES = {"Erf": 1, "Erfc": 1, "Rsqrt": 1, "Sigmoid": 1, "Softmax": 1, "Relu6": 2, "Tanh": 2}
#: Through these a gate is still one.
_AROUND_GATES = (
    REARRANGING
    | SHIFTING
    | SCALING
    | {"BroadcastTo", "IdentityN", "Maximum", "Minimum", "Pack", "StridedSlice", "Sub", "Tile"}
)

_Behind: TypeAlias = list[tuple[Operation, int]]


class Flow:
    """Which way relevance goes through a graph.

    Args:
      varying: The tensors that change with the inputs.
      rule_of: The rule of each op with weights.
    """

    def __init__(self, varying: Varying, rule_of: Callable[[Operation], LayerRule]) -> None:
        self.varying = varying
        self.rule_of = rule_of
        self._known = {op.outputs[0].ref() for op in varying.ops if op.outputs}
        #: What is folded into the layer before it, by the op that multiplies.
        self.behind: dict[Any, _Behind] = {}
        self._folded: set[Any] = set()
        for op in varying.ops:
            if op.type in WITH_WEIGHTS and len(varying.inputs(op)) == 1:
                found = self._affine_ops_after(op)
                self.behind[op.outputs[0].ref()] = found
                self._folded |= {one.outputs[0].ref() for one, _ in found}

    @property
    def rules(self) -> Rules:
        """The rule of each type of op that does not hand relevance back as it would a slope."""
        return {kind: partial(rule, self) for kind, rule in _RULES.items()}

    def is_folded(self, op: Operation) -> bool:
        """Whether an op is part of the layer before it."""
        return op.outputs[0].ref() in self._folded

    def takers(self, op: Operation) -> list[int]:
        """Which inputs of an op are given relevance."""
        given = [i for i in self.varying.inputs(op) if carries(op.inputs[i])]
        if op.type == "RealDiv":
            return [i for i in given if i == 0]  # what is divided by only sets the scale
        if op.type in ("Select", "SelectV2"):
            return [i for i in given if i > 0]
        if len(given) == 2 and op.type in WITH_WEIGHTS | {"Mul"}:
            gates = [self._gate(op.inputs[i]) for i in given]
            if gates[0] != gates[1]:
                return [given[gates.index(max(gates))]]
        return given

    def lacking(self, score: Tensor, at: Iterable[Tensor]) -> list[Operation]:
        """The ops without a rule that relevance would have to pass on its way from the target to the taps."""
        ends = {tensor.ref() for tensor in at}
        return [op for op in self._reached([score], ends) if self._without_rule(op)]

    def _reached(self, outputs: Iterable[Tensor], ends: set[Any]) -> Iterator[Operation]:
        seen: set[Any] = set()
        stack = list(outputs)
        while stack:
            tensor = stack.pop()
            op = tensor.op
            if tensor.ref() in ends or not op.outputs or op.outputs[0].ref() in seen:
                continue
            seen.add(op.outputs[0].ref())
            if op.outputs[0].ref() not in self._known:
                continue
            yield op
            for graph, _, _ in bodies(op):
                yield from self._reached([t for t in graph.outputs if carries(t)], set())
            stack += [op.inputs[i] for i in self.takers(op)]

    def _without_rule(self, op: Operation) -> bool:
        if op.type == "FusedBatchNormV3":
            return bool(op.get_attr("is_training")) or self.varying.inputs(op) != [0]
        if op.type == "Einsum":
            return len(op.inputs) != 2
        return op.type not in ACTIVATIONS | CHOOSING | POOLING | SUMMING | SCALING | WITH_WEIGHTS | {"Softmax"}

    def _affine_ops_after(self, op: Operation) -> _Behind:
        found: _Behind = []
        tensor = op.outputs[0]
        while True:
            takers = [c for c in tensor.consumers() if c.outputs and c.outputs[0].ref() in self._known]
            if len(takers) != 1 or not self._is_affine(takers[0], tensor):
                return found
            [at] = self.varying.inputs(takers[0])
            found.append((takers[0], at))
            tensor = takers[0].outputs[0]

    def _is_affine(self, op: Operation, tensor: Tensor) -> bool:
        """Whether an op is y = s x + t, entry by entry, with s and t that do not vary."""
        given = self.varying.inputs(op)
        if len(given) != 1 or (op.type == "RealDiv" and given != [0]):
            return False
        if op.type in REARRANGING:
            return True
        if op.type == "FusedBatchNormV3":
            return given == [0] and not op.get_attr("is_training")
        return op.type in SHIFTING | SCALING | {"Sub"} and _same_shape(op.outputs[0], tensor)

    def _gate(self, tensor: Tensor) -> int:
        """How sure it is that a factor is a gate: 1 for sure, 2 where the other is none of the first kind, 3 not."""
        while tensor.op.type in _AROUND_GATES:
            given = self.varying.inputs(tensor.op)
            if len(given) != 1:
                break
            if not carries(tensor.op.inputs[given[0]]):
                return 1  # a mask, made of token ids
            tensor = tensor.op.inputs[given[0]]
        return _GATES.get(tensor.op.type, 3)


def _same_shape(one: Tensor, other: Tensor) -> bool:
    sizes = zip(one.shape.as_list(), other.shape.as_list(), strict=True) if one.shape.rank == other.shape.rank else ()
    pairs = list(sizes)
    return bool(pairs) and all(a == b for a, b in pairs)


def _activation(flow: Flow, op: Operation, relevance: Tensor) -> Tensor:
    return relevance


def _through(flow: Flow, op: Operation, *relevance: Tensor) -> Any:
    """The ops of a function with a gradient of its own have rules themselves."""
    return relevance


def _layer(flow: Flow, op: Operation, relevance: Tensor) -> list[Tensor | None]:
    behind = flow.behind.get(op.outputs[0].ref())
    if behind is None:
        return _product(flow, op, relevance)
    [position] = flow.varying.inputs(op)
    found: list[Tensor | None] = [None] * len(op.inputs)
    found[position] = share(Folded(op, position, behind), flow.rule_of(op), relevance)
    return found


def _product(flow: Flow, op: Operation, relevance: Tensor) -> list[Tensor | None]:
    """Of a gate and a signal the signal takes all; two signals share equally."""
    takers = flow.takers(op)
    found = _summed(flow, op, relevance / len(takers)) if takers else plain(op, relevance)
    return [f if i in takers or i not in flow.varying.inputs(op) else None for i, f in enumerate(found)]


def _scaled(flow: Flow, op: Operation, *relevance: Any) -> list[Tensor | None]:
    takers = flow.takers(op)
    if len(takers) == 1 and _same_shape(op.outputs[0], op.inputs[takers[0]]):
        # What is multiplied, entry by entry, is one unit with the product.
        return [relevance[0] if i in takers else None for i in range(len(op.inputs))]
    return _product(flow, op, relevance[0])


def _summed(flow: Flow, op: Operation, *relevance: Any) -> list[Tensor | None]:
    """By the share that each entry has in the sum; what is only shifted, as by preprocessing, is one unit with it."""
    given = flow.varying.inputs(op)
    # The perturbation of a recurrent state is a constant of zeros, and takes what the state itself is given.
    found = plain(op, relevance[0]) if op.type in SHIFTING else [None] * len(op.inputs)
    alone = len(given) == 1 and _same_shape(op.outputs[0], op.inputs[given[0]])
    if flow.is_folded(op) or (alone and op.type in SHIFTING | {"Sub", "FusedBatchNormV3"}):
        return [relevance[0] if i in given else one for i, one in enumerate(found)]
    per_unit = plain(op, relevance[0] / away_from_zero(op.outputs[0], flow.rule_of(op).epsilon))
    return [op.inputs[i] * per_unit[i] if i in given else one for i, one in enumerate(found)]


def _winner(flow: Flow, op: Operation, relevance: Tensor) -> list[Tensor | None]:
    y = op.outputs[0]
    kept = relevance * y / away_from_zero(y, flow.rule_of(op).epsilon)
    return plain(op, tf.where(y == 0, relevance, kept))


def _softmax(flow: Flow, op: Operation, relevance: Tensor) -> Tensor:
    """The first term of a Taylor series, as no share of a probability is a logit's own."""
    found: Tensor = op.inputs[0] * (relevance - op.outputs[0] * tf.reduce_sum(relevance, -1, keepdims=True))
    return found


_RULES: dict[str, Callable[..., Any]] = {
    **dict.fromkeys(ACTIVATIONS, _activation),
    **dict.fromkeys(POOLING, _winner),
    **dict.fromkeys(SUMMING, _summed),
    **dict.fromkeys(SCALING, _scaled),
    **dict.fromkeys(WITH_WEIGHTS, _layer),
    "IdentityN": _through,
    "Softmax": _softmax,
}
