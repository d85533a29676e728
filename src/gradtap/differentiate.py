"""Gradients of a target with respect to activations, and the activations themselves."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any, NamedTuple

import tensorflow as tf

from gradtap import errors
from gradtap.asking import Settings, Unconnected, address_key, addresses, ask, watched
from gradtap.graph import explain, surgery, walking
from gradtap.graph.keeping import Trace
from gradtap.graph.resolve import Place, resolve
from gradtap.graph.rules import Rules, in_force
from gradtap.graph.scores import Score
from gradtap.graph.tracing import ForwardGraph
from gradtap.program import Program, assemble
from gradtap.results import Activations, Gradients
from gradtap.targets import Target, as_target
from gradtap.types import Address, Model, Structure, Tensor, TensorLike


@surgery.unconverted
def gradients(
    model: Model,
    inputs: Structure,
    *,
    target: Any = None,
    at: Address | Sequence[Address],
    unconnected: Unconnected = "error",
    batch_size: int | None = None,
    training: bool = False,
    seed: int | None = None,
    checks: bool = True,
) -> Gradients:
    r"""Differentiate a target with respect to the activations at each tap, in one forward and one backward pass.

    For the activations :math:`a_n` of example :math:`n` and its target :math:`F_n` the result holds
    :math:`\partial F_n / \partial a_n`: what depends on the activations follows the change, what bypasses the tap stays
    as it is. A weight is shared by all examples, and its gradient is that of the sum, :math:`\sum_n \partial F_n /
    \partial w`.

    Args:
      model: A Keras model or layer, a `tf.Module`, a function of tensors, a `Trace`, or the path of a saved model.
        Left exactly as found.
      inputs: One batch as the model takes it, ``(batch, ...)`` in each array; integers are welcome. Or a
        `tf.data.Dataset` of batches.
      target: What is differentiated: a class, a list with one class for each example, ``"predicted"``, a callable
        ``outputs -> (batch,)``, or a value of `gradtap.targets`. May be left out for one number per example.
      at: Where: an address (``"conv1"``, ``"backbone/conv1:input"``, ``"shared[0]"``, ``":input"``, ``"**/conv*"``, a
        weight ``"conv1:kernel"``), a `Tap`, an entry of `gradtap.taps`, a layer, a layer class, or a list of these.
      unconnected: What to do where the target does not depend on a tap: ``"error"``, or ``"zero"`` for zeros.
        Patterns and classes skip such places in either case, and say so in ``.skipped``.
      batch_size: Most examples in flight at once; None for all.
      training: Passed to the model. With True, batch statistics couple the examples, and row :math:`n` is
        :math:`\sum_m \partial F_m / \partial a_n`.
      seed: Draws the dropout masks of ``training=True``; None takes the model's own next ones.
      checks: Warn of NaN, infinity and saturation, in the same run.

    Returns:
      `Gradients`: a mapping from address to gradient, in forward order, each of the shape and dtype of its
      activations; with ``.activations``, ``.outputs``, ``.target`` ``(batch,)`` and ``.skipped``.

    Raises:
      UnknownTapError: No layer has this address; the message lists the nearest ones.
      SharedLayerError: The layer runs more than once and the address does not say which call is meant.
      UnconnectedTapError: The target does not depend on the tap; the message says where the path ends.
      TargetShapeError: The target is not ``(batch,)``.
      GradtapError: Anything else that is wrong. Each cause has a class and a page in ``docs/errors``.

    Example:
      Under a linear head the gradient is a column of its weights, whatever the input.

      >>> import gradtap as gt, keras, numpy as np
      >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, name="hidden"), keras.layers.Dense(2)])
      >>> g = gt.gradients(model, np.ones((5, 4)), target=0, at="hidden")
      >>> bool(np.allclose(g["hidden"], model.layers[-1].kernel[:, 0]))
      True

    References:
      Simonyan et al., Deep Inside Convolutional Networks, https://arxiv.org/abs/1312.6034, 2013.
    """
    question = _Gradients(as_target(target), at)
    settings = Settings(unconnected, batch_size, training, seed, checks)
    program, parts = ask(model, inputs, question, settings)
    return Gradients(
        zip((place.key for place in program.places), parts["gradients"], strict=True),
        program.places,
        activations=Activations.at(program.places, parts["activations"]),
        outputs=program.pack_outputs(parts["outputs"]),
        target=parts["score"][0],
        skipped=program.skipped,
    )


@surgery.unconverted
def activations(
    model: Model,
    inputs: Structure,
    *,
    at: Address | Sequence[Address],
    unconnected: Unconnected = "error",
    batch_size: int | None = None,
    training: bool = False,
    seed: int | None = None,
    checks: bool = True,
) -> Activations:
    """Read the activations at each tap, in one forward pass that ends at the last of them.

    Args:
      model: See `gradients`.
      inputs: See `gradients`.
      at: See `gradients`; here integers can be tapped too.
      unconnected: Accepted for uniformity; nothing is differentiated.
      batch_size: Most examples in flight at once; None for all.
      training: Passed to the model.
      seed: Draws the dropout masks of ``training=True``.
      checks: Warn of NaN and infinity, in the same run.

    Returns:
      `Activations`: a mapping from address to tensor ``(batch, ...)``, in forward order.

    Raises:
      GradtapError: One class for each cause; ``docs/errors`` has a page for each.

    Example:
      >>> import gradtap as gt, keras, numpy as np
      >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, name="hidden"), keras.layers.Dense(2)])
      >>> gt.activations(model, np.ones((5, 4)), at="hidden").only.shape
      TensorShape([5, 3])
    """
    settings = Settings(unconnected, batch_size, training, seed, checks)
    program, parts = ask(model, inputs, Reading(at, weights=True), settings)
    return Activations.at(program.places, parts["activations"])


class NamedRules(NamedTuple):
    """Rules of back-propagation, and the name that they are known by."""

    name: str
    by_op: Rules


class Reading:
    """Activations at addresses.

    Args:
      at: The addresses.
      weights: Whether weights may be asked for.
    """

    def __init__(self, at: Any, *, weights: bool = False) -> None:
        self.at = addresses(at)
        self._weights = weights

    def key(self, graph: ForwardGraph) -> Hashable:
        return address_key(self.at), self._weights

    def build(self, trace: Trace, graph: ForwardGraph, settings: Settings) -> Program:
        places = resolve(graph, self.at, weights=self._weights)
        parts = {"activations": [place.tensor for place in places]}
        watch = watched(graph, places) if settings.checks else None
        return assemble(graph, graph.all_feeds, parts, places, watch=watch, jit_compile=trace.jit_compile)

    def values(self, graph: ForwardGraph, batch: int | None) -> list[TensorLike]:
        return []


class OfTarget:
    """Gradients of a target at addresses, and what is made of them in the same graph.

    Args:
      target: What is differentiated.
      at: The addresses.
      rules: Other rules of back-propagation than the derivative, by name.
    """

    #: How often the result holds a tensor of the size of its taps.
    copies = 2
    #: Whether weights may be asked for.
    weights = False

    def __init__(self, target: Target, at: Any, rules: NamedRules | None = None) -> None:
        self.target = target
        self.at = addresses(at)
        self.rules = rules

    def key(self, graph: ForwardGraph) -> Hashable:
        try:
            rules = self.rules.name if self.rules else None
            return address_key(self.at), self.target.key(graph), rules, *self.options()
        except errors.GradtapError as error:
            # What else is wrong is said in the same breath.
            errors.raise_all([error, *_mistakes(graph, self.at)])
            raise

    def options(self) -> tuple[Hashable, ...]:
        """What else decides which ops are built."""
        return ()

    def values(self, graph: ForwardGraph, batch: int | None) -> list[TensorLike]:
        return self.target.values(graph, batch)

    def parts(
        self, graph: ForwardGraph, places: list[Place], slopes: list[Tensor], score: Score
    ) -> dict[str, list[Tensor]]:
        """What is fetched, by name: the gradients with all that comes from the same run."""
        activations = [place.tensor for place in places]
        return {"gradients": slopes, "activations": activations, "outputs": graph.outputs, "score": [score.value]}

    def slopes(
        self, graph: ForwardGraph, places: list[Place], score: Score, unconnected: str
    ) -> tuple[list[Place], list[Tensor], dict[str, str]]:
        """What is handed back to each place, as `slopes_at` returns it."""
        with in_force(graph, self.rules.by_op if self.rules else None):
            return slopes_at(graph, places, score.value, repr(self.target), unconnected)

    def build(self, trace: Trace, graph: ForwardGraph, settings: Settings) -> Program:
        places = resolve(graph, self.at, weights=self.weights)
        with surgery.inside(graph.graph):
            score = self.target.build(graph)
        kept, slopes, skipped = self.slopes(graph, places, score, settings.unconnected)
        watch = watched(graph, kept) | {f"the gradient at `{p.key}`": s for p, s in zip(kept, slopes, strict=True)}
        with surgery.inside(graph.graph):
            parts = self.parts(graph, kept, slopes, score)
        program = assemble(
            graph,
            [*graph.all_feeds, *score.feeds],
            parts,
            kept,
            watch=watch if settings.checks else None,
            saturated=score.saturated,
            jit_compile=trace.jit_compile,
        )
        program.skipped = skipped
        program.target = repr(self.target)
        program.copies = self.copies
        return program


class _Gradients(OfTarget):
    """Gradients themselves, of weights as well."""

    weights = True


def _mistakes(graph: ForwardGraph, at: Any) -> list[errors.GradtapError]:
    try:
        resolve(graph, at, weights=True)
    except errors.GradtapError as error:
        return [error]
    return []


def slopes_at(
    graph: ForwardGraph,
    places: Sequence[Place],
    score: Tensor,
    target: str,
    unconnected: str,
    keyword: str = "target",
    *,
    order: int = 1,
) -> tuple[list[Place], list[Tensor], dict[str, str]]:
    """Add the backward graph of a score, for all places at once, and account for every place.

    Args:
      graph: The forward graph that holds the score.
      places: Where gradients are wanted.
      score: What is differentiated; the gradient is that of its sum.
      target: What it is called in messages.
      unconnected: ``"error"``, or ``"zero"`` for zeros where there is no gradient.
      keyword: Which keyword it was given under, for messages.
      order: 2 lets a mean inside of a variance count; see `gradtap.graph.moments`.

    Returns:
      The places with a gradient, their gradients, and the other places with the reason.

    Raises:
      UnconnectedTapError: A place that was named, not found by a pattern, has no gradient.
      ModelCallError: A gradient function of the model's own raised.
    """
    found, blocked = _backward(score, places, order)
    kept: list[Place] = []
    slopes: list[Tensor] = []
    left_out: list[Place] = []
    missing: list[Place] = []
    for place, slope in zip(places, found, strict=True):
        is_float = surgery.is_float(place.tensor)
        if slope is not None and is_float:
            kept.append(place)
            slopes.append(slope)
        elif place.by_pattern or (place.group is not None and not is_float):
            left_out.append(place)
        elif unconnected == "zero" and is_float and place not in blocked:
            kept.append(place)
            with surgery.inside(graph.graph):
                slopes.append(tf.zeros_like(place.tensor))
        else:
            missing.append(place)
    missing = missing or ([] if kept else left_out[:1])
    errors.raise_all([_reason(graph, place, score, target, keyword) for place in missing])
    needed = walking.ancestors([score]) if left_out else set()
    skipped = {p.key: explain.in_short(p.tensor, needed) for p in left_out}
    return kept, slopes, skipped


def _backward(score: Tensor, places: Sequence[Place], order: int) -> tuple[list[Tensor | None], list[Place]]:
    """A gradient or None for each place, and the places before an op that TensorFlow has no gradient rule for."""
    blocked: list[Place] = []
    try:
        try:
            return surgery.differentiate(score, [place.variable for place in places], order=order), blocked
        except LookupError:
            blocked = [place for place in places if _lacks_rule(score, place.variable)]
        free = [place for place in places if place not in blocked]
        found = iter(surgery.differentiate(score, [place.variable for place in free], order=order) if free else [])
        return [None if place in blocked else next(found) for place in places], blocked
    except Exception as error:
        raise errors.ModelCallError(
            f"a gradient function of the model raised {type(error).__name__} in the backward pass.",
            [("it said", str(error)[:400])],
            "look at the tf.custom_gradient in the model: a tf.GradientTape should fail in the same way",
        ) from error


def _lacks_rule(score: Tensor, tensor: Tensor) -> bool:
    try:
        surgery.differentiate(score, [tensor])
    except LookupError:
        return True
    return False


def _reason(graph: ForwardGraph, place: Place, score: Tensor, target: str, keyword: str) -> errors.GradtapError:
    """Why a place has no gradient."""
    if not surgery.is_float(place.tensor):
        return explain.integer(graph, place.key, place.tensor, place.layer)
    return explain.unconnected(graph, place.key, place.variable, place.layer, score, target, keyword)
