"""Weights as taps: gradients of the sum over the batch, against a tape; and who else may name one."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import gradtap as gt
from gradtap import errors
from reference.differences import assert_same_numbers
from reference.models import draws, policy


class Written(keras.Model):
    """Weights of every kind: shared, in a loop, in a nested model, of a layer of one's own, an embedding's."""

    def __init__(self):
        super().__init__()
        self.embedding = layers.Embedding(9, 4)
        self.loop = layers.LSTM(4, return_sequences=True)
        self.attend = layers.MultiHeadAttention(2, 3)
        self.shared = layers.Dense(4, activation="tanh")
        self.inside = keras.Sequential(
            [layers.Dense(4, activation="gelu", name="deep"), layers.LayerNormalization(name="norm")]
        )
        self.last = layers.Dense(3)
        self.scale = self.add_weight(shape=(4,), initializer="ones", name="scale")

    def call(self, ids):
        h = self.loop(self.embedding(ids))
        h = self.shared(self.shared(h + self.attend(h, h)))
        return self.last(tf.reduce_mean(self.inside(h), 1) * self.scale)


IDS = np.array([[1, 2, 3, 4], [5, 6, 7, 8], [1, 1, 0, 2]])
ADDRESSES = {
    "embedding:embeddings": lambda m: m.embedding.embeddings,
    "loop:recurrent_kernel": lambda m: m.loop.cell.recurrent_kernel,
    "loop/cell:kernel": lambda m: m.loop.cell.kernel,
    "attend/query:kernel": lambda m: m.attend.query_dense.kernel,
    "shared:kernel": lambda m: m.shared.kernel,
    "shared:bias": lambda m: m.shared.bias,
    "deep:kernel": lambda m: m.inside.layers[0].kernel,
    "inside/norm:gamma": lambda m: m.inside.layers[1].gamma,
    "last:kernel": lambda m: m.last.kernel,
    ":scale": lambda m: m.scale,
}


def written():
    with policy("float64", "float64"):
        model = Written()
        model(IDS)
    for i, weight in enumerate(model.weights):
        weight.assign(0.7 * draws(*weight.shape, seed=i))
    return model


def test_gradients_of_weights_are_those_of_a_tape(float64):
    model = written()
    found = gt.gradients(model, IDS, target=lambda y: y[:, 0] * y[:, 1], at=[*ADDRESSES, "last"])
    with tf.GradientTape() as tape:
        y = model(IDS)
        score = tf.reduce_sum(y[:, 0] * y[:, 1])
    variables = {address: of(model) for address, of in ADDRESSES.items()}
    expected = tape.gradient(score, [v.value for v in variables.values()])
    for address, slope in zip(ADDRESSES, expected):
        assert found[address].shape == variables[address].shape, address
        assert_same_numbers(found[address], tf.convert_to_tensor(slope), 1e-10)
        np.testing.assert_array_equal(found.activations[address], variables[address])
    assert found["last"].shape == (3, 3)


def test_parts_and_datasets_are_added_up(float64, monkeypatch):
    model = written()
    at = ["shared:kernel", "embedding:embeddings", "last"]
    whole = gt.gradients(model, IDS, target=[0, 1, 2], at=at)
    alone = gt.gradients(model, IDS, target=1, at=at)
    data = tf.data.Dataset.from_tensor_slices(IDS).batch(1)
    monkeypatch.setattr("gradtap.batching._PIECES_OF_WEIGHTS", 2)
    for found, expected in (
        (gt.gradients(model, IDS, target=[0, 1, 2], at=at, batch_size=1), whole),
        (gt.gradients(model, IDS, target=[0, 1, 2], at=at, batch_size=2), whole),
        (gt.gradients(model, data, target=1, at=at), alone),
    ):
        for address in at:
            assert_same_numbers(found[address], expected[address], 1e-10)
            np.testing.assert_allclose(found.activations[address], expected.activations[address], rtol=1e-12)
    kernel = {"target": [0, 1, 2], "at": "shared:kernel"}
    for size in (1, 2):  # nothing else is added up with it, not what there is one of either
        found = gt.gradients(model, IDS, **kernel, batch_size=size)
        assert_same_numbers(found.only, whole["shared:kernel"], 1e-10)
        assert_same_numbers(found.target, whole.target, 1e-12)
        assert_same_numbers(found.outputs, whole.outputs, 1e-12)
    found = gt.gradients(model, tf.data.Dataset.from_tensor_slices(IDS).batch(2), target=1, at="shared:kernel")
    assert_same_numbers(found.only, alone["shared:kernel"], 1e-10)
    assert_same_numbers(found.target, alone.target, 1e-12)
    empty = gt.gradients(model, IDS[:0], target=1, at=at)
    np.testing.assert_array_equal(empty["shared:kernel"], np.zeros((4, 4)))
    np.testing.assert_array_equal(empty.activations["shared:kernel"], model.shared.kernel)
    assert empty["last"].shape == (0, 3)


def test_patterns_new_values_and_the_order():
    model = keras.Sequential([keras.Input((4,)), *(layers.Dense(3, name=f"dense{i}") for i in range(3))])
    x = draws(2, 4).astype("float32")
    found = gt.gradients(model, x, target=0, at=["dense*:kernel", "dense1"])
    assert list(found) == ["dense0:kernel", "dense1:kernel", "dense1", "dense2:kernel"]
    assert found["dense1:kernel"].shape == (3, 3)
    model.layers[1].kernel.assign(2 * model.layers[1].kernel)
    again = gt.gradients(model, x, target=0, at=["dense0:kernel", "dense1:kernel"])
    np.testing.assert_allclose(again["dense0:kernel"], 2 * found["dense0:kernel"], rtol=1e-5)
    np.testing.assert_array_equal(again.activations["dense1:kernel"], model.layers[1].kernel)
    assert gt.activations(model, x, at="dense0:bias").only.shape == (3,)


def test_keras_2_and_half_precision():
    with policy("mixed_float16", "float32"):
        model = keras.Sequential([keras.Input((4,)), layers.Dense(2, name="dense")])
    found = gt.gradients(model, np.ones((2, 4)), target=0, at="dense:kernel").only
    assert found.dtype == "float32"
    np.testing.assert_allclose(found[:, 0], 2, rtol=1e-3)
    keras2 = pytest.importorskip("tf_keras")
    model = keras2.Sequential([keras2.layers.Dense(2, name="dense", input_shape=(4,))])
    found = gt.gradients(model, np.ones((2, 4), "float32"), target=0, at="dense:kernel").only
    np.testing.assert_allclose(found, [[2, 0]] * 4)


@pytest.mark.parametrize(
    ("at", "error", "match"),
    [
        ("dense:kernels", errors.AddressSyntaxError, "dense:kernel"),
        ("dense:ouput", errors.AddressSyntaxError, "output"),
        ("dense[0]:kernel", errors.AddressSyntaxError, "share"),
        ("both:kernel", errors.SideError, "2 weights"),
        ("lost:kernel", errors.UnknownTapError, "lost"),
        ("dense*:embeddings", errors.NoMatchError, "embeddings"),
        ("aside:kernel", errors.UnconnectedTapError, "aside"),
        ("beside:kernel", errors.UnconnectedTapError, "beside"),
    ],
)
def test_mistakes(at, error, match):
    x = keras.Input((4,))
    both = keras.Sequential([layers.Dense(3), layers.Dense(3)], name="both")
    h = both(layers.Dense(4, name="dense")(x))
    model = keras.Model(x, {"main": layers.Dense(2)(h), "more": layers.Dense(2, name="beside")(x)})
    model.aside = layers.Dense(2, name="aside")
    model.aside.build((None, 4))
    target = gt.targets.class_score(0, output="main")
    if at.startswith("aside"):
        error = (error, errors.SideError, errors.UnknownTapError)
    with pytest.raises(error, match=match):
        gt.gradients(model, np.ones((2, 4)), target=target, at=at)


def test_what_asks_for_each_example_takes_no_weight():
    model = keras.Sequential([keras.Input((4,)), layers.Dense(2, name="dense")])
    x = np.ones((2, 4))
    for ask in (
        lambda: gt.attribution.saliency(model, x, target=0, at="dense:kernel"),
        lambda: gt.attribution.integrated_gradients(model, x, target=0, at="dense:kernel"),
        lambda: gt.patch(model, x, {"dense:kernel": np.ones((4, 2))}),
        lambda: gt.hvp(model, x, np.ones((4, 2)), target=0, at="dense:kernel"),
        lambda: gt.jacobian(model, x, at="dense:kernel"),
    ):
        with pytest.raises(errors.SideError, match="weight, which has nothing for each example"):
            ask()
