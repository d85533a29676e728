"""The site that `make docs` builds: what can be known of it without building it, and one build in the slow tests."""

from __future__ import annotations

import ast
import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
SCRIPTS = sorted((DOCS / "gallery").glob("*.py"))
#: What somebody who comes to the gallery may look for, and the script that shows it.
SUBJECTS = {
    "the seed case beside a tape": ("seed_case", "GradientTape"),
    "Grad-CAM in a nested network": ("nested_pretrained", "grad_cam"),
    "attention": ("attention_heads", "plot.attention"),
    "an LSTM through time": ("lstm_through_time", "lstm:cell"),
    "an adversarial example": ("adversarial_example", "attacks.pgd"),
    "a receptive field": ("receptive_field", "plot.receptive"),
    "gradient flow": ("activations_compared", "flow.compare"),
}


@pytest.fixture(scope="module")
def site():
    """`docs/website/pages.py`, which finds `make_reference` beside it."""
    sys.path.insert(0, str(DOCS))
    try:
        yield importlib.import_module("website.pages")
    finally:
        sys.path.remove(str(DOCS))


# -- the gallery -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda p: p.stem)
def test_a_script_claims_checks_and_shows(script):
    tree = ast.parse(script.read_text(encoding="utf-8"))
    compile(tree, str(script), "exec")
    said = ast.get_docstring(tree)
    title, line = said.splitlines()[:2]
    assert set(line) == {"="} and len(line) >= len(title), "the title of the page"
    assert "**" in said, "its claim, in bold"
    assert any(isinstance(node, ast.Assert) for node in ast.walk(tree)), "numbers that are checked"
    names = {target.id for node in tree.body for target in getattr(node, "targets", ()) if hasattr(target, "id")}
    assert any(name.startswith("figure") for name in names), "a figure"


@pytest.mark.parametrize("subject", SUBJECTS)
def test_a_subject_has_its_script(subject):
    name, uses = SUBJECTS[subject]
    assert uses in (DOCS / "gallery" / f"{name}.py").read_text(encoding="utf-8")


def test_every_script_has_its_place_in_the_gallery():
    sys.path.insert(0, str(DOCS))
    try:
        figures = importlib.import_module("website.figures")
    finally:
        sys.path.remove(str(DOCS))
    assert sorted(figures.ORDER) == [script.stem for script in SCRIPTS]


# -- pages and links ---------------------------------------------------------------------------------------------------


def listed():
    """What the front page lists in its hidden lists."""
    index = (DOCS / "index.md").read_text(encoding="utf-8")
    for block in re.findall(r"^```\{toctree\}\n(.*?)^```$", index, re.MULTILINE | re.DOTALL):
        for line in block.splitlines():
            if line and not line.startswith(":"):
                yield line.partition("<")[2].rstrip(">") or line


def test_every_page_is_on_the_site(site):
    found = set(listed())
    pages = {page.stem for page in DOCS.glob("*.md")} - {"index"}
    assert pages <= found, pages - found
    made = {place.relative_to(DOCS).with_suffix("").as_posix() for place in site.OUTSIDE.values()}
    assert made <= found, made - found
    assert {name for name in site.LISTS if (DOCS / f"{name}.md").exists()} <= found
    assert "made/gallery/index" in found


def test_the_reference_is_split_without_a_loss(site):
    pages = site.modules()
    whole = site.make_reference.PAGE.read_text(encoding="utf-8")
    named = re.findall(r"^### (.*)$", whole, re.MULTILINE)
    assert len(named) > 100
    assert [name for text in pages.values() for name in re.findall(r"^## (.*)$", text, re.MULTILINE)] == named
    assert all(len(text.splitlines()) < 0.4 * len(whole.splitlines()) for text in pages.values())


def test_links_lead_to_what_is_on_the_site(site):
    page = DOCS / "attacks.md"
    led = site.led("[a](../benchmarks/results/README.md#attacks) `[b](../README.md)` [c](tutorial.md)", page, page)
    assert led == "[a](made/project/results.md#attacks) `[b](../README.md)` [c](tutorial.md)"
    place = site.OUTSIDE[ROOT / "README.md"]
    text = "![p](docs/images/demo.png) [t](docs/tutorial.md#addresses) [c](CHANGELOG.md) [w](https://example.org/x)\n"
    led = site.led(text, ROOT / "README.md", place)
    assert led.split() == [
        "![p](../../images/demo.png)",
        "[t](../../tutorial.md#addresses)",
        "[c](changelog.md)",
        "[w](https://example.org/x)",
    ]
    fenced = "```sh\n[a](../README.md)\n```\n"
    assert site.led(fenced, page, page) == fenced


def test_formulas_can_be_drawn():
    pytest.importorskip("docutils")
    sys.path.insert(0, str(DOCS))
    try:
        from docutils.utils.math import MathError
        from website.formulas import mathml
    except ImportError:
        pytest.skip("could not import Sphinx")
    finally:
        sys.path.remove(str(DOCS))
    assert mathml(r"\Big(a_n\Big)", block=True).startswith("<math")
    labelled = mathml(r"\underbrace{a_n}_{\text{below}}", block=True)
    assert labelled.count("<munder>") == 2 and labelled.count("<msub>") == 1
    with pytest.raises(MathError):
        mathml(r"\nosuchword", block=False)


# -- the build ---------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_site_builds_and_fetches_nothing(tmp_path):
    for package in ("sphinx", "furo", "myst_parser", "sphinx_gallery"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"not installed: {package}")
    flags = ["--fail-on-warning", "--keep-going", "--nitpicky", "--quiet"]
    command = [sys.executable, "-m", "sphinx", *flags, "-d", str(tmp_path / "trees"), str(DOCS), str(tmp_path / "html")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    pages = sorted((tmp_path / "html").rglob("*.html"))
    assert len(pages) > 100
    for page in pages:
        text = page.read_text(encoding="utf-8")
        fetched = re.findall(r"<(?:script|link|img|iframe)\b[^>]*\b(?:src|href)=\"(?:https?:)?//[^\"]*", text)
        assert not fetched, (page.name, fetched)
    for name in (script.stem for script in SCRIPTS):
        assert (tmp_path / "html" / "made" / "gallery" / f"{name}.html").exists()
