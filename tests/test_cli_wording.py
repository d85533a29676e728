"""What the command line says: options and not keywords, and nothing of what TensorFlow prints at its start."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

from command_line import run, save_images, save_model, save_models
from gradtap.cli.wording import for_a_shell, sentence_for_a_shell
from gradtap.errors import GradtapError, SeveralErrors

PYTHON = ("gt.", "class_score(k", "unconnected=", "target=", "logits=True", "safe_mode", "callable")


TRUST, UNDER_NAMES = "if you trust where it comes from", "with an array under each of these names"


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    return save_models(tmp_path_factory.mktemp("models"))


@pytest.fixture
def rows(tmp_path):
    np.save(tmp_path / "rows.npy", np.ones((2, 4), np.float32))
    return tmp_path / "rows.npy"


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("gt.taps(model) lists every address", "gradtap taps MODEL lists every address"),
        ("gt.taps(model) lists them; Tap.op(name) taps an op by its name", "gradtap taps MODEL lists them"),
        ('target=gt.targets.class_score(k, output="p")', "--target k --target-output p"),
        ("target=gt.targets.class_score(k, logits=True), the value before", "--target k --logits, the value before"),
        ('target=gt.targets.class_score("predicted", output="p"), the', "--target predicted --target-output p, the"),
        ('target=gt.targets.class_score((position, k), output="a")', "--target position,k --target-output a"),
        ("target=3 for class 3 of every example", "--target 3 for class 3 of every example"),
        ('target="predicted", the largest score', "--target predicted, the largest score"),
        ("give a tuple (position_1, k)", "--target position_1,k"),
        ("tap an earlier layer or a `:preactivation`, or leave out logits=True", None),
        ("batch_size=1, or fewer taps at a time", "--batch-size 1, or fewer taps at a time"),
        (f"{TRUST}: gt.trace(path, safe_mode=False)", f"--unsafe, {TRUST}"),
        ("pass a list in this order, or a dict with these names", f"give one .npz {UNDER_NAMES}"),
        ("the call goes last: `encoder/h[1]`", "the call goes last: `encoder/h[1]`"),
        ("chmod +r", "chmod +r"),
    ],
)  # fmt: skip
def test_remedies_in_the_words_of_the_command(said, expected):
    error = for_a_shell(GradtapError("no.", [], [said]))
    assert error.do == [expected or said.replace("logits=True", "--logits")]
    several = SeveralErrors("two things.")
    several.errors = [GradtapError("no.", [], [said]), GradtapError("neither.", [], [])]
    assert for_a_shell(several).errors[0].do == error.do


@pytest.mark.parametrize(
    "said",
    [
        'unconnected="zero" if zeros are what you mean',
        "training=True if it runs only then",
        "a callable: outputs -> (batch,)",
        "target=gt.targets.loss(fn, y_true)",
        "target=[3, 1] for one class for each example",
        "target=k[:, 0] for one class for each example",
        'of=":output.b"',
        "a mask",
        "for an op's name with a colon use Tap.op(name)",
    ],
)
def test_what_has_no_option_is_left_out(said):
    assert for_a_shell(GradtapError("no.", [], [said, "ask again"])).do == ["ask again"]


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("columns= is for tables.", "--column is for tables."),
        ("preprocess= and image_size= are for folders.", "--preprocess and --size are for folders."),
        ("image_size=(32, 48) is not it.", "--size 32x48 is not it."),
        ("dtype='float16' is not a choice.", "--dtype float16 is not a choice."),
        ("block=0 is not a positive int.", "--block 0 is not a positive int."),
        ("scheduler='tcp://a:1' does not answer.", "--scheduler tcp://a:1 does not answer."),
        ("PosixPath('/data/x y.npy')", "/data/x y.npy"),
        ("gt.dataset.mean(), gt.dataset.variance()", "mean, variance"),
        ("`conv1` is not what the_target=3 says.", "`conv1` is not what the_target=3 says."),
    ],
)
def test_headlines_and_facts_in_the_words_of_the_command(said, expected):
    error = for_a_shell(GradtapError(said, [("fact", said)], []))
    assert error.headline == expected and error.facts == [("fact", expected)] and str(error).startswith(expected)


def test_messages_that_were_really_raised(models, rows, tmp_path):
    def error(model, *options):
        said = run("gradients", models[model], rows, *options, code=1).stderr
        remedies = [line for line in said.splitlines() if line.startswith(("  do ", "  or "))]
        assert remedies and not any(word in line for line in remedies for word in PYTHON), said
        return said

    assert "gradtap taps MODEL lists every address" in error("heads", "--at", "trnk", "--target-output", "left")
    assert "--target-output left" in error("heads", "--at", "trunk", "--target", 0)
    assert "--target k --target-output right" in error(
        *("heads", "--at", "right", "--target", 0), "--target-output", "left"
    )
    options = ("--target", 0, "--target-output", "left", "--logits")
    assert "leave out --logits" in error("heads", "--at", "left", *options)


def test_a_lambda_is_told_one_option(tmp_path):
    import keras

    doubled = keras.layers.Lambda(lambda x: 2 * x, name="doubled")
    save_model(keras.Sequential([keras.Input((4,)), doubled]), tmp_path / "code.keras")
    said = run("taps", tmp_path / "code.keras", code=1).stderr
    assert said.count("if you trust where it comes from") == 1 and "--unsafe, if" in said and "gt." not in said


def test_warnings_name_the_option(models, tmp_path):
    image = save_images(tmp_path / "images") / "b.png"
    arguments = ("gradients", models["saturated"], image, "--at", "conv1", "--target", 0)
    said = run(*arguments).stderr
    assert "--logits differentiates the value before it" in said and "gt." not in said
    assert sentence_for_a_shell("logits=True takes the output itself.") == "--logits takes the output itself."


# -- starting quietly --------------------------------------------------------------------------------------------------


def python(code, code_expected=0):
    environment = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.returncode == code_expected, done
    return done


def test_the_start_of_tensorflow_is_not_heard(models):
    arguments = ["gradtap", "taps", models["heads"]]
    done = python(f"import sys\nsys.argv = {arguments!r}\nfrom gradtap.cli.main import main\nmain()")
    assert "trunk" in done.stdout and done.stderr == ""


NOISE = (
    "WARNING: All log messages before absl::InitializeLog() is called\\n"
    "I0 port.cc:153] oneDNN custom operations are on. You\\n"
)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs a process of its own")
@pytest.mark.parametrize(
    ("end", "status"),
    [("pass", 0), ("raise SystemExit(3)", 3), ("os.abort()", -6), ("print('after', file=sys.stderr)", 0)],
)
def test_whatever_else_is_said_is_passed_on(end, status):
    done = python(
        "import os, sys\nfrom gradtap.cli.quiet import without_chatter\n"
        "print('before', file=sys.stderr)\n"
        "with without_chatter():\n"
        f"    os.write(2, b'''{NOISE}F this machine lacks AVX\\n''')\n"
        f"    {end}\n",
        status,
    )
    after = ["after"] if "after" in end else []
    lines = [line for line in done.stderr.splitlines() if "Fatal Python error" not in line and line.strip()]
    assert lines[:2] == ["before", "F this machine lacks AVX"] and lines[2:3] in (after, [])
    assert "oneDNN" not in done.stderr and "absl" not in done.stderr


def test_standard_error_is_itself_again():
    code = (
        "import os\nfrom gradtap.cli.quiet import without_chatter\n"
        "with without_chatter():\n    pass\n"
        "os.write(2, b'oneDNN custom operations are on\\n')\n"
    )
    assert "oneDNN" in python(code).stderr
