"""Class activation maps and the importance of channels, against their restatement from the papers."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers

import gradtap as gt
from gradtap import attribution, errors
from reference import attributions as restated
from reference.differences import assert_same_numbers
from reference.models import draws, float64_policy
from reference.nets import net
from refusals import refuses

CLASSES = [2, 0, 1]
BY_GRADIENT = ["grad_cam", "grad_cam_plus_plus", "layer_cam", "hires_cam", "xgrad_cam"]
KINDS = ["skip", "series", "vision_transformer"]


def laid(kind, values):
    """Tokens as a grid, without the class token."""
    return values[:, 1:].reshape(-1, 3, 2, values.shape[-1]) if kind == "vision_transformer" else values


def expected_maps(kind, method, relu):
    _, run, x = net(kind)
    a, g = restated.activations(run, x, "tap"), restated.slope(run, x, CLASSES, "tap")
    pairs = zip(laid(kind, a), laid(kind, g), strict=True)
    return np.stack([restated.class_map(method, one, by, relu) for one, by in pairs])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", BY_GRADIENT)
def test_maps_of_images_series_and_tokens(method, kind):
    model, _, x = net(kind)
    for relu in (True, False):
        found = getattr(attribution, method)(model, x, target=CLASSES, at="tap", relu=relu).only
        assert_same_numbers(found, expected_maps(kind, method, relu), 1e-11, 1e-7)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("interpolation", ["bilinear", "nearest"])
def test_maps_in_the_size_of_the_input_and_in_others(kind, interpolation):
    model, _, x = net(kind)
    small = expected_maps(kind, "hires_cam", True)
    spatial = x.shape[1:-1]
    for upsample, size in (
        ("input", spatial),
        (tuple(s + 3 for s in spatial), [s + 3 for s in spatial]),
        (2, [2] * len(spatial)),
    ):
        found = attribution.hires_cam(
            model, x, target=CLASSES, at="tap", upsample=upsample, interpolation=interpolation
        ).only
        expected = np.stack([restated.upsampled(one, size, interpolation) for one in small])
        assert_same_numbers(found, expected, 1e-11, 1e-7)


def test_bilinear_is_as_tensorflow_resizes_images():
    import tensorflow as tf

    model, _, x = net("skip")
    small = attribution.grad_cam(model, x, target=CLASSES, at="tap", relu=False).only
    found = attribution.grad_cam(model, x, target=CLASSES, at="tap", relu=False, upsample=(9, 7)).only
    resized = tf.image.resize(small[..., None], (9, 7), "bilinear")[..., 0]
    assert_same_numbers(np.asarray(found), np.asarray(resized, np.float64), 1e-6, 1e-7)


def test_channels_apart_sum_to_the_map():
    model, _, x = net("skip")
    apart = attribution.grad_cam(model, x, target=CLASSES, at="tap", relu=False, sum_channels=False).only
    _, run, _ = net("skip")
    a, g = restated.activations(run, x, "tap"), restated.slope(run, x, CLASSES, "tap")
    assert_same_numbers(apart, a * g.mean((1, 2), keepdims=True), 1e-11, 1e-7)


def test_layers_without_positions():
    model, run, x = net("series")
    a, g = restated.activations(run, x, "late"), restated.slope(run, x, CLASSES, "late")
    found = attribution.grad_cam(model, x, target=CLASSES, at="late", relu=False).only
    assert_same_numbers(found, np.sum(a * g, -1), 1e-11)


def test_the_grid_of_tokens_is_found_given_or_left():
    model, run, x = net("vision_transformer")
    ask = {"target": CLASSES, "at": "tap", "relu": False}
    found = attribution.grad_cam(model, x, **ask).only
    assert_same_numbers(attribution.grad_cam(model, x, **ask, grid=(3, 2)).only, found, 1e-13, 1e-7)
    other = attribution.grad_cam(model, x, **ask, grid=(2, 3)).only
    assert_same_numbers(other, np.asarray(found).reshape(3, 2, 3), 1e-13, 1e-7)
    along = attribution.grad_cam(model, x, **ask, grid=None).only
    a, g = restated.activations(run, x, "tap"), restated.slope(run, x, CLASSES, "tap")
    assert_same_numbers(along, np.sum(a * g.mean(1, keepdims=True), -1), 1e-11, 1e-7)
    refuses(errors.ArgumentError, lambda: attribution.grad_cam(model, x, **ask, grid=(4, 2)), "7 tokens")
    refuses(errors.ArgumentError, lambda: attribution.grad_cam(model, x, **ask, upsample=(3, 3, 3)), "2 axes")


def test_several_layers_nested_in_a_model():
    with float64_policy():
        inner = keras.Sequential(
            [
                keras.Input((6, 5, 2)),
                layers.Conv2D(3, 2, activation="gelu", name="one"),
                layers.Conv2D(2, 2, name="two"),
            ],
            name="inner",
        )
        model = keras.Sequential([keras.Input((6, 5, 2)), inner, layers.GlobalAveragePooling2D(), layers.Dense(3)])
    x = draws(2, 6, 5, 2)
    g = gt.gradients(model, x, target=1, at=["inner/one", "inner/two"])
    found = attribution.grad_cam(model, x, target=1, at=["inner/one", "inner/two"], relu=False)
    for address in g:
        a, by = np.asarray(g.activations[address]), np.asarray(g[address])
        assert_same_numbers(found[address], np.sum(a * by.mean((1, 2), keepdims=True), -1), 1e-12, 1e-7)
    linear = attribution.hires_cam(model, x, target=1, at="inner/two", relu=False).only
    score = model(x).numpy()[:, 1] - model.layers[-1].bias.numpy()[1]
    np.testing.assert_allclose(np.sum(linear, (1, 2)), score, rtol=1e-11)


@pytest.mark.parametrize("kind", KINDS)
def test_score_cam(kind):
    model, run, x = net(kind)

    def grid(x, put):
        found = run(x, put)
        return found | {"grid": laid(kind, np.asarray(found["tap"]))}

    expected = restated.score_cam(grid, x, CLASSES, "grid", relu=False)
    ask = {"target": CLASSES, "at": "tap", "relu": False}
    assert_same_numbers(attribution.score_cam(model, x, **ask).only, expected, 1e-11)
    assert_same_numbers(attribution.score_cam(model, x, **ask, batch_size=2).only, expected, 1e-11)


@pytest.mark.parametrize("kind", KINDS)
def test_channels_at_zero(kind):
    model, run, x = net(kind)
    whole, without = restated.score(run, x, CLASSES), restated.without_channels(run, x, CLASSES, "tap")
    ask = {"target": CLASSES, "at": "tap"}
    lost = whole[:, None] - without
    assert_same_numbers(attribution.channel_importance(model, x, **ask, by="ablation").only, lost, 1e-11)
    a = laid(kind, restated.activations(run, x, "tap"))
    weights = (lost / whole[:, None]).reshape(3, *[1] * (a.ndim - 2), -1)
    for relu in (True, False):
        found = attribution.ablation_cam(model, x, **ask, relu=relu).only
        expected = np.sum(weights * a, -1)
        assert_same_numbers(found, np.maximum(expected, 0) if relu else expected, 1e-11)
    assert_same_numbers(attribution.channel_importance(model, x, **ask, by="ablation", batch_size=2).only, lost, 1e-11)
    a, g = restated.activations(run, x, "tap"), restated.slope(run, x, CLASSES, "tap")
    by_gradient = np.sum(a * g, axis=tuple(range(1, a.ndim - 1)))
    assert_same_numbers(attribution.channel_importance(model, x, **ask).only, by_gradient, 1e-11)


def test_a_channel_of_zeros_has_no_part():
    model, _, x = net("skip")
    layer = model.get_layer("tap")
    kernel, bias = layer.kernel.numpy(), layer.bias.numpy()
    layer.activation, softplus = keras.activations.relu, layer.activation
    try:
        layer.bias.assign(np.array([bias[0], -1e3, bias[2]]))
        ask = {"target": CLASSES, "at": "tap", "relu": False}
        for method in (*BY_GRADIENT, "score_cam", "ablation_cam"):
            found = getattr(attribution, method)(model, x, **ask).only
            assert np.isfinite(found).all(), method
        for by in ("gradient", "ablation"):
            assert not np.any(attribution.channel_importance(model, x, target=CLASSES, at="tap", by=by).only[:, 1])
    finally:
        layer.activation = softplus
        layer.kernel.assign(kernel)
        layer.bias.assign(bias)


def test_where_a_map_cannot_lie():
    model, _, x = net("series")
    refuses(errors.SideError, lambda: attribution.score_cam(model, x, target=0, at="late"), "no input")
    refuses(errors.SideError, lambda: attribution.guided_grad_cam(model, x, target=0, at="late"), "no input")
    refuses(errors.ArgumentError, lambda: attribution.grad_cam(model, x, target=0, at="tap", upsample="output"))
    refuses(errors.ArgumentError, lambda: attribution.grad_cam(model, x, target=0, at="tap", interpolation="cubic"))
    refuses(errors.ArgumentError, lambda: attribution.channel_importance(model, x, target=0, at="tap", by="chance"))
