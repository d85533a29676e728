"""`gradtap explain`: the pages of errors and warnings, in a checkout and in the wheel."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from command_line import run
from gradtap import errors

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize(
    "name", ["UnknownTapError", "unknown-tap", "docs/errors/unknown-tap.md", "UnknownTap", "unknown-tap.md"]
)
def test_a_page_by_any_of_its_names(name):
    page = (ROOT / "docs" / "errors" / "unknown-tap.md").read_text(encoding="utf-8")
    assert run("explain", name).stdout.strip() == page.strip()


def test_every_class_has_a_page():
    found = [value for value in vars(errors).values() if isinstance(value, type) and hasattr(value, "page")]
    named = [value for value in found if not value.__name__.startswith("_") and value is not errors.GradtapWarning]
    assert len(named) > 30
    for value in named:
        assert run("explain", value.__name__).stdout.startswith(f"# {value.__name__}\n")
        assert run("explain", value.page()).stdout.startswith(f"# {value.__name__}\n")


def test_the_list_and_what_is_nearest():
    assert run("explain").stdout.startswith("# Errors and warnings")
    assert "`unknown-tap`" in run("explain", "UnknwonTapError", code=2).stderr


def test_the_wheel_holds_the_pages():
    with open(ROOT / "pyproject.toml", "rb") as file:
        wheel = tomllib.load(file)["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert wheel["force-include"] == {"docs/errors": "gradtap/docs/errors"}
