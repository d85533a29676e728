"""Products with the Jacobian of one tap with respect to others, from either side."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import tensorflow as tf

from gradtap.asking import Settings, Unconnected, address_key, ask, watched
from gradtap.differentiate import slopes_at
from gradtap.graph import surgery
from gradtap.graph.arrays import like
from gradtap.graph.keeping import Trace
from gradtap.graph.resolve import Place, resolve
from gradtap.graph.tracing import ForwardGraph
from gradtap.program import Program, assemble
from gradtap.results import TapValues
from gradtap.second_order import differentiate_again
from gradtap.types import Address, Model, Structure, TensorLike
from gradtap.vectors import one_place, placeholder_like, vectors_for


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
        self.at = at
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
        kept, products, _ = slopes_at(graph, places, score, f"`{of.key}`", settings.unconnected)
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
            # The product is linear in this cotangent; its value is of no account.
            cotangent = tf.compat.v1.placeholder_with_default(tf.zeros_like(of.tensor), of.tensor.shape)
            score = tf.reduce_sum(of.tensor * cotangent)
        kept, slopes, _ = slopes_at(graph, places, score, f"`{of.key}`", settings.unconnected)
        tangents = [fed[places.index(place)] for place in kept]
        with surgery.inside(graph.graph):
            change = tf.add_n([tf.reduce_sum(s * v) for s, v in zip(slopes, tangents, strict=True)])
        product = differentiate_again(change, [cotangent])[0]
        with surgery.inside(graph.graph):
            product = tf.zeros_like(of.tensor) if product is None else product
        watch = watched(graph, kept) if settings.checks else None
        feeds = [*graph.all_feeds, *fed]
        return assemble(graph, feeds, {"products": [product]}, [of], watch=watch, jit_compile=trace.jit_compile)
