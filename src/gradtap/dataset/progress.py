"""How far a run is: for a bar at a terminal, and for whoever asks to be told."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from gradtap.staged.progress import PATIENCE, somebody_looks

#: A rate is told once so many tasks have followed the first one, and so many seconds have passed: workers that start
#: together finish their first tasks together.
_TASKS, _SECONDS = 4, 0.2


@dataclass(frozen=True)
class Progress:
    """How far a run is.

    Args:
      examples: How many there are in all.
      done: How many are done, those of earlier runs included.
      failures: How many of these failed.
      seconds: Since this run began to compute.
      rate: Examples a second since the first task of this run was done, so that what comes before it (a compilation,
        the start of workers) does not count; 0 until a few more are done.
    """

    examples: int
    done: int
    failures: int
    seconds: float
    rate: float

    @property
    def remaining(self) -> float:
        """Seconds that are left at this rate; infinity where there is none yet."""
        if self.done >= self.examples:
            return 0.0
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
        self._first: tuple[float, int] | None = None  # when the first task was done, and how many examples were by then
        self._tasks = 0
        self._bar: Any = None
        self._task: Any = None

    def add(self, done: int, failures: int) -> None:
        """Some more examples are done, and the number of failures has changed by so much."""
        self._done += done
        self._failures += failures
        seconds = time.monotonic() - self._start
        now = Progress(self._examples, self._done, self._failures, seconds, self._rate(seconds))
        if self._told is not None:
            self._told(now)
        if self._bar is None and seconds > PATIENCE and somebody_looks():
            self._open()
        if self._bar is not None:
            failed = f"{now.failures} failed" if now.failures else ""
            self._bar.update(
                self._task, completed=now.done, rate=f"{now.rate:.0f}/s" if now.rate else "", failed=failed
            )

    def _rate(self, seconds: float) -> float:
        if self._first is None:
            self._first = seconds, self._done
            return 0.0
        self._tasks += 1
        since = seconds - self._first[0]
        known = self._done == self._examples or (self._tasks >= _TASKS and since >= _SECONDS)
        return (self._done - self._first[1]) / max(since, 1e-9) if known else 0.0

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
