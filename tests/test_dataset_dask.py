"""Whole data sets on Dask: the same store as in one process, whatever dies meanwhile."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

import gradtap as gt
from command_line import save_model
from gradtap import dataset, fork_server
from gradtap.dataset import dask_engine
from gradtap.dataset.jobs import Job
from stores import assert_same, images, images_model, sequence_model

distributed = pytest.importorskip("distributed")


def run(model, data, store, method="gradients", **more):
    return dataset.run(model, data, method, store, **({"at": ["conv1", ":input"], "target": 1, "block": 4} | more))


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """Two workers of this machine, reached by address, as those of any cluster."""
    import dask

    settings = {"distributed.scheduler.allowed-failures": 1, "distributed.scheduler.worker-saturation": 1.0}
    folder = str(tmp_path_factory.mktemp("dask"))
    with (
        dask.config.set(settings),
        distributed.LocalCluster(
            2, threads_per_worker=1, dashboard_address="127.0.0.1:0", local_directory=folder, silence_logs="CRITICAL"
        ) as found,
    ):
        yield found


@pytest.fixture
def on_cluster(cluster):
    return {"engine": "dask", "scheduler": cluster.scheduler_address}


@pytest.mark.parametrize(("method", "kind"), [("gradients", "a file"), ("variance", "in memory")])
def test_the_store_is_that_of_one_process(tmp_path, on_cluster, method, kind):
    data = images(50)
    data[11] = np.nan
    if kind == "a file":
        np.save(tmp_path / "x.npy", data)
        data = tmp_path / "x.npy"
    asked = dataset.variance() if method == "variance" else method
    run(images_model(), data, tmp_path / "one.zarr", asked)
    run(images_model(), data, tmp_path / "dask.zarr", asked, **on_cluster)
    assert_same(tmp_path / "one.zarr", tmp_path / "dask.zarr")
    assert set(os.listdir(tmp_path)) - {"x.npy"} == {"one.zarr", "dask.zarr"}


def test_examples_of_any_length(tmp_path, on_cluster):
    rng = np.random.default_rng(0)
    data = [rng.normal(size=(n, 2)).astype("float32") for n in (3, 70, 5, 9, 90, 3, 2, 80)]
    one = run(sequence_model(), data, tmp_path / "one.zarr", at="lstm", block=1)
    other = run(sequence_model(), data, tmp_path / "dask.zarr", at="lstm", block=1, **on_cluster)
    assert_same(tmp_path / "one.zarr", tmp_path / "dask.zarr")
    assert other["lstm"].example(4).shape == (90, 3) == one["lstm"].example(4).shape


def deadly(how):
    """A method that kills the worker that computes example 21, and works anywhere else."""

    def method(model, inputs, *, target, at):
        if how is not None and np.any(np.abs(inputs) > 1e5) and (how == "always" or os.path.exists(how)):
            if how != "always":
                os.unlink(how)
            os.kill(os.getpid(), signal.SIGKILL)
        return gt.gradients(model, inputs, target=target, at=at, checks=False)

    return method


def data_with_a_trigger():
    data = images(50)
    data[21] *= 1e6
    return data


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["arrays", "statistic"])
def test_a_block_that_always_kills_its_worker_is_recorded_and_the_rest_finishes(tmp_path, on_cluster, kind):
    method = deadly("always")
    asked = dataset.mean(method) if kind == "statistic" else method
    found = run(images_model(), data_with_a_trigger(), tmp_path / "a.zarr", asked, **on_cluster)
    assert found.complete
    assert found.failures == dict.fromkeys(range(20, 24), "every worker that computed its block died")
    keep = np.r_[0:20, 24:50]
    expected = gt.gradients(images_model(), data_with_a_trigger()[keep], target=1, at="conv1", checks=False).only
    if kind == "statistic":
        np.testing.assert_allclose(found["conv1"][:], np.mean(expected, axis=0), atol=1e-6)
    else:
        np.testing.assert_allclose(found["conv1"][:][keep], expected, atol=1e-6)


@pytest.mark.slow
def test_a_worker_that_is_killed_once_costs_nothing_but_time(tmp_path, on_cluster):
    (tmp_path / "trigger").touch()
    found = run(
        images_model(), data_with_a_trigger(), tmp_path / "a.zarr", deadly(str(tmp_path / "trigger")), **on_cluster
    )
    assert not (tmp_path / "trigger").exists() and found.complete and found.failures == {}
    expected = gt.gradients(images_model(), data_with_a_trigger(), target=1, at="conv1", checks=False).only
    np.testing.assert_allclose(found["conv1"][:], expected, atol=1e-6)


@pytest.mark.slow
def test_a_driver_that_is_killed(tmp_path):
    np.save(tmp_path / "x.npy", images(2000))
    save_model(images_model(), tmp_path / "m.keras")
    command = [sys.executable, "-m", "gradtap", "run", "m.keras", "x.npy", "--at", "conv1", "--target", "1"]
    command += ["--block", "4", "--store"]
    with subprocess.Popen([*command, "a.zarr", "--engine", "dask"], cwd=tmp_path) as process:
        while not (tmp_path / "a.zarr").exists() or dataset.open(tmp_path / "a.zarr").done.sum() < 50:
            assert process.poll() is None
            time.sleep(0.05)
        process.kill()
    assert not dataset.open(tmp_path / "a.zarr").complete
    subprocess.run([*command, "a.zarr", "--engine", "dask"], cwd=tmp_path, check=True)
    subprocess.run([*command, "b.zarr"], cwd=tmp_path, check=True)
    assert_same(tmp_path / "a.zarr", tmp_path / "b.zarr")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.zarr", "b.zarr", "m.keras", "x.npy"]


def test_workers_of_this_machine_are_forks_of_one_process_that_has_tensorflow(tmp_path):
    from multiprocessing.forkserver import _forkserver

    def parent(model, inputs, *, target, at):
        return {at: np.full((len(inputs), 1), os.getppid())}

    found = run(images_model(), images(40), tmp_path / "a.zarr", parent, at="conv1", engine="dask")
    assert np.unique(found["conv1"][:]).tolist() == [_forkserver._forkserver_pid]


def test_the_process_to_fork_is_started_without_tensorflow_here():
    code = "import sys, gradtap.fork_server as f; f.start(); assert 'tensorflow' not in sys.modules; print(f.start())"
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "forkserver\n"


def test_a_system_without_forks_spawns(monkeypatch):
    monkeypatch.setattr("multiprocessing.get_all_start_methods", lambda: ["spawn"])
    assert fork_server.start() == "spawn"


def test_a_run_goes_on_with_another_engine(tmp_path, on_cluster):
    class Stop(Exception):
        pass

    def stop(now):
        if now.done >= 20:
            raise Stop

    with pytest.raises(Stop):
        run(images_model(), images(50), tmp_path / "a.zarr", progress=stop)
    assert not dataset.open(tmp_path / "a.zarr").complete
    run(images_model(), images(50), tmp_path / "a.zarr", **on_cluster)
    run(images_model(), images(50), tmp_path / "b.zarr")
    assert_same(tmp_path / "a.zarr", tmp_path / "b.zarr")


def test_a_model_is_loaded_once_for_each_worker(tmp_path, cluster, on_cluster):
    with distributed.Client(cluster.scheduler_address) as client:
        client.run(count_loads)
        run(images_model(), images(50), tmp_path / "a.zarr", **on_cluster)
        assert all(count in (0, 1) for count in client.run(loads).values())
        assert sum(client.run(loads).values()) >= 1


def count_loads():
    load = dask_engine.Shipped.load
    dask_engine.counted = []

    def counted(file):
        dask_engine.counted.append(file)
        return load(file)

    dask_engine.Shipped.load = counted


def loads():
    return len(dask_engine.counted)


def test_every_error_comes_back_from_a_worker():
    """Dask pickles errors in a way of its own."""
    raised = [cls for cls in vars(gt.errors).values() if isinstance(cls, type) and issubclass(cls, gt.GradtapError)]
    for cls in raised:
        again = pickle.loads(pickle.dumps(cls("it went wrong.", [("asked", "a")], "do this")))
        assert type(again) is cls and again.do == ["do this"] and again.headline == "it went wrong."
    assert len(raised) > 40


def test_what_cannot_be_sent_is_said(tmp_path, on_cluster):
    import tensorflow as tf

    class Own(tf.Module):
        def __init__(self):
            self.w = tf.Variable(np.ones((4, 2), "float32"))
            self.lock = __import__("threading").Lock()

        def __call__(self, x):
            return x @ self.w

    with pytest.raises(gt.errors.ArgumentError, match="the model cannot be sent"):
        run(Own(), np.ones((9, 4), "float32"), tmp_path / "a.zarr", at=":input", **on_cluster)


def test_a_scheduler_without_workers(tmp_path, monkeypatch):
    monkeypatch.setattr(dask_engine, "_PATIENCE", 1)
    with distributed.LocalCluster(1, processes=False, dashboard_address="127.0.0.1:0") as empty:
        empty.scale(0)
        while empty.scheduler.workers:
            time.sleep(0.05)
        with pytest.raises(gt.errors.ArgumentError, match="has no worker"):
            run(images_model(), images(), tmp_path / "a.zarr", engine="dask", scheduler=empty.scheduler_address)


def test_a_scheduler_that_does_not_answer(tmp_path, monkeypatch):
    monkeypatch.setattr(dask_engine, "_PATIENCE", 1)
    with pytest.raises(gt.errors.ArgumentError, match="does not answer"):
        run(images_model(), images(), tmp_path / "a.zarr", engine="dask", scheduler="tcp://127.0.0.1:9")


def test_another_engine_is_a_function(tmp_path, monkeypatch):
    """The seam: whoever computes and writes tasks in any order, twice even, and tells of each, is an engine."""
    from gradtap.dataset import running

    def backwards(job: Job, tasks, commit):
        for task in reversed(list(tasks)):
            job.perform(task)
            commit(job.perform(task))

    run(images_model(), images(), tmp_path / "a.zarr")
    monkeypatch.setattr(running, "run_locally", backwards)
    run(images_model(), images(), tmp_path / "b.zarr")
    assert_same(tmp_path / "a.zarr", tmp_path / "b.zarr")
