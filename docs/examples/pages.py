"""The report and the explorer as a browser shows them: the pictures of docs/seeing.md.

Chromium and Playwright come with `make browser`; the network, the class names and the photographs with `make test`.
"""

from __future__ import annotations

import shutil
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import gradtap as gt
from gradtap.demo.efficientnet_lite import pretrained_efficientnet_lite0
from gradtap.demo.photographs import class_names, load_photograph, network_crop, network_input

PHOTOGRAPHS = ("chelsea", "coffee", "rocket")
LAYERS = ("block1_1_project_norm", "block2_2_add", "block3_2_add", "block4_3_add", "block5_3_add", "head_relu")
METHODS = ("grad_cam", "integrated_gradients", "activation_x_gradient")


def main(images: Path) -> str:
    """Write the pictures; returns the figures for the page."""
    model = pretrained_efficientnet_lite0()
    names = [name.split(",")[0] for name in class_names()]
    with tempfile.TemporaryDirectory() as folder, chromium() as browser:
        page = Path(folder, "report.html")
        start = time.perf_counter()
        gt.report.write(
            model,
            np.concatenate([network_input(load_photograph(name)) for name in PHOTOGRAPHS]),
            page,
            at=LAYERS,
            methods=METHODS,
            names=PHOTOGRAPHS,
            pictures=[np.asarray(network_crop(load_photograph(name), 224)) for name in PHOTOGRAPHS],
            class_names=names,
            title="EfficientNet-Lite0",
        )
        seconds = time.perf_counter() - start
        size = page.stat().st_size / 1e6
        photograph(browser, page.as_uri(), images / "report.png", height=860)
        lines = [
            f"report    {len(PHOTOGRAPHS)} photographs, {len(LAYERS)} layers, {len(METHODS)} methods: "
            f"{size:.2f} MB in {seconds:.0f} s"
        ]
        with explorer(model, names, Path(folder)) as url:
            lines += explored(browser, url, images / "explorer.png")
    return "\n".join(lines)


def explored(browser: Any, url: str, picture: Path) -> list[str]:
    """Click through the explorer; returns what a click took once the page was open."""
    page = browser.new_page(viewport={"width": 1280, "height": 900}, device_scale_factor=1.25)
    page.goto(url)
    page.wait_for_selector("#wordsA >> text=grad_cam at", timeout=120_000)
    seconds = []
    for layer in LAYERS[1:]:
        start = time.perf_counter()
        page.click(f"#layers label:has-text('{layer.rsplit('/', 1)[-1]}')")
        page.wait_for_selector(f"#wordsA >> text=grad_cam at {layer}", timeout=60_000)
        seconds.append(time.perf_counter() - start)
    page.click("#layers label:has-text('block5_3_add')")
    page.wait_for_selector("#wordsB >> text=activation_x_gradient at block5_3_add", timeout=60_000)
    page.wait_for_timeout(1000)
    save(page.screenshot(), picture)
    page.close()
    return [f"explorer  from a click on a layer to its map: {np.median(seconds):.2f} s (median of {len(seconds)})"]


@contextmanager
def explorer(model: Any, names: list[str], folder: Path) -> Iterator[str]:
    """The explorer of the network with the photographs, at work."""
    from gradtap.app.explorer import Explorer
    from gradtap.app.interface import serve
    from gradtap.cli.model_file import declared_inputs

    files = []
    for name in PHOTOGRAPHS:
        files.append(folder / f"{name}.png")
        network_crop(load_photograph(name), 224).save(files[-1])
    trace = gt.trace(model)
    # What is done to the pixels is what the network was trained with.
    found = Explorer(
        {"EfficientNet-Lite0": trace}, declared_inputs(trace), files, preprocessing="tflite", class_names=names
    )
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    blocks = serve(found, port=port, wait=False)
    yield f"http://127.0.0.1:{port}/"
    blocks.close()


@contextmanager
def chromium() -> Iterator[Any]:
    """A browser without a window."""
    from playwright.sync_api import sync_playwright

    path = shutil.which("chromium") or shutil.which("google-chrome")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


def photograph(browser: Any, url: str, picture: Path, height: int) -> None:
    """A report one layer before its last."""
    page = browser.new_page(viewport={"width": 1280, "height": height}, device_scale_factor=1.25)
    page.goto(url)
    page.focus("input[type=range]")
    page.keyboard.press("ArrowLeft")
    page.wait_for_timeout(1500)
    save(page.screenshot(), picture)
    page.close()


def save(screenshot: bytes, picture: Path) -> None:
    """Keep a screenshot, small."""
    import io

    image = Image.open(io.BytesIO(screenshot)).convert("RGB")
    image.quantize(192, dither=Image.Dither.NONE).save(picture, optimize=True)
