"""Statistics: the values, and that any split of the data gives the same."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gradtap as gt
from gradtap import dataset
from stores import arrays_of, assert_same, images, images_model

pytest.importorskip("zarr")

EDGES = [-2.0, -0.5, 0.0, 0.5, 2.0]
MADE = {
    "mean": lambda: dataset.mean(),
    "mean of channels": lambda: dataset.mean(per="channel"),
    "variance": lambda: dataset.variance(),
    "variance of channels": lambda: dataset.variance(per="channel"),
    "histogram": lambda: dataset.histogram(edges=EDGES),
    "quantiles": lambda: dataset.quantiles(q=[0.0, 0.1, 0.5, 1.0]),
    "top": lambda: dataset.top_examples(k=4),
    "top means": lambda: dataset.top_examples(k=4, reduce="mean"),
}


def of_all(statistic, values, splits, order):
    """A statistic over values that are split in some way, the parts merged in some order."""
    parts = [statistic.update(statistic.init(values.shape[1:]), values[ids], ids) for ids in splits]
    state = statistic.init(values.shape[1:])
    for i in order:
        state = statistic.merge(state, parts[i])
    return statistic.result(state)


def by_hand(name, values):
    """What NumPy says of all values at once."""
    flat = values.reshape(-1, values.shape[-1]).astype(np.float64)
    places = values.reshape(len(values), -1, values.shape[-1]).astype(np.float64)
    match name:
        case "mean" | "variance":
            return getattr(np, name[:4].replace("vari", "var"))(values.astype(np.float64), axis=0)
        case "mean of channels" | "variance of channels":
            return getattr(np, name[:4].replace("vari", "var"))(flat, axis=0)
        case "histogram":
            return np.stack([np.histogram(column, EDGES)[0] for column in flat.T])
        case "quantiles":
            return np.quantile(flat, [0.0, 0.1, 0.5, 1.0], axis=0, method="lower").T
    score = places.max(axis=1) if name == "top" else places.mean(axis=1)
    return np.stack([sorted(range(len(values)), key=lambda i: (-column[i], i))[:4] for column in score.T])


@st.composite
def split_values(draw):
    rows = draw(st.integers(4, 30))
    seed = draw(st.integers(0, 2**31))
    rng = np.random.default_rng(seed)
    shape = draw(st.sampled_from([(3,), (2, 3), (2, 2, 3)]))
    values = rng.normal(size=(rows, *shape)).astype("float32") * draw(st.sampled_from([1.0, 1e-3, 1e4]))
    values = np.where(rng.random(values.shape) < 0.3, 0, values).astype("float32")
    owner = rng.integers(0, draw(st.integers(1, 6)), rows)
    splits = [np.flatnonzero(owner == part) for part in range(6)]
    return values, splits, rng.permutation(6)


@pytest.mark.parametrize("name", MADE)
@settings(max_examples=25, deadline=None)
@given(drawn=split_values())
def test_any_split_gives_what_numpy_says_of_all(name, drawn):
    values, splits, order = drawn
    statistic = MADE[name]()
    found, expected = of_all(statistic, values, splits, order)[statistic.name], by_hand(name, values)
    whole = of_all(statistic, values, [np.arange(len(values))], [0])[statistic.name]
    np.testing.assert_allclose(found, whole, rtol=1e-9, atol=1e-12)
    if name == "quantiles":
        assert np.all(np.abs(found - expected) <= 0.0101 * np.abs(expected) + 1e-9)
    else:
        np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9 * float(np.abs(values).max() ** 2))


def test_ends_of_bins_and_of_ranges():
    values = np.array([[-2.0], [-3.0], [2.0], [2.5], [0.5], [0.49999997]], np.float32)
    h = dataset.histogram(edges=EDGES)
    found = h.result(h.update(h.init((1,)), values, np.arange(6)))
    assert found["histogram"].tolist() == [[1, 0, 1, 2]]
    assert found["below"].tolist() == [1] and found["above"].tolist() == [1]
    s = dataset.quantiles(q=[0.0, 1.0], smallest=1e-3, largest=1e3)
    state = s.update(s.init((2,)), np.array([[1e-4, 5.0], [-1e-5, 1e9]]), np.arange(2))
    low, high = s.result(state)["quantiles"]
    assert (
        low.tolist() == [0.0, 0.0]
        and high[0] == pytest.approx(5, rel=0.011)
        and high[1] == pytest.approx(1e3, rel=0.03)
    )
    assert np.isnan(s.result(s.init((2,)))["quantiles"]).all()


def test_equal_values_come_in_the_order_of_the_data():
    s = dataset.top_examples(k=3)
    ones = np.ones((5, 1))
    late = s.update(s.init((1,)), ones[:2], np.array([3, 4]))
    early = s.update(s.init((1,)), ones[:2], np.array([1, 0]))
    assert s.merge(late, early)["top_examples"].tolist() == [[0, 1, 3]]
    assert s.update(s.init((1,)), ones[:2], np.array([1, 0]))["top_examples"].tolist() == [[0, 1, -1]]


@pytest.mark.parametrize("of", ["gradients", "activations"])
@pytest.mark.parametrize("name", ["variance", "quantiles", "top"])
def test_a_run_gives_the_statistic_of_what_the_method_gives(tmp_path, of, name):
    model, x = images_model(), images(70)
    make = {"variance": dataset.variance, "quantiles": dataset.quantiles, "top": dataset.top_examples}[name]
    statistic = make(of)
    target = {"target": 1} if of == "gradients" else {}
    found = dataset.run(model, x, statistic, tmp_path / "a.zarr", at=["conv1", "scores"], block=2, **target)
    direct = getattr(gt, of)(model, x, at=["conv1", "scores"], **target)
    for address in direct:
        values = np.asarray(direct[address])
        expected = statistic.result(statistic.update(statistic.init(values.shape[1:]), values, np.arange(70)))
        np.testing.assert_allclose(found[address][...], expected[statistic.name], rtol=1e-5, atol=1e-9)
        for what, by_address in found.also.items():
            np.testing.assert_allclose(by_address[address][...], expected[what], rtol=1e-5, atol=1e-9)


def test_the_block_changes_nothing_but_rounding(tmp_path):
    model, x = images_model(), images(70)
    runs = [
        dataset.run(model, x, dataset.variance(), tmp_path / f"{block}.zarr", at="conv1", target=1, block=block)
        for block in (1, 8, 70)
    ]
    for other in runs[1:]:
        np.testing.assert_allclose(runs[0]["conv1"][:], other["conv1"][:], rtol=1e-5, atol=1e-12)


def test_a_statistic_of_ones_own(tmp_path):
    def largest(scale):
        return dataset.Statistic(
            "largest",
            "gradients",
            init=lambda shape: {"largest": np.zeros(shape)},
            update=lambda s, x, ids: {"largest": np.maximum(s["largest"], scale * np.abs(x).max(axis=0, initial=0.0))},
            merge=lambda a, b: {"largest": np.maximum(a["largest"], b["largest"])},
        )

    model, x = images_model(), images()
    found = dataset.run(model, x, largest(1), tmp_path / "a.zarr", at="conv1", target=1, block=4)
    g = gt.gradients(model, x, target=1, at="conv1").only
    np.testing.assert_allclose(found["conv1"][:], np.abs(g).max(axis=0), rtol=1e-5)
    with pytest.raises(gt.errors.StoreMismatchError, match=r"statistic\.code"):
        dataset.run(model, x, largest(2), tmp_path / "a.zarr", at="conv1", target=1, block=4)


def test_a_finished_statistic_can_be_retried(tmp_path):
    model, bad = images_model(), images(70)
    bad[40] = np.nan
    for name, data in [("a", bad), ("b", images(70))]:
        dataset.run(model, data, dataset.mean(), tmp_path / f"{name}.zarr", at="conv1", target=1, block=2)
    dataset.run(model, images(70), dataset.mean(), tmp_path / "a.zarr", at="conv1", target=1, block=2, retry=True)
    assert_same(tmp_path / "a.zarr", tmp_path / "b.zarr")
    assert arrays_of(tmp_path / "a.zarr")["parts/conv1/count"].shape == (18,)


@pytest.mark.parametrize(
    "make",
    [
        lambda: dataset.histogram(edges=[1.0, 1.0]),
        lambda: dataset.histogram(edges=[1.0]),
        lambda: dataset.top_examples(k=0),
        lambda: dataset.top_examples(reduce="sum"),
        lambda: dataset.quantiles(q=[1.5]),
        lambda: dataset.quantiles(accuracy=0.0),
        lambda: dataset.mean(per="image"),
    ],
)
def test_values_outside_of_their_choices(make):
    with pytest.raises(gt.errors.ArgumentError):
        make()


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: dataset.histogram(edges="0,1,2"), "edges is not a list of numbers"),
        (lambda: dataset.histogram(edges=["a", "b"]), "edges is not a list of numbers"),
        (lambda: dataset.histogram(edges=[]), "edges is not a list of numbers"),
        (lambda: dataset.histogram(edges=[1.0]), "two or more numbers that rise"),
        (lambda: dataset.quantiles(q="abc"), "q is not a list of numbers"),
        (lambda: dataset.quantiles(q=[0.5, 1.5]), "not from 0 to 1"),
        (lambda: dataset.quantiles(accuracy="abc"), "accuracy='abc' is not a number"),
        (lambda: dataset.quantiles(largest=None), "largest=None is not a number"),
        (lambda: dataset.top_examples(k="abc"), "k='abc' is not a positive int"),
        (lambda: dataset.top_examples(k=2.5), "k=2.5 is not a positive int"),
        (lambda: dataset.top_examples(k=True), "k=True is not a positive int"),
        (lambda: dataset.top_examples(reduce="sum"), "reduce='sum' is not a choice"),
    ],
)  # fmt: skip
def test_arguments_of_another_kind_are_said(make, said):
    with pytest.raises(gt.errors.ArgumentError, match=re.escape(said)):
        make()
