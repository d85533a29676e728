"""The explorer without its page: layers, maps, classes, uploads that are no images, lines that give the same."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers

import gradtap as gt
from gradtap import errors
from gradtap.app.explorer import METHODS, Explorer, read_class
from gradtap.cli.model_file import declared_inputs
from gradtap.errors import InputFileError
from gradtap.plot.maps import colours, enlarge, faded_grey, robust_scale

Image = pytest.importorskip("PIL.Image")


def classifier(seed=0):
    keras.utils.set_random_seed(seed)
    x = image = keras.Input((32, 32, 3), name="image")
    inner = keras.Sequential([layers.Conv2D(5, 3, strides=2, activation="relu", name="deep")], name="inner")
    x = inner(layers.Conv2D(4, 3, padding="same", activation="relu", name="conv1")(x))
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    return keras.Model(image, layers.Dense(3, activation="softmax", name="scores")(x))


@pytest.fixture(scope="module")
def explorer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for name in ("a.png", "b.png"):
        Image.fromarray(rng.integers(0, 255, (40, 50, 3), np.uint8)).save(folder / name)
    trace = gt.trace(classifier())
    files = sorted(folder.iterdir())
    return Explorer({"net": trace}, declared_inputs(trace), files, class_names=["cat, tabby", "dog", "hen"])


def test_layers_with_places_are_listed_in_order(explorer):
    assert [address for _, address in explorer.layers("net")] == ["conv1", "inner", "inner/deep"]
    assert explorer.layers("net")[2][0].startswith("  deep  Conv2D 15×15×5")


@pytest.mark.parametrize("method", METHODS)
def test_a_view_is_what_the_call_gives(explorer, method):
    example, trace = explorer.examples[0], explorer.models["net"]
    view = explorer.view("net", example, "conv1", method, 1, None)
    found = gt.gradients(trace, example.values, target=1, at="conv1")
    if method == "activation":
        expected = found.activations.only[0].numpy().mean(-1)
    elif method == "gradient":
        expected = found.only[0].numpy().sum(-1)
    else:
        expected = getattr(gt.attribution, method)(trace, example.values, target=1, at="conv1").only[0].numpy()
        expected = expected.sum(-1) if expected.ndim == 3 else expected
    np.testing.assert_allclose(view.values, expected, rtol=1e-5, atol=1e-9)
    large = example.picture.repeat(14, 0).repeat(14, 1)
    shown = colours(enlarge(view.values, *large.shape[:2]), robust_scale(view.values), faded_grey(large))
    np.testing.assert_allclose(view.image, 255 * shown, atol=0.51)


def test_one_channel_alone(explorer):
    example, trace = explorer.examples[1], explorer.models["net"]
    view = explorer.view("net", example, "inner/deep", "gradient", "predicted", 3)
    expected = gt.gradients(trace, example.values, target="predicted", at="inner/deep").only[0, ..., 3]
    np.testing.assert_allclose(view.values, expected)
    with pytest.raises(errors.ClassRangeError):
        explorer.view("net", example, "inner/deep", "gradient", "predicted", 5)
    with pytest.raises(errors.ArgumentError):
        explorer.view("net", example, "inner/deep", "grad_cam", "predicted", 0)


def test_another_layer_is_no_other_trace(explorer):
    trace = explorer.models["net"]
    before = len(trace.graphs)
    for address in ("conv1", "inner", "inner/deep"):
        explorer.view("net", explorer.examples[0], address, "grad_cam", 0, None)
    assert len(trace.graphs) == before == 1


def test_the_likeliest_classes(explorer):
    example = explorer.examples[0]
    scores = np.asarray(explorer.models["net"].model(example.values))[0]
    assert [(k, name) for k, name, _ in explorer.likeliest("net", example, 2)] == [
        (int(k), ["cat", "dog", "hen"][k]) for k in np.argsort(-scores)[:2]
    ]
    assert explorer.class_name(7) == "class 7"


@pytest.mark.parametrize("method", ["activation_x_gradient", "grad_cam", "gradient"])
def test_the_lines_give_the_same(explorer, method):
    example = explorer.examples[0]
    channel = 2 if method == "gradient" else None
    code = explorer.lines("net", example, "conv1", method, 2, channel)
    names = {"model": explorer.models["net"], "inputs": example.values}
    exec(code, names)
    values = np.asarray(names["values"])[0]
    values = values.sum(-1) if values.ndim == 3 else values
    np.testing.assert_allclose(values, explorer.view("net", example, "conv1", method, 2, channel).values, rtol=1e-5)


def test_what_is_no_image_is_refused(explorer, tmp_path):
    for name, content in [("a.png", b"no image"), ("b.jpg", b""), ("c.txt", b"text")]:
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputFileError):
            explorer.read(tmp_path / name)
    whole = tmp_path / "whole.png"
    Image.fromarray(np.zeros((60, 60, 3), np.uint8)).save(whole)
    (tmp_path / "cut.png").write_bytes(whole.read_bytes()[:60])
    with pytest.raises(InputFileError):
        explorer.read(tmp_path / "cut.png")
    assert explorer.read(whole).values.shape == (1, 32, 32, 3)


def test_a_report_of_what_is_seen(explorer, tmp_path):
    path = explorer.report("net", explorer.examples[0], "inner", "grad_cam", "predicted", tmp_path / "report.html")
    text = path.read_text(encoding="utf-8")
    assert '"address":"inner/deep"' in text
    assert "gt.attribution.grad_cam" in text


@pytest.mark.parametrize(
    ("text", "target"), [("", "predicted"), ("predicted", "predicted"), ("281 tabby", 281), ("7", 7)]
)
def test_targets_are_read(text, target):
    assert read_class(text) == target


def test_a_target_that_is_none():
    with pytest.raises(errors.TargetTypeError):
        read_class("tabby")
