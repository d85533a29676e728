"""The names of a model's layers: a path from the model down, and what else each name on it may be called."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from gradtap.graph import keras_internals as internals
from gradtap.types import Layer

#: How deep lists and dicts of layers are searched for layers.
_CONTAINER_DEPTH = 4

#: All names of one step of a path; the first is the canonical one.
Names = tuple[str, ...]


@dataclass(frozen=True)
class NamedLayer:
    """A layer under its path.

    Args:
      layer: The layer, or an operation of a functional model.
      steps: From the model down, every name that each step goes by; empty for the model itself.
    """

    layer: Layer
    steps: tuple[Names, ...]

    @property
    def path(self) -> str:
        """The canonical path, slash-joined."""
        return "/".join(names[0] for names in self.steps)

    def spellings(self) -> Iterator[str]:
        """Every full path that stands for this layer, the canonical one first."""
        return ("/".join(choice) for choice in product(*self.steps))


def named_layers(root: Any) -> list[NamedLayer]:
    """Name everything that is called inside a model, the model itself included where it is a layer.

    A child's canonical name is its Keras name inside Functional and Sequential models, its attribute path elsewhere
    (``self.blocks[0]`` is ``blocks/0``); the other name is understood as well. A layer that is held in two places
    is listed once for each, under its first path foremost.
    """
    found = [NamedLayer(root, ())] if internals.is_callable_node(root) else []
    _collect(root, (), found, [])
    return found


def _collect(holder: Any, steps: tuple[Names, ...], found: list[NamedLayer], trail: list[int]) -> None:
    if id(holder) in trail:  # a child that refers back to its parent
        return
    for names, child in _named_children(holder):
        below = (*steps, *names)
        if internals.is_callable_node(child):
            found.append(NamedLayer(child, below))
        _collect(child, below, found, [*trail, id(holder)])


def _named_children(holder: Any) -> Iterator[tuple[tuple[Names, ...], Any]]:
    by_attribute: dict[int, tuple[str, ...]] = {}
    for path, child in _attributes(holder):
        by_attribute.setdefault(id(child), path)
    if not internals.is_keras(holder):
        for path, child in _attributes(holder):
            if by_attribute[id(child)] == path:
                yield _merge(path, getattr(child, "name", None)), child
        return
    named = internals.is_named_container(holder)
    held = internals.children(holder)
    tracked = {id(child) for child in held}
    modules = [child for _, child in _attributes(holder) if id(child) not in tracked]
    for child in [*held, *{id(m): m for m in modules}.values()]:
        attribute = by_attribute.get(id(child))
        name = str(getattr(child, "name", "") or type(child).__name__)
        if named or attribute is None:
            alias = attribute[0] if attribute and len(attribute) == 1 else None
            yield _merge(tuple(name.split("/")), alias), child
        else:
            yield _merge(attribute, name), child


def _merge(path: tuple[str, ...], other: str | None) -> tuple[Names, ...]:
    """Steps of a path whose last name has an alternative; ``blocks/0`` may be called ``attention_3`` as well."""
    steps: list[Names] = [(name,) for name in path]
    if other and "/" not in other and other != path[-1]:
        steps[-1] = (path[-1], other)
    return tuple(steps)


def _attributes(holder: Any) -> Iterator[tuple[tuple[str, ...], Any]]:
    """The layers and modules among an object's attributes and a function's free names, containers searched."""
    for name, value in _namespace(holder):
        if name in internals.BOOKKEEPING or name.startswith(("_self_", "_layers", "_operations", "_functional")):
            continue
        yield from _search(value, (name,), _CONTAINER_DEPTH)


def _namespace(holder: Any) -> list[tuple[str, Any]]:
    function = getattr(holder, "python_function", holder)
    code = getattr(function, "__code__", None)
    if code is None:
        return list(getattr(holder, "__dict__", {}).items())
    free = zip(code.co_freevars, function.__closure__ or (), strict=False)
    names = [(name, _cell(cell)) for name, cell in free]
    names += [(n, function.__globals__[n]) for n in code.co_names if n in function.__globals__]
    owner = getattr(function, "__self__", None)  # of a bound method
    if owner is None:
        return names
    return [*names, ("self", owner)] if _is_holder(owner) else [*names, *getattr(owner, "__dict__", {}).items()]


def _cell(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # a cell that is not filled yet
        return None


def _search(value: Any, path: tuple[str, ...], depth: int) -> Iterator[tuple[tuple[str, ...], Any]]:
    if _is_holder(value):
        yield path, value
    elif depth and isinstance(value, Mapping):
        for key, item in value.items():
            yield from _search(item, (*path, str(key)), depth - 1)
    elif depth and isinstance(value, Sequence) and not isinstance(value, (str, bytes, bytearray)):
        for position, item in enumerate(value):
            yield from _search(item, (*path, str(position)), depth - 1)


def _is_holder(value: Any) -> bool:
    """Whether something is a layer or an operation, or a module that may hold some."""
    import tensorflow as tf

    return internals.is_callable_node(value) or (isinstance(value, tf.Module) and not isinstance(value, tf.Variable))
