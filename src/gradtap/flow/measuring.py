"""Measure what flows through a network: activations forward and gradients back, tap by tap, in one pass of each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from gradtap import errors
from gradtap.asking import Settings, Unconnected, stream
from gradtap.batching import is_dataset, whole_batches
from gradtap.flow.objectives import objective
from gradtap.flow.question import Measuring
from gradtap.flow.rows import FlowMeasurement
from gradtap.flow.totals import Totals
from gradtap.graph import surgery
from gradtap.graph.keeping import Trace
from gradtap.graph.model_files import as_trace
from gradtap.types import Address, Model, Structure


@surgery.unconverted
def measure(
    model: Model,
    inputs: Structure,
    *,
    target: Any = None,
    loss: Any = None,
    labels: Structure = None,
    at: Address | Sequence[Address] = "**",
    unconnected: Unconnected = "error",
    batch_size: int | None = None,
    training: bool = False,
    seed: int | None = None,
    checks: bool = True,
) -> FlowMeasurement:
    r"""Measure activations and gradients at every tap in one forward and one backward pass, and say what is wrong.

    For the activations :math:`a_n` of example :math:`n` and its gradient :math:`g_n = \partial F_n / \partial a_n` a
    row has the mean of :math:`|a_n|` and of :math:`|g_n|`, moments, histograms and shares of zeros of all entries, the
    signal-to-noise ratio :math:`|\bar g| / \sqrt{\overline{|g_n - \bar g|^2}}`, and the mean cosine between the
    gradients of pairs of examples. All sums are formed in the graph and added up over batches, so any batch size gives
    the same numbers.

    Args:
      model: See `gradtap.gradients`.
      inputs: See `gradtap.gradients`. Of a `tf.data.Dataset` of ``(inputs, labels)`` the labels are taken, unless there
        is a target.
      target: See `gradtap.gradients`; in the place of a loss.
      loss: A Keras loss by name, function or object; None for the one that the model was compiled with, else a
        cross-entropy for whole numbers, from logits unless a softmax or sigmoid ends the model.
      labels: One for each example ``(batch, ...)``; a dict or list of them for a model with several outputs.
      at: See `gradtap.gradients`; ``"**"`` is the output of every layer.
      unconnected: See `gradtap.gradients`.
      batch_size: Most examples in flight at once; None for all.
      training: See `gradtap.gradients`.
      seed: See `gradtap.gradients`.
      checks: Look for findings, and warn of a saturated target.

    Returns:
      `FlowMeasurement`: ``.rows`` for the taps in forward order, ``.weights``, ``.profiles`` of recurrent states
      through time, ``.findings`` with ``.kind``, ``.tap``, ``.evidence`` and ``.remedy``, ``.skipped``; ``.table()``.

    Raises:
      ArgumentError: A target is given with labels, or a loss without.
      GradtapError: One class for each cause; ``docs/errors`` has a page for each.

    Example:
      Ten layers of sigmoids hand back a quarter of the gradient at most, each.

      >>> import gradtap as gt, keras, numpy as np
      >>> keras.utils.set_random_seed(0)
      >>> deep = [keras.layers.Dense(32, activation="sigmoid", name=f"dense{i}") for i in range(10)]
      >>> model = keras.Sequential([keras.Input((8,)), *deep, keras.layers.Dense(3)])
      >>> found = gt.flow.measure(model, np.eye(8), labels=np.arange(8) % 3)
      >>> [(finding.kind, finding.tap) for finding in found.findings]
      [('vanishing', 'dense0')]

    References:
      Glorot, Bengio, Understanding the Difficulty of Training Deep Feedforward Neural Networks,
      https://proceedings.mlr.press/v9/glorot10a.html, 2010.
    """
    settings = Settings(unconnected, batch_size, training, seed, checks)
    return measured(as_trace(model), inputs, labels, Objective(target, loss), at, settings, judged=checks)


class Objective(NamedTuple):
    """What is differentiated, as a call has it: a target, or a loss of which the labels are known."""

    target: Any
    loss: Any


def measured(
    trace: Trace,
    inputs: Structure,
    labels: Structure,
    wanted: Objective,
    at: Any,
    settings: Settings,
    *,
    judged: bool,
    updates: Mapping[int, float] | None = None,
) -> FlowMeasurement:
    """Measure a model that is traced already; see `measure`.

    Args:
      trace: The model.
      inputs: See `measure`.
      labels: See `measure`.
      wanted: What is differentiated.
      at: See `measure`.
      settings: The keywords of the call.
      judged: Whether findings are looked for.
      updates: Update ratios of weights, by the identity of their variables' handles.

    Raises:
      InputStructureError: The dataset is empty.
    """
    totals: Totals | None = None
    for some, known in _batches(inputs, labels, wanted.target):
        target = objective(trace.model, wanted.target, wanted.loss, known)
        scale = loss_scale(trace.model, known)
        for program, parts in stream(trace, some, Measuring(target, at, scale), settings):
            totals = totals or Totals(program, scale)
            totals.add(parts)
    if totals is None:
        raise errors.InputStructureError("the dataset is empty.", [], "pass a dataset with at least one batch")
    return totals.measurement(judged=judged, updates=updates or {})


def _batches(inputs: Structure, labels: Structure, target: Any) -> Iterator[tuple[Structure, Structure]]:
    """The inputs with their labels: one batch, or those of a dataset."""
    if not is_dataset(inputs):
        yield inputs, labels
        return
    if labels is not None:
        raise errors.ArgumentError(
            "a dataset brings its labels along.", [("labels", errors.received(labels))], "a dataset of (inputs, labels)"
        )
    for element in whole_batches(inputs):
        pair = element if isinstance(element, tuple) else (element,)
        yield pair[0], (pair[1] if len(pair) > 1 and target is None else None)


def loss_scale(model: Any, labels: Structure) -> float:
    """What an optimizer multiplies the loss with before it is differentiated, for the range of float16."""
    optimizer = getattr(model, "optimizer", None)
    scale = getattr(optimizer, "dynamic_scale", None)
    scale = getattr(optimizer, "initial_scale", None) if scale is None else scale  # it has made no step yet
    return float(scale) if scale is not None and labels is not None else 1.0
