"""How a run is cut up: examples into blocks, blocks into tasks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

#: A statistic is written this often, at most; what comes between is computed anew after a kill.
_PARTS = 32


class Task(NamedTuple):
    """What is computed, written and marked as done together.

    Args:
      number: Which.
      blocks: Its blocks: one, or several for a statistic.
    """

    number: int
    blocks: range


@dataclass(frozen=True)
class Plan:
    """The blocks of a run and its tasks; a store keeps them, so that a later run cuts in the same way.

    Args:
      examples: How many.
      block: How many are computed at a time.
      blocks_of_task: How many blocks make a task.

    Example:
      >>> plan = Plan(examples=10, block=4, blocks_of_task=2)
      >>> [list(plan.rows(b)) for b in range(plan.blocks)]
      [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    """

    examples: int
    block: int
    blocks_of_task: int = 1

    @classmethod
    def for_statistic(cls, examples: int, block: int) -> Plan:
        """The plan of a run whose results are sums: some tens of tasks, of whatever number of blocks that takes."""
        blocks = -(-examples // block)
        return cls(examples, block, max(1, -(-blocks // _PARTS)))

    @property
    def blocks(self) -> int:
        """How many blocks there are."""
        return -(-self.examples // self.block)

    @property
    def tasks(self) -> int:
        """How many tasks there are."""
        return -(-self.blocks // self.blocks_of_task)

    def rows(self, block: int) -> range:
        """The examples of a block."""
        return range(block * self.block, min((block + 1) * self.block, self.examples))

    def task(self, number: int) -> Task:
        """One of the tasks."""
        first = number * self.blocks_of_task
        return Task(number, range(first, min(first + self.blocks_of_task, self.blocks)))

    def pending(self, done: list[bool]) -> Iterator[Task]:
        """The tasks of which not all blocks are done."""
        for number in range(self.tasks):
            task = self.task(number)
            if not all(done[block] for block in task.blocks):
                yield task
