"""Bugs of receptive fields: what is changed where, and the tests that must fail of it."""

from __future__ import annotations

from tests.planted.bugs import Bug

THEORY, MEASURED = "test_receptive_theory.py", "test_receptive_measured.py"

BUGS = [
    Bug(
        "receptive: a dilation is not counted",
        "receptive/windows.py",
        "return Reads((tuple(j * dilation - before for j in range(size)),), stride)",
        "return Reads((tuple(j - before for j in range(size)),), stride)",
        (THEORY, "-k", "on_paper or every_unit"),
    ),
    Bug(
        "receptive: padding that is odd goes before the first position",
        "receptive/windows.py",
        "+ 1 - positions, 0) // 2",
        "+ 2 - positions, 0) // 2",
        (THEORY, "-k", "on_paper or every_unit"),
    ),
    Bug(
        "receptive: what moves on twice as fast is united all the same",
        "receptive/fields.py",
        "if self.stride != other.stride or period > _LONGEST_PERIOD:",
        "if period > _LONGEST_PERIOD:",
        (THEORY, "-k", "another_pace"),
    ),
    Bug(
        "receptive: a gate is taken for a map",
        "receptive/op_rules.py",
        "    if seen.axis in axes:\n        return seen.mixed(step.op.name)\n    gone",
        "    gone",
        (THEORY, "-k", "shows_everything or gate"),
    ),
    Bug(
        "receptive: the keys of attention are followed like the queries",
        "receptive/op_rules.py",
        "    own = rank - 1 if turned != (step.index == 1) else rank - 2",
        "    own = rank - 2 if turned != (step.index == 1) else rank - 1",
        (THEORY, "-k", "shows_everything or channels"),
    ),
    Bug(
        "receptive: a transposed convolution is not moved by its padding",
        "receptive/windows.py",
        "(r + before - j * dilation) // stride for j",
        "(r - j * dilation) // stride for j",
        (THEORY, "-k", "every_unit"),
    ),
    Bug(
        "receptive: an op that is not known lets everything pass as it is",
        "receptive/op_rules.py",
        "return seen.mixed(step.op.name) if rule is None else rule(step, seen)",
        "return seen if rule is None else rule(step, seen)",
        (THEORY, "-k", "not_known"),
    ),
    Bug(
        "receptive: a slope's sign is kept in the mean",
        "receptive/unit_slopes.py",
        "sizes = tf.abs(widen(slope))",
        "sizes = widen(slope)",
        (MEASURED, "-k", "tape"),
    ),
    Bug(
        "receptive: the mean is that of batches, not of examples",
        "receptive/measured.py",
        "        count += rows\n",
        "        count += 1\n",
        (MEASURED, "-k", "tape or any_way"),
    ),
    Bug(
        "receptive: a negative index is the middle",
        "receptive/unit_slopes.py",
        "tf.where(index[axis] == _CENTER, size // 2,",
        "tf.where(index[axis] < 0, size // 2,",
        (MEASURED, "-k", "runs_of_their_own"),
    ),
    Bug(
        "receptive: the fit stops at its beginning",
        "receptive/gaussian.py",
        "_STEPS = 100",
        "_STEPS = 0",
        (MEASURED, "-k", "gaussian or best_there_is"),
    ),
    Bug(
        "receptive: rows and columns of a place are exchanged",
        "receptive/strongest.py",
        "    for axis in reversed(range(rank)):",
        "    for axis in range(rank):",
        (MEASURED, "-k", "search_by_hand"),
    ),
    Bug(
        "receptive: every batch begins at example 0",
        "receptive/strongest.py",
        "count + int(row)",
        "int(row)",
        (MEASURED, "-k", "search_by_hand or stream"),
    ),
]
