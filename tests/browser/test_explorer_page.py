"""The explorer in Chromium: pick an image, click a layer, choose a method, add a file, open a second tab."""

from __future__ import annotations

import functools
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers

import gradtap as gt

# Gradio uses an option that its pandas has deprecated.
DEPRECATED = "ignore:.*no_silent_downcasting"
pytestmark = [pytest.mark.browser, pytest.mark.filterwarnings(DEPRECATED)]
LAYERS = ["conv1", "conv2", "conv3"]
#: What a map shows, once it has come.
PIXELS = """async (where) => {
  const image = document.querySelector(where), page = document.createElement("canvas");
  await image.decode();
  page.width = image.naturalWidth; page.height = image.naturalHeight;
  const context = page.getContext("2d", { willReadFrequently: true });
  context.drawImage(image, 0, 0);
  return { size: [page.height, page.width], pixels: [...context.getImageData(0, 0, page.width, page.height).data] };
}"""


@pytest.fixture(scope="module")
def serving(tmp_path_factory):
    pytest.importorskip("gradio", reason="gradio is not installed: make browser")
    from PIL import Image

    from gradtap.app.explorer import Explorer
    from gradtap.app.interface import serve
    from gradtap.cli.model_file import declared_inputs

    folder, rng = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for name in ("first.png", "second.png"):
        Image.fromarray(rng.integers(0, 255, (48, 48, 3), np.uint8)).save(folder / name)

    def at_work(**models):
        explorer = Explorer(models, declared_inputs(next(iter(models.values()))), sorted(folder.iterdir()))
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        blocks.append(serve(explorer, port=port, wait=False))
        return explorer, f"http://127.0.0.1:{port}/", folder

    blocks = []
    yield at_work
    for each in blocks:
        each.close()


def network(names, seed):
    keras.utils.set_random_seed(seed)
    x = image = keras.Input((48, 48, 3))
    for name in names:
        x = layers.Conv2D(6, 3, strides=2, padding="same", activation="tanh", name=name)(x)
    return gt.trace(keras.Model(image, layers.Dense(4, activation="softmax")(layers.GlobalAveragePooling2D()(x))))


@pytest.fixture(scope="module")
def served(serving):
    return serving(net=network(LAYERS, 0))


@pytest.fixture(scope="module")
def two(serving):
    return serving(net=network(LAYERS, 0), other=network(["conv1", "middle", "last"], 1))


def opened(visit, url, **context):
    found = visit(url, **context)
    found.page.wait_for_selector("#wordsA >> text=grad_cam at conv3", timeout=60_000)
    return found


def test_click_a_layer_and_an_image(served, visit):
    explorer, url, _ = served
    found = opened(visit, url)
    found.page.click("#layers label >> nth=1")
    found.page.wait_for_selector("#wordsA >> text=conv1, 24 × 24")
    found.page.wait_for_selector("#wordsB >> text=activation_x_gradient at conv1")
    first = found.page.get_attribute("#mapA img", "src")
    found.page.click("#images button:has(img) >> nth=1")
    found.page.wait_for_function("(old) => document.querySelector('#mapA img').src !== old", arg=first)
    # The picture on the page is the explorer's own.
    view = explorer.view("net", explorer.examples[1], "conv1", "grad_cam", "predicted", None)
    drawn = found.page.evaluate(PIXELS, "#mapA img")
    np.testing.assert_allclose(np.array(drawn["pixels"]).reshape(*drawn["size"], 4)[..., :3], view.image, atol=1)


def test_a_layer_is_seen_within_a_second_after_the_first(served, visit):
    _, url, _ = served
    found = opened(visit, url)
    for number in (1, 2, 1):
        start = time.monotonic()
        found.page.click(f"#layers label >> nth={number + 1}")
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
    found.page.wait_for_selector("#wordsA >> text=third.png: grad_cam")
    assert found.page.locator("#images button.selected").count() == 1
    assert "third.png" in found.page.inner_text("#images button.selected")
    assert found.page.locator("#said >> text=cannot be read").count() == 0


def test_two_tabs_do_not_disturb_each_other(served, visit):
    _, url, _ = served
    one, two = opened(visit, url), opened(visit, url)
    one.page.click("#layers label >> nth=1")
    two.page.click("#layers label >> nth=2")
    one.page.wait_for_selector("#wordsA >> text=grad_cam at conv1")
    two.page.wait_for_selector("#wordsA >> text=grad_cam at conv2")
    assert "conv1" in one.page.inner_text("#wordsA")


def test_it_fits_on_a_phone(served, visit):
    found = opened(visit, served[1], viewport={"width": 375, "height": 800})
    assert found.page.evaluate("document.documentElement.scrollWidth") <= 375


def test_two_models_side_by_side(two, visit):
    explorer, url, _ = two
    found = opened(visit, url)
    found.page.wait_for_selector("#wordsB >> text=activation_x_gradient at last")  # the second has no conv3
    found.page.click("#layers label >> nth=1")
    found.page.wait_for_selector("#wordsB >> text=activation_x_gradient at conv1")
    found.page.click("#layerB input")
    found.page.click("ul[role=listbox] li >> text=middle")
    found.page.wait_for_selector("#wordsB >> text=activation_x_gradient at middle")
    assert "grad_cam at conv1" in found.page.inner_text("#wordsA")
    view = explorer.view("other", explorer.examples[0], "middle", "activation_x_gradient", "predicted", None)
    drawn = found.page.evaluate(PIXELS, "#mapB img")
    np.testing.assert_allclose(np.array(drawn["pixels"]).reshape(*drawn["size"], 4)[..., :3], view.image, atol=1)
    scores = explorer.models["other"].model.predict(explorer.examples[0].values, verbose=0)[0]
    assert f"class {scores.argmax()}: {scores.max():.3g}" in found.page.inner_text("#wordsB")


def test_what_is_seen_goes_along_as_a_report_and_as_lines_that_run(served, visit, tmp_path):
    explorer, url, _ = served
    found = opened(visit, url)
    found.page.click("#layers label >> nth=2")
    found.page.wait_for_selector("#wordsA >> text=grad_cam at conv2")
    found.page.click("text=Take it with you")
    found.page.wait_for_selector('#lines >> text=at="conv2"')
    code = "\n".join(found.page.locator("#lines .cm-line").all_inner_texts())
    names = {"model": explorer.models["net"]}
    exec(code, names)
    view = explorer.view("net", explorer.examples[0], "conv2", "grad_cam", "predicted", None)
    np.testing.assert_allclose(names["values"], view.values)
    found.page.click("#report")
    found.page.wait_for_selector("#saved")
    found.page.click("#layers label >> nth=1")
    found.page.wait_for_selector("#saved", state="hidden")  # it is of the layer before
    found.page.click("#layers label >> nth=2")
    found.page.wait_for_selector('#lines >> text=at="conv2"')
    found.page.click("#report")
    with found.page.expect_download() as download:
        found.page.click("#saved")
    assert download.value.suggested_filename == "report.html"
    download.value.save_as(tmp_path / "report.html")
    page = visit((tmp_path / "report.html").as_uri())
    assert page.page.title() == "net, first.png"
    assert page.page.locator("canvas").count() >= 3 and "conv2" in page.page.inner_text("body")


def test_what_is_open_is_marked_and_nothing_offers_to_share(served, visit):
    found = opened(visit, served[1])
    assert "first.png" in found.page.inner_text("#images button.selected")
    labels = found.page.evaluate("[...document.querySelectorAll('button')].map((b) => b.ariaLabel + b.title)")
    assert any("ownload" in label for label in labels)
    assert not any("hare" in label for label in labels)


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM])
def test_no_file_is_left_behind_and_no_public_link_is_offered(serving, tmp_path, end):
    network(["conv1"], 0).model.save(tmp_path / "net.keras")
    left = tmp_path / "left"
    left.mkdir()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "gradtap", "app", str(tmp_path / "net.keras"), "--no-browser", "--port", str(port)]
    paths = {"PYTHONPATH": str(Path(gt.__file__).parents[1]), "TMPDIR": str(left)}
    # Where the tests run in the background of a shell, Ctrl-C is ignored, and what they start would ignore it too.
    heard = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    at_work = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | paths, preexec_fn=heard)
    said = at_work.stdout.readline()
    assert said == f"the explorer is at http://127.0.0.1:{port}/ (Ctrl-C ends it)\n"
    assert list(left.glob("gradtap-*"))
    at_work.send_signal(end)
    rest, _ = at_work.communicate(timeout=60)
    assert "share" not in rest
    assert list(left.iterdir()) == []
