"""Tap: a place in a network where activations are read and gradients arrive, and the grammar of its address."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Literal

from gradtap.errors import AddressSyntaxError, nearest

#: Every side an address can name; ``.K`` after `output` or `input` picks one of several tensors.
SIDES = ("output", "input", "preactivation", "attention", "query", "key", "value", "hidden", "cell")

#: Sides that may hold several tensors.
_SEVERAL = ("output", "input", "hidden", "cell")

Call = int | Literal["*"] | None

_ADDRESS = re.compile(
    r"(?P<path>[^\[\]:]*)"
    r"(?:\[(?P<call>\d+|\*)\])?"
    r"(?::(?P<side>[^\[\]:.]+(?:\.[^\[\]:]+)?))?"
)


@dataclass(frozen=True, slots=True)
class Tap:
    """Where to read activations and gradients: a layer, one of its calls, and a side of that call.

    Args:
      path: Slash-joined names from the model down, globs allowed. Empty for the model itself.
      call: Index of the call of a layer that runs more than once, ``"*"`` for all of them; None where it runs once.
      side: One of `SIDES`, or ``output.1``, ``input.ids`` to pick from several tensors; the name of a weight
        (``kernel``, ``bias``); ``"op"`` marks an op's name.

    Example:
      >>> Tap.parse("encoder/shared[1]:input")
      Tap(path='encoder/shared', call=1, side='input')
      >>> str(Tap("dense", side="preactivation"))
      'dense:preactivation'
    """

    path: str = ""
    call: Call = None
    side: str = "output"

    @classmethod
    def parse(cls, address: str) -> Tap:
        """Read an address.

        Args:
          address: ``[PATH]["[" CALL "]"][":" SIDE]``.

        Returns:
          The tap it stands for.

        Raises:
          AddressSyntaxError: The text is not of that form, or names a side that does not exist.

        Example:
          >>> Tap.parse("stem[0]").call
          0
        """
        if not isinstance(address, str):
            raise AddressSyntaxError(f"{address!r} is not an address.", [], "an address is text, such as `conv1`")
        return _parse(address)

    @classmethod
    def op(cls, name: str) -> Tap:
        """Tap a tensor of the traced graph by its name.

        Args:
          name: The op's name with the number of its output; ``:0`` may be left out.

        Returns:
          The tap.

        Example:
          >>> str(Tap.op("functional_1/c1/Relu:0"))
          'functional_1/c1/Relu:0'
        """
        if not isinstance(name, str):
            raise AddressSyntaxError(f"{name!r} is not the name of an op.", [], "a name is text: op.name")
        return cls(path=name if re.search(r":\d+$", name) else f"{name}:0", side="op")

    @property
    def is_pattern(self) -> bool:
        """True where the path holds a glob and may stand for any number of layers."""
        return self.side != "op" and any(mark in self.path for mark in "*?")

    @property
    def is_weight(self) -> bool:
        """True where the side is no side of a call but the name of a weight."""
        return self.side != "op" and not self.face.isdigit() and self.face not in SIDES

    @property
    def pick(self) -> str | None:
        """The part of the side after the dot: which one of several tensors; None where nothing is picked."""
        return self.side.partition(".")[2] or None

    @property
    def face(self) -> str:
        """The side without the pick."""
        return self.side.partition(".")[0]

    def picked(self, key: int | str) -> Tap:
        """The same place, with one of its several tensors picked."""
        return replace(self, side=f"{self.face}.{key}")

    def __str__(self) -> str:
        if self.side == "op":
            return self.path
        call = "" if self.call is None else f"[{self.call}]"
        side = "" if self.side == "output" and self.path else f":{self.side}"
        return f"{self.path}{call}{side}"


@lru_cache(maxsize=4096)
def _parse(address: str) -> Tap:
    match = _ADDRESS.fullmatch(address)
    if match is None or not address:
        early = re.fullmatch(r"([^\[\]:]+)(\[(?:\d+|\*)\])(/[^\[\]:]+)(:[^\[\]:]+)?", address)
        last = [f"the call goes last: `{early[1]}{early[3]}{early[2]}{early[4] or ''}`"] if early else []
        raise AddressSyntaxError(
            f"`{address}` is not an address.",
            [("form", 'PATH ["[" CALL "]"] [":" SIDE]'), ("such as", "`conv1`, `backbone/conv1:input`, `shared[1]`")],
            [*last, "gt.taps(model) lists every address; Tap.op(name) taps an op by its name"],
        )
    path, call, side = match["path"], match["call"], match["side"] or "output"
    if not path and not match["side"]:
        raise AddressSyntaxError(
            f"`{address}` names no layer.", [], "use `:input` or `:output` for the model itself, `**` for every layer"
        )
    face, _, pick = side.partition(".")
    if not (face.isdigit() or face.isidentifier()) or (pick and face not in _SEVERAL):
        raise no_side(side, address, [])
    return Tap(path, "*" if call == "*" else int(call) if call else None, side)


def no_side(side: str, address: str, weights: Sequence[str]) -> AddressSyntaxError:
    """What is said of a side that is none, and no weight either."""
    close = nearest(side.partition(".")[0], [*SIDES, *weights])
    return AddressSyntaxError(
        f"`{side}` in `{address}` is not a side of a layer.",
        [
            ("sides", ", ".join(SIDES)),
            *([("weights", ", ".join(weights))] if weights else []),
            *([("nearest", close)] if close else []),
        ],
        "for an op's name with a colon use Tap.op(name)",
    )


def path_matches(pattern: str, path: str) -> bool:
    """Whether a slash-joined path fits a glob; ``*`` and ``?`` stay within one name, ``**`` spans any number.

    Example:
      >>> path_matches("**/conv?", "backbone/stage/conv1"), path_matches("conv*", "backbone/conv1")
      (True, False)
    """
    return _segments_match(tuple(pattern.split("/")), tuple(path.split("/")))


def _segments_match(pattern: tuple[str, ...], path: tuple[str, ...]) -> bool:
    if not pattern:
        return not path
    head, rest = pattern[0], pattern[1:]
    if head == "**":
        # `**` alone, or at the end, needs at least one name; before more segments it may stand for none.
        first = 0 if rest else 1
        return any(_segments_match(rest, path[i:]) for i in range(first, len(path) + 1))
    return bool(path) and fnmatchcase(path[0], head) and _segments_match(rest, path[1:])
