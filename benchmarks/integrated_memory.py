"""ResNet50, at the input: peak resident memory of integrated gradients with 300 steps against 20, fresh processes."""

from __future__ import annotations

import resource
from typing import Any

from benchmarks import fresh, timing

LIMIT = 1.1
CLASS, MANY, FEW = 3, 300, 20


def run(turn: int = 0, quick: bool = False) -> dict[str, Any]:
    pairs = []
    for batch, rounds in ((1, 3), (4, 1)):
        peaks: dict[int, list[int]] = {MANY: [], FEW: []}
        for number in range(1 if quick else rounds):
            for steps in (MANY, FEW) if (number + turn) % 2 == 0 else (FEW, MANY):
                peaks[steps].append(fresh.call("benchmarks.integrated_memory", "peak", batch=batch, steps=steps))
        what = f"{MANY} steps / {FEW} steps, batch {batch}"
        pairs.append(timing.pair(what, peaks[MANY], peaks[FEW], unit="B", limit=LIMIT))
    return {"pairs": pairs}


def peak(batch: int, steps: int) -> int:
    """Of a process that does nothing else."""
    import gradtap as gt
    from benchmarks import models

    model, x = models.resnet50(), models.images(batch, 224, 224, 3)
    gt.attribution.integrated_gradients(model, x, target=CLASS, steps=steps)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
