"""Whether a model is still the one that was traced.

A kept trace of a model whose activation, structure, dropout rate or Python flag has changed since would give silently
wrong numbers, so this is asked before every call and has to be cheap. New *values* of weights change nothing in a
fingerprint: a trace sees those by itself.

The full description walks through every attribute. In between, it is enough that every attribute is still bound to the
very same object: objects cannot be mistaken for one another as long as they live, and those that may be kept alive
without harm (numbers, text) are.

Of what is no part of a model, the globals of a function or a plain object in an attribute, only that counts which the
model's code reads, by the names that the code mentions.
"""

from __future__ import annotations

import sys
import weakref
from collections.abc import Iterable, Mapping
from functools import lru_cache
from types import CodeType, FunctionType, MethodType
from typing import Any

from gradtap.graph import keras_internals as internals

_SIMPLE = (bool, int, float, complex, str, bytes, type(None))
_CONTAINERS = (list, tuple, set, frozenset, Mapping)
_DEPTH = 3

#: Code that is not followed: it does not change, and it is large.
_LIBRARIES = frozenset(
    {"keras", "keras_hub", "numpy", "tensorflow", "tf_keras", *sys.stdlib_module_names} - {"__main__"}
)

_Names = frozenset[str]


class Fingerprint:
    """What a model's structure was at one moment; refers to the model weakly.

    Args:
      root: A Keras model or layer, a `tf.Module` or a function.

    Example:
      >>> def model(x): return x
      >>> Fingerprint(model).matches(model)
      True
    """

    __slots__ = ("_alive", "_bindings", "_facts", "_kept")

    def __init__(self, root: Any) -> None:
        described = _Description(root)
        self._facts = described.facts
        self._remember(described)

    def matches(self, root: Any) -> bool:
        """Whether the model still has this structure."""
        if self._bindings and self._all_alive() and all(binding.hold() for binding in self._bindings):
            return True
        described = _Description(root)
        if described.facts != self._facts or not self._all_alive():
            return False
        self._remember(described)
        return True

    def _remember(self, described: _Description) -> None:
        # An object that died may have given its address to its successor, so a dead one means a change.
        self._alive = [weakref.ref(o) for o in described.objects if _is_weakly_referable(o)]
        self._kept = described.simple
        self._bindings = [_Bindings(node) for node in described.nodes] if described.plain else []

    def _all_alive(self) -> bool:
        return all(ref() is not None for ref in self._alive)


class _Description:
    """A walk over a model: the facts that make its structure, and the objects they were read from."""

    def __init__(self, root: Any) -> None:
        self.facts: list[Any] = []
        self.objects: list[Any] = []
        self.simple: list[Any] = []
        self.nodes: list[Any] = []
        #: Whether all that was described are attributes of layers, so that their bindings say it all.
        self.plain = True
        self._seen: set[Any] = set()
        self._stack = [root]
        while self._stack:
            node = self._stack.pop()
            if id(node) not in self._seen:
                self._seen.add(id(node))
                self._node(node)

    def _node(self, node: Any) -> None:
        if isinstance(node, MethodType):  # made anew at each access: what it is made of counts
            self._value(node.__self__, _DEPTH, _names_in(getattr(node, "__code__", None)))
            node = node.__func__
        self.facts.append(id(node))
        self.objects.append(node)
        self.nodes.append(node)
        code, kind = getattr(node, "__code__", None), node.__class__
        self.plain = self.plain and code is None and _is_weakly_referable(node) and hasattr(node, "__dict__")
        names = _names_in(code) if code else _names_in_methods(kind)
        for name, value in _state(node):
            self.facts.append(name)
            self._value(value, _DEPTH, names)

    def _value(self, value: Any, depth: int, names: _Names) -> None:
        if type(value) in _SIMPLE:
            self.facts.append(value)
            self.simple.append(value)
        elif isinstance(value, _CONTAINERS) and depth:
            items = value.values() if isinstance(value, Mapping) else value
            self.facts.append(len(value))
            if isinstance(value, Mapping):
                self.facts.append(tuple(map(str, value)))
            for item in items:
                self._value(item, depth - 1, names)
        elif internals.is_callable_node(value) or _is_own_code(value):
            self.facts.append(None if isinstance(value, MethodType) else id(value))
            self._stack.append(value)
        else:
            self.facts.append(id(value))
            self.objects.append(value)
            if names:
                self._read(value, names)

    def _read(self, thing: Any, names: _Names) -> None:
        """What code reads of a thing that is no part of a model: what it names there, and what such methods read."""
        held = getattr(thing, "__dict__", None)
        if held is None or (id(thing), names) in self._seen:
            return
        self._seen.add((id(thing), names))
        methods = _methods(thing.__class__)
        for name in sorted(names):
            if name in held:
                self.plain = False
                self.facts.append(name)
                self._value(held[name], _DEPTH, names)
            elif name in methods:
                self._stack.append(methods[name])
                self._read(thing, _names_in(methods[name].__code__))


def _is_own_code(value: Any) -> bool:
    return isinstance(value, (FunctionType, MethodType)) and not _is_of_library(value)


def _is_of_library(thing: Any) -> bool:
    return str(getattr(thing, "__module__", None)).partition(".")[0] in _LIBRARIES


@lru_cache(maxsize=4096)
def _names_in(code: CodeType | None) -> _Names:
    """All names that code mentions, the functions inside of it included."""
    if code is None:
        return frozenset()
    inner = (_names_in(constant) for constant in code.co_consts if isinstance(constant, CodeType))
    return frozenset(code.co_names).union(code.co_freevars, *inner)


@lru_cache(maxsize=1024)
def _methods(kind: Any) -> dict[str, FunctionType]:
    """The functions and properties of a class and of those it inherits from, but for those of libraries."""
    found: dict[str, FunctionType] = {}
    for one in kind.__mro__:
        for name, value in ({} if _is_of_library(one) else vars(one)).items():
            function = getattr(value, "fget", None) or getattr(value, "__func__", value)
            if isinstance(function, FunctionType):
                found.setdefault(name, function)
    return found


@lru_cache(maxsize=1024)
def _names_in_methods(kind: Any) -> _Names:
    return frozenset().union(*(_names_in(method.__code__) for method in _methods(kind).values()))


def _state(node: Any) -> Iterable[tuple[str, Any]]:
    code = getattr(node, "__code__", None)
    if code is not None:
        cells = zip(code.co_freevars, getattr(node, "__closure__", None) or (), strict=False)
        known = node.__globals__
        yield from ((name, _content(cell)) for name, cell in cells)
        yield from ((name, known[name]) for name in sorted(_names_in(code)) if name in known)
        yield "defaults", node.__defaults__
        return
    for name, value in getattr(node, "__dict__", {}).items():
        if name not in internals.BOOKKEEPING and not name.startswith("_self_"):
            yield name, value


def _content(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # a cell that is not filled yet
        return None


def _is_container(name: str, value: Any) -> bool:
    return isinstance(value, (list, dict, tuple)) and name not in internals.BOOKKEEPING


class _Bindings:
    """The identity of every attribute of an object, and of what the containers among them hold."""

    __slots__ = ("_attributes", "_containers", "_node")

    def __init__(self, node: Any) -> None:
        attributes = vars(node)
        self._node = weakref.ref(node)
        self._attributes = tuple(map(id, attributes.values()))
        containers = [name for name, value in attributes.items() if _is_container(name, value)]
        self._containers = [(name, _content_bindings(attributes[name], _DEPTH)) for name in containers]

    def hold(self) -> bool:
        """Whether all is still bound to the same objects."""
        node = self._node()
        if node is None:
            return False
        attributes = vars(node)
        if tuple(map(id, attributes.values())) != self._attributes:
            return False
        return all(_content_bindings(attributes[name], _DEPTH) == content for name, content in self._containers)


def _content_bindings(container: Any, depth: int) -> list[Any]:
    items = container.values() if isinstance(container, dict) else container
    return [
        _content_bindings(item, depth - 1) if depth and isinstance(item, (list, dict, tuple)) else id(item)
        for item in items
    ]


def _is_weakly_referable(thing: Any) -> bool:
    return bool(getattr(type(thing), "__weakrefoffset__", 0))
