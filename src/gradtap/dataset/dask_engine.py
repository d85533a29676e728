"""Run tasks on Dask workers: processes of this machine, or those of a cluster that sees the same files.

A worker loads the job once, from a file beside the store. It computes a task, writes it, and reports; what is done is
written down here alone. Another engine of this kind needs `perform`, `Shipped`, and a way to run a function elsewhere.
"""

from __future__ import annotations

import os
import pickle
import signal
import tempfile
import threading
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import Any

import tensorflow as tf

from gradtap import errors, fork_server
from gradtap.dataset.blocks import Task
from gradtap.dataset.jobs import Commit, Job
from gradtap.dataset.reading import Read
from gradtap.dataset.store import Store
from gradtap.dataset.working import Outcome, StatisticKept
from gradtap.graph.keeping import Graphs, Trace
from gradtap.graph.model_files import as_trace, trace
from gradtap.types import Model

#: How often a task is tried again that raised; and how many workers it may take along before it is given up.
_RETRIES = 2
_DEATHS = 1
#: Tasks handed out at a time, for each worker: what was read here and waits there is in memory.
_IN_FLIGHT = 3
#: Seconds that a scheduler has to answer, and to find a worker.
_PATIENCE = 20

#: What this process has loaded, by the file it came from.
_LOADED: dict[str, Job] = {}
_LOADING = threading.Lock()  # a worker may have several threads


def perform(file: str, task: Task, reads: list[Read] | None) -> Outcome:
    """Compute and write a task in a worker, which loads the job first.

    Args:
      file: Holds the job.
      task: Which.
      reads: Its blocks, where the data cannot be read in another process.
    """
    return _loaded(file).perform(task, reads)


def states_of(file: str, block: int, read: Read | None) -> tuple[Any, dict[int, str], Mapping[int, int]]:
    """The states of one block of a statistic, for whoever puts a task together from its blocks."""
    job = _loaded(file)
    read = job.read(block) if read is None else read
    return *job.add(None, read), read.digests


def _loaded(file: str) -> Job:
    with _LOADING:
        job = _LOADED.get(file)
        if job is None:
            _LOADED.clear()
            job = _LOADED[file] = Shipped.load(Path(file))
        return job


@dataclass
class Shipped:
    """A job as it goes to another process: the model as a file or as bytes, the store as a path.

    Args:
      job: The job, without model and store.
      model: A path, or what cloudpickle made of the model.
      safe_mode: Whether code in the file is refused: in one of the user's, which was loaded here by this rule.
      own_trace: Whether the method is given a `Trace`, or the model itself.
      store: The path of the store.
      threads: How many threads a worker has for one op.
    """

    job: Job
    model: str | bytes
    safe_mode: bool
    own_trace: bool
    store: Path
    threads: int

    @classmethod
    def load(cls, file: Path) -> Job:
        """The job, ready to work."""
        shipped: Shipped = pickle.loads(file.read_bytes())
        with suppress(RuntimeError):  # TensorFlow is at work already, where the worker is one of several in a process
            tf.config.threading.set_intra_op_parallelism_threads(shipped.threads)
        if isinstance(shipped.model, bytes):
            model = as_trace(pickle.loads(shipped.model))
        else:
            model = trace(shipped.model, safe_mode=shipped.safe_mode)
        model = model.with_graphs(Graphs())
        job = shipped.job
        job.worker.model = model if shipped.own_trace else model.model
        return replace(job, kept=job.kept.into(Store(shipped.store)))


@dataclass
class DaskEngine:
    """Runs tasks on Dask; see `gradtap.dataset.jobs.Engine`.

    Args:
      model: As the user gave it.
      workers: How many processes on this machine, where there is no scheduler.
      scheduler: The address of a scheduler.
    """

    model: Model
    workers: int
    scheduler: str | None

    def __call__(self, job: Job, tasks: Iterable[Task], commit: Commit) -> None:
        """Compute and write every task."""
        tasks = list(tasks)
        if not tasks:
            return
        with ExitStack() as stack:
            file = stack.enter_context(self._shipped(job))
            client = stack.enter_context(self._client())
            suspects = self._run_all(client, str(file), job, tasks, commit)
            for task in suspects:
                self._run_alone(client, str(file), job, task, commit)

    def _run_all(self, client: Any, file: str, job: Job, tasks: list[Task], commit: Commit) -> list[Task]:
        """Run tasks side by side; those that workers died of are handed back."""
        distributed = _distributed()
        waiting, suspects = iter(tasks), []
        running: dict[Any, Task] = {}

        def submit(task: Task) -> Any:
            reads = None if job.worker.source.portable else [job.read(block) for block in task.blocks]
            future = client.submit(perform, file, task, reads, pure=False, retries=_RETRIES)
            running[future] = task
            return future

        wanted = _IN_FLIGHT * max(1, sum(client.nthreads().values()))
        first = [submit(task) for _, task in zip(range(wanted), waiting, strict=False)]
        finished = distributed.as_completed(first, raise_errors=False)
        for future in finished:
            task = running.pop(future)
            if isinstance(future.exception(), distributed.KilledWorker):
                suspects.append(task)
            else:
                commit(future.result())
            future.release()
            following = next(waiting, None)
            if following is not None:
                finished.add(submit(following))
        return suspects

    def _run_alone(self, client: Any, file: str, job: Job, task: Task, commit: Commit) -> None:
        """Run a task with nothing beside it, block by block: which of them workers die of is then sure."""
        killed = _distributed().KilledWorker
        kept: Any = None
        reasons: dict[int, str] = {}
        digests: dict[int, int] = {}
        for block in task.blocks:
            read = None if job.worker.source.portable else job.read(block)
            single = Task(task.number, range(block, block + 1))
            try:
                if isinstance(job.kept, StatisticKept):
                    future = client.submit(states_of, file, block, read, pure=False, retries=_RETRIES)
                    states, failed, found = future.result()
                    kept = job.kept.merged(kept, states)
                else:
                    reads = None if read is None else [read]
                    future = client.submit(perform, file, single, reads, pure=False, retries=_RETRIES)
                    _, failed, found = future.result()
            except killed:
                failed, found = dict.fromkeys(job.plan.rows(block), "every worker that computed its block died"), {}
            reasons |= failed
            digests |= found
        if isinstance(job.kept, StatisticKept):
            job.kept.write(task, job.kept.empty() if kept is None else kept)
        commit(Outcome(task, reasons, digests))

    @contextmanager
    def _client(self) -> Iterator[Any]:
        distributed = _distributed()
        import dask

        if self.scheduler is not None:
            try:
                client = distributed.Client(self.scheduler, timeout=_PATIENCE)
            except (OSError, ValueError) as error:
                raise errors.ArgumentError(
                    f"scheduler={self.scheduler!r} does not answer.",
                    [("it said", str(error)[:200])],
                    "give the address that `dask scheduler` prints: tcp://host:8786",
                ) from None
            with client:
                try:
                    client.wait_for_workers(1, timeout=_PATIENCE)
                except TimeoutError:
                    raise errors.ArgumentError(
                        f"scheduler={self.scheduler!r} has no worker.", [], f"dask worker {self.scheduler}"
                    ) from None
                yield client
            return
        settings = {
            "distributed.scheduler.allowed-failures": _DEATHS,
            "distributed.worker.multiprocessing-method": fork_server.start(),
            "distributed.logging.distributed": "critical",  # what goes wrong with a task comes back with it
        }
        with ExitStack() as stack:
            stack.enter_context(dask.config.set(settings))
            folder = stack.enter_context(tempfile.TemporaryDirectory())
            with _interrupt_held():
                try:
                    made = distributed.LocalCluster(
                        n_workers=self.workers,
                        threads_per_worker=1,
                        dashboard_address="127.0.0.1:0",
                        local_directory=folder,
                        silence_logs="CRITICAL",
                    )
                except RuntimeError as error:
                    raise _not_started(error) from None
                client = stack.enter_context(distributed.Client(stack.enter_context(made)))
            yield client

    @contextmanager
    def _shipped(self, job: Job) -> Iterator[Path]:
        """The job in a file beside the store, while it is needed."""
        store = job.kept.store
        stem = store.path.with_name(f"{store.path.name}.{uuid.uuid4().hex[:8]}.job")
        saved = stem.with_suffix(".keras")
        try:
            threads = 0 if self.scheduler is not None else max(1, (os.cpu_count() or 1) // self.workers)
            model = self._model(saved, job.worker.model)
            own_trace = isinstance(job.worker.model, Trace)
            bare = replace(job, worker=job.worker.without_model(), kept=job.kept.into(None))
            shipped = Shipped(bare, model, model != str(saved), own_trace, store.path, threads)
            stem.write_bytes(_pickled(shipped, "the data, the method or the target"))
            yield stem
        finally:
            for file in (stem, saved):
                file.unlink(missing_ok=True)

    def _model(self, file: Path, asked: Any) -> str | bytes:
        """The model as another process gets it."""
        if isinstance(self.model, (str, os.PathLike)):
            return str(Path(self.model).expanduser().resolve())
        model = asked.model if isinstance(asked, Trace) else asked
        import keras

        if isinstance(model, keras.Model):
            model.save(file)
            return str(file)
        return _pickled(model, "the model")


@contextmanager
def _interrupt_held() -> Iterator[None]:
    """Hear Ctrl-C at the end: a cluster that has started in part cannot be closed. A second Ctrl-C is heard at once."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread hears it at all
        return
    before = signal.getsignal(signal.SIGINT)
    held: list[FrameType | None] = []

    def hold(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, before)
        held.append(frame)

    if not callable(before):
        yield
        return
    signal.signal(signal.SIGINT, hold)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if held:
            before(signal.SIGINT, held[0])


def _not_started(error: RuntimeError) -> errors.GradtapError:
    return errors.ArgumentError(
        "the workers did not start.",
        [
            ("why", "each of them imports the script that runs, which must neither fail then nor start workers again"),
            ("it said", str(error)[:200]),
        ],
        ['put what the script does under `if __name__ == "__main__":`', 'engine="local"'],
    )


def _pickled(value: Any, what: str) -> bytes:
    _distributed()
    import cloudpickle

    try:
        return bytes(cloudpickle.dumps(value))
    except Exception as error:  # whatever an object of the user's does when it is pickled
        raise errors.ArgumentError(
            f"{what} cannot be sent to another process.",
            [("it said", f"{type(error).__name__}: {error}"[:200])],
            ['engine="local"', "save the model, and give the path"],
        ) from error


def _distributed() -> Any:
    try:
        import distributed
    except ImportError:
        raise errors.MissingExtraError.of("scale", 'engine="dask"') from None
    return distributed
