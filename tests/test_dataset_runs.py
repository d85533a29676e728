"""Whole data sets: the numbers in the store, what is recorded, how a run goes on, and what is refused."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import keras
import numpy as np
import pytest

import gradtap as gt
from gradtap import dataset, locking
from gradtap.dataset import local_engine, names, running
from gradtap.dataset.progress import Meter
from gradtap.dataset.store import Store
from stores import arrays_of, assert_same, images, images_model, layers, sequence_model

pytest.importorskip("zarr")


@pytest.fixture(scope="module")
def model():
    return images_model()


@pytest.fixture
def store(tmp_path):
    return tmp_path / "out.zarr"


def run(model, data, store, method="gradients", **more):
    return dataset.run(model, data, method, store, **({"at": "conv1", "target": 1, "block": 4} | more))


# -- numbers -----------------------------------------------------------------------------------------------------------


def test_gradients_in_the_store_are_those_of_one_call(model, store):
    x = images()
    found = run(model, x, store, at=["conv1", ":input", "norm"])
    g = gt.gradients(model, x, target=1, at=["conv1", ":input", "norm"])
    assert list(found) == list(g) and found.complete and found.failures == {}
    for address in g:
        assert found[address].dtype == np.float32
        np.testing.assert_allclose(found[address][:], g[address], rtol=1e-5, atol=1e-7)
        np.testing.assert_allclose(found[address][5:9], g[address][5:9], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("block", [1, 7, 23, 100])
def test_any_block_gives_the_same(model, store, block):
    x = images()
    np.testing.assert_allclose(
        run(model, x, store, block=block)["conv1"][:], gt.gradients(model, x, target=1, at="conv1").only, atol=1e-7
    )


def test_every_example_may_have_a_target_of_its_own(model, store):
    x, y = images(), np.random.default_rng(1).integers(0, 2, 23)
    np.testing.assert_allclose(
        run(model, x, store, target=y)["conv1"][:],
        gt.gradients(model, x, target=list(y), at="conv1").only,
        atol=1e-7,
    )
    with pytest.raises(gt.errors.TargetCountError, match="5 targets for 23 examples"):
        run(model, x, store.with_name("b.zarr"), target=y[:5])


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("activations", {}),
        ("integrated_gradients", {"steps": 5}),
        ("grad_cam", {}),
        ("smooth_grad", {"samples": 3}),
        (lambda model, inputs, *, target, at: {at: 2 * gt.gradients(model, inputs, target=target, at=at).only}, {}),
    ],
    ids=["activations", "integrated_gradients", "grad_cam", "smooth_grad", "a function"],
)
def test_methods(model, store, method, options):
    x = images()
    found = run(model, x, store, method, **options)["conv1"][:]
    if method == "activations":
        expected = gt.activations(model, x, at="conv1").only
    elif callable(method):
        expected = 2 * gt.gradients(model, x, target=1, at="conv1").only
    else:
        seed = {"seed": 0} if method == "smooth_grad" else {}
        expected = getattr(gt.attribution, method)(model, x, target=1, at="conv1", **options, **seed).only
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


def test_patterns_and_layers_are_looked_up_once(model, store):
    x = images()
    found = run(model, x, store, at=["conv*", model.layers[1]])
    assert list(found) == ["conv1", "norm"] and found.made_of["arguments"]["at"] == ["conv1", "norm"]
    np.testing.assert_allclose(found["norm"][:], gt.gradients(model, x, target=1, at="norm").only, atol=1e-7)


def test_an_attack_keeps_what_belongs_to_it(model, store):
    x, y = np.clip(images(), 0, 1), np.arange(23) % 2
    found = run(model, x, store, "fgsm", at=":input", target=y, epsilon=0.1)
    expected = gt.attacks.fgsm(model, x, y, epsilon=0.1)
    np.testing.assert_allclose(found[":input"][:], expected.examples, atol=1e-6)
    np.testing.assert_array_equal(found.also["success"][":input"][:], expected.success)
    np.testing.assert_allclose(found.also["distance"][":input"][:], expected.distance, rtol=1e-5)


def test_half_the_bytes(model, store):
    x = images()
    found = run(model, x, store, dtype="float16")["conv1"]
    assert found.dtype == np.float16
    np.testing.assert_allclose(found[:], gt.gradients(model, x, target=1, at="conv1").only, rtol=1e-3, atol=1e-6)


def test_what_is_too_large_for_the_type_is_recorded(store):
    model = images_model()
    model.layers[-1].activation = None
    x = images()
    x[7] *= 1e6
    found = run(model, x, store, "activations", at="conv1", dtype="float16")
    assert found.failures == {7: "a result is too large for float16"}


# -- the store ---------------------------------------------------------------------------------------------------------


def test_the_layout_of_a_store(model, store):
    import zarr

    run(model, images(), store, at=["conv1", ":input"])
    group = zarr.open_group(store, mode="r")
    assert group["done"].dtype == bool and group["done"].shape == (6,) and group["done"][:].all()
    assert group["conv1"].chunks == (4, 4, 4, 3)
    assert group["conv1"].metadata.dimension_names == ("example", "conv1.height", "conv1.width", "conv1.channel")
    assert group["conv1"].attrs["address"] == "conv1" and group["%3Ainput"].attrs["address"] == ":input"
    assert group["conv1"].metadata.zarr_format == 3
    made_of = group.attrs["gradtap"]
    assert made_of["arguments"]["target"] == 1 and made_of["arguments"]["at"] == [":input", "conv1"]
    assert {"python", "gradtap", "tensorflow", "keras", "numpy", "zarr"} <= set(made_of["versions"])
    assert os.listdir(store.parent) == ["out.zarr"], "the lock and all that was needed on the way is gone"


def test_nested_addresses_become_groups(store):
    import keras

    inner = keras.Sequential([keras.Input((4,)), layers.Dense(3, name="a"), layers.Dense(2, name="done")], name="inner")
    shared, x = layers.Dense(4, name="shared"), keras.Input((4,))
    model = keras.Model(x, layers.Dense(1, name="done")(inner(shared(shared(x)))))
    data = np.random.default_rng(0).normal(size=(9, 4)).astype("float32")
    at = ["inner", "inner/a", "inner/done", "done", "shared[0]", "shared[1]:input"]
    found = run(model, data, store, at=at, target=None)
    g = gt.gradients(model, data, at=at)
    expected = {"inner/%3Aoutput", "inner/a", "inner/done", "%64one", "shared%5B0%5D", "shared%5B1%5D%3Ainput"}
    assert set(arrays_of(store)) == expected | {"done", "failure", "also/digest"}
    for address in at:
        np.testing.assert_allclose(found[address][:], g[address], atol=1e-6)
        assert names.address_of(names.array_names(at)[address]) == address


def test_a_store_opens_in_xarray_as_it_is(model, store):
    xarray = pytest.importorskip("xarray")
    found = run(model, images(), store, at=["conv1", ":input"])
    opened = xarray.open_zarr(store, consolidated=False, chunks=None)
    np.testing.assert_array_equal(opened["conv1"][3:5].values, found["conv1"][3:5])
    assert opened["conv1"].dims[0] == opened["%3Ainput"].dims[0] == opened["failure"].dims[0] == "example"
    labelled = found.to_xarray()
    np.testing.assert_array_equal(labelled[":input"].isel(example=4).values, found[":input"][4])


def test_examples_of_any_length(store):
    model, rng = sequence_model(), np.random.default_rng(0)
    data = [rng.normal(size=(n, 2)).astype("float32") for n in (3, 5, 80, 3, 5, 2, 9)]
    found = run(model, data, store, at=["lstm", "mean"], block=3)
    for i, one in enumerate(data):
        g = gt.gradients(model, one[None], target=1, at=["lstm", "mean"])
        assert found["lstm"].example(i).shape == (len(one), 3)
        np.testing.assert_allclose(found["lstm"].example(i), g["lstm"][0], atol=1e-6)
        np.testing.assert_allclose(found["mean"][i], g["mean"][0], atol=1e-6)
    assert found["lstm"].shape == (7, 80, 3) and np.isnan(found["lstm"][0, 3:]).all()


def test_what_is_asked_of_a_store_that_it_has_not(model, store):
    found = run(model, images(), store)
    with pytest.raises(gt.errors.MissingResultError, match="holds nothing under 'conv2'"):
        found["conv2"]
    with pytest.raises(gt.errors.StoreError, match="no store at"):
        dataset.open(store.with_name("nowhere.zarr"))
    store.with_name("other.zarr").mkdir()
    with pytest.raises(gt.errors.StoreError, match="no store of results"):
        dataset.open(store.with_name("other.zarr"))
    with pytest.raises(gt.errors.StoreError, match="no store of results"):
        run(model, images(), store.with_name("other.zarr"))


# -- going on ----------------------------------------------------------------------------------------------------------


class StopsAfter:
    """Data that interrupts the run when an example is read."""

    def __init__(self, data, at, error=KeyboardInterrupt):
        self.data, self.at, self.error = data, at, error

    def __len__(self):
        return len(self.data)

    def __getitem__(self, i):
        if self.at is not None and i >= self.at:
            raise self.error
        return self.data[i]


def quiet_facts(monkeypatch):
    """Fingerprints read all over the data; these tests break it on purpose."""
    monkeypatch.setattr("gradtap.dataset.preparing.facts_of", lambda source: source.facts())


@pytest.mark.parametrize("method", ["gradients", "variance"])
def test_an_interrupted_run_goes_on(model, tmp_path, monkeypatch, method):
    quiet_facts(monkeypatch)
    asked = dataset.variance() if method == "variance" else method
    data = StopsAfter(images(60), 35)
    with pytest.raises(KeyboardInterrupt):
        run(model, data, tmp_path / "a.zarr", asked, block=1)
    half = dataset.open(tmp_path / "a.zarr")
    assert 25 <= half.done.sum() <= 35 and not half.complete
    data.at = None
    computed = []
    monkeypatch.setattr(
        "gradtap.dataset.working.Worker.compute", counting(computed, running.Worker.compute), raising=True
    )
    run(model, data, tmp_path / "a.zarr", asked, block=1)
    assert len(computed) == 60 - half.done.sum(), "nothing is computed twice"
    run(model, StopsAfter(images(60), None), tmp_path / "b.zarr", asked, block=1)
    assert_same(tmp_path / "a.zarr", tmp_path / "b.zarr")


def counting(calls, function):
    def counted(*args):
        calls.append(args)
        return function(*args)

    return counted


def test_a_full_disk_stops_the_run_and_says_what_to_do(model, store, monkeypatch):
    x, write = images(), Store.write

    def until_full(self, block, *rest):
        from gradtap.dataset.store import written

        if block >= 3:
            with written(self.path):
                raise OSError(28, "No space left on device")
        write(self, block, *rest)

    monkeypatch.setattr(Store, "write", until_full)
    with pytest.raises(gt.errors.StoreError, match="No space left on device") as caught:
        run(model, x, store)
    assert "goes on where it stopped" in str(caught.value)
    assert dataset.open(store).done.tolist() == [True, True, True, False, False, False]
    monkeypatch.undo()
    found = run(model, x, store)
    np.testing.assert_allclose(found["conv1"][:], gt.gradients(model, x, target=1, at="conv1").only, atol=1e-7)


def test_done_is_written_after_the_data(model, store, monkeypatch):
    order = []
    for name in ("write", "record", "mark"):
        monkeypatch.setattr(Store, name, counting_names(order, name, getattr(Store, name)))
    run(model, images(8), store)
    assert order == ["write", "record", "mark"] * 2


def counting_names(order, name, function):
    def counted(*args, **kwargs):
        order.append(name)
        return function(*args, **kwargs)

    return counted


def test_a_finished_run_computes_nothing(model, store, monkeypatch):
    run(model, images(), store)
    monkeypatch.setattr(local_engine.Job, "add", None)
    assert run(model, images(), store).complete


@pytest.mark.parametrize(
    ("change", "label"),
    [
        ({"target": 0}, "arguments.target"),
        ({"at": "norm"}, "arguments.at"),
        ({"block": 5}, "run.block"),
        ({"dtype": "float16"}, "arguments.dtype"),
        ({"method": "saliency"}, "arguments.method"),
        ({"unconnected": "zero"}, "arguments.options.unconnected"),
    ],
)
def test_another_run_is_refused_with_the_difference(model, store, change, label):
    run(model, images(), store)
    before = arrays_of(store)
    with pytest.raises(gt.errors.StoreMismatchError, match="holds another run") as caught:
        run(model, images(), store, **change)
    assert label in dict(caught.value.facts) and len(caught.value.facts) == 1
    for name, value in arrays_of(store).items():
        np.testing.assert_array_equal(value, before[name])


def test_another_model_and_other_data_are_refused(model, store):
    run(model, images(), store)
    other = images_model()
    other.layers[0].bias.assign_add([0, 1e-6, 0])
    with pytest.raises(gt.errors.StoreMismatchError, match=r"model\.weights"):
        run(other, images(), store)
    other = images_model()
    other.layers[0].activation = __import__("keras").activations.tanh
    with pytest.raises(gt.errors.StoreMismatchError, match=r"model\.structure"):
        run(other, images(), store)
    with pytest.raises(gt.errors.StoreMismatchError, match=r"run\.examples"):
        run(model, images()[:-1], store)
    x = images()
    x[11, 2, 3, 1] += 1e-6
    with pytest.raises(gt.errors.StoreMismatchError, match=r"data\.content"):
        run(model, x, store)
    run(images_model(), images(), store)  # built anew, with other names for its layers


def test_functions_are_known_by_their_code(model, store):
    run(model, images(), store, target=lambda y: y[:, 0] - y[:, 1])
    run(model, images(), store, target=lambda y: y[:, 0] - y[:, 1])
    with pytest.raises(gt.errors.StoreMismatchError, match="lambda"):
        run(model, images(), store, target=lambda y: y[:, 0] + y[:, 1])


# -- bad inputs --------------------------------------------------------------------------------------------------------


def test_bad_examples_are_recorded_and_retried(model, tmp_path):
    good = images()
    data = [np.array(one) for one in good]
    data[2][1, 1, 0] = np.nan
    data[9] = np.zeros((5, 6, 2), "float32")
    data[10] = "no array"
    bad = run(model, data, tmp_path / "a.zarr")
    assert set(bad.failures) == {2, 9, 10} and bad.complete
    assert bad.failures[2] == "the input has NaN or infinity"
    assert "shape (1, 5, 6, 2)" in bad.failures[9]
    assert np.isnan(bad["conv1"][9]).all() and not np.isnan(bad["conv1"][8]).any()
    assert run(model, data, tmp_path / "a.zarr").failures == bad.failures
    fixed = [np.array(one) for one in good]
    with pytest.raises(gt.errors.StoreMismatchError, match="retry=True"):
        run(model, fixed, tmp_path / "a.zarr")
    assert run(model, fixed, tmp_path / "a.zarr", retry=True).failures == {}
    run(model, fixed, tmp_path / "b.zarr")
    assert_same(tmp_path / "a.zarr", tmp_path / "b.zarr")


def test_one_bad_id_does_not_take_its_block_along(store):
    import keras

    model = keras.Sequential([keras.Input((3,), dtype="int32"), layers.Embedding(5, 2, name="e"), layers.Flatten(),
                              layers.Dense(1, name="d")])  # fmt: skip
    ids = np.random.default_rng(0).integers(0, 5, (12, 3))
    ids[5, 1] = 77
    found = run(model, ids, store, at="e", target=None, block=6)
    assert set(found.failures) == {5} and "failed" in found.failures[5]
    keep = np.arange(12) != 5
    np.testing.assert_allclose(found["e"][:][keep], gt.gradients(model, ids[keep], at="e").only, atol=1e-6)


def test_a_statistic_leaves_bad_examples_out(model, store):
    x = images()
    x[3] = np.inf
    found = run(model, x, store, dataset.mean("activations"))
    assert set(found.failures) == {3} and found.also["count"]["conv1"][()] == 22
    keep = np.arange(23) != 3
    np.testing.assert_allclose(
        found["conv1"][:], np.mean(gt.activations(model, x[keep], at="conv1").only, axis=0), rtol=1e-5, atol=1e-6
    )


def test_a_statistic_leaves_bad_results_out(store):
    """An input may be sound where its result is not."""
    x = images()
    x[3] = 1e30
    found = run(images_model(), x, store, dataset.mean(infinite_at_three))
    assert found.failures == {3: "the result has NaN or infinity"} and np.isfinite(found["conv1"][:]).all()


def infinite_at_three(model, inputs, *, target, at):
    """Activations that overflow for one of the examples."""
    values = gt.activations(model, inputs, at=at, checks=False).only
    return {at: np.where(np.abs(np.asarray(values)) > 1e20, np.inf, values)}


def test_what_is_wrong_with_the_question_is_said_at_once_and_leaves_nothing(model, store):
    for error, change in [
        (gt.errors.UnknownTapError, {"at": "conv9"}),
        (gt.errors.ClassRangeError, {"target": 7}),
        (gt.errors.ArgumentError, {"method": "gradient"}),
        (gt.errors.ArgumentError, {"stepz": 7}),
        (gt.errors.ArgumentError, {"engine": "ray"}),
        (gt.errors.ArgumentError, {"block": 0}),
        (gt.errors.ArgumentError, {"dtype": "bfloat16"}),
        (gt.errors.ArgumentError, {"compression": "zip"}),
        (gt.errors.ArgumentError, {"at": []}),
        (gt.errors.ArgumentError, {"at": "conv1:kernel"}),
        (gt.errors.ArgumentError, {"method": "fgsm", "target": None, "at": ":input"}),
        (gt.errors.ArgumentError, {"columns": ["image"]}),
    ]:
        with pytest.raises(error):
            run(model, images(), store, **change)
    with pytest.raises(gt.errors.InputShapeError):
        run(model, images()[:, :4], store)
    with pytest.raises(gt.errors.InputStructureError, match="no example"):
        run(model, images()[:0], store)
    with pytest.raises(gt.errors.InputStructureError, match="none of the first 23"):
        run(model, np.full_like(images(), np.nan), store)
    with pytest.raises(gt.errors.StoreError, match="mkdir"):
        run(model, images(), store / "below" / "b.zarr")
    with pytest.raises(gt.errors.StoreError, match="no path"):
        run(model, images(), "s3://bucket/b.zarr")
    assert os.listdir(store.parent) == []


def refused(model, store, match, **more):
    with pytest.raises(gt.errors.ArgumentError, match=match) as caught:
        run(model, images(), store, **more)
    assert not store.exists()
    return str(caught.value)


def test_a_method_that_is_none_is_told_apart_from_statistics(model, store):
    said = refused(model, store, "there is no method 'meen'", method="meen")
    assert "nearest     `mean`" in said and "gt.dataset.top_examples()" in said and "gradients, activations" in said
    said = refused(model, store, "there is no method 'qqqqqqqqq'", method="qqqqqqqqq")
    assert "nearest" not in said
    assert "method=gt.dataset.mean()" in refused(model, store, "'mean' makes a statistic", method="mean")
    said = refused(model, store, "function `gt.dataset.histogram` makes a statistic", method=dataset.histogram)
    assert "method=gt.dataset.histogram(edges=[-1,0,1])" in said

    def mean(model, inputs, *, target, at):  # of the user's, with a name like that
        return gt.gradients(model, inputs, target=target, at=at)

    assert run(model, images(), store, mean).complete


def test_keywords_that_a_method_needs_are_named(model, store):
    said = refused(model, store, "`occlusion` needs `window`", method="occlusion")
    assert "give window=..." in said and "stride" in said
    refused(model, store, "`expected_gradients` needs `baselines`", method="expected_gradients")
    said = refused(model, store, "`pgd` needs `step_size` and `steps`", method="pgd", epsilon=0.1, at=":input")
    assert "give step_size=..., steps=..." in said
    refused(model, store, "`occlusion` needs `window`", method=dataset.mean("occlusion"))

    def method(model, inputs, *, target, at, scale, shift=1):
        return gt.gradients(model, inputs, target=target, at=at)

    refused(model, store, "needs `scale`", method=method)


def test_a_scheduler_is_for_dask(model, store):
    refused(model, store, "scheduler= is for", scheduler="tcp://127.0.0.1:9")


@pytest.mark.parametrize("logits", [False, True])
def test_one_class_for_each_example_of_one_output(tmp_path, logits):
    x = layers.Input((4,))
    hidden = layers.Dense(5, activation="tanh", name="hidden")(x)
    left = layers.Dense(2, name="left")(hidden)
    model = keras.Model(x, [left, layers.Dense(3, activation="softmax", name="right")(hidden)])
    data, k = np.random.default_rng(0).random((21, 4), dtype="float32"), np.arange(21) % 3
    target = gt.targets.class_score(k, output="right", logits=logits)
    found = run(model, data, tmp_path / "a.zarr", at="hidden", target=target)
    rows = [
        gt.gradients(
            model, data[i : i + 1], target=gt.targets.class_score(int(k[i]), "right", logits), at="hidden"
        ).only[0]
        for i in range(21)
    ]
    np.testing.assert_allclose(found["hidden"][:], rows, atol=1e-7)
    again = run(
        model, data, tmp_path / "a.zarr", at="hidden", target=gt.targets.class_score(k.tolist(), "right", logits)
    )
    assert again.complete
    for other in [gt.targets.class_score(k[::-1], "right", logits), gt.targets.class_score(k, "right", not logits)]:
        with pytest.raises(gt.errors.StoreMismatchError, match="target"):
            run(model, data, tmp_path / "a.zarr", at="hidden", target=other)
    with pytest.raises(gt.errors.TargetCountError, match="20 targets for 21 examples"):
        run(model, data, tmp_path / "b.zarr", at="hidden", target=gt.targets.class_score(k[:20], "right"))


def test_positions_and_classes_for_each_example(tmp_path):
    model = sequence_scores()
    data = np.random.default_rng(0).random((9, 4, 2), dtype="float32")
    places = [(i % 4, i % 3) for i in range(9)]
    found = run(model, data, tmp_path / "a.zarr", at="hidden", target=gt.targets.class_score(places))
    expected = gt.gradients(model, data, target=places, at="hidden").only
    np.testing.assert_allclose(found["hidden"][:], expected, atol=1e-7)


def sequence_scores():
    keras.utils.set_random_seed(4)
    return keras.Sequential(
        [keras.Input((4, 2)), layers.Dense(5, activation="tanh", name="hidden"), layers.Dense(3, name="scores")]
    )


# -- one run at a time -------------------------------------------------------------------------------------------------


def test_two_runs_on_one_store_are_refused(model, store):
    caught = []

    def second(_):
        if not caught:
            with pytest.raises(gt.errors.StoreLockedError) as error:
                run(model, images(), store)
            caught.append(str(error.value))

    run(model, images(), store, progress=second)
    assert f"process {os.getpid()} on {socket.gethostname()}" in caught[0] and "since" in caught[0]
    assert run(model, images(), store).complete


def test_a_lock_is_noticed_before_the_model_is_loaded(store):
    with locking.locked(store), pytest.raises(gt.errors.StoreLockedError):
        run("no_such_model.keras", images(), store)


def test_looking_at_a_lock_leaves_nothing(store):
    locking.check_free(store)
    with locking.locked(store), pytest.raises(gt.errors.StoreLockedError, match="another run is at work"):
        locking.check_free(store)
    locking.lock_file(store).touch()  # of a run that died
    locking.check_free(store)
    assert os.listdir(store.parent) == []


def test_the_lock_of_a_dead_owner_is_taken_over(model, store):
    code = (
        "import os, sys, pathlib\n"
        "from gradtap.locking import locked\n"
        f"with locked(pathlib.Path({str(store)!r})):\n"
        "    os.kill(os.getpid(), 9)\n"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -9
    assert Path(f"{store}.lock").exists()
    assert run(model, images(), store).complete


def test_what_a_killed_run_left_beside_its_store_is_removed(model, store):
    (store.parent / "out.zarr.0123abcd.part" / "conv1").mkdir(parents=True)
    for kind in ("job", "keras"):
        (store.parent / f"out.zarr.0123abcd.{kind}").touch()
    run(model, images(), store)
    assert os.listdir(store.parent) == ["out.zarr"]


def test_an_owner_on_another_machine_is_believed_while_it_is_heard_of(model, store):
    lock = Path(f"{store}.lock")
    lock.write_text(json.dumps({"host": "elsewhere", "pid": 1, "since": time.time() - 5}))
    with pytest.raises(gt.errors.StoreLockedError, match="process 1 on elsewhere"):
        run(model, images(), store)
    os.utime(lock, (time.time() - 1000,) * 2)
    assert run(model, images(), store).complete


def test_progress_is_told(model, store):
    x = images()
    x[22] = np.nan
    told = []
    run(model, x, store, progress=told.append)
    assert [now.done for now in told] == [4, 8, 12, 16, 20, 23]
    assert [now.failures for now in told] == [0] * 5 + [1]
    assert told[-1].examples == 23 and told[-1].remaining == 0 and told[-1].rate > 0


def test_the_rate_counts_from_the_first_task_that_was_done(monkeypatch):
    clock = [100.0]
    monkeypatch.setattr("gradtap.dataset.progress.time.monotonic", lambda: clock[0])
    told = []
    meter = Meter(1000, 100, 0, told.append)
    for seconds in [130.0, 130.01, 131.0, 132.0, 133.0, 134.0]:  # half a minute until the workers are there
        clock[0] = seconds
        meter.add(10, 0)
    assert [now.rate for now in told[:4]] == [0] * 4 and told[0].remaining == float("inf")
    assert told[4].rate == pytest.approx(40 / 3) and told[5].rate == pytest.approx(50 / 4)
    assert told[5].remaining == pytest.approx((1000 - 160) / 12.5)


def test_one_task_is_a_whole_run(model, store):
    told = []
    run(model, images(), store, progress=told.append, block=64)
    assert [(now.done, now.remaining) for now in told] == [(23, 0)]


def test_reading_and_writing_go_on_beside_the_computing(model, store, monkeypatch):
    where = {}
    for owner, name in [(running.Worker, "read"), (running.Worker, "compute"), (Store, "write")]:

        def noted(*args, _name=name, _function=getattr(owner, name)):
            where.setdefault(_name, set()).add(threading.get_ident())
            return _function(*args)

        monkeypatch.setattr(owner, name, noted)
    run(model, images(), store)
    assert where["compute"] == {threading.get_ident()}
    assert where["read"] - where["compute"] and where["write"].isdisjoint(where["compute"] | where["read"])
