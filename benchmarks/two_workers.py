"""Whole data sets: two Dask workers beside one process, on a job of over 20 s: the command, and calls in Python."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import fresh, timing

LIMIT = 1.1
ENGINES = ("dask", "local")


def run(turn: int = 0, quick: bool = False) -> dict[str, Any]:
    count = 256 if quick else 32_000
    kinds = {
        "the command `gradtap run`, from its start to its end": "command",
        "the first call in Python, from the call to the finished store": "first",
        "a later call of the same process": "later",
    }
    samples: dict[str, dict[str, list[float]]] = {kind: {engine: [] for engine in ENGINES} for kind in kinds.values()}
    with tempfile.TemporaryDirectory() as folder:
        fresh.call("benchmarks.two_workers", "prepare", folder=folder, count=count)
        for number in range(1 if quick else 3):
            for engine in ENGINES if (number + turn) % 2 else reversed(ENGINES):
                samples["command"][engine].append(command(folder, engine))
                first, later = fresh.call("benchmarks.two_workers", "calls", folder=folder, engine=engine)
                samples["first"][engine].append(first)
                samples["later"][engine].append(later)
    pairs = [
        timing.pair(
            f"two Dask workers / one process: {what}", samples[kind]["dask"], samples[kind]["local"], limit=LIMIT
        )
        for what, kind in kinds.items()
    ]
    return {"pairs": pairs, "facts": [timing.fact("images of 64x64 in a job", count, "images")]}


def command(folder: str, engine: str) -> float:
    """Seconds of the command in a shell."""
    with tempfile.TemporaryDirectory() as made:
        asked = ["--at", "conv3", "--at", "conv5", "--target", "3", "--store", str(Path(made, "out.zarr"))]
        line = [sys.executable, "-m", "gradtap", "run", "model.keras", "x.npy", *asked, "--engine", engine]
        start = time.perf_counter()
        subprocess.run(line, cwd=folder, check=True, capture_output=True, env=os.environ | fresh.QUIET)
        return time.perf_counter() - start


# -- in a process with TensorFlow --------------------------------------------------------------------------------------


def prepare(folder: str, count: int) -> None:
    """Write the model and its images."""
    import numpy as np

    from benchmarks.dataset import network

    network().save(Path(folder, "model.keras"))
    x = np.lib.format.open_memmap(Path(folder, "x.npy"), "w+", "float32", (count, 64, 64, 3))
    rng = np.random.default_rng(0)
    for start in range(0, count, 1000):
        x[start : start + 1000] = rng.normal(size=x[start : start + 1000].shape)
    x.flush()
    os.sync()


def calls(folder: str, engine: str) -> list[float]:
    """Seconds of a first and of a second run, cluster and its end included."""
    import tensorflow as tf  # what a session has imported before it calls

    from benchmarks.dataset import CLASS, LAYERS
    from gradtap import dataset

    model = tf.keras.models.load_model(Path(folder, "model.keras"))
    seconds = []
    for _ in range(2):
        with tempfile.TemporaryDirectory() as made:
            start = time.perf_counter()
            data, store = Path(folder, "x.npy"), Path(made, "out.zarr")
            dataset.run(model, data, "gradients", store, at=LAYERS, target=CLASS, engine=engine, workers=2)
            seconds.append(time.perf_counter() - start)
    return seconds
