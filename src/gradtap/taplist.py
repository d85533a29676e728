"""The list of a model's taps, which prints as a tree and shows itself in a notebook."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, overload

from gradtap.html_table import html_table
from gradtap.tap import Tap

#: Indents a name by the depth of its layer.
EM_SPACE = "\u2003"


@dataclass(frozen=True)
class TapEntry:
    """One place that can be tapped.

    Args:
      tap: The tap, for ``at=``.
      address: The same as text.
      layer: Name of the layer's class; ``"model"`` for the model itself.
      shape: Of the tensor, None in free axes; None where the layer did not run.
      dtype: Name of its type; empty where the layer did not run.
      calls: How often the layer runs in a forward pass.
      parameters: Number of weights of the layer and all below it.
      reached: Whether the target, or some output where none was given, has a gradient here.
      in_loop: Whether the layer runs inside of a loop or a branch, where it has no tensor to tap.
    """

    tap: Tap
    address: str
    layer: str
    shape: tuple[int | None, ...] | None
    dtype: str
    calls: int
    parameters: int
    reached: bool
    in_loop: bool = False


class TapList(Sequence[TapEntry]):
    """The entries of `gradtap.taps`: a list that prints as a tree, and as HTML in a notebook.

    Args:
      model: Name of the model's class.
      entries: In the order of the model.
    """

    def __init__(self, model: str, entries: Sequence[TapEntry]) -> None:
        self.model = model
        self._entries = list(entries)

    @overload
    def __getitem__(self, index: int) -> TapEntry: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[TapEntry]: ...
    def __getitem__(self, index: int | slice) -> TapEntry | Sequence[TapEntry]:
        return self._entries[index]

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[TapEntry]:
        return iter(self._entries)

    def __contains__(self, entry: object) -> bool:
        return entry in self._entries or any(entry in (e.address, e.tap) for e in self._entries)

    def __rich__(self) -> Any:
        """The tree, for `rich.print`."""
        from rich.text import Text
        from rich.tree import Tree

        root = Tree(Text(self.model, style="bold"))
        branches: dict[str, Any] = {"": root}
        several: set[str] = set()
        for entry in self._entries:
            path = entry.tap.path
            if not path:
                root.add(_rich_row(entry.address, entry))
                continue
            parent = next((p for p in _parents(path) if p in branches or p in several), "")
            if parent in several and parent not in branches:
                # What runs in one of the calls of a layer has calls of its own; its path is that of the layer.
                outer = next((p for p in _parents(parent) if p in branches), "")
                branches[parent] = branches[outer].add(Text(parent[len(outer) :].lstrip("/"), style="bold"))
            name = path[len(parent) :].lstrip("/") + entry.address[len(path) :]
            branch = branches[parent].add(_rich_row(name, entry))
            if entry.tap.call is None:
                branches.setdefault(path, branch)
            else:
                several.add(path)
        return root

    def __str__(self) -> str:
        from io import StringIO

        from rich.console import Console

        page = StringIO()
        Console(file=page, width=120, color_system=None).print(self)
        return page.getvalue().rstrip()

    __repr__ = __str__

    def _repr_html_(self) -> str:
        head = ["address", "layer", "shape", "dtype", "calls", "parameters", ""]
        rows = [
            [
                EM_SPACE * e.tap.path.count("/") + e.address,
                *(e.layer, _shape_text(e.shape), e.dtype, str(e.calls), f"{e.parameters:,}", _remark(e)),
            ]
            for e in self._entries
        ]
        return html_table(head, rows, caption=self.model)


def _parents(path: str) -> list[str]:
    names = path.split("/")
    return ["/".join(names[:i]) for i in range(len(names) - 1, 0, -1)]


def _rich_row(name: str, entry: TapEntry) -> Any:
    from rich.text import Text

    row = Text(name, style="bold cyan" if entry.reached else "dim")
    row.append(f"  {entry.layer}", style="green")
    if entry.shape is not None:
        row.append(f"  {_shape_text(entry.shape)} {entry.dtype}", style="default")
    if entry.parameters:
        row.append(f"  {entry.parameters:,} parameters", style="dim")
    remark = _remark(entry)
    if remark:
        row.append(f"  {remark}", style="yellow")
    return row


def _remark(entry: TapEntry) -> str:
    if entry.shape is None:
        return "runs inside a loop" if entry.in_loop else "does not run"
    return "" if entry.reached else "no gradient"


def _shape_text(shape: tuple[int | None, ...] | None) -> str:
    return "" if shape is None else "(" + ", ".join("·" if n is None else str(n) for n in shape) + ")"
