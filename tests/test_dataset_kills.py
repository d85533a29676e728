"""Nothing lost, nothing twice: runs that are killed at random moments end in the store of one that was not."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import gradtap as gt
from gradtap import dataset
from stores import assert_same

pytest.importorskip("zarr")

SCRIPT = Path(__file__).with_name("killed_runs.py")


def killed(folder, kills, seed, kind):
    """Kill a job that often; how often it was."""
    command = [sys.executable, str(SCRIPT), str(folder), str(kills), str(seed), kind]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=3000)
    assert done.returncode == 0, done.stdout + done.stderr
    return int(done.stdout.split()[-1])


def check(folder):
    assert_same(folder / "killed.zarr", folder / "whole.zarr")
    found = dataset.open(folder / "killed.zarr")
    assert found.complete and set(found.failures) == {17, 900, 901}
    assert sorted(path.name for path in folder.iterdir()) == ["killed.zarr", "whole.zarr"]


def test_a_few_kills(tmp_path):
    from killed_runs import data, model

    assert killed(tmp_path, 6, 1, "arrays") == 6
    check(tmp_path)
    expected = gt.gradients(model(), data()[20:60], target=1, at="conv1").only
    np.testing.assert_allclose(dataset.open(tmp_path / "killed.zarr")["conv1"][20:60], expected, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["arrays", "statistic"])
def test_fifty_kills(tmp_path, kind):
    count = 0
    for seed in range(2, 52):
        if count >= 50:
            break
        folder = tmp_path / str(seed)
        folder.mkdir()
        count += killed(folder, 50 - count, seed, kind)
        check(folder)
    assert count >= 50
