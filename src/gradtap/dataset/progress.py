"""How far a run is: for a bar at a terminal, and for whoever asks to be told."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from gradtap.staged.progress import PATIENCE, somebody_looks


@dataclass(frozen=True)
class Progress:
    """How far a run is.

    Args:
      examples: How many there are in all.
      done: How many are done, those of earlier runs included.
      failures: How many of these failed.
      seconds: Since this run began to compute.
      rate: Examples a second in this run.
    """

    examples: int
    done: int
    failures: int
    seconds: float
    rate: float

    @property
    def remaining(self) -> float:
        """Seconds that are left at this rate."""
        return (self.examples - self.done) / self.rate if self.rate else float("inf")


Told = Callable[[Progress], None]


class Meter:
    """Counts what is done, tells of it, and shows a bar where somebody is looking.

    Args:
      examples: How many there are in all.
      done: How many are done already.
      failures: How many of these failed.
      told: Is told after every task.
    """

    def __init__(self, examples: int, done: int, failures: int, told: Told | None) -> None:
        self._examples, self._before, self._done, self._failures = examples, done, done, failures
        self._told = told
        self._start = time.monotonic()
        self._bar: Any = None
        self._task: Any = None

    def add(self, done: int, failures: int) -> None:
        """Some more examples are done, and the number of failures has changed by so much."""
        self._done += done
        self._failures += failures
        seconds = time.monotonic() - self._start
        now = Progress(
            self._examples, self._done, self._failures, seconds, (self._done - self._before) / max(seconds, 1e-9)
        )
        if self._told is not None:
            self._told(now)
        if self._bar is None and seconds > PATIENCE and somebody_looks():
            self._open()
        if self._bar is not None:
            failed = f"{now.failures} failed" if now.failures else ""
            self._bar.update(self._task, completed=now.done, rate=f"{now.rate:.0f}/s", failed=failed)

    def _open(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = ("{task.description}", BarColumn(), MofNCompleteColumn(), "{task.fields[rate]}")
        texts = [TextColumn(column) if isinstance(column, str) else column for column in columns]
        self._bar = Progress(
            *texts, TimeRemainingColumn(), TextColumn("[red]{task.fields[failed]}"), console=Console(stderr=True)
        )
        self._task = self._bar.add_task("examples", total=self._examples, completed=self._before, rate="", failed="")
        self._bar.start()

    def close(self) -> None:
        """Leave the terminal as it is."""
        if self._bar is not None:
            self._bar.stop()
