"""Concepts: the separator is the optimum, the derivatives are the model's, the tests keep what they promise."""

from __future__ import annotations

import itertools
import math
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import gradtap as gt
from gradtap import batching, errors
from gradtap.asking import Settings
from gradtap.concepts.activation_vectors import fit_pairs
from gradtap.concepts.examples import drawn
from gradtap.concepts.sensitivity import derivatives_along
from gradtap.concepts.separator import combined, inner_products, kept_aside, logistic_loss, minimise, separate
from gradtap.concepts.significance import holm, permutation_p, rank_p, smallest_p
from gradtap.concepts.testing import Plan, _rows
from gradtap.targets import as_target
from reference.differences import STEP, assert_same_numbers
from reference.models import float64_policy

TAPS = ["conv1", "pool", "conv2:preactivation"]


def sets(rng, *sizes, features=6, shift=0.0):
    return [rng.normal(size=(size, features)) + shift for size in sizes]


def net():
    """A small image model; every layer of it is nonlinear in its input."""
    with float64_policy():
        keras.utils.set_random_seed(3)
        image = keras.Input((6, 6, 2), name="image")
        h = layers.Conv2D(3, 3, activation="tanh", padding="same", name="conv1")(image)
        h = layers.Conv2D(4, 3, activation="gelu", name="conv2")(h)
        h = layers.GlobalAveragePooling2D(name="pool")(h)
        return keras.Model(image, layers.Dense(3, activation="softmax", name="scores")(h))


def planted(direction):
    """The target is linear along a direction at `tap`, whatever the input."""
    with float64_policy():
        model = keras.Sequential([keras.Input((len(direction),), name="x"), layers.Identity(name="tap")])
        model.add(layers.Dense(1, use_bias=False, name="score"))
    model.layers[-1].kernel.assign(np.reshape(direction, (-1, 1)))
    return model


# -- the separator -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("features", "penalty"), [(3, 0.01), (3, 1.0), (60, 0.01), (60, 1e-6)])
def test_the_loss_has_no_slope_at_the_solution(rng, features, penalty):
    points = np.concatenate(sets(rng, 13, 20, features=features))
    points[:13] += 0.4
    points /= np.sqrt(features)
    positive = np.arange(33) < 13
    slope, offset = minimise(points, positive, penalty)
    wide = np.append(slope, offset)

    def loss(at):
        return logistic_loss(at[:-1], at[-1], points, positive, penalty)

    for entry in np.eye(features + 1):
        step = 1e-5 * entry
        assert abs(loss(wide + step) - loss(wide - step)) / 2e-5 < 1e-9
    for _ in range(20):
        assert loss(wide + 1e-3 * rng.normal(size=wide.shape)) > loss(wide)


def test_the_loss_is_the_formula(rng):
    points, positive = rng.normal(size=(5, 2)), np.array([True, True, False, False, False])
    slope, offset, penalty = np.array([0.3, -0.7]), 0.2, 0.1
    expected = 0.5 * penalty * (0.3**2 + 0.7**2)
    for point, own in zip(points, positive):
        margin = (1 if own else -1) * (point @ slope + offset)
        expected += math.log1p(math.exp(-margin)) / (2 * (2 if own else 3))
    assert logistic_loss(slope, offset, points, positive, penalty) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(("features", "penalty"), [(4, 0.01), (30, 0.01), (200, 0.3)])
def test_inner_products_are_all_that_is_needed(rng, features, penalty):
    points = np.concatenate(sets(rng, 18, 25, features=features, shift=2.0))
    points[:18] += 0.3
    positive = np.arange(43) < 18
    centre = points.mean(0) + 0.5  # about any point
    by_points = separate(positive, penalty, points=points - centre)
    by_gram = separate(positive, penalty, gram=inner_products(points, centre))
    slopes = [plane.weights @ points for plane in (by_points, by_gram)]
    assert_same_numbers(slopes[1], slopes[0], 1e-8, floor=0)
    assert by_gram.offset == pytest.approx(by_points.offset, rel=1e-7, abs=1e-9)
    # It is the optimum of the problem that the docstring states, in the space of the features.
    spread = np.mean(np.sum((points - points.mean(0)) ** 2, 1))

    def loss(slope, offset):
        return logistic_loss(slope, offset, points, positive, penalty * spread)

    def change(slope, offset):
        return (loss(slopes[0] + slope, offset) - loss(slopes[0] - slope, 2 * at - offset)) / 2e-6

    at = by_points.offset - slopes[0] @ centre
    scale = 1 + abs(change(1e-6 * rng.normal(size=features), at + 1e-6 * 30))
    for entry in np.eye(features)[:10]:
        assert abs(change(1e-6 * entry, at)) < 1e-7 * scale
    assert abs(change(np.zeros(features), at + 1e-6)) < 1e-7


def test_the_scale_of_the_activations_is_of_no_account(rng):
    points = np.concatenate(sets(rng, 10, 12))
    points[:10] += 0.5
    positive = np.arange(22) < 10
    plain, large = (separate(positive, 0.01, points=factor * points) for factor in (1.0, 1e6))
    directions = [plane.weights @ points / np.linalg.norm(plane.weights @ points) for plane in (plain, large)]
    assert np.allclose(*directions, rtol=0, atol=1e-9)


def test_sets_of_unequal_size_count_the_same(rng):
    """Each example of one set given five times changes nothing."""
    a, b = sets(rng, 8, 9)
    a += 0.7
    once = np.concatenate([a, b])
    often = np.concatenate([np.repeat(a, 5, 0), b])
    slope, offset = minimise(once, np.arange(17) < 8, 0.1)
    again, same = minimise(often, np.arange(49) < 40, 0.1)
    assert np.allclose(again, slope, atol=1e-10) and same == pytest.approx(offset, abs=1e-10)


def test_sums_of_examples_have_norm_one_whatever_their_size(rng):
    rows = rng.normal(size=(5, 40_000))  # more than one block
    weights = np.stack([rng.normal(size=5), 1e-200 * rng.normal(size=5), np.zeros(5)])
    found, norms = combined(weights, rows, rows.mean(0))
    expected = weights[0] @ (rows - rows.mean(0))
    assert_same_numbers(found[0] * norms[0], expected, 1e-12)
    assert np.allclose(np.linalg.norm(found, axis=1), [1, 1, 0])
    assert_same_numbers(inner_products(rows, rows.mean(0)), (rows - rows.mean(0)) @ (rows - rows.mean(0)).T, 1e-12)


@pytest.mark.parametrize(("count", "share", "kept"), [(2, 0.25, 1), (8, 0.25, 2), (40, 0.25, 10), (3, 0.99, 2)])
def test_some_of_each_set_is_held_out(count, share, kept):
    chosen = kept_aside(count, share, 0)
    assert chosen.sum() == kept and np.array_equal(chosen, kept_aside(count, share, 0))


# -- concept vectors ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("features", [5, 300])
def test_a_vector_points_to_the_concept(rng, features):
    direction = np.eye(features)[2]
    model = planted(direction)
    concept, contrast = sets(rng, 60, 50, features=features)
    concept += 8 * direction
    found = gt.concepts.concept_vector(model, concept, contrast, at="tap").only
    assert found.vector.shape == (features,) and found.vector.dtype == np.float64
    assert np.linalg.norm(found.vector) == pytest.approx(1, rel=1e-12)
    assert found.vector @ direction > 0.8
    assert found.accuracy == 1.0 and found.held_out == 27
    distances = [(rows @ found.vector + found.intercept) for rows in (concept, contrast)]
    assert (distances[0] > 0).mean() > 0.95 and (distances[1] < 0).mean() > 0.95
    with pytest.raises(ValueError):
        found.vector[0] = 0
    back = gt.concepts.concept_vector(model, contrast, concept, at="tap").only
    assert np.allclose(back.vector, -found.vector) and back.intercept == pytest.approx(-found.intercept)


def test_the_accuracy_is_of_the_examples_that_were_held_out(rng):
    """Recomputed from the vector: it saw the others alone."""
    concept, contrast = sets(rng, 24, 16, features=3)
    concept += 0.8
    found = gt.concepts.concept_vector(planted(np.ones(3)), concept, contrast, at="tap", seed=4).only
    kept = [kept_aside(len(rows), 0.25, 4) for rows in (concept, contrast)]
    right = [
        np.mean(sign * (rows[own] @ found.vector + found.intercept) > 0)
        for rows, own, sign in zip((concept, contrast), kept, (1, -1))
    ]
    assert found.accuracy == pytest.approx(np.mean(right)) and 0.5 < found.accuracy < 1
    moved = concept.copy()
    moved[kept[0]] += 100.0
    same = gt.concepts.concept_vector(planted(np.ones(3)), moved, contrast, at="tap", seed=4).only
    assert np.allclose(same.vector, found.vector, atol=1e-9)


def images(rng, *sizes):
    return [rng.normal(size=(size, 6, 6, 2)) + i for i, size in enumerate(sizes)]


def same_vectors(a, b, exactly=False):
    assert list(a) == list(b)
    for key in a:
        assert np.allclose(a[key].vector, b[key].vector, rtol=0, atol=0 if exactly else 1e-10)
        assert a[key].accuracy == b[key].accuracy
        assert a[key].intercept == pytest.approx(b[key].intercept, rel=1e-9)


def test_vectors_do_not_depend_on_how_examples_come(rng):
    model = net()
    concept, contrast = images(rng, 14, 17)
    whole = gt.concepts.concept_vector(model, concept, contrast, at=TAPS)
    assert list(whole) == ["conv1", "conv2:preactivation", "pool"]
    assert whole["conv1"].vector.shape == (6, 6, 3) and model.get_layer("conv1") in whole
    same_vectors(gt.concepts.concept_vector(model, concept, contrast, at=TAPS), whole, exactly=True)
    same_vectors(gt.concepts.concept_vector(model, concept, contrast, at=TAPS, batch_size=4), whole)
    streams = [tf.data.Dataset.from_tensor_slices(rows).batch(5) for rows in (concept, contrast)]
    same_vectors(gt.concepts.concept_vector(model, *streams, at=TAPS), whole)
    for key in whole:
        same_vectors(gt.concepts.concept_vector(model, concept, contrast, at=key), {key: whole[key]})
    other = gt.concepts.concept_vector(model, concept, contrast, at=TAPS, seed=1)
    assert not np.allclose(other["pool"].vector, whole["pool"].vector)


@pytest.mark.parametrize("features", [3, 100])
def test_equal_sets_have_no_vector(rng, features):
    (rows,) = sets(rng, 20, features=features)
    model = planted(np.ones(features))
    with pytest.warns(errors.ConceptWarning, match="no better than by chance"):
        found = gt.concepts.concept_vector(model, rows, rows.copy(), at="tap").only
    assert found.accuracy == 0.5 and not found.vector.any() and np.isfinite(found.intercept)
    assert gt.concepts.concept_vector(model, rows, rows.copy(), at="tap", checks=False).only.accuracy == 0.5
    with pytest.warns(errors.ConceptWarning):
        constant = gt.concepts.concept_vector(model, np.full_like(rows, 0.1), np.full_like(rows, 0.1), at="tap").only
    assert not constant.vector.any()


def test_half_precision_is_read_in_float32(rng):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3, name="hidden", dtype="mixed_bfloat16")])
    a, b = sets(rng, 20, 20, features=4)
    found = gt.concepts.concept_vector(model, a + 3, b, at="hidden").only
    assert found.vector.dtype.name == "bfloat16"
    assert np.linalg.norm(found.vector.astype("float32")) == pytest.approx(1, abs=0.01)


# -- derivatives along vectors -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("at", ["conv1", "conv2:preactivation", "pool"])
def test_derivatives_are_central_differences_of_a_patched_model(rng, at):
    model = net()
    x = images(rng, 3)[0]
    target = gt.targets.class_score(1)
    here = gt.activations(model, x, at=at).only.numpy()
    vectors = rng.normal(size=(4, here[0].size))
    (found,) = derivatives_along(model, x, as_target(target), at, [vectors], Settings(), [here.shape[1:]])
    assert found.shape == (3, 4)
    for i, vector in enumerate(vectors):
        step = STEP * vector.reshape(here.shape[1:])
        ends = [gt.patch(model, x, {at: here + sign * step}).numpy()[:, 1] for sign in (1, -1)]
        assert_same_numbers(found[:, i], (ends[0] - ends[1]) / (2 * STEP), 1e-6, floor=1e-6)


def test_a_cut_batch_and_one_example_give_the_same_derivatives(rng):
    model = net()
    x = images(rng, 5)[0]
    shapes, vectors = [(4,)], [rng.normal(size=(5, 4))]  # as many vectors as examples

    def ask(inputs, **settings):
        return derivatives_along(model, inputs, as_target(0), "pool", vectors, Settings(**settings), shapes)[0]

    whole = ask(x)
    assert np.allclose(ask(x, batch_size=2), whole, rtol=1e-12)
    assert np.allclose(np.concatenate([ask(x[i : i + 1]) for i in range(5)]), whole, rtol=1e-12)
    assert np.allclose(ask(tf.data.Dataset.from_tensor_slices(x).batch(2)), whole, rtol=1e-12)


# -- tcav --------------------------------------------------------------------------------------------------------------


def test_a_planted_concept_is_found_and_so_is_its_opposite(rng):
    direction = np.eye(40)[7]
    model = planted(direction)
    inputs, up, down, pool = sets(rng, 9, 30, 30, 400, features=40)
    concepts = {"up": up + 6 * direction, "down": down - 6 * direction}
    found = gt.concepts.tcav(model, inputs, concepts, at="tap", random=pool, runs=16)
    assert [row.score for row in found] == [1.0, 0.0]
    assert all(row.significant and row.p_corrected <= 0.01 for row in found.rows)
    assert all(row.accuracy > 0.95 and row.tap == "tap" for row in found)
    assert found.of("up").scores.shape == found.of("up", "tap").random.shape == (16,)
    turned = gt.concepts.tcav(planted(-direction), inputs, concepts, at="tap", random=pool, runs=16)
    assert [row.score for row in turned] == [0.0, 1.0]


def test_a_planted_concept_is_found_among_sets(rng):
    direction = np.eye(10)[7]
    (inputs, up, pool) = sets(rng, 5, 10, 490, features=10)
    concepts = {"up": up + 6 * direction}
    found = gt.concepts.tcav(planted(direction), inputs, concepts, at="tap", random=pool, runs=49, test="sets").rows[0]
    assert found.score == 1.0 and found.random.max() < 1
    # One random set is below all others, as far from one half as this one.
    assert found.random.min() == 0.0 and found.p_value == pytest.approx(2 / 50) and found.significant


def test_random_sets_are_scored_against_each_other_as_told(rng):
    """The score of each random set recomputed one vector at a time."""
    model = net()
    inputs, *random = images(rng, 6, 8, 8, 8, 8)
    random = [rows - i for i, rows in enumerate(random)]
    (concept,) = images(rng, 9)
    target = gt.targets.class_score(2, logits=True)
    slopes = gt.gradients(model, inputs, target=target, at="pool").only.numpy()

    def score(a, b):
        vector = gt.concepts.concept_vector(model, a, b, at="pool", checks=False).only.vector
        return np.mean(slopes @ vector > 0)

    ask = {"target": target, "at": "pool", "random": random, "checks": False}
    (row,) = gt.concepts.tcav(model, inputs, {"c": concept}, **ask)
    assert np.array_equal(row.scores, [score(concept, r) for r in random])
    assert np.array_equal(row.random, [score(random[i], random[(i + 1) % 4]) for i in range(4)])
    (row,) = gt.concepts.tcav(model, inputs, {"c": concept}, test="sets", **ask)
    everyone = [*random, concept]
    expected = [np.mean([score(a, b) for b in everyone if b is not a]) for a in everyone]
    assert np.allclose(row.random, expected[:-1])
    assert row.score == pytest.approx(expected[-1])
    assert row.p_value == rank_p(expected[-1], np.array(expected[:-1]))


def test_sets_of_a_pool_share_no_example():
    pool = [np.arange(23.0)[:, None], np.arange(23.0)[:, None, None] * 2]
    found = drawn(pool, 5, 0)
    assert [len(rows) for rows, _ in found] == [4] * 5
    assert len(np.unique(np.concatenate([rows for rows, _ in found]))) == 20
    assert all(np.array_equal(2 * rows[:, 0], twice[:, 0, 0]) for rows, twice in found)
    again, other = drawn(pool, 5, 0), drawn(pool, 5, 1)
    assert np.array_equal(again[0][0], found[0][0]) and not np.array_equal(other[0][0], found[0][0])


def same_tests(a, b):
    assert len(a) == len(b) > 0
    for one, other in zip(a, b):
        assert (one.concept, one.tap, one.p_value) == (other.concept, other.tap, other.p_value)
        assert np.array_equal(one.scores, other.scores) and np.array_equal(one.random, other.random)


def test_a_test_does_not_depend_on_how_examples_come(rng):
    model = net()
    inputs, *pictures = images(rng, 7, 9, 10, 44)
    target = gt.targets.class_score(2, logits=True)
    concepts = dict(zip(("a", "b"), pictures))

    def ask(inputs=inputs, concepts=concepts, at=TAPS, pool=pictures[2], **more):
        more = {"target": target, "runs": 5, "checks": False} | more
        return gt.concepts.tcav(model, inputs, concepts, at=at, random=pool, **more)

    whole = ask()
    assert [(row.concept, row.tap) for row in whole] == [
        (c, t) for t in ("conv1", "conv2:preactivation", "pool") for c in ("a", "b")
    ]
    same_tests(ask(), whole)
    same_tests(ask(batch_size=3), whole)

    def stream(rows):
        return tf.data.Dataset.from_tensor_slices(rows).batch(4)

    same_tests(
        ask(stream(inputs), {name: stream(rows) for name, rows in concepts.items()}, pool=stream(pictures[2])), whole
    )
    for at in TAPS:
        same_tests(ask(at=at), [row for row in whole if row.tap == at])
    assert any(not np.array_equal(a.random, b.random) for a, b in zip(ask(seed=1), whole))
    single = ask(concepts={"b": concepts["b"]})
    same_tests(single, [row for row in whole if row.concept == "b"])


def test_taps_that_a_pattern_finds_and_that_have_no_gradient_are_left_out(rng):
    image = keras.Input((3,))
    h = layers.Dense(2, name="dense_a")(image)
    layers.Dense(2, name="dense_b")(image)
    other = layers.Dense(2, name="dense_c")(image)
    model = keras.Model(image, [h, other])
    x, a, b = sets(rng, 4, 30, 30, features=3)
    ask = {"target": lambda y: y[0][:, 0], "random": [b, b + 0.1], "checks": False}
    found = gt.concepts.tcav(model, x, {"a": a}, at="dense_*", **ask)
    assert [row.tap for row in found] == ["dense_a"]
    with pytest.raises(errors.UnconnectedTapError):
        gt.concepts.tcav(model, x, {"a": a}, at="dense_c", **ask)
    (row,) = gt.concepts.tcav(model, x, {"a": a}, at="dense_c", unconnected="zero", **ask)
    assert row.score == 0


def test_the_model_runs_once_for_a_set_and_the_inputs_are_differentiated_once(rng, monkeypatch):
    model = net()
    inputs, concept, pool = images(rng, 6, 8, 40)
    runs = []
    real = batching.run_once
    monkeypatch.setattr(batching, "run_once", lambda p, f: runs.append(len(f[0])) or real(p, f))
    gt.concepts.tcav(model, inputs, {"c": concept}, target=0, at=TAPS, random=pool, runs=8, batch_size=20, checks=False)
    assert runs == [8, 20, 20, 6]


# -- the tests of significance -----------------------------------------------------------------------------------------


def test_permutations_are_enumerated():
    own, null = np.array([0.9, 0.8, 0.7]), np.array([0.1, 0.2, 0.75])
    pooled = np.concatenate([own, null])
    hits = 0
    for chosen in itertools.combinations(range(6), 3):
        rest = [i for i in range(6) if i not in chosen]
        hits += abs(pooled[list(chosen)].mean() - pooled[rest].mean()) >= abs(own.mean() - null.mean()) - 1e-12
    p = permutation_p(own, null, np.random.default_rng(0))
    assert p == hits / 20 == permutation_p(null, own, np.random.default_rng(0))
    assert permutation_p(np.ones(5), np.ones(5), np.random.default_rng(0)) == 1.0


@pytest.mark.parametrize("sets", [2, 5, 8])
def test_the_smallest_p_value_is_reached(sets):
    p = permutation_p(np.linspace(0.8, 1, sets), np.linspace(0, 0.2, sets), np.random.default_rng(0))
    assert p == pytest.approx(smallest_p(sets, "scores"))


def test_drawn_permutations_are_close_to_all_of_them(rng, monkeypatch):
    own, null = rng.random(7) + 0.3, rng.random(7)
    exact = permutation_p(own, null, rng)
    monkeypatch.setattr("gradtap.concepts.significance.MOST_DIVISIONS", 0)
    assert permutation_p(own, null, rng) == pytest.approx(exact, abs=0.015)


@pytest.mark.parametrize("draw", ["uniform", "coin"])
def test_scores_of_one_kind_are_rarely_told_apart(rng, draw):
    """About alpha of the time; with coins, whose means are often equal, less."""
    repeats, alpha = 400, 0.1
    drawn = rng.random((repeats, 2, 6)) if draw == "uniform" else rng.integers(0, 2, (repeats, 2, 6)).astype(float)
    rate = np.mean([permutation_p(own, null, rng) <= alpha for own, null in drawn])
    spread = math.sqrt(alpha * (1 - alpha) / repeats)
    assert rate < alpha + 3 * spread
    assert draw == "coin" or rate > alpha - 3 * spread


def test_the_chance_of_any_false_alarm_is_alpha(rng):
    repeats, alpha, tests = 300, 0.1, 5
    raw, family = 0, 0
    for _ in range(repeats):
        p = [permutation_p(*rng.random((2, 6)), rng) for _ in range(tests)]
        raw += min(p) <= alpha
        family += min(holm(p)) <= alpha
    assert raw / repeats > 0.25
    assert family / repeats < alpha + 3 * math.sqrt(alpha * (1 - alpha) / repeats)


def test_holm_on_paper():
    assert np.allclose(holm([0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]) == [1.0, 1.0] and holm([0.2]) == [0.2]


def test_the_rank_of_a_set_among_sets():
    assert rank_p(1.0, np.array([0.5, 0.4, 0.6])) == 0.25
    assert rank_p(0.0, np.array([0.5, 0.4, 0.6])) == 0.25
    assert rank_p(0.45, np.array([0.4, 0.6, 0.5])) == 0.75
    assert rank_p(0.5, np.array([0.5, 0.5])) == 1.0


def test_examples_that_mean_nothing_are_found_by_the_test_of_scores_and_not_by_that_of_sets(rng):
    """The scores of a concept share its examples: the docstring says what comes of that."""
    alarms = {"scores": 0, "sets": 0}
    repeats, alpha = 60, 0.1
    for _ in range(repeats):
        drawn = sets(rng, *[8] * 21, features=30)
        slopes = 0.3 * rng.normal(size=30) + 0.7 * rng.normal(size=(40, 30))
        for test in alarms:
            plan = Plan.of(1, 20, test)
            fits = fit_pairs(drawn, plan.pairs, 0.01, 0.25, 0)
            (row,) = _rows(["c"], "tap", fits, slopes @ fits.vectors.T, plan, test, 0)
            alarms[test] += row.p_value <= alpha
    assert alarms["sets"] / repeats < alpha + 3 * math.sqrt(alpha * (1 - alpha) / repeats)
    assert alarms["scores"] / repeats > 0.25


# -- what is said ------------------------------------------------------------------------------------------------------


def test_a_table_and_a_page():
    with float64_policy():
        model = planted(np.eye(4)[0])
    rng = np.random.default_rng(0)
    x, up, pool = sets(rng, 5, 20, 100, features=4)
    found = gt.concepts.tcav(model, x, {"<up>": up + 5}, at="tap", random=pool, runs=10)
    head, row = found.table().splitlines()
    assert head.split()[:3] == ["concept", "tap", "score"] and row.split()[:3] == ["<up>", "tap", "1.00"]
    assert repr(found) == found.table() and "&lt;up&gt;" in found._repr_html_() and "<up>" not in found._repr_html_()
    assert "score 1.00" in repr(found[0]) and len(found) == 1
    with pytest.raises(errors.MissingResultError, match="no rows are of 'zzz'"):
        found.of("zzz")
    assert "accuracy" in repr(gt.concepts.concept_vector(model, up + 5, pool, at="tap"))


def test_a_concept_no_better_than_chance_is_warned_of(rng):
    model = planted(np.ones(5))
    x, a, b, c = sets(rng, 3, 40, 40, 40, features=5)
    with pytest.warns(errors.ConceptWarning) as caught:
        gt.concepts.tcav(model, x, {"nothing": a, "far": a + 9}, at="tap", random=[a, a, b, c], alpha=0.5)
    (said,) = [str(w.message) for w in caught]
    assert "`nothing` at `tap`" in said and "far" not in said


def test_too_few_random_sets_are_warned_of(rng):
    model = planted(np.ones(5))
    x, a, b, c = sets(rng, 3, 40, 40, 40, features=5)
    for test, needed in (("scores", 5), ("sets", 39)):
        with pytest.warns(errors.ConceptWarning, match=f"{needed} sets are needed"):
            gt.concepts.tcav(model, x, {"a": a + 9, "b": b + 9}, at="tap", random=[b, c], test=test)


def test_everything_wrong_has_an_error(rng):
    model = net()
    x, a, b = images(rng, 3, 6, 6)
    vector, tcav = gt.concepts.concept_vector, gt.concepts.tcav
    ask = {"target": 0, "at": "pool", "random": [a, b]}
    bad = a.copy()
    bad[4, 0, 0, 0] = np.nan
    wide = layers.Conv2D(2, 1, name="conv")(keras.Input((None, None, 1)))
    anysize = keras.Model(wide._keras_history.operation.input, layers.GlobalMaxPooling2D()(wide))
    sizes = [rng.normal(size=(4, n, n, 1)) for n in (3, 4)]
    ids = keras.Sequential(
        [keras.Input((3,), dtype="int32"), layers.Embedding(9, 2, name="emb"), layers.Flatten(), layers.Dense(1)]
    )
    words = rng.integers(0, 9, (4, 3))
    for kind, said, call in [
        (errors.ArgumentError, "`concept` has 0 examples", lambda: vector(model, a[:0], b, at="pool")),
        (errors.ArgumentError, "`contrast` has 1 example", lambda: vector(model, a, b[:1], at="pool")),
        (errors.ArgumentError, "not finite", lambda: vector(model, bad, b, at="pool")),
        (errors.ArgumentError, "penalty=0", lambda: vector(model, a, b, at="pool", penalty=0)),
        (errors.ArgumentError, "held_out=1", lambda: vector(model, a, b, at="pool", held_out=1)),
        (errors.InputShapeError, "the examples of `concept`", lambda: vector(model, a[:, :4], b, at="pool")),
        (errors.InputShapeError, "differ in the shape", lambda: vector(anysize, *sizes, at="conv")),
        (errors.UnknownTapError, "zzz", lambda: vector(model, a, b, at="zzz")),
        (errors.IntegerTapError, "no direction", lambda: vector(ids, words, words, at=":input")),
        (
            errors.InputStructureError,
            "empty",
            lambda: vector(model, tf.data.Dataset.from_tensor_slices(a).take(0).batch(2), b, at="pool"),
        ),
        (errors.IntegerTapError, "emb", lambda: tcav(ids, words, {"w": words}, at=":input", random=[words, words])),
        (errors.ArgumentError, "`concepts` is empty", lambda: tcav(model, x, {}, **ask)),
        (errors.ArgumentError, "`concepts` is no mapping", lambda: tcav(model, x, a, **ask)),
        (errors.ArgumentError, "1 set", lambda: tcav(model, x, {"a": a}, target=0, at="pool", random=[a])),
        (errors.ArgumentError, "not a list", lambda: tcav(model, x, {"a": a}, target=0, at="pool", random=a)),
        (errors.ArgumentError, "runs=1", lambda: tcav(model, x, {"a": a}, target=0, at="pool", random=a, runs=1)),
        (errors.ArgumentError, "need 8", lambda: tcav(model, x, {"a": a}, target=0, at="pool", random=a, runs=4)),
        (errors.ArgumentError, "alpha=2", lambda: tcav(model, x, {"a": a}, alpha=2, **ask)),
        (errors.ArgumentError, "test='t'", lambda: tcav(model, x, {"a": a}, test="t", **ask)),
        (errors.ArgumentError, "there are no inputs", lambda: tcav(model, x[:0], {"a": a}, checks=False, **ask)),
        (errors.ArgumentError, "concept `a`", lambda: tcav(model, x, {"a": a[:1]}, **ask)),
        (errors.ArgumentError, r"random[1]", lambda: tcav(model, x, {"a": a}, target=0, at="pool", random=[a, bad])),
        (errors.MissingTargetError, "target", lambda: tcav(model, x, {"a": bad}, at="pool", random=[a, b])),
        (errors.TargetCountError, "2", lambda: tcav(model, x, {"a": a}, target=[0, 1], at="pool", random=[a, b])),
        (
            errors.InputShapeError,
            "another shape",
            lambda: tcav(
                anysize, sizes[0], {"a": sizes[1]}, target=0, at="conv", random=[sizes[1], sizes[1] + 1], checks=False
            ),
        ),
    ]:
        with pytest.raises(kind) as caught:
            call()
        assert said in str(caught.value), str(caught.value)


def test_inside_a_tf_function_it_says_where_to_call(rng):
    model = net()
    a, b = images(rng, 4, 4)
    with pytest.raises(errors.ArgumentError, match="outside of TensorFlow"):
        tf.function(lambda: gt.concepts.concept_vector(model, tf.constant(a), tf.constant(b), at="pool"))()


def test_the_model_stays_as_it_was_found(rng):
    model = net()
    x, a, pool = images(rng, 3, 8, 40)
    before, kept = [w.copy() for w in model.get_weights()], set(vars(model))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", errors.ConceptWarning)
        gt.concepts.tcav(model, x, {"a": a}, target=0, at=TAPS, random=pool, runs=5)
    assert all(np.array_equal(w, v) for w, v in zip(model.get_weights(), before)) and set(vars(model)) == kept
