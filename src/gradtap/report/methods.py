"""Methods of `gradtap.attribution` as a page runs them: with defaults alone, and one where a method has none."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

from gradtap import attribution, errors

#: What `gradtap.attribution` holds beside methods.
_NO_METHODS = {"at_tap"}
#: What every method takes.
_ALWAYS = {"model", "inputs"}
#: A window of an occlusion covers this part of the shorter side.
_PART = 4


def check_methods(methods: Sequence[str]) -> None:
    """Refuse what is no method, and what needs more than a model, inputs and a target.

    Raises:
      ArgumentError: There is no such method, or it cannot be run from its name alone.
    """
    known = set(attribution.__all__) - _NO_METHODS
    for name in methods:
        if name not in known:
            near = errors.nearest(name, sorted(known)) or "none"
            raise errors.ArgumentError(
                f"there is no method {name!r}.",
                [("nearest", near), ("there are", ", ".join(sorted(known)))],
                "name some of gradtap.attribution",
            )
        missing = required(name)
        if missing:
            raise errors.ArgumentError(
                f"`{name}` needs `{'`, `'.join(missing)}`, which has no default.",
                [],
                f"leave it out here, and call gradtap.attribution.{name}",
            )


def required(name: str) -> list[str]:
    """What a method needs beside a model and inputs, and what `defaults_at` does not give."""
    parameters = inspect.signature(getattr(attribution, name)).parameters.values()
    given = _ALWAYS | ({"window"} if name == "occlusion" else set())
    return [p.name for p in parameters if p.default is p.empty and p.name not in given]


def defaults_at(name: str, shape: Sequence[int | None]) -> dict[str, Any]:
    """The keywords that a method needs at a layer of a shape with its batch axis: the window of an occlusion.

    It covers a fourth of the shorter side of a picture, a fourth of a series, one unit of a vector.

    Example:
      >>> defaults_at("occlusion", (None, 24, 32, 3))
      {'window': 6}
    """
    if name != "occlusion":
        return {}
    sides = [size or 1 for size in shape[1:-1]] if len(shape) > 2 else []
    return {"window": max(1, min(sides) // _PART) if sides else 1}


def said_of(name: str) -> str:
    """What a method is, in a sentence: the first of its documentation."""
    return (inspect.getdoc(getattr(attribution, name)) or "").split("\n", 1)[0]
