"""Path methods: integrated gradients at any tap, conductance, internal influence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from gradtap import errors
from gradtap.asking import Settings, Unconnected
from gradtap.graph import surgery
from gradtap.results import PathAttributions
from gradtap.staged.baselines import Baseline, BaselineReader
from gradtap.staged.integrals import Path, integrate
from gradtap.staged.quadrature import Rule
from gradtap.targets import as_target
from gradtap.types import Address, Model, Structure


@surgery.unconverted
def integrated_gradients(
    model: Model,
    inputs: Structure,
    *,
    target: Any = None,
    at: Address | Sequence[Address] = ":input",
    baseline: Baseline = 0.0,
    steps: int = 50,
    rule: Rule = "gausslegendre",
    multiply: bool = True,
    joint: bool = False,
    tolerance: float | None = None,
    unconnected: Unconnected = "error",
    batch_size: int | None = None,
    training: bool = False,
    seed: int | None = None,
    checks: bool = True,
) -> PathAttributions:
    r"""Integrate the gradient at a tap along the straight line from a baseline to the activations there.

    With :math:`h` the activations of an example at the tap, :math:`h'` those of the baseline, and :math:`F(\cdot)` the
    target with other activations in the place of :math:`h` while the rest of the model stays at the inputs,

    .. math:: (h - h') \odot \int_0^1 \nabla F(h' + \alpha (h - h'))\, d\alpha .

    Its entries sum to :math:`F(h) - F(h')`. That is the change of the target from the baseline input to the input only
    where nothing goes around the tap.

    Args:
      model: See `gradtap.gradients`.
      inputs: See `gradtap.gradients`.
      target: See `gradtap.gradients`. ``"predicted"`` means the classes that are predicted for the inputs.
      at: See `gradtap.gradients`. Several taps are taken one by one, each with a path of its own. Where one address
        means several tensors (``":input"`` of a model with two inputs), these move together.
      baseline: Where the path begins: an *input*, which is carried to the tap. A number for all entries, an array
        ``(1, ...)`` or ``(batch, ...)`` (for token ids an id), the nest that the model takes, or a function from the
        inputs to one of these. `at_tap` gives it in the space of the activations.
      steps: How many points of the path are looked at.
      rule: The quadrature: ``"gausslegendre"``, ``"riemann_left"``, ``"riemann_right"``, ``"riemann_middle"`` or
        ``"trapezoid"``.
      multiply: False leaves out the factor :math:`h - h'`: the mean gradient along the path.
      joint: Move all taps along one path at the same time, each slope with the others held.
      tolerance: Double the steps until the completeness error of every example is at most this.
      unconnected: See `gradtap.gradients`.
      batch_size: Most examples in flight at once, steps included; None chooses it from the size of the activations.
      training: See `gradtap.gradients`.
      seed: See `gradtap.gradients`.
      checks: See `gradtap.gradients`.

    Returns:
      `PathAttributions`: a mapping from address to attribution, each of the shape and dtype of its activations, with
      the completeness error ``.delta`` ``(batch,)``, which is computed when it is asked for, and ``.steps``.

    Raises:
      GradtapError: One class for each cause; ``docs/errors`` has a page for each.

    Example:
      A linear model is explained by weight times input.

      >>> import gradtap as gt, keras, numpy as np
      >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
      >>> x = np.array([[1.0, 2.0, 3.0]])
      >>> a = gt.attribution.integrated_gradients(model, x, target=0)
      >>> bool(np.allclose(a.only, x * model.layers[0].kernel[:, 0]))
      True

    References:
      Sundararajan, Taly, Yan, Axiomatic Attribution for Deep Networks, https://arxiv.org/abs/1703.01365, 2017.
    """
    settings = Settings(unconnected, batch_size, training, seed, checks)
    path = Path(BaselineReader(baseline), rule, steps, tolerance)
    if not isinstance(multiply, bool):
        raise errors.ArgumentError(f"multiply={multiply!r} is not a choice.", [], "give True or False")
    integrand: Literal["slope", "slope_times_change"] = "slope_times_change" if multiply else "slope"
    return integrate(model, inputs, as_target(target), path, integrand, settings, at=at, joint=joint)


@surgery.unconverted
def conductance(
    model: Model,
    inputs: Structure,
    *,
    target: Any = None,
    at: Address | Sequence[Address] = ":input",
    baseline: Baseline = 0.0,
    steps: int = 50,
    rule: Rule | Literal["difference"] = "gausslegendre",
    along: Address = ":input",
    tolerance: float | None = None,
    unconnected: Unconnected = "error",
    batch_size: int | None = None,
    training: bool = False,
    seed: int | None = None,
    checks: bool = True,
) -> PathAttributions:
    r"""How much of the change of the target from a baseline to the inputs flows through each unit of a tap.

    On the straight line :math:`x(\alpha) = x' + \alpha (x - x')` in the space of ``along``, with :math:`h` at the tap,

    .. math:: \int_0^1 \frac{\partial F}{\partial h} \odot \frac{d h}{d \alpha}\, d\alpha ,

    where :math:`dh / d\alpha` is exact, a Jacobian-vector product. Over taps that cut the model in two it sums to
    :math:`F(x) - F(x')`.

    Args:
      model: See `gradtap.gradients`.
      inputs: See `gradtap.gradients`.
      target: See `integrated_gradients`.
      at: See `gradtap.gradients`; all taps share one path.
      baseline: See `integrated_gradients`; it is carried to ``along``.
      steps: How many points of the path are looked at.
      rule: A quadrature of `integrated_gradients`; or ``"difference"``: the slope at each of ``steps + 1``
        Gauss-Legendre nodes times the difference of the activations to the next node, as Captum has it.
      along: Where the path runs: ``":input"``, or a tap such as an embedding, which token ids need.
      tolerance: Double the steps until the sum at every tap is at most this far from the change of the target. Only for
        taps that cut the model.
      unconnected: See `gradtap.gradients`.
      batch_size: See `integrated_gradients`.
      training: See `gradtap.gradients`.
      seed: See `gradtap.gradients`.
      checks: See `gradtap.gradients`.

    Returns:
      `PathAttributions`; ``.delta`` is the sum at a tap less the change of the target along the path.

    Raises:
      GradtapError: One class for each cause; ``docs/errors`` has a page for each.

    Example:
      >>> import gradtap as gt, keras, numpy as np
      >>> hidden = keras.layers.Dense(4, activation="tanh", name="hidden")
      >>> model = keras.Sequential([keras.Input((3,)), hidden, keras.layers.Dense(2)])
      >>> c = gt.attribution.conductance(model, np.ones((1, 3)), target=0, at="hidden")
      >>> bool(abs(c.delta[0]) < 1e-6)
      True

    References:
      Dhamdhere, Sundararajan, Yan, How Important Is a Neuron?, https://arxiv.org/abs/1805.12233, 2018.
      Shrikumar, Su, Kundaje, Computationally Efficient Measures of Internal Neuron Importance,
      https://arxiv.org/abs/1807.09946, 2018.
    """
    settings = Settings(unconnected, batch_size, training, seed, checks)
    path = Path(BaselineReader(baseline), rule, steps, tolerance)
    kind: Literal["slope_times_difference", "slope_times_flow"]
    kind = "slope_times_difference" if rule == "difference" else "slope_times_flow"
    return integrate(model, inputs, as_target(target), path, kind, settings, at=at, along=along)


@surgery.unconverted
def internal_influence(
    model: Model,
    inputs: Structure,
    *,
    target: Any = None,
    at: Address | Sequence[Address] = ":input",
    baseline: Baseline = 0.0,
    steps: int = 50,
    rule: Rule = "gausslegendre",
    along: Address = ":input",
    unconnected: Unconnected = "error",
    batch_size: int | None = None,
    training: bool = False,
    seed: int | None = None,
    checks: bool = True,
) -> PathAttributions:
    r"""The mean gradient at a tap while the input goes from a baseline to the inputs.

    On the straight line :math:`x(\alpha) = x' + \alpha (x - x')` in the space of ``along``, with :math:`h` at the tap,

    .. math:: \int_0^1 \frac{\partial F}{\partial h}\Big|_{x(\alpha)}\, d\alpha .

    Args:
      model: See `gradtap.gradients`.
      inputs: See `gradtap.gradients`.
      target: See `integrated_gradients`.
      at: See `gradtap.gradients`; all taps share one path.
      baseline: See `conductance`.
      steps: See `conductance`.
      rule: A quadrature of `integrated_gradients`.
      along: See `conductance`.
      unconnected: See `gradtap.gradients`.
      batch_size: See `integrated_gradients`.
      training: See `gradtap.gradients`.
      seed: See `gradtap.gradients`.
      checks: See `gradtap.gradients`.

    Returns:
      `PathAttributions`, without a completeness error: nothing is multiplied.

    Raises:
      GradtapError: One class for each cause; ``docs/errors`` has a page for each.

    Example:
      Under a linear head it is the gradient.

      >>> import gradtap as gt, keras, numpy as np
      >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(4, name="hidden"), keras.layers.Dense(2)])
      >>> a = gt.attribution.internal_influence(model, np.ones((1, 3)), target=0, at="hidden").only
      >>> bool(np.allclose(a, model.layers[1].kernel[:, 0]))
      True

    References:
      Leino, Sen, Datta, Fredrikson, Li, Influence-Directed Explanations, https://arxiv.org/abs/1802.03788, 2018.
    """
    settings = Settings(unconnected, batch_size, training, seed, checks)
    path = Path(BaselineReader(baseline), rule, steps)
    return integrate(model, inputs, as_target(target), path, "slope", settings, at=at, along=along)
