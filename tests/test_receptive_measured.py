"""Effective receptive fields and the strongest patches: against tapes, sums on paper, and searches by hand."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import gradtap as gt
from gradtap import errors
from gradtap.receptive import effective, patches, theoretical
from gradtap.receptive.gaussian import deviations
from reference.differences import assert_same_numbers
from reference.models import draws


def network(size=24, channels=3, depth=3, activation="tanh"):
    convs = [layers.Conv2D(4, 3, padding="same", activation=activation, name=f"c{i}") for i in range(depth)]
    model = keras.Sequential([keras.Input((size, size - 3, channels), dtype="float64"), *convs])
    for i, weight in enumerate(model.weights):
        weight.assign(0.1 * draws(*weight.shape, seed=i))
    return model


def test_the_map_is_that_of_a_tape():
    model = network()
    images = draws(5, 24, 21, 3, seed=9)
    x = tf.constant(images)
    with tf.GradientTape() as tape:
        tape.watch(x)
        score = tf.reduce_sum(model.get_layer("c1")(model.get_layer("c0")(x))[:, 12, 10])
    expected = np.abs(tape.gradient(score, x)).mean((0, 3))
    assert_same_numbers(effective(model, images, at="c1").map, expected, 1e-12)
    other = effective(model, images, at="c1", unit=(12, 10))
    assert_same_numbers(other.map, expected, 1e-12)


def test_equal_weights_give_the_box_convolved_with_itself():
    model = network(depth=5, channels=1, activation=None, size=31)
    for weight in model.weights:
        weight.assign(np.ones(weight.shape) if weight.shape[0] == 3 else np.zeros(weight.shape))
    field = effective(model, np.zeros((1, 31, 28, 1)), at=["c0", "c4"])
    profile = [1.0]
    for _ in range(5):
        profile = np.convolve(profile, np.ones(3))
    # 4 channels are summed at each of the 4 steps between the first layer and the last, and at the unit.
    assert_same_numbers(field["c4"].map[10:21, 9:20], 4.0**5 * np.outer(profile, profile), 1e-12)
    assert field["c4"].map.sum() == pytest.approx(4.0**5 * 3.0**10)
    # The variance of five boxes is 5 * 2 / 3; a Gaussian fitted to five of them is 3.8 per cent wider.
    assert field["c4"].sigma == pytest.approx((1.038 * np.sqrt(10 / 3),) * 2, rel=0.002)
    assert field["c0"].share == 1.0
    with pytest.raises(errors.MissingResultError):
        _ = field.map


def test_units_and_layers_in_one_run_are_those_of_runs_of_their_own():
    model, images = network(), draws(3, 24, 21, 3)
    places = [(0, 0), "center", (-1, 4)]
    together = effective(model, images, at=["c0", "c2"], unit=places)
    for at in ["c0", "c2"]:
        for i, place in enumerate(places):
            alone = effective(model, images, at=at, unit=place)
            assert_same_numbers(together[at].map[i], alone.map, 1e-12)
            assert_same_numbers(together[at].sigma[i], np.array(alone.sigma), 1e-9)
            assert together[at].share[i] == alone.share
    assert together["c0"].unit[2] == (23, 4)
    assert_same_numbers(together["c2"].map[2], effective(model, images, at="c2", unit=(23, 4)).map, 1e-12)
    assert together["c2"].map.shape == (3, 24, 21)


def test_more_units_than_run_at_once():
    model, images = network(size=8), draws(2, 8, 5, 3)
    places = [(r, c) for r in range(8) for c in range(5)]
    found = effective(model, images, at="c0", unit=places)
    assert found.map.shape == (40, 8, 5)
    assert_same_numbers(found.map[37], effective(model, images, at="c0", unit=places[37]).map, 1e-12)


def test_any_way_to_read_the_data_gives_the_same_map():
    model, images = network(size=12), draws(150, 12, 9, 3)
    whole = effective(model, images, at="c2").map
    tenth = np.mean([effective(model, images[i : i + 15], at="c2").map for i in range(0, 150, 15)], 0)
    assert_same_numbers(whole, tenth, 1e-12)
    assert_same_numbers(effective(model, images, at="c2", batch_size=7).map, whole, 1e-12)
    dataset = tf.data.Dataset.from_tensor_slices((images, np.zeros(150))).batch(32)
    assert_same_numbers(effective(model, dataset, at="c2").map, whole, 1e-12)


def test_another_unit_is_no_other_trace_and_no_other_program():
    model, images = network(size=12), draws(2, 12, 9, 3)
    trace = gt.trace(model)
    effective(trace, images, at="c2", unit=(1, 1))
    graph = trace.graphs.any_graph()
    programs, ops = len(graph.programs), len(graph.graph.get_operations())
    effective(trace, images, at="c2", unit=(5, 2))
    assert (len(graph.programs), len(graph.graph.get_operations())) == (programs, ops)
    assert len(trace.graphs) == 1


def test_a_series_a_volume_and_another_layer():
    series = keras.Sequential(
        [keras.Input((30, 2), dtype="float64"), layers.Conv1D(2, 5, name="a"), layers.Conv1D(2, 5, name="b")]
    )
    field = effective(series, draws(4, 30, 2), at="b")
    assert field.map.shape == (30,)
    assert np.flatnonzero(field.map).tolist() == list(range(11, 20))
    assert len(field.sigma) == 1
    within = effective(series, draws(4, 30, 2), at="b", along="a")
    assert np.flatnonzero(within.map).tolist() == list(range(11, 16))
    volume = keras.Sequential([keras.Input((6, 7, 8, 1)), layers.Conv3D(1, 3, name="c")])
    assert effective(volume, np.ones((1, 6, 7, 8, 1)), at="c").map.shape == (6, 7, 8)


def test_patterns_skip_what_the_input_does_not_move():
    x = keras.Input((8, 8, 1))
    y = layers.Conv2D(2, 3, name="conv")(x)
    z = layers.Lambda(lambda t: tf.stop_gradient(t) * 2.0, name="stopped")(y)
    model = keras.Model(x, layers.Add()([y, z]))
    found = effective(model, np.ones((1, 8, 8, 1)), at=["conv", "sto*"])
    assert list(found) == ["conv"]
    assert list(found.skipped) == ["stopped"]
    with pytest.raises(errors.UnconnectedTapError):
        effective(model, np.ones((1, 8, 8, 1)), at="stopped")
    zero = effective(model, np.ones((1, 8, 8, 1)), at="stopped", unconnected="zero")
    assert not zero.map.any()
    assert np.isnan(zero.sigma).all()
    assert zero.share == 0.0


@pytest.mark.parametrize("unit", [(3,), (30, 2), "middle", (1.5, 2), [], True])
def test_units_that_are_none(unit):
    with pytest.raises(errors.ArgumentError):
        effective(network(), draws(1, 24, 21, 3), at="c0", unit=unit)


def test_nothing_to_measure_on():
    with pytest.raises(errors.InputStructureError):
        effective(network(), np.zeros((0, 24, 21, 3)), at="c0")
    with pytest.raises(errors.GradtapError, match="embedding"):
        ids = keras.Input((9,), dtype="int32")
        model = keras.Model(ids, layers.Conv1D(2, 3, name="conv")(layers.Embedding(5, 3, name="embedding")(ids)))
        effective(model, np.zeros((1, 9), np.int32), at="conv")


@pytest.mark.parametrize("sigma", [(1.1, 3.7), (6.0, 0.8), (2.5, 2.5)])
def test_a_gaussian_is_found_again(sigma):
    rows, columns = np.mgrid[:40, :33]
    bell = 7 * np.exp(-((rows - 17.2) ** 2) / (2 * sigma[0] ** 2) - (columns - 12.9) ** 2 / (2 * sigma[1] ** 2))
    assert deviations(bell) == pytest.approx(sigma, rel=1e-6)


def test_the_fit_is_the_best_there_is(rng):
    values = rng.uniform(size=(9, 11)) * np.exp(-((np.arange(9)[:, None] - 4) ** 2 + (np.arange(11) - 5) ** 2) / 9)
    found = deviations(values)

    def left(sigma):
        """The least sum of squares with these deviations: amplitude in closed form, centres on a fine grid."""
        best = np.inf
        for r in np.arange(3, 5, 0.02):
            for c in np.arange(4, 6, 0.02):
                bell = np.outer(
                    np.exp(-((np.arange(9) - r) ** 2) / (2 * sigma[0] ** 2)),
                    np.exp(-((np.arange(11) - c) ** 2) / (2 * sigma[1] ** 2)),
                )
                best = min(best, np.sum((values - bell * (values * bell).sum() / (bell**2).sum()) ** 2))
        return best

    assert all(left(found) <= left(np.multiply(found, by)) for by in [(1.05, 1), (0.95, 1), (1, 1.05), (1, 0.95)])


def test_maps_without_a_width():
    assert np.isnan(deviations(np.zeros((3, 4)))).all()
    assert np.isinf(deviations(np.ones((3, 4)))).all()
    one = np.zeros((5, 5))
    one[2, 3] = 4.0
    assert max(deviations(one)) < 0.5


def by_hand(values, k, per_example):
    """The strongest units of a channel ``(examples, *places)``."""
    found = []
    for n, one in enumerate(values):
        places = sorted(np.ndindex(*one.shape), key=lambda p: -one[p])[:per_example]
        found += [(one[p], n, p) for p in places]
    return sorted(found, key=lambda f: -f[0])[:k]


@pytest.mark.parametrize(("k", "per_example"), [(9, 1), (4, 3), (500, 2)])
def test_patches_are_those_of_a_search_by_hand(k, per_example):
    model, images = network(size=12), draws(70, 12, 9, 3)
    found = patches(model, images, at="c1", channel=2, k=k, per_example=per_example)
    expected = by_hand(gt.activations(model, images, at="c1").only.numpy()[..., 2], k, per_example)
    assert [(p.example, p.unit) for p in found] == [(n, place) for _, n, place in expected]
    np.testing.assert_allclose([p.activation for p in found], [value for value, *_ in expected], rtol=1e-12)
    field = theoretical(model, at="c1").only
    for patch in found:
        assert patch.region == field.region(patch.unit)
        assert np.array_equal(patch.crop, images[patch.example][patch.region])
    assert found.searched == 70


def test_a_patch_holds_all_that_its_unit_depends_on():
    model, images = network(size=16), draws(5, 16, 13, 3)
    patch = patches(model, images, at="c2", channel=0, k=1)[0]
    other = draws(1, 16, 13, 3, seed=5)[0]
    other[patch.region] = patch.crop
    again = gt.activations(model, other[None], at="c2").only.numpy()[(0, *patch.unit, 0)]
    assert again == pytest.approx(patch.activation, rel=1e-12)


def test_patches_of_a_stream_and_of_another_channel():
    model, images = network(size=12), draws(70, 12, 9, 3)
    trace = gt.trace(model)
    whole = patches(trace, images, at="c1", channel=1)
    dataset = tf.data.Dataset.from_tensor_slices(images).batch(16)
    for other in [
        patches(trace, dataset, at="c1", channel=1),
        patches(trace, images, at="c1", channel=1, batch_size=5),
    ]:
        assert [(p.example, p.unit) for p in other] == [(p.example, p.unit) for p in whole]
        np.testing.assert_allclose([p.activation for p in other], [p.activation for p in whole], rtol=1e-12)
    ops = len(trace.graphs.any_graph().graph.get_operations())
    last = patches(trace, images, at="c1", channel=-1)
    assert [p.example for p in last] == [p.example for p in patches(trace, images, at="c1", channel=3)]
    assert len(trace.graphs.any_graph().graph.get_operations()) == ops
    dense = keras.Sequential([keras.Input((6,)), layers.Dense(3, name="d")])
    assert patches(dense, np.eye(6), at="d", channel=0)[0].crop.shape == (6,)


def test_patches_that_cannot_be():
    model, images = network(), draws(2, 24, 21, 3)
    with pytest.raises(errors.ClassRangeError):
        patches(model, images, at="c0", channel=4)
    with pytest.raises(errors.ArgumentError):
        patches(model, images, at=["c0", "c1"], channel=0)
    with pytest.raises(errors.ArgumentError):
        patches(model, images, at="c0", channel="a")
    with pytest.raises(errors.ArgumentError):
        patches(model, images, at="c0", channel=0, k=0)
    with pytest.raises(errors.InputStructureError):
        patches(model, images[:0], at="c0", channel=0)
