"""Whole data sets: the engine beside a compiled loop, and growth to 100,000 images."""

from __future__ import annotations

import resource
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks import fresh, timing

BARE, STORED, GROWTH, OVERHEAD = 1.1, 1.3, 1.25, 0.05
BLOCK, CLASS = 64, 3
LAYERS = ["conv3", "conv5"]


def run(turn: int = 0, quick: bool = False) -> dict[str, Any]:
    beside = fresh.call("benchmarks.dataset", "beside_a_loop", turn=turn, quick=quick)
    sizes = (500, 1000, 2000) if quick else (1_000, 10_000, 100_000)
    grown = {size: fresh.call("benchmarks.dataset", "small_images", count=size) for size in sizes}
    few, some, many = (grown[size] for size in sizes)
    each = {size: grown[size]["seconds"] / size for size in sizes}
    names = [f"{size:,}" for size in sizes]
    pairs = [
        *beside["pairs"],
        timing.pair(f"an image of {names[2]} / of {names[1]}", [each[sizes[2]]], [each[sizes[1]]], limit=GROWTH),
        timing.pair(
            f"peak memory, {names[2]} images / {names[1]}", [many["bytes"]], [some["bytes"]], unit="B", limit=1.1
        ),
        timing.pair(
            f"peak memory, {names[1]} images / {names[0]}", [some["bytes"]], [few["bytes"]], unit="B", limit=1.1
        ),
    ]
    facts = [timing.fact(f"images a second, {name} small images", size / grown[size]["seconds"], "images/s")
             for name, size in zip(names, sizes, strict=True)]  # fmt: skip
    return {"pairs": pairs, "facts": [*beside["facts"], *facts]}


# -- in a process with TensorFlow --------------------------------------------------------------------------------------


def network(side: int = 64) -> Any:
    """Five convolutions."""
    import keras

    keras.utils.set_random_seed(0)
    x = inputs = keras.Input((side, side, 3))
    for number, filters in enumerate((32, 64, 64, 128, 128), start=1):
        x = keras.layers.Conv2D(filters, 3, activation="relu", padding="same", name=f"conv{number}")(x)
        x = keras.layers.MaxPooling2D(name=f"pool{number}")(x) if number in (1, 2, 4) else x
    x = keras.layers.GlobalAveragePooling2D(name="mean")(x)
    return keras.Model(inputs, keras.layers.Dense(10, activation="softmax", name="scores")(x))


def small_network() -> Any:
    """A convolution of 8x8 images: what a block costs beside the arithmetic."""
    import keras

    keras.utils.set_random_seed(0)
    stack = [keras.layers.Conv2D(4, 3, activation="relu", name="conv1"), keras.layers.Flatten(name="flat")]
    return keras.Sequential(
        [keras.Input((8, 8, 3)), *stack, keras.layers.Dense(4, activation="softmax", name="scores")]
    )


def beside_a_loop(turn: int, quick: bool) -> dict[str, Any]:
    """The engine and a hand-written loop on the same images, in turn; and what a block of a tiny network costs."""
    import numpy as np
    import tensorflow as tf

    from benchmarks import handwritten, values

    model, count = network(), 512 if quick else 2048
    x = np.random.default_rng(0).normal(size=(count, 64, 64, 3)).astype("float32")
    compiled = tf.function(handwritten.through_split(model, LAYERS, CLASS))

    def loop() -> list[Any]:
        starts = range(0, count, BLOCK)
        return [[t.numpy() for t in compiled(tf.constant(x[start : start + BLOCK]))] for start in starts]

    with job_for(model, x, BLOCK, LAYERS) as (job, engine):
        job.perform(job.plan.task(0))
        calls = {"loop": loop, "engine": lambda: engine(without_a_store(job)), "stored": lambda: anew(engine, job)}
        seconds = timing.interleave(calls, 2 if quick else 7, turn, warm=1)
        anew(engine, job)
        hand = np.concatenate([rows[0] for rows in loop()])
        error = values.difference(job.kept.store.group["conv3"][:], hand)
        bytes_each = sum(job.kept.store.group[name].nbytes for name in LAYERS) / count
        kept = sum(file.stat().st_size for file in job.kept.store.path.rglob("*") if file.is_file()) / count
    pairs = [
        timing.pair("engine without a store / compiled loop", seconds["engine"], seconds["loop"], limit=BARE),
        timing.pair(
            "engine with its store / compiled loop", seconds["stored"], seconds["loop"], limit=STORED, difference=error
        ),
    ]
    facts = [
        timing.fact("results of an image, as numbers", bytes_each, "B"),
        timing.fact("results of an image, on the disk", kept, "B"),
        timing.fact("images a second of the loop", count / float(np.median(seconds["loop"])), "images/s"),
        *overhead(quick, turn),
    ]
    return {"pairs": pairs, "facts": facts}


def overhead(quick: bool, turn: int) -> list[dict[str, Any]]:
    """What a block costs in seconds beside the arithmetic: blocks of one 8x8 image."""
    import numpy as np
    import tensorflow as tf

    from benchmarks import handwritten

    model, count = small_network(), 20 if quick else 200
    x = np.random.default_rng(0).normal(size=(count, 8, 8, 3)).astype("float32")
    functional = __import__("keras").Model(model.inputs, model.outputs)
    compiled = tf.function(handwritten.through_split(functional, ["conv1"], 1))

    def loop() -> None:
        for start in range(count):
            compiled(tf.constant(x[start : start + 1]))[0].numpy()

    with job_for(model, x, 1, ["conv1"]) as (job, engine):
        calls = {"loop": loop, "stored": lambda: anew(engine, job)}
        seconds = timing.interleave(calls, 2 if quick else 5, turn, warm=1)
    more = (float(np.median(seconds["stored"])) - float(np.median(seconds["loop"]))) / count
    return [timing.fact("a block beside its arithmetic, stored", more, "s", limit=OVERHEAD)]


@contextmanager
def job_for(model: Any, x: Any, block: int, at: list[str]) -> Iterator[tuple[Any, Any]]:
    """A prepared job with its store, and the local engine as a run uses it."""
    from gradtap import dataset
    from gradtap.dataset import running
    from gradtap.dataset.jobs import Job

    found: dict[str, Job] = {}
    with tempfile.TemporaryDirectory() as folder:
        compute = running._compute
        try:
            running._compute = lambda job, store, *_: found.update(job=job)
            dataset.run(model, x, "gradients", Path(folder, "out.zarr"), at=at, target=CLASS, block=block)
        finally:
            running._compute = compute

        def engine(job: Job) -> None:
            if job is not found["job"]:
                running.run_locally(job, map(job.plan.task, range(job.plan.tasks)), lambda outcome: None)
            else:
                compute(job, job.kept.store, running.run_locally, None)

        yield found["job"], engine


def without_a_store(job: Any) -> Any:
    """The same job, whose results go nowhere."""
    from dataclasses import replace

    class Dropped:
        def add(self, kept: Any, computed: Any) -> tuple[Any, dict[int, str]]:
            return computed, computed.reasons

        def write(self, task: Any, kept: Any) -> None:
            pass

    return replace(job, kept=Dropped())


def anew(engine: Any, job: Any) -> None:
    """All blocks again, over what is there."""
    job.kept.store.done[:] = False
    engine(job)


class Pool:
    """Images without a file: a few, over and over."""

    def __init__(self, count: int) -> None:
        import numpy as np

        self._pool = np.random.default_rng(0).normal(size=(997, 8, 8, 3)).astype("float32")
        self._count = count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, i: int) -> Any:
        return self._pool[i % 997]


def small_images(count: int) -> dict[str, float]:
    """Time and peak memory of a run over small images, in a process that does nothing else."""
    from gradtap import dataset

    with tempfile.TemporaryDirectory() as folder:
        dataset.run(small_network(), Pool(128), "gradients", Path(folder, "warm.zarr"), at="conv1", target=1)
        start = time.perf_counter()
        dataset.run(small_network(), Pool(count), "gradients", Path(folder, "out.zarr"), at="conv1", target=1)
        seconds = time.perf_counter() - start
    return {"seconds": seconds, "bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}
