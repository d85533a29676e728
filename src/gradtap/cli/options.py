"""The values that options take: a target, a size, a file of some kind."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple

import click

Class = int | tuple[int, ...] | Literal["predicted"]


class Size(NamedTuple):
    """Height and width in pixels."""

    height: int
    width: int


def read_target(ctx: click.Context, param: click.Parameter, value: str | None) -> Class | None:
    """Read ``predicted``, the index of a class, or indices such as ``12,40,3`` for outputs of higher rank."""
    if value is None:
        return None
    if value == "predicted":
        return "predicted"
    if not re.fullmatch(r"-?\d+(,-?\d+)*", value):
        raise click.BadParameter(f"{value!r} is neither 'predicted' nor the index of a class, such as 281", ctx, param)
    indices = tuple(int(index) for index in value.split(","))
    return indices[0] if len(indices) == 1 else indices


target_output_option = click.option(
    "--target-output", metavar="NAME", help="Which output the class belongs to, for models with several."
)
logits_option = click.option("--logits", is_flag=True, help="Take the score before a final softmax or sigmoid.")


def as_target(target: Any, output: str | None, logits: bool) -> Any:
    """What ``--target``, ``--target-output`` and ``--logits`` say together, as the library takes it.

    Args:
      target: A class, one class for each example, ``"predicted"``, or None.
      output: Name or position of the output that the class belongs to.
      logits: Take the score before a final softmax or sigmoid.

    Returns:
      The target itself where the others say nothing; else one that holds all three, the predicted class for None.
    """
    if output is None and not logits:
        return target
    from gradtap import targets

    return targets.class_score("predicted" if target is None else target, output_of(output), logits)


def output_of(text: str | None) -> int | str | None:
    """The name or the position that ``--target-output`` gives."""
    return int(text) if text is not None and text.isdigit() else text


def read_size(ctx: click.Context, param: click.Parameter, value: str | None) -> Size | None:
    """Read a size such as ``224x300``, height first, or ``224`` for a square."""
    if value is None:
        return None
    match = re.fullmatch(r"([1-9]\d*)(?:x([1-9]\d*))?", value)
    if match is None:
        raise click.BadParameter(f"{value!r} is not a size such as 224x300 (height x width)", ctx, param)
    return Size(int(match[1]), int(match[2] or match[1]))


def ending_in(*suffixes: str) -> Callable[[click.Context, click.Parameter, Path | None], Path | None]:
    """Make a check that a file's name ends in one of some suffixes."""

    def check(ctx: click.Context, param: click.Parameter, value: Path | None) -> Path | None:
        if value is not None and value.suffix.lower() not in suffixes:
            raise click.BadParameter(f"{str(value)!r} must end in {' or '.join(suffixes)}", ctx, param)
        return value

    return check


def read_names(file: Path | None) -> list[str] | None:
    """Read a file of class names, one a line; empty lines at its end are none."""
    return file.read_text(encoding="utf-8").rstrip().splitlines() if file else None
