"""Concept activation vectors: the direction in the space of activations that tells a concept from what is random."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from gradtap import errors
from gradtap.asking import Settings
from gradtap.concepts.examples import read_sets
from gradtap.concepts.separator import combined, inner_products, kept_aside, separate
from gradtap.graph import surgery
from gradtap.results import TapValues
from gradtap.types import Address, Model, Structure

_Array: TypeAlias = np.ndarray[Any, Any]


@dataclass(frozen=True, eq=False)
class ConceptVector:
    """A concept as a direction at a tap; see `gradtap.concepts.concept_vector`.

    Args:
      vector: Of norm 1, of the shape and dtype of one example's activations; it points to the concept.
      intercept: ``sum(vector * activations) + intercept`` is the signed distance of activations from the plane.
      accuracy: The share of held-out examples on their own side of the plane, the mean of both sets: 0.5 is chance.
      held_out: How many examples that is the accuracy on.
    """

    vector: _Array
    intercept: float
    accuracy: float
    held_out: int

    def __repr__(self) -> str:
        shape = f"{self.vector.dtype.name} {self.vector.shape}"
        return f"ConceptVector({shape}, accuracy {self.accuracy:.2f} on {self.held_out} held-out examples)"


class ConceptVectors(TapValues):
    """A read-only mapping from address to `ConceptVector`; see `gradtap.concepts.concept_vector`."""


class Fits(NamedTuple):
    """Separators of pairs of sets at one tap.

    Args:
      vectors: Of norm 1, ``(pairs, features)``; zeros where nothing tells the sets apart.
      intercepts: ``(pairs,)``.
      accuracies: On held-out examples, ``(pairs,)``.
      counts: On how many.
    """

    vectors: _Array
    intercepts: _Array
    accuracies: _Array
    counts: list[int]


@surgery.unconverted
def concept_vector(
    model: Model,
    concept: Structure,
    contrast: Structure,
    *,
    at: Address | Sequence[Address],
    penalty: float = 0.01,
    held_out: float = 0.25,
    batch_size: int | None = None,
    training: bool = False,
    seed: int | None = 0,
    checks: bool = True,
) -> ConceptVectors:
    r"""A concept activation vector: the direction at a tap that tells examples of a concept from others.

    With the activations :math:`h_i` of the examples, :math:`y_i = 1` for the concept and :math:`-1` for the contrast,
    and :math:`c_i` one over twice the size of an example's set, :math:`v = w / |w|` of the solution of

    .. math:: \min_{w, b} \sum_i c_i \log(1 + e^{-y_i (w \cdot h_i + b)}) + \frac{\lambda \sigma^2}{2} |w|^2 ,

    where :math:`\sigma^2` is the mean squared distance of the activations from their mean, so that :math:`\lambda`
    means the same at every layer. The solution is exact and unique; no draw decides it but that of the examples that
    are held out.

    Only activations are kept of the examples: in memory stand the number of examples times the size of the activations
    at all taps, twice while they are put together. Name fewer taps at a time where that is too much.

    Args:
      model: See `gradtap.gradients`.
      concept: Examples of the concept, two at least: inputs as the model takes them, or a `tf.data.Dataset` of batches.
      contrast: Examples of what it is told from, usually random ones; any number from two on.
      at: See `gradtap.gradients`.
      penalty: :math:`\lambda`. Larger makes the vector more like the difference of the means.
      held_out: The share of each set that the accuracy is measured on, and that the vector does not see.
      batch_size: See `gradtap.gradients`.
      training: See `gradtap.gradients`.
      seed: Draws which examples are held out; None draws anew.
      checks: Warn of a separator that is no better than chance.

    Returns:
      `ConceptVectors`: a read-only mapping from address to `ConceptVector`, with ``.vector`` of norm 1, of the shape
      and dtype of one example's activations, ``.intercept`` and ``.accuracy``. The vector is zero where nothing at all
      tells the sets apart.

    Raises:
      ArgumentError: A set has fewer than two examples, or activations that are not finite.
      IntegerTapError: A tap holds no real numbers.
      InputShapeError: The activations of the sets differ in shape.
      GradtapError: Anything else that is wrong. Each cause has a class and a page in ``docs/errors``.

    Example:
      Bright images against dark ones, at the input: the direction is that of brightness.

      >>> import gradtap as gt, keras, numpy as np
      >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
      >>> dark = np.random.default_rng(0).normal(size=(20, 4))
      >>> found = gt.concepts.concept_vector(model, dark + 5.0, dark, at=":input").only
      >>> found.accuracy, bool(np.all(found.vector > 0))
      (1.0, True)

    References:
      Kim, Wattenberg, Gilmer, Cai, Wexler, Viegas, Sayres, Interpretability Beyond Feature Attribution,
      https://arxiv.org/abs/1711.11279, 2018.
    """
    settings = Settings("error", batch_size, training, seed, checks)
    check_fit(penalty, held_out)
    read = read_sets(model, {"`concept`": concept, "`contrast`": contrast}, at, settings)
    found, doubtful = [], []
    for i, place in enumerate(read.places):
        sets = [arrays[i] for arrays in read.sets.values()]
        fits = fit_pairs(sets, [(0, 1)], penalty, held_out, seed)
        vector = fits.vectors[0].reshape(sets[0].shape[1:]).astype(place.tensor.dtype.as_numpy_dtype)
        vector.setflags(write=False)
        accuracy = float(fits.accuracies[0])
        found.append(ConceptVector(vector, float(fits.intercepts[0]), accuracy, fits.counts[0]))
        if is_chance(accuracy, fits.counts[0]):
            doubtful.append(f"at `{place.key}` {accuracy:.2f} of {fits.counts[0]}")
    if checks and doubtful:
        warn_of_chance(doubtful)
    return ConceptVectors.at(read.places, found)


def check_fit(penalty: float, held_out: float) -> None:
    """Raise unless the keywords of a separator have sensible values.

    Raises:
      ArgumentError: One of them has not.
    """
    if isinstance(penalty, bool) or not isinstance(penalty, (int, float)) or not 0 < penalty < np.inf:
        raise errors.ArgumentError(f"penalty={penalty!r} is not a positive number.", [], "0.01 is usual")
    if isinstance(held_out, bool) or not isinstance(held_out, (int, float)) or not 0 < held_out < 1:
        raise errors.ArgumentError(f"held_out={held_out!r} is not between 0 and 1.", [], "it is a share, 0.25 is usual")


def fit_pairs(
    sets: Sequence[_Array], pairs: Sequence[tuple[int, int]], penalty: float, share: float, seed: int | None
) -> Fits:
    """Separate pairs of sets of activations; what of each set is held out does not depend on its partner.

    Args:
      sets: Activations ``(examples, ...)`` each.
      pairs: Which sets are separated: the vector points from the second to the first.
      penalty: Of the separators.
      share: How much of each set is held out.
      seed: Draws what is held out.
    """
    rows = np.concatenate([found.reshape(len(found), -1) for found in sets])
    kept = [kept_aside(len(found), share, seed) for found in sets]
    starts = np.cumsum([0, *map(len, sets)])
    centre = rows.mean(0, dtype=np.float64)
    smallest = min(np.count_nonzero(~own) for own in kept)
    points = rows.astype(np.float64) - centre if rows.shape[1] <= 2 * smallest else None
    gram = inner_products(rows, centre) if points is None else np.empty((0, 0))
    weights = np.zeros((len(pairs), len(rows)))
    offsets, accuracies, counts = np.zeros(len(pairs)), np.full(len(pairs), 0.5), []
    for number, pair in enumerate(pairs):
        where = [np.arange(starts[s], starts[s + 1]) for s in pair]
        learnt = np.concatenate([w[~kept[s]] for w, s in zip(where, pair, strict=True)])
        positive = np.arange(len(learnt)) < np.count_nonzero(~kept[pair[0]])
        tests = [w[kept[s]] for w, s in zip(where, pair, strict=True)]
        counts.append(sum(map(len, tests)))
        plane = separate(
            positive,
            penalty,
            gram=gram[np.ix_(learnt, learnt)] if points is None else None,
            points=None if points is None else points[learnt],
        )
        if plane is None:
            continue
        weights[number, learnt], offsets[number] = plane
        if points is None:
            sides = [np.sign(gram[np.ix_(test, learnt)] @ plane.weights + plane.offset) for test in tests]
        else:
            slope = plane.weights @ points[learnt]
            sides = [np.sign(points[test] @ slope + plane.offset) for test in tests]
        # What lies on the plane counts half.
        accuracies[number] = 0.5 + 0.25 * (sides[0].mean() - sides[1].mean())
    vectors, norms = combined(weights, rows, centre)
    safe = np.where(norms > 0, norms, 1.0)
    return Fits(vectors, offsets / safe - vectors @ centre, accuracies, counts)


def is_chance(accuracy: float, count: int) -> bool:
    """Whether an accuracy on so many examples is within one standard deviation of what a coin has."""
    return bool(accuracy <= 0.5 + 0.5 / np.sqrt(count))


def warn_of_chance(found: Sequence[str]) -> None:
    """Warn of vectors that point nowhere."""
    more = f", and {len(found) - 4} more" if len(found) > 4 else ""
    errors.warn(
        errors.ConceptWarning(
            f"the concept is told from the contrast no better than by chance, so its vector means nothing: "
            f"{', '.join(found[:4])}{more} held-out examples are on their own side."
        )
    )
