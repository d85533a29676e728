"""The command line: images and arrays as inputs, and files that are none."""

from __future__ import annotations

import json

import numpy as np
import pytest

from command_line import loaded, run, save_images, save_models
from gradtap.errors import GradtapError

Image = pytest.importorskip("PIL.Image")


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    return save_models(tmp_path_factory.mktemp("models"))


@pytest.fixture
def images(tmp_path):
    return save_images(tmp_path / "images")


@pytest.mark.parametrize("name", ["none", "unit", "symmetric", "tflite", "imagenet", "caffe"])
def test_preprocessings(name, models, tmp_path):
    pixels = np.arange(240, dtype=np.uint8).reshape(8, 10, 3)
    Image.fromarray(pixels).save(tmp_path / "x.png")
    expected = {
        "none": pixels * 1.0,
        "unit": pixels / 255,
        "symmetric": pixels / 127.5 - 1,
        "tflite": (pixels - 127.0) / 128,
        "imagenet": (pixels / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225],
        "caffe": pixels[..., ::-1] - np.array([103.939, 116.779, 123.68]),
    }[name]
    out = tmp_path / "x.npz"
    run(
        *("gradients", models["colour"], tmp_path / "x.png", "--at", ":input", "--preprocess", name),
        *("-o", out, "--no-picture"),
    )
    np.testing.assert_allclose(loaded(out)["activation/:input"][0], expected, rtol=1e-5, atol=1e-5)
    assert not (tmp_path / "x.npz.png").exists() and len(list(tmp_path.iterdir())) == 2


def test_arrays_are_taken_as_they_are(models, tmp_path):
    x = np.random.default_rng(0).normal(size=(3, 8, 10, 3)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    out = tmp_path / "out.npz"
    run("gradients", models["colour"], tmp_path / "x.npy", "--at", ":input", "-o", out, "--batch-size", 2)
    arrays = loaded(out)
    np.testing.assert_array_equal(arrays["activation/:input"], x)
    assert list(arrays["inputs"]) == ["x.npy[0]", "x.npy[1]", "x.npy[2]"]
    np.save(tmp_path / "one.npy", x[1])
    run("gradients", models["colour"], tmp_path / "one.npy", "--at", ":input", "-o", tmp_path / "one.npz")
    one = loaded(tmp_path / "one.npz")
    np.testing.assert_allclose(one["gradient/:input"][0], arrays["gradient/:input"][1], rtol=1e-5, atol=1e-8)


def test_several_inputs_come_by_name_or_in_order(models, tmp_path):
    random = np.random.default_rng(0)
    a, b = random.normal(size=(3, 4)).astype("f4"), random.normal(size=(3, 2)).astype("f4")
    np.savez(tmp_path / "names.npz", b=b, a=a)
    np.savez(tmp_path / "order.npz", a, b)
    for name in ("names", "order"):
        out = tmp_path / f"{name}-out.npz"
        run("gradients", models["two"], tmp_path / f"{name}.npz", "--at", "hidden", "--at", "both", "-o", out)
        np.testing.assert_array_equal(loaded(out)["activation/both"], np.concatenate([a, b], 1))
    # One number per example is the target without being asked for.
    text = run("gradients", models["two"], tmp_path / "names.npz", "--at", "hidden", "--json").stdout
    assert json.loads(text)["target"] == "one number per example"


def input_of(model, image, tmp_path, *options):
    out = tmp_path / "input.npz"
    run("gradients", model, image, "--at", ":input", "--preprocess", "none", "--no-picture", "-o", out, *options)
    return loaded(out)["activation/:input"][0]


def test_exif_orientation_is_honoured(models, tmp_path):
    upright = np.zeros((8, 10, 3), np.uint8)
    upright[0] = 200
    stored = Image.fromarray(np.rot90(upright).copy())
    exif = Image.Exif()
    exif[0x0112] = 6  # turn clockwise to show
    stored.save(tmp_path / "x.png", exif=exif)
    np.testing.assert_array_equal(input_of(models["colour"], tmp_path / "x.png", tmp_path), upright)


def test_kinds_of_images_become_what_the_model_takes(models, tmp_path):
    grey = np.arange(80, dtype=np.uint8).reshape(8, 10)
    Image.fromarray(grey).save(tmp_path / "grey.png")
    np.testing.assert_array_equal(
        input_of(models["colour"], tmp_path / "grey.png", tmp_path), np.repeat(grey[..., None], 3, -1)
    )
    np.testing.assert_array_equal(input_of(models["grey"], tmp_path / "grey.png", tmp_path)[..., 0], grey)
    Image.fromarray(grey.astype(np.uint16) * 257).save(tmp_path / "deep.png")
    np.testing.assert_array_equal(input_of(models["grey"], tmp_path / "deep.png", tmp_path)[..., 0], grey)
    clear = np.zeros((8, 10, 4), np.uint8)
    clear[:4, :, 3] = 255
    Image.fromarray(clear).save(tmp_path / "clear.png")
    shown = input_of(models["colour"], tmp_path / "clear.png", tmp_path)
    assert (shown[:4] == 0).all() and (shown[4:] == 255).all()
    palette = Image.fromarray(np.repeat(grey[..., None], 3, -1)).convert("P")
    palette.save(tmp_path / "palette.gif")
    assert input_of(models["colour"], tmp_path / "palette.gif", tmp_path).shape == (8, 10, 3)
    assert (
        "three colours"
        in run(
            "gradients", models["grey"], tmp_path / "grey.png", "--at", "pool", "--preprocess", "caffe", code=1
        ).stderr
    )


def test_a_model_of_whole_numbers_gets_the_pixels_themselves(models, images, tmp_path):
    out = tmp_path / "out.npz"
    arguments = ("gradients", models["whole"], images, "--at", "rescaled", "-o", out)
    run(*arguments)
    unit = tmp_path / "unit.npz"
    run("gradients", models["colour"], images, "--at", ":input", "-o", unit)
    np.testing.assert_allclose(loaded(out)["activation/rescaled"], loaded(unit)["activation/:input"], atol=1e-6)
    assert "whole numbers" in run(*arguments, "--preprocess", "unit", code=1).stderr


def test_a_model_of_any_size_takes_images_as_they_are(models, images, tmp_path):
    assert input_of(models["free"], images / "a.jpg", tmp_path).shape == (31, 40, 3)
    assert input_of(models["free"], images / "a.jpg", tmp_path, "--size", "9x12").shape == (9, 12, 3)
    mixed = run("gradients", models["free"], images, "--at", "pool", code=1).stderr
    assert "31x40 (`a.jpg`), 20x16 (`b.png`)" in mixed and "--size" in mixed
    run("gradients", models["free"], images, "--at", "pool", "--size", "12")


def test_a_size_that_the_model_does_not_take(models, images, tmp_path):
    arguments = ("gradients", models["colour"], images / "b.png", "--at", "conv1")
    error = run(*arguments, "--size", "20x20", code=1).stderr
    assert "images of 8x10 (height x width) and no other" in error and "--size 20x20" in error
    assert "8 × 10" in run(*arguments, "--size", "8x10").stdout


def test_inputs_that_cannot_be_read(models, images, tmp_path):
    def error(*inputs, model="colour"):
        return run("gradients", models[model], *inputs, "--at", "conv1", code=1).stderr

    (tmp_path / "empty").mkdir()
    assert "has no image" in error(tmp_path / "empty") and "no file" in error(tmp_path / "empty")
    assert "no such file" in error(tmp_path / "none.png")
    whole = (images / "b.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    assert "`" + str(tmp_path / "cut.png") + "` cannot be read" in error(tmp_path / "cut.png")
    assert "not an image" in error(images / "notes.txt")
    (tmp_path / "bad.npy").write_bytes(b"nonsense")
    assert "damaged" in error(tmp_path / "bad.npy")
    np.save(tmp_path / "objects.npy", np.array([{"a": 1}]), allow_pickle=True)
    assert "objects instead of numbers" in error(tmp_path / "objects.npy")
    (tmp_path / "bad.npz").write_bytes(b"PK\x03\x04 cut short")
    assert "cannot be read" in error(tmp_path / "bad.npz")
    np.save(tmp_path / "x.npy", np.ones((4, 4, 3)))
    assert "takes       (batch, 8, 10, 3)" in error(tmp_path / "x.npy")
    assert "stands beside 2 other inputs" in error(tmp_path / "x.npy", images)
    assert "takes 2 inputs" in error(images / "b.png", model="two")
    assert "not an image" in error(images / "b.png", model="heads")
    assert (
        "taken as they are"
        in run(
            "gradients", models["colour"], tmp_path / "x.npy", "--at", "conv1", "--preprocess", "unit", code=1
        ).stderr
    )


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".png", ".jpg", ".gif"])
def test_random_damage_never_ends_in_another_error(suffix, tmp_path):
    from gradtap.files.arrays import load_arrays
    from gradtap.files.images import open_image

    random = np.random.default_rng(0)
    file = tmp_path / f"x{suffix}"
    if suffix == ".npy":
        np.save(file, np.ones((3, 4)))
    elif suffix == ".npz":
        np.savez(file, a=np.ones((3, 4)), b=np.ones(2))
    else:
        Image.fromarray(random.integers(0, 256, (12, 10, 3), dtype=np.uint8)).save(file)
    whole = file.read_bytes()
    refused = 0
    for turn in range(150):
        damaged = bytearray(whole[: random.integers(1, len(whole))] if turn % 3 == 0 else whole)
        for _ in range(3):
            damaged[random.integers(min(len(damaged), 160))] = random.integers(256)
        file.write_bytes(damaged)
        try:
            (load_arrays if suffix in (".npy", ".npz") else open_image)(file)
        except GradtapError:
            refused += 1
    assert refused > 20
