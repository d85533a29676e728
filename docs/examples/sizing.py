"""Predict a run over 20,000 images from two trials, then run it: `python docs/examples/sizing.py FOLDER`.

Everything is written into FOLDER, `prediction.json` before the run that it is about. The figures of the page on whole
data sets come from here.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

EXAMPLES, SIDE, BLOCK = 20_000, 64, 64
TRIALS = (2_000, 6_000)
AT = ["conv3", "conv5"]


def network():
    """Five convolutions of 64x64 images."""
    import keras

    keras.utils.set_random_seed(0)
    x = inputs = keras.Input((SIDE, SIDE, 3))
    for number, filters in enumerate((32, 64, 64, 128, 128), start=1):
        x = keras.layers.Conv2D(filters, 3, activation="relu", padding="same", name=f"conv{number}")(x)
        x = keras.layers.MaxPooling2D(name=f"pool{number}")(x) if number in (1, 2, 4) else x
    x = keras.layers.GlobalAveragePooling2D(name="mean")(x)
    return keras.Model(inputs, keras.layers.Dense(10, activation="softmax", name="scores")(x))


def write_images(folder, count):
    """Noise, a thousand images at a time."""
    images = np.lib.format.open_memmap(folder / f"images-{count}.npy", "w+", "uint8", (count, SIDE, SIDE, 3))
    rng = np.random.default_rng(0)
    for start in range(0, count, 1000):
        images[start : start + 1000] = rng.integers(0, 256, images[start : start + 1000].shape, dtype=np.uint8)
    images.flush()


def one_run(folder, count, what):
    """Seconds, bytes on the disk and peak memory of a run over the first images; in a process of its own."""
    code = f"import sizing; sizing.measure({str(folder)!r}, {count}, {what!r})"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def measure(folder, count, what):
    """What `one_run` reports, printed as JSON."""
    from gradtap import dataset

    folder = Path(folder)
    store = folder / f"{what}-{count}.zarr"
    method = dataset.mean() if what == "mean" else "gradients"
    start, busy = time.perf_counter(), time.process_time()
    dataset.run(network(), folder / f"images-{count}.npy", method, store, at=AT, target=3, block=BLOCK)
    seconds, busy = time.perf_counter() - start, time.process_time() - busy
    size = sum(file.stat().st_size for file in store.rglob("*") if file.is_file())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"examples": count, "seconds": seconds, "cpu": busy, "bytes": size, "peak": peak}))


def reading_rate(folder):
    """Images a second that are read and do nothing."""
    images = np.load(folder / f"images-{EXAMPLES}.npy", mmap_mode="r")
    start = time.perf_counter()
    for first in range(0, TRIALS[1], BLOCK):
        np.array(images[first : first + BLOCK])
    return TRIALS[1] / (time.perf_counter() - start)


def predicted(few, some, examples=EXAMPLES):
    """Time and storage grow by what one more image costs, from where they begin; memory does not grow."""
    each = (some["seconds"] - few["seconds"]) / (some["examples"] - few["examples"])
    begin = few["seconds"] - each * few["examples"]
    cpu_each = (some["cpu"] - few["cpu"]) / (some["examples"] - few["examples"])
    storage = (some["bytes"] - few["bytes"]) / (some["examples"] - few["examples"])
    return {
        "begin": begin,
        "rate": 1 / each,
        "seconds": begin + examples * each,
        "cpu": few["cpu"] + cpu_each * (examples - few["examples"]),
        "bytes_each": storage,
        "bytes": few["bytes"] + storage * (examples - few["examples"]),
    }


def main(folder):
    """Two trials, the prediction, the run."""
    folder.mkdir(parents=True, exist_ok=True)
    for count in (*TRIALS, EXAMPLES):
        write_images(folder, count)
    few, some = (one_run(folder, count, "gradients") for count in TRIALS)
    mean = [one_run(folder, count, "mean") for count in TRIALS]
    found = {
        "load": os.getloadavg(),
        "trials": [few, some],
        "without storing": predicted(*mean)["rate"],
        "reading alone": reading_rate(folder),
        "prediction": predicted(few, some),
    }
    (folder / "prediction.json").write_text(json.dumps(found, indent=1))
    found["run"] = one_run(folder, EXAMPLES, "gradients")
    found["load after"] = os.getloadavg()
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
