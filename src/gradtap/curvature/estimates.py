"""Diagonals and traces of the Hessian at a tap, exactly or from random draws, example by example."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import tensorflow as tf

from gradtap.asking import Settings, Unconnected
from gradtap.curvature.matrices import Matrix, block, measured, products, unit_count
from gradtap.graph import surgery
from gradtap.graph.resolve import Place
from gradtap.graph.scores import widen
from gradtap.results import TapValues
from gradtap.staged.noise import generator
from gradtap.staged.quadrature import check_count
from gradtap.staged.stages import Stage
from gradtap.types import Address, Model, Structure, Tensor

#: Up to so many units a diagonal is computed entry by entry where the caller does not say.
_FEW_UNITS = 256
_SAMPLES = 100
#: One draw of an int32 gives the signs of so many runs.
_BITS = 32


class Estimates(TapValues):
    """Numbers that may be estimated from random draws.

    Args:
      values: Pairs of a key and a tensor.
      places: Where each belongs.
      standard_error: That of each number, of the same shape; zeros where they are exact.
    """

    def __init__(
        self,
        values: Iterable[tuple[str, Tensor]],
        places: Sequence[Place] | None = None,
        *,
        standard_error: TapValues | None = None,
    ) -> None:
        super().__init__(values, places)
        self.standard_error = standard_error if standard_error is not None else TapValues([])


@surgery.unconverted
def hessian_diagonal(
    model: Model,
    inputs: Structure,
    *,
    target: Any = None,
    at: Address | Sequence[Address],
    samples: int | None = None,
    matrix: Matrix = "hessian",
    unconnected: Unconnected = "error",
    batch_size: int | None = None,
    training: bool = False,
    seed: int | None = None,
    checks: bool = True,
) -> Estimates:
    r"""The diagonal of the Hessian at a tap: exactly where there are few units, else estimated.

    With draws :math:`v` of entries 1 and -1 the estimate is the mean of :math:`v \odot Hv`, whose error falls with the
    root of their number.

    Args:
      model: See `gradtap.gradients`.
      inputs: See `gradtap.gradients`.
      target: See `gradtap.gradients`.
      at: See `gradtap.gradients`.
      samples: How many draws; None computes up to 256 units exactly, and takes 100 draws for more.
      matrix: ``"hessian"``, or ``"gauss_newton"`` for that of `gauss_newton`.
      unconnected: See `gradtap.gradients`.
      batch_size: See `hessian`.
      training: See `hessian`.
      seed: Makes the draws the same each time; None draws anew. All examples are given the same draws.
      checks: See `gradtap.gradients`.

    Returns:
      `Estimates`: a mapping from address to a tensor of the shape of the activations; ``.standard_error`` has that of
      each entry, zeros where they are exact.

    Raises:
      GradtapError: One class for each cause; ``docs/errors`` has a page for each.

    Example:
      >>> import gradtap as gt, keras, numpy as np
      >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(4, activation="tanh"), keras.layers.Dense(2)])
      >>> gt.curvature.hessian_diagonal(model, np.ones((5, 3)), target=0, at=":input").only.shape
      TensorShape([5, 3])

    References:
      Bekas, Kokiopoulou, Saad, An Estimator for the Diagonal of a Matrix,
      https://doi.org/10.1016/j.apnum.2007.01.003, 2007.
    """
    if samples is not None:
        check_count("samples", samples, 2)
    base = int(generator(seed, 7).integers(2**31))

    def diagonal(stage: Stage) -> list[Tensor]:
        here, key = stage.here[0], stage.leg.measured[0].key
        size = unit_count(here, key)
        if samples is None and size <= _FEW_UNITS:
            found = block(stage, range(size))
            exact = tf.reshape(tf.linalg.diag_part(found), tf.shape(here))
            return [exact, tf.zeros_like(exact), found]
        count = samples or _SAMPLES
        terms = (v * p for v, p in _drawn(stage, count, base))
        return _mean_and_error(terms, count)

    settings = Settings(unconnected, batch_size, training, seed, checks)
    places, (values, standard, _) = measured(model, inputs, target, at, settings, diagonal, 3, matrix=matrix)
    return Estimates.at(places, values, standard_error=TapValues.at(places, standard))


@surgery.unconverted
def trace_estimate(
    model: Model,
    inputs: Structure,
    *,
    target: Any = None,
    at: Address | Sequence[Address],
    samples: int = _SAMPLES,
    matrix: Matrix = "hessian",
    unconnected: Unconnected = "error",
    batch_size: int | None = None,
    training: bool = False,
    seed: int | None = None,
    checks: bool = True,
) -> Estimates:
    r"""The trace of the Hessian at a tap, by Hutchinson's estimator: the mean of :math:`v^\top H v` over random signs.

    Args:
      model: See `gradtap.gradients`.
      inputs: See `gradtap.gradients`.
      target: See `gradtap.gradients`.
      at: See `gradtap.gradients`.
      samples: How many draws; they run together, as many at once as fit.
      matrix: See `hessian_diagonal`.
      unconnected: See `gradtap.gradients`.
      batch_size: See `hessian`.
      training: See `hessian`.
      seed: See `hessian_diagonal`.
      checks: See `gradtap.gradients`.

    Returns:
      `Estimates`: a mapping from address to ``(batch,)``; ``.standard_error`` has that of each.

    Raises:
      GradtapError: One class for each cause; ``docs/errors`` has a page for each.

    Example:
      >>> import gradtap as gt, keras, numpy as np
      >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(4, activation="tanh"), keras.layers.Dense(2)])
      >>> gt.curvature.trace_estimate(model, np.ones((5, 3)), target=0, at=":input", samples=10).only.shape
      TensorShape([5])

    References:
      Hutchinson, A Stochastic Estimator of the Trace, https://doi.org/10.1080/03610918908812806, 1989.
    """
    check_count("samples", samples, 2)
    base = int(generator(seed, 7).integers(2**31))

    def trace(stage: Stage) -> list[Tensor]:
        axes = list(range(2, stage.here[0].shape.rank + 1))
        terms = (tf.reduce_sum(widen(v) * widen(p), axes) for v, p in _drawn(stage, samples, base))
        return _mean_and_error(terms, samples)

    settings = Settings(unconnected, batch_size, training, seed, checks)
    places, (values, standard, _) = measured(model, inputs, target, at, settings, trace, 3, matrix=matrix)
    return Estimates.at(places, values, standard_error=TapValues.at(places, standard))


def _drawn(stage: Stage, count: int, base: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Draws of random signs, the same for all examples, and the products with them."""
    here = stage.here[0]
    shape = tf.concat([[1], tf.shape(here)[1:]], 0)

    def signs(part: slice) -> Tensor:
        drawn = []
        for word in range(part.start // _BITS, (part.stop - 1) // _BITS + 1):
            bits = tf.random.stateless_uniform(shape, [base, word], None, None, tf.int32)
            runs = range(max(part.start, word * _BITS), min(part.stop, (word + 1) * _BITS))
            places = tf.reshape(tf.constant([run % _BITS for run in runs]), [-1, *[1] * here.shape.rank])
            drawn.append(tf.bitwise.bitwise_and(tf.bitwise.right_shift(bits[None], places), 1))
        return tf.cast(2 * tf.concat(drawn, 0) - 1, here.dtype)

    return products(stage, signs, count)


def _mean_and_error(terms: Iterable[Tensor], count: int) -> list[Tensor]:
    """The mean over all runs and its standard error, kept up part by part; then what is zero where all runs are."""
    seen, mean, spread = 0, 0.0, 0.0
    for part in terms:
        more = part.shape[0]
        own = tf.reduce_mean(part, 0)
        moved = own - mean
        spread += tf.reduce_sum((part - own[None]) ** 2, 0) + moved**2 * (seen * more / (seen + more))
        mean += moved * (more / (seen + more))
        seen += more
    error = tf.sqrt(spread / (count - 1) / count)
    return [mean, error, tf.abs(mean) + error]
