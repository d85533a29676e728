"""Testing with concept activation vectors: does a target rise along a concept, more than along random directions?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np

from gradtap import errors
from gradtap.asking import Settings, Unconnected, built, check_choice
from gradtap.concepts.activation_vectors import Fits, check_fit, fit_pairs, is_chance, warn_of_chance
from gradtap.concepts.examples import drawn, random_sets, read_sets
from gradtap.concepts.scores import ConceptScore, ConceptTest
from gradtap.concepts.sensitivity import Sensitivity, derivatives_along
from gradtap.concepts.significance import holm, permutation_p, rank_p, smallest_p
from gradtap.graph import surgery
from gradtap.staged.noise import generator
from gradtap.staged.progress import tracked
from gradtap.targets import Target, as_target
from gradtap.types import Address, Model, Structure

_Array: TypeAlias = np.ndarray[Any, Any]


class Plan(NamedTuple):
    """Which vectors are found: the sets are the concepts, then the random sets.

    Args:
      concepts: How many there are.
      runs: How many random sets there are.
      pairs: The sets that each vector points to, and from.
    """

    concepts: int
    runs: int
    pairs: list[tuple[int, int]]

    @classmethod
    def of(cls, concepts: int, runs: int, test: str) -> Plan:
        """Each concept against each random set; the random ones in a ring, or each against all later ones."""
        among = range(concepts, concepts + runs)
        pairs = [(c, r) for c in range(concepts) for r in among]
        if test == "sets":
            pairs += [(a, b) for a in among for b in among if a < b]
        else:
            pairs += [(a, concepts + (a - concepts + 1) % runs) for a in among]
        return cls(concepts, runs, pairs)


@surgery.unconverted
def tcav(
    model: Model,
    inputs: Structure,
    concepts: Mapping[str, Structure],
    *,
    target: Any = None,
    at: Address | Sequence[Address],
    random: Any,
    runs: int | None = None,
    test: Literal["scores", "sets"] = "scores",
    alpha: float = 0.05,
    penalty: float = 0.01,
    held_out: float = 0.25,
    unconnected: Unconnected = "error",
    batch_size: int | None = None,
    training: bool = False,
    seed: int | None = 0,
    checks: bool = True,
) -> ConceptTest:
    r"""Testing with concept activation vectors (TCAV): for which share of inputs a target rises along a concept.

    With the concept's vector :math:`v` at a tap, of `concept_vector` against a random set, and the gradient there of
    the target :math:`F` of each of :math:`N` inputs, the score is

    .. math:: \frac{1}{N} \#\Big\{n : v \cdot \frac{\partial F_n}{\partial a_n} > 0\Big\} ,

    one for each random set. They are compared with scores of random sets in the place of the concept, two-sided: along
    a concept a target may fall. ``test="scores"`` permutes scores, each random set against the next one being the
    others; as the paper's t-test it finds far more than alpha where examples mean nothing, since a concept's scores
    share its examples. ``test="sets"`` ranks the concept's mean score among those of the random sets, each against all
    others: at most alpha, but it takes ``1 / alpha`` random sets of the concept's size for each row.

    Of the gradients nothing is kept but their products with the vectors; of examples, their activations at all taps.

    Args:
      model: See `gradtap.gradients`.
      inputs: What the target is differentiated for, such as images of a class: see `gradtap.gradients`.
      concepts: For each name examples of a concept: inputs as the model takes them, or a dataset of batches.
      target: See `gradtap.gradients`. For a class its logit, ``gt.targets.class_score(k, logits=True)``.
      at: See `gradtap.gradients`.
      random: A list of sets of random examples, two at least; with ``runs`` one set, in which the others are drawn.
      runs: So many random sets of equal size are drawn from ``random``, with no example in two of them.
      test: ``"scores"`` or ``"sets"``.
      alpha: The allowed chance of any false alarm; Holm's correction is for all rows.
      penalty: See `concept_vector`.
      held_out: See `concept_vector`.
      unconnected: See `gradtap.gradients`.
      batch_size: See `gradtap.gradients`; None chooses it for the gradients from the size of the activations.
      training: See `gradtap.gradients`.
      seed: Draws random sets, held-out examples and permutations; None draws anew.
      checks: See `gradtap.gradients`. Also warn of vectors no better than chance, and of too few random sets.

    Returns:
      `ConceptTest`: its ``.rows`` have one `ConceptScore` for each tap and concept; it prints as a table.

    Raises:
      GradtapError: One class for each cause; ``docs/errors`` has a page for each.

    Example:
      >>> import gradtap as gt, keras, numpy as np
      >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1, kernel_initializer="ones")])
      >>> x = np.random.default_rng(0).normal(size=(200, 4))
      >>> (row,) = gt.concepts.tcav(model, x, {"bright": x[:20] + 3.0}, at=":input", random=x, runs=20)
      >>> row.score, row.significant
      (1.0, True)

    References:
      Kim, Wattenberg, Gilmer, Cai, Wexler, Viegas, Sayres, Interpretability Beyond Feature Attribution,
      https://arxiv.org/abs/1711.11279, 2018.
    """
    settings = Settings(unconnected, batch_size, training, seed, checks)
    procedure = _Procedure(runs, test, alpha, penalty, held_out, settings)
    return procedure.run(model, inputs, concepts, as_target(target), at, random)


@dataclass(frozen=True)
class _Procedure:
    """How concepts are tested; the keywords of `tcav`."""

    runs: int | None
    test: str
    alpha: float
    penalty: float
    held_out: float
    settings: Settings

    def __post_init__(self) -> None:
        check_fit(self.penalty, self.held_out)
        check_choice("test", self.test, ("scores", "sets"))
        if isinstance(self.alpha, bool) or not isinstance(self.alpha, (int, float)) or not 0 < self.alpha < 1:
            raise errors.ArgumentError(f"alpha={self.alpha!r} is not between 0 and 1.", [], "0.05 is usual")

    def run(
        self, model: Model, inputs: Structure, concepts: Mapping[str, Structure], target: Target, at: Any, random: Any
    ) -> ConceptTest:
        _check(concepts)
        named = random_sets(random, self.runs)
        places = built(model, inputs, Sensitivity(target, at), self.settings).places
        taps = [place.tap for place in places]
        given = {f"the concept `{name}`": examples for name, examples in concepts.items()} | named
        read = list(read_sets(model, given, taps, self.settings).sets.values())
        if self.runs is not None:
            read = [*read[: len(concepts)], *drawn(read[-1], int(self.runs), self.settings.seed)]
        plan = Plan.of(len(concepts), len(read) - len(concepts), self.test)
        if self.settings.checks:
            _warn_of_few(plan.runs, self.test, len(places) * len(concepts), self.alpha)
        shapes = [found.shape[1:] for found in read[0]]
        fits = [
            fit_pairs([found[i] for found in read], plan.pairs, self.penalty, self.held_out, self.settings.seed)
            for i in tracked(range(len(places)), len(places), "taps: concept vectors")
        ]
        del read  # the gradients need the memory
        vectors = [fit.vectors for fit in fits]
        derivatives = derivatives_along(model, inputs, target, taps, vectors, self.settings, shapes)
        rows = [
            row
            for place, fit, products in zip(places, fits, derivatives, strict=True)
            for row in _rows(list(concepts), place.key, fit, products, plan, self.test, self.settings.seed)
        ]
        if self.settings.checks:
            _warn_of_doubtful(rows, fits[0].counts)
        corrected = holm([row.p_value for row in rows])
        decided = [
            ConceptScore(**row._asdict(), p_corrected=p, significant=p <= self.alpha)
            for row, p in zip(rows, corrected, strict=True)
        ]
        return ConceptTest(decided, self.alpha, repr(target))


class _Row(NamedTuple):
    concept: str
    tap: str
    scores: _Array
    random: _Array
    accuracy: float
    p_value: float


def _rows(
    names: list[str], tap: str, fits: Fits, products: _Array, plan: Plan, test: str, seed: int | None
) -> list[_Row]:
    """The rows of one tap, not yet corrected."""
    rises, falls = (products > 0).mean(0), (products < 0).mean(0)
    split = plan.concepts * plan.runs
    rows = []
    for c, name in enumerate(names):
        own = slice(c * plan.runs, (c + 1) * plan.runs)
        scores = rises[own]
        if test == "sets":
            null = _means_of_random(rises[split:], falls[split:], falls[own])
            p = rank_p(float(scores.mean()), null)
        else:
            null = rises[split:]
            p = permutation_p(scores, null, generator(seed, 73))
        rows.append(_Row(name, tap, scores, null, float(fits.accuracies[own].mean()), p))
    return rows


def _means_of_random(rises: _Array, falls: _Array, against_concept: _Array) -> _Array:
    """The mean score of each random set against the concept and all other random sets.

    Args:
      rises: Scores of each random set against each later one.
      falls: Scores of the opposite vectors, which are those of the later against the earlier.
      against_concept: The score of each random set against the concept.
    """
    runs = len(against_concept)
    totals = against_concept.astype(np.float64)
    first, second = np.triu_indices(runs, 1)
    np.add.at(totals, first, rises)
    np.add.at(totals, second, falls)
    return totals / runs


def _check(concepts: Any) -> None:
    if not isinstance(concepts, Mapping) or not concepts:
        raise errors.ArgumentError(
            f"`concepts` is {'empty' if isinstance(concepts, Mapping) else 'no mapping from names to examples'}.",
            [("received", errors.received(concepts))],
            'give {"striped": examples}',
        )


def _warn_of_few(runs: int, test: str, tests: int, alpha: float) -> None:
    smallest = smallest_p(runs, test)
    if smallest * tests <= alpha:
        return
    needed = next(n for n in range(runs, 10**7) if smallest_p(n, test) * tests <= alpha)
    times = f", times {tests} for as many tests," if tests > 1 else ""
    errors.warn(
        errors.ConceptWarning(
            f"with {runs} random sets the smallest p-value is {smallest:.2g}{times} and nothing can be significant at "
            f"alpha={alpha:g}: {needed} sets are needed."
        )
    )


def _warn_of_doubtful(rows: Sequence[_Row], counts: Sequence[int]) -> None:
    doubtful = [row for row in rows if is_chance(row.accuracy, min(counts))]
    if doubtful:
        warn_of_chance([f"`{row.concept}` at `{row.tap}` {row.accuracy:.2f} of {min(counts)}" for row in doubtful])
