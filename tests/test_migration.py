"""The pages of docs/migration show the lines that were run, and the figures that they gave."""

from __future__ import annotations

import ast
import re

import numpy as np
import pytest
from benchmarks.fresh import TREE
from benchmarks.migration import compared, pages

_FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)


#: Figures of a page beside those of its questions.
KINDS = {peer: {"kinds", "inputs"} for peer in pages.PEERS} | {"keract": {"kinds"}, "captum": set()}


def fenced(peer, language):
    text = pages.page(peer).read_text(encoding="utf-8")
    return [code for found, code in _FENCE.findall(text) if found == language]


def parts(*, side, peer):
    return pages.lines(f"benchmarks.migration.{side}.{peer}")


@pytest.mark.parametrize("peer", pages.PEERS)
def test_their_lines_on_a_page_are_those_that_were_run(peer):
    run = parts(side="theirs", peer=peer)
    assert fenced(peer, "py") == list(run.values())
    assert len(run) >= 3


@pytest.mark.parametrize("peer", pages.PEERS)
def test_our_lines_on_a_page_are_those_that_were_run(peer):
    """What else is Python there makes the networks, as they were made."""
    run = parts(side="ours", peer=peer)
    made = (TREE / "benchmarks" / "migration" / "networks.py").read_text(encoding="utf-8")
    rest = [code for code in fenced(peer, "python") if code not in run.values()]
    assert [code for code in fenced(peer, "python") if code in run.values()] == list(run.values())
    for code in rest:
        for statement in ast.parse(code).body:
            source = ast.get_source_segment(code, statement)
            assert isinstance(statement, (ast.Import, ast.Assign)) or source in made, source
    assert "images = " in rest[0] and rest[0].partition("images = ")[2].strip() in made


@pytest.mark.parametrize("peer", pages.PEERS)
def test_both_sides_answer_the_same_questions_and_each_has_figures(peer):
    theirs, ours = parts(side="theirs", peer=peer), parts(side="ours", peer=peer)
    assert list(theirs) == list(ours)
    figures = pages.shown(pages.page(peer).read_text(encoding="utf-8"))
    more = {"versions"} | ({"today"} if peer in pages.TODAY else set()) | KINDS[peer]
    assert set(figures) == set(ours) | more
    assert all(len(text) > 5 and "raises" not in text for text in figures.values())
    assert len(re.findall(r"\d+\.\d+\.\d+", figures["versions"])) >= 6


def test_new_figures_replace_the_old_ones_and_nothing_else():
    page = pages.page("alibi").read_text(encoding="utf-8")
    found = pages.shown(page)
    assert pages.written(found, page) == page
    other = pages.written(found | {"at_layer": "another \\1 figure"}, page)
    assert pages.shown(other) == found | {"at_layer": "another \\1 figure"}
    assert other.replace("another \\1 figure", found["at_layer"]) == page


def test_the_body_of_a_function_is_what_a_page_shows():
    assert parts(side="theirs", peer="keract")["activations"] == (
        'import keract\n\ntheirs = keract.get_activations(model, images, layer_names="conv3")["conv3"]\n'
    )


def test_what_is_said_of_two_arrays():
    one = np.linspace(0, 1, 24).reshape(2, 3, 4)
    assert compared.apart(one, one.copy()) == "values: the same to the last bit"
    assert "equal" in compared.apart(one, one + 1e-6)
    assert "different, the largest difference is 1.0e-02" in compared.apart(one, one + 1e-2)
    assert "shapes" in compared.apart(one, one[0])
    assert compared.ratio(0.5 * one, one) == "theirs = 0.5 x ours, but for 0.0e+00 of the largest value"
    assert not compared.ratio(one**2, one).endswith("0.0e+00 of the largest value")
    assert compared.nearest(one, {"conv3": one}) == "equal"
    assert compared.nearest(one, {"a": one + 1, "b": one}) == "one call alone, b"
    assert compared.nearest(one, {"a": one + 1, "b": one + 2}).startswith("other numbers")
    assert compared.scaled(one).min() == 0 and compared.scaled(one).max() == 1
    assert compared.sums(one) == "2.8696 9.1304"
