"""The explorer in Chromium: pick an image, click a layer, choose a method, add a file, open a second tab."""

from __future__ import annotations

import socket
import time

import keras
import numpy as np
import pytest
from keras import layers

import gradtap as gt

pytestmark = pytest.mark.browser
LAYERS = ["conv1", "conv2", "conv3"]
#: What the first map shows, once it has come.
PIXELS = """async () => {
  const image = document.querySelector("#mapA img"), page = document.createElement("canvas");
  await image.decode();
  page.width = image.naturalWidth; page.height = image.naturalHeight;
  const context = page.getContext("2d", { willReadFrequently: true });
  context.drawImage(image, 0, 0);
  return { size: [page.height, page.width], pixels: [...context.getImageData(0, 0, page.width, page.height).data] };
}"""


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    pytest.importorskip("gradio", reason="gradio is not installed: make browser")
    from PIL import Image

    from gradtap.app import Explorer, interface
    from gradtap.cli.model_file import declared_inputs

    folder, rng = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for name in ("first.png", "second.png"):
        Image.fromarray(rng.integers(0, 255, (48, 48, 3), np.uint8)).save(folder / name)
    keras.utils.set_random_seed(0)
    x = image = keras.Input((48, 48, 3))
    for name in LAYERS:
        x = layers.Conv2D(6, 3, strides=2, padding="same", activation="tanh", name=name)(x)
    model = keras.Model(image, layers.Dense(4, activation="softmax")(layers.GlobalAveragePooling2D()(x)))
    trace = gt.trace(model)
    explorer = Explorer({"net": trace}, declared_inputs(trace), sorted(folder.iterdir()))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    blocks = interface(explorer)
    blocks.launch(server_name="127.0.0.1", server_port=port, prevent_thread_lock=True, quiet=True, share=False)
    yield explorer, f"http://127.0.0.1:{port}/", folder
    blocks.close()


def opened(visit, url, **context):
    found = visit(url, **context)
    found.page.wait_for_selector("#wordsA >> text=grad_cam at conv3", timeout=60_000)
    return found


def test_click_a_layer_and_an_image(served, visit):
    explorer, url, _ = served
    found = opened(visit, url)
    found.page.click("#layers label >> nth=0")
    found.page.wait_for_selector("#wordsA >> text=conv1, 24 × 24")
    found.page.wait_for_selector("#wordsB >> text=activation_x_gradient at conv1")
    first = found.page.get_attribute("#mapA img", "src")
    found.page.click("#images button:has(img) >> nth=1")
    found.page.wait_for_function("(old) => document.querySelector('#mapA img').src !== old", arg=first)
    # The picture on the page is the explorer's own.
    view = explorer.view("net", explorer.examples[1], "conv1", "grad_cam", "predicted", None)
    drawn = found.page.evaluate(PIXELS)
    np.testing.assert_allclose(np.array(drawn["pixels"]).reshape(*drawn["size"], 4)[..., :3], view.image, atol=1)


def test_a_layer_is_seen_within_a_second_after_the_first(served, visit):
    _, url, _ = served
    found = opened(visit, url)
    for number in (1, 2, 1):
        start = time.monotonic()
        found.page.click(f"#layers label >> nth={number}")
        found.page.wait_for_selector(f"#wordsA >> text=grad_cam at {LAYERS[number]}")
    assert time.monotonic() - start < 1.5


def test_a_wrong_class_or_channel_is_a_message(served, visit):
    _, url, _ = served
    found = opened(visit, url)
    found.page.fill("#channelB textarea, #channelB input", "99")
    found.page.keyboard.press("Tab")
    found.page.wait_for_selector("#wordsB >> text=out of range")
    found.page.fill("#channelB textarea, #channelB input", "2")
    found.page.keyboard.press("Tab")
    found.page.wait_for_selector("#wordsB >> text=channel 2 of conv3")


def test_a_file_that_is_no_image_is_a_message_and_an_image_is_shown(served, visit, tmp_path):
    _, url, folder = served
    found = opened(visit, url)
    bad, good = tmp_path / "bad.png", tmp_path / "third.png"
    bad.write_bytes(b"this is text")
    good.write_bytes((folder / "first.png").read_bytes())
    found.page.set_input_files("#upload input[type=file], input[type=file]", str(bad))
    found.page.wait_for_selector("#said >> text=cannot be read")
    found.page.set_input_files("#upload input[type=file], input[type=file]", str(good))
    found.page.wait_for_selector("#images >> text=third.png")
    assert found.page.locator("#images button:has(img)").count() == 3


def test_two_tabs_do_not_disturb_each_other(served, visit):
    _, url, _ = served
    one, two = opened(visit, url), opened(visit, url)
    one.page.click("#layers label >> nth=0")
    two.page.click("#layers label >> nth=1")
    one.page.wait_for_selector("#wordsA >> text=grad_cam at conv1")
    two.page.wait_for_selector("#wordsA >> text=grad_cam at conv2")
    assert "conv1" in one.page.inner_text("#wordsA")


def test_it_fits_on_a_phone(served, visit):
    found = opened(visit, served[1], viewport={"width": 375, "height": 800})
    assert found.page.evaluate("document.documentElement.scrollWidth") <= 375
