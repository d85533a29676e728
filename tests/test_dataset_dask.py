"""Whole data sets on Dask: the same store as in one process, whatever dies meanwhile."""

from __future__ import annotations

import functools
import json
import os
import pickle
import re
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


def started_as_from_a_terminal(command, folder):
    """A process group of its own, in which Ctrl-C is heard, and a pipe with all that it says on standard error."""
    heard = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, cwd=folder, start_new_session=True, preexec_fn=heard, **pipes)


@pytest.mark.parametrize(
    "moment",
    [
        "the first block",
        pytest.param("imports", marks=pytest.mark.slow),
        pytest.param("the start of the workers", marks=pytest.mark.slow),
    ],
)
def test_ctrl_c_at_a_terminal_is_one_line_and_leaves_nothing(tmp_path, moment):
    np.save(tmp_path / "x.npy", images(4000))
    save_model(images_model(), tmp_path / "m.keras")
    command = [sys.executable, "-m", "gradtap", "run", "m.keras", "x.npy", "--at", "conv1", "--target", "1"]
    command += ["--block", "4", "--engine", "dask", "--json", "--store", "a.zarr"]
    with started_as_from_a_terminal(command, tmp_path) as process:
        if moment == "the first block":
            line = next(line for line in process.stderr if line.startswith("{"))  # TensorFlow may speak before
            assert json.loads(line)["examples"] == 4000
        elif moment == "imports":
            time.sleep(1)
        else:
            while not (tmp_path / "a.zarr").exists():
                assert process.poll() is None
                time.sleep(0.02)
            time.sleep(0.5)
        os.killpg(process.pid, signal.SIGINT)
        lines = process.stderr.read().splitlines()  # until every process that has it open is gone
        said = [line for line in lines if not re.match(r"\{|[EWI]\d{4} ", line)]  # what TensorFlow says is its own
        assert process.wait(timeout=60) == 130 and process.stdout.read() == ""
    if moment == "imports":
        assert said == ["interrupted"]
    else:
        assert len(said) == 1 and said[0].startswith("interrupted: ") and " of 4000 examples are done, in " in said[0]
    assert {path.name for path in tmp_path.iterdir()} <= {"a.zarr", "m.keras", "x.npy"}


def test_ctrl_c_is_for_other_forks_what_it_was(tmp_path):
    (tmp_path / "script.py").write_text(
        "import multiprocessing, os, signal, time\n"
        "from gradtap import fork_server\n"
        "def tell_and_sleep(pipe):\n"
        "    pipe.send(1)\n"
        "    time.sleep(60)\n"
        "if __name__ == '__main__':\n"
        "    fork_server._IMPORTED = ['gradtap.fork_server']\n"
        "    context = multiprocessing.get_context(fork_server.start())\n"
        "    for name in ('Dask Worker process (from Nanny)', 'Process-1'):\n"
        "        reads, writes = context.Pipe()\n"
        "        process = context.Process(target=tell_and_sleep, args=(writes,), name=name)\n"
        "        process.start()\n"
        "        reads.recv()\n"
        "        os.kill(process.pid, signal.SIGINT)\n"
        "        process.join(2)\n"
        "        print(process.exitcode, flush=True)\n"
        "        process.kill()\n"
    )
    with started_as_from_a_terminal([sys.executable, "script.py"], tmp_path) as process:
        assert process.stdout.read() == "None\n1\n"
        assert process.stderr.read().endswith("KeyboardInterrupt\n")
    assert signal.getsignal(signal.SIGINT) is not fork_server._on_interrupt  # here it is nobody's business


def test_a_script_without_a_guard_gets_one_error(tmp_path):
    np.save(tmp_path / "x.npy", images(8))
    save_model(images_model(), tmp_path / "m.keras")
    (tmp_path / "script.py").write_text(
        "from gradtap import dataset\n"
        "dataset.run('m.keras', 'x.npy', 'gradients', 'a.zarr', at='conv1', target=1, engine='dask')\n"
    )
    done = subprocess.run([sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.count("Traceback") == 1 and "Nanny.start" not in done.stderr
    said = done.stderr[done.stderr.index("gradtap.errors.ArgumentError: the workers did not start.") :]
    assert len(said.splitlines()) == 6 and 'under `if __name__ == "__main__":`' in said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.zarr", "m.keras", "script.py", "x.npy"]


@pytest.mark.slow
def test_a_disk_that_fails_is_said_once(tmp_path):
    np.save(tmp_path / "x.npy", images(400))
    save_model(images_model(), tmp_path / "m.keras")
    (tmp_path / "script.py").write_text(
        "from pathlib import Path\n"
        "from gradtap import dataset, errors\n"
        "def fail(now):\n"
        "    if Path('a.zarr/conv1/c').is_dir():\n"
        "        Path('a.zarr/conv1/c').rename('a.zarr/gone')\n"
        "        Path('a.zarr/conv1/c').touch()\n"
        "if __name__ == '__main__':\n"
        "    asked = {'at': 'conv1', 'target': 1, 'engine': 'dask', 'block': 4, 'progress': fail}\n"
        "    try: dataset.run('m.keras', 'x.npy', 'gradients', 'a.zarr', **asked)\n"
        "    except errors.StoreError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "a.zarr` cannot be written.\n  why         Not a directory" in done.stdout
    assert "distributed" not in done.stderr and "Traceback" not in done.stderr


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
