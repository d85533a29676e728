"""Many runs on one batch: what is in flight at once, and what somebody who waits is shown."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers

import gradtap as gt
from gradtap import attribution
from gradtap.staged import progress
from gradtap.staged.stages import Stage
from reference.models import draws

METHODS = {
    "integrated_gradients": {"steps": 7},
    "conductance": {"steps": 7},
    "smooth_grad": {"samples": 7},
    "channel_importance": {"by": "ablation"},
    "score_cam": {},
}


def small():
    x = keras.Input((5, 5, 1))
    pooled = layers.GlobalAveragePooling2D()(layers.Conv2D(6, 2, activation="tanh", name="tap")(x))
    return keras.Model(x, layers.Dense(2)(pooled)), draws(4, 5, 5, 1)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("batch_size", [1, 3, 9])
def test_no_more_examples_are_in_flight_than_were_allowed(method, batch_size, monkeypatch):
    seen, run = [], Stage._run

    def counted(self, points, *more):
        seen.append(points[0].shape[0] * points[0].shape[1])
        return run(self, points, *more)

    monkeypatch.setattr(Stage, "_run", counted)
    model, x = small()
    getattr(attribution, method)(model, x, target=1, at="tap", batch_size=batch_size, **METHODS[method])
    assert seen
    assert max(seen) <= batch_size


class Bar:
    """What a bar is told."""

    def __init__(self):
        self.told, self.stopped = [], 0

    def update(self, task, completed):
        self.told.append(completed)

    def stop(self):
        self.stopped += 1


@pytest.fixture
def bars(monkeypatch):
    made = []

    def bar(what, total):
        made.append(Bar())
        return made[-1], total

    monkeypatch.setattr(progress, "_bar", bar)
    monkeypatch.setattr(progress, "PATIENCE", -1.0)
    return made


def test_a_bar_follows_the_runs_where_somebody_looks(bars, monkeypatch):
    monkeypatch.setattr(progress, "somebody_looks", lambda: True)
    assert list(progress.tracked("abcd", 4, "letters")) == list("abcd")
    assert [(bar.told, bar.stopped) for bar in bars] == [([1, 2, 3, 4], 1)]


@pytest.mark.parametrize(("looks", "patience"), [(False, -1.0), (True, 60.0)])
def test_no_bar_where_nobody_looks_or_nothing_takes_long(bars, monkeypatch, looks, patience):
    monkeypatch.setattr(progress, "somebody_looks", lambda: looks)
    monkeypatch.setattr(progress, "PATIENCE", patience)
    assert list(progress.tracked("abcd", 4, "letters")) == list("abcd")
    assert not bars


def test_an_interrupt_takes_the_bar_away_and_leaves_all_as_it_was(bars, monkeypatch):
    monkeypatch.setattr(progress, "somebody_looks", lambda: True)
    model, x = small()
    ask = {"target": 1, "at": "tap", "steps": 5, "batch_size": 4}
    before, run, calls = attribution.integrated_gradients(model, x, **ask).only, Stage._run, []

    def interrupted(self, points, *more):
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return run(self, points, *more)

    bars.clear()
    monkeypatch.setattr(Stage, "_run", interrupted)
    with pytest.raises(KeyboardInterrupt):
        attribution.integrated_gradients(model, x, **ask)
    assert [bar.stopped for bar in bars] == [1]
    monkeypatch.setattr(Stage, "_run", run)
    np.testing.assert_array_equal(attribution.integrated_gradients(model, x, **ask).only, before)
    assert gt.gradients(model, x, target=1, at="tap").only.shape == (4, 4, 4, 6)
