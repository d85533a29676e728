"""A progress bar for what takes long, where somebody is looking."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

#: Seconds of work before a bar appears: what ends sooner needs none.
PATIENCE = 2.0

_Item = TypeVar("_Item")


def tracked(items: Iterable[_Item], total: int, what: str) -> Iterator[_Item]:
    """Hand items on, and show how many are done once it has taken a while, at a terminal or in a notebook.

    Args:
      items: What is worked through.
      total: How many there are.
      what: What is done with them.
    """
    start, bar, task = time.monotonic(), None, None
    try:
        for done, item in enumerate(items):
            if bar is None and done and time.monotonic() - start > PATIENCE and somebody_looks():
                bar, task = _bar(what, total)
            if bar is not None:
                bar.update(task, completed=done)
            yield item
        if bar is not None:
            bar.update(task, completed=total)
    finally:
        if bar is not None:
            bar.stop()


def somebody_looks() -> bool:
    """Whether standard error is a terminal, or this is a notebook."""
    return sys.stderr.isatty() or "ipykernel" in sys.modules


def _bar(what: str, total: int) -> tuple[Any, Any]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    bar = Progress(*columns, console=Console(stderr=True), transient=True)
    bar.start()
    return bar, bar.add_task(what, total=total)
