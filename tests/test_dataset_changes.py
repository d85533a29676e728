"""What has changed between two runs on one store is found: data, functions, arguments; and nothing wrong is kept."""

from __future__ import annotations

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf

import gradtap as gt
from gradtap import dataset
from gradtap.dataset.fingerprints import described
from gradtap.dataset.reading import Group, digests_of
from stores import assert_same, images, images_model


class Stop(Exception):
    pass


def stop_at(count):
    def progress(now):
        if now.done >= count:
            raise Stop

    return progress


def run(data, store, method="gradients", **more):
    return dataset.run(images_model(), data, method, store, **({"at": "conv1", "target": 1, "block": 4} | more))


def stopped(data, store, count=20, **more):
    with pytest.raises(Stop):
        run(data, store, progress=stop_at(count), **more)


# -- data --------------------------------------------------------------------------------------------------------------


def test_digests_tell_every_value_apart():
    x, y = np.arange(24.0).reshape(4, 3, 2), np.arange(4)
    before = digests_of([Group(np.arange(4), {"x": x, "y": y})])
    assert len(set(before.values())) == 4 and 0 not in before.values()
    for leaf, place, row in ((x, (2, 1, 1), 2), (y, (3,), 3)):
        changed = leaf.copy()
        changed[place] += 1
        after = digests_of([Group(np.arange(4), {"x": changed if leaf is x else x, "y": changed if leaf is y else y})])
        assert [i for i in range(4) if after[i] != before[i]] == [row]
    assert digests_of([Group(np.arange(4), x.astype("float32"))]) != digests_of([Group(np.arange(4), x)])
    words = np.array([["a", "b"], ["a", "c"]], object)
    assert len(set(digests_of([Group(np.arange(2), words)]).values())) == 2


@pytest.mark.parametrize("method", ["gradients", "mean"])
@pytest.mark.parametrize("done", [None, 20])
def test_a_retry_with_other_data_computes_what_has_changed(tmp_path, method, done):
    """All of it, half of it, or one row: the store is that of the data it is said to hold."""
    asked = dataset.mean() if method == "mean" else method
    first = images(50)
    for name, rows in (("all", slice(None)), ("half", slice(0, 25)), ("one", [33])):
        store = tmp_path / f"{name}.zarr"
        if done is None:
            run(first, store, asked)
        else:
            stopped(first, store, done, method=asked)
        other = first.copy()
        other[rows] = np.random.default_rng(5).random(other[rows].shape)
        with pytest.raises(gt.errors.StoreMismatchError, match=r"data\.content"):
            run(other, store, asked)
        run(other, store, asked, retry=True)
        run(other, tmp_path / f"{name}-anew.zarr", asked)
        assert_same(store, tmp_path / f"{name}-anew.zarr")


def test_a_retry_computes_nothing_that_is_as_it_was(tmp_path):
    computed = []

    def method(model, inputs, *, target, at):
        computed.extend(np.asarray(inputs)[:, 0, 0, 0].tolist())
        return gt.gradients(model, inputs, target=target, at=at, checks=False)

    first = images(40)
    run(first, tmp_path / "a.zarr", method)
    other = first.copy()
    other[17] *= 0.5
    computed.clear()
    run(other, tmp_path / "a.zarr", method, retry=True)
    of_block = other[16:20, 0, 0, 0].tolist()  # beside the first example, which every run looks at
    assert computed[-4:] == of_block and set(computed) <= {*of_block, float(other[0, 0, 0, 0])}


def test_a_good_image_that_was_replaced_is_found_with_the_repaired_one(tmp_path):
    from PIL import Image

    folder, rng = tmp_path / "photos", np.random.default_rng(0)
    folder.mkdir()
    stack = [keras.layers.Conv2D(2, 3, name="conv1"), keras.layers.GlobalAveragePooling2D()]
    model = keras.Sequential([keras.Input((8, 8, 3)), *stack])

    def over(store, **more):
        return dataset.run(model, folder, "gradients", tmp_path / store, at="conv1", target=1, block=2, **more)

    for i in range(9):
        Image.fromarray(rng.integers(0, 255, (12, 12, 3), np.uint8)).save(folder / f"{i}.png")
    (folder / "2.png").write_bytes(b"no image")
    assert list(over("a.zarr").failures) == [2]
    for name in ("2.png", "7.png"):
        Image.fromarray(rng.integers(0, 255, (13, 12, 3), np.uint8)).save(folder / name)
    assert over("a.zarr", retry=True).failures == {}
    over("b.zarr")
    assert_same(tmp_path / "a.zarr", tmp_path / "b.zarr")


class Loader(keras.utils.PyDataset):
    def __init__(self, x):
        super().__init__()
        self.x = x

    def __len__(self):
        return 1 + (len(self.x) - 1) // 8

    def __getitem__(self, i):
        return self.x[8 * i : 8 * i + 8]


@pytest.mark.parametrize("changed", [0, 5, 9, 15, 49])
@pytest.mark.parametrize("kind", ["tf.data", "PyDataset", "list"])
def test_every_value_of_small_data_counts_whatever_it_is(tmp_path, kind, changed):
    make = {
        "tf.data": lambda x: tf.data.Dataset.from_tensor_slices(x).batch(8),
        "PyDataset": Loader,
        "list": list,
    }[kind]
    x = images(50)
    stopped(make(x), tmp_path / "a.zarr")
    run(make(x), tmp_path / "a.zarr", progress=None)
    other = x.copy()
    other[changed, 3, 3, 0] += 0.25
    with pytest.raises(gt.errors.StoreMismatchError, match=r"data\.content"):
        run(make(other), tmp_path / "a.zarr")


def test_a_shuffled_dataset_is_not_gone_on_with(tmp_path):
    x = images(50)
    data = tf.data.Dataset.from_tensor_slices(x).shuffle(50).batch(8)
    stopped(data, tmp_path / "a.zarr")
    with pytest.raises(gt.errors.StoreMismatchError, match=r"data\.content"):
        run(data, tmp_path / "a.zarr")


# -- functions and arguments -------------------------------------------------------------------------------------------

CLASS = 0
WEIGHTS = np.ones(2)


def chosen(outputs):
    return outputs[:, CLASS]


def through_another(outputs):
    return chosen(outputs)


def weighed(outputs):
    return tf.reduce_sum(outputs[:, :2] * tf.constant(WEIGHTS, tf.float32), axis=1)


@pytest.mark.parametrize(
    ("target", "name", "value"),
    [
        (chosen, "CLASS", 1),
        (through_another, "CLASS", 1),
        (weighed, "WEIGHTS", np.array([1.0, 2.0])),
        (functools.partial(chosen), "CLASS", 1),
    ],
)
def test_what_a_function_finds_beside_it_counts(tmp_path, monkeypatch, target, name, value):
    stopped(images(50), tmp_path / "a.zarr", target=target)
    monkeypatch.setitem(globals(), name, value)
    with pytest.raises(gt.errors.StoreMismatchError, match=r"arguments\.target"):
        run(images(50), tmp_path / "a.zarr", target=target)


def test_attributes_are_no_globals(monkeypatch):
    def target(outputs):
        return outputs.CLASS

    before = described(target)
    monkeypatch.setitem(globals(), "CLASS", 5)
    assert described(target) == before


def test_a_partial_and_an_object_are_methods(tmp_path):
    class Scaled:
        def __init__(self, by):
            self.by = by

        def __call__(self, model, inputs, *, target, at):
            found = gt.gradients(model, inputs, target=target, at=at, checks=False)
            return {key: self.by * value for key, value in found.items()}

    x = images(20)
    plain = run(x, tmp_path / "plain.zarr")["conv1"][:]
    partial = functools.partial(gt.attribution.saliency, checks=False)
    np.testing.assert_allclose(run(x, tmp_path / "partial.zarr", partial)["conv1"][:], plain, rtol=1e-6)
    np.testing.assert_allclose(run(x, tmp_path / "object.zarr", Scaled(3.0))["conv1"][:], 3 * plain, rtol=1e-6)
    with pytest.raises(gt.errors.StoreMismatchError, match=r"arguments\.code"):
        run(x, tmp_path / "object.zarr", Scaled(2.0))
    with pytest.raises(gt.errors.StoreMismatchError, match=r"arguments\.code"):
        run(x, tmp_path / "partial.zarr", functools.partial(gt.attribution.saliency, checks=True))


def test_a_default_that_is_given_is_the_same_argument(tmp_path):
    run(images(), tmp_path / "a.zarr", "integrated_gradients")
    run(images(), tmp_path / "a.zarr", "integrated_gradients", steps=50)
    with pytest.raises(gt.errors.StoreMismatchError, match=r"steps"):
        run(images(), tmp_path / "a.zarr", "integrated_gradients", steps=20)


# -- targets for each example ------------------------------------------------------------------------------------------


def test_a_loss_with_the_labels_of_the_data(tmp_path):
    x, labels = images(22), np.random.default_rng(1).integers(0, 2, 22)
    loss = gt.targets.loss("sparse_categorical_crossentropy", labels)
    found = run(x, tmp_path / "a.zarr", target=loss)["conv1"][:]
    expected = gt.gradients(images_model(), x, target=loss, at="conv1").only
    np.testing.assert_allclose(found, expected, atol=1e-7)
    other = gt.targets.loss("sparse_categorical_crossentropy", 1 - labels)
    with pytest.raises(gt.errors.StoreMismatchError, match="labels"):
        run(x, tmp_path / "a.zarr", target=other)
    with pytest.raises(gt.errors.TargetCountError, match="21 targets for 22"):
        run(x, tmp_path / "b.zarr", target=gt.targets.loss("sparse_categorical_crossentropy", labels[1:]))


def test_logits_of_a_class_for_each_example(tmp_path):
    x, labels = images(22), np.random.default_rng(1).integers(0, 2, 22)
    target = gt.targets.class_score(labels, logits=True)
    found = run(x, tmp_path / "a.zarr", target=target)["conv1"][:]
    np.testing.assert_allclose(found, gt.gradients(images_model(), x, target=target, at="conv1").only, atol=1e-7)


def test_a_class_that_does_not_exist_is_found_before_anything_is_written(tmp_path):
    labels = np.zeros(22, int)
    labels[17] = 9
    with pytest.raises(gt.errors.ClassRangeError, match="class 9"):
        run(images(22), tmp_path / "a.zarr", target=labels)
    assert not (tmp_path / "a.zarr").exists()


# -- what is said ------------------------------------------------------------------------------------------------------


def test_a_saturated_first_example_is_warned_of(tmp_path):
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, name="d"), keras.layers.Softmax()])
    model.set_weights([np.full((4, 3), 1.0) * [1, 0, -1], np.zeros(3)])
    x = np.full((9, 4), 50.0, "float32")
    with pytest.warns(gt.errors.SaturatedTargetWarning):
        dataset.run(model, x, "gradients", tmp_path / "a.zarr", at="d", target="predicted")
    dataset.run(model, x, "gradients", tmp_path / "b.zarr", at="d", target="predicted", checks=False)


def test_batch_statistics_are_warned_of(tmp_path):
    keras.utils.set_random_seed(0)
    stack = [keras.layers.Dense(3, name="d"), keras.layers.BatchNormalization(), keras.layers.Dense(2)]
    model = keras.Sequential([keras.Input((4,)), *stack])
    x = np.random.default_rng(0).normal(size=(32, 4)).astype("float32")
    with pytest.warns(gt.errors.BatchCouplingWarning, match="batches of 16"):
        dataset.run(model, x, "gradients", tmp_path / "a.zarr", at="d", target=0, training=True, block=16)
    dataset.run(model, x, "gradients", tmp_path / "b.zarr", at="d", target=0, block=16)


def test_a_result_that_a_small_type_cannot_hold_is_no_zero(tmp_path):
    def tiny(model, inputs, *, target, at):
        size = np.where(np.arange(len(inputs)) % 2, 1e-6, 1.0)
        return {at: size[:, None] * np.array([[1.0, 1e-9, 0.0]], "float32")}

    found = run(images(8), tmp_path / "a.zarr", tiny, dtype="float16")
    assert found.failures == dict.fromkeys([1, 3, 5, 7], "the result at `conv1` is too small for float16")
    np.testing.assert_allclose(found["conv1"][::2], [[1.0, 0.0, 0.0]] * 4)
    run(np.zeros((8, 6, 6, 2), "float32"), tmp_path / "b.zarr", lambda m, i, *, target, at: {at: np.zeros((len(i), 2))})


# -- axes --------------------------------------------------------------------------------------------------------------


def test_a_map_has_places_and_no_channels(tmp_path):
    x = images(12)
    found = run(x, tmp_path / "maps.zarr", "grad_cam")
    assert found["conv1"].dimensions == ("example", "conv1.height", "conv1.width")
    assert found["conv1"].ndim == 3 and found["conv1"].size == found["conv1"][:].size
    maps = np.asarray(gt.attribution.grad_cam(images_model(), x, target=1, at="conv1").only, np.float64)
    mean = run(x, tmp_path / "mean.zarr", dataset.mean("grad_cam", per="channel"))["conv1"]
    np.testing.assert_allclose(mean[:], [maps.mean()], rtol=1e-6)
    assert mean.dimensions == ("conv1.channel",)
    top = run(x, tmp_path / "top.zarr", dataset.top_examples("grad_cam", k=3))["conv1"]
    assert top[:].tolist() == [np.argsort(-maps.max((1, 2)), kind="stable")[:3].tolist()]
    assert top.dimensions == ("conv1.channel", "conv1.rank")
    spread = run(x, tmp_path / "unit.zarr", dataset.variance("grad_cam"))["conv1"]
    assert spread.dimensions == ("conv1.height", "conv1.width")
    np.testing.assert_allclose(spread[:], maps.var(0), atol=1e-12)


def test_attention_has_heads(tmp_path):
    keras.utils.set_random_seed(0)
    x = inputs = keras.Input((5, 8))
    x = keras.layers.MultiHeadAttention(2, 4, name="mix")(x, x)
    model = keras.Model(inputs, keras.layers.Dense(3)(keras.layers.GlobalAveragePooling1D()(x)))
    data = np.random.default_rng(0).normal(size=(6, 5, 8)).astype("float32")
    found = dataset.run(model, data, "gradients", tmp_path / "a.zarr", at=["mix", "mix:attention"], target=0)
    assert found["mix:attention"].dimensions[1:] == tuple(f"mix:attention.{n}" for n in ("head", "query", "key"))
    assert found["mix"].dimensions == ("example", "mix.time", "mix.channel")


def test_a_statistic_of_units_over_several_shapes_is_refused(tmp_path):
    x = keras.Input((None, 2))
    model = keras.Model(x, keras.layers.Dense(2)(keras.layers.LSTM(3, return_sequences=True, name="lstm")(x)[:, -1]))
    data = [np.ones((n, 2), "float32") for n in (3, 5, 3)]
    asked = {"at": "lstm", "target": 0}
    with pytest.raises(gt.errors.ArgumentError, match="examples differ"):
        dataset.run(model, data, dataset.mean(), tmp_path / "a.zarr", **asked)
    found = dataset.run(model, data, dataset.mean(per="channel"), tmp_path / "b.zarr", **asked)
    rows = [np.asarray(gt.gradients(model, one[None], at="lstm", target=0).only)[0] for one in data]
    np.testing.assert_allclose(found["lstm"][:], np.concatenate(rows).astype(float).mean(0), atol=1e-9)
