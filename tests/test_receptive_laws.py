"""What Luo et al. found of effective receptive fields, here: https://arxiv.org/abs/1701.04128."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers

from gradtap.receptive import effective

SIDE, CHANNELS = 61, 16


def stack(depth, activation):
    keras.utils.set_random_seed(0)
    convs = [
        layers.Conv2D(CHANNELS, 3, padding="same", activation=activation, kernel_initializer="he_normal", name=f"c{i}")
        for i in range(1, depth + 1)
    ]
    return keras.Sequential([keras.Input((SIDE, SIDE, CHANNELS)), *convs])


@pytest.mark.parametrize("activation", ["linear", pytest.param("relu", marks=pytest.mark.slow)])
def test_width_grows_as_the_square_root_of_depth_and_the_profile_is_gaussian(activation, rng):
    depths = np.array([4, 8, 16])
    fields = effective(stack(16, activation), rng.normal(size=(12, SIDE, SIDE, CHANNELS)), at=[f"c{n}" for n in depths])
    widths = [np.mean(field.sigma) for field in fields.values()]
    # With random weights the mean absolute gradient has twice the variance of as many boxes of three.
    np.testing.assert_allclose(widths, np.sqrt(2 * 2 / 3 * depths), rtol=0.1)
    assert np.polyfit(np.log(depths), np.log(widths), 1)[0] == pytest.approx(0.5, abs=0.05)
    deepest = fields["c16"].map
    offsets = np.arange(SIDE) - SIDE // 2
    bell = np.exp(-(offsets[:, None] ** 2 + offsets**2) / (2 * widths[-1] ** 2))
    bell *= (bell * deepest).sum() / (bell**2).sum()
    assert np.sum((deepest - bell) ** 2) < 0.05 * np.sum((deepest - deepest.mean()) ** 2)
    shares = [field.share for field in fields.values()]
    assert shares[0] > shares[1] > shares[2]


@pytest.mark.slow
def test_training_widens_the_fields_of_a_residual_network_where_it_has_to_look():
    rng = np.random.default_rng(0)
    # Two stripes, near each other or far apart: what tells the classes apart is wider than the field at first.
    images, classes = rng.normal(scale=0.3, size=(800, 24, 24, 1)), rng.integers(0, 2, 800)
    for image, k in zip(images, classes, strict=True):
        left = rng.integers(1, 8)
        image[:, left] += 2.0
        image[:, left + (6 if k else 13)] += 2.0
    keras.utils.set_random_seed(0)
    x = image = keras.Input((24, 24, 1))
    for i in range(9):
        y = layers.Conv2D(12, 3, padding="same", kernel_initializer="he_normal")(x)
        y = layers.Activation("relu")(layers.BatchNormalization(momentum=0.8)(y))
        x = layers.Add()([x, y]) if i else y
    x = layers.Identity(name="last")(x)
    model = keras.Model(image, layers.Dense(2, activation="softmax")(layers.GlobalAveragePooling2D()(x)))
    before = effective(model, images[:60], at="last").sigma
    model.compile(keras.optimizers.Adam(3e-3), "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(images[:700], classes[:700], batch_size=50, epochs=8, verbose=0)
    after = effective(model, images[:60], at="last").sigma
    assert model.evaluate(images[700:], classes[700:], verbose=0)[1] > 0.9
    # Along the rows, where the stripes lie apart, and not across them.
    assert after[1] > 1.08 * before[1]
    assert after[1] / after[0] > 1.2 * before[1] / before[0]
