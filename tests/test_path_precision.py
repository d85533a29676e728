"""Path methods of a float64 model keep float64: weights of the quadrature and baselines are not rounded."""

import keras
import numpy as np
import pytest

import gradtap as gt


@pytest.fixture(scope="module")
def product():
    """``y = 3 x * x``, where ``x`` goes around the tap ``a``."""
    x = keras.Input((1,), dtype="float64", name="x")
    three = keras.initializers.Constant(3.0)
    a = keras.layers.Dense(1, use_bias=False, kernel_initializer=three, dtype="float64", name="a")(x)
    return keras.Model(x, keras.layers.Multiply(dtype="float64", name="y")([a, x]))


def test_one_point_at_a_time_is_weighed_in_float64(product):
    path = gt.attribution.integrated_gradients(product, [[2.0]], at="a", steps=50)
    np.testing.assert_allclose(path.only, [[12.0]], rtol=1e-13)
    assert abs(path.delta[0]) < 1e-12


@pytest.mark.parametrize("at", [":input", "a"])
def test_a_number_as_baseline_is_not_rounded(product, at):
    path = gt.attribution.integrated_gradients(product, [[2.0]], at=at, baseline=0.1)
    by_way = {":input": 3 * (2.0**2 - 0.1**2), "a": 3 * (2.0 - 0.1) * 2.0}
    np.testing.assert_allclose(path.only, [[by_way[at]]], rtol=1e-13)
