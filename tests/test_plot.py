"""Pictures: the scale, the enlargement, the colours, and what the figures hold."""

from __future__ import annotations

import io
import subprocess
import sys

import numpy as np
import pytest

from gradtap.attacks.robustness import RobustAccuracy
from gradtap.errors import MissingExtraError
from gradtap.evaluate.curves import Curves
from gradtap.plot import PictureError, curve, heatmap, layers, robust_scale
from gradtap.plot.maps import NEGATIVE, NOT_FINITE, POSITIVE, as_picture, colours, enlarge, enlarge_finite
from gradtap.plot.panels import shortened_address
from gradtap.results import PathAttributions

pytest.importorskip("matplotlib")


@pytest.mark.parametrize(
    ("values", "scale"),
    [
        (np.arange(-100.0, 101.0), 99.0),  # |values| are 0, 1, 1, 2, 2, ..., 100, 100: 198 of 200 are at most 99
        (np.zeros((4, 4)), 1.0),
        (np.full((2, 2), np.nan), 1.0),
        (np.array([1.0, np.inf, -np.inf, np.nan]), 1.0),
        (np.array([0.0] * 999 + [-7.0]), 7.0),  # the percentile alone would be 0
        (np.array([0.0, -2.0]), 2.0),
        (np.array([0.0] * 194 + [1.0, 1.0]), 1.0),
        (np.array([1.0, 5.0]), 5.0),  # nothing between two values of the map
    ],
)
def test_scale_is_the_99th_percentile_of_the_magnitudes_above_zero(values, scale):
    assert robust_scale(values) == pytest.approx(scale)


def test_bilinear_enlargement_has_half_pixel_centres():
    np.testing.assert_allclose(enlarge(np.array([[0.0, 1.0]]), 1, 4), [[0, 0.25, 0.75, 1]])
    rows, columns = np.mgrid[0:3, 0:5].astype(float)
    large = enlarge(2 * rows + columns, 9, 15)
    # A plane stays a plane wherever there is a cell on either side.
    inner_rows, inner_columns = np.mgrid[1:8, 1:14]
    np.testing.assert_allclose(large[1:8, 1:14], 2 * ((inner_rows + 0.5) / 3 - 0.5) + (inner_columns + 0.5) / 3 - 0.5)


def test_nearest_enlargement_repeats_cells():
    small = np.array([[1.0, 2.0, 3.0]])
    np.testing.assert_array_equal(enlarge(small, 2, 6, "nearest"), [[1, 1, 2, 2, 3, 3]] * 2)
    np.testing.assert_array_equal(enlarge(small, 1, 7, "nearest"), [[small[0, i * 3 // 7] for i in range(7)]])


def test_enlargement_does_not_spread_what_is_not_finite():
    assert np.isfinite(enlarge(np.array([[np.nan, 1.0], [np.inf, -1.0]]), 8, 8)).all()
    with pytest.raises(PictureError, match="no interpolation 'cubic'"):
        enlarge(np.ones((2, 2)), 4, 4, "cubic")


def test_cells_that_are_not_finite_stay_apart_and_the_others_keep_their_values():
    small = np.array([[np.nan, 1.0, 3.0], [2.0, 1.0, -np.inf]])
    np.testing.assert_array_equal(
        enlarge_finite(small, 2, 6, "nearest"), [[np.nan] * 2 + [1, 1, 3, 3], [2, 2, 1, 1] + [np.nan] * 2]
    )
    large = enlarge_finite(np.array([[np.nan, 1.0, 1.0]]), 1, 12)
    np.testing.assert_array_equal(large, [[np.nan] * 4 + [1.0] * 8])  # no fading towards what is missing
    whole = np.arange(6.0).reshape(2, 3)
    np.testing.assert_array_equal(enlarge_finite(whole, 5, 7), enlarge(whole, 5, 7))


def test_what_is_not_finite_is_grey():
    drawn = colours(np.array([[np.nan, np.inf, -np.inf, 0.0]]), 1.0, np.full((1, 4, 3), 0.4))
    np.testing.assert_array_equal(drawn[0, :3], [NOT_FINITE] * 3)
    np.testing.assert_allclose(drawn[0, 3], 0.4)


def test_colours_show_the_picture_at_zero_and_the_sign_elsewhere():
    ground = np.full((1, 4, 3), 0.4)
    drawn = colours(np.array([[0.0, 2.0, -2.0, 50.0]]), 2.0, ground)
    np.testing.assert_allclose(drawn[0, 0], ground[0, 0])
    np.testing.assert_allclose(drawn[0, 1], 0.1 * 0.4 + 0.9 * POSITIVE)
    np.testing.assert_allclose(drawn[0, 2], 0.1 * 0.4 + 0.9 * NEGATIVE)
    np.testing.assert_allclose(drawn[0, 3], drawn[0, 1])
    np.testing.assert_allclose(colours(np.array([[1.0, 0.0]]), 1.0)[0], [POSITIVE, [1, 1, 1]])


def test_images_of_every_kind_become_pictures():
    np.testing.assert_allclose(as_picture(np.array([[0, 255]], np.uint8)), [[[0] * 3, [1] * 3]])
    np.testing.assert_allclose(as_picture(np.array([[[0.25, 0.5, 1.0]]])), [[[0.25, 0.5, 1.0]]])
    np.testing.assert_allclose(as_picture(np.array([[[-1.0], [1.0]]])), [[[0] * 3, [1] * 3]])
    assert as_picture(np.zeros((2, 5, 4), np.uint8)).shape == (2, 5, 3)
    for shape in [(3,), (2, 2, 2), (1, 2, 2, 3), (0, 4, 3)]:
        with pytest.raises(PictureError, match="not an image"):
            as_picture(np.zeros(shape))


def test_layers_has_a_row_for_each_example_and_a_column_for_each_map():
    maps = {"a": np.ones((2, 4, 4)), "b/c": -np.ones((2, 8, 8))}
    images = np.zeros((2, 16, 32, 3), np.uint8)
    figure = layers(maps, images, captions=["4 x 4", "8 x 8"], image_captions=["one", "two"], title="t", note="n")
    assert len(figure.axes) == 2 * 3
    texts = {text.get_text() for axes in figure.axes for text in axes.texts}
    assert {"a", "b/c", "4 x 4", "8 x 8", "one", "two"} <= texts
    assert {text.get_text() for text in figure.texts} == {"t", "n"}
    shown = figure.axes[1].images[0].get_array()
    assert shown.shape == (7 * 16, 7 * 32, 3)  # enlarged to at least 224 pixels
    np.testing.assert_allclose(shown[0, 0], 0.1 * 0.25 + 0.9 * POSITIVE, atol=1e-6)


def test_the_scale_of_a_map_without_negative_values_begins_at_zero():
    def numbers(values):
        [bar] = heatmap(values).axes[0].child_axes
        return [text.get_text() for text in bar.texts]

    assert numbers(np.array([[0.0, 2.0]])) == ["0", "2"]
    assert numbers(np.array([[-4.0, 2.0]])) == ["−4", "4"]


def scale_line(values):
    """What is written below a map."""
    [panel] = heatmap(values).axes
    beside = [text.get_text() for bar in panel.child_axes for text in bar.texts]
    return beside + [text.get_text() for text in panel.texts if text.get_text()]


def test_the_scale_line_says_what_the_scale_does_not_show():
    many = np.r_[np.full(198, -1.0), 5.0, 7.0].reshape(10, 20)
    assert scale_line(many) == ["−1", "≥ 1"]
    assert scale_line(-many) == ["≤ −1", "1"]
    assert scale_line(np.zeros((3, 3))) == ["all zero"]
    assert scale_line(np.full((3, 3), np.nan)) == ["no finite value"]
    assert scale_line(np.array([[0.0, 0.0, np.inf]])) == ["1 not finite", "all zero"]
    assert scale_line(np.array([[1.0, np.nan, -np.inf]])) == ["0", "1", "2 not finite"]


def test_a_cell_that_is_not_finite_is_striped_grey_on_its_picture():
    figure = heatmap(np.array([[np.nan, 0.0]]), np.full((4, 4, 3), 1.0), interpolation="nearest")
    shown = np.asarray(figure.axes[0].images[0].get_array())
    half = shown.shape[1] // 2
    assert set(np.unique(shown[:, :half].round(3))) == {0.36, 0.72}
    np.testing.assert_allclose(shown[:, half:], 1)


def test_long_notes_are_wrapped_into_the_figure():
    figure = heatmap(np.eye(3), note="orange raises the score and blue lowers it " * 3)
    assert len(figure.texts) > 2
    figure.draw_without_rendering()
    assert all(
        0 <= text.get_window_extent().x0 < text.get_window_extent().x1 <= figure.bbox.x1 for text in figure.texts
    )


def test_a_heatmap_is_one_panel_and_can_be_written(tmp_path):
    heatmap(np.eye(7), np.zeros((20, 20), np.uint8), title="head $x_relu", caption="7 × 7").savefig(
        tmp_path / "map.png"
    )
    assert (tmp_path / "map.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("maps", "images", "message"),
    [
        ({}, None, "no map"),
        ({"a": np.ones(3)}, None, r"`a` is not a map[\s\S]*\(3,\), float64"),
        ({"a": np.ones((2, 0, 3))}, None, "not a map"),
        ({"a": np.array([["x"]])}, None, "not a map"),
        ({"a": np.ones((2, 3, 3)), "b": np.ones((1, 3, 3))}, None, "2 in `a`, 1 in `b`"),
        ({"a": np.ones((2, 3, 3))}, np.zeros((9, 9, 3)), "maps of 2 examples but 1 images"),
    ],
)
def test_what_cannot_be_drawn_is_refused(maps, images, message):
    with pytest.raises(PictureError, match=message):
        layers(maps, images)


def test_long_addresses_are_broken_at_a_slash_and_cut():
    assert shortened_address("conv1") == "conv1"
    assert shortened_address("backbone/block3_sub_block2_out", 24) == "backbone/\nblock3_sub_block2_out"
    assert max(map(len, shortened_address("x" * 200).split("\n"))) <= 35


def test_without_matplotlib_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingExtraError, match="viz"):
        heatmap(np.ones((2, 2)))


def test_no_state_of_pyplot_is_touched():
    code = (
        "import sys, io, numpy as np, gradtap.plot as plot\n"
        "early = 'matplotlib' in sys.modules\n"
        "plot.heatmap(np.ones((2, 2))).savefig(io.BytesIO())\n"
        "print(early, 'matplotlib.pyplot' in sys.modules, 'tensorflow' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False", "False"]


def measured(at="c2", **keywords):
    import keras

    import gradtap as gt

    convs = [keras.layers.Conv2D(4, 3, padding="same", activation="tanh", name=f"c{i}") for i in range(3)]
    model = keras.Sequential([keras.Input((21, 17, 1)), *convs])
    images = np.random.default_rng(0).normal(size=(12, 21, 17, 1))
    return gt.receptive.effective(model, images, at=at, **keywords), model, images


def test_receptive_draws_the_frame_of_what_can_be_seen_and_the_ellipse_of_what_is():
    from matplotlib.patches import Ellipse, Rectangle

    import gradtap as gt

    fields, *_ = measured(at=["c0", "c2"])
    figure = gt.plot.receptive(fields, title="fields")
    assert len(figure.axes) == 2
    for axes, field in zip(figure.axes, fields.values(), strict=True):
        boxes = [p for p in axes.patches if type(p) is Rectangle]
        ellipses = [p for p in axes.patches if type(p) is Ellipse]
        rows, columns = field.theory.of_unit(field.unit)
        assert boxes[0].get_xy() == (columns[0] - 0.5, rows[0] - 0.5)
        assert (boxes[0].get_height(), boxes[0].get_width()) == field.theory.size
        assert ellipses[0].height == pytest.approx(4 * field.sigma[0])
        drawn = np.asarray(axes.images[0].get_array())
        np.testing.assert_allclose(drawn, colours(field.map, robust_scale(field.map)))
        assert any(f"{field.share:.0%}" in text.get_text() for text in axes.texts)
    assert "fields" in [text.get_text() for text in figure.texts]


def test_receptive_draws_a_series_as_a_line():
    import keras

    import gradtap as gt

    model = keras.Sequential([keras.Input((30, 2)), keras.layers.Conv1D(2, 5, name="c")])
    fields = gt.receptive.effective(model, np.random.default_rng(0).normal(size=(2, 30, 2)), at="c")
    (axes,) = gt.plot.receptive(fields).axes
    np.testing.assert_allclose(axes.lines[0].get_ydata(), fields.map)


def test_receptive_refuses_several_units():
    import gradtap as gt

    fields, *_ = measured(unit=[(1, 1), "center"])
    with pytest.raises(PictureError, match="c2"):
        gt.plot.receptive(fields)


def test_patches_are_shown_in_order_and_cut_from_other_pictures_where_given():
    import gradtap as gt

    _, model, images = measured()
    found = {f"channel {c}": gt.receptive.patches(model, images, at="c2", channel=c, k=4) for c in range(2)}
    figure = gt.plot.patches(found)
    assert len(figure.axes) == 8
    low = min(p.crop.min() for p in found["channel 0"])
    high = max(p.crop.max() for p in found["channel 0"])
    first = np.asarray(figure.axes[0].images[0].get_array())
    np.testing.assert_allclose(first[..., 0], (found["channel 0"][0].crop[..., 0] - low) / (high - low))
    assert f"{found['channel 1'][3].activation:.3g}" in [t.get_text() for t in figure.axes[7].texts]
    pictures = np.random.default_rng(1).uniform(size=(12, 21, 17, 3))
    patch = found["channel 1"][0]
    shown = gt.plot.patches(found["channel 1"], pictures).axes[0].images[0].get_array()
    np.testing.assert_allclose(shown, pictures[patch.example][patch.region])
    with pytest.raises(PictureError):
        gt.plot.patches({})


def accuracy(values, epsilons=(0.0, 0.1, 0.2)):
    return RobustAccuracy(np.array(epsilons), np.array(values), 10)


def drawn(figure):
    """The lines of a figure of one panel, by name."""
    return {line.get_label(): np.array(line.get_data()) for line in figure.axes[0].lines}


def test_a_curve_of_robust_accuracy():
    figure = curve({"one $x$": accuracy([1.0, 0.5, 0.25]), "two": accuracy([0.9, 0.8, 0.7])}, title="PGD", note="of 10")
    np.testing.assert_array_equal(drawn(figure)["one $x$"], [[0.0, 0.1, 0.2], [1.0, 0.5, 0.25]])
    np.testing.assert_array_equal(drawn(figure)["two"][1], [0.9, 0.8, 0.7])
    [panel] = figure.axes
    assert [text.get_text() for text in panel.get_legend().get_texts()] == ["one $x$", "two"]
    assert (panel.get_xlabel(), panel.get_ylabel(), panel.get_title()) == ("epsilon", "robust accuracy", "PGD")
    assert "of 10" in [text.get_text() for text in panel.texts]
    assert panel.get_ylim()[0] <= 0
    assert panel.get_ylim()[1] >= 1
    alone = curve(accuracy([1.0, 0.5, 0.25]))
    assert alone.axes[0].get_legend() is None
    assert len({line.get_color() for line in figure.axes[0].lines}) == 2
    alone.savefig(io.BytesIO())


def test_curves_of_deletion_are_means_and_the_middle_half():
    rows = np.random.default_rng(0).normal(size=(9, 5))
    share = np.linspace(0, 1, 5)
    figure = curve(Curves([("a", rows), ("b", rows[:1])], fractions=share))
    found = drawn(figure)
    np.testing.assert_allclose(found["a"], [share, rows.mean(0)])
    np.testing.assert_allclose(found["b"], [share, rows[0]])
    [band] = figure.axes[0].collections  # one example has no middle half
    edges = band.get_paths()[0].vertices
    for place, column in zip(share, rows.T):
        here = edges[np.isclose(edges[:, 0], place), 1]
        np.testing.assert_allclose([here.min(), here.max()], np.quantile(column, [0.25, 0.75]))
    assert set(drawn(curve({"ours": Curves([("a", rows)], fractions=share)}))) == {"ours"}
    both = curve({"ours": Curves([("a", rows), ("b", rows)], fractions=share)})
    assert set(drawn(both)) == {"ours at a", "ours at b"}


def test_curves_of_completeness_are_errors_against_steps():
    def result(steps, delta):
        return PathAttributions([("a", np.zeros(2))], delta=lambda: delta, steps=steps)

    few, many = result(2, np.array([0.1, -0.3])), result(8, np.array([0.0, 0.002]))
    figure = curve([many, few])
    [line] = figure.axes[0].lines
    np.testing.assert_allclose(line.get_data(), [[2, 8], [0.2, 0.001]])
    assert (figure.axes[0].get_xscale(), figure.axes[0].get_yscale()) == ("log", "log")
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == ["2", "8"]
    apart = [result(2, {"a": np.array([0.5]), "b": np.array([0.25])})]
    assert {name: y for name, (_, [y]) in drawn(curve({"path": apart})).items()} == {
        "path at a": 0.5,
        "path at b": 0.25,
    }


def test_a_curve_in_a_figure_of_ones_own():
    from matplotlib.figure import Figure

    figure = Figure()
    left, right = figure.subplots(1, 2)
    assert curve(accuracy([1.0, 0.5, 0.25]), ax=right) is figure
    assert (len(left.lines), len(right.lines)) == (0, 1)
    many = curve({str(i): ([0, 1], [i, i]) for i in range(9)})
    styles = [(line.get_color(), line.get_linestyle()) for line in many.axes[0].lines]
    assert len(set(styles)) == 9


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ({}, "no curve to draw"),
        (3, "is no curve"),
        ({"a": "text"}, "`a` is no curve"),
        (([0, 1], [1, 2, 3]), "is no curve"),
        ({"a": accuracy([1.0, 0.5, 0.2]), "b": ([0, 1], [1, 2])}, "different kinds"),
        (Curves([("a", np.zeros((0, 3)))], fractions=np.linspace(0, 1, 3)), "no example"),
    ],
)
def test_what_is_no_curve(given, match):
    with pytest.raises(PictureError, match=match):
        curve(given)
