"""On drawn networks: what moves a unit lies inside of what it can see, and fills it where weights are positive.

``GRADTAP_EXAMPLES`` says how many networks: a twentieth of it, and at least 12.
"""

from __future__ import annotations

import os

import keras
import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from keras import layers

import gradtap as gt
from reference.supports import box, make_positive

EXAMPLES = int(os.environ.get("GRADTAP_EXAMPLES", "200"))
SHAPE = (61, 57, 2)

drawn = settings(
    max_examples=max(12, EXAMPLES // 20),
    deadline=None,
    derandomize=EXAMPLES <= 200,
    database=None,
    suppress_health_check=list(HealthCheck),
)
paddings = st.sampled_from(["same", "valid"])
sides = st.tuples(st.integers(1, 4), st.integers(1, 4))


@st.composite
def a_layer(draw, picky):
    """What makes a layer; a picky one may be moved by fewer positions than it sees."""
    kinds = ["conv", "dilated", "depthwise", "separable", "average", "up", "smooth", "back"]
    kind = draw(st.sampled_from([*kinds, "max"] if picky else kinds))
    size, padding = draw(sides), draw(paddings)
    stride = draw(st.integers(1, 2))
    return {
        "conv": lambda: layers.Conv2D(2, size, strides=stride, padding=padding),
        "dilated": lambda: layers.Conv2D(2, size, dilation_rate=stride + 1, padding=padding),
        "depthwise": lambda: layers.DepthwiseConv2D(size, dilation_rate=stride, padding=padding, activation="relu"),
        "separable": lambda: layers.SeparableConv2D(2, size, strides=stride, padding=padding),
        "average": lambda: layers.AveragePooling2D(size, strides=stride, padding=padding),
        "max": lambda: layers.MaxPool2D(size, strides=stride, padding=padding),
        "up": lambda: layers.UpSampling2D((1, 2)),
        "smooth": lambda: layers.UpSampling2D((2, 1), interpolation="bilinear"),
        "back": lambda: layers.Conv2DTranspose(2, 3, strides=(stride, 1), padding=padding),
    }[kind]


@st.composite
def a_network(draw, picky):
    """What makes a network: a path of layers, and at its end perhaps a branch and a normalisation."""
    path = draw(st.lists(a_layer(picky), min_size=1, max_size=4))
    branch = draw(st.none() | st.tuples(st.sampled_from([1, 3, 5]), st.integers(1, 2)))
    normalised = picky and draw(st.booleans())

    def build():
        x = keras.Input(SHAPE, dtype="float64")
        y = x
        for layer in path:
            y = layer()(y)
        if branch:
            other = layers.Conv2D(2, branch[0], padding="same", dilation_rate=branch[1])(y)
            y = layers.Add()([layers.Conv2D(2, 1)(y), other])
        y = layers.LayerNormalization()(y) if normalised else y
        return keras.Model(x, layers.Activation("linear", name="last")(y))

    return build


@drawn
@given(st.booleans(), st.data())
def test_measured_fields_lie_inside_and_fill_what_units_see(positive, data):
    model = data.draw(a_network(picky=not positive))()
    if positive:
        make_positive(model)
    units = model.get_layer("last").output.shape[1:3]
    one = tuple(data.draw(st.integers(0, n - 1)) for n in units)
    images = np.random.default_rng(data.draw(st.integers(0, 99))).uniform(0.5, 1.0, (2, *SHAPE))
    measured = gt.receptive.effective(model, images, at="last", unit=["center", one])
    theory = gt.receptive.theoretical(model, at="last").only
    for unit, found in zip([tuple(n // 2 for n in units), one], measured.map, strict=True):
        region = theory.region(unit)
        outside = found.copy()
        outside[region] = 0.0
        assert not outside.any(), (unit, region, box(found != 0))
    middle = tuple(n // 2 for n in units)
    inside = all(first >= 8 and last < n - 8 for (first, last), n in zip(theory.of_unit(middle), SHAPE, strict=False))
    if positive and inside:
        assert box(measured.map[0] != 0) == theory.of_unit(middle)
