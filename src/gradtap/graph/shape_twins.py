"""Tensors of the same shape as others that cost more: where only the shape is read, the cheaper one will do.

The rules of gradients read the shapes of what they are given, to undo broadcasting. In a second derivative that is a
first derivative, whose values are often not needed at all: those of a network of ReLUs are not. With a batch of any
size the shape is not known before the run, and reading it from the tensor would have all of it computed.
"""

from __future__ import annotations

from collections.abc import Iterator

from gradtap.types import Operation, Tensor

#: Where `surgery.inside` adds ops.
_SCOPE = "gradtap/"
#: Ops that read the shapes of all their inputs, and no values.
_READERS = frozenset({"Shape", "ShapeN", "ZerosLike", "Size"})
#: Ops whose result has the shape of an input, and which: of several that have it the one that the forward pass made.
_LIKE_INPUT = {
    "AddN": 0,
    "EluGrad": 1,
    "Identity": 0,
    "LeakyReluGrad": 1,
    "MaxPoolGrad": 0,
    "Neg": 0,
    "Relu6Grad": 1,
    "ReluGrad": 1,
    "SeluGrad": 1,
    "SigmoidGrad": 0,
    "SoftplusGrad": 1,
    "SoftsignGrad": 1,
    "TanhGrad": 0,
}
#: Ops that are told the shape of their result, and by which input.
_TOLD = {"AvgPoolGrad": 0, "BroadcastTo": 1, "Conv2DBackpropInput": 0, "Fill": 0, "Reshape": 1}
#: Ops that broadcast.
_BROADCASTING = frozenset({"AddV2", "Mul", "RealDiv", "Sub"})


def of_inputs(op: Operation) -> Iterator[tuple[int, Tensor]]:
    """The inputs of an op that it only reads the shapes of, by position, each as another tensor of that shape."""
    if op.type in _READERS:
        for position, tensor in enumerate(op.inputs):
            twin = _twin(tensor)
            if twin is not tensor and twin.dtype == tensor.dtype:
                yield position, twin


def _twin(tensor: Tensor) -> Tensor:
    """A tensor of the same shape as far back as gradients go; the tensor itself where none is known.

    No further: what a model's own ops were given may stand before a tap, where nothing is to be looked at.
    """
    while (before := _before(tensor)) is not None:
        tensor = before
    return tensor


def _before(tensor: Tensor) -> Tensor | None:
    op = tensor.op
    if not op.name.startswith(_SCOPE):
        return None
    if op.type in _LIKE_INPUT:
        return op.inputs[_LIKE_INPUT[op.type]]
    if op.type in _TOLD:
        return _shape_of(op.inputs[_TOLD[op.type]])
    if op.type in _BROADCASTING:
        pairs = (op.inputs, reversed(op.inputs))
        return next((wide for wide, other in map(tuple, pairs) if _fits_into(other, wide)), None)
    return _summed(op) if op.type == "Sum" else None


def _summed(op: Operation) -> Tensor | None:
    """Where what was broadcast is summed up again, what it was before; unless it had fewer axes."""
    axes = op.inputs[1]
    if not op.get_attr("keep_dims") or axes.op.type != "BroadcastGradientArgs":
        return None
    before = _shape_of(axes.op.inputs[axes.value_index])
    return before if before is not None and before.shape.rank == op.outputs[0].shape.rank else None


def _shape_of(shape: Tensor) -> Tensor | None:
    """The tensor whose shape this is; None where it is computed in another way."""
    return shape.op.inputs[shape.value_index] if shape.op.type in ("Shape", "ShapeN") else None


def _fits_into(tensor: Tensor, wide: Tensor) -> bool:
    """Whether a tensor broadcasts to the shape of another, whatever the sizes that are not known."""
    if None in (tensor.shape.rank, wide.shape.rank) or tensor.shape.rank > wide.shape.rank:
        return False
    sizes = zip(reversed(tensor.shape.as_list()), reversed(wide.shape.as_list()), strict=False)
    return all(own == 1 or (own is not None and own == size) for own, size in sizes)
