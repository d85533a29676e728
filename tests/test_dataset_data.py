"""Data of every kind gives the same numbers, and says what is wrong with it."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

import gradtap as gt
from gradtap import dataset
from stores import images, images_model, layers, sequence_model

zarr = pytest.importorskip("zarr")

X = images()
EXPECTED = {}


@pytest.fixture(scope="module")
def model():
    return images_model()


def run(model, data, folder, **more):
    return dataset.run(
        model, data, "gradients", folder / "out.zarr", **({"at": "conv1", "target": 1, "block": 4} | more)
    )


class Items:
    def __len__(self):
        return len(X)

    def __getitem__(self, i):
        return X[i], i % 2


class Loader(keras.utils.PyDataset):
    def __len__(self):
        return 4

    def __getitem__(self, i):
        return X[7 * i : 7 * i + 7], np.zeros(7)


def of_npy(folder):
    np.save(folder / "x.npy", X)
    return folder / "x.npy"


def of_npz(folder):
    np.savez(folder / "x.npz", X)
    return str(folder / "x.npz")


def of_zarr(folder):
    array = zarr.create_array(folder / "x.zarr", shape=X.shape, chunks=(5, 6, 6, 2), dtype="float32", overwrite=True)
    array[:] = X
    return folder / "x.zarr"


def of_zarr_group(folder):
    group = zarr.open_group(folder / "g.zarr", mode="w")
    group.create_array("images", shape=X.shape, dtype="float32")[:] = X
    group.create_array("labels", shape=(23,), dtype="int64")[:] = 0
    return folder / "g.zarr"


def of_parquet(folder):
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    kind = pa.fixed_shape_tensor(pa.float32(), [6, 6, 2])
    column = pa.ExtensionArray.from_storage(kind, pa.FixedSizeListArray.from_arrays(pa.array(X.ravel()), 72))
    table = pa.table({"images": column, "labels": pa.array(np.arange(23))})
    parquet.write_table(table, folder / "x.parquet", row_group_size=6)
    return folder / "x.parquet"


KINDS = {
    "an array": lambda folder: X,
    "a tensor": lambda folder: tf.constant(X),
    "a list": lambda folder: list(X),
    "a sequence with labels": lambda folder: Items(),
    "a PyDataset": lambda folder: Loader(),
    "tf.data": lambda folder: tf.data.Dataset.from_tensor_slices((X, np.zeros(23))).batch(5),
    "tf.data of unknown length": lambda folder: tf.data.Dataset.from_tensor_slices(X).filter(lambda x: True).batch(5),
    ".npy": of_npy,
    ".npz": of_npz,
    "Zarr": of_zarr,
    "an open Zarr": lambda folder: zarr.open(of_zarr(folder), mode="r"),
    "a dict": lambda folder: {"image": X},
}


@pytest.mark.parametrize("kind", KINDS)
def test_data_of_any_kind_gives_the_same(model, tmp_path, kind):
    found = run(model, KINDS[kind](tmp_path), tmp_path)
    np.testing.assert_allclose(found["conv1"][:], gt.gradients(model, X, target=1, at="conv1").only, atol=1e-7)
    assert run(model, KINDS[kind](tmp_path), tmp_path).complete, "the same data is known again"


@pytest.mark.parametrize("make", [of_zarr_group, of_parquet])
def test_columns_are_chosen_by_name(model, tmp_path, make):
    data = make(tmp_path)
    found = run(model, data, tmp_path, columns=["images"])
    np.testing.assert_allclose(found["conv1"][:], gt.gradients(model, X, target=1, at="conv1").only, atol=1e-7)
    with pytest.raises(gt.errors.InputFileError, match="has no `image`") as caught:
        run(model, data, tmp_path / "..", columns=["image"])
    assert "`images`" in str(caught.value)


def test_several_inputs_by_name(tmp_path):
    a, b = keras.Input((3,), name="a"), keras.Input((2,), name="b")
    model = keras.Model([a, b], layers.Dense(1, name="d")(layers.Concatenate(name="both")([a, b])))
    rng = np.random.default_rng(0)
    data = {"b": rng.normal(size=(9, 2)).astype("float32"), "a": rng.normal(size=(9, 3)).astype("float32")}
    np.savez(tmp_path / "x.npz", **data)
    expected = gt.activations(model, data, at="d").only
    for number, given in enumerate([data, tmp_path / "x.npz", [{k: v[i] for k, v in data.items()} for i in range(9)]]):
        found = dataset.run(model, given, "activations", tmp_path / f"{number}.zarr", at="d", block=4)
        np.testing.assert_allclose(found["d"][:], expected, atol=1e-6)


def test_lists_of_any_length_from_parquet(tmp_path):
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    model, rng = sequence_model(), np.random.default_rng(1)
    rows = [rng.normal(size=(n, 2)).astype("float32") for n in (3, 1, 4)]
    parquet.write_table(
        pa.table({"steps": pa.array([r.tolist() for r in rows] + [None], pa.list_(pa.list_(pa.float32())))}),
        tmp_path / "x.parquet",
    )
    found = dataset.run(model, tmp_path / "x.parquet", "gradients", tmp_path / "o.zarr", at="lstm", target=0)
    for i, row in enumerate(rows):
        expected = gt.gradients(model, row[None], target=0, at="lstm").only[0]
        np.testing.assert_allclose(found["lstm"].example(i), expected, atol=1e-6)
    assert found.failures == {3: "ValueError: the entry is empty"}


# -- images ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path):
    image = pytest.importorskip("PIL.Image")
    rng = np.random.default_rng(2)
    for name, size in [("b/2.png", (9, 7)), ("b/1.jpg", (8, 8)), ("a.png", (20, 6))]:
        file = tmp_path / "images" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)).save(file)
    (tmp_path / "images" / "broken.png").write_bytes(b"\x89PNG no more")
    (tmp_path / "images" / "notes.txt").write_text("no image")
    return tmp_path / "images"


def colour_model(height=6, width=6):
    keras.utils.set_random_seed(1)
    stack = [layers.Conv2D(2, 3, name="conv1"), layers.GlobalAveragePooling2D(name="p"), layers.Dense(2, name="d")]
    return keras.Sequential([keras.Input((height, width, 3), name="image"), *stack])


def by_hand(model, file, size=(6, 6), scale=255):
    from PIL import Image

    image = Image.open(file).convert("RGB")
    image = image.resize(size[::-1], Image.Resampling.BICUBIC) if size else image
    return gt.gradients(model, np.asarray(image, np.float32)[None] / scale, target=1, at="conv1").only[0]


def test_a_folder_of_images(folder, tmp_path):
    model = colour_model()
    found = run(model, folder, tmp_path, block=2)
    assert [found.name(i) for i in range(4)] == ["a.png", "b/1.jpg", "b/2.png", "broken.png"]
    assert found.failures == {3: "it is not an image of a known kind"}
    for i in range(3):
        np.testing.assert_allclose(found["conv1"][i], by_hand(model, folder / found.name(i)), atol=1e-6)
    (folder / "broken.png").write_bytes((folder / "a.png").read_bytes())
    fixed = run(model, folder, tmp_path, block=2, retry=True)
    assert fixed.failures == {}
    np.testing.assert_allclose(fixed["conv1"][3], by_hand(model, folder / "a.png"), atol=1e-6)


def test_images_of_their_own_size_and_of_one(folder, tmp_path):
    model = colour_model(None, None)
    found = run(model, folder, tmp_path)
    for i in range(3):
        np.testing.assert_allclose(
            found["conv1"].example(i), by_hand(model, folder / found.name(i), size=None), atol=1e-6
        )
    (tmp_path / "b").mkdir()
    found = run(model, folder, tmp_path / "b", image_size=(9, 5), preprocess="none")
    for i in range(3):
        np.testing.assert_allclose(
            found["conv1"][i], by_hand(model, folder / found.name(i), (9, 5), 1), rtol=1e-4, atol=1e-6
        )
    with pytest.raises(gt.errors.StoreMismatchError, match=r"data\.preprocess"):
        run(model, folder, tmp_path / "b", image_size=(9, 5))
    with pytest.raises(gt.errors.ArgumentError, match="not what the model takes"):
        run(colour_model(), folder, tmp_path / "b", image_size=(9, 5))


def test_a_folder_that_is_another_is_refused(folder, tmp_path):
    run(colour_model(), folder, tmp_path)
    (folder / "a.png").rename(folder / "c.png")
    with pytest.raises(gt.errors.StoreMismatchError, match=r"data\.names"):
        run(colour_model(), folder, tmp_path)


# -- what is wrong -----------------------------------------------------------------------------------------------------


def test_data_that_is_none(model, tmp_path):
    for error, data in [
        (gt.errors.InputFileError, tmp_path / "nothing.npy"),
        (gt.errors.InputFileError, "gs://bucket/x.npy"),
        (gt.errors.InputFileError, tmp_path),
        (gt.errors.InputStructureError, 3),
        (gt.errors.InputStructureError, iter([X])),
        (gt.errors.InputStructureError, tf.data.Dataset.from_tensors(X).repeat()),
    ]:
        with pytest.raises(error):
            run(model, data, tmp_path)
    with pytest.raises(gt.errors.InputShapeError):
        run(model, {"image": X, "other": X[:3]}, tmp_path, columns=["image", "other"])
    (tmp_path / "broken.npy").write_bytes(b"no array")
    (tmp_path / "broken.parquet").write_bytes(b"no table")
    (tmp_path / "x.csv").write_text("1,2")
    for name in ("broken.npy", "broken.parquet", "x.csv"):
        with pytest.raises(gt.errors.InputFileError):
            run(model, tmp_path / name, tmp_path)
    with pytest.raises(gt.errors.ArgumentError, match="folders of images"):
        run(model, X, tmp_path, preprocess="unit")


def test_a_shuffled_dataset_is_refused_where_it_goes_on(model, tmp_path):
    data = tf.data.Dataset.from_tensor_slices(X)
    run(model, data.batch(5), tmp_path)
    with pytest.raises(gt.errors.StoreMismatchError, match=r"data\.content"):
        run(model, data.shuffle(23, seed=1).batch(5), tmp_path)


def test_a_dataset_that_has_grown_is_refused(model, tmp_path):
    run(model, tf.data.Dataset.from_tensor_slices(X[:20]).batch(5, drop_remainder=True), tmp_path)
    with pytest.raises(gt.errors.StoreMismatchError, match=r"run\.examples"):
        run(model, tf.data.Dataset.from_tensor_slices(np.r_[X[:20], X[:5]]).batch(5, drop_remainder=True), tmp_path)


def test_a_dataset_that_ends_early_is_told(model, tmp_path):
    def examples():
        yield from X[: ends[0]]

    ends = [23]
    data = tf.data.Dataset.from_generator(examples, output_signature=tf.TensorSpec((6, 6, 2))).batch(5)
    (tmp_path / "a").mkdir()

    def shorten(progress):
        raise StopIteration

    with pytest.raises(StopIteration):
        run(model, data, tmp_path / "a", progress=shorten)
    ends[0] = 17
    with pytest.raises(gt.errors.StoreMismatchError, match=r"data\.content"):
        run(model, data, tmp_path / "a")
    found = run(model, data, tmp_path / "a", retry=True)
    assert found.failures == dict.fromkeys(range(17, 23), "the dataset ended after 17 examples")


def test_batches_that_break_are_recorded(model, tmp_path):
    class Breaks(Loader):
        def __getitem__(self, i):
            if i == 1:
                raise OSError("the disk is gone")
            return super().__getitem__(i)

    found = run(model, Breaks(), tmp_path)
    assert found.failures == dict.fromkeys(range(7, 14), "OSError: the disk is gone")
    keep = np.r_[0:7, 14:23]
    np.testing.assert_allclose(
        found["conv1"][:][keep], gt.gradients(model, X[keep], target=1, at="conv1").only, atol=1e-7
    )


# -- labels, several inputs, columns -----------------------------------------------------------------------------------


def two_inputs():
    keras.utils.set_random_seed(6)
    a, b = keras.Input((4,), name="a"), keras.Input((3,), name="b")
    x = layers.Concatenate(name="both")([layers.Dense(2)(a), layers.Dense(2)(b)])
    return keras.Model([a, b], layers.Dense(2, name="scores")(x))


A, B = np.random.default_rng(1).normal(size=(11, 4)), np.random.default_rng(2).normal(size=(11, 3))
LABELS = np.arange(11) % 2


class Pairs(keras.utils.PyDataset):
    def __len__(self):
        return 2

    def __getitem__(self, i):
        return A[6 * i : 6 * i + 6], B[6 * i : 6 * i + 6]


@pytest.mark.parametrize(
    "data",
    [
        [A, B],
        (A, B),
        ([A, B], LABELS),
        ({"a": A, "b": B}, LABELS),
        {"label": LABELS, "b": B, "a": A},
        list(zip(A, B, strict=True)),
        Pairs(),
    ],
    ids=["list", "tuple", "with labels", "dict with labels", "dict with a label", "examples", "PyDataset"],
)
def test_two_inputs_in_every_form(data, tmp_path):
    found = dataset.run(two_inputs(), data, "gradients", tmp_path / "a.zarr", at="both", target=1, block=4)
    expected = gt.gradients(two_inputs(), [A, B], at="both", target=1).only
    np.testing.assert_allclose(found["both"][:], expected, atol=1e-6)
    assert found.failures == {}


def test_inputs_and_labels_as_keras_fits_with_them(model, tmp_path):
    found = run(model, (X, np.arange(len(X))), tmp_path)
    np.testing.assert_allclose(found["conv1"][:], gt.gradients(model, X, at="conv1", target=1).only, atol=1e-6)


def test_columns_that_are_no_inputs_are_left_out_or_asked_about(model, tmp_path):
    np.savez(tmp_path / "named.npz", image=X, label=np.arange(len(X)))
    found = run(model, tmp_path / "named.npz", tmp_path)  # the model's input is called image
    np.testing.assert_allclose(found["conv1"][:], gt.gradients(model, X, at="conv1", target=1).only, atol=1e-6)
    np.savez(tmp_path / "other.npz", pixels=X, label=np.arange(len(X)))
    (tmp_path / "b").mkdir()
    with pytest.raises(gt.errors.InputStructureError, match="2 arrays") as caught:
        run(model, tmp_path / "other.npz", tmp_path / "b")
    assert "columns=['label']" in str(caught.value) or "columns=['pixels']" in str(caught.value)
    run(model, tmp_path / "other.npz", tmp_path / "b", columns=["pixels"])


def test_elements_that_are_no_batches_are_told(model, tmp_path):
    with pytest.raises(gt.errors.InputStructureError, match=r"\.batch\(64\)"):
        run(model, tf.data.Dataset.from_tensor_slices(X), tmp_path)
    ragged = tf.data.Dataset.from_tensor_slices(tf.ragged.constant([[1.0, 2.0], [1.0], [3.0]])).ragged_batch(2)
    with pytest.raises(gt.errors.InputStructureError, match="ragged"):
        run(model, ragged, tmp_path)


def test_a_folder_with_links_and_kinds_of_files(tmp_path):
    image = pytest.importorskip("PIL.Image")
    model = keras.Sequential([keras.Input((6, 6, 3)), layers.Conv2D(2, 3, name="conv1"), layers.Flatten()])
    folder, elsewhere = tmp_path / "photos", tmp_path / "elsewhere"
    for place in (folder / "sub.png", elsewhere):
        place.mkdir(parents=True)
    for path in (folder / "a.tiff", folder / "sub.png" / "b.jpg", elsewhere / "c.PNG", folder / ".hidden.png"):
        image.fromarray(np.full((8, 8, 3), 40, np.uint8)).save(path)
    (folder / "linked").symlink_to(elsewhere)
    (elsewhere / "round").symlink_to(folder)
    found = run(model, folder, tmp_path)
    assert [found.name(i) for i in range(found.examples)] == ["a.tiff", "linked/c.PNG", "sub.png/b.jpg"]
    assert found.failures == {}
    labelled = found.to_xarray()
    np.testing.assert_array_equal(labelled["conv1"].sel(example="linked/c.PNG"), found["conv1"][1])
    assert labelled["done"].values.tolist() == [True] * 3
    with pytest.raises(gt.errors.InputFileError, match="the folder"):
        run(model, folder / "a.tiff", tmp_path)


def test_names_are_looked_at_without_reading_the_arrays(model, tmp_path, monkeypatch):
    from gradtap.dataset import kinds_of_data

    loads = []
    load = kinds_of_data.load_arrays
    monkeypatch.setattr(kinds_of_data, "load_arrays", lambda path: loads.append(path) or load(path))
    np.savez(tmp_path / "named.npz", image=X, label=np.arange(len(X)))
    run(model, tmp_path / "named.npz", tmp_path)
    assert len(loads) == 1
    (tmp_path / "broken.npz").write_bytes(b"no archive")
    (tmp_path / "b").mkdir()
    with pytest.raises(gt.errors.InputFileError, match="broken"):
        run(model, tmp_path / "broken.npz", tmp_path / "b")
