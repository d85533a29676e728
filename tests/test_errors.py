"""Errors and warnings as a whole: their form, their family, and the page of each, whose code is run here.

A page shows a block of Python that raises (or a command that fails), the message, and code that does it right. The
message is compared line by line, but for what it quotes of other libraries; `...` stands for anything.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import pickle
import pkgutil
import re
import warnings
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from click.testing import CliRunner
from keras import layers

import gradtap
import gradtap as gt
from gradtap import errors
from gradtap.cli.main import cli
from gradtap.errors import GradtapError, GradtapWarning, kind_of, nearest, raise_all, received
from refusals import IMAGES, ROWS, gradients, images, rows

DOCS = Path(__file__).parent.parent / "docs" / "errors"


def all_classes():
    """Every error and warning of the package, wherever it is defined."""
    for module in pkgutil.walk_packages(gradtap.__path__, "gradtap."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    found, stack = [], [GradtapError, GradtapWarning]
    while stack:
        found.append(stack.pop())
        stack += found[-1].__subclasses__()
    return sorted(set(found), key=lambda c: c.__name__)


CLASSES = [c for c in all_classes() if c.__module__.startswith("gradtap.")]
ERRORS = [c for c in CLASSES if issubclass(c, GradtapError)]
PAGED = [c for c in CLASSES if c is not GradtapWarning]  # which shares the page of its sibling
BY_NAME = {c.__name__: c for c in CLASSES}


def by_name(values):
    return [value.__name__ for value in values]


# -- the family --------------------------------------------------------------------------------------------------------


def test_everything_in_the_module_of_errors_derives_from_a_root():
    own = [c for c in vars(errors).values() if isinstance(c, type) and issubclass(c, BaseException)]
    assert set(own) <= set(CLASSES) and len(own) > 35
    assert gt.GradtapError is GradtapError and gt.errors is errors


@pytest.mark.parametrize(
    ("built_in", "call"),
    [
        (LookupError, lambda: gradients(images(), IMAGES, at="zzz")),
        (KeyError, lambda: gradients(images(), IMAGES, at="conv1")["zzz"]),
        (IndexError, lambda: gradients(images(), IMAGES, target=99)),
        (TypeError, lambda: gradients(images(), IMAGES, target=1.0)),
        (ValueError, lambda: gradients(images(), IMAGES, target=None)),
        (TypeError, lambda: gradients(None, IMAGES)),
        (RuntimeError, lambda: gradients(lambda x: 1 / 0, IMAGES)),
        (FileNotFoundError, lambda: gradients("zzz.keras", IMAGES)),
    ],
)
def test_code_that_knows_nothing_of_gradtap_catches_them(built_in, call):
    with pytest.raises(built_in) as caught:
        call()
    assert isinstance(caught.value, GradtapError)


@pytest.mark.parametrize("error", ERRORS, ids=by_name(ERRORS))
def test_the_form_of_a_message(error):
    raised = error("it went wrong.", [("asked", "a\nb"), ("why", "\x1b[1mbold\x1b[0m")], ["do this", "do that"])
    assert raised.headline == "it went wrong." and raised.args == ("it went wrong.",)
    if error is errors.SeveralErrors:
        return
    assert str(raised).splitlines() == [
        "it went wrong.",
        "  asked       a",
        "              b",
        "  why         bold",
        "  do          do this",
        "  or          do that",
        f"  more        {error.page()}",
    ]


@pytest.mark.parametrize("error", ERRORS, ids=by_name(ERRORS))
def test_an_error_survives_the_way_to_another_process(error):
    raised = error("it went wrong.", [("asked", "a")], "do this")
    again = pickle.loads(pickle.dumps(raised))
    assert type(again) is error and str(again) == str(raised) and again.do == ["do this"]


def test_several_errors_keep_their_parts():
    first, second = errors.UnknownTapError("no a.", [("nearest", "b")]), errors.MissingTargetError("no target.")
    with pytest.raises(errors.SeveralErrors) as caught:
        raise_all([first, second])
    assert caught.value.errors == [first, second]
    assert [str(e) for e in pickle.loads(pickle.dumps(caught.value)).errors] == [str(first), str(second)]
    with pytest.raises(errors.SeveralErrors, match=r"^3 things are wrong") as again:
        raise_all([caught.value, errors.SideError("no side.")])
    assert by_name(map(type, again.value.errors)) == ["UnknownTapError", "MissingTargetError", "SideError"]


def test_errors_of_one_class_become_one_and_one_stays_as_it_is():
    first = errors.UnknownTapError("no a.", [("layers", "c")], "look")
    with pytest.raises(errors.UnknownTapError) as caught:
        raise_all([first])
    assert caught.value is first
    with pytest.raises(errors.UnknownTapError) as caught:
        raise_all([first, errors.UnknownTapError("no b.", [("layers", "c"), ("nearest", "d")], "look")])
    assert caught.value.facts == [("layers", "c"), ("also", "no b."), ("nearest", "d")]
    assert caught.value.do == ["look"]
    raise_all([])


# -- words -------------------------------------------------------------------------------------------------------------


def test_the_nearest_names():
    names = ["encoder/conv1", "conv1", "conv2", "pool", "Dense"]
    assert nearest("cnv1", names) == "`conv1`, `conv2`"
    assert nearest("decoder/conv1", names) == "`encoder/conv1`, `conv1`"
    assert nearest("dense", names) == "`Dense`"
    assert nearest("q", names) == ""


class Hostile:
    """Everything that can be asked of it raises."""

    @property
    def shape(self):
        raise RuntimeError("no shape")

    def __repr__(self):
        raise RuntimeError("no text")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (3, "3"),
        ("cat", "'cat'"),
        (np.zeros((2, 3)), "ndarray (2, 3) float64"),
        (np.array(["a", "bc"]), "ndarray (2,) text"),
        (np.float32(1), "np.float32(1.0)"),
        ("a\nb", r"'a\nb'"),
    ],
)
def test_a_value_is_shown_on_one_short_line(value, text):
    assert received(value) == text


def test_a_value_that_cannot_be_shown_is_shown():
    assert "Hostile object at 0x" in received(Hostile())
    assert len(received(list(range(10_000)))) == 120
    assert received(keras.Input((3,), name="x")) == "KerasTensor (None, 3) float32"


def test_a_kind_has_its_article():
    kinds = [kind_of(v) for v in (None, 3, [], np.zeros(1), 1.0, Hostile())]
    assert kinds == ["None", "an int", "a list", "an ndarray", "a float", "a Hostile"]


# -- warnings ----------------------------------------------------------------------------------------------------------


def warned(call):
    """The one warning of gradtap that a call issues, and its result."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = call()
    own = [w for w in caught if issubclass(w.category, GradtapWarning)]
    assert len(own) == 1, [str(w.message) for w in caught]
    assert str(own[0].message).endswith(f" More: {own[0].category.page()}")
    return own[0], result


def silent(call):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return call()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_named_where_it_begins(value):
    bad = np.where(np.arange(8).reshape(2, 4) == 5, value, ROWS).astype("float32")
    warning, _ = warned(lambda: gradients(rows(), bad, at="hidden"))
    assert warning.category is errors.NonFiniteWarning and "NaN or infinity in input `row`" in str(warning.message)
    warning, _ = warned(lambda: gt.activations(rows(), bad, at="hidden"))
    assert "input `row`" in str(warning.message)
    silent(lambda: gradients(rows(), bad, at="hidden", checks=False))


def born_inside(function, kernel="zeros"):
    """A model in which a function meets the numbers of a layer."""
    x = keras.Input((4,), name="row")
    hidden = layers.Dense(3, kernel_initializer=kernel, name="hidden")(x)
    inside = layers.Lambda(function, name="inside")(hidden)
    return keras.Model(x, layers.Dense(2, name="scores")(inside))


def test_nan_that_is_born_inside_is_named_at_the_first_tap_that_holds_it():
    log_of_zero = born_inside(keras.ops.log)
    warning, g = warned(lambda: gradients(log_of_zero, ROWS, at=["hidden", "inside", "scores"]))
    assert "the activations at `inside`, the first" in str(warning.message)
    assert np.isinf(g.activations["inside"]).all()
    # Where the activations at the taps are sound, the gradient is looked at.
    warning, g = warned(lambda: gradients(born_inside(keras.ops.sqrt), ROWS, at="hidden"))
    assert "the gradient at `hidden`" in str(warning.message) and np.isinf(g.only).all()


def sure_of_itself(activation, units=3, **options):
    bias = keras.initializers.Constant([200.0, 0.0, 0.0][:units])
    last = layers.Dense(units, activation=activation, bias_initializer=bias, name="scores", **options)
    return keras.Sequential([keras.Input((4,), name="row"), layers.Dense(3, name="hidden"), last])


@pytest.mark.parametrize("target", [0, 1, [0, 1], "predicted"], ids=str)
def test_a_saturated_softmax_offers_its_logits(target):
    model = sure_of_itself("softmax")
    warning, g = warned(lambda: gradients(model, ROWS, target=target, at="hidden"))
    name = repr(gt.targets.class_score(target))
    assert warning.category is errors.SaturatedTargetWarning
    assert f"the target {name} is saturated" in str(warning.message)
    assert "gt.targets.class_score(k, logits=True)" in str(warning.message)
    assert np.abs(g.only).max() < 1e-6
    logits = silent(lambda: gradients(model, ROWS, target=gt.targets.class_score(target, logits=True), at="hidden"))
    assert np.abs(logits.only).max() > 1e-3
    silent(lambda: gradients(model, ROWS, target=target, at="hidden", checks=False))


def test_the_warning_names_the_target_of_its_own_call():
    model = sure_of_itself("softmax")
    messages = [str(warned(lambda k=k: gradients(model, ROWS, target=k, at="hidden"))[0].message) for k in (0, 2, 1)]
    assert [re.search(r"class_score\((\d)\)", message)[1] for message in messages] == ["0", "2", "1"]


def test_a_saturated_sigmoid_of_a_model_with_one_number():
    warning, _ = warned(lambda: gradients(sure_of_itself("sigmoid", 1), ROWS, target=None, at="hidden"))
    assert warning.category is errors.SaturatedTargetWarning and "one number per example" in str(warning.message)


def test_logits_of_an_output_without_a_softmax():
    warning, g = warned(lambda: gradients(rows(), ROWS, target=gt.targets.class_score(0, logits=True), at="hidden"))
    assert warning.category is errors.NoLogitsWarning
    assert "the output (batch, 2) does not end in a softmax or sigmoid" in str(warning.message)
    np.testing.assert_array_equal(g.only, gradients(rows(), ROWS, at="hidden").only)


class OverTheBatch(keras.Model):
    """Examples that attend to each other, or are centred on their mean."""

    def __init__(self, attends):
        super().__init__()
        self.attends, self.last = attends, layers.Dense(2)

    def call(self, x, training=False):
        if self.attends:
            return self.last(tf.matmul(tf.nn.softmax(tf.matmul(x, x, transpose_b=True)), x))
        return self.last(x - tf.reduce_mean(x, axis=0))


def stack(*inner):
    return keras.Sequential([keras.Input((4,)), *inner, layers.Dense(2, name="scores")])


def split(model, x=ROWS):
    return lambda: gradients(model, x, training=True, batch_size=1)


@pytest.mark.parametrize(
    "model",
    [
        lambda: stack(layers.BatchNormalization()),
        lambda: stack(layers.Reshape((2, 2, 1)), layers.BatchNormalization(), layers.Flatten()),
        lambda: OverTheBatch(False),
        lambda: OverTheBatch(True),
    ],
)
def test_examples_that_depend_on_each_other(model):
    model = model()
    warning, _ = warned(split(model))
    said = "such as batch statistics, is over 1 example at a time, not over 2; batch_size=None"
    assert warning.category is errors.BatchCouplingWarning and said in str(warning.message)
    assert "masks" not in str(warning.message)
    silent(lambda: gradients(model, ROWS, training=True))


def test_no_batch_statistics_without_training():
    model = stack(layers.BatchNormalization())
    silent(lambda: gradients(model, ROWS, batch_size=1))
    silent(split(stack(layers.BatchNormalization(trainable=False))))


@pytest.mark.parametrize(
    "inner",
    [
        lambda: [layers.Dense(3, activation="softmax"), layers.LayerNormalization()],
        lambda: [layers.Reshape((2, 2)), layers.MultiHeadAttention(1, 2), layers.GlobalAveragePooling1D()],
        lambda: [layers.Reshape((2, 2)), layers.LSTM(3)],
        lambda: [layers.Reshape((2, 1, 2)), layers.GroupNormalization(2), layers.GlobalMaxPooling2D()],
    ],
)
def test_examples_that_do_not(inner):
    x = keras.Input((4,))
    y = x
    for layer in inner():
        y = layer(y, y) if isinstance(layer, layers.MultiHeadAttention) else layer(y)
    silent(split(keras.Model(x, layers.Dense(2)(y))))


def test_parts_of_a_batch_share_their_masks():
    model = stack(layers.Dropout(0.5))
    warning, _ = warned(split(model))
    assert "random masks are drawn for 1 example at a time, the same for each part, not for 2" in str(warning.message)
    assert "statistics" not in str(warning.message)
    x = np.ones((6, 4), "float32")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", errors.BatchCouplingWarning)
        g = gradients(model, x, training=True, batch_size=2, seed=3).only.numpy()
    np.testing.assert_array_equal(g[:2], g[2:4])
    warning, _ = warned(split(stack(layers.Dropout(0.5), layers.BatchNormalization())))
    assert "statistics" in str(warning.message) and "masks" in str(warning.message)


def test_a_warning_points_at_the_line_of_the_caller():
    warning, _ = warned(lambda: errors.warn(errors.NoLogitsWarning("look here.")))
    assert warning.filename == __file__
    model = keras.Sequential([keras.Input((4,)), layers.Dense(2)])
    warning, _ = warned(lambda: gt.gradients(model, ROWS, target=gt.targets.class_score(0, logits=True), at=":input"))
    assert warning.filename == __file__


# -- pages -------------------------------------------------------------------------------------------------------------

_FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def run_symptom(blocks, namespace):
    """Run the blocks before the message; gives the class that was raised, or None for a command, and the message."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for kind, code in blocks:
            if kind == "console":
                outcome = CliRunner().invoke(cli, code.split()[2:])
                assert code.startswith("$ gradtap ") and outcome.exit_code == 1
                return None, outcome.stderr
            try:
                exec(compile(code, "the page", "exec"), namespace)
            except GradtapError as error:
                return type(error), f"{type(error).__name__}: {error}"
    (warning,) = [w for w in caught if issubclass(w.category, GradtapWarning)]
    return warning.category, f"{warning.category.__name__}: {warning.message}"


def comparable(message):
    """A message without what it quotes of other libraries, which say it differently in each version."""
    message = re.sub(r"Keras [\d.]+ is installed", "Keras is installed", message.strip())
    return re.sub(r"^( +it said ).*?(?=\n {2,6}\S|\Z)", r"\1", message, flags=re.MULTILINE | re.DOTALL)


def assert_shown(shown, message):
    pattern = re.escape(comparable(shown)).replace(r"\.\.\.", ".*?")
    assert re.fullmatch(pattern, comparable(message), re.DOTALL), f"--- shown\n{shown}\n--- said\n{message}"


@pytest.mark.parametrize("cls", PAGED, ids=by_name(PAGED))
def test_the_page_of_a_class_does_what_it_shows(cls, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = (DOCS.parent.parent / cls.page()).read_text(encoding="utf-8")
    title, _, first_line, *_ = text.splitlines()
    assert title == f"# {cls.__name__}"
    assert first_line == cls.__doc__.splitlines()[0].replace("``", "`")
    blocks = _FENCE.findall(text)
    position = [kind for kind, _ in blocks].index("text")
    namespace = {"__name__": "__main__"}
    raised, message = run_symptom(blocks[:position], namespace)
    assert_shown(blocks[position][1], message)
    if raised is not None:
        # The roots are never raised themselves.
        assert raised is cls or (cls in (GradtapError, errors.ModelFileError) and issubclass(raised, cls))
    for kind, code in blocks[position + 1 :]:
        assert kind == "python"
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "__array__ implementation", DeprecationWarning)
            exec(compile(code, "the page", "exec"), namespace)


def test_every_page_belongs_to_a_class_and_is_in_the_index():
    pages = {path.name for path in DOCS.glob("*.md")} - {"README.md"}
    assert pages == {Path(c.page()).name for c in CLASSES}
    index = (DOCS / "README.md").read_text(encoding="utf-8")
    for cls in PAGED:
        entry = f"| [{cls.__name__}]({Path(cls.page()).name}) | {cls.__doc__.splitlines()[0].replace('``', '`')} |"
        assert index.count(entry) == 1, entry
    assert len(re.findall(r"^\| \[", index, re.MULTILINE)) == len(PAGED)


def test_the_comparison_of_messages_tells_them_apart():
    shown = "AError: no.\n  it said     this\n              and that\n  in the op   `.../Relu`\n  more        x.md"
    assert_shown(shown, "AError: no.\n  it said     something else\n  in the op   `net/a/Relu`\n  more        x.md")
    for other in (shown.replace("no.", "yes."), shown.replace("Relu", "Elu"), shown + "\n  or          y"):
        with pytest.raises(AssertionError):
            assert_shown(shown, other)
