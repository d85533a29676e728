"""The whole Jacobian of one tap with respect to others, a chunk of its rows at a time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from gradtap.asking import Settings, Unconnected, ask, watched
from gradtap.differentiate import slopes_at
from gradtap.graph import surgery
from gradtap.graph.keeping import Trace
from gradtap.graph.resolve import Place, resolve
from gradtap.graph.tracing import ForwardGraph
from gradtap.products import BetweenTaps
from gradtap.program import Program, assemble
from gradtap.results import TapValues
from gradtap.types import Address, Compiled, Model, Structure, Tensor
from gradtap.vectors import placeholder_like

#: Rows of a Jacobian that are worked out at once take about this many bytes.
_CHUNK_BYTES = 128 << 20


@surgery.unconverted
def jacobian(
    model: Model,
    inputs: Structure,
    *,
    at: Address | Sequence[Address],
    of: Address = ":output",
    unconnected: Unconnected = "error",
    batch_size: int | None = None,
    training: bool = False,
    seed: int | None = None,
    checks: bool = True,
) -> TapValues:
    r"""Differentiate every unit of one tap with respect to every unit of others.

    The result holds :math:`J_{n,i,j} = \partial y_{n,i} / \partial a_{n,j}`, for each example by itself. Rows are
    worked out many at once, as many as memory allows: the forward pass runs once for each chunk, and the backward pass
    is vectorised over its rows; an op that TensorFlow cannot vectorise is looped over.

    Args:
      model: See `gradtap.gradients`.
      inputs: See `gradtap.gradients`.
      at: Where to differentiate; see `gradtap.gradients`.
      of: What is differentiated: one address.
      unconnected: See `gradtap.gradients`.
      batch_size: See `gradtap.gradients`.
      training: See `gradtap.gradients`. With True the examples are coupled, and row :math:`i` of example :math:`n` is
        :math:`\sum_m \partial y_{m,i} / \partial a_{n,j}`.
      seed: See `gradtap.gradients`.
      checks: See `gradtap.gradients`.

    Returns:
      A mapping from address to a tensor ``(batch, *shape of of, *shape of the activations)``.

    Raises:
      GradtapError: One class for each cause; ``docs/errors`` has a page for each.

    Example:
      >>> import gradtap as gt, keras, numpy as np
      >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, name="hidden"), keras.layers.Dense(2)])
      >>> gt.jacobian(model, np.ones((5, 4)), at="hidden").only.shape
      TensorShape([5, 2, 3])
    """
    settings = Settings(unconnected, batch_size, training, seed, checks)
    program, parts = ask(model, inputs, _Jacobian(at, of), settings)
    return TapValues.at(program.places, parts["products"])


class _Jacobian(BetweenTaps):
    def build(self, trace: Trace, graph: ForwardGraph, settings: Settings) -> Program:
        places, of = resolve(graph, self.at), self.differentiated(graph)
        kept, _, _ = slopes_at(graph, places, of.tensor, f"`{of.key}`", settings.unconnected)
        with surgery.inside(graph.graph):
            rows = placeholder_like(of.tensor)
            size = tf.shape(of.tensor)
        products = surgery.vectorised_gradients(of.tensor, [place.variable for place in kept], rows)
        watch = watched(graph, kept) if settings.checks else None
        inner = assemble(graph, [*graph.all_feeds, rows], {"products": products}, kept, watch=watch)
        sizes = surgery.prune(graph.wrapped, graph.all_feeds, [size])
        return Program(_row_by_row(inner, of, kept, sizes), kept, inner.counts, graph.pack_outputs, inner.watched)


def _row_by_row(program: Program, of: Place, places: Sequence[Place], sizes: Compiled) -> Compiled:
    """Run a program over the rows of the identity, as many at a time as memory allows, and put the rows together."""

    def run(*feeds: Tensor) -> list[Tensor]:
        shape = of.tensor.shape.as_list()[1:]
        if None in shape:
            shape = [int(n) for n in sizes(*feeds)[0][1:]]
        rows = int(np.prod(shape))
        chunk = _rows_at_once(places, feeds[0].shape[0] or 1)
        pieces = []
        for start in range(0, rows, chunk):
            stop = min(start + chunk, rows)
            identity = np.zeros((stop - start, rows), of.tensor.dtype.as_numpy_dtype)
            identity[np.arange(stop - start), np.arange(start, stop)] = 1
            pieces.append(program.run(*feeds, tf.convert_to_tensor(identity.reshape(-1, *shape))))
        products = [tf.concat(column, 0) for column in list(zip(*pieces, strict=True))[: len(places)]]
        return [*(_batch_first(p, shape) for p in products), *pieces[0][len(places) :]]

    return run


def _rows_at_once(places: Sequence[Place], batch: int) -> int:
    per_row = sum(p.tensor.dtype.size * int(np.prod([n or 64 for n in p.tensor.shape[1:]])) for p in places)
    # The rows' own slopes on their way back take a few times what they come to in the end.
    return int(max(1, _CHUNK_BYTES // max(1, 4 * per_row * batch)))


def _batch_first(product: Tensor, shape: Sequence[int]) -> Tensor:
    """``(rows, batch, ...)`` to ``(batch, *shape, ...)``."""
    rank = len(product.shape)
    product = tf.transpose(product, [1, 0, *range(2, rank)])
    return tf.reshape(product, tf.concat([tf.shape(product)[:1], shape, tf.shape(product)[2:]], 0))
