"""gradtap's side: the functions of `ours/PEER.py`, and the figures that compare them with the peer's."""

from __future__ import annotations

import importlib
import inspect
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.migration import pages
from benchmarks.migration.compared import apart, nearest
from benchmarks.migration.networks import KINDS, TWICE, images, network, twice
from benchmarks.values import EQUAL, difference

OURS = ("tensorflow-cpu", "tensorflow", "keras", "numpy")


def prepare(peer: str, folder: str) -> None:
    """What a peer that cannot build the networks with Keras needs of them."""
    del peer
    for name, model in {"plain": network(), "skip": network(skip=True), "twice": twice()}.items():
        weights = {
            weight.path.rpartition("/")[0].split("/")[-1] + "_" + weight.name: weight for weight in model.weights
        }
        np.savez(f"{folder}/{name}_weights.npz", **{key: np.asarray(value) for key, value in weights.items()})
    np.save(f"{folder}/images.npy", images)


def run(peer: str, folder: str, there: dict[str, Any]) -> dict[str, str]:
    """The figures of a page, by name."""
    module = importlib.import_module(f"benchmarks.migration.ours.{peer}")
    given = {"model": network(), "skip": network(skip=True), "shared": twice(), "images": images}
    figures = {"versions": _versions(there["versions"])}
    for name in pages.lines(f"benchmarks.migration.ours.{peer}"):
        function = getattr(module, name)
        ours = function(**{parameter: given[parameter] for parameter in inspect.signature(function).parameters})
        ours = tuple(np.asarray(each) for each in (ours if isinstance(ours, tuple) else (ours,)))
        said, raised = getattr(module, f"_{name}", None), there["raised"].get(name)
        if raised:
            figures[name] = f"theirs raises {_short(raised)}"
        elif said is not None:
            figures[name] = "\n".join(said(_loaded(folder, name), ours))
        else:
            figures[name] = apart(_loaded(folder, name)[0], ours[0])
    if "today" in there:
        figures["today"] = "\n".join(f"{name:16s}{_short(text) or 'runs'}" for name, text in there["today"].items())
    if hasattr(module, "_on_kind"):
        figures["kinds"] = "\n".join(_kind(module, folder, kind, there["raised"][kind]) for kind in KINDS)
    if hasattr(module, "_input_on_kind"):
        figures["inputs"] = "\n".join(_input(module, folder, kind, there["raised"][f"{kind}, input"]) for kind in KINDS)
    return figures


def _loaded(folder: str, name: str) -> tuple[np.ndarray, ...]:
    with np.load(Path(folder, f"{name}.npz")) as file:
        return tuple(file[key] for key in file.files)


def _kind(module: Any, folder: str, kind: str, raised: str) -> str:
    """How the peer fares on a kind of network; that ours is right there is a matter of the functional form."""
    model = KINDS[kind]()
    taps = ["conv3[0]", "conv3[1]"] if kind in TWICE else ["conv3"]
    ours = {tap: np.asarray(module._on_kind(model, images, tap)) for tap in taps}
    if kind not in TWICE:
        apart_from_functional = difference(ours["conv3"], np.asarray(module._on_kind(network(), images, "conv3")))
        if apart_from_functional > EQUAL:
            raise AssertionError(f"ours on {kind} is {apart_from_functional} from the functional form")
    said = _short(raised) or nearest(_loaded(folder, kind)[0], ours)
    return f"{kind:29s}{said}"


def _input(module: Any, folder: str, kind: str, raised: str) -> str:
    """The same for a line that asks at the input, where no layer has to be found."""
    ours = {":input": np.asarray(module._input_on_kind(KINDS[kind](), images))}
    return f"{kind:29s}{_short(raised) or nearest(_loaded(folder, f'{kind}, input')[0], ours)}"


def _short(text: str, most: int = 88) -> str:
    return text if len(text) <= most else f"{text[:most].rstrip()} ..."


def _versions(theirs: dict[str, str]) -> str:
    ours = {name: version for name in OURS if (version := _version(name))}
    return "\n".join(
        f"{whose:8s}" + ", ".join(f"{name} {version}" for name, version in versions.items())
        for whose, versions in {"theirs": theirs, "ours": {"Python": platform.python_version()} | ours}.items()
    )


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
