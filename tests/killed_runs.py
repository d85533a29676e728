"""Kill a job at random moments until it is finished: `python killed_runs.py FOLDER KILLS SEED KIND`.

TensorFlow is imported once, and each run is a fork that begins to use it only then. Some runs are killed while they
prepare, most of them a random moment after their first block. What is printed last is how many runs were killed.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import keras
import numpy as np

from gradtap import dataset

EXAMPLES, BLOCK = 1200, 4


def model():
    keras.utils.set_random_seed(3)
    layers = keras.layers
    stack = [layers.Conv2D(3, 3, activation="relu", name="conv1"), layers.Flatten(), layers.Dense(2, name="scores")]
    return keras.Sequential([keras.Input((6, 6, 2)), *stack])


def data():
    found = np.random.default_rng(5).normal(size=(EXAMPLES, 6, 6, 2)).astype("float32")
    found[[17, 900, 901]] = np.nan
    return found


def job(store, kind, told=None):
    method = dataset.variance("gradients") if kind == "statistic" else "gradients"
    return dataset.run(model(), data(), method, store, at=["conv1", ":input"], target=1, block=BLOCK, progress=told)


def run_and_kill(store, kind, chance):
    """One run in a fork; whether it was killed before its end."""
    reads, writes = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reads)
        try:
            job(store, kind, lambda _: os.write(writes, b"."))
            os._exit(0)
        except BaseException as error:
            print("failed:", error, flush=True)
            os._exit(1)
    os.close(writes)
    if chance.random() < 0.8:
        os.read(reads, 1)
        time.sleep(chance.uniform(0, 0.12))
    else:
        time.sleep(chance.uniform(0.05, 1.5))
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    os.close(reads)
    if os.WIFEXITED(status) and os.WEXITSTATUS(status):
        sys.exit("a run failed")
    return os.WIFSIGNALED(status)


def main(folder, kills, seed, kind):
    store = os.path.join(folder, "killed.zarr")
    chance, killed = random.Random(seed), 0
    while killed < kills and run_and_kill(store, kind, chance):
        killed += 1
    job(store, kind)
    job(os.path.join(folder, "whole.zarr"), kind)
    print(killed)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
