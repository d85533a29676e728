"""Evaluation of explanations: Captum's numbers, restatements by hand, laws, and weights other than the model's own."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import gradtap as gt
from gradtap import attribution, errors, evaluate
from gradtap.evaluate.similarity import absolute_spearman, spearman, structural
from reference.differences import assert_same_numbers
from reference.goldens import bound, model_file
from reference.models import draws
from reference.smooth import KINDS, smooth

FOLDER = Path(__file__).parent / "goldens"


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("name", ["cnn_seq", "cnn_gelu_bn", "lstm_seq"])
def test_captums_numbers(name, dtype):
    goldens = np.load(FOLDER / f"{name}.evaluate.{dtype}.npz")
    given = np.load(FOLDER / f"{name}.inputs.npz")
    x, target = given["input0"].astype(dtype), given["target"].tolist()
    noise = goldens["infidelity.noise/input"].reshape(len(x), 4, *x.shape[1:]).swapaxes(0, 1)
    trace = gt.trace(model_file(name, dtype))
    method = partial(attribution.integrated_gradients, steps=50)
    for key, normalize in (("raw", False), ("norm", True)):
        found = evaluate.infidelity(trace, x, method, target=target, perturbations=noise, normalize=normalize).only
        expected = goldens[f"infidelity.{key}/input"]
        # Captum rounds the weights of its quadrature to float32.
        assert_same_numbers(found, expected, bound(1e-7 if dtype == "float64" else 1e-5))
    found = evaluate.sensitivity(trace, x, attribution.saliency, target=target, perturbations=0.1 * noise).only
    assert_same_numbers(found, goldens["sensitivity_max/input"], bound(1e-9) if dtype == "float64" else 9e-3)


def linear(*shape, units=3):
    """A linear model; its attributions are known."""
    x = keras.Input(shape, dtype="float64")
    flat = layers.Flatten(name="flat")(x)
    model = keras.Model(x, layers.Dense(units, name="scores")(flat))
    model.set_weights([draws(int(np.prod(shape)), units), draws(units, seed=1)])
    return model


def test_deletion_and_insertion_of_a_linear_model(float64):
    """By hand: sorted contributions are taken away one after the other."""
    model, x = linear(6), draws(3, 6, seed=4)
    w, b = model.get_weights()
    gone = -0.5
    share = np.sort((x - gone) * w[:, 1], axis=1)[:, ::-1]
    none = (np.full_like(x, gone) @ w + b)[:, 1:2]
    method = lambda *a, **k: attribution.integrated_gradients(*a, **k, baseline=gone, steps=1)  # noqa: E731
    whole = np.concatenate([np.zeros((3, 1)), np.cumsum(share, axis=1)], axis=1)
    ask = {"target": 1, "steps": 6, "value": gone}
    deleted = evaluate.deletion(model, x, method, **ask)
    inserted = evaluate.insertion(model, x, method, **ask)
    assert_same_numbers(deleted.only, none + share.sum(1, keepdims=True) - whole, 1e-12)
    assert_same_numbers(inserted.only, none + whole, 1e-12)
    np.testing.assert_allclose(deleted.fractions, np.linspace(0, 1, 7))
    assert_same_numbers(deleted.area.only, np.trapezoid(deleted.only, dx=1 / 6, axis=1), 1e-12)


@pytest.mark.parametrize("kind", ["convolution", "skip", "recurrent", "attention"])
def test_curves_at_a_tap_are_those_of_patch(kind, float64):
    """Channels are summed, positions are changed as a whole, and the rest of the model stays at the inputs."""
    if kind not in KINDS:
        kind = next(k for k in KINDS if kind[:4] in k)
    model, x = smooth(kind)
    x = draws(4, *x.shape[1:], seed=2)
    here = gt.activations(model, x, at="tap").only.numpy()
    scores = attribution.activation_x_gradient(model, x, target=1, at="tap").only.numpy()
    over = scores.sum(-1) if scores.ndim > 2 else scores
    order = np.argsort(-over.reshape(4, -1), axis=1, kind="stable")
    ask = {"target": 1, "at": "tap", "steps": 3, "value": 0.25}
    deleted = evaluate.deletion(model, x, attribution.activation_x_gradient, **ask).only
    inserted = evaluate.insertion(model, x, attribution.activation_x_gradient, **ask).only
    for step in range(4):
        count = round(order.shape[1] * step / 3)
        chosen = np.zeros(order.shape, bool)
        np.put_along_axis(chosen, order[:, :count], True, axis=1)
        chosen = chosen.reshape(over.shape)
        chosen = chosen[..., None] if scores.ndim > 2 else chosen
        for curve, kept in ((deleted, ~chosen), (inserted, chosen)):
            expected = gt.patch(model, x, {"tap": np.where(kept, here, 0.25)})[:, 1]
            assert_same_numbers(curve[:, step], expected, 1e-10)


def test_explanations_of_every_form_and_parts_of_a_batch(float64):
    model, x = smooth("convolution")
    x = draws(5, *x.shape[1:], seed=2)
    ask = {"target": "predicted", "at": ["tap", ":input"], "steps": 4}
    whole = evaluate.deletion(model, x, attribution.saliency, **ask)
    given = attribution.saliency(model, x, target="predicted", at=["tap", ":input"])
    sums = {key: np.sum(value, axis=-1) for key, value in given.items()}
    data = tf.data.Dataset.from_tensor_slices(x).batch(2)
    for found in (
        evaluate.deletion(model, x, given, **ask),
        evaluate.deletion(model, x, sums, **ask),
        evaluate.deletion(model, data, attribution.saliency, **ask),
        *(evaluate.deletion(model, x, attribution.saliency, **ask, batch_size=size) for size in (1, 3)),
    ):
        assert list(found) == list(whole)
        for key in whole:
            assert_same_numbers(found[key], whole[key], 1e-10)
    own = lambda model, x, target, at: {key: value.numpy() for key, value in given.items()}  # noqa: E731
    for key, curve in evaluate.deletion(model, x, own, **ask).items():
        assert_same_numbers(curve, whole[key], 1e-10)
    mean = evaluate.deletion(model, x, given, **ask, value="mean")
    by_hand = evaluate.deletion(model, x, given, **ask, value=lambda h: tf.reduce_mean(h, [1, 2], keepdims=True))
    assert_same_numbers(mean["tap"], by_hand["tap"], 1e-12)
    for empty in (
        evaluate.sensitivity(model, x[:0], attribution.saliency, target=1, at="tap"),
        evaluate.deletion(model, x[:0], attribution.saliency, target=1, at="tap"),
        evaluate.randomization(model, x[:0], attribution.saliency, target=1, at="tap").rows[0].similarity,
    ):
        assert empty.only.shape[0] == 0
    one = evaluate.deletion(model, x, np.asarray(given["tap"]), **ask | {"at": "tap"}).only
    assert_same_numbers(one, whole["tap"], 1e-10)
    blurred = evaluate.insertion(model, x, given, **ask, value=lambda h: tf.reduce_mean(h, [1, 2], keepdims=True))
    assert not np.allclose(blurred["tap"][:, 0], evaluate.insertion(model, x, given, **ask)["tap"][:, 0])


@pytest.mark.parametrize("kind", ["dense", "convolution"])
def test_infidelity_is_that_of_the_paper_at_a_tap(kind, float64):
    model, x = smooth(kind)
    here = gt.activations(model, x, at="tap").only.numpy()
    phi = attribution.saliency(model, x, target=2, at="tap").only.numpy()
    moved = 0.3 * draws(5, *here.shape, seed=3)
    rows = tuple(range(1, here.ndim))
    said = np.stack([np.sum(m * phi, axis=rows) for m in moved])
    seen = np.stack([model(x)[:, 2] - gt.patch(model, x, {"tap": here - m})[:, 2] for m in moved])
    ask = {"target": 2, "at": "tap", "perturbations": moved}
    assert_same_numbers(evaluate.infidelity(model, x, phi, **ask).only, np.mean((said - seen) ** 2, 0), 1e-10)
    beta = np.sum(said * seen, 0) / np.sum(said**2, 0)
    expected = np.mean((beta * said - seen) ** 2, 0)
    for scale in (1.0, -7.0):
        found = evaluate.infidelity(model, x, scale * phi, **ask, normalize=True).only
        assert_same_numbers(found, expected, 1e-9)


def test_a_method_that_is_bound_to_a_layer_keeps_it(float64):
    """The map of a layer, in the size of the input, is evaluated at the input, and not replaced by one of the input."""
    model, x = smooth("convolution")
    method = partial(attribution.grad_cam, at="tap", upsample="input", relu=False)
    ready = method(model, x, target=1).only
    for evaluation in (evaluate.deletion, evaluate.insertion):
        found = evaluation(model, x, method, target=1, steps=5).only
        assert_same_numbers(found, evaluation(model, x, ready, target=1, steps=5).only, 1e-12)
    data = tf.data.Dataset.from_tensor_slices(x).batch(2)
    whole = evaluate.deletion(model, data, method, target=1, steps=5).only
    assert_same_numbers(whole, evaluate.deletion(model, x, method, target=1, steps=5).only, 1e-10)
    assert list(evaluate.randomization(model, x, method, target=1, seed=0).original) == ["tap"]


def test_draws_of_infidelity_by_seed_and_in_parts(float64):
    model, x = smooth("convolution")
    x = draws(4, *x.shape[1:], seed=2)
    ask = {"target": 1, "at": ["tap", ":input"], "samples": 7, "seed": 3}
    whole = evaluate.infidelity(model, x, attribution.saliency, **ask)
    for found in (
        evaluate.infidelity(model, x, attribution.saliency, **ask, batch_size=3),
        evaluate.infidelity(model, tf.data.Dataset.from_tensor_slices(x).batch(3), attribution.saliency, **ask),
    ):
        for key in whole:
            assert_same_numbers(found[key], whole[key], 1e-9)
    other = evaluate.infidelity(model, x, attribution.saliency, **ask | {"seed": 4})
    assert not np.allclose(other["tap"], whole["tap"], rtol=1e-3)
    # For small draws it is the curvature that is left, and falls with the fourth power of their size.
    small = [np.mean(evaluate.infidelity(model, x, attribution.saliency, **ask, noise=n)["tap"]) for n in (1e-2, 1e-3)]
    assert 3e3 < small[0] / small[1] < 3e4
    exact = evaluate.infidelity(linear(6), draws(3, 6), attribution.saliency, target=1, seed=0).only
    np.testing.assert_allclose(exact, 0, atol=1e-25)


def test_sensitivity_is_that_of_the_paper_at_a_tap(float64):
    model, x = smooth("dense")
    moved = 0.1 * draws(4, *x.shape, seed=3)
    method = attribution.activation_x_gradient
    found = evaluate.sensitivity(model, x, method, target=1, at="tap", perturbations=moved).only

    def explained(inputs):
        return method(model, inputs, target=1, at="tap").only.numpy()

    before = explained(x)
    ratios = [np.linalg.norm(explained(x + m) - before, axis=1) / np.linalg.norm(before, axis=1) for m in moved]
    assert_same_numbers(found, np.max(ratios, axis=0), 1e-10)
    ask = {"target": "predicted", "seed": 1}
    whole = evaluate.sensitivity(model, x, method, **ask).only
    np.testing.assert_array_equal(evaluate.sensitivity(model, x, method, **ask).only, whole)
    data = tf.data.Dataset.from_tensor_slices(x).batch(2)
    assert_same_numbers(evaluate.sensitivity(model, data, method, **ask).only, whole, 1e-10)
    assert np.all(evaluate.sensitivity(model, x, method, **ask, radius=0.2).only > whole)


class Written(keras.Model):
    """The kinds of layers that hold weights, in a model that cannot be cloned."""

    def __init__(self, size):
        super().__init__()
        self.first = layers.Dense(size, activation="tanh")
        self.inside = keras.Sequential(
            [layers.Dense(size, activation="gelu", name="deep"), layers.BatchNormalization()]
        )
        self.loop = layers.LSTM(3)
        self.last = layers.Dense(2)

    def call(self, x):
        return self.last(self.loop(self.inside(self.first(x))))


def test_random_weights_are_those_of_a_model_with_these_weights(float64):
    """Row by row: a second model is given the permuted weights by hand. The first stays as it was."""
    model, twin, x = Written(4), Written(4), draws(3, 5, 2)
    model(x), twin(x)
    for i, weight in enumerate(model.weights):
        drawn = 0.5 * draws(*weight.shape, seed=i)
        weight.assign(0.5 + drawn**2 if "variance" in weight.path else drawn)
    before, attributes = [w.numpy() for w in model.weights], dict(vars(model))
    ask = {"target": 1, "at": [":input", "first"], "seed": 5}
    for mode in ("cascading", "independent"):
        found = evaluate.randomization(model, x, attribution.saliency, **ask, mode=mode)
        names = [row.layer.split("/")[0] for row in found.rows]
        assert names == ["last", "loop", "inside", "inside", "first"]
        rng = np.random.default_rng(np.random.SeedSequence(5, spawn_key=(5,)))
        twin.set_weights(before)
        held = [twin.last, twin.loop, twin.inside.layers[1], twin.inside.layers[0], twin.first]
        for row, layer in zip(found.rows, held):
            own = layer.get_weights()
            layer.set_weights([rng.permutation(w.reshape(-1)).reshape(w.shape) for w in own])
            expected = attribution.saliency(twin, x, target=1, at=[":input", "first"])
            for key in (":input", "first"):
                assert_same_numbers(row.attributions[key], expected[key], 1e-10)
                alike = spearman(found.original[key].numpy(), expected[key].numpy())
                np.testing.assert_allclose(row.similarity[key], alike, atol=1e-9)
            if mode == "independent":
                layer.set_weights(own)
    for old, weight in zip(before, model.weights):
        np.testing.assert_array_equal(old, weight)
    assert dict(vars(model)) == attributes
    assert_same_numbers(attribution.saliency(model, x, **ask | {"seed": 0})["first"], found.original["first"], 1e-12)


def test_layers_by_name_and_what_is_predicted(float64):
    model, x = smooth("convolution")
    found = evaluate.randomization(
        model,
        x,
        attribution.saliency,
        target="predicted",
        layers=["tap", "scores"],
        similarity="absolute_spearman",
        seed=0,
    )
    assert [row.layer for row in found.rows] == ["scores", "tap"]
    assert "+ tap" in found.table()
    classes = np.argmax(model(x), 1)
    named = evaluate.randomization(
        model, x, attribution.saliency, target=classes, layers=["tap", "scores"], similarity=absolute_spearman, seed=0
    )
    for a, b in zip(found.rows, named.rows):
        np.testing.assert_array_equal(a.similarity.only, b.similarity.only)
    alone = evaluate.randomization(
        model, x, attribution.saliency, target=1, layers=["later"], seed=0, mode="independent"
    )
    assert len(alone.rows) == 1
    # What comes before the layer is as it was, and so are the activations there.
    same = evaluate.randomization(
        model,
        x,
        lambda m, x, target, at: gt.activations(m, x, at=at),
        target=1,
        at=["tap", ":output"],
        layers=["later"],
        similarity=lambda a, b: np.max(np.abs(a - b).reshape(len(a), -1), 1),
        seed=0,
    )
    assert same.rows[0].similarity["tap"].numpy().max() < 1e-12
    assert same.rows[0].similarity[":output"].numpy().min() > 1e-6


def test_similarities():
    one = np.array([[1.0, 2.0, 3.0, 4.0], [1.0, 1.0, 2.0, 3.0], [0.0, 0.0, 0.0, 0.0]])
    other = np.array([[10.0, 20.0, 90.0, 95.0], [3.0, 2.0, 2.0, 1.0], [1.0, 2.0, 3.0, 4.0]])
    # Ranks 1.5 1.5 3 4 against 4 2.5 2.5 1: covariance -3.75 over variances of 4.5 each.
    np.testing.assert_allclose(spearman(one, other), [1.0, -3.75 / 4.5, np.nan], atol=1e-12)
    np.testing.assert_allclose(absolute_spearman(one, -other), spearman(one, other))
    pictures = draws(2, 16, 16, 3)
    np.testing.assert_allclose(structural(pictures, -2 * pictures), 1, atol=1e-6)
    assert np.all(structural(pictures, draws(2, 16, 16, 3, seed=8)) < 0.5)
    assert structural(pictures[:, :4, :4, 0], pictures[:, :4, :4, 0]).shape == (2,)


@pytest.mark.parametrize(
    ("ask", "match"),
    [
        (lambda m, x: evaluate.deletion(m, x, "saliency", target=0), "no explanation"),
        (lambda m, x: evaluate.deletion(m, x, lambda *a, **k: 3, target=0), "no attributions"),
        (lambda m, x: evaluate.deletion(m, x, partial(attribution.saliency, target=1), target=0), "bound to a target"),
        (lambda m, x: evaluate.deletion(m, x, x[:, :2], target=0), "do not fit"),
        (lambda m, x: evaluate.deletion(m, x, np.nan * x, target=0), "NaN"),
        (lambda m, x: evaluate.deletion(m, x, {"lost": x}, target=0), "for some taps"),
        (lambda m, x: evaluate.deletion(m, x, x, target=0, steps=0), "steps"),
        (lambda m, x: evaluate.deletion(m, x, x, target=0, value="median"), "nothing that can stand"),
        (lambda m, x: evaluate.sensitivity(m, x, attribution.saliency, target=0, radius=-1), "radius"),
        (lambda m, x: evaluate.infidelity(m, x, x, target=0, noise=-0.1), "noise"),
        (lambda m, x: evaluate.deletion(m, x, x, target=0, value=np.zeros(5)), "broadcast"),
        (lambda m, x: evaluate.infidelity(m, x, x[..., 0], target=0), "shape of the activations"),
        (lambda m, x: evaluate.infidelity(m, x, x, target=0, perturbations=x), "perturbations do not fit"),
        (lambda m, x: evaluate.sensitivity(m, x, x, target=0), "no method"),
        (lambda m, x: evaluate.sensitivity(m, x.astype(int), attribution.saliency, target=0), "one input of floats"),
        (lambda m, x: evaluate.sensitivity(m, x, attribution.saliency, target=0, perturbations=x), "do not fit"),
        (lambda m, x: evaluate.randomization(m, x, x, target=0), "no method"),
        (lambda m, x: evaluate.randomization(m, x, attribution.saliency, target=0, mode="some"), "mode"),
        (lambda m, x: evaluate.randomization(m, x, attribution.saliency, target=0, similarity="ssin"), "similarity"),
        (lambda m, x: evaluate.randomization(m, x, attribution.saliency, target=0, layers=["flat"]), "no weights"),
        (
            lambda m, x: evaluate.deletion(m, tf.data.Dataset.from_tensors(x), x, target=0),
            "with a dataset the explanation is a method",
        ),
    ],
)
def test_mistakes(ask, match):
    model = linear(4, 2)
    with pytest.raises(errors.GradtapError, match=match):
        ask(model, draws(3, 4, 2))
