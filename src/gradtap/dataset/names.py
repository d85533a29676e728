"""What a tap's array is called in a store.

An address keeps its slashes, as groups. Every other character but letters, digits, ``_``, ``-`` and ``.`` is written as
in a web address: ``:input`` is ``%3Ainput``, ``shared[0]`` is ``shared%5B0%5D``. A layer that other taps are inside of
would have to be an array and a group at once, so its array stands in the group, under its side: ``backbone/%3Aoutput``.
"""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import quote, unquote

from gradtap.errors import AddressSyntaxError
from gradtap.tap import Tap

#: What else stands at the top of a store.
RESERVED = ("done", "failure", "parts", "also")
_OWN = "%3Aoutput"


def array_names(addresses: Iterable[str]) -> dict[str, str]:
    """The name of each address's array.

    Args:
      addresses: All that the store holds.

    Example:
      >>> array_names([":input", "block", "block/conv1", "done"])
      {':input': '%3Ainput', 'block': 'block/%3Aoutput', 'block/conv1': 'block/conv1', 'done': '%64one'}
    """
    plain = {address: _quoted(address) for address in addresses}
    groups = {name[:i] for name in plain.values() for i, character in enumerate(name) if character == "/"}
    return {address: f"{name}/{_OWN}" if name in groups else name for address, name in plain.items()}


def address_of(name: str) -> str:
    """The address that an array is named by.

    Example:
      >>> address_of("block/%3Aoutput"), address_of("shared%5B0%5D")
      ('block', 'shared[0]')
    """
    return unquote(name.removesuffix(f"/{_OWN}"))


def _quoted(address: str) -> str:
    parts = [_part(part) for part in address.split("/")]
    if parts[0] in RESERVED:
        parts[0] = f"%{ord(parts[0][0]):02x}{parts[0][1:]}"
    return "/".join(parts)


def _part(part: str) -> str:
    """One step of a path; none is empty, hidden, or of Zarr's own."""
    quoted = quote(part, safe="")
    if not part or part.strip(".") == "" or part.startswith("__") or part in ("zarr.json", ".zarray", ".zgroup"):
        return "".join(f"%{byte:02X}" for byte in part.encode()) or "%00"
    return quoted.replace("~", "%7E")


def is_weight(key: str) -> bool:
    """Whether a key is the address of a weight."""
    try:
        return Tap.parse(key).is_weight
    except AddressSyntaxError:  # the name of an op, or of what comes beside the results
        return False
