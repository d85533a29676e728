"""Second derivatives at a tap: whole Hessians, their diagonals and their traces, example by example."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from gradtap import errors
from gradtap.asking import Settings, Unconnected, address_key, ask
from gradtap.batching import free_memory
from gradtap.differentiate import slopes_at
from gradtap.graph import surgery
from gradtap.graph.resolve import Place, resolve
from gradtap.graph.scores import widen
from gradtap.graph.tracing import ForwardGraph
from gradtap.results import TapValues
from gradtap.second_order import differentiate_again
from gradtap.staged.noise import generator
from gradtap.staged.quadrature import check_count
from gradtap.staged.slope_legs import leg_with
from gradtap.staged.stages import Legs, Stage, Staged, refuse_states
from gradtap.targets import Target, as_target
from gradtap.types import Address, Model, Structure, Tensor, TensorLike
from gradtap.vectors import placeholder_like

#: Up to so many units a diagonal is computed entry by entry where the caller does not say.
_FEW_UNITS = 256
_SAMPLES = 100


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
def hessian(
    model: Model,
    inputs: Structure,
    *,
    target: Any = None,
    at: Address | Sequence[Address],
    units: Sequence[Any] | None = None,
    unconnected: Unconnected = "error",
    batch_size: int | None = None,
    training: bool = False,
    seed: int | None = None,
    checks: bool = True,
) -> TapValues:
    r"""The Hessian of a target with respect to the activations at a tap, for each example.

    :math:`H_{ij} = \partial^2 F / \partial a_i \partial a_j`, column by column from Hessian-vector products; what comes
    before the tap runs once.

    Args:
      model: See `gradtap.gradients`.
      inputs: See `gradtap.gradients`.
      target: See `gradtap.gradients`.
      at: See `gradtap.gradients`.
      units: Only the block of these units: indices of one example's activations, each an int or a tuple; None for all.
      unconnected: See `gradtap.gradients`.
      batch_size: Most examples in flight at once, columns included; None chooses it from the size of the activations.
      training: See `gradtap.gradients`.
      seed: See `gradtap.gradients`.
      checks: See `gradtap.gradients`.

    Returns:
      `TapValues`: a mapping from address to ``(batch, *shape, *shape)`` for activations ``(batch, *shape)``, of their
      dtype; ``(batch, k, k)`` for k units. Exact zeros, with a warning, where nothing bends between tap and target.

    Raises:
      MemoryBudgetError: It would take more than half of the free memory; the message says what to use instead.
      GradtapError: One class for each cause; ``docs/errors`` has a page for each.

    Example:
      >>> import gradtap as gt, keras, numpy as np
      >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(4, activation="tanh"), keras.layers.Dense(2)])
      >>> gt.curvature.hessian(model, np.ones((5, 3)), target=0, at=":input").only.shape
      TensorShape([5, 3, 3])

    References:
      Pearlmutter, Fast Exact Multiplication by the Hessian, https://doi.org/10.1162/neco.1994.6.1.147, 1994.
    """

    def columns(stage: Stage) -> list[Tensor]:
        here, key = stage.here[0], stage.leg.measured[0].key
        _, chosen = _units(here, units, key)
        _check_size(len(chosen), here, key)
        found = [tf.gather(_flat(p), chosen, axis=2) for p in _products(stage, _one_hot(here, chosen), len(chosen))]
        block = tf.transpose(tf.concat(found, 0), [1, 2, 0])
        shape = here.shape[1:]
        return [block if units is not None else tf.reshape(block, (-1, *shape, *shape))]

    settings = Settings(unconnected, batch_size, training, seed, checks)
    places, (values,) = _of_products(model, inputs, target, at, settings, columns, 1)
    _say_where_nothing_bends(places, values)
    return TapValues.at(places, values)


@surgery.unconverted
def hessian_diagonal(
    model: Model,
    inputs: Structure,
    *,
    target: Any = None,
    at: Address | Sequence[Address],
    samples: int | None = None,
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
      unconnected: See `gradtap.gradients`.
      batch_size: See `hessian`.
      training: See `gradtap.gradients`.
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
        size, every = _units(here, None, key)
        if samples is None and size <= _FEW_UNITS:
            products = _products(stage, _one_hot(here, every), size)
            block = tf.transpose(tf.concat([_flat(p) for p in products], 0), [1, 2, 0])
            exact = tf.reshape(tf.linalg.diag_part(block), tf.shape(here))
            return [exact, tf.zeros_like(exact)]
        count = samples or _SAMPLES
        terms = (v * p for v, p in _drawn(stage, count, base))
        return _mean_and_error(terms, count)

    settings = Settings(unconnected, batch_size, training, seed, checks)
    places, (values, standard) = _of_products(model, inputs, target, at, settings, diagonal, 2)
    _say_where_nothing_bends(places, values)
    return Estimates.at(places, values, standard_error=TapValues.at(places, standard))


@surgery.unconverted
def trace_estimate(
    model: Model,
    inputs: Structure,
    *,
    target: Any = None,
    at: Address | Sequence[Address],
    samples: int = _SAMPLES,
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
      unconnected: See `gradtap.gradients`.
      batch_size: See `hessian`.
      training: See `gradtap.gradients`.
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
    places, (values, standard) = _of_products(model, inputs, target, at, settings, trace, 2)
    return Estimates.at(places, values, standard_error=TapValues.at(places, standard))


def _of_products(
    model: Model,
    inputs: Structure,
    target: Any,
    at: Any,
    settings: Settings,
    measure: Callable[[Stage], list[Tensor]],
    count: int,
) -> tuple[list[Place], list[list[Tensor]]]:
    """Measure something by Hessian-vector products at every tap; so many results each."""
    wanted = as_target(target)

    def work(stages: list[Stage], inputs: list[Tensor], arrays: list[TensorLike]) -> dict[str, list[Tensor]]:
        found = [measure(stage) for stage in stages]
        return {f"part {i}": [each[i] for each in found] for i in range(count)}

    question = Staged(wanted, ("curvature", address_key(at)), lambda graph, own: _legs(graph, own, wanted, at), work)
    program, parts = ask(model, inputs, question, settings)
    return program.places, [parts[f"part {i}"] for i in range(count)]


def _legs(graph: ForwardGraph, settings: Settings, target: Target, at: Any) -> Legs:
    """A leg for each tap; its suffix takes a vector and returns the Hessian's product with it, then the target."""
    places = resolve(graph, at)
    with surgery.inside(graph.graph):
        score = target.build(graph)
    kept, slopes, skipped = slopes_at(graph, places, score.value, repr(target), settings.unconnected)
    refuse_states(kept)
    legs = []
    for place, slope in zip(kept, slopes, strict=True):
        with surgery.inside(graph.graph):
            vector = placeholder_like(place.tensor)
            along = tf.reduce_sum(slope * vector)
        [product] = differentiate_again(along, [place.tensor])
        with surgery.inside(graph.graph):
            product = tf.zeros_like(place.tensor) * vector if product is None else product
        legs.append(leg_with(graph, [place], [place], [product, score.value], score, [vector]))
    return Legs(legs, skipped)


def _products(stage: Stage, vectors: Callable[[slice], Tensor], count: int) -> list[Tensor]:
    """Products with so many vectors, ``(runs, batch, ...)`` in parts."""
    here = stage.here[0]
    found = []
    for part in stage.parts(count, f"products at {stage.leg.measured[0].key}"):
        given = vectors(part) * tf.ones_like(here)[None]
        points = tf.repeat(here[None], given.shape[0], axis=0)
        found.append(stage.run([points], each=[given])[0])
    return found


def _drawn(stage: Stage, count: int, base: int) -> Iterable[tuple[Tensor, Tensor]]:
    """Draws of random signs, the same for all examples, and the products with them."""
    here = stage.here[0]
    shape = tf.concat([[1], tf.shape(here)[1:]], 0)
    for part in stage.parts(count, f"draws at {stage.leg.measured[0].key}"):
        signs = [
            2 * tf.random.stateless_uniform(shape, [base, run], 0, 2, tf.int32) - 1
            for run in range(part.start, part.stop)
        ]
        given = tf.cast(tf.stack(signs), here.dtype) * tf.ones_like(here)[None]
        yield given, stage.run([tf.repeat(here[None], given.shape[0], axis=0)], each=[given])[0]


def _mean_and_error(terms: Iterable[Tensor], count: int) -> list[Tensor]:
    """The mean over all runs, and its standard error, kept up part by part."""
    seen, mean, spread = 0, 0.0, 0.0
    for part in terms:
        more = part.shape[0]
        own = tf.reduce_mean(part, 0)
        moved = own - mean
        spread += tf.reduce_sum((part - own[None]) ** 2, 0) + moved**2 * (seen * more / (seen + more))
        mean += moved * (more / (seen + more))
        seen += more
    return [mean, tf.sqrt(spread / (count - 1) / count)]


def _flat(tensor: Tensor) -> Tensor:
    """``(runs, batch, units)``."""
    return tf.reshape(tensor, (tensor.shape[0], tf.shape(tensor)[1], -1))


def _units(here: Tensor, units: Sequence[Any] | None, key: str) -> tuple[int, list[int]]:
    """How many units an example has, and the flat indices of those that are asked for."""
    shape = tuple(here.shape[1:])
    if None in shape:
        raise errors.SideError(
            f"`{key}` does not say how many units it has.", [("shape", str(shape))], "hvp needs not know"
        )
    size = int(np.prod(shape, dtype=np.int64))
    if units is None:
        return size, list(range(size))
    try:
        places = [np.ravel_multi_index(u if isinstance(u, tuple) else np.unravel_index(u, shape), shape) for u in units]
    except (TypeError, ValueError) as error:
        raise errors.ArgumentError(
            f"units={units!r} are no units of `{key}`."[:200],
            [("one example's activations", str(shape)), ("it said", str(error))],
            "indices: ints of the flat activations, or tuples",
        ) from None
    return size, [int(place) for place in places]


def _one_hot(here: Tensor, chosen: Sequence[int]) -> Callable[[slice], Tensor]:
    size, shape = int(np.prod(here.shape[1:], dtype=np.int64)), tuple(here.shape[1:])
    return lambda part: tf.reshape(tf.one_hot(chosen[part], size, dtype=here.dtype), (-1, 1, *shape))


def _check_size(count: int, here: Tensor, key: str) -> None:
    """Raise before a Hessian would take more than half of the free memory.

    Raises:
      MemoryBudgetError: It says how large it is.
    """
    needed = 2 * count**2 * int(here.shape[0] or 1) * here.dtype.size
    free = free_memory()
    if free is not None and needed > free / 2:
        raise errors.MemoryBudgetError(
            f"the Hessian at `{key}` would take {needed / 2e9:.1f} GB, and as much again while it is made; "
            f"{free / 1e9:.1f} GB of memory are free.",
            [("units", f"{count:,} of each example")],
            ["units=[...] for a block of it", "hessian_diagonal, trace_estimate", "gt.hvp for products with vectors"],
        )


def _say_where_nothing_bends(places: Sequence[Place], values: Sequence[Tensor]) -> None:
    flat = [p.key for p, v in zip(places, values, strict=True) if hasattr(v, "numpy") and v.shape[0] and not np.any(v)]
    if flat:
        errors.warn(
            errors.GradtapWarning(
                f"the second derivatives at `{flat[0]}` are all zero: from there to the target all is linear, or "
                "linear in pieces as a ReLU is. A log-probability (gt.targets.loss) or a smooth activation bends."
            )
        )
