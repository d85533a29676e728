"""Pictures compared with reference images, pixel by pixel, and drawn into somebody's axes.

``GRADTAP_DRAW=1 pytest tests/test_plot_references.py`` draws the references anew; look at them before you keep them.
"""

from __future__ import annotations

import os
from pathlib import Path

import keras
import numpy as np
import pytest

import gradtap as gt
from gradtap import plot

pytest.importorskip("matplotlib")
FOLDER = Path(__file__).parent / "images"
#: Root of the mean square, of 255: letters of another release of matplotlib lie elsewhere by parts of a pixel.
TOLERANCE = 6.0


def bumps():
    rows, columns = np.mgrid[:14, :18]
    places = enumerate([(5, 4), (6, 6), (7, 8), (8, 10)])
    maps = [np.exp(-((rows - r) ** 2 + (columns - c) ** 2) / 8) * (1 + i) for i, (r, c) in places]
    return np.stack(maps, -1)


def slopes():
    return np.cos(np.arange(14 * 18 * 4)).reshape(14, 18, 4) * 0.02 + np.array([0.1, -0.2, 0.0, 0.3])


def network():
    """Two convolutions with weights that are written down, so that no library's random numbers are in the pictures."""
    layers = keras.layers
    stack = [
        layers.Conv2D(3, 3, activation="relu", padding="same", name="conv1"),
        layers.Conv2D(4, 3, strides=2, activation="tanh", padding="same", name="conv2"),
        layers.GlobalAveragePooling2D(name="mean"),
        layers.Dense(2, name="scores"),
    ]
    model = keras.Sequential([keras.Input((12, 12, 1)), *stack])
    model.set_weights(
        [0.3 * np.cos(np.arange(w.size) * (i + 1.0)).reshape(w.shape) for i, w in enumerate(model.get_weights())]
    )
    return model


def images():
    return np.sin(np.arange(6 * 144) ** 1.3).reshape(6, 12, 12, 1).astype("float32")


def saturating():
    """Sigmoids whose gradient vanishes, so that there are findings to draw."""
    stack = [keras.layers.Dense(6, activation="sigmoid", name=f"dense{i}") for i in range(8)]
    model = keras.Sequential([keras.Input((4,)), *stack, keras.layers.Dense(1, name="score")])
    model.set_weights(
        [0.6 * np.cos(np.arange(w.size) * (i + 1.0)).reshape(w.shape) for i, w in enumerate(model.get_weights())]
    )
    return gt.flow.measure(model, np.sin(np.arange(80.0)).reshape(20, 4), target=0, at="dense*")


def curves(ax):
    saliency, random = gt.attribution.saliency, np.cos(np.arange(6 * 144)).reshape(6, 12, 12)
    found = {
        "saliency": gt.evaluate.deletion(network(), images(), saliency, target=0, steps=8),
        "random": gt.evaluate.deletion(network(), images(), random, target=0, steps=8),
    }
    return plot.curve(found, title="deletion", ax=ax)


WORDS = ["[CLS]", "not", "bad", "at", "all", "[SEP]"]
HEADS = np.random.default_rng(0).dirichlet(np.full(6, 0.4), size=(3, 6))
TIME = np.linspace(0, 12, 60)
#: Each picture, as a function of the axes.
PICTURES = {
    "heatmap": lambda ax: plot.heatmap(
        slopes()[..., 0] - 0.1, bumps()[..., 2] / 3, title="conv1", caption="14 x 18", ax=ax
    ),
    "layers": lambda ax: plot.layers(
        {"a": slopes()[..., 1], "b/c": bumps()[..., 0]}, one_scale=True, title="two", ax=ax
    ),
    "channels": lambda ax: plot.channels(bumps(), slopes(), k=3, title="conv3", ax=ax),
    "tokens": lambda ax: plot.tokens(
        [WORDS, ["$x$", "a\tb", *WORDS[1:4] * 6]], [np.arange(-2, 4), np.linspace(-1, 1, 20)], width=5, ax=ax
    ),
    "series": lambda ax: plot.series(np.sin(TIME) * TIME, np.cos(TIME), title="series", steps=TIME.astype(int), ax=ax),
    "strips": lambda ax: plot.series(np.outer(np.sin(TIME), [1, -2, 0.5]), np.stack([TIME, -TIME], 1), ax=ax),
    "curve": curves,
    "flow": lambda ax: plot.flow(saturating(), ax=ax),
    "receptive": lambda ax: plot.receptive(gt.receptive.effective(network(), images(), at=["conv1", "conv2"]), ax=ax),
    "patches": lambda ax: plot.patches(gt.receptive.patches(network(), images(), at="conv2", channel=1, k=4), ax=ax),
    "attention": lambda ax: plot.attention(HEADS, WORDS, columns=2, title="block 1", ax=ax),
}


def pixels(figure, dpi=60):
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    figure.set_dpi(dpi)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3]


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_is_its_reference(name):
    from PIL import Image

    drawn, path = pixels(PICTURES[name](None)), FOLDER / f"{name}.png"
    if os.environ.get("GRADTAP_DRAW"):
        Image.fromarray(drawn).quantize(64).save(path, optimize=True)
    reference = np.asarray(Image.open(path).convert("RGB"))
    assert drawn.shape == reference.shape
    off = np.sqrt(np.mean((drawn.astype(float) - reference) ** 2))
    assert off < TOLERANCE


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_goes_into_somebodys_axes(name):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 4))
    left, right = figure.subplots(1, 2)
    left.plot([0, 1])
    before = pixels(figure)
    assert PICTURES[name](right) is figure
    after = pixels(figure)
    half = after.shape[1] // 2
    assert np.array_equal(before[:, : half - 20], after[:, : half - 20])
    assert (after[:, half:] < 200).any()
    # All lies inside of the axes, at most a title above, and the numbers of its own axes to the left.
    ink = np.argwhere((after[:, half:] < 200).any(-1))
    box = right.get_window_extent()
    assert ink[:, 1].min() + half >= box.x0 - (36 if name in ("curve", "flow") else 6)
    assert ink[:, 1].max() + half <= box.x1 + 6


def test_the_channels_that_matter_most_come_first():
    figure = plot.channels(bumps(), slopes(), k=2)
    scores = (bumps() * slopes()).sum((0, 1))
    order = np.argsort(-np.abs(scores))[:2]
    texts = [text.get_text() for axes in figure.axes for text in axes.texts]
    assert [t for t in texts if t.startswith("channel")] == [f"channel {c}" for c in order]
    given = plot.channels(bumps(), importance=np.array([0, 5, -9, 1]), k=2)
    assert next(t.get_text() for axes in given.axes for t in axes.texts) == "channel 2"


def test_the_colour_behind_a_token_is_its_value():
    from gradtap.plot.maps import colours, robust_scale

    figure = plot.tokens(["a", "b", "c"], [2.0, -1.0, 0.0])
    scale = 1.6 * robust_scale(np.array([2.0, -1.0, 0.0]))
    for axes, value in zip(figure.axes, [2.0, -1.0, 0.0], strict=True):
        np.testing.assert_allclose(axes.get_facecolor()[:3], colours(np.array([[value]]), scale)[0, 0])


GREY = [0.72] * 3


def test_one_nan_leaves_the_other_cells_of_attention():
    heads = np.array([[[np.nan, 0.5], [0.0, 1.0]]])
    shown = np.asarray(plot.attention(heads).axes[0].images[0].get_array())
    np.testing.assert_array_equal(shown[0, 0], GREY)
    np.testing.assert_allclose(shown[1], [[1, 1, 1], [0.835, 0.369, 0.0]])


def test_a_token_that_is_not_finite_is_grey():
    figure = plot.tokens(["a", "b"], [1.0, np.nan])
    np.testing.assert_array_equal(figure.axes[1].get_facecolor()[:3], GREY)


def test_channels_and_strips_show_and_count_what_is_not_finite():
    maps = np.ones((2, 2, 3))
    maps[0, 0, 1], maps[1, 1, 2] = np.nan, np.inf
    figure = plot.channels(maps, k=3)
    texts = {text.get_text() for text in figure.texts}
    assert {"to 1", "2 not finite"} <= texts
    np.testing.assert_array_equal(figure.axes[1].images[0].get_array()[0, 0], GREY)
    assert [t.get_text() for t in figure.axes[1].texts] == ["channel 1", "3"]  # the NaN leaves the sum of its channel
    figure = plot.series(np.array([[1.0, np.nan], [2.0, -2.0]]))
    assert {"to 2", "1 not finite"} <= {text.get_text() for text in figure.texts}
    np.testing.assert_array_equal(figure.axes[0].images[0].get_array()[1, 0], GREY)
    assert "all zero" in {text.get_text() for text in plot.channels(np.zeros((2, 2, 1))).texts}


def test_bars_of_a_series_leave_a_grey_place_for_what_is_not_finite():
    figure = plot.series(np.array([1.0, np.nan, -np.inf]))
    grey = [bar for bar in figure.axes[0].patches if np.allclose(bar.get_facecolor()[:3], GREY)]
    assert [bar.get_x() + bar.get_width() / 2 for bar in grey] == [1, 2]
    assert "2 not finite" in {text.get_text() for text in figure.texts}


def test_one_scale_makes_values_comparable():
    figure = plot.layers({"small": np.full((2, 2), 0.1), "large": np.full((2, 2), 1.0)}, one_scale=True)
    small, large = (np.asarray(axes.images[0].get_array())[0, 0] for axes in figure.axes if axes.images)
    assert small.min() > 0.85
    assert large.min() < 0.05


MAP, PHOTO = np.ones((7, 11)), np.zeros((40, 60, 3), np.uint8)


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda: plot.channels(np.ones((3, 3))), "no feature maps of one example"),
        (lambda: plot.channels(np.ones((3, 3, 2)), np.ones((3, 3, 1))), "differ in shape"),
        (lambda: plot.channels(np.ones((3, 3, 2)), importance=np.ones(3)), "another number of channels"),
        (lambda: plot.channels(np.ones((3, 3, 2)), k=0), r"no channel to draw\.\s+k +0"),
        (lambda: plot.tokens(["a", "b"], [1.0]), "differ in number"),
        (lambda: plot.tokens([["a"], ["b"]], [[1.0]]), "differ in number"),
        (lambda: plot.tokens([], []), "no token to draw"),
        (lambda: plot.series(np.ones(4), np.ones(5)), "no series"),
        (lambda: plot.series(np.ones((2, 2, 2))), "no series"),
        (lambda: plot.attention(np.ones((2, 3, 3)), ["a"]), "differ in number"),
        (lambda: plot.attention(np.ones(3)), r"received +\(3,\)"),
        (lambda: plot.attention(np.ones((1, 2, 5, 5))), r"drop the batch axis: weights\[0\]"),
        (lambda: plot.attention(np.ones((3, 2, 5, 5))), r"draw one example: weights\[0\]"),
        (lambda: plot.heatmap(PHOTO, MAP), r"swapped[\s\S]*heatmap\(values, image\)"),
        (lambda: plot.heatmap(np.ones((7, 7, 3)), PHOTO), r"values\.sum\(-1\)"),
        (lambda: plot.heatmap({"conv1": MAP[None], "conv2": MAP[None]}, PHOTO), r"pass result\['conv2'\]\[0\]"),
        (lambda: plot.layers({"a": MAP, "b": MAP}, captions=["one"]), r"`captions` are not as many as the maps"),
        (lambda: plot.layers({"a": MAP}, PHOTO, image_captions=["one", "two"]), "as many as the examples"),
        (lambda: plot.layers({"a": MAP}, captions="7"), "`captions` is one text"),
    ],
)
def test_what_cannot_be_drawn_is_refused(draw, message):
    with pytest.raises(plot.PictureError, match=message):
        draw()
