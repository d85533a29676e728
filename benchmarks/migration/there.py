"""The peer's side: each function of `theirs/PEER.py`, and one of them on networks of every kind."""

from __future__ import annotations

import importlib
import inspect
import platform
import warnings
from collections.abc import Callable
from functools import partial
from importlib import metadata
from typing import Any

import numpy as np


def run(peer: str, folder: str) -> dict[str, Any]:
    """Save what the functions return; say what they raised, and the versions that ran."""
    warnings.simplefilter("ignore")
    module = importlib.import_module(f"benchmarks.migration.theirs.{peer}")
    raised = {name: _saved(f"{folder}/{name}", *each) for name, each in _calls(module, folder).items()}
    versions = {name: metadata.version(name) for name in module.VERSIONS}
    return {"raised": raised, "versions": {"Python": platform.python_version()} | versions}


def _calls(module: Any, folder: str) -> dict[str, tuple[Callable[..., Any], Callable[[], dict[str, Any]]]]:
    """Each function, and how what it is given is made: a network that one call leaves patched is not the next one's."""
    found: dict[str, Any] = {}
    if hasattr(module, "_on_kind"):
        from benchmarks.migration.networks import KINDS

        for kind, build in KINDS.items():
            given = partial(_with_model, module, folder, build)
            found[kind] = (module._on_kind, given)
            if hasattr(module, "_input_on_kind"):
                found[f"{kind}, input"] = (module._input_on_kind, given)
    for name, function in vars(module).items():
        if inspect.isfunction(function) and not name.startswith("_") and function.__module__ == module.__name__:
            found[name] = (function, partial(module._given, folder, name))
    return found


def _with_model(module: Any, folder: str, build: Callable[[], Any]) -> dict[str, Any]:
    return module._given(folder, "") | {"model": build()}


def _saved(path: str, function: Callable[..., Any], given: Callable[[], dict[str, Any]]) -> str:
    """The first line of the error, or nothing."""
    try:
        names = inspect.signature(function).parameters
        found = given()
        result = function(**{name: found[name] for name in names})
    except Exception as error:
        return f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0]}"
    results = result if isinstance(result, tuple) else (result,)
    np.savez(f"{path}.npz", *(np.asarray(each) for each in results))
    return ""
