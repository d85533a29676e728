"""The whole Jacobian of one tap with respect to others, a chunk of its rows at a time.

Rows are worked out together in one of two ways. *Vectorised*: one forward pass, and a backward pass that TensorFlow
rewrites for many cotangents. *As examples*: the inputs are repeated for each row, and each copy has a cotangent of its
own. Measured on two cores in float32, the second takes 1.2 to 3.1 times as long as the first on dense layers, attention
and convolutions; on LSTMs of 20 steps it takes 0.4 to 1.0 times as long, and its first call, which builds it, a tenth.
So a loop between the two taps decides.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from gradtap.asking import Settings, Unconnected, ask, watched
from gradtap.differentiate import slopes_at
from gradtap.graph import surgery, walking
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
#: Most examples at once where rows are run as examples: what a loop keeps for each of them is not known beforehand.
_EXAMPLES = 256


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
    is vectorised over its rows; an op that TensorFlow cannot vectorise is looped over. Through a recurrent layer the
    rows are run as examples instead, which is faster there.

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
        with surgery.inside(graph.graph):
            cotangents = placeholder_like(of.tensor)
            score = tf.reduce_sum(of.tensor * cotangents)
            size = tf.shape(of.tensor)
        kept, slopes, _ = slopes_at(graph, places, score, f"`{of.key}`", settings.unconnected, "of")
        vectorised = None if _has_loop(of, kept) else _vectorised(of, kept, cotangents)
        watch = watched(graph, kept) if settings.checks else None
        feeds = [*graph.all_feeds, cotangents]
        inner = assemble(graph, feeds, {"products": vectorised or slopes}, kept, watch=watch)
        sizes = surgery.prune(graph.wrapped, graph.all_feeds, [size])
        independent = not settings.training and all(f.shape.rank and f.shape[0] is None for f in graph.feeds)
        examples = None if vectorised else _EXAMPLES if independent else 1
        rows = _Rows(inner, of, sizes, len(graph.feeds), examples)
        copies = of.tensor.shape[1:].num_elements() or inner.copies
        return Program(rows, kept, inner.counts, graph.pack_outputs, inner.watched, copies=copies)


def _has_loop(of: Place, places: Sequence[Place]) -> bool:
    after = walking.descendants([place.variable for place in places])
    return any(op.type in ("While", "StatelessWhile") for op in walking.ancestors([of.tensor]) & after)


def _vectorised(of: Place, places: Sequence[Place], rows: Tensor) -> list[Tensor] | None:
    """Slopes for all rows from one forward pass; None where TensorFlow cannot build them."""
    try:
        return surgery.vectorised_gradients(of.tensor, [place.variable for place in places], rows)
    except Exception:  # whatever it stumbles over, the rows can be worked out without
        return None


class _Rows:
    """Run a program over the rows of the identity, as many at a time as memory allows, and put the rows together.

    Args:
      program: Gives slopes from the inputs and cotangents: one for each row if it is vectorised, else for each example.
      of: What is differentiated.
      sizes: Gives the shape of ``of`` from the inputs.
      inputs: How many of the feeds have a row for each example.
      examples: Run rows as examples, at most so many at once; 1 for a row at a time; None where they are vectorised.
    """

    def __init__(self, program: Program, of: Place, sizes: Compiled, inputs: int, examples: int | None) -> None:
        self.program = program
        self.of = of
        self.sizes = sizes
        self.inputs = inputs
        self.examples = examples

    def __call__(self, *feeds: Tensor) -> list[Tensor]:
        shape = self.of.tensor.shape.as_list()[1:]
        if None in shape:
            shape = [int(n) for n in self.sizes(*feeds)[0][1:]]
        count, places = int(np.prod(shape)), self.program.places
        chunk = self._rows_at_once(feeds[0].shape[0] if feeds[0].shape.rank else 1)
        pieces = []
        for start in range(0, count, chunk):
            rows = np.zeros((min(chunk, count - start), count), self.of.tensor.dtype.as_numpy_dtype)
            rows[np.arange(len(rows)), np.arange(start, start + len(rows))] = 1
            pieces.append(self._slopes(feeds, tf.convert_to_tensor(rows.reshape(-1, *shape))))
        products = [tf.concat(column, 0) for column in list(zip(*pieces, strict=True))[: len(places)]]
        return [*(_batch_first(p, shape) for p in products), *pieces[0][len(places) :]]

    def _rows_at_once(self, batch: int | None) -> int:
        batch = batch or 1
        tensors = [place.tensor for place in self.program.places]
        per_row = sum(t.dtype.size * int(np.prod([n or 64 for n in t.shape[1:]])) for t in tensors)
        # The rows' own slopes on their way back take a few times what they come to in the end.
        fitting = _CHUNK_BYTES // max(1, 4 * per_row * batch)
        return int(max(1, fitting if self.examples is None else min(fitting, self.examples // batch)))

    def _slopes(self, feeds: Sequence[Tensor], rows: Tensor) -> list[Tensor]:
        """``(rows, batch, ...)`` at each place."""
        if self.examples is None:
            return list(self.program.run(*feeds, rows))
        count, batch = int(rows.shape[0]), tf.shape(feeds[0])[0]
        inputs = [tf.repeat(f[None], count, axis=0) if f.shape.rank else f for f in feeds[: self.inputs]]
        inputs = [tf.reshape(f, tf.concat([[-1], tf.shape(f)[2:]], 0)) if f.shape.rank else f for f in inputs]
        found = self.program.run(*inputs, *feeds[self.inputs :], tf.repeat(rows, batch, axis=0))
        slopes = found[: len(self.program.places)]
        apart = [tf.reshape(s, tf.concat([[count, batch], tf.shape(s)[1:]], 0)) for s in slopes]
        return [*apart, *found[len(apart) :]]


def _batch_first(product: Tensor, shape: Sequence[int]) -> Tensor:
    """``(rows, batch, ...)`` to ``(batch, *shape, ...)``."""
    rank = len(product.shape)
    product = tf.transpose(product, [1, 0, *range(2, rank)])
    return tf.reshape(product, tf.concat([tf.shape(product)[:1], shape, tf.shape(product)[2:]], 0))
