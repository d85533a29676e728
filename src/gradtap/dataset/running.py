"""Run a method over a whole data set, into a store."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from gradtap import errors, fork_server
from gradtap.asking import check_choice
from gradtap.dataset import preparing
from gradtap.dataset.axes import axes_of
from gradtap.dataset.blocks import Task
from gradtap.dataset.comparing import check_same
from gradtap.dataset.jobs import Engine, Job
from gradtap.dataset.kinds_of_data import as_source
from gradtap.dataset.local_engine import run_locally
from gradtap.dataset.progress import Meter, Told
from gradtap.dataset.reading import Source
from gradtap.dataset.store import Store, compressors, create, remove_leftovers
from gradtap.dataset.stored import Stored
from gradtap.dataset.working import ArraysKept, Outcome, StatisticKept, Worker
from gradtap.graph.keeping import Graphs, Trace
from gradtap.graph.model_files import as_trace
from gradtap.locking import locked
from gradtap.staged.progress import tracked
from gradtap.types import Address, Model


def run(
    model: Model,
    data: Any,
    method: Any = "gradients",
    store: str | os.PathLike[str] = "results.zarr",
    *,
    at: Address | Sequence[Address],
    target: Any = None,
    engine: Literal["local", "dask"] = "local",
    block: int = 64,
    dtype: Literal["float16", "float32", "float64"] | None = None,
    compression: Literal["fast", "small", "none"] = "fast",
    retry: bool = False,
    workers: int = 2,
    scheduler: str | None = None,
    preprocess: str | None = None,
    image_size: Sequence[int] | None = None,
    columns: Sequence[str] | None = None,
    progress: Told | None = None,
    **options: Any,
) -> Stored:
    """Compute a method for every example of a data set, block by block, into a store that a later call goes on with.

    A run that was killed goes on where it stopped when the same is called again, and the store comes out as if nothing
    had happened. A bad example (a damaged file, NaN, a wrong shape) is recorded with its reason and stops nothing.

    Args:
      model: See `gradtap.gradients`. With Dask: the path of a model file, a Keras model that can be saved, or what
        cloudpickle takes.
      data: A folder of images, a ``.npy``, ``.npz``, ``.parquet`` or Zarr, by path; arrays ``(examples, ...)``, or a
        dict or list of them; a `tf.data.Dataset` of batches; a Keras ``PyDataset``; or a sequence of examples. Labels
        that come along, as the second of a tuple, are left out.
      method: ``"gradients"``, ``"activations"``, the name of an attribution or of an attack, a function like them, or
        a statistic such as `gradtap.dataset.mean`.
      store: Where the results go: a folder that does not exist, or the store of the same run.
      at: See `gradtap.gradients`.
      target: See `gradtap.gradients`, or something for each example of the data: an array of classes, a loss with its
        labels; for an attack, the labels.
      engine: ``"local"`` for this process, ``"dask"`` for several, here or on a cluster.
      block: How many examples are computed at a time, and stand in one chunk of the store.
      dtype: What floats are stored as; None for what they are. An example with a number that is too large for it, or
        with nothing but numbers that are too small, counts as failed.
      compression: ``"fast"`` (LZ4), ``"small"`` (Zstandard) or ``"none"``.
      retry: Compute the blocks with failed examples anew, and those with examples that have changed.
      workers: With Dask: how many processes on this machine.
      scheduler: With Dask: the address of a scheduler whose workers see the same files; ``workers`` is not used.
      preprocess: For images: what is done to their pixels, as ``gradtap run --help`` lists it; None for ``"unit"``.
      image_size: For images: height and width, where the model takes any; None leaves each image as large as it is.
      columns: Of tables and several arrays: the inputs; None for all, or for those with the names of the model's.
      progress: Is told after every task how far the run is.
      options: Keywords of the method, such as ``steps``, the same for all examples. Where it has a seed, the seed is 0
        unless given; where it warns, it does so for the first example alone unless ``checks`` is given.

    Returns:
      `Stored`: what `gradtap.dataset.open` gives.

    Raises:
      StoreMismatchError: The store holds a run of another model, other data or other arguments.
      StoreLockedError: Another run is at work on the store.
      StoreError: The store cannot be written, or is none.
      InputFileError: The data cannot be read.
      ArgumentError: A keyword has a value outside of its choices.
      GradtapError: Whatever is wrong with the model, the target or the addresses; it is found before the run begins.

    Example:
      >>> import keras, numpy as np
      >>> from gradtap import dataset
      >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, name="hidden"), keras.layers.Dense(2)])
      >>> found = dataset.run(model, np.ones((100, 4)), "gradients", "run.zarr", at="hidden", target=0)
      >>> found["hidden"].shape, found.complete
      ((100, 3), True)
    """
    _check_engine(engine, scheduler)
    check_choice("retry", retry, (True, False))
    preparing.check_counts(block=block, workers=workers)
    compressors(compression)
    path = preparing.store_path(store)
    if engine == "dask" and scheduler is None:
        fork_server.start()  # it imports TensorFlow while the question is looked at here
    with locked(path):
        remove_leftovers(path)
        trace = as_trace(model).with_graphs(Graphs())
        there = Store(path) if os.path.lexists(path) else None
        count = there.plan.examples if there is not None else None
        source = as_source(data, trace, preprocess=preprocess, size=image_size, columns=columns, count=count)
        question = preparing.Question.of(method, options, target, at, dtype, source.count)
        job, opened = _prepared(trace, source, question, path, there, int(block), compression, retry)
        run_tasks = _engine(engine, model, workers, scheduler)
        _compute(job, opened, run_tasks, progress)
    return Stored(Store(path))


def _prepared(
    trace: Trace,
    source: Source,
    question: preparing.Question,
    path: Path,
    there: Store | None,
    block: int,
    compression: str,
    retry: bool,
) -> tuple[Job, Store]:
    """Ask for one example, compare or make the store, and put the job together."""
    method = question.method
    asked = trace if method.is_ours else trace.model
    worker = Worker(asked, source, method, question.target, question.targets, question.at)
    group, results = preparing.first_result(worker)
    worker.at = preparing.resolved(worker, question, results)
    plan = preparing.plan_for(question, source.count, block)
    graph = preparing.forward_graph(trace, group, method)
    preparing.check_targets(question, graph)
    preparing.warn_of_coupling(question, graph, block)
    axes = axes_of(graph, results)
    specs = preparing.specs_for(question, results, axes, preparing.varies(source, trace))
    keys = [key for key in results if "::" not in key]
    header = preparing.header_of(trace, source, question, plan, graph, specs, keys)
    statistic = preparing.statistic_of(question, results, axes)
    if there is None:
        states = {} if statistic is None else statistic.empty_by_name()
        create(path, header, plan, specs, states, compression, getattr(source, "names", ()))
        there = Store(path)
    else:
        check_same(path, there.header, header, repaired=retry)
        if retry:
            _take_back(there, worker, header)
    kept = ArraysKept(there) if statistic is None else statistic.into(there)
    return Job(worker, kept, there.plan), there


def _take_back(store: Store, worker: Worker, header: dict[str, Any]) -> None:
    """Mark the tasks with failed examples as to be done anew, and those with examples that have changed since."""
    tasks: Iterable[Task] = map(store.plan.task, range(store.plan.tasks))
    changed = store.header["data"] != header["data"]
    if changed:
        tasks = tracked(tasks, store.plan.tasks, "looking for changed examples")
    for task in tasks:
        rows = range(store.plan.rows(task.blocks[0]).start, store.plan.rows(task.blocks[-1]).stop)
        failed = store.codes[rows.start : rows.stop].any()
        done = store.done[task.blocks.start : task.blocks.stop].all()
        if failed or (changed and done and not _as_before(store, worker, task)):
            store.mark(task.blocks, done=False)
    store.update_header({**store.header, "data": header["data"]})


def _as_before(store: Store, worker: Worker, task: Task) -> bool:
    """Whether every example of a task is what it was when the task was computed."""
    for block in task.blocks:
        rows = store.plan.rows(block)
        digests = worker.read(rows).digests
        if any(digests.get(i) != store.digests[i] for i in rows):
            return False
    return True


def _compute(job: Job, store: Store, run_tasks: Engine, told: Told | None) -> None:
    """Run what is not done yet, and write down what is."""
    plan = store.plan
    before = sum(len(plan.rows(block)) for block in np.flatnonzero(store.done).tolist())
    meter = Meter(plan.examples, before, int(np.count_nonzero(store.codes)), told)

    def commit(outcome: Outcome) -> None:
        blocks = outcome.task.blocks
        rows = range(plan.rows(blocks[0]).start, plan.rows(blocks[-1]).stop)
        failed = int(np.count_nonzero(store.codes[rows.start : rows.stop]))
        store.record(rows, outcome.reasons, outcome.digests)
        store.mark(blocks, done=True)
        meter.add(len(rows), len(outcome.reasons) - failed)

    try:
        run_tasks(job, plan.pending(store.done.tolist()), commit)
    finally:
        meter.close()
    if isinstance(job.kept, StatisticKept):
        job.kept.finish()
    store.clean()


def _check_engine(engine: str, scheduler: str | None) -> None:
    check_choice("engine", engine, ("local", "dask"))
    if engine == "dask" and scheduler is None:
        fork_server.check_not_a_copy()
    if scheduler is not None and engine != "dask":
        raise errors.ArgumentError('scheduler= is for engine="dask".', [("received", scheduler)], 'engine="dask"')


def _engine(name: str, model: Model, workers: int, scheduler: str | None) -> Engine:
    if name == "local":
        return run_locally
    from gradtap.dataset.dask_engine import DaskEngine

    return DaskEngine(model, workers, scheduler)
