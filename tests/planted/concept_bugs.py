"""Bugs of concepts: what is changed where, and the tests that must fail of it."""

from __future__ import annotations

from tests.planted.bugs import Bug

BUGS = [
    Bug(
        "concepts: the offset is held small like the slope",
        "concepts/separator.py",
        "np.append(np.full(points.shape[1], penalty), 0.0)",
        "np.full(points.shape[1] + 1, penalty)",
        ("test_concepts.py", "-k", "no_slope_at_the_solution"),
    ),
    Bug(
        "concepts: a large set outweighs a small one",
        "concepts/separator.py",
        "0.5 / max(count, 1), 0.5 / max(len(positive) - count, 1)",
        "1 / len(positive), 1 / len(positive)",
        ("test_concepts.py", "-k", "unequal_size"),
    ),
    Bug(
        "concepts: the offset forgets what the inner products are about",
        "concepts/separator.py",
        "return Separator(weights, offset - float(weights @ means))",
        "return Separator(weights, offset)",
        ("test_concepts.py", "-k", "all_that_is_needed"),
    ),
    Bug(
        "concepts: the accuracy is on what was learnt",
        "concepts/activation_vectors.py",
        "tests = [w[kept[s]] for",
        "tests = [w[~kept[s]] for",
        ("test_concepts.py", "-k", "held_out"),
    ),
    Bug(
        "concepts: falls count as rises",
        "concepts/testing.py",
        "rises, falls = (products > 0).mean(0)",
        "rises, falls = (products != 0).mean(0)",
        ("test_concepts.py", "-k", "its_opposite"),
    ),
    Bug(
        "concepts: a random set is not turned around for its partner",
        "concepts/testing.py",
        "np.add.at(totals, second, falls)",
        "np.add.at(totals, second, rises)",
        ("test_concepts.py", "-k", "as_told"),
    ),
    Bug(
        "concepts: one-sided permutations",
        "concepts/significance.py",
        "differences = np.abs(sums / count - (total - sums) / len(null))",
        "differences = sums / count - (total - sums) / len(null)",
        ("test_concepts.py", "-k", "enumerated"),
    ),
    Bug(
        "concepts: the correction is Bonferroni's without its order",
        "concepts/significance.py",
        "largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[i]))",
        "largest = min(1.0, (len(p_values) - rank) * p_values[i])",
        ("test_concepts.py", "-k", "on_paper"),
    ),
    Bug(
        "concepts: sets drawn from a pool overlap",
        "concepts/examples.py",
        "parts = [order[i * size : (i + 1) * size] for i in range(runs)]",
        "parts = [order[i : i + size] for i in range(runs)]",
        ("test_concepts.py", "-k", "share_no_example"),
    ),
]
