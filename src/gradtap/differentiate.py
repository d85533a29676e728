"""Gradients of a target with respect to activations, and the activations themselves."""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Callable, Hashable, Sequence
from typing import Any, Literal

import tensorflow as tf

from gradtap import errors
from gradtap.batching import check_batch_size, is_dataset, over_dataset, run_batch
from gradtap.graph import explain, surgery
from gradtap.graph import keras_internals as internals
from gradtap.graph.inputs import Feeds, read_inputs
from gradtap.graph.model_files import as_trace
from gradtap.graph.resolve import Place, resolve
from gradtap.graph.tracing import ForwardGraph, Trace
from gradtap.program import Program, assemble, program_for
from gradtap.results import Activations, Gradients
from gradtap.tap import Tap
from gradtap.targets import Target, as_target
from gradtap.types import Address, Model, Structure, Tensor

Unconnected = Literal["error", "zero"]
_OneBatch = Callable[[Structure], tuple[Program, dict[str, list[Tensor]]]]


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
    as it is.

    Args:
      model: A Keras model or layer, a `tf.Module`, a function of tensors, a `Trace`, or the path of a saved model.
        Left exactly as found.
      inputs: One batch as the model takes it, ``(batch, ...)`` in each array; integers are welcome. Or a
        `tf.data.Dataset` of batches.
      target: What is differentiated: a class, a list with one class for each example, ``"predicted"``, a callable
        ``outputs -> (batch,)``, or a value of `gradtap.targets`. May be left out for one number per example.
      at: Where: an address (``"conv1"``, ``"backbone/conv1:input"``, ``"shared[0]"``, ``":input"``, ``"**/conv*"``), a
        `Tap`, a layer, a layer class, or a list of these.
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
      GradtapError: One class for each cause; ``docs/errors`` has a page for each.

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
    _check_choice("unconnected", unconnected, ("error", "zero"))
    check_batch_size(batch_size)
    trace = as_trace(model)
    wanted = as_target(target)

    def one(batch: Structure) -> tuple[Program, dict[str, list[Tensor]]]:
        feeds = _read(trace, batch)
        graph = trace.graphs.forward_graph(trace.source, feeds, training)
        program = _gradient_program(trace, graph, wanted, at, unconnected, checks)
        values = wanted.values(graph, feeds.batch_size)
        _warn_of_coupling(training, batch_size, feeds)
        parts = run_batch(program, feeds.tensors, values, batch_size)
        _check_score(parts["score"][0], feeds, program)
        return program, parts

    program, parts = _over(inputs, one)
    return Gradients(
        program.places,
        parts["gradients"],
        activations=parts["activations"],
        outputs=program.pack_outputs(parts["outputs"]),
        target=parts["score"][0],
        skipped=program.skipped,
    )


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
      `Activations`: a mapping from address to tensor ``(batch, ...)``, in forward order, with ``.outputs``.

    Raises:
      GradtapError: One class for each cause; ``docs/errors`` has a page for each.

    Example:
      >>> import gradtap as gt, keras, numpy as np
      >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, name="hidden"), keras.layers.Dense(2)])
      >>> gt.activations(model, np.ones((5, 4)), at="hidden").only.shape
      TensorShape([5, 3])
    """
    _check_choice("unconnected", unconnected, ("error", "zero"))
    check_batch_size(batch_size)
    trace = as_trace(model)

    def one(batch: Structure) -> tuple[Program, dict[str, list[Tensor]]]:
        feeds = _read(trace, batch)
        graph = trace.graphs.forward_graph(trace.source, feeds, training)
        key = ("activations", _at_key(at), checks, trace.jit_compile)
        program = program_for(graph, key, lambda: _build_activations(trace, graph, at, checks))
        _warn_of_coupling(training, batch_size, feeds)
        parts = run_batch(program, feeds.tensors, [], batch_size)
        return program, parts

    program, parts = _over(inputs, one)
    return Activations(program.places, parts["activations"], outputs=program.pack_outputs(parts["outputs"]))


def _over(inputs: Structure, one: _OneBatch) -> tuple[Program, dict[str, list[Tensor]]]:
    return over_dataset(inputs, one) if is_dataset(inputs) else one(inputs)


def _read(trace: Trace, inputs: Structure) -> Feeds:
    return read_inputs(inputs, trace.source.declared_inputs(), trace.source.float_dtype())


def _gradient_program(
    trace: Trace, graph: ForwardGraph, target: Target, at: Any, unconnected: str, checks: bool
) -> Program:
    wrong: list[errors.GradtapError] = []
    target_key: Hashable = None
    try:
        target_key = target.key(graph)
    except errors.GradtapError as error:
        wrong.append(error)
    key = ("gradients", _at_key(at), target_key, unconnected, checks, trace.jit_compile)
    if not wrong and key in graph.programs:
        return program_for(graph, key, _never)
    places: list[Place] = []
    try:
        places = resolve(graph, at)
    except errors.GradtapError as error:
        wrong.append(error)
    errors.raise_all(wrong)
    return program_for(graph, key, lambda: _build_gradients(trace, graph, target, places, unconnected, checks))


def _never() -> Program:
    raise KeyError


def _build_gradients(
    trace: Trace, graph: ForwardGraph, target: Target, places: list[Place], unconnected: str, checks: bool
) -> Program:
    with surgery.inside(graph.graph):
        score = target.build(graph)
    found = surgery.differentiate(score.value, [place.tensor for place in places])
    kept: list[Place] = []
    slopes: list[Tensor] = []
    left_out: dict[str, errors.GradtapError] = {}
    wrong: list[errors.GradtapError] = []
    for place, slope in zip(places, found, strict=True):
        is_float = surgery.is_float(place.tensor)
        if slope is None and is_float and unconnected == "zero" and not place.by_pattern:
            with surgery.inside(graph.graph):
                slope = tf.zeros_like(place.tensor)  # noqa: PLW2901
        if slope is not None and is_float:
            kept.append(place)
            slopes.append(slope)
            continue
        reason = _reason(graph, place, score.value, repr(target))
        if place.by_pattern or (place.group is not None and not is_float):
            left_out[place.key] = reason
        else:
            wrong.append(reason)
    errors.raise_all(wrong or ([] if kept else list(left_out.values())[:1]))
    watch = _watched(graph, kept) | {f"the gradient at `{p.key}`": s for p, s in zip(kept, slopes, strict=True)}
    program = assemble(
        graph,
        [*graph.feeds, *score.feeds],
        {
            "gradients": slopes,
            "activations": [place.tensor for place in kept],
            "outputs": graph.outputs,
            "score": [score.value],
        },
        kept,
        watch=watch if checks else None,
        saturated=score.saturated,
        jit_compile=trace.jit_compile,
    )
    program.skipped = {key: reason.headline for key, reason in left_out.items()}
    program.target = repr(target)
    return program


def _reason(graph: ForwardGraph, place: Place, score: Tensor, target: str) -> errors.GradtapError:
    """Why a place has no gradient."""
    if not surgery.is_float(place.tensor):
        return explain.integer(graph, place.key, place.tensor, place.layer)
    return explain.unconnected(graph, place.key, place.tensor, place.layer, score, target)


def _build_activations(trace: Trace, graph: ForwardGraph, at: Any, checks: bool) -> Program:
    places = resolve(graph, at)
    parts = {"activations": [place.tensor for place in places], "outputs": graph.outputs}
    watch = _watched(graph, places) if checks else None
    return assemble(graph, graph.feeds, parts, places, watch=watch, jit_compile=trace.jit_compile)


def _watched(graph: ForwardGraph, places: Sequence[Place]) -> dict[str, Tensor]:
    inputs = {f"input `{name}`": feed for name, feed in zip(graph.input_names, graph.feeds, strict=True)}
    return inputs | {f"the activations at `{place.key}`": place.tensor for place in places}


def _at_key(at: Any) -> Hashable:
    """What was asked, as a key; layers weakly, so that a kept program keeps no model."""
    if isinstance(at, (list, tuple, set, frozenset)):
        return tuple(map(_at_key, at))
    if isinstance(at, (str, Tap, type)):
        return at
    # Whatever else is given is no address; resolving it says so.
    return weakref.ref(at) if internals.is_callable_node(at) else ("not an address", id(at))


def _check_choice(name: str, value: Any, choices: Sequence[str]) -> None:
    if value not in choices:
        raise errors.ArgumentError(
            f"{name}={value!r} is not a choice.", [("choices", ", ".join(map(repr, choices)))], "give one of them"
        )


def _warn_of_coupling(training: bool, batch_size: int | None, feeds: Feeds) -> None:
    batch = feeds.batch_size
    if training and batch_size is not None and batch is not None and batch > batch_size:
        warnings.warn(
            errors.BatchCouplingWarning(
                f"with training=True the batch statistics are those of {batch_size} examples at a time, not of {batch}."
            ),
            stacklevel=3,
        )


def _check_score(score: Tensor, feeds: Feeds, program: Program) -> None:
    batch = feeds.batch_size
    if batch is not None and score.shape[0] not in (None, batch):
        raise errors.TargetShapeError(
            f"the target {program.target} gives {score.shape[0]} numbers for {batch} examples.",
            [],
            "a target maps the outputs to one number per example, (batch,)",
        )
