"""`gradtap run`: what it writes, prints and refuses."""

from __future__ import annotations

import functools
import json
import re
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
        (["--method", "gradiens"], "there is no method 'gradiens'", 1),
        (["--option", "stepz=3"], "has no keyword `stepz`", 1),
        (["--size", "9"], "--preprocess and --size are for folders of images", 1),
        (["--target", "nothing.npy"], "there is no such file", 1),
        (["--workers", "3"], "--workers is for --engine dask without --scheduler", 2),
        (["--engine", "dask", "--scheduler", "tcp://a:1", "--workers", "3"], "dask without --scheduler", 2),
        (["--method", "meen"], "nearest     `mean`", 1),
        (["--method", "meen"], "statistics  mean, variance, quantiles, histogram, top_examples", 1),
        (["--method", "meen"], "do          give one of them\n", 1),
        (["--method", "mean", "--of", "variance"], "--method variance", 1),
        (["--method", "mean", "--of", "gradeints"], "nearest     `gradients`", 1),
        (["--method", "occlusion"], "do          --option window=...", 1),
        (["--method", "expected_gradients"], "needs `baselines`", 1),
        (["--method", "mean", "--of", "occlusion"], "--option window=...", 1),
        (["--method", "histogram", "--option", "edges=0,1,2"], "do          --option edges=[-1,0,1]", 1),
        (["--method", "histogram", "--option", "edges=[a,b]"], "edges is not a list of numbers", 1),
        (["--method", "quantiles", "--option", "q=abc"], "do          --option q=[0.5]", 1),
        (["--method", "quantiles", "--option", "accuracy=abc"], "accuracy='abc' is not a number", 1),
        (["--method", "top_examples", "--option", "k=abc"], "do          --option k=9", 1),
        (["--method", "top_examples", "--option", "k=2.5"], "k=2.5 is not a positive int", 1),
        (["--column", "a"], "--column is for tables", 1),
        (["--method", "mean", "--dtype", "float16"], "--dtype float16 is not a choice", 1),
        (["--method", "activations", "--logits"], "activations takes no target", 2),
        (["--method", "fgsm", "--option", "epsilon=1", "--target-output", "a"], "fgsm takes labels", 2),
        (["--target-output", "a"], "the model has no output `a`", 1),
    ],
)
def test_mistakes(models, x, tmp_path, arguments, message, code):
    whole = ["run", models["colour"], x, "--at", "conv1", "--store", tmp_path / "o.zarr", *arguments]
    done = run(*whole, code=code)
    assert message in done.stderr and done.stdout == ""
    assert "PosixPath" not in done.stderr and "gt." not in done.stderr
    assert not (tmp_path / "o.zarr").exists()
    assert run(*whole, "--json", code=code).stdout == ""  # an error is text, as of other commands


def test_sizes_and_paths_are_said_as_they_are_typed(models, x, tmp_path):
    images = save_images(tmp_path / "images")
    whole = ["run", models["colour"], images, "--at", "conv1", "--store", tmp_path / "o.zarr"]
    said = run(*whole, "--size", "32x48", code=1).stderr
    assert "--size 32x48 is not what the model takes" in said and "leave --size out" in said
    said = run("run", models["colour"], x, "--at", "conv1", "--store", tmp_path / "o.zarr", "--column", "a", code=1)
    assert f"received    {x}\n" in said.stderr


@pytest.mark.parametrize("logits", [False, True])
@pytest.mark.parametrize("target", [None, "1", "predicted", "y.npy"])
def test_a_class_of_one_of_several_outputs(models, tmp_path, target, logits):
    x, k = np.random.default_rng(0).random((11, 4), dtype="float32"), np.arange(11) % 2
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "y.npy", k)
    asked = [] if target is None else ["--target", tmp_path / target if target.endswith("npy") else target]
    asked += ["--target-output", "left", *(["--logits"] if logits else []), "--block", "4"]
    out = tmp_path / "o.zarr"
    run("run", models["heads"], tmp_path / "x.npy", "--at", "trunk", "--store", out, *asked)
    meant = {None: "predicted", "1": 1, "predicted": "predicted", "y.npy": k}[target]
    score = gt.targets.class_score(meant, output="left", logits=logits)
    expected = gt.gradients(models["heads"], x, target=score, at="trunk").only
    np.testing.assert_allclose(dataset.open(out)["trunk"][:], expected, atol=1e-7)
    again = [*asked[:-2], *([] if logits else ["--logits"]), "--block", "4"]
    if not logits:
        told = run("run", models["heads"], tmp_path / "x.npy", "--at", "trunk", "--store", out, *again, code=1).stderr
        assert "arguments.target" in told


def test_several_outputs_ask_for_an_option_that_there_is(models, tmp_path):
    np.save(tmp_path / "x.npy", np.ones((3, 4), "float32"))
    whole = ["run", models["heads"], tmp_path / "x.npy", "--at", "trunk", "--store", tmp_path / "o.zarr"]
    said = run(*whole, code=1).stderr
    assert "--target k --target-output left" in said
    run(*whole, "--target", "0", "--target-output", "left")


def test_help_names_every_attack_and_statistic_that_there_is():
    from gradtap.cli import run_question
    from gradtap.dataset import methods

    named = {
        name for name, function in methods.named_methods().items() if function.__module__.startswith("gradtap.att")
    }
    attacks = {name for name in named if hasattr(gt.attacks, name)}
    assert attacks == set(run_question.ATTACKS) and tuple(methods.STATISTICS) == run_question.STATISTICS
    said = run("run", "--help").output
    assert all(name in said for name in [*attacks, *run_question.STATISTICS])


def test_a_lock_is_noticed_before_tensorflow_is_imported(models, x, tmp_path):
    from gradtap.locking import locked

    arguments = ["run", models["colour"], x, "--at", "conv1", "--store", tmp_path / "o.zarr"]
    code = (
        "import sys\nfrom gradtap.cli.main import cli\n"
        f"try: cli({[str(one) for one in arguments]!r})\n"
        "except SystemExit as end: print(end.code, 'tensorflow' in sys.modules)"
    )
    with locked(tmp_path / "o.zarr"):
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "1 False\n" and "another run is at work on `o.zarr`" in done.stderr


def test_lines_in_a_pipe_end_where_their_text_ends(models, x, tmp_path):
    said = run("run", models["colour"], x, "--at", "conv1", "--target", 0, "--store", tmp_path / "o.zarr").stdout
    said += run("gradients", models["colour"], x, "--at", "conv1", "--target", 0).stdout
    lines = said.splitlines()
    assert len(lines) > 20 and [line for line in lines if line != line.rstrip()] == []


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
        last = process.stderr.read().splitlines()[-1]
    done, total = re.fullmatch(
        r"interrupted: (\d+) of (\d+) examples are done, in .*a\.zarr; the same command goes on with the others", last
    ).groups()
    assert int(done) == dataset.open(tmp_path / "a.zarr").done.sum() >= first["done"] and total == "400"
    assert first["examples"] == 400 and 0 < first["done"] < 400
    assert not dataset.open(tmp_path / "a.zarr").complete and not (tmp_path / "a.zarr.lock").exists()
    run(*arguments, tmp_path / "a.zarr")
    g = gt.gradients(models["colour"], np.load(tmp_path / "x.npy"), target=0, at="conv1").only
    np.testing.assert_allclose(dataset.open(tmp_path / "a.zarr")["conv1"][:], g, atol=1e-7)
