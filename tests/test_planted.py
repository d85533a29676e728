"""The planted bugs can be planted: what each of them changes stands in the source, once."""

from __future__ import annotations

from pathlib import Path

import pytest

from planted.__main__ import every_bug

SOURCE = Path(__file__).parents[1] / "src" / "gradtap"


@pytest.mark.parametrize("bug", every_bug(), ids=lambda bug: bug.name)
def test_a_bug_can_be_planted(bug):
    assert (SOURCE / bug.file).read_text(encoding="utf-8").count(bug.old) == 1
    assert bug.old != bug.new
    assert (Path(__file__).parent / bug.tests[0]).exists()


def test_no_two_have_the_same_name():
    names = [bug.name for bug in every_bug()]
    assert len(set(names)) == len(names)
