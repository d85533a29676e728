"""Graph surgery: the only file that reaches into TensorFlow's private graph calls.

A traced forward pass is a `FuncGraph`. It may be extended (a backward graph is added to it) and cut (a callable is
pruned from it that holds nothing but the ops between some feeds and some fetches).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, TypeVar

import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow.python.autograph.core import converter
from tensorflow.python.autograph.impl import api as autograph
from tensorflow.python.eager import wrap_function
from tensorflow.python.eager.polymorphic_function import polymorphic_function
from tensorflow.python.framework import convert_to_constants, func_graph
from tensorflow.python.framework import ops as ops_of_python
from tensorflow.python.ops import handle_data_util

from gradtap.graph import custom_gradients, moments, second_rules, shape_twins
from gradtap.graph.bodies import give_names_of_their_own, with_inner
from gradtap.types import Compiled, Operation, Structure, Tensor

#: Where a marked op keeps the name of a gradient of its own.
_OWN_GRADIENT = "_gradtap_own_gradient"

_Function = TypeVar("_Function", bound=Callable[..., Any])


def unconverted(function: _Function) -> _Function:
    """Keep AutoGraph out of a public function that is called inside of a user's `tf.function`.

    It would rewrite everything that the function calls, all of gradtap, which takes seconds and changes nothing. This
    is the mark that `tf.autograph.experimental.do_not_convert` leaves, without the wrapper that hides the function.
    """
    autograph.autograph_artifact(function)
    return function


def wrap(function: Callable[..., Structure], specs: Sequence[Any]) -> Any:
    """Run a Python function once into a graph of its own.

    Args:
      function: Called with one symbolic tensor for each spec.
      specs: A `tf.TensorSpec` for each argument.

    Returns:
      A `WrappedFunction`: its ``.graph`` can be extended and its ``.prune`` cuts callables from it.
    """
    wrapped = tf.compat.v1.wrap_function(function, list(specs))
    # The holder keeps the Python function, and with it the model that it closes over, for functions that make
    # variables. Ours makes none.
    wrapped._variable_holder._fn = None
    wrapped.stand_ins = {}
    mark(filter(moments.is_mean, with_inner(wrapped.graph.get_operations())), moments.GRADIENT)
    return wrapped


def op_like(op: Operation, inputs: Sequence[Tensor]) -> Operation:
    """The same op on other inputs, in the graph that is being built, with the gradient of its type."""
    attrs = {name: value for name, value in op.node_def.attr.items() if not name.startswith("_")}
    graph = tf.compat.v1.get_default_graph()
    return graph.create_op(op.type, list(inputs), [t.dtype for t in op.outputs], attrs=attrs, op_def=op.op_def)


def registered_gradient(op_type: str) -> Callable[..., Any]:
    """TensorFlow's own gradient of a type of op.

    Raises:
      LookupError: It has none.
    """
    found: Callable[..., Any] = ops_of_python.gradient_registry.lookup(op_type)
    return found


def mark(ops: Iterable[Operation], gradient: str, *, keep_own: bool = False) -> None:
    """Give ops a registered gradient in the place of their type's.

    Args:
      ops: The ops.
      gradient: The name under which it is registered.
      keep_own: Write down the gradient that an op had of its own, a `tf.custom_gradient`, for `own_gradient`.
    """
    for op in ops:
        had = op.node_def.attr.get("_gradient_op_type") if keep_own else None
        if had is not None and had.s.decode() != gradient:
            op._set_attr(_OWN_GRADIENT, had)
        op._set_attr("_gradient_op_type", tf.compat.v1.AttrValue(s=gradient.encode()))


def own_gradient(op: Operation) -> Callable[..., Any]:
    """The gradient that a marked op has without the mark."""
    had = op.node_def.attr.get(_OWN_GRADIENT)
    return registered_gradient(op.type if had is None else had.s.decode())


def prune(wrapped: Any, feeds: Sequence[Tensor], fetches: Sequence[Tensor]) -> Compiled:
    """A callable of just the ops between feeds and fetches.

    Args:
      wrapped: The traced function.
      feeds: Tensors of its graph, the callable's positional arguments. Everything before a feed is gone.
      fetches: Tensors of its graph, what the callable returns, in this order.

    Returns:
      A compiled function, as fast as a hand-written `tf.function` of the same ops; it may be called inside another
      `tf.function`, and differentiated by an outer tape.
    """
    graph = wrapped.graph
    with inside(graph):
        # A tensor that is fed and fetched, or fetched twice, would lose its place: each fetch gets an op of its own.
        fetches = [tf.identity(fetch) for fetch in fetches]
    pruned = wrap_function.WrappedFunction(_part_of(wrapped, feeds, fetches), wrapped._variable_holder)

    def run(*tensors: Tensor) -> Any:
        # The public call first tries to bind the arguments by name, fails, and prints every array into the message of
        # an error that it then drops: 15 ms for an image.
        return pruned._call_flat(list(tensors), pruned.captured_inputs)

    return run


#: Ops that hand on what a variable is known by; the reader of a `GraphDef` forgets of what shape it is, and no
#: persistent tape could follow the loop of a recurrent layer.
_LOOPS_AND_BRANCHES = frozenset({"While", "StatelessWhile", "If", "StatelessIf"})


def _part_of(wrapped: Any, feeds: Sequence[Tensor], fetches: Sequence[Tensor]) -> Any:
    """A graph of its own with the ops between feeds and fetches, and those captures that they use.

    It goes by way of a `GraphDef`, which C++ reads. `WrappedFunction.prune` copies op by op in Python and takes about
    four times as long.
    """
    graph = wrapped.graph
    cut = {tensor.ref() for tensor in [*feeds, *graph.internal_captures]}
    needed = _needed(fetches, cut)
    if any(op.type == "Placeholder" and op.outputs[0].ref() not in cut for op in needed):
        needed = _needed(fetches, cut, with_control=False)  # a check of the inputs, which are not fed
    read = {tensor.ref() for op in needed for tensor in op.inputs} & cut
    part = func_graph.FuncGraph("gradtap")
    with part.as_default():
        given = [tf.compat.v1.placeholder(t.dtype, t.shape, f"gradtap_fed_{i}") for i, t in enumerate(feeds)]
        fed = {tensor.ref(): own for tensor, own in zip(feeds, given, strict=True)}
        for i, (external, internal) in enumerate(graph.captures):
            if internal.ref() in read and internal.ref() not in fed:
                read_instead = wrapped.stand_ins.get(id(external), external)
                fed[internal.ref()] = part.capture(read_instead, name=f"gradtap_captured_{i}")
        for function in graph._functions.values():
            part._add_function(function)
        names = {reference.deref().name: own for reference, own in fed.items() if reference in read}
        nodes = tf.compat.v1.GraphDef(versions=graph.graph_def_versions, node=_node_defs(wrapped, needed, part))
        wanted = [fetch.name for fetch in fetches]
        part.outputs = list(tf.graph_util.import_graph_def(nodes, names, wanted, name="")) if nodes.node else []
    for op in needed:
        for handle in op.outputs if op.type in _LOOPS_AND_BRANCHES else ():
            handle_data_util.copy_handle_data(handle, part.get_tensor_by_name(handle.name))
    for output, fetch in zip(part.outputs, fetches, strict=True):
        output.set_shape(fetch.shape)  # Python code may have known more than an op by itself
    part.inputs = [*given, *part.internal_captures]
    part.structured_outputs = list(part.outputs)
    part.variables = graph.variables
    return part


def _needed(fetches: Iterable[Tensor], cut: set[Any], *, with_control: bool = True) -> list[Operation]:
    """The ops that some tensors depend on, by control as well, back to those that are given."""
    seen: dict[Operation, None] = {}
    given = {reference.deref().op for reference in cut}
    stack = [fetch.op for fetch in fetches]
    while stack:
        op = stack.pop()
        if op not in seen:
            seen[op] = None
            stack += [tensor.op for tensor in op.inputs if tensor.ref() not in cut]
            stack += [before for before in op.control_inputs if before not in given] if with_control else []
    return list(seen)


def _node_defs(wrapped: Any, ops: Sequence[Operation], copied_into: Any) -> list[Any]:
    """Descriptions of ops, without the wish to stand beside, or to follow, an op that is not among them."""
    names = {op.name for op in ops}
    found = [op.node_def for op in ops]
    for op, node in zip(ops, found, strict=True):
        followed = [name for name in node.input if not name.startswith("^") or name[1:] in names]
        if len(followed) < len(node.input):
            node.input[:] = followed
        own = node.attr.get(_OWN_GRADIENT) or node.attr.get("_gradient_op_type")
        custom_gradients.refer_to_source(wrapped, op, node, copied_into, own.s.decode() if own else None)
        beside = [value.decode().removeprefix("loc:@") for value in node.attr["_class"].list.s]
        if not beside or not names.issuperset(beside):
            del node.attr["_class"]
    return found


@contextmanager
def inside(graph: Any) -> Iterator[None]:
    """Add ops to a traced graph, in a name scope that no layer has."""
    with graph.as_default(), tf.name_scope("gradtap/"):
        yield


def current_graph() -> Any:
    """The graph that the calling thread is building; None where it runs eagerly."""
    return None if tf.executing_eagerly() else tf.compat.v1.get_default_graph()


def is_inside(inner: Any, outer: Any) -> bool:
    """Whether a graph is the body of a loop or a branch of another, not one that Keras makes to infer shapes."""
    while inner is not None and inner is not outer:
        if "keras_graph" in inner.name or "scratch_graph" in inner.name:
            return False
        inner = getattr(inner, "outer_graph", None)
    return inner is outer


def op_count(graph: Any) -> int:
    """How many ops a graph has, at constant cost."""
    return int(graph.version)


def is_whole(graph: Any) -> bool:
    """Whether no gradient was stopped half way through a loop of the graph."""
    return bool(getattr(graph, "gradtap_is_whole", True))


def differentiate(
    score: Tensor | list[Tensor],
    tensors: Sequence[Tensor],
    *,
    along: list[Tensor] | None = None,
    order: int = 1,
    apart: bool = False,
) -> list[Tensor | None]:
    """Add the backward graph of ``sum(score)`` to the score's graph, once for all tensors.

    Args:
      score: What is differentiated.
      tensors: With respect to what.
      along: What each score is multiplied with before it is summed, of its shape; held, whatever it depends on.
      order: 2 where the score holds first derivatives; see `gradtap.graph.moments`.
      apart: Take the partial derivative at each tensor while the others are held, though one may depend on another.

    Returns:
      A dense tensor for each of ``tensors``, or None where no gradient arrives.
    """
    graph = (score[0] if isinstance(score, list) else score).graph
    before = op_count(graph)
    # A gradient changes the loops that it goes through, in several steps. What was stopped between two of them leaves a
    # graph of which nothing more can be asked.
    graph.gradtap_is_whole = not give_names_of_their_own(graph.get_operations())
    with inside(graph), moments.first_order() if order == 1 else nullcontext():
        held = list(tensors) if apart else None
        gradients = tf.gradients(score, list(tensors), grad_ys=along, stop_gradients=held)
        graph.gradtap_is_whole = True
        # A gather's gradient comes as slices; what a caller sees is always dense.
        dense = [None if g is None else tf.convert_to_tensor(g) for g in gradients]
    added = graph.get_operations()[before:]
    for op in with_inner(added):
        if op.type in second_rules.RULES:
            mark([op], second_rules.RULES[op.type])
    if order > 1:
        for op in added:
            for position, twin in shape_twins.of_inputs(op):
                op._update_input(position, twin)
    return dense


def vectorised_gradients(value: Tensor, tensors: Sequence[Tensor], rows: Tensor) -> list[Tensor]:
    """Vector-Jacobian products of one value for many cotangents at once: one forward pass, a vectorised backward one.

    Args:
      value: What is differentiated, ``(batch, ...)``.
      tensors: With respect to what.
      rows: ``(rows, ...)``, each a cotangent for every example.

    Returns:
      ``(rows, batch, ...)`` for each of ``tensors``.
    """

    def one(row: Tensor) -> list[Tensor]:
        cotangent = tf.broadcast_to(row[None], tf.shape(value))
        slopes = tf.gradients(value, list(tensors), grad_ys=cotangent)
        return [
            tf.zeros_like(t) if s is None else tf.convert_to_tensor(s) for t, s in zip(tensors, slopes, strict=True)
        ]

    give_names_of_their_own(value.graph.get_operations())
    with inside(value.graph), moments.first_order():
        return list(tf.vectorized_map(one, rows))


def opened(function: Any, owner: Any = None) -> Callable[..., Any]:
    """The Python function behind a `tf.function`, so that its ops come to stand in the graph that is being built.

    Called as it is, a `tf.function` would be one op, with a graph of its own in which nothing can be tapped.

    Args:
      function: Anything that is called; what is no `tf.function` is given back.
      owner: The object that it is a method of, where it was taken from the class.
    """
    inner = getattr(function, "python_function", None)
    if inner is None:
        return function if owner is None else functools.partial(function, owner)
    options = converter.ConversionOptions(recursive=True, user_requested=True)
    by_autograph = bool(getattr(function, "_autograph", True))

    def call(*args: Any, **kwargs: Any) -> Any:
        given = args if owner is None else (owner, *args)
        if not by_autograph:
            return inner(*given, **kwargs)
        # What a `tf.function` does with its Python function, without making a graph of its own for it.
        return autograph.converted_call(inner, given, kwargs, options=options)

    return call


@contextmanager
def functions_opened(applies: Callable[[], bool]) -> Iterator[None]:
    """Let every `tf.function` that is called meanwhile be the Python function behind it.

    Args:
      applies: Whether a call is meant; for others, of other threads, nothing changes.
    """
    original = polymorphic_function.Function.__call__

    def call(function: Any, *args: Any, **kwargs: Any) -> Any:
        return opened(function)(*args, **kwargs) if applies() else original(function, *args, **kwargs)

    polymorphic_function.Function.__call__ = call
    try:
        yield
    finally:
        polymorphic_function.Function.__call__ = original


def inline(function: Any, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Put the ops of a concrete function, and of the functions that it calls, into the graph that is being built.

    Args:
      function: A signature of a SavedModel. Its variables are captured, not frozen.
      inputs: Its inputs by name.

    Returns:
      Its outputs by name.
    """
    graph = tf.compat.v1.get_default_graph()
    opened = convert_to_constants._run_inline_graph_optimization(function, False, False)
    known = {node.name for node in opened.node}
    named = {placeholder.op.name: inputs[name] for name, placeholder in _named_inputs(function).items()}
    captured = {internal.op.name: graph.capture(external) for external, internal in function.graph.captures}
    placeholders = {f"{name}:0": tensor for name, tensor in {**named, **captured}.items() if name in known}
    outputs = dict(sorted(function.structured_outputs.items()))
    # The outputs in the order in which the function gives them, flattened.
    fetched = tf.graph_util.import_graph_def(
        opened, input_map=placeholders, return_elements=[output.name for output in function.outputs], name=""
    )
    for tensor, known_as in zip(fetched, function.outputs, strict=True):
        tensor.set_shape(known_as.shape)  # Python code may have known more than an op by itself, such as a look-up
    return dict(zip(outputs, fetched, strict=True))


def _named_inputs(function: Any) -> dict[str, Tensor]:
    names = [spec.name for spec in function.structured_input_signature[1].values()]
    own = function.inputs[: len(function.inputs) - len(function.graph.captures)]
    by_name = {placeholder.op.name: placeholder for placeholder in own}
    if set(names) <= set(by_name):
        return {key: by_name[spec.name] for key, spec in function.structured_input_signature[1].items()}
    return dict(zip(sorted(function.structured_input_signature[1]), own, strict=True))


def without_optimizer_slots(description: bytes) -> bytes | None:
    """A SavedModel's description without the slots of an optimizer; None where it has none.

    Args:
      description: The content of ``saved_model.pb``.
    """
    saved = saved_model_pb2.SavedModel()
    saved.ParseFromString(description)
    nodes = [node for meta in saved.meta_graphs for node in meta.object_graph_def.nodes if node.slot_variables]
    for node in nodes:
        del node.slot_variables[:]
    content: bytes = saved.SerializeToString()
    return content if nodes else None


def replace_input(users: Iterable[Operation], old: Tensor, new: Tensor) -> None:
    """Make ops that were given one tensor take another."""
    for op in users:
        for position, given in enumerate(op.inputs):
            if given is old:
                op._update_input(position, new)


def is_float(tensor: Tensor) -> bool:
    """Whether a tensor is of a type that gradients flow through."""
    return bool(tensor.dtype.is_floating or tensor.dtype.is_complex)
