"""Bugs of attacks: what is changed where, and the tests that must fail of it."""

from __future__ import annotations

from tests.planted.bugs import Bug

BUGS = [
    Bug(
        "attacks: steps leave the ball",
        "attacks/ascent.py",
        'moved = field.allowed(stepped, field.numbers("epsilon"), self.norm)',
        "moved = stepped",
        ("test_attacks.py", "-k", "by_hand and l2"),
    ),
    Bug(
        "attacks: a targeted one runs away",
        "attacks/field.py",
        "self.sign = -1.0 if frame.targeted else 1.0",
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
        "attacks/field.py",
        "        return point if self.bounds is None else tf.clip_by_value(point, *self.bounds)",
        "        return point",
        ("test_attacks.py", "-k", "never_outside and linf and float64"),
    ),
    Bug(
        "attacks: those that have succeeded move on",
        "attacks/ascent.py",
        "moving &= ~(field.succeeded(seen) & (number > 0))",
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
    Bug(
        "attacks: auto_pgd does not go back to the best point",
        "attacks/scheduled_ascent.py",
        "change, slope = chosen(again, state.best, state.change), chosen(again, state.best_slope, seen.slope)",
        "change, slope = state.change, seen.slope",
        ("test_attack_searches.py", "-k", "auto_pgd_by_the_paper"),
    ),
    Bug(
        "attacks: a step is halved twice in a row",
        "attacks/scheduled_ascent.py",
        "stuck = ~state.cut_then & (state.best_loss <= state.loss_then)",
        "stuck = state.best_loss <= state.loss_then",
        ("test_attack_searches.py", "-k", "auto_pgd_by_the_paper"),
    ),
    Bug(
        "attacks: auto_pgd forgets its momentum",
        "attacks/scheduled_ascent.py",
        "_NEW, _HELPED = 0.75, 0.75",
        "_NEW, _HELPED = 1.0, 0.75",
        ("test_attack_searches.py", "-k", "auto_pgd_by_the_paper and linf-None"),
    ),
    Bug(
        "attacks: in l1 the box has no say in the projection",
        "attacks/balls.py",
        "found = tf.sign(flat) * tf.minimum(tf.nn.relu(sizes - taken), room)",
        "found = tf.sign(flat) * tf.nn.relu(sizes - taken)",
        ("test_attack_searches.py", "-k", "ball_and_box"),
    ),
    Bug(
        "attacks: the targeted ratio takes the class that leads now",
        "attacks/attack_losses.py",
        "return (of_class(logits, said) - own) / (spread + _TINY), [], [said]",
        "return (of_class(logits, said) - own) / (spread + _TINY), [], []",
        ("test_attack_searches.py", "-k", "auto_pgd_by_the_paper and dlr"),
    ),
    Bug(
        "attacks: deep_fool goes to the class of the largest score",
        "attacks/linear_boundaries.py",
        "nearest = tf.argmin(ways, 0)",
        "nearest = tf.zeros_like(tf.argmin(ways, 0))",
        ("test_attack_searches.py", "-k", "one_step_to_the_nearest"),
    ),
    Bug(
        "attacks: deep_fool measures slopes in the norm of the change",
        "attacks/linear_boundaries.py",
        '{"linf": "l1", "l2": "l2"}',
        '{"linf": "l2", "l2": "l2"}',
        ("test_attack_searches.py", "-k", "one_step_to_the_nearest and linf"),
    ),
    Bug(
        "attacks: the tanh is not differentiated",
        "attacks/least_change.py",
        "(high - low) / 2 * (1 - bent**2)",
        "tf.ones_like(bent)",
        ("test_attack_searches.py", "-k", "carlini_wagner_by_the_paper and bounds1-False"),
    ),
    Bug(
        "attacks: the weight is not searched for between what did and what did not",
        "attacks/least_change.py",
        "middle = (low + tf.where(bounded, high, low)) / 2",
        "middle = weight",
        ("test_attack_searches.py", "-k", "carlini_wagner_by_the_paper and None-False"),
    ),
    Bug(
        "attacks: confidence is not asked for",
        "attacks/least_change.py",
        'return field.succeeded(seen) & (seen.loss >= tf.reshape(field.numbers("confidence"), [-1]))',
        "return field.succeeded(seen)",
        ("test_attack_searches.py", "-k", "distance_to_the_hyperplane"),
    ),
    Bug(
        "attacks: epsilon is no limit to the smallest change",
        "attacks/searching.py",
        "change = field.within(best.change, self._search.norm)",
        "change = best.change",
        ("test_attack_searches.py", "-k", "without_a_size_of_their_own"),
    ),
    Bug(
        "attacks: success is told by the first class",
        "attacks/field.py",
        "self._told_by = rest.pop(0)",
        "self._told_by = tf.zeros_like(rest.pop(0))",
        ("test_attack_searches.py", "-k", "deep_fool_by_the_paper and functional"),
    ),
    Bug(
        "graph: a loop forgets of what shape its variables are",
        "graph/surgery.py",
        "for handle in op.outputs if op.type in _LOOPS_AND_BRANCHES else ():",
        "for handle in ():",
        ("test_recurrent.py", "-k", "outer_tape_follows"),
    ),
]
