"""Gradients by other rules: guided back-propagation, the deconvolution, and guided Grad-CAM."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import tensorflow as tf

from gradtap.asking import Settings, Unconnected, ask
from gradtap.attributing import attribute
from gradtap.differentiate import NamedRules, OfTarget, slopes_at
from gradtap.graph import surgery
from gradtap.graph.resolve import Place, resolve
from gradtap.graph.rules import in_force
from gradtap.graph.scores import Score, widen
from gradtap.graph.tracing import ForwardGraph
from gradtap.maps.class_maps import Layout, MapOptions, mean_over_positions
from gradtap.maps.resizing import Interpolation
from gradtap.results import Attributions
from gradtap.rules.rectifiers import DECONVOLVED, GUIDED
from gradtap.targets import as_target
from gradtap.types import Address, Model, Structure, Tensor


@surgery.unconverted
def guided_backprop(
    model: Model,
    inputs: Structure,
    *,
    target: Any = None,
    at: Address | Sequence[Address] = ":input",
    unconnected: Unconnected = "error",
    batch_size: int | None = None,
    training: bool = False,
    seed: int | None = None,
    checks: bool = True,
) -> Attributions:
    r"""Guided back-propagation: at each rectifier only positive gradients pass, and only where the unit is on.

    At a unit :math:`\mathrm{relu}(z)` the gradient :math:`g` becomes :math:`\mathrm{relu}(g)\, [z > 0]`; at a ReLU6
    and a leaky ReLU :math:`\mathrm{relu}(g)` times their derivative. All other ops keep their derivative. It says more
    about the input than about the class: randomising the upper layers hardly changes it.

    Args:
      model: See `gradtap.gradients`.
      inputs: See `gradtap.gradients`.
      target: See `gradtap.gradients`.
      at: See `gradtap.gradients`.
      unconnected: See `gradtap.gradients`.
      batch_size: See `gradtap.gradients`.
      training: See `gradtap.gradients`.
      seed: See `gradtap.gradients`.
      checks: See `gradtap.gradients`.

    Returns:
      `Attributions`: a mapping from address to a tensor of the shape and dtype of its activations.

    Raises:
      GradtapError: One class for each cause; ``docs/errors`` has a page for each.

    Example:
      >>> import gradtap as gt, keras, numpy as np
      >>> hidden = keras.layers.Dense(4, activation="relu")
      >>> model = keras.Sequential([keras.Input((3,)), hidden, keras.layers.Dense(2)])
      >>> gt.attribution.guided_backprop(model, np.ones((1, 3)), target=0).only.shape
      TensorShape([1, 3])

    References:
      Springenberg, Dosovitskiy, Brox, Riedmiller, Striving for Simplicity, https://arxiv.org/abs/1412.6806, 2014.
      Adebayo et al., Sanity Checks for Saliency Maps, https://arxiv.org/abs/1810.03292, 2018.
    """
    settings = Settings(unconnected, batch_size, training, seed, checks)
    return _by_rules(model, inputs, target, at, settings, GUIDED)


@surgery.unconverted
def deconvnet(
    model: Model,
    inputs: Structure,
    *,
    target: Any = None,
    at: Address | Sequence[Address] = ":input",
    unconnected: Unconnected = "error",
    batch_size: int | None = None,
    training: bool = False,
    seed: int | None = None,
    checks: bool = True,
) -> Attributions:
    r"""The deconvolution: at each rectifier only positive gradients pass, wherever the unit is.

    At a rectifier, leaky ones included, the gradient :math:`g` becomes :math:`\mathrm{relu}(g)`. All other ops keep
    their derivative; max-pooling hands on to the winners.

    Args:
      model: See `gradtap.gradients`.
      inputs: See `gradtap.gradients`.
      target: See `gradtap.gradients`.
      at: See `gradtap.gradients`.
      unconnected: See `gradtap.gradients`.
      batch_size: See `gradtap.gradients`.
      training: See `gradtap.gradients`.
      seed: See `gradtap.gradients`.
      checks: See `gradtap.gradients`.

    Returns:
      `Attributions`: a mapping from address to a tensor of the shape and dtype of its activations.

    Raises:
      GradtapError: One class for each cause; ``docs/errors`` has a page for each.

    Example:
      >>> import gradtap as gt, keras, numpy as np
      >>> hidden = keras.layers.Dense(4, activation="relu")
      >>> model = keras.Sequential([keras.Input((3,)), hidden, keras.layers.Dense(2)])
      >>> gt.attribution.deconvnet(model, np.ones((1, 3)), target=0).only.shape
      TensorShape([1, 3])

    References:
      Zeiler, Fergus, Visualizing and Understanding Convolutional Networks, https://arxiv.org/abs/1311.2901, 2013.
    """
    settings = Settings(unconnected, batch_size, training, seed, checks)
    return _by_rules(model, inputs, target, at, settings, DECONVOLVED)


@surgery.unconverted
def guided_grad_cam(
    model: Model,
    inputs: Structure,
    *,
    target: Any = None,
    at: Address | Sequence[Address] = ":input",
    interpolation: Interpolation = "nearest",
    unconnected: Unconnected = "error",
    batch_size: int | None = None,
    training: bool = False,
    seed: int | None = None,
    checks: bool = True,
) -> Attributions:
    """Guided Grad-CAM: guided back-propagation at the input, times the Grad-CAM map of a layer.

    Args:
      model: See `gradtap.gradients`.
      inputs: See `gradtap.gradients`.
      target: See `gradtap.gradients`.
      at: The layers whose maps are taken; see `grad_cam`.
      interpolation: How the map is brought to the size of the input; see `grad_cam`.
      unconnected: See `gradtap.gradients`.
      batch_size: See `gradtap.gradients`.
      training: See `gradtap.gradients`.
      seed: See `gradtap.gradients`.
      checks: See `gradtap.gradients`.

    Returns:
      `Attributions`: a mapping from address to a tensor of the shape of the model's input, for an input
      ``(batch, *spatial, channels)``.

    Raises:
      GradtapError: One class for each cause; ``docs/errors`` has a page for each.

    Example:
      >>> import gradtap as gt, keras, numpy as np
      >>> conv = keras.layers.Conv2D(4, 3, activation="relu", name="conv")
      >>> model = keras.Sequential([keras.Input((8, 8, 1)), conv, keras.layers.GlobalAveragePooling2D()])
      >>> gt.attribution.guided_grad_cam(model, np.ones((1, 8, 8, 1)), target=0, at="conv").only.shape
      TensorShape([1, 8, 8, 1])

    References:
      Selvaraju et al., Grad-CAM, https://arxiv.org/abs/1610.02391, 2016.
    """
    settings = Settings(unconnected, batch_size, training, seed, checks)
    options = MapOptions(True, "input", interpolation)
    program, parts = ask(model, inputs, _GuidedGradCam(as_target(target), at, options), settings)
    return Attributions.at(program.places, parts["attributions"], skipped=program.skipped)


def _by_rules(
    model: Model, inputs: Structure, target: Any, at: Any, settings: Settings, rules: NamedRules
) -> Attributions:
    return attribute(
        model,
        inputs,
        target,
        at,
        settings,
        name="gradient by rules",
        formula=lambda graph, place, slope: slope,
        rules=rules,
    )


class _GuidedGradCam(OfTarget):
    """Two backward graphs in one program: by the guided rule at the input, by the derivative at the layers."""

    copies = 1

    def __init__(self, target: Any, at: Any, options: MapOptions) -> None:
        super().__init__(target, at)
        self._options = options

    def options(self) -> tuple[Hashable, ...]:
        return ("guided grad-cam", self._options.key())

    def parts(
        self, graph: ForwardGraph, places: list[Place], slopes: list[Tensor], score: Score
    ) -> dict[str, list[Tensor]]:
        layouts = [Layout(graph, place, self._options) for place in places]
        over = [graph.feeds[layout.over_input(graph)] for layout in layouts]
        inputs = [next(p for p in resolve(graph, ":input") if p.tensor is feed) for feed in over]
        with in_force(graph, GUIDED.by_op):
            _, guided, _ = slopes_at(graph, inputs, score.value, repr(self.target), "error")
        found = []
        for layout, place, slope, at_input in zip(layouts, places, slopes, guided, strict=True):
            activations = layout.laid(widen(place.tensor))
            heat = layout.finished(mean_over_positions(layout.laid(widen(slope))) * activations, graph.feeds)
            found.append(at_input * tf.cast(heat, at_input.dtype)[..., None])
        return {"attributions": found, "score": [score.value]}
