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
    assert found.page.inner_text("#method-name") == "activation_x_gradient"
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
