"""What notebooks show of results: tables with the right numbers in them, well formed, all text escaped."""

from __future__ import annotations

import base64
import io
from html.parser import HTMLParser

import keras
import numpy as np
import pytest
import tensorflow as tf

import gradtap as gt
from gradtap import dataset
from gradtap.html_table import html_table

layers = keras.layers
VOID = {"img"}


class Page(HTMLParser):
    """The rows of a table as text, its caption, what stands below, and the sources of its pictures."""

    def __init__(self, text):
        super().__init__()
        self.open, self.rows, self.caption, self.below, self.pictures = [], [], "", [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        assert tag in {"table", "caption", "tr", "th", "td", "code", "p", "img"}
        if tag not in VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")
        elif tag == "p":
            self.below.append("")
        elif tag == "img":
            self.pictures.append(dict(attributes))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "caption" in self.open:
            self.caption += data
        elif "p" in self.open:
            self.below[-1] += data
        else:
            self.rows[-1][-1] += data


def shown(result):
    return Page(result._repr_html_())


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            layers.Conv2D(4, 3, activation="relu", name="conv"),
            layers.GlobalAveragePooling2D(name="mean"),
            layers.Dense(3, activation="softmax", name="scores"),
        ]
    )


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).normal(size=(6, 8, 8, 3)).astype("float32")


def test_a_table_escapes_whatever_it_is_given():
    page = html_table(["<a>"], [["<b>", "&"]], caption="<c>", below=["<d>"])
    assert "<a>" not in page and "<b>" not in page and "<c>" not in page and "<d>" not in page
    read = Page(page)
    assert (read.rows, read.caption, read.below) == ([["<a>"], ["<b>", "&"]], "<c>", ["<d>"])


def test_gradients_show_their_smallest_mean_and_largest(model, images):
    g = gt.gradients(model, images, target=1, at=["conv", "mean"])
    page = shown(g)
    assert page.rows[0] == ["tap", "", "smallest", "mean", "largest"]
    for row, (key, value) in zip(page.rows[1:], g.items(), strict=True):
        array = value.numpy().astype(float)
        assert row[:2] == [key, f"float32 {value.shape}"]
        np.testing.assert_allclose([float(c) for c in row[2:]], [array.min(), array.mean(), array.max()], rtol=1e-3)
    assert page.caption == "Gradients" and page.pictures == []


def test_attributions_show_the_first_map_and_what_was_skipped(model, images):
    from PIL import Image

    maps = gt.attribution.grad_cam(model, images, target=1, at="conv")
    page = shown(maps)
    (picture,) = page.pictures
    assert picture["alt"] == "map at conv" and page.rows[0][-1] == "first example"
    kind, _, text = picture["src"].partition(",")
    drawn = np.asarray(Image.open(io.BytesIO(base64.b64decode(text))).convert("RGB"), float) / 255
    values = maps.only[0].numpy()
    assert kind == "data:image/png;base64" and drawn.shape == (*values.shape, 3)
    # The stronger, the less blue: where the map is largest it is vermilion, where it is zero white.
    assert np.corrcoef(drawn[..., 2].ravel(), np.minimum(values, np.percentile(values, 99)).ravel())[0, 1] < -0.99
    skipped = gt.attribution.saliency(model, images, target=1, at=["conv", "mean"])
    skipped.skipped["<late>"] = "no way to the target"
    assert shown(skipped).below == ["<late> was skipped: no way to the target"]


def test_without_pillow_there_are_numbers_alone(model, images, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "PIL", None)
    page = shown(gt.attribution.grad_cam(model, images, target=1, at="conv"))
    assert page.pictures == [] and page.rows[0] == ["tap", "", "smallest", "mean", "largest"]


def test_inside_of_a_graph_there_are_no_numbers(model, images):
    pages = []

    @tf.function
    def inside(x):
        found = gt.attribution.grad_cam(model, x, target=1, at="conv")
        pages.append(shown(found))
        pages.append(shown(gt.attacks.fgsm(model, x, tf.ones(6, tf.int32), epsilon=0.1, bounds=None)))
        return found.only

    inside(tf.constant(images))
    assert pages[0].rows == [["tap", ""], ["conv", "float32 (6, 6, 6)"]] and pages[0].pictures == []
    assert pages[1].rows[1] == ["Adversarial(:input (6, 8, 8, 3))"]


def test_the_flow_and_its_findings():
    keras.utils.set_random_seed(0)
    stack = [layers.Dense(8, activation="sigmoid", name=f"d{i}") for i in range(12)]
    model = keras.Sequential([keras.Input((4,)), *stack, layers.Dense(2)])
    found = gt.flow.measure(model, np.random.default_rng(0).normal(size=(32, 4)), target=0, at="d*")
    page = shown(found)
    assert page.caption == "the flow of 32 examples" and page.below == [str(f) for f in found.findings] != []
    assert [row[0] for row in page.rows[1:]] == [row.address for row in found.rows]
    assert [float(row[2]) for row in page.rows[1:]] == [float(f"{r.gradient_norm:.3g}") for r in found.rows]
    drawn = found.plot().axes[0]
    norms = np.array([row.gradient_norm for row in found.rows])
    assert any(np.allclose(line.get_ydata(), norms) for line in drawn.lines if len(line.get_ydata()) == len(norms))
    lines = found.table().splitlines()
    assert lines[0].split() == page.rows[0] and lines[1].split() == page.rows[1]


def test_models_side_by_side():
    keras.utils.set_random_seed(0)

    def made():
        return keras.Sequential([keras.Input((4,)), layers.Dense(5, name="a"), layers.Dense(2)])

    found = gt.flow.compare({"one": made, "two": made}, np.ones((8, 4)), np.zeros(8, int), seeds=2)
    page = shown(found)
    assert page.rows[0][:4] == ["model", "stage", "depth", "first"]
    assert [row[0] for row in page.rows[1:]] == [m.name for m in found.models]


def test_attacks_show_each_example(model, images):
    found = gt.attacks.fgsm(model, np.repeat(images, 5, 0), np.zeros(30, int), epsilon=0.3, bounds=None)
    page = shown(found)
    assert page.rows[0] == ["example", "success", "distance", "steps"] and len(page.rows) == 21
    assert [row[1] == "yes" for row in page.rows[1:]] == found.success.numpy()[:20].tolist()
    np.testing.assert_allclose([float(row[2]) for row in page.rows[1:]], found.distance[:20], rtol=1e-3)
    assert page.below == ["and 10 more"]


def test_regions_are_shown(model, images):
    found = gt.receptive.patches(model, images, at="conv", channel=1, k=3)
    page = shown(found)
    assert [float(row[1]) for row in page.rows[1:]] == [float(f"{p.activation:.4g}") for p in found]
    assert [p["alt"] for p in page.pictures] == [f"region of example {p.example}" for p in found]
    fields = shown(gt.receptive.theoretical(model, at=["conv"]))
    assert fields.rows[1] == ["conv", "size 3 x 3, stride 1 x 1, start (0, 0)"]


def test_eigenvalues_are_shown(model, images):
    found = gt.curvature.top_eigenpairs(model, images, target=1, at="mean", k=2)
    page = shown(found)
    expected = [float(f"{v:.4g}") for v in found.eigenvalues["mean"][0].numpy()]
    assert [float(v) for v in page.rows[1][1].split()] == expected


def test_random_weights_are_shown(model, images):
    found = gt.evaluate.randomization(model, images, gt.attribution.saliency, target=1, at=":input")
    page = shown(found)
    assert page.rows[0] == ["randomized", ":input"] and "cascading" in page.caption
    first = [float(np.nanmean(row.similarity[":input"])) for row in found.rows]
    assert [row[1] for row in page.rows[1:]] == [f"{v:.2f}" for v in first]
    lines = found.table().splitlines()
    assert len(lines) == len(page.rows) and lines[1].split()[-1] == page.rows[1][1]


def test_a_store_shows_what_failed(model, images, tmp_path):
    data = images.copy()
    data[3] = np.nan
    found = dataset.run(model, data, "gradients", tmp_path / "a.zarr", at=["conv", "mean"], target=1, block=2)
    page = shown(found)
    assert page.rows[1:] == [["conv", "(6, 6, 6, 4)", "float32"], ["mean", "(6, 4)", "float32"]]
    assert page.below == ["example 3 failed: the input has NaN or infinity"] and "3 of 3 blocks done" in page.caption
