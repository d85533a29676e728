"""Run tasks in this process: the next blocks are read and the last ones written while one is computed."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from gradtap.dataset.blocks import Task
from gradtap.dataset.jobs import Commit, Job
from gradtap.dataset.working import Outcome

#: How many blocks are read ahead, and how many tasks may wait to be written: what is in memory at a time.
_AHEAD = 2

_In = TypeVar("_In")
_Out = TypeVar("_Out")


def run_locally(job: Job, tasks: Iterable[Task], commit: Commit) -> None:
    """Compute and write every task; see `gradtap.dataset.jobs.Engine`."""
    tasks = list(tasks)
    reader, writer = ThreadPoolExecutor(1), ThreadPoolExecutor(1)
    written: deque[Future[None]] = deque()
    try:
        reads = _ahead(reader, job.read, (block for task in tasks for block in task.blocks))
        for task in tasks:
            kept: Any = None
            reasons: dict[int, str] = {}
            digests: dict[int, int] = {}
            for _ in task.blocks:
                read = next(reads)
                kept, failed = job.add(kept, read)
                reasons |= failed
                digests |= read.digests
            while len(written) >= _AHEAD:
                written.popleft().result()
            written.append(writer.submit(_write, job, kept, Outcome(task, reasons, digests), commit))
        while written:
            written.popleft().result()
    finally:
        reader.shutdown(wait=True, cancel_futures=True)
        writer.shutdown(wait=True)  # what is computed is not lost


def _write(job: Job, kept: Any, outcome: Outcome, commit: Commit) -> None:
    job.kept.write(outcome.task, kept)
    commit(outcome)


def _ahead(pool: ThreadPoolExecutor, work: Callable[[_In], _Out], items: Iterable[_In]) -> Iterator[_Out]:
    """Work through items in their order, some of them ahead of who asks."""
    waiting: deque[Future[_Out]] = deque()
    for item in items:
        waiting.append(pool.submit(work, item))
        if len(waiting) > _AHEAD:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()
