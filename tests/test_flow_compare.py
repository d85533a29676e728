"""Comparisons: what single measurements say, over seeds, and nothing of the caller's touched."""

from __future__ import annotations

import functools
import random

import keras
import numpy as np
import pytest
from keras import layers

import gradtap as gt
from gradtap import errors, flow
from gradtap.flow import architectures
from gradtap.flow.intervals import of_sizes, of_values
from gradtap.flow.variants import seeded
from reference.models import draws

X, Y = draws(20, 6).astype("float32"), np.arange(20) % 3
plain = functools.partial(architectures.plain, 6, 3, width=8)


def small(**options):
    hidden = layers.Dense(8, activation="tanh", name="hidden", **options)
    return keras.Sequential([keras.Input((6,)), hidden, layers.Dense(3, name="scores")])


def test_at_initialisation_it_is_what_measure_says_of_each_seed():
    found = flow.compare({"relu": functools.partial(plain, depth=3)}, X, Y, seeds=[4, 9], steps=0, curvature=0)
    each = []
    for seed in (4, 9):
        with seeded(seed):
            model = plain(depth=3)
        each.append(flow.measure(model, X, labels=Y))
    assert [row.address for row in found.rows] == ["block_1", "block_2", "block_3"]
    assert [row.depth for row in found.rows] == [1, 2, 3]
    for row in found.rows:
        norms = [next(r for r in one.rows if r.address == row.address).gradient_norm for one in each]
        np.testing.assert_allclose(row.gradient_norm, np.sqrt(np.prod(norms)), rtol=1e-6)
        half = 12.706 * np.std(np.log(norms), ddof=1) / np.sqrt(2)
        np.testing.assert_allclose(row.gradient_high, row.gradient_norm * np.exp(half), rtol=1e-6)
    np.testing.assert_allclose(found.models[0].loss.mean, np.mean([one.target for one in each]), rtol=1e-6)
    first, last = (np.sqrt(np.prod([one.rows[i].gradient_norm for one in each])) for i in (1, 5))
    np.testing.assert_allclose(found.models[0].per_layer.mean, np.sqrt(first / last), rtol=1e-6)


def test_training_is_that_of_fit():
    found = flow.compare({"one": small}, X, Y, seeds=[2], steps=7, curvature=0, optimizer=keras.optimizers.SGD(0.1))
    with seeded(2):
        model = small()
    fit = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.1), fit)
    for _ in range(7):
        model.train_on_batch(X, Y)
    expected = flow.measure(model, X, labels=Y)
    trained = next(line for line in found.models if line.stage == "trained")
    np.testing.assert_allclose(trained.loss.mean, expected.target, rtol=1e-5)


def test_each_seed_begins_with_a_fresh_optimizer():
    """A seed gives the same whatever was trained before it: no momentum is carried on."""
    both = flow.compare({"one": small}, X, Y, seeds=[1, 5], steps=5, curvature=0)
    alone = [flow.compare({"one": small}, X, Y, seeds=[seed], steps=5, curvature=0) for seed in (1, 5)]
    losses = [one.models[1].loss.mean for one in alone]
    np.testing.assert_allclose(both.models[1].loss.mean, np.mean(losses), rtol=1e-5)


def test_a_model_is_cloned_and_stays_as_it_is():
    fixed = [keras.initializers.GlorotUniform(seed=seed) for seed in (1, 2)]
    stages = [
        layers.Dense(8, activation="tanh", kernel_initializer=fixed[0]),
        layers.Dense(3, kernel_initializer=fixed[1]),
    ]
    model = keras.Sequential([keras.Input((6,)), *stages])
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    before = [np.array(weight) for weight in model.weights]
    optimizer, states = model.optimizer, (random.getstate(), np.random.get_state()[1].copy())
    found = flow.compare({"mine": model}, X, Y, seeds=3, steps=3)
    for a, b in zip(before, model.weights, strict=True):
        np.testing.assert_array_equal(a, b)
    assert model.optimizer is optimizer and int(optimizer.iterations) == 0
    assert random.getstate() == states[0] and np.array_equal(np.random.get_state()[1], states[1])
    assert found.rows[0].gradient_low < found.rows[0].gradient_high, "seeds differ though the initialiser has one"


def test_the_same_call_gives_the_same():
    call = lambda: flow.compare({"a": small}, X, Y, seeds=2, steps=3)  # noqa: E731
    assert call().rows == call().rows


def test_labels_may_be_a_list_of_numbers():
    listed = flow.compare({"a": small}, X, Y.tolist(), seeds=1, steps=2, curvature=1)
    given = flow.compare({"a": small}, X, Y, seeds=1, steps=2, curvature=1)
    assert [line.loss.mean for line in listed.models] == [line.loss.mean for line in given.models]


def test_curvature_is_the_norm_of_the_hessian():
    """A linear layer under half the squared error: the Hessian at it is the identity, example by example."""

    def build():
        return keras.Sequential([keras.Input((6,)), layers.Dense(4, name="hidden"), layers.Dense(3, name="scores")])

    def loss(y_true, y):
        return keras.ops.sum((y - y_true) ** 2, -1) / 2

    values = draws(20, 3, seed=1).astype("float32")
    found = flow.compare({"linear": build}, X, values, loss=loss, seeds=[0], steps=0, curvature=2)
    with seeded(0):
        kernel = np.array(build().get_layer("scores").kernel)
    np.testing.assert_allclose(found.rows[1].curvature, np.sqrt(3), rtol=1e-5)
    # One draw of signs: the same order of size as the norm itself.
    assert 0.3 < found.rows[0].curvature / np.linalg.norm(kernel @ kernel.T) < 3


def test_recurrent_networks_are_followed_through_time():
    found = flow.compare(
        {"rnn": functools.partial(architectures.recurrent, 6, 3, depth=5, width=8)}, X, Y, seeds=2, steps=0, curvature=0
    )
    steps = [row for row in found.rows if row.through_time]
    assert [row.address for row in steps] == [f"state:hidden@{t}" for t in range(5)]
    assert found.models[0].depth == 5
    np.testing.assert_allclose(found.models[0].first.mean, steps[0].gradient_norm)


def test_findings_are_counted_over_the_seeds():
    models = {name: functools.partial(plain, activation=name, depth=10, width=32) for name in ("sigmoid", "relu")}
    found = flow.compare(models, X, Y, seeds=2, steps=0, curvature=0)
    assert {line.name: dict(line.findings) for line in found.models} == {"sigmoid": {"vanishing": 2}, "relu": {}}
    text = found.table().splitlines()
    assert len(text) == 3 and "vanishing (2/2)" in text[1] and text[2].endswith("none")


def test_subclassed_models_are_built_anew():
    @keras.saving.register_keras_serializable()
    class Own(keras.Model):
        def __init__(self, units=5, **options):
            super().__init__(**options)
            self.units = units
            self.hidden, self.head = layers.Dense(units, activation="relu"), layers.Dense(3)

        def get_config(self):
            return {"units": self.units}

        def call(self, x):
            return self.head(self.hidden(x))

    model = Own()
    model(X)
    found = flow.compare({"own": model}, X, Y, seeds=2, steps=2, curvature=0)
    assert found.models[1].loss.mean < found.models[0].loss.mean


@pytest.mark.parametrize(
    ("models", "options", "error"),
    [
        ({}, {}, errors.ArgumentError),
        ([small], {}, errors.ArgumentError),
        ({"a": 3}, {}, errors.ModelTypeError),
        ({"a": lambda: 3}, {}, errors.ModelTypeError),
        ({"a": small}, {"seeds": 0}, errors.ArgumentError),
        ({"a": small}, {"seeds": []}, errors.ArgumentError),
        ({"a": small}, {"steps": -1}, errors.ArgumentError),
        ({"a": small}, {"curvature": 1.5}, errors.ArgumentError),
    ],
)
def test_mistakes_are_said(models, options, error):
    with pytest.raises(error):
        flow.compare(models, X, Y, **options)


@pytest.mark.parametrize("kind", architectures.BY_NAME)
@pytest.mark.parametrize("activation", ["relu", "glu", "softmax"])
def test_every_architecture_takes_every_activation(kind, activation):
    if (kind, activation) == ("recurrent", "glu"):
        with pytest.raises(errors.ArgumentError):
            architectures.recurrent(6, 3, activation="glu")
        return
    model = architectures.BY_NAME[kind](6, 3, activation=activation, depth=2, width=8)
    assert model(X).shape == (20, 3)


def test_the_activations_are_all_of_keras_that_need_no_argument():
    names = architectures.activations()
    assert len(names) >= 30 and "threshold" not in names and "get" not in names
    for name in names:
        assert keras.activations.get(name)(keras.ops.ones((2, 4))).shape[0] == 2


def test_intervals():
    mean, low, high = of_values([1.0, 2.0, 3.0])
    np.testing.assert_allclose([mean, low, high], [2.0, 2 - 4.303 / np.sqrt(3), 2 + 4.303 / np.sqrt(3)])
    np.testing.assert_allclose(of_sizes([1e-10, 1e-2]).mean, 1e-6)
    assert np.isnan(of_values([1.0]).low) and np.isnan(of_values([]).mean)
    assert np.isnan(of_sizes([1.0]).low)


def test_figures():
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    found = flow.compare({"a": small, "b": small}, X, Y, seeds=2, steps=1, curvature=0)
    figure = found.plot()
    lines = figure.axes[0].lines
    np.testing.assert_allclose(
        lines[0].get_ydata(), [r.gradient_norm for r in found.rows if (r.name, r.stage) == ("a", "initial")]
    )
    measured = flow.measure(plain(activation="sigmoid", depth=12), X, labels=Y)
    axes = gt.plot.flow(measured).axes[0]
    np.testing.assert_allclose(axes.lines[1].get_ydata(), [row.gradient_norm for row in measured.rows])
    assert axes.texts[0].get_text() == "vanishing"
    monitor = flow.FlowMonitor(X, Y, every=2)
    with pytest.raises(gt.plot.PictureError):
        gt.plot.flow(monitor)
    model = small()
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(X, Y, verbose=0, epochs=4, callbacks=[monitor])
    np.testing.assert_allclose(gt.plot.flow(monitor).axes[0].lines[0].get_xdata(), [0, 2, 4])
    with pytest.raises(gt.plot.PictureError):
        gt.plot.flow(3)


def test_a_gradient_that_is_gone_says_how_fast_it_went():
    x, y = np.random.default_rng(0).normal(size=(16, 8)), np.arange(16) % 3
    deep = gt.flow.compare(
        {"d": lambda: gt.flow.architectures.plain(8, 3, depth=70, activation="sigmoid")}, x, y, seeds=1, steps=0
    )
    shallow = gt.flow.compare(
        {"s": lambda: gt.flow.architectures.plain(8, 3, depth=20, activation="sigmoid")}, x, y, seeds=1, steps=0
    )
    assert min(row.gradient_norm for row in deep.rows) < 1e-40
    assert deep.models[0].per_layer.mean == pytest.approx(shallow.models[0].per_layer.mean, rel=0.15)
