"""Cross derivatives: how the slope of a target at one tap changes with the activations at another."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from gradtap.asking import Settings, Unconnected, address_key, addresses, ask
from gradtap.curvature.matrices import bent_along, check_size, flat, one_hot, products, refuse_coupling, unit_count
from gradtap.differentiate import slopes_at
from gradtap.graph import surgery
from gradtap.graph.keeping import Trace
from gradtap.graph.resolve import Place, resolve
from gradtap.graph.tracing import ForwardGraph
from gradtap.program import Program
from gradtap.results import TapValues
from gradtap.second_order import are_zero, program_of_products, warn_of_zeros
from gradtap.staged.slope_legs import leg_with
from gradtap.staged.stages import Legs, Stage, Staged, refuse_states
from gradtap.targets import Target, as_target
from gradtap.types import Address, Model, Structure, Tensor, TensorLike
from gradtap.vectors import for_each_example, one_place, placeholder_like, vectors_for


@surgery.unconverted
def cross_hvp(
    model: Model,
    inputs: Structure,
    vectors: TensorLike,
    *,
    target: Any = None,
    at: Address | Sequence[Address],
    along: Address,
    unconnected: Unconnected = "error",
    batch_size: int | None = None,
    training: bool = False,
    seed: int | None = None,
    checks: bool = True,
) -> TapValues:
    r"""How the gradients of a target at taps change when the activations at another tap move along a vector.

    With a change :math:`\varepsilon_a` added at a tap :math:`a` of ``at`` and :math:`\varepsilon_b` at :math:`b`,
    ``along``, the result is :math:`\frac{\partial^2 F}{\partial \varepsilon_a \partial \varepsilon_b} v` at zero. What
    lies after a tap follows its change. So, of taps on parallel branches, it is the mixed partial derivative. Of a tap
    :math:`a = g(b)` after :math:`b` it is :math:`H_a J_g v`: the gradient at :math:`a` changes as far as :math:`b`
    moves :math:`a`. Of :math:`b = g(a)` it is the transpose of that, :math:`J_g^\top H_b v`, without the bend of
    :math:`g`; and of one tap with itself it is `gradtap.hvp`.

    Args:
      model: See `gradtap.gradients`.
      inputs: See `gradtap.gradients`.
      vectors: An array of the shape of the activations at ``along``.
      target: See `gradtap.gradients`.
      at: Where the gradients are; see `gradtap.gradients`.
      along: What moves: one address.
      unconnected: See `gradtap.gradients`.
      batch_size: See `gradtap.gradients`.
      training: See `gradtap.gradients`.
      seed: See `gradtap.gradients`.
      checks: See `gradtap.gradients`.

    Returns:
      A mapping from address to a tensor of the shape of its activations.

    Raises:
      GradtapError: One class for each cause; ``docs/errors`` has a page for each.

    Example:
      >>> import gradtap as gt, numpy as np, tensorflow as tf
      >>> def model(x, y):
      ...     return tf.reduce_sum(x * y**2, 1)
      >>> ones = np.ones((1, 2))
      >>> gt.curvature.cross_hvp(model, [ones, 3 * ones], [[1.0, 0.5]], at=":input.0", along=":input.1").only.numpy()
      array([[6., 3.]])

    References:
      Pearlmutter, Fast Exact Multiplication by the Hessian, https://doi.org/10.1162/neco.1994.6.1.147, 1994.
    """
    settings = Settings(unconnected, batch_size, training, seed, checks)
    program, parts = ask(model, inputs, _CrossHvp(as_target(target), at, along, vectors), settings)
    if checks and not are_zero([vectors]):
        warn_of_zeros(program.places, parts["products"], together=True)
    return TapValues.at(program.places, parts["products"])


class _CrossHvp:
    def __init__(self, target: Target, at: Any, along: Any, vectors: Any) -> None:
        self.target = target
        self.at = addresses(at)
        self.along = along
        self.vectors = vectors

    def key(self, graph: ForwardGraph) -> Hashable:
        return address_key(self.at), address_key(self.along), self.target.key(graph)

    def values(self, graph: ForwardGraph, batch: int | None) -> list[TensorLike]:
        fed = vectors_for([one_place(graph, self.along, "along")], self.vectors, batch, "vectors")
        return [*self.target.values(graph, batch), *fed]

    def build(self, trace: Trace, graph: ForwardGraph, settings: Settings) -> Program:
        places, along = resolve(graph, self.at), one_place(graph, self.along, "along")
        with surgery.inside(graph.graph):
            score = self.target.build(graph)
            fed = placeholder_like(along.tensor)
        name = repr(self.target)
        [_], [slope], _ = slopes_at(graph, [along], score.value, name, settings.unconnected)
        kept, _, _ = slopes_at(graph, places, score.value, name, settings.unconnected)
        with surgery.inside(graph.graph):
            vector = for_each_example(fed, along.tensor)
        found = bent_along(graph, slope, vector, kept)
        looked_at = [along, *kept]
        return program_of_products(trace, graph, score, self.target, [fed], found, kept, looked_at, settings)


@surgery.unconverted
def cross_hessian(
    model: Model,
    inputs: Structure,
    *,
    target: Any = None,
    at: Address | Sequence[Address],
    along: Address,
    unconnected: Unconnected = "error",
    batch_size: int | None = None,
    training: bool = False,
    seed: int | None = None,
    checks: bool = True,
) -> TapValues:
    r"""The cross derivatives of a target between two taps, as a whole.

    :math:`\partial^2 F / \partial a_i \partial b_j` for each example. What they mean where one tap comes after the
    other is said at `cross_hvp`. The block at :math:`(b, a)` is the transpose of that at :math:`(a, b)`, and it is
    formed from the side with fewer units.

    Args:
      model: See `gradtap.gradients`.
      inputs: See `gradtap.gradients`.
      target: See `gradtap.gradients`.
      at: The taps of the first index; see `gradtap.gradients`.
      along: The tap of the second: one address.
      unconnected: See `gradtap.gradients`.
      batch_size: See `hessian`.
      training: See `hessian`.
      seed: See `gradtap.gradients`.
      checks: See `gradtap.gradients`.

    Returns:
      `TapValues`: a mapping from address to ``(batch, *shape at it, *shape along)``, of the dtype of the activations.

    Raises:
      MemoryBudgetError: It would take more than half of the free memory; the message says how much.
      GradtapError: One class for each cause; ``docs/errors`` has a page for each.

    Example:
      >>> import gradtap as gt, numpy as np, tensorflow as tf
      >>> def model(x, y):
      ...     return tf.reduce_sum(x * y**2, 1)
      >>> ones = np.ones((1, 2))
      >>> gt.curvature.cross_hessian(model, [ones, 3 * ones], at=":input.0", along=":input.1").only.numpy()
      array([[[6., 0.],
              [0., 6.]]])
    """
    settings = Settings(unconnected, batch_size, training, seed, checks)
    wanted, at = as_target(target), addresses(at)

    def legs(graph: ForwardGraph, own: Settings) -> Legs:
        return _legs(graph, own, wanted, at, along)

    def work(stages: list[Stage], inputs: list[Tensor], arrays: list[TensorLike]) -> dict[str, list[Tensor]]:
        return {"blocks": [_block(stage) for stage in stages]}

    question = Staged(wanted, ("cross", address_key(at), address_key(along)), legs, work)
    program, parts = ask(model, inputs, question, settings)
    if checks:
        warn_of_zeros(program.places, parts["blocks"])
    return TapValues.at(program.places, parts["blocks"])


def _legs(graph: ForwardGraph, settings: Settings, target: Target, at: Any, along: Any) -> Legs:
    """A leg for each tap of ``at``: both taps are moved, the one that has unit vectors first."""
    refuse_coupling(graph, settings)
    places, other = resolve(graph, at), one_place(graph, along, "along")
    with surgery.inside(graph.graph):
        score = target.build(graph)
    name = repr(target)
    [_], [other_slope], _ = slopes_at(graph, [other], score.value, name, settings.unconnected)
    kept, slopes, skipped = slopes_at(graph, places, score.value, name, settings.unconnected)
    refuse_states([*kept, other])
    legs = []
    for place, slope in zip(kept, slopes, strict=True):
        sides = [(place, slope), (other, other_slope)]
        (here, own), (there, _) = sides if _size(place) <= _size(other) else sides[::-1]
        with surgery.inside(graph.graph):
            vector = placeholder_like(here.tensor)
        [product] = bent_along(graph, own, vector, [there])
        moved = [here] if here.tensor is there.tensor else [here, there]
        legs.append(leg_with(graph, moved, [place], [product, score.value], score, [vector]))
    return Legs(legs, skipped)


def _size(place: Place) -> int:
    return int(np.prod([size or 1 for size in place.tensor.shape[1:]], dtype=np.int64))


def _block(stage: Stage) -> Tensor:
    """The cross derivatives of one pair of taps, whichever of them has the unit vectors."""
    own, key = stage.leg.measured[0].tensor, stage.leg.measured[0].key
    first, second = stage.here[0], stage.here[-1]
    chosen = range(unit_count(first, key))
    numbers = len(chosen) * unit_count(second, key)
    check_size(numbers, first, key, "the cross Hessian", [], ["gt.curvature.cross_hvp for products with vectors"])
    found = tf.concat([flat(product) for _, product in products(stage, one_hot(first, chosen), len(chosen))], 0)
    is_first = stage.leg.moved[0].tensor is own
    order = [1, 0, 2] if is_first else [1, 2, 0]
    shapes = (first.shape[1:], second.shape[1:]) if is_first else (second.shape[1:], first.shape[1:])
    return tf.reshape(tf.transpose(found, order), (-1, *shapes[0], *shapes[1]))
