"""Addresses in a graph without layers: the names of its ops, and scopes of them."""

from __future__ import annotations

from gradtap import errors
from gradtap.graph import surgery, walking
from gradtap.graph.tracing import ForwardGraph
from gradtap.tap import Tap, path_matches
from gradtap.types import Operation, Tensor


def model_ops(graph: ForwardGraph) -> list[Operation]:
    """The ops on the way from the inputs to the outputs, in forward order."""
    wanted = walking.descendants(graph.feeds) & walking.ancestors(graph.outputs)
    return [op for op in graph.graph.get_operations() if op in wanted and op.type not in ("Identity", "NoOp")]


def float_tensors(graph: ForwardGraph) -> list[Tensor]:
    """What of a graph without layers can be tapped: the float tensors that depend on the inputs."""
    return [tensor for op in model_ops(graph) for tensor in op.outputs if surgery.is_float(tensor)]


def tensors_named(graph: ForwardGraph, tap: Tap, written: str) -> list[Tensor]:
    """The tensors that a path means: an op's, by its name or a unique tail of it, or what leaves a scope.

    Raises:
      UnknownTapError: No op or scope has this name.
      AmbiguousTapError: Several ops have a name that ends so.
    """
    ops = {op.name: op for op in graph.graph.get_operations() if not op.name.startswith("gradtap/")}
    if tap.is_pattern:
        return [t for t in float_tensors(graph) if path_matches(tap.path, t.op.name)]
    if tap.path in ops:
        return [_output(ops[tap.path], tap, written)]
    tails = [op for name, op in ops.items() if name.endswith(f"/{tap.path}")]
    if len(tails) == 1:
        return [_output(tails[0], tap, written)]
    if tails:
        raise errors.AmbiguousTapError(
            f"`{written}` fits {len(tails)} ops.",
            [("they are", ", ".join(f"`{op.name}`" for op in tails[:8]))],
            "write more of the name",
        )
    leaving = _leaving_scope(graph, tap.path)
    if leaving:
        return leaving
    close = errors.nearest(tap.path, [t.op.name for t in float_tensors(graph)])
    raise errors.UnknownTapError(
        f"no op or scope `{tap.path}`" + (f" (asked as `{written}`)" if written != tap.path else "") + " in the graph.",
        [("nearest", close)] if close else [],
        "gt.taps(model, inputs) lists the ops, in forward order",
    )


def _output(op: Operation, tap: Tap, written: str) -> Tensor:
    number = tap.face if tap.face.isdigit() else tap.pick or "0"
    index = int(number) if number.isdigit() else 0
    if index >= len(op.outputs):
        raise errors.SideError(
            f"`{written}`: the op has {len(op.outputs)} outputs.", [("op", f"{op.type}")], "count from 0"
        )
    return op.outputs[index]


def _leaving_scope(graph: ForwardGraph, scope: str) -> list[Tensor]:
    """The float tensors made in a scope that are used outside of it, or returned."""
    inner = [op for op in model_ops(graph) if f"/{op.name}/".find(f"/{scope}/") >= 0]
    members = set(inner)
    returned = {id(walking.same_value_source(output)) for output in graph.outputs}
    return [
        tensor
        for op in inner
        for tensor in op.outputs
        if surgery.is_float(tensor)
        and (id(tensor) in returned or any(user not in members for user in tensor.consumers()))
    ]
