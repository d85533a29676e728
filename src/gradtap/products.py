"""Products with the Jacobian of one tap with respect to others, from either side."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import tensorflow as tf

from gradtap.asking import Settings, Unconnected, address_key, addresses, ask, watched
from gradtap.differentiate import slopes_at
from gradtap.graph import surgery
from gradtap.graph.arrays import like
from gradtap.graph.keeping import Trace
from gradtap.graph.resolve import Place, resolve
from gradtap.graph.scores import widen
from gradtap.graph.tracing import ForwardGraph
from gradtap.program import Program, assemble
from gradtap.results import TapValues
from gradtap.second_order import differentiate_again
from gradtap.types import Address, Model, Structure, Tensor, TensorLike
from gradtap.vectors import for_each_example, one_place, placeholder_like, vectors_for


@surgery.unconverted
def vjp(
    model: Model,
    inputs: Structure,
    cotangents: TensorLike,
    *,
    at: Address | Sequence[Address],
    of: Address = ":output",
    unconnected: Unconnected = "error",
    batch_size: int | None = None,
    training: bool = False,
    seed: int | None = None,
    checks: bool = True,
) -> TapValues:
    r"""Multiply the Jacobian of one tap with respect to others from the left, in one backward pass.

    For the activations :math:`a_n` at a tap of ``at``, the value :math:`y_n` at ``of`` and the cotangent :math:`u_n`
    the result holds :math:`u_n^T \partial y_n / \partial a_n`.

    Args:
      model: See `gradtap.gradients`.
      inputs: See `gradtap.gradients`.
      cotangents: An array of the shape of ``of``, ``(batch, ...)``.
      at: Where to differentiate; see `gradtap.gradients`.
      of: What is differentiated: one address.
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
      >>> import gradtap as gt, keras, numpy as np
      >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, name="hidden"), keras.layers.Dense(2)])
      >>> product = gt.vjp(model, np.ones((5, 4)), np.ones((5, 2)), at="hidden").only
      >>> bool(np.allclose(product, np.sum(model.layers[-1].kernel, axis=1)))
      True
    """
    settings = Settings(unconnected, batch_size, training, seed, checks)
    program, parts = ask(model, inputs, _Vjp(at, of, cotangents), settings)
    return TapValues.at(program.places, parts["products"])


@surgery.unconverted
def jvp(
    model: Model,
    inputs: Structure,
    tangents: TensorLike | Mapping[Any, TensorLike],
    *,
    at: Address | Sequence[Address],
    of: Address = ":output",
    unconnected: Unconnected = "error",
    batch_size: int | None = None,
    training: bool = False,
    seed: int | None = None,
    checks: bool = True,
) -> TapValues:
    r"""Multiply the Jacobian of one tap with respect to others from the right: the change that a change makes.

    For tangents :math:`v_n` at the taps of ``at`` the result holds :math:`\sum_t \partial y_n / \partial a_{t,n}\,
    v_{t,n}`. It is exact, by differentiating a vector-Jacobian product with respect to its vector.

    Args:
      model: See `gradtap.gradients`.
      inputs: See `gradtap.gradients`.
      tangents: An array of the shape of the activations at the one tap, or a mapping from address to array.
      at: Where the change is made; see `gradtap.gradients`.
      of: Where the change is read: one address.
      unconnected: See `gradtap.gradients`.
      batch_size: See `gradtap.gradients`.
      training: See `gradtap.gradients`.
      seed: See `gradtap.gradients`.
      checks: See `gradtap.gradients`.

    Returns:
      A mapping with the one key ``of``; the tensor has its shape.

    Raises:
      GradtapError: One class for each cause; ``docs/errors`` has a page for each.

    Example:
      >>> import gradtap as gt, keras, numpy as np
      >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, name="hidden"), keras.layers.Dense(2)])
      >>> change = gt.jvp(model, np.ones((5, 4)), np.ones((5, 3)), at="hidden").only
      >>> bool(np.allclose(change, np.sum(model.layers[-1].kernel, axis=0)))
      True
    """
    settings = Settings(unconnected, batch_size, training, seed, checks)
    program, parts = ask(model, inputs, _Jvp(at, of, tangents), settings)
    return TapValues.at(program.places, parts["products"])


class BetweenTaps:
    """What all three share: where to differentiate, and what."""

    def __init__(self, at: Any, of: Any) -> None:
        self.at = addresses(at)
        self.of = of

    def key(self, graph: ForwardGraph) -> Hashable:
        return address_key(self.at), address_key(self.of)

    def differentiated(self, graph: ForwardGraph) -> Place:
        """The one place that is differentiated."""
        return one_place(graph, self.of, "of")

    def values(self, graph: ForwardGraph, batch: int | None) -> list[TensorLike]:
        return []


class _Vjp(BetweenTaps):
    def __init__(self, at: Any, of: Any, cotangents: TensorLike) -> None:
        super().__init__(at, of)
        self.cotangents = cotangents

    def values(self, graph: ForwardGraph, batch: int | None) -> list[TensorLike]:
        place = self.differentiated(graph)
        return [like(self.cotangents, place.tensor, batch, f"cotangents for `{place.key}`")]

    def build(self, trace: Trace, graph: ForwardGraph, settings: Settings) -> Program:
        places, of = resolve(graph, self.at), self.differentiated(graph)
        with surgery.inside(graph.graph):
            fed = placeholder_like(of.tensor)
            score = tf.reduce_sum(of.tensor * fed)
        kept, products, _ = slopes_at(graph, places, score, f"`{of.key}`", settings.unconnected, "of")
        watch = watched(graph, kept) if settings.checks else None
        parts = {"products": products}
        return assemble(graph, [*graph.all_feeds, fed], parts, kept, watch=watch, jit_compile=trace.jit_compile)


class _Jvp(BetweenTaps):
    def __init__(self, at: Any, of: Any, tangents: Any) -> None:
        super().__init__(at, of)
        self.tangents = tangents

    def values(self, graph: ForwardGraph, batch: int | None) -> list[TensorLike]:
        return vectors_for(resolve(graph, self.at), self.tangents, batch, "tangents")

    def build(self, trace: Trace, graph: ForwardGraph, settings: Settings) -> Program:
        places, of = resolve(graph, self.at), self.differentiated(graph)
        with surgery.inside(graph.graph):
            fed = [placeholder_like(place.tensor) for place in places]
        cotangents, score = _free_cotangents(graph, [of.tensor])
        kept, slopes, _ = slopes_at(graph, places, score, f"`{of.key}`", settings.unconnected, "of")
        with surgery.inside(graph.graph):
            tangents = [for_each_example(fed[places.index(place)], place.tensor) for place in kept]
        products = _forward(graph, slopes, tangents, cotangents)
        watch = watched(graph, kept) if settings.checks else None
        feeds = [*graph.all_feeds, *fed]
        return assemble(graph, feeds, {"products": products}, [of], watch=watch, jit_compile=trace.jit_compile)


def tangents_through(
    graph: ForwardGraph, at: Sequence[Place], tangents: Sequence[Tensor], of: Sequence[Tensor]
) -> list[Tensor]:
    """Add to a graph how several tensors change with a change at taps; zeros where they do not depend on them.

    Args:
      graph: The forward graph.
      at: Where the change is made.
      tangents: The change, of the shape of the activations there.
      of: Where the change is read.
    """
    cotangents, score = _free_cotangents(graph, of)
    found = surgery.differentiate(score, [place.variable for place in at])
    pairs = [(slope, tangent) for slope, tangent in zip(found, tangents, strict=True) if slope is not None]
    slopes, along = [slope for slope, _ in pairs], [tangent for _, tangent in pairs]
    return _forward(graph, slopes, along, cotangents)


def _free_cotangents(graph: ForwardGraph, of: Sequence[Tensor]) -> tuple[list[Tensor], Tensor]:
    """A cotangent for each tensor, and the sum of the products: linear in them, their values are of no account."""
    with surgery.inside(graph.graph):
        free = [tf.compat.v1.placeholder_with_default(tf.zeros_like(tensor), tensor.shape) for tensor in of]
        return free, tf.add_n([tf.reduce_sum(widen(tensor * c)) for tensor, c in zip(of, free, strict=True)])


def _forward(
    graph: ForwardGraph, slopes: Sequence[Tensor], tangents: Sequence[Tensor], cotangents: Sequence[Tensor]
) -> list[Tensor]:
    """Jacobian-vector products: what multiplies the cotangents in the product of slopes and tangents."""
    none: list[Tensor | None] = [None] * len(cotangents)
    products = differentiate_again(slopes, cotangents, along=tangents) if slopes else none
    with surgery.inside(graph.graph):
        return [tf.zeros_like(c) if p is None else p for c, p in zip(cotangents, products, strict=True)]
