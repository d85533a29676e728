"""Whether a model is still the one that was traced.

A kept trace of a model whose activation, structure, dropout rate or Python flag has changed since would give silently
wrong numbers, so this is asked before every call and has to be cheap. New *values* of weights change nothing in a
fingerprint: a trace sees those by itself.

The full description walks through every attribute. In between, it is enough that every attribute is still bound to the
very same object: objects cannot be mistaken for one another as long as they live, and those that may be kept alive
without harm (numbers, text) are.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Mapping
from typing import Any

from gradtap.graph import keras_internals as internals

_SIMPLE = (bool, int, float, complex, str, bytes, type(None))
_CONTAINERS = (list, tuple, set, frozenset, Mapping)
_DEPTH = 3


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
        #: Whether all that was described are attributes, so that their bindings say it all.
        self.plain = True
        seen: set[int] = set()
        self._stack = [root]
        while self._stack:
            node = self._stack.pop()
            if id(node) not in seen:
                seen.add(id(node))
                self._node(node)

    def _node(self, node: Any) -> None:
        self.facts.append(id(node))
        self.objects.append(node)
        self.nodes.append(node)
        self.plain = self.plain and not hasattr(node, "__code__") and _is_weakly_referable(node)
        for name, value in _state(node):
            self.facts.append(name)
            self._value(value, _DEPTH)

    def _value(self, value: Any, depth: int) -> None:
        if type(value) in _SIMPLE:
            self.facts.append(value)
            self.simple.append(value)
        elif isinstance(value, _CONTAINERS) and depth:
            items = value.values() if isinstance(value, Mapping) else value
            self.facts.append(len(value))
            if isinstance(value, Mapping):
                self.facts.append(tuple(map(str, value)))
            for item in items:
                self._value(item, depth - 1)
        else:
            self.facts.append(id(value))
            self.objects.append(value)
            if internals.is_callable_node(value):
                self._stack.append(value)


def _state(node: Any) -> Iterable[tuple[str, Any]]:
    code = getattr(node, "__code__", None)
    if code is not None:
        cells = zip(code.co_freevars, getattr(node, "__closure__", None) or (), strict=False)
        known = node.__globals__
        yield from ((name, _content(cell)) for name, cell in cells)
        yield from ((name, known[name]) for name in code.co_names if name in known)
        yield "defaults", node.__defaults__
        yield "self", getattr(node, "__self__", None)
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
