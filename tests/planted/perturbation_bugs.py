"""Bugs of perturbation and of activation maximisation: what is changed where, and the tests that must fail of it."""

from __future__ import annotations

from tests.planted.bugs import Bug

BUGS = [
    Bug(
        "occlusion: the last window is left out",
        "staged/windows.py",
        "[*range(0, last, stride), last]",
        "[*range(0, last + 1, stride)]",
        ("test_perturbation.py", "-k", "covered or paper"),
    ),
    Bug(
        "occlusion: overlapping windows are summed",
        "staged/windows.py",
        "shares = rows / rows.sum(0)",
        "shares = rows / rows.max(0)",
        ("test_perturbation.py", "-k", "paper"),
    ),
    Bug(
        "occlusion: the mean is over the channels as well",
        "attribution/perturbation.py",
        "return mean_over_positions(here) if",
        "return tf.reduce_mean(here, list(range(1, here.shape.rank)), keepdims=True) if",
        ("test_perturbation.py", "-k", "paper"),
    ),
    Bug(
        "rise: masks are not shifted",
        "staged/windows.py",
        "begins = np.floor(shifts * cell)[:, None]",
        "begins = 0 * shifts[:, None]",
        ("test_perturbation.py", "-k", "rise_of_the_draws"),
    ),
    Bug(
        "rise: each part of the runs draws the same masks",
        "staged/windows.py",
        "for run in range(part.start, part.stop)]",
        "for run in range(part.stop - part.start)]",
        ("test_perturbation.py", "-k", "same_by_seed or draws"),
    ),
    Bug(
        "rise: a tap without a say is given the mean of the target",
        "attribution/perturbation.py",
        "return found if stage.leg.reached else tf.zeros_like(found)",
        "return found",
        ("test_contracts.py", "-k", "rise and not_reached"),
    ),
    Bug(
        "visualise: the gradient is not rolled back",
        "activation_maximisation.py",
        "[-roll for roll in rolls]",
        "[0 for roll in rolls]",
        ("test_visualise.py", "-k", "jitter"),
    ),
    Bug(
        "visualise: total variation pulls apart",
        "activation_maximisation.py",
        "slope -= self.total_variation *",
        "slope += self.total_variation *",
        ("test_visualise.py", "-k", "penalties"),
    ),
    Bug(
        "visualise: the slope in the spectrum is divided and not multiplied",
        "activation_maximisation.py",
        "self._turned(slope) * self._amplitudes",
        "self._turned(slope) / self._amplitudes",
        ("test_visualise.py", "-k", "chain_rule"),
    ),
]
