"""The explorer without its page: layers, maps, classes, uploads that are no images, lines that give the same."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers

import gradtap as gt
from gradtap import errors
from gradtap.app.explorer import METHODS, SLOW, Explorer, read_class
from gradtap.app.interface import CLICKED, _added, _show
from gradtap.app.python_lines import READINGS
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
    path = str(folder / "net.keras")
    classifier().save(path)
    trace = gt.trace(path)
    files = sorted(folder.glob("*.png"))
    names = ["cat, tabby", "dog", "hen"]
    return Explorer({"net": trace}, declared_inputs(trace), files, class_names=names, paths={"net": path})


def test_layers_with_places_are_listed_in_order(explorer):
    assert [address for _, address in explorer.layers("net")] == [":input", "conv1", "inner", "inner/deep"]
    assert explorer.layers("net")[0][0] == ":input  32×32×3"
    assert explorer.layers("net")[3][0].startswith("  deep  Conv2D 15×15×5")


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


@pytest.mark.parametrize("at", [":input", "conv1", "inner/deep"])
@pytest.mark.parametrize("method", [m for m in (*METHODS, *SLOW) if m not in ("smooth_grad", "rise")])
def test_the_lines_alone_give_the_same(explorer, method, at):
    example = explorer.examples[0]
    names = {}
    exec(explorer.lines("net", example, at, method, 2, None), names)
    view = explorer.view("net", example, at, method, 2, None)
    np.testing.assert_array_equal(names["inputs"], example.values)
    np.testing.assert_allclose(names["values"], view.values, rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize("method", [*READINGS, "saliency", "lrp", "integrated_gradients"])
def test_the_lines_of_one_channel(explorer, method):
    example, names = explorer.examples[1], {}
    exec(explorer.lines("net", example, "conv1", method, "predicted", 2), names)
    view = explorer.view("net", example, "conv1", method, "predicted", 2)
    np.testing.assert_allclose(names["values"], view.values, rtol=1e-4, atol=1e-8)


def test_no_lines_take_a_channel_of_a_map_of_all(explorer):
    with pytest.raises(errors.ArgumentError, match="one map for all channels"):
        explorer.lines("net", explorer.examples[0], "conv1", "grad_cam", 0, 2)


def image_files(folder):
    """Images of every kind that is read in a way of its own."""
    rng = np.random.default_rng(1)
    colour, sixteen = rng.integers(0, 255, (24, 40, 4), np.uint8), rng.integers(0, 65535, (32, 32), np.uint16)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(colour).save(folder / "see_through.png")
    Image.fromarray(colour[..., :3]).save(folder / "turned.jpg", exif=exif)
    Image.fromarray(colour[..., :3]).convert("CMYK").save(folder / "cmyk.jpg")
    Image.fromarray(colour[..., :3]).quantize(9).save(folder / "palette.gif")
    Image.fromarray(colour[..., 0]).save(folder / "grey.png")
    Image.fromarray(colour[..., 0]).convert("1").save(folder / "two.png")
    Image.fromarray(sixteen).save(folder / "deep.png")
    return sorted(folder.iterdir())


@pytest.mark.parametrize(
    ("shape", "preprocessing"),
    [
        ((32, 32, 3), "imagenet"),
        ((32, 32, 3), "caffe"),
        ((24, 40, 3), "symmetric"),
        ((16, 16, 1), "tflite"),
        ((16, 16, 4), None),
        ((16, 16), "none"),
        ((3, 16, 16), "unit"),
    ],
)
def test_the_lines_read_an_image_of_any_kind(tmp_path, shape, preprocessing):
    image = keras.Input(shape)
    trace = gt.trace(keras.Model(image, layers.Dense(2)(layers.Flatten()(image))))
    files = image_files(tmp_path)
    explorer = Explorer({"net": trace}, declared_inputs(trace), files, preprocessing=preprocessing)
    for example in explorer.examples:
        names = {"model": trace}
        exec(explorer.lines("net", example, ":input", "gradient", 0, None), names)
        np.testing.assert_array_equal(names["inputs"], example.values, err_msg=example.name)


def test_an_image_that_was_added_is_called_by_its_name(explorer):
    example = explorer.read(explorer.examples[0].path, added=True)
    code = explorer.lines("net", example, "conv1", "gradient", 0, None)
    assert "Image.open('a.png')" in code


def test_occlusion_has_a_window_of_a_fourth(explorer):
    example, trace = explorer.examples[0], explorer.models["net"]
    for at, window in [(":input", 8), ("inner/deep", 3)]:
        view = explorer.view("net", example, at, "occlusion", 1, None)
        expected = gt.attribution.occlusion(trace, example.values, target=1, at=at, window=window).only[0]
        np.testing.assert_allclose(view.values, expected, rtol=1e-5)


def test_every_error_is_a_message_and_takes_the_map_away(explorer, monkeypatch):
    def broken(*_):
        raise TypeError("something else")

    monkeypatch.setattr(explorer, "view", broken)
    image, words = _show(explorer, [], 0, "conv1", "net", CLICKED, "grad_cam", "predicted", "")
    assert image is None
    assert "something else" in words


def test_the_words_tell_the_target_and_the_colours(explorer):
    _, words = _show(explorer, [], 0, "conv1", "net", CLICKED, "gradient", "1", "")
    example = explorer.examples[0]
    scores = np.asarray(explorer.models["net"].model(example.values))[0]
    predicted = " (predicted)" if scores.argmax() == 1 else ""
    assert f"Target: class 1, dog{predicted}: {scores[1]:.3g}" in words
    assert f"dog: {scores[1]:.3g}" in words.split("The model says: ")[1]
    view = explorer.view("net", example, "conv1", "gradient", 1, None)
    assert f"orange raises the target, blue lowers it; strongest from ±{robust_scale(view.values):.3g} on" in words
    assert "tells nothing of the target" in explorer.view("net", example, "conv1", "activation", 1, None).legend


def other(shape=(32, 32, 3)):
    x = image = keras.Input(shape)
    for name in ("a", "b", "c", "d", "e"):
        x = layers.Conv2D(2, 3, padding="same", name=name)(x)
    return gt.trace(keras.Model(image, layers.Dense(3)(layers.GlobalAveragePooling2D()(x))))


def test_a_second_model_has_a_layer_as_far_down(explorer):
    first = explorer.models["net"]
    both = Explorer({"net": first, "other": other()}, declared_inputs(first), [])
    assert [both.counterpart("other", at) for at in (":input", "conv1", "inner", "inner/deep")] == [
        ":input",
        "b",
        "c",
        "e",
    ]
    assert both.counterpart("net", "conv1") == "conv1"


def test_models_that_do_not_go_together_are_refused(explorer):
    first = explorer.models["net"]
    with pytest.raises(errors.InputShapeError, match="take different inputs"):
        Explorer({"net": first, "small": other((16, 16, 3))}, declared_inputs(first), [])
    row = keras.Input((12,))
    table = gt.trace(keras.Model(row, layers.Dense(2)(row)))
    with pytest.raises(InputFileError, match="not an image") as refused:
        Explorer({"table": table}, declared_inputs(table), [])
    assert "gradtap report" in str(refused.value)


@pytest.mark.parametrize("names", [["one"], ["a", "b", "c", "d"]])
def test_names_that_are_not_one_for_each_class(explorer, names):
    first = explorer.models["net"]
    with pytest.raises(errors.ArgumentError, match="the model has 3 classes"):
        Explorer({"net": first}, declared_inputs(first), [], class_names=names)


def test_a_bad_upload_is_named_as_its_owner_knows_it(explorer, tmp_path):
    pytest.importorskip("gradio")
    (tmp_path / "holiday.png").write_bytes(b"text")
    message = _added(explorer, str(tmp_path / "holiday.png"), [])[-1]
    assert message == "**`holiday.png` cannot be read.** it is not an image of a known kind"


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
