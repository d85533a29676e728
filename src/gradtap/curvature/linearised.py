"""Gauss-Newton products: the Hessian of a target with all but its outermost part taken as linear."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import tensorflow as tf

from gradtap import errors
from gradtap.asking import Settings, Unconnected, address_key, addresses, ask
from gradtap.differentiate import slopes_at
from gradtap.graph import surgery, walking
from gradtap.graph.keeping import Trace
from gradtap.graph.resolve import Place, resolve
from gradtap.graph.scores import pre_squash
from gradtap.graph.tracing import ForwardGraph
from gradtap.products import tangents_through
from gradtap.program import Program
from gradtap.results import TapValues
from gradtap.second_order import are_zero, differentiate_again, program_of_products, warn_of_zeros
from gradtap.targets import Target, as_target
from gradtap.types import Address, Model, Structure, Tensor, TensorLike
from gradtap.vectors import for_each_example, placeholder_like, vectors_for

NOTHING_BENDS_OUTSIDE = (
    "the target is linear, or linear in pieces, in what the Gauss-Newton matrix takes it as a function of: the outputs "
    "before a final softmax, if nothing else was named. A logit is; a loss or a probability bends."
)


@surgery.unconverted
def gauss_newton(
    model: Model,
    inputs: Structure,
    vectors: TensorLike | Mapping[Any, TensorLike],
    *,
    target: Any = None,
    at: Address | Sequence[Address],
    of: Address | Sequence[Address] | None = None,
    unconnected: Unconnected = "error",
    batch_size: int | None = None,
    training: bool = False,
    seed: int | None = None,
    checks: bool = True,
) -> TapValues:
    r"""Multiply the generalised Gauss-Newton matrix of a target at taps with a vector, without forming it.

    The target is read as :math:`F = L(z(a))` and the matrix is :math:`G = J^\top \frac{\partial^2 L}{\partial z^2} J`
    with :math:`J = \partial z / \partial a`: the Hessian without the term in which :math:`z` itself bends. It is
    positive semidefinite wherever :math:`L` is convex in :math:`z`, and equal to the Hessian wherever :math:`z` is
    linear in :math:`a`. For :math:`z` the outputs before a final softmax or sigmoid are taken, found in the graph, so
    that the cross-entropy of a model that ends in a softmax gives :math:`J^\top (\mathrm{diag}(p) - p p^\top) J`, which
    is also its Fisher information. The score of a class before the softmax is linear in :math:`z`: its matrix is zero.

    Args:
      model: See `gradtap.gradients`.
      inputs: See `gradtap.gradients`.
      vectors: See `gradtap.hvp`.
      target: See `gradtap.gradients`; usually a loss.
      at: See `gradtap.gradients`. Several taps are one matrix, as for `gradtap.hvp`.
      of: Addresses of :math:`z`, between the taps and the target; None for the outputs that the target reads, before a
        final softmax or sigmoid.
      unconnected: See `gradtap.gradients`.
      batch_size: See `gradtap.gradients`.
      training: See `gradtap.gradients`.
      seed: See `gradtap.gradients`.
      checks: See `gradtap.gradients`.

    Returns:
      A mapping from address to a tensor of the shape of its activations.

    Raises:
      ArgumentError: The target depends on a tap by a way around :math:`z`.
      GradtapError: One class for each cause; ``docs/errors`` has a page for each.

    Example:
      Of a squared error the outer Hessian is twice the identity, and :math:`G = 2 J^\top J`.

      >>> import gradtap as gt, numpy as np, tensorflow as tf
      >>> def model(x):
      ...     return tf.stack([x[:, 0] * x[:, 1], x[:, 0]], 1)
      >>> def error(y):
      ...     return tf.reduce_sum(y**2, 1)
      >>> gt.curvature.gauss_newton(model, [[3.0, 2.0]], [[1.0, 0.0]], target=error, at=":input").only.numpy()
      array([[10., 12.]])

    References:
      Schraudolph, Fast Curvature Matrix-Vector Products for Second-Order Gradient Descent,
      https://doi.org/10.1162/08997660260028683, 2002.
    """
    settings = Settings(unconnected, batch_size, training, seed, checks)
    program, parts = ask(model, inputs, _GaussNewton(as_target(target), at, of, vectors), settings)
    if checks and not are_zero(tf.nest.flatten(vectors)):
        warn_of_zeros(program.places, parts["products"], NOTHING_BENDS_OUTSIDE, together=True)
    return TapValues.at(program.places, parts["products"])


class _GaussNewton:
    def __init__(self, target: Target, at: Any, of: Any, vectors: Any) -> None:
        self.target = target
        self.at = addresses(at)
        self.of = addresses(of)
        self.vectors = vectors

    def key(self, graph: ForwardGraph) -> Hashable:
        return address_key(self.at), None if self.of is None else address_key(self.of), self.target.key(graph)

    def values(self, graph: ForwardGraph, batch: int | None) -> list[TensorLike]:
        fed = vectors_for(resolve(graph, self.at), self.vectors, batch, "vectors")
        return [*self.target.values(graph, batch), *fed]

    def build(self, trace: Trace, graph: ForwardGraph, settings: Settings) -> Program:
        places = resolve(graph, self.at)
        with surgery.inside(graph.graph):
            score = self.target.build(graph)
            fed = [placeholder_like(place.tensor) for place in places]
        kept, _, _ = slopes_at(graph, places, score.value, repr(self.target), settings.unconnected)
        inner = inner_tensors(graph, score.value, kept, self.of)
        with surgery.inside(graph.graph):
            vectors = [for_each_example(fed[places.index(place)], place.tensor) for place in kept]
        products = gauss_newton_products(graph, score.value, inner, kept, vectors)
        return program_of_products(trace, graph, score, self.target, fed, products, kept, kept, settings)


def inner_tensors(graph: ForwardGraph, score: Tensor, places: Sequence[Place], of: Any = None) -> list[Tensor]:
    """What a target is taken as a function of: the outputs that it reads before their softmax, or what is named.

    Args:
      graph: The forward graph that holds the score.
      score: The target, ``(batch,)``.
      places: The taps.
      of: Addresses; None for the outputs.

    Raises:
      ArgumentError: It is a function of none of these, or of a tap by a way around them as well.
    """
    if of is not None:
        found = [place.tensor for place in resolve(graph, of)]
    else:
        found = [output if (before := pre_squash(output)) is None else before for output in graph.outputs]
    needed = walking.ancestors([score])
    read = {t.ref(): t for t in found if surgery.is_float(t) and t.op in needed}
    inner = list(read.values())
    others = [place for place in places if place.variable.ref() not in read]
    slopes = surgery.differentiate(score, [*inner, *(place.variable for place in others)], apart=True)
    around = [p.key for p, slope in zip(others, slopes[len(inner) :], strict=True) if slope is not None]
    reached = [tensor for tensor, slope in zip(inner, slopes, strict=False) if slope is not None]
    if around or not reached:
        named = "the model's outputs, before a final softmax or sigmoid" if of is None else f"of={of!r}"
        raise errors.ArgumentError(
            f"the target is no function of {named} alone.",
            [("why", f"it depends on `{around[0]}` by a way around them" if reached else "it depends on none of them")],
            ["of=... : addresses between the taps and the target, through which all of it goes", "gt.hvp, all of it"],
        )
    return reached


def gauss_newton_products(
    graph: ForwardGraph,
    score: Tensor,
    inner: Sequence[Tensor],
    places: Sequence[Place],
    vectors: Sequence[Tensor],
) -> list[Tensor]:
    """Add the products to a graph: forward to the inner tensors, through the outer Hessian, and back to the taps.

    Args:
      graph: The forward graph that holds the score.
      score: The target, ``(batch,)``.
      inner: What it is a function of.
      places: The taps.
      vectors: One for each tap.
    """
    flow = tangents_through(graph, places, vectors, inner)
    slopes = surgery.differentiate(score, inner, apart=True)
    bent = differentiate_again(slopes, inner, along=flow, apart=True)
    back = [(z, h) for z, h in zip(inner, bent, strict=True) if h is not None]
    variables = [place.variable for place in places]
    outer, held = [z for z, _ in back], [h for _, h in back]
    products = surgery.differentiate(outer, variables, along=held) if back else [None] * len(places)
    with surgery.inside(graph.graph):
        return [tf.zeros_like(v) if p is None else p for p, v in zip(products, vectors, strict=True)]
