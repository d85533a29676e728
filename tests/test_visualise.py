"""Activation maximisation: maxima that are known, the penalties, and what must change nothing."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import gradtap as gt
from gradtap import activation_maximisation, errors
from gradtap.activation_maximisation import _Search, _Space
from reference.differences import assert_same_numbers, central_differences
from reference.models import draws, float64_policy
from refusals import heads, refuses, tokens
from states import assert_same, everything


def linear(*shape):
    """A linear model of three numbers, and its weights in the shape of an example for each."""
    with float64_policy():
        dense = layers.Dense(3, use_bias=False, name="head")
        model = keras.Sequential([keras.Input(shape), layers.Flatten(), dense])
    w = draws(*shape, 3, seed=1)
    dense.set_weights([w.reshape(-1, 3)])
    return model, np.moveaxis(w, -1, 0)


def pointwise():
    """A model whose scores do not depend on where something is."""
    with float64_policy():
        conv, mean = layers.Conv2D(4, 1, activation="tanh", name="conv"), layers.GlobalAveragePooling2D()
        model = keras.Sequential([keras.Input((6, 5, 2)), conv, mean, layers.Dense(3, name="head")])
    for i, weight in enumerate(model.weights):
        weight.assign(draws(*weight.shape, seed=i))
    return model


def wide():
    """A small convolutional model."""
    with float64_policy():
        conv, mean = layers.Conv2D(4, 3, activation="gelu", name="conv"), layers.GlobalAveragePooling2D()
        model = keras.Sequential([keras.Input((8, 8, 2)), conv, mean, layers.Dense(3, name="head")])
    for i, weight in enumerate(model.weights):
        weight.assign(draws(*weight.shape, seed=i))
    return model


# -- maxima that are known ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(6,), (7, 2), (4, 5, 2), (3, 4, 2, 2)])
@pytest.mark.parametrize("bounds", [(0, 1), (-2.0, 0.5)])
def test_of_a_linear_model_it_is_the_corner_of_its_weights(shape, bounds):
    model, w = linear(*shape)
    found = gt.visualise(model, target=[0, 2], bounds=bounds, steps=80, step_size=0.05, jitter=0, frequency=False)
    corner = np.where(w[[0, 2]] > 0, bounds[1], bounds[0])
    np.testing.assert_array_equal(found.images, corner)
    assert_same_numbers(found.scores[-1], np.sum(w[[0, 2]] * corner, tuple(range(1, corner.ndim))), 1e-12)


@pytest.mark.parametrize("frequency", [True, False])
@pytest.mark.parametrize("shape", [(6,), (7, 2), (4, 5, 2)])
def test_the_maximum_of_a_quadratic(shape, frequency):
    best, steep = draws(*shape, seed=3), 0.5 + draws(*shape, seed=4) ** 2

    def bowl(x):
        return -tf.reduce_sum((x - best) ** 2 * steep, list(range(1, x.shape.rank)))

    ask = {"steps": 1000, "step_size": 0.05, "bounds": None, "jitter": 0, "frequency": frequency}
    found = gt.visualise(bowl, start=np.zeros((2, *shape)), **ask)
    assert_same_numbers(found.images, np.stack([best, best]), 1e-3)
    assert np.max(np.abs(found.scores[-1])) < 1e-4


def test_the_maximum_with_an_l2_penalty():
    model, w = linear(7, 2)
    found = gt.visualise(model, target=1, steps=400, bounds=(-50, 50), step_size=0.005, jitter=0, l2=0.3)
    assert_same_numbers(found.images[0], w[1] / 0.6, 1e-3)
    lifted = gt.visualise(model, target=1, steps=400, bounds=(-40, 60), step_size=0.005, jitter=0, l2=0.3)
    assert_same_numbers(lifted.images[0], 10 + w[1] / 0.6, 1e-3)


def test_total_variation_flattens():
    model, w = linear(9, 1)
    ask = {"target": 0, "steps": 1000, "bounds": (-5, 5), "jitter": 0, "l2": 0.2, "frequency": False}
    rough, flat = (gt.visualise(model, **ask, total_variation=t).images for t in (0.0, 5.0))
    assert np.ptp(rough) > 1
    assert np.ptp(flat) < 0.05
    assert_same_numbers(np.mean(flat), np.mean(w[0]) / 0.4, 0.05)


@pytest.mark.parametrize("frequency", [True, False])
def test_the_score_rises_and_stays_within_the_bounds(frequency, monkeypatch):
    seen, given = [], activation_maximisation.gradients

    def watched(trace, x, **ask):
        seen.append(x)
        return given(trace, x, **ask)

    monkeypatch.setattr(activation_maximisation, "gradients", watched)
    ask = {"target": 1, "bounds": (-0.3, 0.2), "steps": 40, "step_size": 0.2, "frequency": frequency}
    found = gt.visualise(wide(), **ask)
    assert found.images.dtype == np.float32
    assert found.images.shape == (1, 8, 8, 2)
    assert found.scores.shape == (41, 1)
    assert found.scores[-1, 0] > found.scores[0, 0] + 0.1
    assert len(seen) == 41
    for x in (*seen, found.images):
        assert np.float32(-0.3) <= np.float32(x.min())
        assert np.float32(x.max()) <= np.float32(0.2)
    assert found.images.max() == np.float32(0.2)


# -- coordinates and penalties -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(2, 7, 3), (2, 4, 5, 1), (1, 3, 4, 5, 2)])
def test_the_spectrum_is_real_and_invertible_and_its_slope_is_the_chain_rule(shape):
    space, x, g = _Space(shape, True), draws(*shape, seed=1), draws(*shape, seed=2)
    coordinates = space.forward(x)
    assert_same_numbers(space.back(coordinates), x, 1e-13)
    direction = draws(*shape, seed=3)
    assert_same_numbers(np.sum(g * space.back(direction)), np.sum(space.slope(g) * direction), 1e-12)
    positions = tuple(range(1, len(shape) - 1))
    power = np.abs(np.fft.fftn(space.back(draws(*shape, seed=4)), axes=positions)) ** 2
    assert power.shape == shape
    flat = _Space(shape, False)
    np.testing.assert_array_equal(flat.slope(g), g)


def test_amplitudes_fall_as_one_over_the_frequency():
    space = _Space((1, 16, 1), True)
    rows = np.eye(16)[..., None]
    waves = np.stack([space.back(row[None])[0, :, 0] for row in rows])
    amplitudes = np.linalg.norm(waves, axis=1)
    frequencies = np.abs(np.fft.fftfreq(16))
    assert_same_numbers(amplitudes[1:] * frequencies[1:], np.full(15, amplitudes[8] / 2), 1e-12)
    assert_same_numbers(amplitudes[0], amplitudes[1], 1e-12)
    assert_same_numbers(np.mean(amplitudes**2), 1.0, 1e-12)


@pytest.mark.parametrize("shape", [(2, 7, 3), (2, 4, 5, 2)])
def test_the_slope_of_the_penalties(shape):
    search = _Search((-1, 3), 0, True, 0.7, 0.2, 10, 0.1)
    x, axes = draws(*shape, seed=1), tuple(range(1, len(shape) - 1))

    def penalty(x):
        total = 0.2 * np.sum((x - 1) ** 2, axis=tuple(range(1, x.ndim)))
        for axis in axes:
            ahead = np.take(x, range(1, x.shape[axis]), axis)
            total += 0.7 * np.sum(np.abs(ahead - np.take(x, range(x.shape[axis] - 1), axis)), tuple(range(1, x.ndim)))
        return total

    assert_same_numbers(search.penalty_slope(x, axes), central_differences(penalty, x), 1e-7)
    assert not np.any(search.penalty_slope(np.full(shape, 1.0), axes))


# -- what must change nothing ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("frequency", [True, False])
def test_jitter_is_undone(frequency):
    model, start = pointwise(), draws(2, 6, 5, 2, seed=2)
    ask = {"target": [1, 2], "start": start, "bounds": (-3, 3), "steps": 20, "frequency": frequency}
    still, moved = (gt.visualise(model, **ask, jitter=jitter) for jitter in (0, 8))
    assert np.max(np.abs(still.images - start)) > 0.1
    assert_same_numbers(moved.images, still.images, 1e-6)
    assert_same_numbers(moved.scores, still.scores, 1e-10)


def test_jitter_is_drawn_by_the_seed():
    model = wide()
    ask = {"target": 1, "steps": 6, "jitter": 3}
    one, same, other, drawn = (gt.visualise(model, **ask, seed=s).images for s in (1, 1, 2, None))
    np.testing.assert_array_equal(one, same)
    assert np.max(np.abs(one - other)) > 1e-3
    assert np.max(np.abs(one - drawn)) > 1e-3


def test_one_image_for_each_class_as_if_alone():
    model = wide()
    several = gt.visualise(model, target=[2, 0, 1], steps=12)
    assert several.images.shape == (3, 8, 8, 2)
    assert several.scores.shape == (13, 3)
    for row, k in enumerate([2, 0, 1]):
        alone = gt.visualise(model, target=k, steps=12)
        assert_same_numbers(several.images[row : row + 1], alone.images, 1e-5)
        assert_same_numbers(several.scores[:, row : row + 1], alone.scores, 1e-7)
    scores = gt.visualise(model, target=gt.targets.class_score([2, 0, 1]), steps=12)
    assert_same_numbers(scores.images, several.images, 1e-6)


def test_the_last_score_is_that_of_the_images():
    model = wide()
    found = gt.visualise(model, target=gt.targets.channel("conv", 2), steps=10)
    own = np.mean(gt.activations(model, found.images, at="conv").only[..., 2], axis=(1, 2))
    assert_same_numbers(found.scores[-1], own, 1e-6)


def test_the_model_is_as_it_was_and_its_python_runs_once():
    class Model(keras.Model):
        def __init__(self):
            super().__init__()
            self.head, self.on_call = layers.Dense(2), lambda: None

        def call(self, x):
            runs.append(1)
            self.on_call()
            return self.head(x)

    runs, model = [], Model()
    model(np.zeros((1, 3)))
    runs.clear()
    before = everything(model)
    gt.visualise(model, target=1, shape=(3,), steps=5)
    assert len(runs) == 1
    assert_same(before, everything(model))

    def interrupted(outputs):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        gt.visualise(model, target=interrupted, shape=(3,), steps=5)
    assert_same(before, everything(model))


# -- mistakes ----------------------------------------------------------------------------------------------------------


def test_shapes_that_are_not_known():
    with float64_policy():
        free = keras.Sequential([keras.Input((None, None, 2)), layers.GlobalAveragePooling2D(), layers.Dense(2)])
    refuses(
        errors.InputShapeError, lambda: gt.visualise(free, target=0), "(None, None, None, 2)", "shape=(224, 224, 3)"
    )
    assert gt.visualise(free, target=0, shape=(4, 5, 2), steps=2).images.shape == (1, 4, 5, 2)
    refuses(errors.InputShapeError, lambda: gt.visualise(lambda x: x[:, 0], steps=2), "does not say")
    for wrong in (5, (4, None, 2), (4, 0, 2), "ab", (4.0, 5, 2)):
        refuses(errors.InputShapeError, lambda w=wrong: gt.visualise(free, target=0, shape=w), "shape=")
    refuses(errors.InputShapeError, lambda: gt.visualise(free, target=0, shape=(4, 5, 3)), "(1, 4, 5, 3)")
    both = {"shape": (4, 5, 2), "start": np.zeros((1, 4, 5, 2))}
    refuses(errors.ArgumentError, lambda: gt.visualise(free, target=0, **both), "both")
    refuses(errors.ArgumentError, lambda: gt.visualise(free, target=0, start=np.array(["a"])), "no start")


def test_keywords_outside_of_their_choices():
    model, _ = linear(4)

    def ask(**given):
        return lambda: gt.visualise(model, **{"target": 0} | given)

    for wrong in ((1, 0), (0, 0), (0, float("inf")), (0, 1, 2), "ab", 3, (None, 1), (False, True)):
        refuses(errors.ArgumentError, ask(bounds=wrong), "bounds=")
    for name in ("total_variation", "l2", "step_size"):
        for wrong in (-1, float("nan"), "a", None, True):
            refuses(errors.ArgumentError, ask(**{name: wrong}), f"{name}=")
    refuses(errors.ArgumentError, ask(start=np.full((1, 4), 5.0)), "outside of bounds=(0, 1)")
    refuses(errors.ArgumentError, ask(steps=0), "steps=0")
    refuses(errors.ArgumentError, ask(jitter=-1), "jitter=-1")
    refuses(errors.ArgumentError, ask(frequency=1), "frequency=1")
    refuses(errors.ArgumentError, ask(seed="a"), "seed=")
    refuses(errors.ArgumentError, ask(training=1), "training=")
    refuses(errors.MissingTargetError, ask(target=None))
    refuses(errors.ClassRangeError, ask(target=3))
    refuses(errors.TargetCountError, ask(target=[0, 1], start=np.zeros((3, 4))))
    refuses(errors.ArgumentError, lambda: tf.function(ask(steps=2))(), "out of a tf.function")


def test_models_that_cannot_be_moved():
    refuses(errors.IntegerTapError, lambda: gt.visualise(tokens(), target=0), "int32", "`tokens`")
    refuses(errors.InputStructureError, lambda: gt.visualise(heads(), target=0), "takes 2", "`left`, `right`")
    refuses(errors.ModelTypeError, lambda: gt.visualise(3, target=0))
    with float64_policy():
        whole = keras.Sequential([keras.Input((4,)), layers.Lambda(tf.round), layers.Dense(2)])
    refuses(errors.NonDifferentiableError, lambda: gt.visualise(whole, target=0))


def test_images_that_are_not_finite_are_told():
    def steep(x):
        return tf.reduce_sum(x, -1) * tf.where(tf.reduce_sum(x, -1) > 0.6, np.float64("nan"), np.float64(1.0))

    with pytest.warns(errors.NonFiniteWarning, match="in the images"):
        gt.visualise(steep, start=np.full((1, 2), 0.2), steps=5, step_size=0.2)
    gt.visualise(steep, start=np.full((1, 2), 0.2), steps=5, step_size=0.2, checks=False)
