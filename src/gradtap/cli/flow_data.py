"""What ``gradtap flow compare`` compares: models by their names, and vectors with labels."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from itertools import product
from pathlib import Path
from typing import Any

import click
import numpy as np

from gradtap.cli.reading import find_files
from gradtap.errors import InputFileError, nearest
from gradtap.files.arrays import load_arrays
from gradtap.flow import architectures as known

Array = np.ndarray[Any, Any]

_EXAMPLES, _FEATURES, _CLASSES = 128, 16, 10


def compared_models(
    activations: Sequence[str],
    architectures: Sequence[str],
    depths: Sequence[int],
    width: int,
    features: int,
    classes: int,
) -> dict[str, Callable[[], Any]]:
    """A builder for every combination, by a name that says what is not the same for all."""
    names = _chosen(activations, known.activations(), "an activation of Keras", "--activations")
    kinds = _chosen(architectures, list(known.BY_NAME), "an architecture", "--architectures")
    found: dict[str, Callable[[], Any]] = {}
    for kind, name, depth in product(kinds, names, depths):
        parts = [kind if len(kinds) > 1 else "", name, str(depth) if len(depths) > 1 else ""]
        if kind == "recurrent" and name == "glu":
            continue  # a state cannot be halved
        build = functools.partial(known.BY_NAME[kind], features, classes, activation=name, depth=depth, width=width)
        found[" ".join(part for part in parts if part)] = build
    return found


def _chosen(asked: Sequence[str], there: Sequence[str], what: str, option: str) -> list[str]:
    if list(asked) == ["all"]:
        return list(there)
    for name in asked:
        if name not in there:
            close = nearest(name, there)
            more = f" The nearest: {close}." if close else f" There are: {', '.join(there)}."
            raise click.BadParameter(f"`{name}` is not {what}.{more}", param_hint=option)
    return list(dict.fromkeys(asked))


def vectors(path: Path | None) -> tuple[Array, Array]:
    """The inputs and labels of a file, or random ones that are always the same.

    Raises:
      InputFileError: The file holds others.
    """
    if path is None:
        rng = np.random.default_rng(0)
        return rng.normal(size=(_EXAMPLES, _FEATURES)).astype("float32"), rng.integers(0, _CLASSES, _EXAMPLES)
    arrays = load_arrays(find_files([path])[0])
    inputs, labels = arrays.get("inputs"), arrays.get("labels")
    if inputs is None or labels is None or inputs.ndim != 2 or labels.shape != inputs.shape[:1]:
        has = ", ".join(f"`{name}` {array.shape}" for name, array in arrays.items())
        raise InputFileError(
            f"`{path}` does not hold vectors with their labels.",
            [("takes", "`inputs` (examples, features) and `labels` (examples,)"), ("has", has)],
        )
    if labels.dtype.kind not in "iu" or labels.min() < 0:
        raise InputFileError(f"the labels of `{path}` are no classes.", [("has", str(labels.dtype))], "ints from 0 on")
    return inputs.astype("float32"), labels


def plain_lines(lines: Iterable[Any]) -> list[dict[str, Any]]:
    """Rows as JSON can hold them, which has no NaN and no infinity."""
    return [{name: _plain(value) for name, value in asdict(line).items()} for line in lines]


def _plain(value: Any) -> Any:
    if isinstance(value, (tuple, list)):
        return [_plain(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
