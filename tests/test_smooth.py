"""SmoothGrad and expected gradients, with the draws read back and the papers' formulas applied to them."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers

import gradtap as gt
from gradtap import attribution, errors
from gradtap.attribution import expected, smooth
from gradtap.staged import noise
from reference import attributions as restated
from reference.differences import assert_same_numbers
from reference.models import draws, float64_policy
from reference.nets import net
from refusals import refuses

CLASSES = [2, 0, 1]


@pytest.fixture
def drawn(monkeypatch):
    """The normal draws that a call makes, by the number of the run."""
    made = {}

    def recorded(tensor, run, base):
        made[run] = noise.normal_like(tensor, run, base)
        return made[run]

    monkeypatch.setattr(smooth, "normal_like", recorded)
    return made


@pytest.mark.parametrize("kind", ["skip", "series"])
@pytest.mark.parametrize("tap", ["tap", ":input"])
def test_statistics_over_the_draws(kind, tap, drawn):
    model, run, x = net(kind)
    ask = {"target": CLASSES, "at": tap, "samples": 5, "noise": 0.2, "seed": 3}
    statistics = {
        "mean": lambda s: s.mean(0),
        "squared": lambda s: (s**2).mean(0),
        "variance": lambda s: s.var(0),
    }
    for statistic, of in statistics.items():
        for batch_size in (None, 6):
            drawn.clear()
            found = attribution.smooth_grad(model, x, **ask, statistic=statistic, batch_size=batch_size).only
            assert sorted(drawn) == list(range(5))
            own = restated.smooth_grad(run, x, CLASSES, tap, 0.2, [np.asarray(drawn[i]) for i in range(5)])
            assert_same_numbers(found, of(own), 1e-10, 1e-9)


def test_the_draws_are_normal_and_the_same_for_every_example():
    model, _, x = net("skip")
    h = gt.activations(model, x, at="tap").only
    values = np.stack([noise.normal_like(h, run, 12) for run in range(600)])
    assert values.shape == (600, 1, *h.shape[1:])
    count = values.size
    assert abs(values.mean()) < 4 / count**0.5
    assert abs(values.var() - 1) < 4 * (2 / count) ** 0.5
    assert abs((values**4).mean() - 3) < 4 * (96 / count) ** 0.5
    half = values.reshape(300, 2, -1)
    assert abs(np.mean(half[:, 0] * half[:, 1])) < 4 / (count / 2) ** 0.5


def test_without_noise_and_under_a_linear_head_it_is_the_gradient():
    model, _, x = net("skip")
    for tap in ("tap", "late"):
        g = gt.gradients(model, x, target=CLASSES, at=tap).only
        found = attribution.smooth_grad(model, x, target=CLASSES, at=tap, noise=0.0, samples=3).only
        assert_same_numbers(found, g, 1e-12)
    with float64_policy():
        linear = keras.Sequential([keras.Input((3,)), layers.Dense(4, name="hidden"), layers.Dense(2)])
    g = gt.gradients(linear, draws(2, 3), target=1, at="hidden").only
    for statistic, value in (("mean", g), ("squared", g**2)):
        found = attribution.smooth_grad(linear, draws(2, 3), target=1, at="hidden", samples=4, statistic=statistic)
        assert_same_numbers(found.only, value, 1e-12, 1e-5)
    spread = attribution.smooth_grad(linear, draws(2, 3), target=1, at="hidden", samples=4, statistic="variance").only
    assert np.max(np.abs(spread)) < 1e-25


def test_noise_that_is_no_share():
    model, _, x = net("skip")
    for wrong in (-0.1, float("nan"), float("inf"), True, "much"):
        refuses(
            errors.ArgumentError, lambda: attribution.smooth_grad(model, x, target=0, at="tap", noise=wrong), "noise"
        )
    refuses(errors.ArgumentError, lambda: attribution.smooth_grad(model, x, target=0, at="tap", samples=0), "samples")
    refuses(errors.ArgumentError, lambda: attribution.smooth_grad(model, x, target=0, at="tap", statistic="median"))


class Recorded:
    """NumPy's draws, kept."""

    def __init__(self, rng):
        self.rng, self.permutations, self.uniforms = rng, [], []

    def permutation(self, count):
        self.permutations.append(self.rng.permutation(count))
        return self.permutations[-1]

    def uniform(self, size):
        self.uniforms.append(self.rng.uniform(size=size))
        return self.uniforms[-1]


@pytest.mark.parametrize("tap", ["tap", ":input"])
def test_expected_gradients_of_the_draws(tap, monkeypatch):
    model, run, x = net("skip")
    made = []

    def recorded(seed, purpose):
        made.append(Recorded(noise.generator(seed, purpose)))
        return made[-1]

    monkeypatch.setattr(expected, "generator", recorded)
    data = draws(3, *x.shape[1:], seed=8)
    for batch_size in (None, 5):
        ask = {"target": CLASSES, "at": tap, "baselines": data, "samples": 7, "seed": 2, "batch_size": batch_size}
        found = attribution.expected_gradients(model, x, **ask).only
        *orders, strata = made[-1].permutations
        rows = np.concatenate(orders)[:7]
        shares = (strata + made[-1].uniforms[0]) / 7
        assert np.max(np.bincount(rows)) - np.min(np.bincount(rows, minlength=3)) <= 1
        assert sorted(np.floor(shares * 7).astype(int)) == list(range(7))
        own = restated.expected_gradients(run, x, CLASSES, tap, data[rows], shares)
        assert_same_numbers(found, own, 1e-11)


def test_expected_gradients_come_near_the_mean_of_integrated_gradients():
    model, _, x = net("series")
    data = draws(2, *x.shape[1:], seed=8)
    paths = [
        attribution.integrated_gradients(model, x, target=CLASSES, at="tap", baseline=row[None], steps=20).only
        for row in data
    ]
    mean = (paths[0] + paths[1]) / 2
    found = attribution.expected_gradients(model, x, target=CLASSES, at="tap", baselines=data, samples=600, seed=0).only
    assert np.max(np.abs(found - mean)) < 0.05 * np.max(np.abs(mean))


def test_baselines_that_do_not_fit():
    model, _, x = net("skip")

    def ask(baselines):
        return lambda: attribution.expected_gradients(model, x, target=0, at="tap", baselines=baselines)

    refuses(errors.InputShapeError, ask(draws(2, 4, 6, 2)))
    refuses(errors.InputShapeError, ask(draws(0, 5, 6, 2)), "(0, 5, 6, 2)")
    refuses(errors.ArgumentError, ask([draws(2, 5, 6, 2), draws(2, 5, 6, 2)]), "2 arrays for 1 input")
