"""How lower floors reach what draws and prints: by name, at the moment when somebody asks to see something.

Methods compute, and floor 5 shows. Where a result has a ``.plot()``, or a callback a table, this is the one way up.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any


def face(module: str, name: str) -> Callable[..., Any]:
    """Something of floor 5.

    Args:
      module: Where it stands, such as ``"gradtap.plot"``.
      name: What it is called there.
    """
    found: Callable[..., Any] = getattr(import_module(module), name)
    return found
