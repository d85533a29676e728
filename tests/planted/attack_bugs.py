"""Bugs of attacks: what is changed where, and the tests that must fail of it."""

from __future__ import annotations

from tests.planted.bugs import Bug

BUGS = [
    Bug(
        "attacks: steps leave the ball",
        "attacks/ascent.py",
        "moved = inside(change + step * steepest(slope, self.norm), radius, self.norm)",
        "moved = change + step * steepest(slope, self.norm)",
        ("test_attacks.py", "-k", "never_outside and l2 and float64"),
    ),
    Bug(
        "attacks: a targeted one runs away",
        "attacks/stages.py",
        "self.sign = -1.0 if targeted else 1.0",
        "self.sign = 1.0",
        ("test_attacks.py", "-k", "captums and cnn_seq and float64"),
    ),
    Bug(
        "attacks: momentum takes slopes of any size",
        "attacks/ascent.py",
        "self.momentum * velocity + tf.math.divide_no_nan(slope, size)",
        "self.momentum * velocity + slope",
        ("test_attacks.py", "-k", "by_hand and l2"),
    ),
    Bug(
        "attacks: bounds are forgotten",
        "attacks/stages.py",
        "        return point if self._bounds is None else tf.clip_by_value(point, *self._bounds)",
        "        return point",
        ("test_attacks.py", "-k", "never_outside and linf and float64"),
    ),
    Bug(
        "attacks: those that have succeeded move on",
        "attacks/ascent.py",
        "moving &= ~field.succeeded(seen, first)",
        "moving &= True",
        ("test_attacks.py", "-k", "no_further"),
    ),
    Bug(
        "attacks: the l1 ball is cut at a wrong threshold",
        "attacks/balls.py",
        "tf.reduce_sum(tf.cast(ordered > over, tf.int32), 1, keepdims=True) - 1",
        "tf.reduce_sum(tf.cast(ordered > over, tf.int32), 1, keepdims=True) - 2",
        ("test_attacks.py", "-k", "nearest_point"),
    ),
    Bug(
        "attacks: a fallen example stands up again",
        "attacks/robustness.py",
        "                alive = alive[~np.asarray(found.success)]\n            standing[i] += len(alive)",
        "                standing[i] += int(np.sum(~np.asarray(found.success)))\n                continue\n"
        "            standing[i] += len(alive)",
        ("test_attacks.py", "-k", "robust_accuracy"),
    ),
]
