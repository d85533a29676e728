"""A report in Chromium: what is seen are the arrays, and a person gets about by mouse and by keys, on a phone too."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers

import gradtap as gt
from gradtap.plot.maps import colours, robust_scale
from gradtap.report.page import page

pytestmark = pytest.mark.browser
LAYERS = ["conv1", "conv2", "conv3"]


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """Small pictures, and layers without places."""
    keras.utils.set_random_seed(0)
    x = image = keras.Input((8, 8, 1))
    x = layers.Conv2D(3, 3, activation="relu", name="conv")(x)
    x = layers.Flatten(name="flat")(x)
    model = keras.Model(image, layers.Dense(3, activation="softmax", name="scores")(x))
    images = np.random.default_rng(0).random((1, 8, 8, 1)).astype("float32")
    at, names = ["conv", "flat", "scores:preactivation"], ["cat", "dog", "hen"]
    document = gt.report.collect(model, images, at=at, methods=["grad_cam"], class_names=names)
    path = tmp_path_factory.mktemp("digits") / "report.html"
    path.write_text(page(document), encoding="utf-8")
    return document, path.as_uri()


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    keras.utils.set_random_seed(0)
    x = image = keras.Input((48, 48, 3))
    for name in LAYERS:
        x = layers.Conv2D(6, 3, strides=2, padding="same", activation="tanh", name=name)(x)
    model = keras.Model(image, layers.Dense(4, activation="softmax")(layers.GlobalAveragePooling2D()(x)))
    images = np.random.default_rng(0).random((3, 48, 48, 3)).astype("float32")
    methods = ["grad_cam", "activation_x_gradient", "attention_relevance"]
    document = gt.report.collect(model, images, at=LAYERS, methods=methods, names=["a", "b", "c"], title="Title & more")
    path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_text(page(document), encoding="utf-8")
    return document, path.as_uri()


def pixels(found, name):
    """What a canvas shows ``(height, width, 3)``."""
    size, values = found.page.evaluate(
        """(name) => { const c = document.getElementById(name);
        return [[c.height, c.width], [...c.getContext("2d").getImageData(0, 0, c.width, c.height).data]]; }""",
        name,
    )
    return np.array(values).reshape(*size, 4)[..., :3]


def expected(values, size):
    """The colours of a map on white, in cells."""
    rows = np.arange(size[0]) * values.shape[0] // size[0]
    columns = np.arange(size[1]) * values.shape[1] // size[1]
    return 255 * colours(values[np.ix_(rows, columns)], robust_scale(values))


def test_the_pixels_are_the_arrays(report, visit):
    document, url = report
    found = visit(url, color_scheme="light")
    found.page.uncheck("#overlay")
    for layer, address in enumerate(LAYERS):
        found.page.fill("#layer", str(layer))
        look = document.examples[0].looks[address]
        for name, values in [("gradient", look.gradient), ("attribution", look.attributions["grad_cam"])]:
            drawn = pixels(found, name)
            np.testing.assert_allclose(drawn, expected(values.values, drawn.shape), atol=2)


def test_maps_are_seen_on_opening(report, visit):
    found = visit(report[1])
    assert found.page.title() == "Title & more"
    assert found.page.inner_text("#address").startswith("conv3")
    for name in ("activation", "gradient", "attribution"):
        assert pixels(found, name).std() > 5
        assert address_of(found, name) == "conv3"


def address_of(found, name):
    return found.page.get_attribute(f"#{name}", "aria-label").split(" of ")[1].split(",")[0]


def test_keys_walk_layers_examples_and_methods(report, visit):
    found = visit(report[1])
    found.page.keyboard.press("ArrowLeft")
    assert found.page.inner_text("#address").startswith("conv2")
    found.page.keyboard.press("ArrowDown")
    assert found.page.get_attribute("#examples button:nth-child(2)", "aria-checked") == "true"
    found.page.keyboard.press("ArrowUp")
    found.page.keyboard.press("ArrowUp")
    assert found.page.get_attribute("#examples button:nth-child(3)", "aria-checked") == "true"
    found.page.focus("#methods button[aria-selected=true]")
    found.page.keyboard.press("ArrowRight")
    assert found.page.inner_text("#attribution-name") == "activation_x_gradient, sum over channels"
    found.page.focus("#layer")
    found.page.keyboard.press("Home")
    assert found.page.inner_text("#address").startswith("conv1")


def test_the_pointer_reads_the_value_below_it(report, visit):
    document, url = report
    found = visit(url)
    found.page.fill("#layer", "0")
    box = found.page.locator("#gradient").bounding_box()
    values = document.examples[0].looks["conv1"].gradient.values
    for row, column in [(0, 0), (7, 13), (23, 23)]:
        x = box["x"] + (column + 0.5) / values.shape[1] * box["width"]
        y = box["y"] + (row + 0.5) / values.shape[0] * box["height"]
        found.page.mouse.move(x, y)
        said = found.page.inner_text("#value")
        assert f"row {row}, column {column}" in said
        read = float(said.split(": ")[1].split(" ")[0])
        assert read == pytest.approx(values[row, column], abs=float(np.abs(values).max()) / 3000)


def test_a_value_goes_with_its_layer(report, visit):
    found = visit(report[1])
    found.page.hover("#gradient")
    assert found.page.inner_text("#value").startswith("gradient, row")
    found.page.fill("#layer", "0")
    assert found.page.inner_text("#value").startswith("Point at a map")


def test_a_tap_reads_a_value(report, visit):
    document, url = report
    found = visit(url, has_touch=True, is_mobile=True, viewport={"width": 375, "height": 800})
    found.page.locator("#activation").tap(position={"x": 3, "y": 3})
    said = found.page.inner_text("#value")
    assert said.startswith("activation, row 0, column 0 of 6 × 6")
    values = document.examples[0].looks["conv3"].activation.values
    assert float(said.split(": ")[1]) == pytest.approx(values[0, 0], abs=float(np.abs(values).max()) / 3000)


def test_keys_walk_the_places_of_a_map(report, visit):
    document, url = report
    found = visit(url)
    found.page.focus("#gradient")
    values = document.examples[0].looks["conv3"].gradient.values
    for key, row, column in [("ArrowDown", 0, 0), ("ArrowDown", 1, 0), ("ArrowRight", 1, 1), ("ArrowLeft", 1, 0)]:
        found.page.keyboard.press(key)
        said = found.page.inner_text("#value")
        assert said.startswith(f"gradient, row {row}, column {column} of")
        assert float(said.split(": ")[1]) == pytest.approx(values[row, column], abs=float(np.abs(values).max()) / 3000)
    assert found.page.inner_text("#address").startswith("conv3")  # the layer stays


def test_the_strip_below_a_map_tells_its_colours(report, visit):
    document, url = report
    found = visit(url)
    look = document.examples[0].looks["conv3"]
    ends = [float(text) for text in found.page.locator("#gradient-key span").all_inner_texts()]
    scale = robust_scale(look.gradient.values)
    low, high = (look.gradient.values < 0).any(), (look.gradient.values > 0).any()
    assert ends == pytest.approx([-scale if low else 0, scale if high else 0], rel=1e-3)
    legend = found.page.inner_text(".legend")
    assert "neither tells of the target" in legend
    assert "grad_cam: " + document.said["grad_cam"].replace("`", "") in legend


def test_units_are_bars_with_the_names_of_classes(digits, visit):
    document, url = digits
    found = visit(url, color_scheme="light")
    assert found.page.inner_text("#activation-name") == "activation"
    assert found.page.is_hidden("#activation-key")
    values = document.examples[0].looks["scores:preactivation"].activation.values[0]
    drawn = pixels(found, "activation")
    assert drawn.shape[0] == 36 * 3
    ink = [np.all(np.abs(drawn[36 * i + 18, 202:] - colour) < 3, axis=-1) for i, colour in enumerate(inks(values))]
    low, high = min(values.min(), 0), max(values.max(), 0)
    for counted, value in zip(ink, values, strict=True):
        assert counted.sum() == pytest.approx(abs(value) / (high - low) * 468, abs=4)
    box = found.page.locator("#activation").bounding_box()
    found.page.mouse.move(box["x"] + 30, box["y"] + box["height"] * 0.5)
    assert found.page.inner_text("#value").startswith("activation, unit 1 dog: ")
    found.page.fill("#layer", "1")
    assert pixels(found, "activation").shape[:2] == (224, 672)


def inks(values):
    return [(213, 94, 0) if value > 0 else (0, 114, 178) for value in values]


def test_few_pixels_are_shown_large(digits, visit):
    found = visit(digits[1])
    found.page.wait_for_selector("#shown img.small")
    assert found.page.locator("#shown img").bounding_box()["width"] == 160
    assert found.page.evaluate("getComputedStyle(document.querySelector('#shown img')).imageRendering") == "pixelated"


def test_without_its_script_the_page_says_so(report, visit):
    found = visit(report[1], java_script_enabled=False)
    assert found.page.is_visible(".finding >> text=does not run here")
    assert not found.page.is_visible("#viewer")
    assert found.page.is_visible("text=Layers in numbers")


def test_paper_says_what_is_on_it(report, visit):
    found = visit(report[1])
    assert not found.page.is_visible("#paper")
    found.page.fill("#layer", "1")
    found.page.emulate_media(media="print")
    assert found.page.inner_text("#paper").startswith("Printed: a at conv2, as on the screen.")
    assert "3 examples at 3 layers" in found.page.inner_text("#paper")
    # Kept whole it would not fit below the heading, and leave the first sheet empty.
    assert found.page.evaluate("getComputedStyle(document.getElementById('viewer')).breakInside") == "auto"


def test_a_method_that_is_not_there_says_so(report, visit):
    found = visit(report[1])
    found.page.click("text=attention_relevance >> nth=0")
    assert "cannot be computed" in found.page.get_attribute("#attribution", "aria-label")


def test_light_and_dark(report, visit):
    found = visit(report[1], color_scheme="dark")
    ground = found.page.evaluate("getComputedStyle(document.body).backgroundColor")
    found.page.click("#theme")
    other = found.page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert ground == "rgb(13, 17, 23)"
    assert other == "rgb(255, 255, 255)"


@pytest.mark.parametrize("width", [320, 375, 768])
def test_nothing_scrolls_sideways(report, visit, width):
    found = visit(report[1], viewport={"width": width, "height": 800})
    for part in found.page.query_selector_all("summary"):
        part.click()
    assert found.page.evaluate("document.documentElement.scrollWidth") <= width
    assert found.page.locator("#attribution").bounding_box()["width"] <= width


def test_every_picture_is_named(report, visit):
    found = visit(report[1])
    assert found.page.evaluate("[...document.images].every((i) => i.hasAttribute('alt'))")
    assert found.page.evaluate("[...document.querySelectorAll('canvas')].every((c) => c.getAttribute('aria-label'))")


def test_it_prints_what_is_folded_away(report, visit, tmp_path):
    found = visit(report[1])
    found.page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert found.page.evaluate("[...document.querySelectorAll('details')].every((d) => d.open)")
    found.page.emulate_media(media="print")
    assert not found.page.is_visible("#theme")
    assert found.page.is_visible("#gradient")
