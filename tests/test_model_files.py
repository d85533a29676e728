"""Model files that are missing, damaged, too new, or hold code; none of it is run."""

from __future__ import annotations

import json
import os
import shutil
import zipfile

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from keras.src.saving.serialization_lib import SafeModeScope

import gradtap as gt
from command_line import save_model
from gradtap.errors import (
    BrokenModelFileError,
    MissingModelFileError,
    ModelFileError,
    NewerModelFileError,
    UnsafeModelFileError,
)
from refusals import ROWS, refuses


def made(*inner):
    """A model of rows with two scores and something before them."""
    return keras.Sequential([keras.Input((4,), name="row"), *inner, layers.Dense(2, name="scores")])


class OfMyOwn(layers.Layer):
    """A layer that Keras is not told of."""

    def call(self, x):
        return 2 * x


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A good file of every form, and some with a layer of one's own or with code."""
    folder = tmp_path_factory.mktemp("models")
    model = made(layers.Dense(3, name="hidden"))
    for name in ("good.keras", "good.h5", "good.hdf5"):
        save_model(model, folder / name)
    model.export(folder / "saved", verbose=False)
    hidden, scores = (layer.kernel.numpy() for layer in model.layers)
    np.save(folder / "slope.npy", hidden @ scores[:, 0])
    save_model(made(OfMyOwn(name="mine")), folder / "mine.keras")
    code = layers.Lambda(lambda z: 2 * z, name="code")
    save_model(made(code), folder / "code.keras")
    save_model(made(code), folder / "code.h5")
    save_model(made(keras.Sequential([keras.Input((4,)), code], name="inner")), folder / "deep.keras")
    model.save_weights(folder / "only.weights.h5")
    return folder


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def load(path, **options):
    return gt.gradients(gt.trace(path, **options), ROWS, target=0, at=":input").only


def rewritten(source, target, **changes):
    """Copy a `.keras` archive; each change is None, bytes, or a function of the bytes, by the name of the member."""
    changes = {f"{name.replace('_', '.')}": change for name, change in changes.items()}
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            change = changes.get(name, old.read(name))
            content = change(old.read(name)) if callable(change) else change
            if content is not None:
                new.writestr(name, content)
    return target


def described(source, target, config, version=keras.__version__):
    """Copy an `.h5` file with another description of the model."""
    shutil.copy(source, target)
    with h5py.File(target, "a") as file:
        file.attrs["model_config"], file.attrs["keras_version"] = config, version
    return target


# -- files that load ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["good.keras", "good.h5", "good.hdf5", "saved"])
@pytest.mark.parametrize("kind", [str, lambda path: path])
def test_every_form_gives_the_same_numbers(files, name, kind):
    by_hand = np.load(files / "slope.npy")  # of a product of two layers without an activation
    np.testing.assert_allclose(load(kind(files / name)), [by_hand, by_hand], rtol=1e-6)


def test_a_newer_file_that_can_be_read_is_read(files):
    newer = rewritten(files / "good.keras", "newer.keras", metadata_json=b'{"keras_version": "9.1.0"}')
    assert load(newer).shape == (2, 4)


@pytest.mark.parametrize("metadata", [None, b"{", b"[]", b'{"keras_version": 3}'])
def test_what_loading_does_not_need_may_be_damaged(files, metadata):
    assert load(rewritten(files / "good.keras", "odd.keras", metadata_json=metadata)).shape == (2, 4)


# -- missing -----------------------------------------------------------------------------------------------------------


def test_a_path_where_nothing_is(files):
    refuses(
        MissingModelFileError,
        lambda: load(files / "god.keras"),
        f"there is no model at `{files / 'god.keras'}`",
        "nearest     `good.keras`",
        "give the path of a model file",
    )
    refuses(MissingModelFileError, lambda: load("nowhere/model.keras"), "why         there is no folder `nowhere`")
    refuses(MissingModelFileError, lambda: load("~nobody-of-that-name/m.keras"), "~nobody-of-that-name/m.keras")
    refuses(MissingModelFileError, lambda: load(""), "there is no model at ``")
    refuses(MissingModelFileError, lambda: load("x" * 5000 + ".keras"), "no model at `xxx")
    refuses(MissingModelFileError, lambda: load("a\0b.keras"), "no model at")
    refuses(MissingModelFileError, lambda: load("https://example.com/m.keras"), "`https://example.com/m", "download it")
    refuses(MissingModelFileError, lambda: gt.forget("model.keras"), "`model.keras`")
    with pytest.raises(FileNotFoundError):
        load("model.keras")


def test_a_link_to_a_file_that_is_gone():
    os.symlink("gone.keras", "link.keras")
    refuses(MissingModelFileError, lambda: load("link.keras"), "it is a link to `gone.keras`, which is not there")


# -- broken ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.99])
@pytest.mark.parametrize("suffix", ["keras", "h5"])
def test_a_file_that_was_cut_off(files, suffix, share):
    whole = (files / f"good.{suffix}").read_bytes()
    with open(f"cut.{suffix}", "wb") as file:
        file.write(whole[: int(share * len(whole))])
    form = "Keras archive" if suffix == "keras" else "HDF5 file"
    parts = f"`cut.{suffix}` is damaged, or no {form}", "it said", "model.save(path)"
    refuses(BrokenModelFileError, lambda: load(f"cut.{suffix}"), *parts)


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"config_json": b"{"}, ["is damaged", "Expecting property name"]),
        ({"config_json": b"\xff\xfe\x00"}, ["is damaged", "codec can't decode"]),
        ({"config_json": b"[" * 100_000 + b"]" * 100_000}, ["is damaged", "recursion"]),
        ({"config_json": None}, ["an archive without a model in it", "it holds    metadata.json", "model.save(path)"]),
        ({"config_json": b"[]"}, ["cannot be loaded", "it said"]),
        ({"config_json": b"null"}, ["cannot be loaded"]),
        ({"config_json": b"{}"}, ["cannot be loaded"]),
        ({"model_weights_h5": None}, ["cannot be loaded", "model.weights.h5"]),
        ({"model_weights_h5": b"x"}, ["cannot be loaded", "it may be damaged"]),
        ({"config_json": lambda c: c.replace(b'"units": 3', b'"units": 5')}, ["cannot be loaded", "shape"]),
        ({"config_json": lambda c: c.replace(b'"units": 3', b'"units": 3, "odd": 1')}, ["cannot be loaded", "odd"]),
    ],
    ids=["cut", "binary", "deep", "none", "list", "null", "empty", "no weights", "bad weights", "units", "argument"],
)
def test_an_archive_that_is_not_whole(files, changes, parts):
    broken = rewritten(files / "good.keras", "broken.keras", **changes)
    refuses(BrokenModelFileError, lambda: load(broken), "`broken.keras`", *parts)


@pytest.mark.parametrize("config", ["{", "[]", 3, "null"])
def test_an_hdf5_file_with_a_strange_description(files, config):
    refuses(BrokenModelFileError, lambda: load(described(files / "good.h5", "odd.h5", config)), "`odd.h5`", "it said")


def test_weights_without_a_model(files):
    parts = "holds weights without a model", "model.load_weights(path)"
    refuses(BrokenModelFileError, lambda: load(files / "only.weights.h5"), *parts)


@pytest.mark.parametrize(
    ("source", "target", "remedy"),
    [
        ("good.keras", "model.h5", "rename it to `model.keras`, which is what it holds"),
        ("good.keras", "model.bin", "rename it to `model.keras`"),
        ("good.keras", "model.KERAS", "rename it to `model.keras`"),
        ("good.h5", "model.keras", "rename it to `model.h5`"),
        ("good.h5", "model", "rename it to `model.h5`"),
        ("saved/saved_model.pb", "model.pb", "give the folder that holds it"),
    ],
)
def test_a_file_under_the_wrong_suffix(files, source, target, remedy):
    shutil.copy(files / source, target)
    refuses(BrokenModelFileError, lambda: load(target), f"`{target}`", remedy)


@pytest.mark.parametrize("name", ["m.pt", "m.onnx", "m.tflite", "m.txt", "m"])
def test_files_of_others(name):
    with zipfile.ZipFile(name, "w") as archive:  # PyTorch's files are archives too
        archive.writestr("data.pkl", b"")
    parts = "is not a model file", ".keras, .h5, .hdf5, a SavedModel folder", "load it with the library that wrote it"
    refuses(BrokenModelFileError, lambda: load(name), *parts)


def test_what_is_no_file():
    os.mkfifo("pipe.keras")  # opening it would wait for ever
    refuses(BrokenModelFileError, lambda: load("pipe.keras"), "`pipe.keras` is not a model file")
    refuses(BrokenModelFileError, lambda: load("/dev/null"), "`/dev/null` is not a model file")


def test_a_file_that_may_not_be_read(files, monkeypatch):
    def refused(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(zipfile, "ZipFile", refused)
    refuses(BrokenModelFileError, lambda: load(files / "good.keras"), "may not be read", "Permission denied")


# -- folders -----------------------------------------------------------------------------------------------------------


def test_a_folder_that_is_no_saved_model(files):
    os.mkdir("empty.keras")
    refuses(BrokenModelFileError, lambda: load("empty.keras"), "`empty.keras` is no SavedModel", "saved_model.pb")
    os.mkdir("garbage")
    with open("garbage/saved_model.pb", "wb") as file:
        file.write(b"garbage")
    refuses(BrokenModelFileError, lambda: load("garbage"), "`garbage` cannot be loaded", "it said")
    shutil.copytree(files / "saved", "bare")
    shutil.rmtree("bare/variables")
    refuses(BrokenModelFileError, lambda: load("bare"), "`bare` cannot be loaded", "it said")


def test_a_signature_that_is_not_there(files):
    refuses(BrokenModelFileError, lambda: load(files / "saved", signature="train"), "no signature `train`", "serving_")


# -- classes that Keras does not know ----------------------------------------------------------------------------------


def test_a_class_of_ones_own(files):
    refuses(
        BrokenModelFileError,
        lambda: load(files / "mine.keras"),
        "Keras does not know the class `OfMyOwn`",
        "register_keras_serializable()",
        "custom_objects",
    )
    with keras.saving.custom_object_scope({"OfMyOwn": OfMyOwn}):
        assert load(files / "mine.keras").shape == (2, 4)


def of_tomorrow(config):
    return config.replace(b'"class_name": "Dense"', b'"class_name": "DenseOfTomorrow"')


@pytest.mark.parametrize("version", ["9.1.0", "9.1.0rc1", "9.1"])
def test_a_file_of_a_newer_keras(files, version):
    metadata = json.dumps({"keras_version": version}).encode()
    newer = rewritten(files / "good.keras", "new.keras", metadata_json=metadata, config_json=of_tomorrow)
    refuses(
        NewerModelFileError,
        lambda: load(newer),
        f"`new.keras` was written by Keras {version}; Keras {keras.__version__} is installed and cannot read it",
        "DenseOfTomorrow",
        f'pip install "keras>={version}"',
    )
    same = rewritten(files / "good.keras", "same.keras", config_json=of_tomorrow)
    refuses(BrokenModelFileError, lambda: load(same), "Keras does not know the class", "DenseOfTomorrow")


def test_an_hdf5_file_of_a_newer_keras(files):
    config = json.dumps({"class_name": "ModelOfTomorrow", "config": {}})
    newer = described(files / "good.h5", "new.h5", config, version="9.1.0")
    refuses(NewerModelFileError, lambda: load(newer), "written by Keras 9.1.0", "ModelOfTomorrow")
    strange = described(files / "good.h5", "strange.h5", config, version='3"; what')
    refuses(BrokenModelFileError, lambda: load(strange), "ModelOfTomorrow")


# -- code --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["code.keras", "code.h5", "deep.keras"])
def test_code_in_a_file_is_refused_unless_it_is_trusted(files, name):
    refuses(
        UnsafeModelFileError,
        lambda: load(files / name),
        "holds Python code in a Lambda layer, which loading it would run",
        "gt.trace(path, safe_mode=False)",
        "replace the Lambda by a layer class",
    )
    assert load(files / name, safe_mode=False).shape == (2, 4)


def test_code_is_refused_whatever_keras_is_told(files, monkeypatch):
    monkeypatch.setattr(keras.saving, "load_model", lambda *_, **__: pytest.fail("the file was loaded"))
    with SafeModeScope(safe_mode=False):
        refuses(UnsafeModelFileError, lambda: load(files / "code.keras"), "holds Python code")


@pytest.mark.parametrize(
    "layer",
    [
        {"class_name": "Lambda", "config": {"function": {"class_name": "__lambda__", "config": {"code": "4wE="}}}},
        {"class_name": "Lambda", "config": {"function": ["4wE=", None, None], "function_type": "lambda"}},
        {"class_name": "Lambda", "config": {"function": ["4wE=", None, None]}},
        {"class_name": "Dense", "config": {"activation": {"class_name": "__lambda__", "config": {}}}},
    ],
)
def test_code_is_found_in_every_form_and_at_every_depth(files, layer):
    config = {
        "class_name": "Sequential",
        "config": {"layers": [{"class_name": "TimeDistributed", "config": {"layer": layer}}]},
    }
    unsafe = rewritten(files / "good.keras", "unsafe.keras", config_json=json.dumps(config).encode())
    refuses(UnsafeModelFileError, lambda: load(unsafe), "`unsafe.keras` holds Python code")
    unsafe = described(files / "good.h5", "unsafe.h5", json.dumps(config))
    refuses(UnsafeModelFileError, lambda: load(unsafe), "`unsafe.h5` holds Python code")


def test_a_lambda_of_a_named_function_is_no_code():
    save_model(made(layers.Lambda(keras.ops.relu, name="relu")), "named.keras")
    assert load("named.keras").shape == (2, 4)


def test_all_of_them_are_one_family():
    for error in (MissingModelFileError, BrokenModelFileError, NewerModelFileError, UnsafeModelFileError):
        assert issubclass(error, ModelFileError) and issubclass(error, OSError)


def test_a_failure_leaves_nothing_behind(files):
    for name in ("code.keras", "mine.keras"):
        with pytest.raises(ModelFileError):
            load(files / name)
    assert load(files / "good.keras").shape == (2, 4)
    assert tf.executing_eagerly()
