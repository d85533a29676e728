"""`gradtap run`: what it writes, prints and refuses."""

from __future__ import annotations

import functools
import json
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

import gradtap as gt
from command_line import run, save_images, save_models
from gradtap import dataset

pytest.importorskip("zarr")
pytest.importorskip("PIL.Image")


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    return save_models(tmp_path_factory.mktemp("models"))


@pytest.fixture
def x(tmp_path):
    np.save(tmp_path / "x.npy", np.random.default_rng(0).random((21, 8, 10, 3), dtype=np.float32))
    return tmp_path / "x.npy"


def test_the_arrays_are_those_of_the_library(models, x, tmp_path):
    out = tmp_path / "out.zarr"
    printed = run(
        "run", models["colour"], x, "--at", "conv1", "--at", "conv2", "--target", 2, "--store", out, "--block", 8
    )
    g = gt.gradients(models["colour"], np.load(x), target=2, at=["conv1", "conv2"])
    found = dataset.open(out)
    for address in g:
        np.testing.assert_allclose(found[address][:], g[address], atol=1e-7)
    assert "21, 0 of them failed" in printed.output and "3 of 3 done" in printed.output
    assert "conv1  21 × 8 × 10 × 4  float32" in printed.output


def test_a_folder_of_images_and_the_predicted_class(models, tmp_path):
    images = save_images(tmp_path / "images")
    (images / "c.png").write_text("no image")
    out = tmp_path / "out.zarr"
    said = json.loads(run("run", models["colour"], images, "--at", "conv1", "--store", out, "--json").stdout)
    assert said["failures"] == [{"example": 2, "name": "c.png", "reason": "it is not an image of a known kind"}]
    assert said["examples"] == 3 and said["blocks_done"] == said["blocks"] == 1
    assert said["taps"] == [{"address": "conv1", "shape": [3, 8, 10, 4], "dtype": "float32"}]
    assert dataset.open(out).made_of["arguments"]["target"] == "predicted"
    (images / "c.png").write_bytes((images / "b.png").read_bytes())
    again = run("run", models["colour"], images, "--at", "conv1", "--store", out, code=1)
    assert (
        "data.content" in again.stderr and "--retry: what failed is computed anew, and what has changed" in again.stderr
    )
    run("run", models["colour"], images, "--at", "conv1", "--store", out, "--retry")
    found = dataset.open(out)
    np.testing.assert_array_equal(found["conv1"][2], found["conv1"][1])


def test_a_model_with_one_number_needs_no_target(models, tmp_path):
    np.savez(tmp_path / "two.npz", a=np.ones((5, 4), "float32"), b=np.ones((5, 2), "float32"))
    run("run", models["two"], tmp_path / "two.npz", "--at", "hidden", "--store", tmp_path / "out.zarr")
    assert dataset.open(tmp_path / "out.zarr").made_of["arguments"]["target"] is None


def test_statistics_attacks_and_options(models, x, tmp_path):
    values = np.asarray(gt.activations(models["colour"], np.load(x), at="conv1").only, np.float64)
    common = ["run", models["colour"], x, "--at", "conv1", "--of", "activations"]
    run(*common, "--method", "mean", "--option", 'per="channel"', "--store", tmp_path / "m.zarr")
    np.testing.assert_allclose(dataset.open(tmp_path / "m.zarr")["conv1"][:], values.mean(axis=(0, 1, 2)), rtol=1e-5)
    run(*common, "--method", "histogram", "--option", "edges=[0,0.1,9]", "--store", tmp_path / "h.zarr")
    counts = np.stack([np.histogram(values[..., k], [0, 0.1, 9])[0] for k in range(4)])
    np.testing.assert_array_equal(dataset.open(tmp_path / "h.zarr")["conv1"][:], counts)
    assert "--option edges" in run(*common, "--method", "histogram", "--store", tmp_path / "z.zarr", code=2).stderr
    np.save(tmp_path / "y.npy", np.arange(21) % 3)
    attack = ["--method", "fgsm", "--option", "epsilon=0.05", "--target", tmp_path / "y.npy"]
    run("run", models["colour"], x, "--at", ":input", *attack, "--store", tmp_path / "f.zarr")
    expected = gt.attacks.fgsm(models["colour"], np.load(x), np.arange(21) % 3, epsilon=0.05)
    np.testing.assert_allclose(dataset.open(tmp_path / "f.zarr")[":input"][:], expected.examples, atol=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--target", "1"], "arguments.target 0 in the store, 1 asked"),
        (["--block", "5"], "run.block   8 in the store, 5 asked"),
        (["--dtype", "float16"], "arguments.dtype nothing in the store, float16 asked"),
    ],
)
def test_another_run_ends_with_status_1_and_the_difference(models, x, tmp_path, change, message):
    first = [
        "run",
        models["colour"],
        x,
        "--at",
        "conv1",
        "--store",
        tmp_path / "o.zarr",
        "--target",
        "0",
        "--block",
        "8",
    ]
    run(*first)
    assert message in run(*first, *change, code=1).stderr


@pytest.mark.parametrize(
    ("arguments", "message", "code"),
    [
        (["--of", "activations"], "--of is for statistics", 2),
        (["--scheduler", "tcp://a:1"], "--scheduler is for --engine dask", 2),
        (["--option", "steps"], "is not NAME=VALUE", 2),
        (["--engine", "spark"], "'spark' is not one of", 2),
        (["--method", "gradiens"], "method='gradiens' is not a choice", 1),
        (["--option", "stepz=3"], "has no keyword `stepz`", 1),
        (["--size", "9"], "image_size= are for folders of images", 1),
        (["--target", "nothing.npy"], "there is no such file", 1),
    ],
)
def test_mistakes(models, x, tmp_path, arguments, message, code):
    whole = ["run", models["colour"], x, "--at", "conv1", "--store", tmp_path / "o.zarr", *arguments]
    assert message in run(*whole, code=code).stderr
    assert not (tmp_path / "o.zarr").exists()


def test_ctrl_c_ends_with_130_and_the_same_command_goes_on(models, tmp_path):
    np.save(tmp_path / "x.npy", np.random.default_rng(0).random((400, 8, 10, 3), dtype=np.float32))
    arguments = ["run", models["colour"], tmp_path / "x.npy", "--at", "conv1", "--target", "0", "--block", "1"]
    arguments = [*map(str, arguments), "--store"]
    command = [sys.executable, "-m", "gradtap", *arguments, str(tmp_path / "a.zarr"), "--json"]
    # Where the tests run in the background of a shell, Ctrl-C is ignored, and what they start would ignore it too.
    heard = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    pipes = {"stderr": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, preexec_fn=heard, **pipes) as process:
        line = next(line for line in process.stderr if line.startswith("{"))  # TensorFlow may say something before
        first = json.loads(line)
        process.send_signal(signal.SIGINT)
        start = time.monotonic()
        assert process.wait(timeout=60) == 130
        assert time.monotonic() - start < 30
        assert process.stdout.read() == ""
    assert first["examples"] == 400 and 0 < first["done"] < 400
    assert not dataset.open(tmp_path / "a.zarr").complete and not (tmp_path / "a.zarr.lock").exists()
    run(*arguments, tmp_path / "a.zarr")
    g = gt.gradients(models["colour"], np.load(tmp_path / "x.npy"), target=0, at="conv1").only
    np.testing.assert_allclose(dataset.open(tmp_path / "a.zarr")["conv1"][:], g, atol=1e-7)
