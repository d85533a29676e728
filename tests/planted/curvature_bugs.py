"""Bugs of second derivatives: what is changed where, and the tests that must fail of it."""

from __future__ import annotations

from tests.planted.bugs import Bug

BUGS = [
    Bug(
        "curvature: examples are mixed in a block",
        "curvature.py",
        "        block = tf.transpose(tf.concat(found, 0), [1, 2, 0])\n        shape = here.shape[1:]",
        "        block = tf.transpose(tf.concat(found, 0)[:, ::-1], [1, 2, 0])\n        shape = here.shape[1:]",
        ("test_curvature.py", "-k", "columns and dense"),
    ),
    Bug(
        "curvature: the standard error forgets the number of draws",
        "curvature.py",
        "tf.sqrt(spread / (count - 1) / count)",
        "tf.sqrt(spread / (count - 1))",
        ("test_curvature.py", "-k", "within_their_errors"),
    ),
    Bug(
        "curvature: draws that are no signs",
        "curvature.py",
        "tf.cast(2 * tf.concat(drawn, 0) - 1, here.dtype)",
        "tf.cast(2 * tf.concat(drawn, 0), here.dtype)",
        ("test_curvature.py", "-k", "within_their_errors"),
    ),
]
