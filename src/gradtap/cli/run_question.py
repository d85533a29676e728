"""What ``gradtap run`` is asked to compute: from texts in a shell to the method, its keywords and its target."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gradtap.cli.options import as_target, read_target
from gradtap.errors import GradtapError, InputFileError, MissingTargetError

if TYPE_CHECKING:
    from gradtap.dataset.stored import Stored

#: Known here as well as in the library, so that ``--help`` and wrong usage need no TensorFlow.
STATISTICS = ("mean", "variance", "quantiles", "histogram", "top_examples")
ATTACKS = ("fgsm", "pgd", "auto_pgd", "deep_fool", "carlini_wagner_l2")


def read_target_or_file(ctx: click.Context, param: click.Parameter, value: str | None) -> Any:
    """Read a target as other commands do, or the name of a ``.npy`` with one class for each example."""
    if value is not None and value.endswith(".npy"):
        return Path(value)
    return read_target(ctx, param, value)


def read_options(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> dict[str, Any]:
    """Read ``NAME=VALUE``; values are JSON, or text."""
    found: dict[str, Any] = {}
    for text in values:
        name, equals, value = text.partition("=")
        if not equals or not name.isidentifier():
            raise click.BadParameter(f"{text!r} is not NAME=VALUE, such as steps=20", ctx, param)
        try:
            found[name] = json.loads(value)
        except ValueError:
            found[name] = value
    return found


def method_of(name: str, of: str | None, options: Mapping[str, Any], scored: bool) -> tuple[Any, dict[str, Any]]:
    """The method, and its own keywords; those of a statistic go to the statistic.

    What is wrong with them is said here, before the model is loaded.

    Args:
      name: What ``--method`` names.
      of: What ``--of`` names.
      options: The keywords.
      scored: Whether ``--target-output`` or ``--logits`` is given.

    Raises:
      GradtapError: There is no such method, or a keyword is wrong or missing.
    """
    from gradtap import dataset
    from gradtap.dataset.methods import Method

    asked: Any = name
    own: Mapping[str, Any] = {}
    if name in STATISTICS:
        make: Callable[..., Any] = getattr(dataset, name)
        parameters = inspect.signature(make).parameters
        own = {key: value for key, value in options.items() if key in parameters}
        missing = [key for key, p in parameters.items() if p.default is inspect.Parameter.empty and key not in own]
        if missing:
            raise click.UsageError(f"{name} needs --option {missing[0]}=..., such as edges=[-1,0,1].")
        asked = make(**({"of": of} if of else {}), **own)
    rest = {key: value for key, value in options.items() if key not in own}
    method = Method(asked.of if name in STATISTICS else asked, rest)
    if scored and (method.takes_labels or not method.takes_target):
        takes = "labels" if method.takes_labels else "no target"
        raise click.UsageError(
            f"--target-output and --logits are for the score of a class; {method.name} takes {takes}."
        )
    return asked, rest


def target_of(given: Any, output: str | None, logits: bool) -> Any:
    """The target as the library takes it; a ``.npy`` of classes is read."""
    if isinstance(given, Path):
        from gradtap.files.arrays import load_arrays

        if not given.exists():
            raise InputFileError(f"`{given}` cannot be read.", [("why", "there is no such file")])
        given = load_arrays(given)["array"]
    return as_target(given, output, logits)


def with_target(computed: Callable[[Any], Stored], target: Any) -> Stored:
    """Without a target the model's one number counts, or the class that it predicts where it has more."""
    try:
        return computed(target)
    except GradtapError as error:
        if target is not None or not any(isinstance(e, MissingTargetError) for e in getattr(error, "errors", [error])):
            raise
    return computed("predicted")
