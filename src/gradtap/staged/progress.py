"""A progress bar for what takes long, where somebody is looking."""

from __future__ import annotations

import sys
import time
from collections.abc import Generator, Iterable, Iterator
from typing import Any, TypeVar

#: Seconds of work before a bar appears: what ends sooner needs none.
PATIENCE = 2.0

#: Seconds that a stretch of steps is to take: until it ends, no bar moves and no Ctrl-C is heard.
_STRETCH = 1.0

#: How many steps the first stretch has, and how many times as many the next one may have.
_FIRST, _GROWTH = 4, 2

_Item = TypeVar("_Item")


def tracked(items: Iterable[_Item], total: int | None, what: str) -> Generator[_Item]:
    """Hand items on, and show how many are done once it has taken a while, at a terminal or in a notebook.

    Args:
      items: What is worked through.
      total: How many there are; None where nobody knows.
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


def stretches(total: int, what: str) -> Iterator[tuple[int, int]]:
    """Cut a long run of steps into stretches that each take about a second, with progress.

    Args:
      total: How many steps there are.
      what: What is done with them.

    Yields:
      Where a stretch begins and where it ends.
    """
    begun, bar, task = time.monotonic(), None, None
    start, size = 0, _FIRST
    try:
        while start < total:
            stop = min(start + size, total)
            before = time.monotonic()
            if bar is None and start and before - begun > PATIENCE and somebody_looks():
                bar, task = _bar(what, total)
            if bar is not None:
                bar.update(task, completed=start)
            yield start, stop
            taken = time.monotonic() - before
            fitting = int((stop - start) * _STRETCH / max(taken, 1e-6))
            start, size = stop, min(max(1, fitting), _GROWTH * size)
    finally:
        if bar is not None:
            bar.stop()


def somebody_looks() -> bool:
    """Whether standard error is a terminal, or this is a notebook."""
    return sys.stderr.isatty() or "ipykernel" in sys.modules


def _bar(what: str, total: int | None) -> tuple[Any, Any]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    bar = Progress(*columns, console=Console(stderr=True), transient=True)
    bar.start()
    return bar, bar.add_task(what, total=total)
