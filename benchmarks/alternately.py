"""Samples that each need a process of their own, one way after the other. No TensorFlow here."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import fresh, values

Samples = dict[str, list[dict[str, float]]]


def measure(ways: list[str], *, rounds: int, turn: int, **settings: Any) -> tuple[Samples, dict[str, float]]:
    """Run `once.measure` for every way, `rounds` times over; the samples, and each way's error against "compiled"."""
    samples: Samples = {way: [] for way in ways}
    with tempfile.TemporaryDirectory() as folder:
        saved = {way: str(Path(folder, f"{way}.npy")) for way in ways}
        for number in range(rounds):
            for way in ways if (number + turn) % 2 == 0 else reversed(ways):
                samples[way].append(fresh.call("benchmarks.once", "measure", way=way, save=saved[way], **settings))
        arrays = {way: np.load(saved[way]) for way in ways}
    return samples, {way: values.difference(arrays[way], arrays["compiled"]) for way in ways}
