"""Where a gradient that should arrive is cut off, and by which op."""

from __future__ import annotations

from collections.abc import Sequence

from gradtap.flow.rows import Finding
from gradtap.graph import explain, surgery, walking
from gradtap.graph.resolve import Place
from gradtap.graph.tracing import ForwardGraph
from gradtap.types import Tensor

#: Ops that TensorFlow gives a gradient of zeros.
_FLAT = "Sign"


def blocked(graph: ForwardGraph, places: Sequence[Place], score: Tensor) -> list[Finding]:
    """One finding for each group of ops that cuts taps off, at the last tap before them.

    Args:
      graph: The forward graph.
      places: Taps without a gradient, in forward order.
      score: What is differentiated.
    """
    needed = walking.ancestors([score])
    left = [p for p in places if p.weight is None and surgery.is_float(p.tensor) and p.tensor.op in needed]
    found: list[Finding] = []
    while left:
        place = left.pop()
        ops = explain.cuts(graph, place.tensor, score)
        before = walking.ancestors([given for op, _ in ops for given in op.inputs])
        same = [other for other in left if other.tensor.op in before]
        left = [other for other in left if other not in same]
        found.insert(0, _finding(place, [name for _, name in ops], {op.type for op, _ in ops}, len(same)))
    return found


def _finding(place: Place, names: Sequence[str], kinds: set[str], others: int) -> Finding:
    by = ", ".join(names) or "an op that TensorFlow cannot differentiate"
    more = f", nor at the {others} tap{'s' * (others > 1)} before it" if others else ""
    text = f"the target depends on `{place.key}`, and no gradient arrives there{more}: it stops at {by}."
    if kinds == {"StopGradient"}:
        return Finding(
            "blocked", place.key, text, "The model asks for it with stop_gradient: take it out if not meant."
        )
    if any("PyFunc" in kind for kind in kinds):
        remedy = "Write the Python code with TensorFlow or keras.ops; tf.py_function passes gradients on, too."
        return Finding("blocked", place.key, text, remedy)
    remedy = (
        "A differentiable op in its place (a softmax for an argmax), or a gradient of its own (tf.custom_gradient)."
    )
    return Finding("blocked", place.key, text, remedy)


def flat_after(graph: ForwardGraph, places: Sequence[Place], score: Tensor) -> dict[str, str]:
    """The last tap before each op that has a slope of 0 everywhere, and the op's name."""
    needed = walking.ancestors([score])
    forward = graph.graph.get_operations()[: graph.forward_ops]
    found = {}
    for op in [op for op in forward if op.type == _FLAT and op in needed]:
        before = walking.ancestors(op.inputs)
        last = next((p for p in reversed(places) if p.weight is None and p.tensor.op in before), None)
        if last is not None:
            found[last.key] = explain.named(graph, op)
    return found
