"""The claim of docs/attacks.md repeated: a natural network falls, one trained with `pgd` in its step holds."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

import gradtap as gt

pytest.importorskip("matplotlib")
pytest.importorskip("sklearn")
pytest.importorskip("PIL")


@pytest.mark.slow
def test_a_natural_network_falls_and_one_trained_adversarially_holds(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parent.parent / "docs" / "examples"))
    import adversarial_digits as example

    train, test = example.digits()
    natural, hardened = example.natural(train), example.hardened(train)
    fallen, held = (
        gt.attacks.robust_accuracy(model, test, example.pgd, [0.0, 0.1, 0.3]).accuracy for model in (natural, hardened)
    )
    assert fallen[0] > 0.95
    assert held[0] > 0.9
    assert fallen[2] < 0.05
    assert held[1] > 0.8 > fallen[1]
    assert held[2] > 0.4
    # What other attacks find of the natural network is no less, and no change is larger than it may be.
    found = gt.attacks.auto_pgd(natural, *test, epsilon=0.3, steps=40)
    assert np.mean(found.success) > 0.95
    assert np.all(np.abs(found.examples - test[0]) <= 0.3 + 1e-6)
    sys.modules.pop("adversarial_digits", None)
