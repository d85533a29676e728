"""Attacks that search: against restatements of the papers, where the answer is known, and at any tap."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import gradtap as gt
from gradtap import attacks, errors
from gradtap.attacks import balls
from reference import attacks as papers
from reference.differences import assert_same_numbers
from reference.models import draws, policy
from reference.smooth import smooth

CLASSES = 5
KINDS = ["functional", "subclassed", "nested"]
TAPS = ["skip", "convolution", "recurrent", "attention", "tokens"]


class Subclassed(keras.Model):
    """The same layers as the others, called by hand."""

    def __init__(self, parts):
        super().__init__()
        self.parts = parts

    def call(self, x):
        for part in self.parts:
            x = part(x)
        return x


def classifier(kind="functional", activation="softmax", classes=CLASSES, size=6, scale=2.0, dtype="float64"):
    """A small smooth network, with the same weights however it is made."""
    with policy(dtype, dtype):
        parts = [layers.Dense(8, activation="tanh", name="hidden"), layers.Dense(classes, activation, name="scores")]
        if kind == "subclassed":
            model = Subclassed(parts)
            model(np.zeros((1, size), dtype))
        elif kind == "nested":
            inner = keras.Sequential([keras.Input((size,)), parts[0]], name="inner")
            model = keras.Sequential([keras.Input((size,)), inner, parts[1]])
        else:
            model = keras.Sequential([keras.Input((size,)), *parts])
    for i, weight in enumerate(model.weights):
        weight.assign(scale * draws(*weight.shape, seed=i) / np.sqrt(weight.shape[0]))
    if activation == "softmax":  # all classes are as likely in the middle, so that rows differ in what they are
        model.weights[-1].assign_sub(np.log(model(np.full((1, size), 0.5, dtype)))[0])
    return model


def linear(classes=CLASSES, size=6, dtype="float64", steepest=1):
    with policy(dtype, dtype):
        model = keras.Sequential([keras.Input((size,)), layers.Dense(classes)])
    model.set_weights([draws(size, classes) * np.linspace(1, steepest, classes), draws(classes, seed=1)])
    return model


def rows(count=5, size=6, seed=3):
    return np.random.default_rng(seed).uniform(0.1, 0.9, size=(count, size))


def tokens():
    """Token ids, an embedding that can be attacked, attention after it."""
    x = keras.Input((4,), dtype="int32")
    h = layers.Embedding(7, 3, embeddings_initializer="normal", name="tap")(x)
    h = layers.Flatten()(layers.MultiHeadAttention(1, 3)(h, h))
    model = keras.Model(x, layers.Dense(4, activation="softmax")(h))
    for i, weight in enumerate(model.weights):
        weight.assign(draws(*weight.shape, seed=20 + i))
    return model, np.random.default_rng(1).integers(0, 7, (4, 4)).astype("int32")


class Rest:
    """The rest of a model from a tap on, as a function of the activations of one example, with slopes by a tape."""

    def __init__(self, model, x, at=":input"):
        self.model, self.x, self.at = model, x, at
        is_input = at == ":input"
        self.here = np.asarray(x if is_input else gt.activations(model, x, at=at).only)

        self._look = tf.function(self._logits)

    def _logits(self, x, point):
        with tf.GradientTape(persistent=True) as tape:
            tape.watch(point)
            said = self.model(point) if self.at == ":input" else gt.patch(self.model, x, {self.at: point})
            columns = tf.unstack(tf.math.log(said[0]))
        return tf.stack(columns), tf.concat([tape.gradient(column, point) for column in columns], 0)

    def logits(self, row, point):
        """From the probabilities: the same but for a constant; and the slope of each."""
        z, slopes = self._look(tf.constant(self.x[row : row + 1]), tf.constant(point[None]))
        return z.numpy(), slopes.numpy()

    def done(self, row, label, targeted=False):
        """Whether the model says what it is to say, or not what it is not to say."""
        return lambda point: (np.argmax(self.logits(row, point)[0]) == label) == targeted

    def loss(self, row, label, name, targeted=False):
        """The loss of one example and its slope, from the logits and theirs; what is to become large."""
        start = self.logits(row, self.here[row])[0]
        said = int(np.argmax(np.where(np.arange(len(start)) == label, -np.inf, start)))

        def of(z):
            if name == "dlr":
                return papers.targeted_dlr(z, said, label) if targeted else papers.dlr(z, label)
            if name == "margin":
                value = np.delete(z, label).max() - z[label]
            else:
                value = np.log(np.exp(z - z.max()).sum()) + z.max() - z[label]
            return -value if targeted else value

        def look(point):
            z, slopes = self.logits(row, point)
            steps = 1e-6 * np.eye(len(z))
            outer = np.array([(of(z + step) - of(z - step)) / 2e-6 for step in steps])
            return of(z), np.tensordot(outer, slopes, 1)

        return look


def each(found, restated, tolerance=1e-6):
    assert_same_numbers(found, np.stack(restated), tolerance)


@pytest.mark.parametrize("loss", [None, "dlr", "margin"])
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_auto_pgd_by_the_paper(norm, loss, float64):
    model, x = classifier(), rows(8)
    labels = np.argmax(model(x), 1)
    assert len(set(labels)) > 2
    rest = Rest(model, x)
    for targeted in (False, True):
        labels = (labels + targeted) % CLASSES
        # Where the label is third the ratio is 1, and its slope is rounding: followed until the label is not first.
        stop = loss == "dlr"
        found = attacks.auto_pgd(
            model, x, labels, epsilon=0.3, steps=23, norm=norm, loss=loss, targeted=targeted, stop_early=stop
        )
        restated = [
            papers.auto_pgd(
                rest.loss(i, label, loss, targeted), rest.done(i, label, targeted), x[i], 0.3, 23, norm, (0, 1), stop
            )
            for i, label in enumerate(labels)
        ]
        each(found.examples, restated)


def test_auto_pgd_in_l1_by_the_paper(float64):
    model, x = classifier(size=20), rows(size=20)
    labels = np.argmax(model(x), 1)
    rest = Rest(model, x)
    found = attacks.auto_pgd(model, x, labels, epsilon=0.9, steps=30, norm="l1", stop_early=False)
    restated = [
        papers.auto_pgd_l1(rest.loss(i, label, None), x[i], 0.9, 30, (0, 1))[0] for i, label in enumerate(labels)
    ]
    each(found.examples, restated)


def test_checkpoints_are_those_of_the_paper():
    """Of 100 steps: 22, 41, 57, 70, 80, 87, 93, 99, as in the authors' words."""
    from gradtap.attacks.scheduled_ascent import windows

    assert [k for k, window in enumerate(windows("linf", 100)) if window] == [22, 41, 57, 70, 80, 87, 93, 99]
    for steps in (1, 2, 7, 33, 250):
        found = windows("l2", steps)
        places = [k for k in papers.checkpoints(steps) if 0 < k <= steps]
        assert [k for k in range(steps + 1) if found[k]] == places
        assert sum(found) == max(places)


def test_the_nearest_point_of_ball_and_box(float64):
    rng = np.random.default_rng(0)
    for trial in range(40):
        change, x = 2 * rng.normal(size=(3, 9)), rng.uniform(size=(3, 9))
        radius = rng.uniform(0, 4, size=(3, 1))
        if trial % 4 == 0:
            x[:, ::3] = rng.integers(0, 2, size=(3, 3))  # at a bound: no room
        found = balls.inside_box(*(tf.constant(v) for v in (change, radius, -x, 1 - x))).numpy()
        expected = [papers.ball_and_box(c, r[0], -p, 1 - p) for c, r, p in zip(change, radius, x)]
        np.testing.assert_allclose(found, expected, atol=1e-10)
    small = tf.constant([[0.1, -0.2, 0.0]])
    np.testing.assert_array_equal(balls.inside_box(small, tf.constant([[9.0]]), small - 1, small + 1), small)


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_auto_pgd_is_no_worse_than_pgd(norm):
    """On a set, at the same steps: at least as large a loss on average, as many successes; more steps never lose."""
    size = 200 if norm == "l1" else 16  # a fifth of the entries, with which it begins in l1, must be sparse
    model, x = classifier(dtype="float32", size=size), rows(40, size).astype("float32")
    labels = np.argmax(model(x), 1)
    epsilon = {"linf": 0.04, "l2": 0.12, "l1": 0.4}[norm]
    ask = {"epsilon": epsilon, "norm": norm, "steps": 30, "stop_early": False}

    def losses(found):
        return keras.losses.sparse_categorical_crossentropy(labels, found.outputs).numpy()

    auto = attacks.auto_pgd(model, x, labels, **ask)
    fixed = [attacks.pgd(model, x, labels, **ask, step_size=epsilon * share) for share in (0.1, 0.5)]
    for other in fixed:
        assert np.mean(losses(auto)) > np.mean(losses(other)) - 1e-3
        assert np.sum(auto.success) >= np.sum(other.success)
    assert np.all(losses(auto) >= keras.losses.sparse_categorical_crossentropy(labels, model(x)).numpy() - 1e-6)
    # A checkpoint goes back to the best: what was reached is not lost.
    restarted = attacks.auto_pgd(model, x, labels, **ask, restarts=3, seed=0)
    assert np.all((losses(restarted) >= losses(auto) - 1e-6) | (restarted.success & ~auto.success))
    again = attacks.auto_pgd(model, x, labels, **ask, restarts=3, seed=0)
    np.testing.assert_array_equal(again.examples, restarted.examples)


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_deep_fool_takes_one_step_to_the_nearest_hyperplane(norm, float64):
    model, x = linear(steepest=5), rows(20)
    scores, kernel = model(x).numpy(), model.layers[-1].kernel.numpy()
    labels = np.argmax(scores, 1)
    found = attacks.deep_fool(model, x, labels, norm=norm, overshoot=0.01, bounds=None, candidates=CLASSES)
    order = 1 if norm == "linf" else 2
    for i, label in enumerate(labels):
        ways = [
            (scores[i, label] - scores[i, k]) / np.linalg.norm(kernel[:, k] - kernel[:, label], order)
            for k in range(CLASSES)
            if k != label
        ]
        np.testing.assert_allclose(found.distance[i], 1.01 * min(ways), rtol=1e-9)
    assert np.all(found.success)
    assert np.all(found.steps == 1)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_deep_fool_by_the_paper(norm, kind, float64):
    model, x = classifier(kind), rows(8)
    labels = np.argmax(model(x), 1)
    rest = Rest(model, x)
    for bounds in (None, (0, 1)):
        found = attacks.deep_fool(model, x, labels, norm=norm, bounds=bounds, candidates=3)
        for i, label in enumerate(labels):
            others = [k for k in np.argsort(-rest.logits(i, x[i])[0]) if k != label][:2]
            point, taken = papers.deep_fool(
                lambda p, i=i: rest.logits(i, p),
                x[i],
                label,
                steps=50,
                norm=norm,
                overshoot=0.02,
                rivals=others,
                bounds=bounds,
            )
            np.testing.assert_allclose(found.examples[i], point, atol=1e-8)
            # At a bound ever smaller leads may remain, down to the least that a step aims to overcome.
            assert found.steps[i] == taken or (bounds and taken > 10)


def test_deep_fool_with_a_target_two_classes_and_what_is_wrong_already(float64):
    model, x = classifier(), rows(12)
    said = np.argmax(model(x), 1)
    wanted = (said + 1) % CLASSES
    found = attacks.deep_fool(model, x, wanted, targeted=True, bounds=None)
    assert np.mean(found.success) > 0.9
    np.testing.assert_array_equal(np.argmax(found.outputs, 1) == wanted, found.success)
    near = attacks.deep_fool(model, x, said, bounds=None)
    assert np.mean(found.distance) > np.mean(near.distance)
    assert np.all(near.success)
    wrong = attacks.deep_fool(model, x, wanted)
    assert np.all(wrong.distance == 0)
    assert np.all(wrong.steps == 0)
    assert np.all(wrong.success)
    for activation in ("sigmoid", None):
        binary = classifier(classes=1, activation=activation)
        middle = 0.5 if activation else 0.0
        labels = (binary(x)[:, 0] > middle).numpy().astype(int)
        found = attacks.deep_fool(binary, x, labels, bounds=None)
        assert np.all(found.success)
        np.testing.assert_allclose(found.outputs[:, 0], middle, atol=0.2)


def test_a_tie_is_broken(float64):
    """Two scores that are the same: no step leads anywhere but for the least one."""
    model = linear(classes=2)
    kernel = np.zeros((6, 2))
    kernel[0] = [1, -1]
    model.set_weights([kernel, np.zeros(2)])
    x = np.full((1, 6), 0.0)
    found = attacks.deep_fool(model, x, 0, bounds=None)
    assert bool(found.success[0])
    assert 0 < float(found.distance[0]) < 1e-5


def test_carlini_wagner_finds_the_distance_to_the_hyperplane(float64):
    model, x = linear(), rows(6)
    scores, kernel = model(x).numpy(), model.layers[-1].kernel.numpy()
    labels = np.argmax(scores, 1)
    found = attacks.carlini_wagner_l2(model, x, labels, bounds=None, steps=600, searches=12, stop_early=False)
    sure = attacks.carlini_wagner_l2(model, x, labels, bounds=None, steps=600, searches=12, confidence=0.5)
    for i, label in enumerate(labels):
        lead = [scores[i, label] - scores[i, k] for k in range(CLASSES)]
        sizes = [np.linalg.norm(kernel[:, k] - kernel[:, label]) for k in range(CLASSES)]
        ways, surer = (
            min((gap + more) / size for k, (gap, size) in enumerate(zip(lead, sizes)) if k != label)
            for more in (0, 0.5)
        )
        assert 0.999 * ways <= found.distance[i] < 1.02 * ways
        assert 0.999 * surer <= sure.distance[i] < 1.02 * surer
    others = np.where(np.eye(CLASSES, dtype=bool)[labels], -np.inf, sure.outputs)
    assert np.all(others.max(1) - sure.outputs.numpy()[np.arange(6), labels] >= 0.5 - 1e-9)


@pytest.mark.parametrize("targeted", [False, True])
@pytest.mark.parametrize("bounds", [None, (0, 1), (-0.5, 2.0)])
def test_carlini_wagner_by_the_paper(bounds, targeted, float64):
    model, x = classifier(), rows(4)
    labels = np.argsort(-model(x).numpy(), 1)[:, int(targeted)]
    rest = Rest(model, x)
    ask = {"steps": 40, "searches": 4, "confidence": 0.1, "constant": 0.3}
    found = attacks.carlini_wagner_l2(
        model, x, labels, bounds=bounds, targeted=targeted, step_size=0.1, stop_early=False, **ask
    )
    restated = [
        papers.carlini_wagner(
            rest.loss(i, label, "margin", targeted),
            rest.done(i, label, targeted),
            x[i],
            steps=40,
            searches=4,
            rate=0.1,
            kappa=0.1,
            constant=0.3,
            bounds=bounds,
        )
        for i, label in enumerate(labels)
    ]
    each(found.examples, [point for point, _ in restated])
    np.testing.assert_allclose(found.distance, [size if np.isfinite(size) else 0 for _, size in restated], atol=1e-6)
    assert np.any(found.success) or (targeted and bounds == (0, 1))


SEARCHES = {
    "auto_pgd": {"epsilon": 0.3, "steps": 12},
    "auto_pgd dlr": {"epsilon": 0.3, "steps": 12, "loss": "dlr"},
    "auto_pgd l1": {"epsilon": 2.0, "steps": 12, "norm": "l1"},
    "pgd": {"epsilon": 0.3, "steps": 12, "step_size": 0.05},
    "deep_fool": {"steps": 12, "candidates": 3},
    "carlini_wagner_l2": {"steps": 60, "searches": 4, "step_size": 0.05, "constant": 1.0},
}


def run(name, *given, **ask):
    return getattr(attacks, name.split()[0])(*given, **SEARCHES[name] | ask)


@pytest.mark.parametrize("kind", TAPS)
def test_at_any_tap(kind, float64):
    """Restated on the rest of the model; ways around the tap stay at the inputs, and bounds do not apply."""
    model, x = tokens() if kind == "tokens" else smooth(kind)
    x = x[:2]
    labels = np.argmax(model(x), 1)
    rest = Rest(model, x, "tap")
    linf = attacks.auto_pgd(model, x, labels, at="tap", epsilon=0.05, steps=8, stop_early=False)
    fool = attacks.deep_fool(model, x, labels, at="tap", steps=4, candidates=3)
    least = attacks.carlini_wagner_l2(
        model, x, labels, at="tap", steps=10, searches=3, constant=1.0, step_size=0.1, stop_early=False
    )
    for i, label in enumerate(labels):
        here, margin = rest.here[i], rest.loss(i, label, "margin")
        point = papers.auto_pgd(rest.loss(i, label, None), rest.done(i, label), here, 0.05, 8, "linf")
        np.testing.assert_allclose(linf.examples[i], point, atol=1e-6)
        others = [k for k in np.argsort(-rest.logits(i, here)[0]) if k != label][:2]
        point, taken = papers.deep_fool(
            lambda p, i=i: rest.logits(i, p), here, label, steps=4, norm="l2", overshoot=0.02, rivals=others
        )
        np.testing.assert_allclose(fool.examples[i], point, atol=1e-7)
        assert fool.steps[i] == taken
        point, _ = papers.carlini_wagner(
            margin,
            rest.done(i, label),
            here,
            steps=10,
            searches=3,
            rate=0.1,
            kappa=0.0,
            constant=1.0,
        )
        np.testing.assert_allclose(least.examples[i], point, atol=1e-6)
    for found in (linf, fool, least):
        assert found.tap == "tap"
        assert_same_numbers(found.outputs, gt.patch(model, x, {"tap": found.examples}), 1e-10)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", SEARCHES)
def test_never_outside_of_the_ball_or_the_bounds(name, dtype):
    """For each example's own epsilon; at bounds that float32 cannot add up to exactly."""
    model = classifier(dtype=dtype, size=12)
    low, high = -0.7, 2.3
    x = np.random.default_rng(0).uniform(low, high, size=(8, 12)).astype(dtype)
    x[0], x[1] = np.asarray([low, high], dtype)  # at the bounds
    epsilon = np.array([0.2, 0.2, 0.0, 0.05, 0.1, 0.5, 1.0, 3.0])
    norm = SEARCHES[name].get("norm", {"auto_pgd": "linf", "pgd": "linf"}.get(name.split()[0], "l2"))
    epsilon = 4 * epsilon if norm == "l1" else epsilon
    for more in [{}, {"random_start": True, "restarts": 2, "seed": 1}] if "pgd" in name else [{}]:
        found = run(name, model, x, np.argmax(model(x), 1), epsilon=epsilon, bounds=(low, high), **more)
        slack = 1e-5 if dtype == "float32" else 1e-10
        assert found.examples.dtype == dtype
        assert np.min(found.examples) >= np.asarray(low, dtype)
        assert np.max(found.examples) <= np.asarray(high, dtype)
        change = (found.examples.numpy() - x).reshape(8, -1)
        sizes = np.linalg.norm(change, ord={"linf": np.inf, "l2": 2, "l1": 1}[norm], axis=1)
        assert np.all(sizes <= epsilon + slack)
        np.testing.assert_allclose(found.distance, sizes, atol=slack)
        np.testing.assert_array_equal(found.success, np.argmax(model(found.examples), 1) != np.argmax(model(x), 1))
        assert np.any(found.success)


@pytest.mark.parametrize("name", SEARCHES)
def test_parts_of_a_batch_are_the_same_as_the_whole(name, float64):
    model, x = classifier(), rows(7)
    labels = np.argmax(model(x), 1)
    whole = run(name, model, x, labels)
    for other in (run(name, model, x, labels, batch_size=3), run(name, gt.trace(model), x, list(labels))):
        for part in ("examples", "perturbation", "success", "distance", "outputs", "steps"):
            np.testing.assert_allclose(getattr(other, part), getattr(whole, part), rtol=1e-8, atol=1e-10, err_msg=part)
    alone = run(name, model, x[4:5], labels[4:5])
    np.testing.assert_allclose(alone.examples, whole.examples[4:5], rtol=1e-8)
    np.testing.assert_array_equal(run(name, model, x, 1).examples, run(name, model, x, [1] * 7).examples)
    empty = run(name, model, x[:0], labels[:0])
    assert empty.examples.shape == (0, 6)
    assert empty.success.shape == (0,)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if " " in name else []) for name in SEARCHES]
)
def test_inside_of_a_function_and_with_xla(name, float64):
    model, x = classifier(), rows(4)
    labels = np.argmax(model(x), 1)
    expected = run(name, model, x, labels)
    trace = gt.trace(model)

    @tf.function
    def inside(x, labels):
        return run(name, trace, x, labels).examples

    np.testing.assert_allclose(inside(tf.constant(x), tf.constant(labels)), expected.examples, rtol=1e-7)
    compiled = run(name, gt.trace(model, jit_compile=True), x, labels)
    np.testing.assert_allclose(compiled.examples, expected.examples, rtol=1e-6)


def test_new_weights_and_labels_are_seen_and_nothing_is_traced_anew(float64):
    model, x = classifier(), rows(4)
    labels = np.argmax(model(x), 1)
    for name in SEARCHES:
        run(name, model, x, labels)
    before = [w.copy() for w in model.get_weights()]
    model.set_weights([1.5 * w for w in before])
    fresh = classifier(scale=3.0)
    for name in SEARCHES:
        wanted = (labels + 1) % CLASSES
        found, expected = run(name, model, x, wanted), run(name, fresh, x, wanted)
        np.testing.assert_allclose(found.examples, expected.examples, rtol=1e-7)


def test_searches_are_compiled_once_for_all_epsilons_steps_and_batches(float64, monkeypatch):
    from gradtap.attacks import searching

    model, made = classifier(), []
    original = searching.tf.function
    monkeypatch.setattr(searching.tf, "function", lambda *a, **k: made.append(1) or original(*a, **k))
    for count, epsilon, steps in [(4, 0.1, 5), (7, 0.2, 9), (1, 0.3, 40)]:
        x = rows(count)
        labels = np.argmax(model(x), 1)
        attacks.pgd(model, x, labels, epsilon=epsilon, step_size=0.01, steps=steps)
        attacks.deep_fool(model, x, labels, steps=steps)
        attacks.carlini_wagner_l2(model, x, labels, steps=20, searches=2, confidence=epsilon)
    assert len(made) <= 3 + 3 + 5


def test_losses_of_other_kinds(float64):
    model, x = linear(), rows(8)
    labels = np.argmax(model(x), 1)
    best, other = labels[0], (labels[0] + 1) % CLASSES
    target = gt.targets.contrast(other, best)
    lead = model(x).numpy()[:, other] - model(x).numpy()[:, best]
    low = lead < 0
    assert np.any(low)
    found = attacks.carlini_wagner_l2(
        model, x, None, loss=target, bounds=None, steps=200, constant=1.0, confidence=0.01, step_size=0.05
    )
    after = found.outputs.numpy()[:, other] - found.outputs.numpy()[:, best]
    assert np.all(after[low] >= 0.01 - 1e-9)
    assert np.mean(after[low]) < 0.05
    model = classifier()
    up = attacks.auto_pgd(model, x, None, loss=target, epsilon=0.1, steps=10)
    assert np.all(up.success)
    same = attacks.auto_pgd(model, x, labels, epsilon=0.1, steps=10, stop_early=False)
    other = attacks.auto_pgd(
        model, x, labels, epsilon=0.1, steps=10, stop_early=False, loss="sparse_categorical_crossentropy"
    )
    assert_same_numbers(same.examples, other.examples, 1e-8)


def test_robust_accuracy_under_attacks_without_a_size_of_their_own(float64):
    """DeepFool is exact on a linear classifier: the curve is the share of examples further from the boundary."""
    model, x = linear(), rows(60)
    labels = np.argmax(model(x), 1)
    ways = attacks.deep_fool(model, x, labels, bounds=None, candidates=CLASSES).distance.numpy()
    epsilons = [0.0, 0.05, 0.1, 0.3]
    from functools import partial

    attack = partial(attacks.deep_fool, bounds=None, candidates=CLASSES)
    curve = attacks.robust_accuracy(model, (x, labels), attack, epsilons)
    np.testing.assert_allclose(curve.accuracy, [np.mean(ways / 1.02 > e) for e in epsilons])


@pytest.mark.parametrize(
    ("attack", "wrong", "error", "match"),
    [
        ("auto_pgd", {"norm": "l3"}, errors.ArgumentError, "norm"),
        ("auto_pgd", {"steps": 0}, errors.ArgumentError, "steps"),
        ("auto_pgd", {"epsilon": -1}, errors.ArgumentError, "epsilon"),
        ("auto_pgd", {"restarts": 0}, errors.ArgumentError, "restarts"),
        ("auto_pgd", {"stop_early": 2}, errors.ArgumentError, "stop_early"),
        ("auto_pgd", {"labels": 5}, errors.ClassRangeError, "5 classes"),
        ("deep_fool", {"norm": "l1"}, errors.ArgumentError, "norm"),
        ("deep_fool", {"candidates": 1}, errors.ArgumentError, "candidates"),
        ("deep_fool", {"overshoot": -0.1}, errors.ArgumentError, "overshoot"),
        ("deep_fool", {"bounds": (1, 0)}, errors.ArgumentError, "bounds"),
        ("deep_fool", {"labels": [0.5] * 5}, errors.TargetTypeError, "no classes"),
        ("deep_fool", {"epsilon": [0.1, 0.2]}, errors.ArgumentError, "epsilon"),
        ("carlini_wagner_l2", {"constant": 0}, errors.ArgumentError, "constant"),
        ("carlini_wagner_l2", {"step_size": -1}, errors.ArgumentError, "step_size"),
        ("carlini_wagner_l2", {"confidence": -1}, errors.ArgumentError, "confidence"),
        ("carlini_wagner_l2", {"searches": 0}, errors.ArgumentError, "searches"),
        ("carlini_wagner_l2", {"targeted": 1}, errors.ArgumentError, "targeted"),
        ("carlini_wagner_l2", {"bounds": (0.4, 0.6)}, errors.ArgumentError, "outside of bounds"),
    ],
)
def test_mistakes(attack, wrong, error, match):
    model, x = classifier(dtype="float32"), rows()
    ask = {"labels": 1} | ({"epsilon": 0.1} if attack == "auto_pgd" else {}) | wrong
    with pytest.raises(error, match=match):
        getattr(attacks, attack)(model, x, ask.pop("labels"), **ask)


def test_the_ratio_needs_classes_enough():
    model, x = classifier(classes=2, dtype="float32"), rows()
    with pytest.raises(errors.TargetTypeError, match="needs 3 classes"):
        attacks.auto_pgd(model, x, 0, epsilon=0.1, loss="dlr")
    three = classifier(classes=3, dtype="float32")
    attacks.auto_pgd(three, x, 0, epsilon=0.1, loss="dlr", steps=2)
    with pytest.raises(errors.TargetTypeError, match="needs 4 classes"):
        attacks.auto_pgd(three, x, 0, epsilon=0.1, loss="dlr", targeted=True)


@pytest.mark.parametrize("name", ["pgd", "auto_pgd", "deep_fool", "carlini_wagner_l2"])
def test_examples_that_stand_still_are_left_out_and_put_back(name, float64):
    """Each ends after another number of steps; all is as if it were alone, and what comes back is in its place."""
    model, x = classifier(), rows(24)
    labels = np.argmax(model(x), 1)
    ask = {"pgd": {"epsilon": 0.4, "step_size": 0.01, "steps": 40}, "auto_pgd": {"epsilon": 0.1, "steps": 40}}
    ask |= {"deep_fool": {"steps": 60}, "carlini_wagner_l2": {"steps": 80, "searches": 3, "constant": 0.3}}
    whole = getattr(attacks, name)(model, x, labels, **ask[name])
    assert len(set(whole.steps.numpy())) > 1
    for i in range(0, 24, 5):
        alone = getattr(attacks, name)(model, x[i : i + 1], labels[i : i + 1], **ask[name])
        for part in ("examples", "success", "distance", "outputs", "steps"):
            one, other = getattr(whole, part)[i], getattr(alone, part)[0]
            np.testing.assert_allclose(one, other, rtol=1e-7, atol=1e-9, err_msg=part)


@pytest.mark.parametrize("name", ["auto_pgd", "auto_pgd l1", "deep_fool", "carlini_wagner_l2"])
def test_a_tap_of_another_type_than_the_outputs(name):
    """Half precision inside of a model whose last layer is float32, and float32 before float64."""
    for policy_name, last in (("mixed_bfloat16", "float32"), ("float32", "float64")):
        keras.utils.set_random_seed(0)
        x = keras.Input((6,), dtype="float32")
        h = layers.Dense(8, activation="tanh", dtype=policy_name, name="tap")(x)
        model = keras.Model(x, layers.Dense(4, activation="softmax", dtype=last)(h))
        images = rows().astype("float32")
        labels = np.argmax(model(images), 1)
        for at in (":input", "tap"):
            found = run(name, model, images, labels, at=at)
            assert found.examples.dtype == gt.activations(model, images, at=at).only.dtype
            assert np.all(np.isfinite(np.asarray(found.distance, np.float64)))
            np.testing.assert_array_equal(np.argmax(found.outputs, 1) != labels, found.success)


def test_compiled_searches_keep_no_model():
    import gc
    import weakref

    model, x = classifier(dtype="float32"), rows().astype("float32")
    for name in SEARCHES:
        run(name, model, x, 1)
    gone = weakref.ref(model)
    del model
    gc.collect()
    assert gone() is None


def test_stretches_follow_each_other_to_the_end():
    from gradtap.staged.progress import stretches

    for total in (1, 4, 5, 1000):
        found = list(stretches(total, "steps"))
        assert found[0][0] == 0
        assert found[-1][1] == total
        assert [stop for _, stop in found[:-1]] == [start for start, _ in found[1:]]
        assert len(found) < 12
