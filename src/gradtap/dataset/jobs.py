"""A job: all that is needed to compute any of its tasks, here or in another process."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from gradtap.dataset.blocks import Plan, Task
from gradtap.dataset.reading import Read
from gradtap.dataset.working import Kept, Outcome, Worker

#: Is told of each task once its data are written.
Commit = Callable[[Outcome], None]


@dataclass(frozen=True)
class Job:
    """All that is needed to compute tasks.

    Args:
      worker: Reads and computes blocks.
      kept: What is done with the results.
      plan: How the run is cut.
    """

    worker: Worker
    kept: Kept
    plan: Plan

    def read(self, block: int) -> Read:
        """Read a block."""
        return self.worker.read(self.plan.rows(block))

    def add(self, kept: Any, read: Read) -> tuple[Any, dict[int, str]]:
        """Compute what was read and take it in."""
        return self.kept.add(kept, self.worker.compute(read))

    def perform(self, task: Task, reads: Sequence[Read] | None = None) -> Outcome:
        """Compute and write a task, block after block.

        Args:
          task: Which.
          reads: Its blocks, where they were read elsewhere.
        """
        kept: Any = None
        reasons: dict[int, str] = {}
        digests: dict[int, int] = {}
        for position, block in enumerate(task.blocks):
            read = self.read(block) if reads is None else reads[position]
            kept, failed = self.add(kept, read)
            reasons |= failed
            digests |= read.digests
        self.kept.write(task, kept)
        return Outcome(task, reasons, digests)


class Engine(Protocol):
    """Whatever runs tasks: in this process, on a cluster."""

    def __call__(self, job: Job, tasks: Iterable[Task], commit: Commit) -> None:
        """Compute and write every task, in any order, and tell of each once it is written.

        Writing a task twice does no harm: it writes the same again.
        """
