"""Occlusion and RISE: restated in loops, and laws that hold exactly or in the mean."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import gradtap as gt
from gradtap import attribution, errors
from gradtap.staged.windows import RandomMasks, Windows
from reference import perturbations as restated
from reference.differences import assert_same_numbers
from reference.models import draws, float64_policy
from reference.nets import net
from refusals import refuses

CLASSES = [2, 0, 1]


def linear(*shape):
    """A linear model of one number, its weights in the shape of an example, its bias and two inputs."""
    with float64_policy():
        dense = layers.Dense(1, name="head")
        model = keras.Sequential([keras.Input(shape), layers.Flatten(), dense])
    w = draws(*shape, seed=1)
    dense.set_weights([w.reshape(-1, 1), np.array([0.7])])
    return model, w, 0.7, draws(2, *shape, seed=2)


# -- occlusion ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "tap"), [("skip", ":input"), ("skip", "tap"), ("skip", "late"), ("series", "tap")])
@pytest.mark.parametrize(("window", "stride"), [(2, None), (3, 1), (3, 2)])
def test_occlusion_as_in_the_paper(kind, tap, window, stride):
    model, run, x = net(kind)
    ask = {"target": CLASSES, "at": tap, "window": window, "stride": stride}
    h = gt.activations(model, x, at=tap).only.numpy()
    values = {
        "number": (0.3, 0.3),
        "mean": ("mean", h.mean(tuple(range(1, h.ndim - 1)), keepdims=True)),
        "channels": (h[0].reshape(-1, h.shape[-1])[0],) * 2,
        "examples": (np.flip(h, 0),) * 2,
    }
    for given, value in values.values():
        expected = restated.occlusion(run, x, CLASSES, tap, window, stride or window, value)
        for batch_size in (None, 2):
            found = attribution.occlusion(model, x, **ask, value=given, batch_size=batch_size).only
            assert_same_numbers(found, expected, 1e-10, 1e-6)


@pytest.mark.parametrize("shape", [(5,), (5, 2), (4, 3, 2), (3, 2, 4, 2)])
def test_occlusion_of_a_linear_model(shape):
    model, w, bias, x = linear(*shape)
    channels = -1 if len(shape) > 1 else ()
    single = attribution.occlusion(model, x, window=1).only
    assert_same_numbers(single, np.sum(w * x, axis=channels), 1e-12)
    assert_same_numbers(np.sum(single, tuple(range(1, single.ndim))), model(x)[:, 0] - bias, 1e-12)
    replaced = attribution.occlusion(model, x, window=1, value=0.4).only
    assert_same_numbers(replaced, np.sum(w * (x - 0.4), axis=channels), 1e-12)


@pytest.mark.parametrize("window", [6, 9, (5, 6)])
def test_one_window_over_everything(window):
    model, _, x = net("skip")
    for value in (0.4, draws(2, seed=4)):
        alone = gt.activations(model, x, at=":output").only - model(np.broadcast_to(value, x.shape))
        found = attribution.occlusion(model, x, target=CLASSES, window=window, value=value, stride=1).only
        expected = np.asarray(alone)[range(3), CLASSES]
        assert_same_numbers(found, np.broadcast_to(expected[:, None, None], (3, 5, 6)), 1e-12)


def test_windows_of_another_shape_along_each_axis():
    model, w, _, x = linear(4, 6, 2)
    found = attribution.occlusion(model, x, window=(2, 3)).only.numpy()
    blocks = np.sum(w * x, -1).reshape(2, 2, 2, 2, 3).sum((2, 4))
    assert_same_numbers(found, np.repeat(np.repeat(blocks, 2, 1), 3, 2), 1e-12)


def test_every_position_is_covered():
    for size in range(1, 12):
        for window in range(1, 13):
            for stride in range(1, window + 1):
                (rows,) = Windows([size], window, stride).covered
                assert rows.any(0).all()
                assert (rows.sum(1) == min(window, size)).all()
                assert len(np.unique(rows, axis=0)) == len(rows)


def test_a_value_for_each_example_is_cut_with_the_batch():
    model, w, _, x = linear(5, 2)
    value = draws(2, 5, 2, seed=6)
    for batch_size in (None, 1):
        found = attribution.occlusion(model, x, window=1, value=value, batch_size=batch_size).only
        assert_same_numbers(found, np.sum(w * (x - value), -1), 1e-12)


def test_occlusion_that_cannot_be_done():
    model, _, x = net("skip")

    def ask(**given):
        return lambda: attribution.occlusion(model, x, **{"target": 0, "at": "tap", "window": 2} | given)

    for window in (0, 1.5, True, "2", (), (2, 0)):
        refuses(errors.ArgumentError, ask(window=window), "window=")
        refuses(errors.ArgumentError, ask(stride=window), "stride=")
    refuses(errors.ArgumentError, ask(window=(2, 2, 2)), "3 axes", "(4, 5)")
    refuses(errors.ArgumentError, ask(stride=3), "no window covers")
    for value in (None, True, "median", np.array(["a"]), lambda h: h):
        refuses(errors.ArgumentError, ask(value=value), "value=")
    refuses(errors.InputShapeError, ask(value=np.zeros(4)), "(4,)", "`tap`")
    refuses(errors.InputShapeError, ask(value=np.zeros((2, 4, 5, 3))), "2 rows for 3 examples")
    with float64_policy():
        flat = keras.Sequential([keras.Input((3,)), layers.Dense(1), layers.Reshape(())])
    refuses(errors.SideError, lambda: attribution.occlusion(flat, draws(2, 3), at=":output", window=1), "no positions")


def test_sizes_that_a_function_does_not_know():
    with float64_policy():
        model = keras.Sequential([keras.Input((None, 2)), layers.GlobalAveragePooling1D(), layers.Dense(2)])

    @tf.function(input_signature=[tf.TensorSpec((2, None, 2), tf.float64)])
    def inside(x):
        return attribution.occlusion(model, x, target=0, window=1).only

    refuses(errors.InputShapeError, lambda: inside(draws(2, 5, 2)), "not known inside of this tf.function")


# -- RISE --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def drawn(monkeypatch):
    """The grids and shifts that a call draws, by the number of the run."""
    made, draw = {}, RandomMasks.grids

    def recorded(self, run, shape):
        made[run] = draw(self, run, shape)
        return made[run]

    monkeypatch.setattr(RandomMasks, "grids", recorded)
    return made


@pytest.mark.parametrize(("kind", "tap"), [("skip", ":input"), ("skip", "tap"), ("series", "tap")])
@pytest.mark.parametrize("cells", [2, 3, 9])
def test_rise_of_the_draws(kind, tap, cells, drawn):
    model, run, x = net(kind)
    ask = {"target": CLASSES, "at": tap, "masks": 7, "cells": cells, "probability": 0.4, "seed": 3}
    for batch_size in (None, 7):
        drawn.clear()
        found = attribution.rise(model, x, **ask, batch_size=batch_size).only
        assert sorted(drawn) == list(range(7))
        sizes = found.shape[1:]
        masks = [restated.mask(*drawn[i], sizes) for i in range(7)]
        assert_same_numbers(found, restated.rise(run, x, CLASSES, tap, masks, 0.4), 1e-10, 1e-3)


def test_masks_lie_between_zero_and_one_and_are_kept_as_often_as_asked():
    count, probability = 4000, 0.3
    masks = RandomMasks(3, probability, 11).masks(slice(0, count), (6, 7), units=False).numpy()
    assert masks.shape == (count, 6, 7)
    assert masks.min() >= 0
    assert masks.max() <= 1
    error = masks.std(0) / count**0.5
    assert np.max(np.abs(masks.mean(0) - probability) / error) < 4.5
    grids = [RandomMasks(3, probability, 11).grids(i, (3, 3)) for i in range(count)]
    shifts = np.floor(np.stack([s for _, s in grids]) * 3)
    assert set(shifts.ravel()) == {0, 1, 2}
    pairs = np.stack([g.ravel() for g, _ in grids]) - probability
    spread = np.abs(pairs.T @ pairs / count - probability * (1 - probability) * np.eye(9))
    assert spread.max() < 5 * (probability * (1 - probability)) / count**0.5


@pytest.mark.parametrize("probability", [0.3, 0.7])
def test_rise_of_a_linear_model_in_the_mean(probability):
    model, w, bias, x = linear(6)
    parts = w * x
    found = [
        attribution.rise(model, x, masks=100, probability=probability, seed=seed).only.numpy() for seed in range(40)
    ]
    expected = bias + probability * np.sum(parts, -1, keepdims=True) + (1 - probability) * parts
    mean, error = np.mean(found, 0), np.std(found, 0, ddof=1) / 40**0.5
    assert np.max(np.abs(mean - expected) / error) < 4.5
    assert np.max(error) < 0.2 * np.max(np.abs(expected))


def test_the_deviation_of_a_constant_is_at_most_the_one_of_the_docstring():
    model, w, bias, x = linear(6)
    model.layers[-1].set_weights([0 * w.reshape(-1, 1), np.array([bias])])
    found = [attribution.rise(model, x, masks=50, probability=0.4, seed=seed).only.numpy() for seed in range(200)]
    stated = bias * (0.6 / (0.4 * 50)) ** 0.5
    measured = np.std(found, 0)
    assert np.max(np.abs(measured / stated - 1)) < 0.25


def test_rise_is_linear_in_the_target_and_the_same_by_seed():
    model, _, x = net("skip")
    ask = {"at": "tap", "masks": 9, "cells": 2, "seed": 4}
    one, two = (attribution.rise(model, x, target=k, **ask).only for k in (0, 1))
    both = attribution.rise(model, x, target=lambda y: 3 * y[:, 0] - 2 * y[:, 1], **ask).only
    assert_same_numbers(both, 3 * one - 2 * two, 1e-12)
    for batch_size in (1, 2, 5, 100):
        again = attribution.rise(model, x, target=0, **ask, batch_size=batch_size).only
        assert_same_numbers(again, one, 1e-12)
    assert np.max(np.abs(attribution.rise(model, x, target=0, **ask | {"seed": 5}).only - one)) > 1e-3


@pytest.mark.parametrize("shape", [(5,), (5, 2), (4, 3, 2), (3, 2, 4, 2)])
def test_positions_of_any_number_of_axes(shape):
    model, _, _, x = linear(*shape)
    assert attribution.rise(model, x, masks=3, cells=2, seed=0).only.shape == (2, *(shape[:-1] or shape))


def test_masks_that_cannot_be_drawn():
    model, _, x = net("skip")

    def ask(**given):
        return lambda: attribution.rise(model, x, **{"target": 0, "at": "tap"} | given)

    for wrong in (0, 2.0, True, None):
        refuses(errors.ArgumentError, ask(masks=wrong), "masks=")
        refuses(errors.ArgumentError, ask(cells=wrong), "cells=")
    refuses(errors.ArgumentError, ask(cells=(2, 2, 2)), "cells=(2, 2, 2)")
    for wrong in (0, 1, 1.5, -0.1, float("nan"), True, "half"):
        refuses(errors.ArgumentError, ask(probability=wrong), "probability=")
