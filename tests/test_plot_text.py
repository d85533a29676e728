"""What is written on pictures: legible in small axes, inside of the figure, thinned out where it would overlap."""

from __future__ import annotations

import itertools
from types import SimpleNamespace

import numpy as np
import pytest

from gradtap import plot

pytest.importorskip("matplotlib")
LONG = "some (·, 14, 14, 512) caption that is rather long too, as people write"
#: Points of the smallest text.
SMALLEST = 6.3


def written(figure):
    """Every text that is drawn, with its box in pixels."""
    from matplotlib.text import Text

    figure.draw_without_rendering()
    texts = [t for t in figure.findobj(Text) if t.get_visible() and t.get_text().strip()]
    beyond = set()  # Matplotlib keeps ticks that it does not draw
    for axes in every_axes(figure):
        for labels_of, (low, high) in ((axes.xaxis, axes.get_xlim()), (axes.yaxis, sorted(axes.get_ylim()))):
            pairs = zip(labels_of.get_ticklocs(), labels_of.get_ticklabels(), strict=True)
            beyond |= {label for place, label in pairs if not low <= place <= high or not axes.axison}
    return [text for text in texts if text not in beyond]


def every_axes(figure):
    return [axes for top in figure.axes for axes in (top, *top.child_axes)]


def boxes(figure):
    return {text.get_text(): text.get_window_extent() for text in written(figure)}


def lines_of(figure):
    return {text.get_text() for text in written(figure)}


def overlaps(found):
    """Pairs of texts whose boxes share more than a pixel."""
    pairs = itertools.combinations(found, 2)
    return [
        (a.get_text(), b.get_text())
        for (a, one), (b, two) in (((a, a.get_window_extent()), (b, b.get_window_extent())) for a, b in pairs)
        if min(one.x1, two.x1) - max(one.x0, two.x0) > 1 and min(one.y1, two.y1) - max(one.y0, two.y0) > 1
    ]


def region(shape, activation):
    return SimpleNamespace(crop=np.zeros(shape), activation=activation)


def field():
    theory = SimpleNamespace(everything=False, size=(11, 11), of_unit=lambda unit: ((2, 12), (2, 12)))
    return SimpleNamespace(map=np.ones((15, 15)), sigma=np.array([2.123, 2.456]), share=1.0, unit=(7, 7), theory=theory)


def in_a_small_panel(draw, rows=3, columns=4, size=(18, 12)):
    from matplotlib.figure import Figure

    figure = Figure(figsize=size)
    ax = figure.subplots(rows, columns)[0, 1]
    for other in figure.axes:
        other.set_axis_off()
    draw(ax)
    return figure


RNG = np.random.default_rng(0)
SMALL = {
    "heatmap": lambda ax: plot.heatmap(RNG.normal(size=(8, 8)), title="conv1", caption="8 × 8", note="note", ax=ax),
    "layers": lambda ax: plot.layers(
        {"conv1": RNG.normal(size=(8, 8, 8)), "conv2": RNG.normal(size=(8, 4, 4)) * 1e-5}, title="layers", ax=ax
    ),
    "twelve": lambda ax: plot.layers({f"c{i}": RNG.normal(size=(5, 5)) for i in range(12)}, title="twelve", ax=ax),
    "channels": lambda ax: plot.channels(np.ones((7, 7, 9)), np.ones((7, 7, 9)), k=8, title="channels", ax=ax),
    "tokens": lambda ax: plot.tokens(["interesting"] * 20, np.ones(20), title="tokens", ax=ax),
    "series": lambda ax: plot.series(np.arange(30.0), np.arange(30.0), title="series", ax=ax),
    "attention": lambda ax: plot.attention(np.ones((4, 6, 6)), list("abcdef"), title="attention", ax=ax),
    "receptive": lambda ax: plot.receptive({"conv1": field(), "conv2": field()}, title="receptive", ax=ax),
    "patches": lambda ax: plot.patches(
        {"channel 1": [region((5, 5, 1), 0.00123 * 7**i) for i in range(8)]}, title="patches", ax=ax
    ),
}


@pytest.mark.parametrize("name", SMALL)
def test_text_in_small_axes_is_legible_and_does_not_overlap(name):
    figure = in_a_small_panel(SMALL[name])
    found = written(figure)
    small = {text.get_text(): text.get_fontsize() for text in found if text.get_fontsize() < SMALLEST}
    assert not (small if name != "attention" else {k: v for k, v in small.items() if v < 0.8 * 7})
    assert not overlaps(found)


@pytest.mark.parametrize("name", sorted(set(SMALL) - {"heatmap", "twelve"}))
def test_a_title_in_somebodys_axes_is_of_its_full_size(name):
    figure = in_a_small_panel(SMALL[name])
    [title] = [text for text in written(figure) if text.get_text() == name]
    assert title.get_fontsize() >= 12


FIGURES = {
    "caption": lambda: plot.heatmap(np.eye(7), np.zeros((20, 30)), title="conv", caption=LONG),
    "title": lambda: plot.heatmap(np.eye(7), title=f"encoder/{'depthwise_convolution' * 4}:preactivation/x"),
    "spaces": lambda: plot.heatmap(np.eye(7), title="a title of more words than stand in one line above a map"),
    "above": lambda: plot.layers({"a": np.eye(7)}, title="a title of more words than stand in one line above a map"),
    "photographs": lambda: plot.layers(
        {"a": np.ones((2, 7, 7))}, [np.zeros((20, 30))] * 2, image_captions=[LONG, LONG * 3]
    ),
    "patches": lambda: plot.patches({"channel 3 of the convolution in stage_3/block_17": [region((5, 5, 1), 1.0)]}),
    "tokens": lambda: plot.tokens(["a", "x" * 200], [1, 1], width=3, title=LONG),
    "channels": lambda: plot.channels(np.ones((4, 4, 1)), title=LONG),
    "attention": lambda: plot.attention(np.ones((1, 2, 2)), ["a long word of attention", "b"], title=LONG),
}


@pytest.mark.parametrize("name", FIGURES)
def test_text_stays_inside_of_the_figure_and_apart(name):
    figure = FIGURES[name]()
    found = written(figure)
    for text in found:
        box = text.get_window_extent()
        assert box.x0 >= -1, text.get_text()
        assert box.x1 <= figure.bbox.x1 + 1, text.get_text()
    assert not overlaps(found)


def test_titles_and_names_are_broken_between_words():
    title = "a title of more words than stand in one line above a map"
    [drawn] = [text for text in lines_of(FIGURES["spaces"]()) if "title" in text]
    assert "\n" in drawn
    assert drawn.replace("\n", " ") == title
    [name] = [text for text in lines_of(FIGURES["patches"]()) if "channel" in text]
    assert name.replace("\n", " ").replace("/ ", "/") == "channel 3 of the convolution in stage_3/block_17"


def test_what_is_cut_ends_in_an_ellipsis():
    [token] = [text for text in lines_of(FIGURES["tokens"]()) if "xx" in text]
    assert token.endswith("x…")
    assert "a long word o…" in lines_of(FIGURES["attention"]())


def test_many_maps_and_channels_stand_in_several_rows():
    figure = plot.layers({f"stage/block_{i}": np.ones((4, 4)) for i in range(20)}, np.zeros((20, 30)))
    assert figure.get_figwidth() < 20
    tops = [round(axes.get_position().y1, 3) for axes in figure.axes]
    assert [len(list(same)) for _, same in itertools.groupby(tops)] == [6, 6, 6, 3]
    assert {f"stage/block_{i}" for i in range(20)} <= lines_of(figure)
    assert not overlaps(written(figure))
    figure = plot.channels(np.ones((4, 4, 32)), np.ones((4, 4, 32)), k=40)
    assert figure.get_figwidth() < 14
    assert len(figure.axes) == 64
    assert {f"channel {i}" for i in range(32)} <= lines_of(figure)
    assert not overlaps(written(figure))


@pytest.mark.parametrize(("count", "shown"), [(6, 6), (30, 15), (128, 15)])
def test_names_of_many_tokens_are_thinned_out(count, shown):
    words = [f"tokenword{i}" for i in range(count)]
    figure = plot.attention(np.ones((2, count, count)), words)
    names = [text for text in written(figure) if text.get_text().startswith("tokenword")]
    assert not overlaps(names)
    assert len(figure.axes[0].get_yticklabels()) == pytest.approx(shown, abs=1)


def test_attention_has_a_scale_and_a_single_matrix_no_number():
    texts = lines_of(plot.attention(np.array([[0.0, 0.25], [0.5, 0.0]])))
    assert texts == {"0", "0.5"}
    assert {"−2", "2", "head 0"} <= lines_of(plot.attention(np.array([[[0.0, 1.0], [-2.0, 0.0]]])))
    assert "all zero" in lines_of(plot.attention(np.zeros((1, 2, 2))))
    assert "1 not finite" in lines_of(plot.attention(np.array([[1.0, np.nan]])))


def labels(figure):
    return [label.get_text() for label in figure.axes[0].get_xticklabels()]


def test_steps_of_a_series_are_short_regular_and_apart():
    figure = plot.series(np.ones(10), steps=np.linspace(0, 1, 10))
    assert labels(figure) == ["0", "0.11", "0.22", "0.33", "0.44", "0.56", "0.67", "0.78", "0.89", "1"]
    dates = np.arange("2024-01-01", "2024-01-11", dtype="datetime64[D]")
    figure = plot.series(np.ones(10), steps=dates)
    assert labels(figure) == [f"2024-01-{day:02}" for day in (1, 3, 5, 7, 9)]
    assert not overlaps([text for text in written(figure) if text.get_text().startswith("2024")])
    assert labels(plot.series(np.ones(3), steps=np.array([1999.0, 2000.0, 2001.0]))) == ["1999", "2000", "2001"]
    assert labels(plot.series(np.ones(3), steps=["a", "b", "c"])) == ["a", "b", "c"]
    assert len(labels(plot.series(np.ones(2000), steps=np.arange(2000)))) <= 12


def test_the_features_of_a_series_are_named_in_colours_that_mean_no_sign():
    figure = plot.series(np.ones((9, 6)), np.arange(54.0).reshape(9, 6))
    strips, signal = figure.axes
    looks = {(line.get_color(), line.get_linestyle()) for line in signal.lines}
    assert len(looks) == 6
    assert not {color for color, _ in looks} & {"#0072b2", "#d55e00", "#1f77b4", "#ff7f0e"}
    assert [text.get_text() for text in signal.get_legend().get_texts()] == list("012345")
    assert [text.get_text() for text in strips.get_yticklabels()] == list("012345")
    assert signal.get_legend().get_window_extent().x1 <= figure.bbox.x1


def test_many_names_of_curves_stand_beside_the_lines():
    curves = {f"method with a long name {i}": (np.arange(20), np.ones(20) * i) for i in range(12)}
    figure = plot.curve(curves)
    figure.draw_without_rendering()
    [panel] = figure.axes
    legend = panel.get_legend().get_window_extent()
    assert legend.x0 >= panel.get_window_extent().x1
    assert legend.x1 <= figure.bbox.x1
    assert panel.get_window_extent().width > 500
    few = plot.curve(dict(list(curves.items())[:3]))
    assert few.get_figwidth() == 6.4


def test_a_picture_that_is_drawn_in_other_proportions_says_so():
    def notes(shape):
        return " ".join(t.get_text() for t in plot.heatmap(np.ones((2, 2)), np.zeros(shape)).texts)

    assert notes((20, 800)) == "not in proportion: 20 × 800 pixels, drawn 1 : 5"
    assert notes((800, 20)) == "not in proportion: 800 × 20 pixels, drawn 3 : 1"
    assert notes((20, 80)) == ""
    two = plot.layers({"a": np.ones((2, 3, 3))}, [np.zeros((20, 20)), np.zeros((20, 30))])
    assert "20 × 30 pixels, drawn 1 : 1" in " ".join(text.get_text() for text in two.texts)


def test_the_end_of_an_address_is_kept_where_a_panel_is_narrow():
    figure = in_a_small_panel(SMALL["layers"])
    headings = {text for text in lines_of(figure) if text != "layers"}
    assert len(headings) == 2
    assert {text[-1] for text in headings} == {"1", "2"}
