"""ResNet50, batch 4, at `conv4_block6_out`: gradtap beside Captum on torch, in processes of their own in turn.

Captum runs on the same Keras weights with Keras on torch, and on a ResNet50 written in torch in channels_last,
its best.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import fresh, timing, values

BATCH, CLASS, STEPS, CAPTUM_STEPS, ROUNDS = 4, 3, 20, 50, 2
#: Faster than Captum by, memory of Captum's: as ratios of ours to theirs.
LIMITS = {"keras": 1 / 4, "torch": 1 / 2}
MEMORY_LIMIT = 1 / 2
COUNTS = (1, 2, 4, 8, 16)
#: Rows at a time: as it comes for integrated gradients; all rows of conductance at once would take 18 GB.
ROWS = {"LayerIntegratedGradients": None, "LayerConductance": 16}
OURS = {"LayerIntegratedGradients": "integrated_gradients", "LayerConductance": "conductance"}
NAMES = {"keras": "Keras on torch", "torch": "torch, channels_last"}
PYTHON = Path(os.environ.get("CAPTUM_PYTHON", fresh.TREE / ".venv-captum" / "bin" / "python"))
ON_TORCH = {"KERAS_BACKEND": "torch"}

Samples = dict[str, dict[str, list[dict[str, Any]]]]


def run(turn: int = 0, quick: bool = False) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        errors = _errors(folder, alive=True)
        errors = {"as initialised": _errors(folder, alive=False), "alive": errors}  # what is timed stays in the folder
        steps = _enough(**errors["as initialised"])
        samples: Samples = {method: {"ours": [], "keras": [], "torch": []} for method in OURS}
        order = [(method, side) for method in OURS for side in ("ours", "torch", "keras")]
        for number in range(1 if quick else ROUNDS):
            for method, side in order if (number + turn) % 2 == 0 else reversed(order):
                ours = STEPS if method == "LayerIntegratedGradients" else steps
                taken = _ours(folder, method, ours) if side == "ours" else _captum(folder, side, method)
                samples[method][side].append(taken)
        more = {n: [_ours(folder, "LayerConductance", n)] for n in (CAPTUM_STEPS // 3, CAPTUM_STEPS)}
        thawed = _captum(folder, "torch", "LayerIntegratedGradients", frozen=False)
        differences = {m: {s: _difference(folder, m, s) for s in ("keras", "torch")} for m in OURS}
    return _result(samples, more, thawed, differences, steps, errors)


def _captum(folder: str, network: str, method: str, frozen: bool = True) -> dict[str, Any]:
    steps = STEPS if method == "LayerIntegratedGradients" else CAPTUM_STEPS
    given = {"folder": folder, "target": CLASS, "save": f"{folder}/{method}_{network}.npy", "rows": ROWS[method]}
    given |= {"frozen": frozen}
    return fresh.call_in(
        str(PYTHON),
        ON_TORCH,
        "benchmarks.captum_torch",
        "measure",
        network=network,
        method=method,
        steps=steps,
        **given,
    )


def _ours(folder: str, method: str, steps: int) -> dict[str, Any]:
    given = {"folder": folder, "target": CLASS, "save": f"{folder}/{method}_ours.npy"}
    return fresh.call("benchmarks.captum_beside", "measure", method=OURS[method], steps=steps, **given)


def _errors(folder: str, *, alive: bool) -> dict[str, list[float]]:
    fresh.call("benchmarks.captum_beside", "prepare", folder=folder, batch=BATCH, alive=alive)
    given = {"captum_steps": CAPTUM_STEPS, "folder": folder, "target": CLASS}
    return fresh.call("benchmarks.captum_beside", "errors", counts=COUNTS, **given)


def _enough(ours: list[float], captum: list[float]) -> int:
    """The fewest steps from which on our completeness error is at most Captum's."""
    enough = [max(ours[i:]) <= captum[0] for i in range(len(COUNTS))]
    return COUNTS[enough.index(True)] if any(enough) else CAPTUM_STEPS


def _difference(folder: str, method: str, network: str) -> float:
    ours, theirs = (np.load(f"{folder}/{method}_{side}.npy") for side in ("ours", network))
    return values.difference(ours, theirs)


def _result(
    samples: Samples,
    more: dict[int, list[dict[str, Any]]],
    thawed: dict[str, Any],
    differences: Any,
    steps: int,
    errors: Any,
) -> dict[str, Any]:
    pairs = []
    for method, sides in samples.items():
        ours, name = sides["ours"], OURS[method]
        counts = f"{STEPS} steps" if name == "integrated_gradients" else f"{steps} steps / {CAPTUM_STEPS} steps"
        for network, limit in LIMITS.items():
            theirs, error = sides[network], differences[method].get(network)
            if not theirs:
                continue  # it was not waited for
            what = f"{name}, {counts}: gradtap / Captum, {NAMES[network]}"
            seconds, others = ([sample["seconds"] for sample in side] for side in (ours, theirs))
            with_first = [sample["first"] for sample in ours]
            peaks, other_peaks = ([sample["peak"] for sample in side] for side in (ours, theirs))
            pairs += [
                timing.pair(what, seconds, others, limit=limit, difference=error),
                timing.pair(f"{name}, gradtap's first call, tracing included / the same", with_first, others),
                timing.pair(
                    f"{name}: peak memory / Captum, {NAMES[network]}", peaks, other_peaks, unit="B", limit=MEMORY_LIMIT
                ),
            ]
    for n, taken in more.items():
        for network in (network for network in LIMITS if samples["LayerConductance"][network]):
            seconds, others = [taken[0]["seconds"]], [samples["LayerConductance"][network][0]["seconds"]]
            what = f"conductance, {n} steps / {CAPTUM_STEPS} steps: gradtap / Captum, {NAMES[network]}"
            pairs.append(timing.pair(what, seconds, others))
    peak = samples["LayerIntegratedGradients"]["ours"][0]["peak"]
    what = "integrated_gradients: peak memory / Captum, torch, weights not frozen"
    pairs.append(timing.pair(what, [peak], [thawed["peak"]], unit="B"))
    facts = [timing.fact("torch's threads", thawed["threads"], "")]
    for weights, found in errors.items():
        what = f"conductance, {weights}, completeness error / change:"
        facts.append(timing.fact(f"{what} Captum's rule at {CAPTUM_STEPS} steps", found["captum"][0], ""))
        facts += [
            timing.fact(f"{what} gradtap at {n} steps", e, "") for n, e in zip(COUNTS, found["ours"], strict=True)
        ]
    return {"pairs": pairs, "facts": facts}
