"""Why there is no gradient: each cause found in the graph and said in its own words."""

from __future__ import annotations

import re

from gradtap import errors
from gradtap.graph import surgery, walking
from gradtap.graph.scores import shape_text
from gradtap.graph.tracing import ForwardGraph, TracedLayer
from gradtap.types import Operation, Tensor

_ZERO = 'unconnected="zero" if zeros are what you mean'


def not_run(graph: ForwardGraph, layer: TracedLayer, written: str) -> errors.TapNotRunError:
    """The layer is part of the model, but the traced forward pass holds no call of it."""
    if layer.path in graph.elsewhere:
        outer = next((p for p in _parents(layer.path) if p in graph.calls and p not in graph.elsewhere), "")
        return errors.TapNotRunError(
            f"`{layer.path}` ({layer.kind}) runs inside a loop or a branch of the graph: it has no tensor to tap.",
            [("it runs in", f"`{outer}`" if outer else "a loop or branch of the model's own code")],
            [f"tap `{outer}` instead" if outer else "tap the model's `:output`, or a layer that runs after it"],
        )
    return errors.TapNotRunError(
        f"`{layer.path}` ({layer.kind}) did not run in this forward pass (training={graph.training}).",
        [("asked as", f"`{written}`")],
        [
            f"training={not graph.training} if it runs only then",
            "gt.taps(model, inputs) shows which layers run, and how often",
        ],
    )


def integer(
    graph: ForwardGraph, address: str, tensor: Tensor, layer: TracedLayer | None, keyword: str = "at"
) -> errors.IntegerTapError:
    """The tapped tensor holds integers: its embedding is where gradients, and paths, begin."""
    kind, where = _first_float_layer(graph, tensor)
    remedy = (
        f"tap its embedding: `{where}`" if kind == "Embedding" else f"tap the layer that makes floats of it: `{where}`"
    )
    if keyword != "at" and where:
        remedy = f'{keyword}="{where}": the path runs there, in the space of its activations'
    return errors.IntegerTapError(
        f"`{address}` holds {tensor.dtype.name}{_of(layer)}, which has no gradient.",
        [
            ("tensor", f"{shape_text(tensor)}, {tensor.dtype.name}"),
            ("why", "a gradient needs values that can change a little"),
        ],
        remedy if where else "tap what the model computes from it in floats",
    )


def in_short(tensor: Tensor, needed: set[Operation]) -> str:
    """Why a place that a pattern fits is left out; ``needed`` are the ops that the score depends on."""
    if not surgery.is_float(tensor):
        return f"it holds {tensor.dtype.name}, which has no gradient"
    return "the gradient stops on the way to it" if tensor.op in needed else "the target does not depend on it"


def unconnected(
    graph: ForwardGraph,
    address: str,
    tensor: Tensor,
    layer: TracedLayer | None,
    score: Tensor,
    target: str,
    keyword: str = "target",
) -> errors.UnconnectedTapError:
    """The score has no gradient at the tap: on another branch, or cut on the way.

    Args:
      graph: The forward graph that holds the score.
      address: The tap, as it was asked for.
      tensor: The tap's tensor.
      layer: The tap's layer.
      score: What is differentiated.
      target: What it is called in messages.
      keyword: Which keyword it was given under.
    """
    side = address.partition(":")[2].partition(".")[0] or "output"
    described = f"`{address}`{_of(layer, tensor, side)}"
    needed, followed = walking.ancestors([score]), _followed(score)
    comes_after = tensor.op in walking.descendants(_read_by_score(followed))
    if tensor.op not in needed or (tensor.op not in followed and comes_after):
        return _other_branch(graph, described, tensor, followed, (keyword, target), comes_after)
    try:
        stopped = _cuts(tensor, score, needed & walking.descendants([tensor]))
        do = ["tap a layer after it", _ZERO]
    except LookupError as error:
        # What TensorFlow has no rule for is no zero: nobody knows what flows there.
        stopped = _without_rule(graph, error)
        do = ["tap a layer after it", "give the op a gradient with tf.custom_gradient"]
    ops = ", ".join(named(graph, op) for op in stopped) or "an op that TensorFlow cannot differentiate"
    if any(op.type == "StopGradient" for op in stopped):
        do.insert(0, "the model asks for this itself with stop_gradient; take it out if it is not meant")
    if any("PyFunc" in op.type for op in stopped):
        do.insert(0, "write the Python code with TensorFlow or keras.ops; tf.py_function passes gradients on, too")
    return errors.NonDifferentiableError(
        f"{_subject(keyword, target)} depends on {described}, but the gradient stops on the way: {ops}.",
        [(keyword, target), ("cut at", "\n".join(f"{op.type} `{op.name}`" for op in stopped))],
        do,
    )


def _other_branch(
    graph: ForwardGraph,
    described: str,
    tensor: Tensor,
    followed: set[Operation],
    asked: tuple[str, str],
    comes_after: bool,
) -> errors.UnconnectedTapError:
    feeds = [
        name
        for name, output in zip(graph.output_names, graph.outputs, strict=True)
        if tensor.op in walking.ancestors([output])
    ]
    keyword, target = asked
    do = [_ZERO]
    several = len(graph.outputs) > 1
    fed = f"output {', '.join(f'`{n}`' for n in feeds)}" if several else "the output"
    if not feeds:
        where = "is not on it: nothing that is returned uses it"
    elif comes_after:
        where = f"comes after what is differentiated, on the way to {fed}"
        leave = ", or leave out logits=True" if "logits=True" in target else ""
        do.insert(0, f"tap an earlier layer or a `:preactivation`{leave}")
    elif several:
        where = f"is not on it: it feeds {fed} only"
        by_class = f'target=gt.targets.class_score(k, output="{feeds[0]}")'
        do.insert(0, by_class if keyword == "target" else f'{keyword}=":output.{feeds[0]}"')
    elif followed.isdisjoint({feed.op for feed in graph.feeds}):
        where = "is not on it: the target uses nothing that the model computes from its inputs"
        do.insert(0, "a target is computed from the outputs that it is given")
    else:
        where = "is not on it: it goes to the output by another way"
        do.insert(0, "tap a layer on its path")
    return errors.UnconnectedTapError(
        f"{_subject(keyword, target)} does not depend on {described}.",
        [(keyword, target), ("its path", _path(graph, followed)), ("the tap", where)],
        do,
    )


def _subject(keyword: str, target: str) -> str:
    return "the target" if keyword == "target" else target


def _followed(score: Tensor) -> set[Operation]:
    """The ops that a score depends on otherwise than by the choice of a class, which nothing flows through."""
    chosen = [o for op in walking.ancestors([score]) if op.type == "ArgMax" and _is_of_score(op) for o in op.outputs]
    return walking.ancestors([score], up_to=chosen)


def _read_by_score(followed: set[Operation]) -> list[Tensor]:
    """The tensors of the forward pass that a score is computed from."""
    return [i for op in followed if _is_of_score(op) for i in op.inputs if not _is_of_score(i.op)]


def _is_of_score(op: Operation) -> bool:
    """Whether an op was added for a target, and is no copy of a tensor of the forward pass."""
    return str(op.name).startswith("gradtap/") and not str(op.name).startswith("gradtap/own_")


def _path(graph: ForwardGraph, followed: set[Operation]) -> str:
    """The outermost layers that a score depends on, in the order they ran."""
    position = {op: i for i, op in enumerate(graph.graph.get_operations())}
    kinds = {layer.path: layer.kind for layer in graph.layers}
    steps: dict[str, tuple[int, str]] = {}
    for path, calls in graph.calls.items():
        inner_input = "/" in path and kinds.get(path) == "InputLayer"
        outputs = [position[o.op] for call in calls for o in call.outputs if o.op in followed]
        inside = [c.preactivation.op for c in calls if c.preactivation is not None]
        before = [position[op] for op in inside if op in followed]
        if path and not inner_input and (outputs or before):
            steps[path] = (min(outputs), path) if outputs else (min(before), f"{path}:preactivation")
    names = [
        name
        for path, (_, name) in sorted(steps.items(), key=lambda step: step[1])
        if not any(outer in steps for outer in _parents(path))
    ]
    if len(names) > 7:
        names = [*names[:3], "...", *names[-3:]]
    return " -> ".join(names) or "no layer at all"


def cuts(graph: ForwardGraph, tensor: Tensor, score: Tensor) -> list[tuple[Operation, str]]:
    """The ops at which the gradient of a score stops on its way to a tensor that the score depends on.

    Returns:
      Each op, with its name as messages show it: what it does and which layer it belongs to.
    """
    try:
        found = _cuts(tensor, score, walking.ancestors([score]) & walking.descendants([tensor]))
    except LookupError as error:
        found = _without_rule(graph, error)
    return [(op, named(graph, op)) for op in found]


def named(graph: ForwardGraph, op: Operation) -> str:
    """What an op does, and which layer it belongs to."""
    return f"{_op_text(op)} in {_owner(graph, op)}"


def _cuts(tensor: Tensor, score: Tensor, between: set[Operation]) -> list[Operation]:
    """The ops between tap and score whose output gets a gradient and whose input does not."""
    floats = [t for op in between for t in op.outputs if surgery.is_float(t)]
    reached = {id(t) for t, g in zip(floats, surgery.differentiate(score, floats), strict=True) if g is not None}
    ends = [
        op
        for op in between
        if any(o is score or id(o) in reached for o in op.outputs)
        and any(i is tensor or i.op in between for i in op.inputs)
        and not any(id(i) in reached for i in op.inputs if i is tensor or i.op in between)
    ]
    return sorted({_float_to_integer(op, tensor, between) for op in ends}, key=lambda op: op.name)


def _without_rule(graph: ForwardGraph, error: LookupError) -> list[Operation]:
    """The op that TensorFlow names where it has no gradient for its type."""
    named = re.search(r"operation ?'([^']+)'", str(error))
    return [op for op in graph.graph.get_operations() if named is not None and op.name == named[1]]


def _float_to_integer(op: Operation, tensor: Tensor, between: set[Operation]) -> Operation:
    """Where a cut op takes integers, the op that made integers of floats is to blame: the ArgMax, not the OneHot."""
    while True:
        inputs = [i for i in op.inputs if i is tensor or i.op in between]
        if any(surgery.is_float(i) or i is tensor for i in inputs):
            return op
        op = inputs[0].op


def _op_text(op: Operation) -> str:
    if op.type == "Cast":
        return f"Cast to {op.outputs[0].dtype.name}"
    return "PyFunction" if "PyFunc" in op.type else str(op.type)


def _owner(graph: ForwardGraph, op: Operation) -> str:
    """The innermost layer whose call made an op."""
    if op.name.startswith("gradtap/"):
        return "the target"
    position = {o: i for i, o in enumerate(graph.graph.get_operations())}[op]
    holders = [
        (call.last_op - call.first_op, path)
        for path, calls in graph.calls.items()
        for call in calls
        if path and call.first_op <= position < call.last_op
    ]
    return f"`{min(holders)[1]}`" if holders else "the model's own code"


def _first_float_layer(graph: ForwardGraph, tensor: Tensor) -> tuple[str, str]:
    """Kind and path of the embedding of an integer tensor, or of the first layer after it that returns floats."""
    below = walking.descendants([tensor])
    found = [
        (layer.kind != "Embedding", call.first_op, layer.kind, layer.path)
        for layer in graph.layers
        for call in graph.calls.get(layer.path, [])
        if layer.path and any(o.op in below and surgery.is_float(o) for o in call.outputs)
    ]
    return min(found)[2:] if found else ("", "")


def _of(layer: TracedLayer | None, tensor: Tensor | None = None, side: str = "output") -> str:
    facts = [layer.kind] if layer and layer.kind else []
    if tensor is not None:
        facts += [f"{side if layer else 'shape'} {shape_text(tensor)}", tensor.dtype.name]
    return f" ({', '.join(facts)})" if facts else ""


def _parents(path: str) -> list[str]:
    names = path.split("/")
    return ["/".join(names[:i]) for i in range(len(names) - 1, 0, -1)]
