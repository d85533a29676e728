"""The README holds: its code runs, its commands exist, its links lead somewhere."""

import contextlib
import io
import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def blocks(kind):
    return re.findall(rf"```{kind}\n(.*?)```", README, flags=re.DOTALL)


def test_the_code_prints_what_it_says():
    (code,), (printed,) = blocks("python"), blocks("text")
    page = io.StringIO()
    with contextlib.redirect_stdout(page):
        exec(compile(code, "README.md", "exec"), {"__name__": "readme"})
    assert page.getvalue() == printed


def test_the_make_commands_exist():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    named = set(re.findall(r"(?:^|`)make ([a-z-]+)", README, flags=re.MULTILINE))
    assert {"demo", "test"} <= named <= targets


def test_the_links_lead_to_files_of_the_project():
    links = re.findall(r"\]\(([^)#]+)\)", README)
    assert "docs/images/demo.png" in links
    for link in links:
        assert (ROOT / link).exists(), link


def test_the_extras_exist():
    project = (ROOT / "pyproject.toml").read_text()
    for extra in re.findall(r"gradtap\[([a-z,]+)\]", README):
        for name in extra.split(","):
            assert f"\n{name} = [" in project, name
