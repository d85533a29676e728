"""Projected gradient descent that finds its own step size."""

from __future__ import annotations

from typing import Any

from gradtap.asking import Settings
from gradtap.attacks.arguments import check_ask, check_sizes
from gradtap.attacks.balls import Norm
from gradtap.attacks.field import Bounds
from gradtap.attacks.results import Adversarial
from gradtap.attacks.scheduled_ascent import ScheduledAscent
from gradtap.attacks.stages import attack
from gradtap.graph import surgery
from gradtap.staged.noise import generator
from gradtap.types import Address, Model, Structure, TensorLike


@surgery.unconverted
def auto_pgd(
    model: Model,
    inputs: Structure,
    labels: TensorLike,
    *,
    epsilon: TensorLike,
    steps: int = 100,
    norm: Norm = "linf",
    bounds: Bounds = (0, 1),
    targeted: bool = False,
    loss: Any = None,
    at: Address = ":input",
    random_start: bool = False,
    restarts: int = 1,
    stop_early: bool = True,
    batch_size: int | None = None,
    training: bool = False,
    seed: int | None = None,
    checks: bool = True,
) -> Adversarial:
    r"""Auto-PGD: projected gradient descent that chooses its step size by itself.

    In ``"linf"`` and ``"l2"`` a step is :math:`\delta' = P(\delta + \tfrac34 (z - \delta) + \tfrac14 (\delta -
    \delta_{\text{before}}))` with :math:`z = P(\delta + \eta s)`, the steepest direction :math:`s` and, to begin with,
    :math:`\eta = 2 \epsilon`. At checkpoints that come ever closer :math:`\eta` is halved, and the search goes back to
    the best point, where fewer than three quarters of the steps have raised the loss, or the best has not changed. In
    ``"l1"`` it is APGD for the intersection of ball and bounds: a projection onto both at once, and steps along as many
    entries as the best point tells, without momentum. The rise of the radius from :math:`3 \epsilon` that goes with it
    in AutoAttack is not made.

    Args:
      model: See `gradtap.gradients`.
      inputs: See `gradtap.gradients`.
      labels: See `fgsm`.
      epsilon: See `pgd`.
      steps: How many steps. The checkpoints depend on their number.
      norm: See `pgd`.
      bounds: See `fgsm`. In ``"l2"`` a point is brought into the ball and then within the bounds.
      targeted: See `fgsm`.
      loss: As of `fgsm`. With the logits :math:`z`, ordered :math:`z_{(1)} \ge z_{(2)} \ge \dots`, and the label
        :math:`y`, ``"dlr"`` is :math:`(\max_{i \ne y} z_i - z_y) / (z_{(1)} - z_{(3)})`, which no scale of the logits
        changes. Where targeted it is :math:`(z_o - z_y) / (z_{(1)} - \tfrac12 (z_{(3)} + z_{(4)}))`, with :math:`o` the
        class other than :math:`y` that the model says of the inputs as they are. ``"margin"`` is :math:`\max_{i \ne y}
        z_i - z_y`.
      at: See `fgsm`.
      random_start: See `pgd`.
      restarts: See `pgd`.
      stop_early: An example that has succeeded, or is said wrong from the start, moves no further. Else the point of
        the largest loss among those that succeeded is sought to the end.
      batch_size: See `gradtap.gradients`.
      training: See `gradtap.gradients`.
      seed: See `pgd`.
      checks: See `gradtap.gradients`.

    Returns:
      `Adversarial`: see `fgsm`. Of an example that did not fall, the point of the largest loss.

    Raises:
      GradtapError: One class for each cause; ``docs/errors`` has a page for each.

    Example:
      >>> import gradtap as gt, keras, numpy as np
      >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, activation="softmax")])
      >>> found = gt.attacks.auto_pgd(model, np.full((2, 4), 0.5), [0, 1], epsilon=0.2, steps=20, loss="dlr")
      >>> bool(np.all(found.distance <= 0.2 + 1e-6))
      True

    References:
      Croce and Hein, Reliable Evaluation of Adversarial Robustness with an Ensemble of Diverse Parameter-free Attacks,
        https://arxiv.org/abs/2003.01690, 2020.
      Croce and Hein, Mind the Box: l1-APGD for Sparse Adversarial Attacks on Image Classifiers,
        https://arxiv.org/abs/2103.01208, 2021.
    """
    check_ask(bounds, targeted)
    check_sizes("epsilon", epsilon)
    base = int(generator(seed, 7).integers(2**31))
    return attack(
        model,
        inputs,
        labels,
        loss,
        at,
        Settings("error", batch_size, training, seed, checks),
        search=ScheduledAscent(norm, steps, stop_early, random_start, restarts, base),
        targeted=targeted,
        bounds=bounds,
        per_example={"epsilon": epsilon},
    )
