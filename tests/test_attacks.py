"""Attacks: Captum's numbers, balls and bounds, any tap, restatements by hand, and use inside of a training step."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import gradtap as gt
from gradtap import attacks, errors
from gradtap.attacks import balls
from reference.differences import assert_same_numbers
from reference.goldens import bound, model_file
from reference.models import draws
from reference.smooth import smooth

FOLDER = Path(__file__).parent / "goldens"
NORMS = ["linf", "l2", "l1"]


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("name", ["cnn_seq", "cnn_gelu_bn", "lstm_seq"])
def test_captums_numbers(name, dtype):
    goldens = np.load(FOLDER / f"{name}.attacks.{dtype}.npz")
    given = np.load(FOLDER / f"{name}.inputs.npz")
    x, labels = given["input0"].astype(dtype), given["target"]
    trace = gt.trace(model_file(name, dtype))
    found = {
        "FGSM.eps0.05/input": attacks.fgsm(trace, x, labels, epsilon=0.05),
        "FGSM.eps0.05.targeted/input": attacks.fgsm(trace, x, labels, epsilon=0.05, targeted=True),
        "PGD.Linf/input": attacks.pgd(trace, x, labels, epsilon=0.1, step_size=0.03, steps=5, stop_early=False),
    }
    for key, result in found.items():
        off = np.abs(result.examples - goldens[key]) > bound(1e-9 if dtype == "float64" else 1e-5)
        assert np.mean(off) <= (0 if dtype == "float64" and bound(0) == 0 else 0.01), key


def classifier(size=12, hidden=16, classes=4, activation="softmax", seed=0):
    """A small network; the inputs are in [0, 1]."""
    x = keras.Input((size,), dtype="float64")
    h = layers.Dense(hidden, activation="tanh", name="hidden")(x)
    model = keras.Model(x, layers.Dense(classes, activation=activation, name="scores")(h))
    for i, weight in enumerate(model.weights):
        weight.assign(draws(*weight.shape, seed=seed + i))
    return model


def rows(count=6, size=12, seed=3):
    return np.random.default_rng(seed).uniform(size=(count, size))


def slope(model, x, labels):
    x = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(x)
        loss = keras.losses.sparse_categorical_crossentropy(np.asarray(labels), model(x))
    return tape.gradient(loss, x).numpy()


def test_fgsm_is_the_sign_and_pgd_of_one_step_is_fgsm(float64):
    model, x = classifier(), rows()
    labels = np.argmax(model(x), 1)
    epsilon = np.linspace(0.05, 0.3, len(x))
    expected = np.clip(x + epsilon[:, None] * np.sign(slope(model, x, labels)), 0, 1)
    found = attacks.fgsm(model, x, labels, epsilon=epsilon)
    assert_same_numbers(found.examples, expected, 1e-12)
    assert_same_numbers(found.perturbation, expected - x, 1e-12)
    assert_same_numbers(found.distance, np.abs(expected - x).max(1), 1e-12)
    assert_same_numbers(found.outputs, model(expected), 1e-10)
    np.testing.assert_array_equal(found.success, np.argmax(model(expected), 1) != labels)
    one = attacks.pgd(model, x, labels, epsilon=epsilon, step_size=epsilon, steps=1)
    assert_same_numbers(one.examples, expected, 1e-12)
    np.testing.assert_array_equal(one.steps, np.ones(len(x)))


def restated(model, x, labels, *, epsilon, step, steps, norm, momentum=0.0):
    """Projected ascent, one example at a time."""
    found = []
    for row, label in zip(x, labels):
        change, velocity = np.zeros_like(row), np.zeros_like(row)
        for _ in range(steps):
            g = slope(model, (row + change)[None], [label])[0]
            if momentum:
                velocity = momentum * velocity + g / np.abs(g).sum()
                g = velocity
            if norm == "linf":
                change = np.clip(change + step * np.sign(g), -epsilon, epsilon)
            elif norm == "l2":
                change = change + step * g / np.linalg.norm(g)
                change = change * min(1, epsilon / np.linalg.norm(change))
            else:
                best = np.argmax(np.abs(g))
                change = change + step * np.sign(g[best]) * np.eye(len(g))[best]
                size = np.abs(change)
                if size.sum() > epsilon:
                    low, high = 0.0, size.max()
                    for _ in range(200):  # the amount that leaves a sum of epsilon, by bisection
                        middle = (low + high) / 2
                        low, high = (middle, high) if (size - middle).clip(0).sum() > epsilon else (low, middle)
                    change = np.sign(change) * (size - high).clip(0)
            change = np.clip(row + change, 0, 1) - row
        found.append(row + change)
    return np.stack(found)


@pytest.mark.parametrize("momentum", [0.0, 0.7])
@pytest.mark.parametrize("norm", NORMS)
def test_projected_descent_by_hand(norm, momentum, float64):
    model, x = classifier(), rows()
    labels = np.argmax(model(x), 1)
    ask = {"epsilon": 0.3, "steps": 7, "norm": norm, "momentum": momentum}
    expected = restated(model, x, labels, step=0.1, **ask)
    found = attacks.pgd(model, x, labels, step_size=0.1, stop_early=False, **ask)
    assert_same_numbers(found.examples, expected, 1e-9)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("norm", NORMS)
def test_never_outside_of_the_ball_or_the_bounds(norm, dtype):
    with np.errstate(all="raise"):
        x = keras.Input((6, 6, 2), dtype=dtype)
        h = layers.Flatten()(layers.Conv2D(3, 2, activation="relu", dtype=dtype, name="conv")(x))
        model = keras.Model(x, layers.Dense(3, activation="softmax", dtype=dtype)(h))
        images = np.random.default_rng(0).uniform(size=(5, 6, 6, 2)).astype(dtype)
        epsilon = np.array([0.0, 0.01, 0.1, 1.0, 3.0])
        for start in (False, True):
            found = attacks.pgd(
                model,
                images,
                1,
                epsilon=epsilon,
                step_size=0.4,
                steps=5,
                norm=norm,
                random_start=start,
                restarts=2,
                seed=1,
            )
            slack = 4e-6 if dtype == "float32" else 1e-12
            assert np.all(found.distance.numpy() <= epsilon + slack)
            assert found.examples.dtype == dtype
            assert np.min(found.examples) >= 0
            assert np.max(found.examples) <= 1
            np.testing.assert_allclose(found.perturbation, found.examples - images, atol=slack)
            flat = found.perturbation.numpy().reshape(5, -1)
            order = {"linf": np.inf, "l2": 2, "l1": 1}[norm]
            np.testing.assert_allclose(found.distance, np.linalg.norm(flat, ord=order, axis=1), rtol=1e-5)


def test_balls_are_projected_to_the_nearest_point(float64):
    """Nothing in the ball is nearer, among many that are tried."""
    change = tf.constant(3 * draws(4, 5))
    radius = tf.constant([[0.5], [1.0], [2.0], [50.0]], tf.float64)
    for norm in NORMS:
        found = balls.inside(change, radius, norm).numpy()
        assert np.all(balls.length(found, norm).numpy() <= radius[:, 0] + 1e-12)
        for seed in range(300):
            other = balls.somewhere(change, radius, norm, [seed, 0]).numpy()
            assert np.all(balls.length(other, norm).numpy() <= radius[:, 0] + 1e-12)
            assert np.all(np.linalg.norm(change - found, axis=1) <= np.linalg.norm(change - other, axis=1) + 1e-12)
        np.testing.assert_array_equal(found[3], change[3])


def test_an_example_that_has_succeeded_moves_no_further(float64):
    model, x = classifier(), rows(30)
    labels = np.argmax(model(x), 1)
    ask = {"epsilon": 0.5, "step_size": 0.05, "steps": 12}
    found = attacks.pgd(model, x, labels, **ask)
    steps = found.steps.numpy()
    assert set(steps[found.success.numpy()]) > {1} or len(set(steps)) > 2
    assert np.all(steps[~found.success.numpy()] == 12)
    for count in set(steps[found.success.numpy()]):
        # Each is where that many steps lead, and one step less did not do.
        chosen = (steps == count) & found.success.numpy()
        same = attacks.pgd(model, x[chosen], labels[chosen], **ask | {"steps": int(count)}, stop_early=False)
        assert_same_numbers(found.examples.numpy()[chosen], same.examples, 1e-12)
        assert np.all(same.success)
        if count > 1:
            less = attacks.pgd(model, x[chosen], labels[chosen], **ask | {"steps": int(count) - 1}, stop_early=False)
            assert not np.any(less.success.numpy()) or count == 1
    wrong = (labels + 1) % 4  # says something else from the start, and is moved once all the same
    assert np.all(attacks.pgd(model, x, wrong, **ask).steps >= 1)


def test_targeted_attacks_say_what_they_were_to_say(float64):
    model, x = classifier(), rows(10)
    wanted = (np.argmax(model(x), 1) + 1) % 4
    found = attacks.pgd(model, x, wanted, epsilon=1.0, step_size=0.1, steps=40, targeted=True)
    assert np.mean(found.success) > 0.7
    np.testing.assert_array_equal(np.argmax(found.outputs, 1) == wanted, found.success)


def test_restarts_keep_the_best_of_each_example(float64):
    model, x = classifier(), rows(8)
    labels = np.argmax(model(x), 1)
    ask = {"epsilon": 0.08, "step_size": 0.03, "steps": 4, "stop_early": False, "random_start": True}

    def losses(found):
        return keras.losses.sparse_categorical_crossentropy(labels, found.outputs).numpy()

    one, many = (attacks.pgd(model, x, labels, **ask, seed=4, restarts=n) for n in (1, 4))
    assert np.all(losses(many) >= losses(one) - 1e-12)
    assert np.any(losses(many) > losses(one) + 1e-9)
    np.testing.assert_array_equal(attacks.pgd(model, x, labels, **ask, seed=4, restarts=4).examples, many.examples)
    assert not np.array_equal(attacks.pgd(model, x, labels, **ask, seed=5).examples, one.examples)


@pytest.mark.parametrize("kind", ["skip", "convolution", "recurrent", "attention"])
def test_at_any_tap(kind, float64):
    """The activations are moved, and the rest of the model, ways around the tap included, stays at the inputs."""
    model, x = smooth(kind)
    labels = np.argmax(model(x), 1)
    here = gt.activations(model, x, at="tap").only.numpy()
    ask = {"epsilon": 0.3, "at": "tap", "bounds": (0, 1)}
    found = attacks.fgsm(model, x, labels, **ask)
    loss = gt.targets.loss("sparse_categorical_crossentropy", labels)
    expected = here + 0.3 * np.sign(gt.gradients(model, x, target=loss, at="tap").only)
    assert_same_numbers(found.examples, expected, 1e-12)
    assert_same_numbers(found.outputs, gt.patch(model, x, {"tap": expected}), 1e-10)
    assert found.tap == "tap"


def test_parts_of_a_batch_datasets_and_losses_of_other_kinds(float64):
    model, x = classifier(), rows(7)
    labels = np.argmax(model(x), 1)
    ask = {"epsilon": 0.2, "step_size": 0.05, "steps": 4, "random_start": True, "seed": 2, "stop_early": False}
    whole = attacks.pgd(model, x, labels, **ask)
    for size in (1, 3):
        parts = attacks.pgd(model, x, labels, **ask, batch_size=size)
        for name in ("examples", "perturbation", "success", "distance", "outputs", "steps"):
            np.testing.assert_allclose(getattr(parts, name), getattr(whole, name), rtol=1e-9, atol=1e-12, err_msg=name)
    same = attacks.pgd(model, x, labels, **ask, loss="sparse_categorical_crossentropy")
    assert_same_numbers(same.examples, whole.examples, 1e-9)
    one_hot = attacks.pgd(model, x, np.eye(4)[labels], **ask, loss=keras.losses.CategoricalCrossentropy())
    assert_same_numbers(one_hot.examples, whole.examples, 1e-9)
    margin = attacks.pgd(model, x, labels, **ask, loss=gt.targets.contrast(1, 0))
    assert np.all(margin.outputs[:, 1] - margin.outputs[:, 0] > model(x)[:, 1] - model(x)[:, 0])


@pytest.mark.parametrize("activation", ["sigmoid", None])
def test_one_output_of_two_classes(activation, float64):
    model, x = classifier(classes=1, activation=activation), rows(8)
    middle = 0.5 if activation else 0.0
    labels = (model(x)[:, 0] > middle).numpy().astype(int)
    found = attacks.pgd(model, x, labels, epsilon=1.0, step_size=0.1, steps=30)
    np.testing.assert_array_equal(found.success, (found.outputs[:, 0] > middle).numpy().astype(int) != labels)
    assert np.any(found.success)


def test_a_probability_of_one_has_a_slope_all_the_same(float64):
    model, x = classifier(), rows(3)
    model.layers[-1].set_weights([30 * w for w in model.layers[-1].get_weights()])
    labels = np.argmax(model(x), 1)
    assert np.all(np.max(model(x), 1) == 1)
    assert np.all(attacks.fgsm(model, x, labels, epsilon=0.1).distance > 0.05)


def test_inside_of_a_training_step(float64):
    """Adversarial training: the attack is compiled with the step, and new weights are seen."""
    model, x = classifier(), tf.constant(rows(16))
    labels = tf.constant(np.argmax(model(x), 1))
    optimizer = keras.optimizers.SGD(0.5)
    trace = gt.trace(model)

    @tf.function
    def step(x, labels):
        attacked = attacks.pgd(trace, x, labels, epsilon=0.1, step_size=0.05, steps=3, stop_early=False).examples
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(keras.losses.sparse_categorical_crossentropy(labels, model(attacked)))
        optimizer.apply_gradients(zip(tape.gradient(loss, model.trainable_variables), model.trainable_variables))
        return loss, attacked

    ask = {"epsilon": 0.1, "step_size": 0.05, "steps": 3, "stop_early": False}
    expected = attacks.pgd(model, x, labels, **ask).examples
    loss, attacked = step(x, labels)
    assert_same_numbers(attacked, expected, 1e-9)
    for _ in range(30):
        last, attacked = step(x, labels)
    assert float(last) < float(loss)
    assert not np.allclose(attacked, expected)


def test_features_come_to_resemble_those_of_a_guide(float64):
    """In a linear layer with room enough little remains; a ball bounds it; examples are not mixed."""
    model, x, guides = classifier(size=20, hidden=3), rows(4, 20), rows(4, 20, seed=8)
    ask = {"at": "hidden:preactivation", "steps": 400, "step_size": 0.004}
    found = attacks.feature_match(model, x, guides, epsilon=1.0, **ask)
    assert np.all(found.remaining < 0.1)
    assert np.all(found.success)
    for epsilon in (0.0, 0.05):
        found = attacks.feature_match(model, x, guides, **ask | {"steps": 20}, epsilon=epsilon)
        assert np.all(found.distance <= epsilon + 1e-12)
        before, after, wanted = (
            gt.activations(model, given, at="hidden:preactivation").only for given in (x, found.examples, guides)
        )
        expected = np.linalg.norm(after - wanted, axis=1) / np.linalg.norm(before - wanted, axis=1)
        assert_same_numbers(found.remaining, expected, 1e-10)
    alone = attacks.feature_match(model, x[2:3], guides[2:3], **ask | {"steps": 20}, epsilon=0.05)
    assert_same_numbers(found.examples[2:3], alone.examples, 1e-12)
    parts = attacks.feature_match(model, x, guides, **ask | {"steps": 20}, epsilon=0.05, batch_size=3)
    assert_same_numbers(found.examples, parts.examples, 1e-12)
    with pytest.raises(errors.InputShapeError, match="guides"):
        attacks.feature_match(model, x, guides[:2], epsilon=0.1, at="hidden", steps=3)


def test_robust_accuracy_by_hand(float64):
    """A linear model of two classes: an example stands up to so much as its margin over the 1-norm of the weights."""
    x = keras.Input((5,), dtype="float64")
    model = keras.Model(x, layers.Dense(2)(x))
    model.set_weights([draws(5, 2), draws(2, seed=1)])
    inputs = rows(40, 5)
    labels = np.random.default_rng(0).integers(0, 2, 40)
    scores = model(inputs).numpy()
    margin = np.where(labels == 1, 1, -1) * (scores[:, 1] - scores[:, 0])
    kernel = model.layers[-1].kernel.numpy()
    stands = margin / np.abs(kernel[:, 1] - kernel[:, 0]).sum()
    epsilons = [0.3, 0.0, 0.05, 0.1]
    expected = [np.mean(stands > e) for e in sorted(epsilons)]
    attack = partial(attacks.fgsm, bounds=None)
    data = tf.data.Dataset.from_tensor_slices((inputs, labels)).batch(9)
    for given in ((inputs, labels), data):
        found = attacks.robust_accuracy(model, given, attack, epsilons, batch_size=16)
        np.testing.assert_allclose(found.accuracy, expected)
        np.testing.assert_allclose(found.epsilons, sorted(epsilons))
        assert found.count == 40
    assert "0.05" in found.table()

    def only_small(model, x, y, epsilon):
        return attacks.fgsm(model, x, y, epsilon=epsilon if epsilon < 0.1 else 0.0, bounds=None)

    np.testing.assert_allclose(
        attacks.robust_accuracy(model, (inputs, labels), only_small, epsilons).accuracy[2:], expected[1]
    )
    for wrong, match in [
        (((inputs, labels[:3]), [0.1]), "number"),
        ((inputs, [0.1]), "pair"),
        ((data.map(lambda x, y: x), [0.1]), "no labels"),
        (((inputs, labels), [-0.1]), "sizes"),
        (((inputs[:0], labels[:0]), [0.1]), "no example"),
    ]:
        with pytest.raises(errors.GradtapError, match=match):
            attacks.robust_accuracy(model, wrong[0], attack, wrong[1])


@pytest.mark.parametrize(
    ("wrong", "error", "match"),
    [
        ({"epsilon": -1}, errors.ArgumentError, "epsilon"),
        ({"epsilon": [0.1, 0.2]}, errors.ArgumentError, "epsilon"),
        ({"epsilon": float("nan")}, errors.ArgumentError, "epsilon"),
        ({"bounds": (0.4, 0.6)}, errors.ArgumentError, "outside of bounds"),
        ({"bounds": (1, 0)}, errors.ArgumentError, "bounds"),
        ({"bounds": 1}, errors.ArgumentError, "bounds"),
        ({"labels": [0, 1]}, errors.TargetCountError, "2 labels"),
        ({"labels": 4}, errors.ClassRangeError, "4 classes"),
        ({"labels": [0.5] * 6}, errors.TargetTypeError, "no classes"),
        ({"norm": "l3"}, errors.ArgumentError, "norm"),
        ({"steps": 0}, errors.ArgumentError, "steps"),
        ({"step_size": "x"}, errors.ArgumentError, "step_size"),
        ({"at": ["hidden", ":input"]}, errors.ArgumentError, "one tap"),
        ({"at": "hiden"}, errors.UnknownTapError, "hidden"),
        ({"targeted": "yes"}, errors.ArgumentError, "targeted"),
    ],
)
def test_mistakes(wrong, error, match):
    model, x = classifier(), rows()
    ask = {"labels": 1, "epsilon": 0.1, "step_size": 0.1, "steps": 2} | wrong
    with pytest.raises(error, match=match):
        attacks.pgd(model, x, ask.pop("labels"), **ask)
