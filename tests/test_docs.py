"""The pages of docs/: every block of Python runs, what it is shown to print is what it prints, and every link leads on.

On a page the ```python blocks run in order, in one namespace. A ```text block right after one shows what it prints;
numbers with a decimal point may differ by one in the last digit shown. A block that prints must be followed by one.
"""

from __future__ import annotations

import contextlib
import io
import re
from dataclasses import dataclass
from pathlib import Path

import pytest

import gradtap

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"

#: Pages whose blocks run here. The errors' pages and the README have tests of their own.
PAGES = [*sorted(DOCS.glob("*.md")), *sorted((DOCS / "adr").glob("*.md")), *sorted((DOCS / "migration").glob("*.md"))]
#: What `make docs` makes is none of them.
LINKED = [
    *(page for page in sorted(DOCS.rglob("*.md")) if not {"_build", "made"} & set(page.relative_to(DOCS).parts)),
    *sorted(ROOT.glob("*.md")),
]

_FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_NUMBER = re.compile(r"(?<![\w.])-?\d+\.\d*(?:e[+-]?\d+)?|(?<![\w.])-?\d+e[+-]?\d+")


@dataclass(frozen=True)
class Block:
    """Code of a page, and what the page shows it to print."""

    code: str
    shown: str
    line: int


def blocks(page):
    text = page.read_text(encoding="utf-8")
    fences = list(_FENCE.finditer(text))
    for i, fence in enumerate(fences):
        if fence[1] != "python":
            continue
        after = fences[i + 1] if i + 1 < len(fences) else None
        follows = after is not None and after[1] == "text" and not text[fence.end() : after.start()].strip()
        yield Block(fence[2], after[2] if follows else "", text.count("\n", 0, fence.start(2)))


def run(page):
    """Execute a page; yields each block with what it printed."""
    namespace = {"__name__": "__main__"}
    for block in blocks(page):
        printed = io.StringIO()
        code = compile("\n" * block.line + block.code, str(page), "exec")
        with contextlib.redirect_stdout(printed):
            exec(code, namespace)
        yield block, printed.getvalue()


def same(shown, printed):
    """Whether two texts are equal but for the last digit of decimals."""
    shown, printed = _stripped(shown), _stripped(printed)
    if _NUMBER.sub("#", shown) != _NUMBER.sub("#", printed):
        return False
    return all(map(_close, _NUMBER.findall(shown), _NUMBER.findall(printed)))


def _stripped(text):
    return "\n".join(line.rstrip() for line in text.strip().splitlines())


def _close(shown, printed):
    mantissa, _, exponent = shown.partition("e")
    digits = len(mantissa.partition(".")[2])
    step = 10.0 ** (int(exponent or 0) - digits)
    return abs(float(shown) - float(printed)) <= 1.01 * step


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(DOCS)))
def test_a_page_does_what_it_shows(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # some write files
    for block, printed in run(page):
        where = f"{page.relative_to(ROOT)}, the block from line {block.line + 1}"
        assert same(block.shown, printed), f"{where}\n--- shown\n{block.shown}\n--- printed\n{printed}"


def test_the_comparison_tells_texts_apart():
    assert same("a 0.25 b", "a 0.26 b\n") and same("1.5e-07", "1.4e-07")
    assert not same("a 0.25", "a 0.27")
    assert not same("(4, 28)", "(4, 29)")
    assert not same("0.5", "word")
    assert not same("", "something")


def test_the_main_pages_have_something_to_run():
    for name in ("tutorial", "how-it-works", "mathematics"):
        assert list(blocks(DOCS / f"{name}.md")), name


# -- links -------------------------------------------------------------------------------------------------------------


def links(page):
    text = _FENCE.sub("", page.read_text(encoding="utf-8"))
    for target in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`\n]*`", "", text)):
        if not target.startswith(("http://", "https://", "mailto:")):
            yield target


def anchors(page):
    """The anchors of a page's headings, as GitHub makes them."""
    found = set()
    for heading in re.findall(r"^#+ (.*)$", _FENCE.sub("", page.read_text(encoding="utf-8")), re.MULTILINE):
        plain = re.sub(r"[^\w\- ]", "", heading.lower())
        found.add(plain.strip().replace(" ", "-"))
    return found


@pytest.mark.parametrize("page", LINKED, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    for target in links(page):
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        assert there.exists(), f"{target} leads nowhere"
        if anchor and there.suffix == ".md":
            assert anchor in anchors(there), f"{target}: no such heading"


def test_every_page_is_on_the_map():
    map_of_docs = DOCS / "README.md"
    named = {(DOCS / target.partition("#")[0]).resolve() for target in links(map_of_docs)}
    for page in PAGES:
        assert page == map_of_docs or page in named, f"{page.name} is not on the map"


# -- the papers beside the docs ----------------------------------------------------------------------------------------


def test_contributing_can_be_read_in_one_sitting():
    assert len((ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").splitlines()) <= 80


def test_changelog_and_citation_know_the_version():
    assert "## [Unreleased]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"\nversion: {gradtap.__version__}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")


@pytest.mark.parametrize("page", sorted((DOCS / "adr").glob("0*.md")), ids=lambda p: p.stem)
def test_a_decision_says_why_what_else_and_what_follows(page):
    headings = re.findall(r"^## (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    assert headings == ["Context", "Decision", "Rejected", "Consequence"]
