"""What a run is made of, as JSON that is the same in another process: the model, the arguments, the versions."""

from __future__ import annotations

import dataclasses
import dis
import functools
import hashlib
import inspect
import platform
from collections.abc import Mapping, Sequence
from importlib import metadata
from types import CodeType, FunctionType
from typing import Any

import numpy as np
import tensorflow as tf

import gradtap
from gradtap.graph.tracing import ForwardGraph
from gradtap.graph.walking import ancestors

#: Attributes of ops that name things and compute nothing.
_NAMES = ("container", "shared_name", "debug_name")
_DEPTH = 4


def model_facts(kind: str, graph: ForwardGraph) -> dict[str, Any]:
    """What tells one model from another: the ops of its forward pass, and the values of its weights.

    Names count for nothing, as Keras numbers layers as they are made.

    Args:
      kind: The name of its class.
      graph: Its forward pass, traced for the inputs of the run.
    """
    needed = {op.name for op in ancestors(graph.outputs)}
    described = graph.graph.as_graph_def()
    functions = {function.signature.name: function for function in described.library.function}
    nodes = [node for node in described.node if node.name in needed]
    structure = _nodes_digest(nodes, {}, functions)
    weights, count = hashlib.sha256(), 0
    by_handle = {id(variable.handle): variable for variable in graph.graph.variables}
    handles = [id(outside) for outside, _ in graph.graph.captures]  # in the order of the model's code
    for handle in filter(by_handle.__contains__, handles):
        value = by_handle[handle].numpy()
        count += value.size
        weights.update(f"{value.shape} {value.dtype.name}".encode())
        weights.update(np.ascontiguousarray(value).view(np.uint8).data if value.size else b"")
    return {"class": kind, "structure": structure, "weights": weights.hexdigest()[:32], "parameters": count}


def _nodes_digest(nodes: Sequence[Any], known: dict[str, str], functions: Mapping[str, Any]) -> str:
    """A digest of ops and of how they hang together, whatever they are called.

    Args:
      nodes: The ops, in the order they were made.
      known: What else may be an input, by name.
      functions: The bodies of loops and branches, by name.
    """
    numbers = known | {node.name: str(i) for i, node in enumerate(nodes)}
    found = hashlib.sha256()
    for node in nodes:
        found.update(node.op.encode())
        for given in node.input:
            name, _, rest = given.removeprefix("^").partition(":")
            found.update(f" {'^' if given[0] == '^' else ''}{numbers.get(name, name)}:{rest}".encode())
        for name in sorted(node.attr):
            if not name.startswith("_") and name not in _NAMES:
                found.update(name.encode() + _attribute(node.attr[name], functions))
    return found.hexdigest()[:32]


def _attribute(value: Any, functions: Mapping[str, Any]) -> bytes:
    called = [value.func] if value.HasField("func") else list(value.list.func)
    if not called:
        return bytes(value.SerializeToString(deterministic=True))
    return " ".join(_function_digest(functions[f.name], functions) for f in called if f.name in functions).encode()


def _function_digest(function: Any, functions: Mapping[str, Any]) -> str:
    known = {argument.name: f"argument {i}" for i, argument in enumerate(function.signature.input_arg)}
    body = _nodes_digest(function.node_def, known, {k: v for k, v in functions.items() if v is not function})
    numbers = known | {node.name: str(i) for i, node in enumerate(function.node_def)}
    returned = [function.ret[argument.name].partition(":") for argument in function.signature.output_arg]
    return body + " ".join(f"{numbers.get(name, name)}{rest}" for name, _, rest in returned)


def described(value: Any, depth: int = _DEPTH) -> Any:
    """A value as JSON that is the same for equal values in any process; large ones by a digest.

    Args:
      value: A number, text, an array, a nest of these, a function, or an object made of them.
      depth: How far objects inside of objects are followed.

    Example:
      >>> described({"a": (1, 2.5), "b": None})
      {'a': [1, 2.5], 'b': None}
    """
    if value is None or isinstance(value, (bool, int, float, str, np.generic)):
        return value.item() if isinstance(value, np.generic) else value
    if isinstance(value, (np.ndarray, tf.Tensor, tf.Variable)):
        array = np.asarray(value)
        digest = hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()[:32]
        return {"array": list(array.shape), "dtype": array.dtype.name, "digest": digest}
    if isinstance(value, Mapping):
        return {str(key): described(item, depth) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        items = sorted(value, key=repr) if isinstance(value, (set, frozenset)) else value
        return [described(item, depth) for item in items]
    return _of_object(value, depth)


def _of_object(value: Any, depth: int) -> Any:
    if isinstance(value, type):
        return f"{value.__module__}.{value.__qualname__}"
    name = f"{type(value).__module__}.{type(value).__qualname__}"
    if depth == 0:
        return name
    if isinstance(value, functools.partial):
        asked = {"of": value.func, "given": value.args, "named": value.keywords}
        return {"object": name} | {key: described(held, depth - 1) for key, held in asked.items()}
    function: Any = inspect.unwrap(value) if callable(value) else value
    code = getattr(function, "__code__", None)
    if isinstance(code, CodeType):
        cells = [cell.cell_contents for cell in function.__closure__ or () if _is_filled(cell)]
        bound = getattr(function, "__self__", None)
        parts = [_code_digest(code), *(str(described(held, depth - 1)) for held in [*cells, function.__defaults__])]
        parts += [str(described(bound, depth - 1))] if bound is not None else []
        parts += [f"{name}={described(held, depth - 1)}" for name, held in _globals_of(function, code).items()]
        digest = hashlib.sha256(" ".join(parts).encode()).hexdigest()[:16]
        return f"{function.__module__}.{function.__qualname__} {digest}"
    if dataclasses.is_dataclass(value):
        held = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    else:
        slots = {name: getattr(value, name, None) for name in getattr(type(value), "__slots__", ())}
        held = {key: item for key, item in (slots | getattr(value, "__dict__", {})).items() if key != "__weakref__"}
    found = {"object": name} | {key: described(item, depth - 1) for key, item in held.items()}
    call = inspect.getattr_static(type(value), "__call__", None)
    return found | {"call": described(call, depth - 1)} if isinstance(call, FunctionType) else found


def _globals_of(function: Any, code: CodeType) -> dict[str, Any]:
    """What a function finds by name beside it: plain values, arrays, and functions of the same module."""
    there = getattr(function, "__globals__", {})
    found = {name: there[name] for name in sorted(_names_in(code)) if name in there}
    plain = (bool, int, float, str, bytes, type(None), tuple, np.ndarray, np.generic, tf.Tensor)
    return {
        name: value
        for name, value in found.items()
        if isinstance(value, plain)
        or (isinstance(value, FunctionType) and value.__module__ == function.__module__ and value is not function)
    }


def _names_in(code: CodeType) -> set[str]:
    inner = (_names_in(constant) for constant in code.co_consts if isinstance(constant, CodeType))
    read = {i.argval for i in dis.get_instructions(code) if i.opname in ("LOAD_GLOBAL", "LOAD_NAME")}
    return read.union(*inner)


def _is_filled(cell: Any) -> bool:
    try:
        return bool(cell.cell_contents is not cell)
    except ValueError:
        return False


def _code_digest(code: CodeType) -> str:
    constants = [_code_digest(c) if isinstance(c, CodeType) else repr(c) for c in code.co_consts]
    text = " ".join([code.co_code.hex(), *constants, *code.co_names, *code.co_varnames])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def versions() -> dict[str, str]:
    """The versions of what a run computes with."""
    found = {"python": platform.python_version(), "gradtap": gradtap.__version__, "tensorflow": tf.__version__}
    return found | {name: metadata.version(name) for name in ("keras", "numpy", "zarr")}
