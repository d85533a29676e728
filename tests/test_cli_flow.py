"""`gradtap flow`: a model file measured, networks compared, pages written, and the exit status of --strict."""

from __future__ import annotations

import json

import keras
import numpy as np
import pytest
from keras import layers

from command_line import run, save_model
from gradtap import flow


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("flow")
    keras.utils.set_random_seed(0)
    for name, activation in (("deep", "sigmoid"), ("good", "relu")):
        hidden = [
            layers.Dense(16, activation=activation, kernel_initializer="he_normal", name=f"dense{i}")
            for i in range(10 if name == "deep" else 3)
        ]
        model = keras.Sequential(
            [keras.Input((8,), name="x"), *hidden, layers.Dense(3, activation="softmax", name="scores")]
        )
        save_model(model, folder / f"{name}.keras")
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(24, 8)).astype("float32"), rng.integers(0, 3, 24)
    np.save(folder / "x.npy", x)
    np.save(folder / "y.npy", y)
    np.savez(folder / "both.npz", x=x, labels=y)
    np.savez(folder / "vectors.npz", inputs=x, labels=y)
    return folder


def test_a_measurement_is_that_of_the_library(files):
    out = json.loads(run("flow", "measure", files / "deep.keras", files / "both.npz", "--json").stdout)
    model = keras.models.load_model(files / "deep.keras")
    found = flow.measure(model, np.load(files / "x.npy"), labels=np.load(files / "y.npy"))
    for row, expected in zip(out["rows"], found.rows, strict=True):
        assert row["address"] == expected.address
        np.testing.assert_allclose(row["gradient_norm"], expected.gradient_norm, rtol=1e-4)
    assert out["findings"][0]["kind"] == "vanishing" and out["findings"][0]["tap"] == "dense0"


def test_labels_come_from_a_file_of_their_own_or_beside_the_inputs_and_else_the_predicted_class_is_taken(files):
    by = [
        run("flow", "measure", files / "deep.keras", files / "both.npz", "--json"),
        run("flow", "measure", files / "deep.keras", files / "x.npy", "--labels", files / "y.npy", "--json"),
        run("flow", "measure", files / "deep.keras", files / "x.npy", "--json"),
    ]
    targets = [json.loads(one.stdout)["target"] for one in by]
    assert targets[0] == targets[1] != targets[2] < 1.0


def test_strict_ends_with_3_where_something_is_found(files):
    assert (
        "vanishing at `dense0`"
        in run("flow", "measure", files / "deep.keras", files / "both.npz", "--strict", code=3).output
    )
    assert "nothing is wrong" in run("flow", "measure", files / "good.keras", files / "both.npz", "--strict").output
    run("flow", "measure", files / "deep.keras", files / "both.npz")


def test_a_page_stands_by_itself(files, tmp_path):
    page = tmp_path / "flow.html"
    run("flow", "measure", files / "deep.keras", files / "both.npz", "--html", page)
    text = page.read_text(encoding="utf-8")
    assert text.startswith("<!doctype html>") and "vanishing" in text and "dense3" in text
    assert 'src="data:image/png;base64,' in text and "http" not in text.replace("data:image", "")
    run(
        "flow",
        "compare",
        "--activations",
        "relu,sigmoid",
        "--depth",
        "2",
        "--seeds",
        "1",
        "--steps",
        "0",
        "--html",
        page,
    )
    assert "sigmoid" in page.read_text(encoding="utf-8")


def test_a_page_that_cannot_be_written_is_said_first(files, tmp_path):
    assert (
        "cannot be written"
        in run(
            "flow", "measure", files / "deep.keras", files / "both.npz", "--html", tmp_path / "no" / "flow.html", code=1
        ).output
    )


def test_a_comparison_of_files_and_names(files):
    shown = run(
        "flow",
        "compare",
        "--activations",
        "relu,sigmoid",
        "--architectures",
        "plain,recurrent",
        "--depth",
        "2,9",
        "--seeds",
        "1",
        "--steps",
        "0",
        "--data",
        files / "vectors.npz",
        "--json",
    ).stdout
    models = json.loads(shown)["models"]
    names = [
        f"{kind} {name} {depth}" for kind in ("plain", "recurrent") for name in ("relu", "sigmoid") for depth in (2, 9)
    ]
    assert [one["name"] for one in models] == names and {one["stage"] for one in models} == {"initial"}
    assert next(one for one in models if one["name"] == "plain sigmoid 9")["findings"] == {"vanishing": 1}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--activations", "rleu"], "`relu`"),
        (["--architectures", "plane"], "`plain`"),
        (["--depth", "4,x"], "4,16,64"),
        (["--depth", "0"], "4,16,64"),
        (["--activations", " "], "names nothing"),
    ],
)
def test_wrong_words_are_said(options, said):
    assert said in run("flow", "compare", *options, code=2).output


def test_data_that_are_no_vectors_are_said(files, tmp_path):
    np.savez(tmp_path / "odd.npz", inputs=np.zeros((3, 4)), labels=np.zeros(3))
    assert "no classes" in run("flow", "compare", "--data", tmp_path / "odd.npz", code=1).output
    assert "does not hold vectors" in run("flow", "compare", "--data", files / "both.npz", code=1).output
