"""Whether a store holds the run that is asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from gradtap import errors

#: What makes a run, and must be the same for it to go on.
_PARTS = ("run", "model", "data", "arguments")

_SHOWN = 60
_MOST = 8


def check_same(path: Path, there: Mapping[str, Any], asked: Mapping[str, Any], *, repaired: bool) -> None:
    """Refuse a store of another run.

    Args:
      path: The store.
      there: The header of the store.
      asked: The header of the run that is asked for.
      repaired: Whether the content of the data may have changed, as where bad examples were repaired.

    Raises:
      StoreMismatchError: The message names each difference.
    """
    found = [
        (label, a, b)
        for part in _PARTS
        for label, a, b in _differences(part, there.get(part), asked.get(part))
        if not (repaired and label == "data.content")
    ]
    if not found:
        return
    if any(label == "arguments.method" for label, _, _ in found):  # another method has other keywords
        found = [row for row in found if not row[0].startswith("arguments.options")]
    facts = [(label, f"{_short(a)} in the store, {_short(b)} asked") for label, a, b in found[:_MOST]]
    if len(found) > _MOST:
        facts.append(("and", f"{len(found) - _MOST} more"))
    do = ["give another store", "ask with what the store was made with"]
    if all(label == "data.content" for label, _, _ in found):
        do.append("retry=True: what failed is computed anew, and what has changed since")
    raise errors.StoreMismatchError(f"`{path}` holds another run.", facts, do)


def _differences(label: str, a: Any, b: Any) -> Iterator[tuple[str, Any, Any]]:
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        for key in dict.fromkeys([*a, *b]):
            yield from _differences(f"{label}.{key}", a.get(key), b.get(key))
    elif a != b:
        yield label, a, b


def _short(value: Any) -> str:
    text = "nothing" if value is None else str(value)
    half = (_SHOWN - 3) // 2
    return text if len(text) <= _SHOWN else f"{text[:half]}...{text[-half:]}"
