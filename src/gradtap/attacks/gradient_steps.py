"""Attacks by steps along the gradient: the fast gradient sign method, and projected gradient descent."""

from __future__ import annotations

from typing import Any

from gradtap.asking import Settings
from gradtap.attacks.arguments import check_ask, check_sizes
from gradtap.attacks.ascent import Ascent
from gradtap.attacks.balls import Norm
from gradtap.attacks.field import Bounds
from gradtap.attacks.results import Adversarial
from gradtap.attacks.stages import attack
from gradtap.graph import surgery
from gradtap.staged.noise import generator
from gradtap.types import Address, Model, Structure, TensorLike


@surgery.unconverted
def fgsm(
    model: Model,
    inputs: Structure,
    labels: TensorLike,
    *,
    epsilon: TensorLike,
    bounds: Bounds = (0, 1),
    targeted: bool = False,
    loss: Any = None,
    at: Address = ":input",
    batch_size: int | None = None,
    training: bool = False,
    seed: int | None = None,
    checks: bool = True,
) -> Adversarial:
    r"""The fast gradient sign method: one step of the same size in every entry, along the sign of the gradient.

    For the loss :math:`L` and the activations :math:`a` at the tap, :math:`a + \epsilon\, \mathrm{sign}(\partial L /
    \partial a)`; minus where targeted.

    Args:
      model: See `gradtap.gradients`.
      inputs: See `gradtap.gradients`.
      labels: The class of each example, int ``(batch,)``, or one for all; where ``targeted``, what the model is to say.
      epsilon: The size of the step, in units of the tap; a number, or one for each example.
      bounds: Lowest and highest value of an input, to which examples are clipped; None where there are none. At another
        tap they do not apply.
      targeted: Make the loss small.
      loss: None for the cross-entropy, from the logits where a softmax or sigmoid ends the graph; ``"dlr"`` or
        ``"margin"``, see `auto_pgd`; a Keras loss by name, function or object, of ``labels``; or a value of
        `gradtap.targets`.
      at: One address: the input, or the activations of any layer.
      batch_size: See `gradtap.gradients`.
      training: See `gradtap.gradients`.
      seed: See `gradtap.gradients`.
      checks: See `gradtap.gradients`.

    Returns:
      `Adversarial`: ``.examples`` and ``.perturbation`` of the shape of the tap, ``.success``, ``.distance`` (the
      largest change), ``.steps`` ``(batch,)``, and the model's ``.outputs``.

    Raises:
      GradtapError: One class for each cause; ``docs/errors`` has a page for each.

    Example:
      >>> import gradtap as gt, keras, numpy as np
      >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, activation="softmax")])
      >>> found = gt.attacks.fgsm(model, np.full((2, 4), 0.5), [0, 1], epsilon=0.1)
      >>> bool(np.all(np.abs(found.perturbation) <= 0.1 + 1e-6))
      True

    References:
      Goodfellow et al., Explaining and Harnessing Adversarial Examples, https://arxiv.org/abs/1412.6572, 2014.
    """
    settings = Settings("error", batch_size, training, seed, checks)
    check_ask(bounds, targeted)
    check_sizes("epsilon", epsilon)

    return attack(
        model,
        inputs,
        labels,
        loss,
        at,
        settings,
        search=Ascent("linf", 1),
        targeted=targeted,
        bounds=bounds,
        per_example={"epsilon": epsilon, "step_size": epsilon},
    )


@surgery.unconverted
def pgd(
    model: Model,
    inputs: Structure,
    labels: TensorLike,
    *,
    epsilon: TensorLike,
    step_size: TensorLike,
    steps: int,
    norm: Norm = "linf",
    bounds: Bounds = (0, 1),
    targeted: bool = False,
    loss: Any = None,
    at: Address = ":input",
    random_start: bool = False,
    restarts: int = 1,
    momentum: float = 0.0,
    stop_early: bool = True,
    batch_size: int | None = None,
    training: bool = False,
    seed: int | None = None,
    checks: bool = True,
) -> Adversarial:
    r"""Projected gradient descent: steps along the gradient, back into a ball around the input after each.

    A step goes along :math:`\mathrm{sign}(g)` in ``"linf"``, along :math:`g / |g|_2` in ``"l2"``, and along the 1 % of
    entries with the largest slopes in ``"l1"``.

    Args:
      model: See `gradtap.gradients`.
      inputs: See `gradtap.gradients`.
      labels: See `fgsm`.
      epsilon: The radius of the ball, in units of the tap; a number, or one for each example.
      step_size: The length of a step in the norm; a number, or one for each example.
      steps: How many steps.
      norm: ``"linf"``, ``"l2"`` or ``"l1"``, over all entries of an example.
      bounds: See `fgsm`.
      targeted: See `fgsm`.
      loss: See `fgsm`.
      at: See `fgsm`.
      random_start: Begin at a point drawn from the ball; all examples are given the same draw.
      restarts: How often to begin anew, each time at a drawn point but for the first without ``random_start``. Of each
        example the best is kept: one that succeeded, else that of the largest loss.
      momentum: How much of the direction before, itself scaled to a 1-norm of one, goes into the next.
      stop_early: An example that has succeeded moves no further.
      batch_size: See `gradtap.gradients`.
      training: See `gradtap.gradients`.
      seed: Draws where to begin; None draws anew.
      checks: See `gradtap.gradients`.

    Returns:
      `Adversarial`: see `fgsm`; ``.distance`` is in the norm.

    Raises:
      GradtapError: One class for each cause; ``docs/errors`` has a page for each.

    Example:
      >>> import gradtap as gt, keras, numpy as np
      >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, activation="softmax")])
      >>> found = gt.attacks.pgd(model, np.full((2, 4), 0.5), [0, 1], epsilon=0.2, step_size=0.05, steps=9, norm="l2")
      >>> bool(np.all(found.distance <= 0.2 + 1e-6))
      True

    References:
      Madry et al., Towards Deep Learning Models Resistant to Attacks, https://arxiv.org/abs/1706.06083, 2017.
      Dong et al., Boosting Adversarial Attacks with Momentum, https://arxiv.org/abs/1710.06081, 2017.
    """
    settings = Settings("error", batch_size, training, seed, checks)
    check_ask(bounds, targeted)
    check_sizes("epsilon", epsilon)
    check_sizes("step_size", step_size)
    search = Ascent(norm, steps, momentum, stop_early, random_start, restarts, int(generator(seed, 6).integers(2**31)))
    return attack(
        model,
        inputs,
        labels,
        loss,
        at,
        settings,
        search=search,
        targeted=targeted,
        bounds=bounds,
        per_example={"epsilon": epsilon, "step_size": step_size},
    )
