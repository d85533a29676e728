"""Sanity checks: whether an explanation depends on what the model has learnt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import tensorflow as tf

from gradtap import errors
from gradtap.asking import Settings, check_choice
from gradtap.batching import is_dataset
from gradtap.differentiate import activations
from gradtap.evaluate.explanations import Method, explained, listed
from gradtap.evaluate.similarity import NAMED, Similarity
from gradtap.graph import surgery
from gradtap.graph.model_files import as_trace
from gradtap.graph.other_weights import OtherWeights
from gradtap.graph.resolve import resolve
from gradtap.graph.scores import widen
from gradtap.graph.tracing import ForwardGraph
from gradtap.html_table import html_table
from gradtap.predictions import held_target
from gradtap.results import TapValues
from gradtap.staged.noise import generator
from gradtap.staged.progress import tracked
from gradtap.types import Address, Model, Structure


@dataclass(frozen=True)
class RandomizedLayer:
    """What randomizing the weights of a layer has made of an explanation.

    Args:
      layer: Its address.
      similarity: How alike the explanation is to that of the trained model, ``(batch,)`` at each tap.
      attributions: The explanation of the model with these random weights.
    """

    layer: str
    similarity: TapValues
    attributions: TapValues


@dataclass(frozen=True)
class Randomization:
    """An explanation under random weights; see `gradtap.evaluate.randomization`.

    Args:
      original: The explanation of the model as it is.
      rows: One for each layer, in the order in which they were randomized.
      mode: ``"cascading"`` or ``"independent"``.
    """

    original: TapValues
    rows: list[RandomizedLayer]
    mode: str

    def table(self) -> str:
        """The mean similarity of the examples, layer by layer, as text."""
        head = ["randomized", *self.original]
        rows = self._cells()
        widths = [max(len(head[0]), *(len(row[0]) for row in rows)), *map(len, self.original)]
        lines = []
        for first, *others in [head, *rows]:
            numbers = (cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True))
            lines.append("  ".join([first.ljust(widths[0]), *numbers]))
        return "\n".join(lines)

    def _cells(self) -> list[list[str]]:
        adds = "+ " if self.mode == "cascading" else ""
        return [
            [(adds if i else "") + row.layer, *(f"{np.nanmean(row.similarity[name]):.2f}" for name in self.original)]
            for i, row in enumerate(self.rows)
        ]

    def __str__(self) -> str:
        return self.table()

    def _repr_html_(self) -> str:
        caption = f"similarity to the explanation of the trained model, {self.mode}"
        return html_table(["randomized", *self.original], self._cells(), caption=caption)


@surgery.unconverted
def randomization(
    model: Model,
    inputs: Structure,
    method: Method,
    *,
    target: Any = None,
    at: Address | Sequence[Address] = ":input",
    mode: Literal["cascading", "independent"] = "cascading",
    layers: Sequence[Address] | None = None,
    similarity: Literal["spearman", "absolute_spearman", "ssim"] | Similarity = "spearman",
    batch_size: int | None = None,
    training: bool = False,
    seed: int | None = None,
    checks: bool = True,
) -> Randomization:
    r"""Randomize the weights layer by layer, from the output down, and see whether an explanation notices.

    An explanation of what a model has learnt must change where that is destroyed; one that stays has shown the input.
    The entries of each weight are put in a random order, so that weights keep their scale. The model itself is not
    touched: its graph is run with weights of our own.

    Args:
      model: A model with layers; see `gradtap.gradients`.
      inputs: One batch.
      method: A method (``gt.attribution.grad_cam``, a `functools.partial` of one), or a function that is called as they
        are.
      target: See `gradtap.gradients`; ``"predicted"`` stays what the trained model predicts.
      at: Where the attributions are.
      mode: ``"cascading"``: a layer and all after it; ``"independent"``: each layer alone.
      layers: Which layers, by address, each with all inside of it; None for every layer that holds weights itself.
      similarity: Between the explanation and that of the trained model: ``"spearman"``, the rank correlation of the
        entries (NaN for a map that is the same everywhere); ``"absolute_spearman"``, that of their magnitudes;
        ``"ssim"`` of pictures; or a function of two arrays ``(batch, ...)`` that gives ``(batch,)``.
      batch_size: See `gradtap.gradients`.
      training: See `gradtap.gradients`.
      seed: Draws the orders; None draws anew.
      checks: See `gradtap.gradients`.

    Returns:
      `Randomization`: ``.rows``, each with ``.layer``, ``.similarity`` ``(batch,)`` at each tap and ``.attributions``;
      ``.original``; ``.table()``.

    Raises:
      GradtapError: One class for each cause; ``docs/errors`` has a page for each.

    Example:
      >>> import gradtap as gt, keras, numpy as np
      >>> hidden = keras.layers.Dense(8, activation="tanh", name="hidden")
      >>> model = keras.Sequential([keras.Input((4,)), hidden, keras.layers.Dense(2, name="scores")])
      >>> found = gt.evaluate.randomization(model, np.eye(4), gt.attribution.saliency, target=0, seed=0)
      >>> [row.layer for row in found.rows]
      ['scores', 'hidden']

    References:
      Adebayo et al., Sanity Checks for Saliency Maps, https://arxiv.org/abs/1810.03292, 2018.
    """
    settings = Settings("error", batch_size, training, seed, checks)
    check_choice("mode", mode, ("cascading", "independent"))
    if not callable(similarity):
        check_choice("similarity", similarity, tuple(NAMED))
    alike = similarity if callable(similarity) else NAMED[similarity]
    _check(method, inputs)
    at, rng = listed(at), generator(seed, 5)
    held = held_target(model, inputs, target, settings)
    original = explained(model, inputs, method, held, at)
    trace = as_trace(model)
    activations(trace, inputs, at=":output", training=training)  # the order of the layers is that of a run
    weights = OtherWeights(trace)
    graph = trace.graphs.any_graph()
    chosen = _chosen(graph, weights, layers) if graph else []
    rows = []
    for name, paths in tracked(chosen, len(chosen), "randomized layers"):
        for path in paths:
            weights.permute(path, rng)
        found = explained(weights.trace, inputs, method, held, at)
        pairs = ((np.asarray(widen(a[key]), np.float64) for a in (original, found)) for key in original)
        values = [tf.constant(alike(*pair)) for pair in pairs]
        rows.append(RandomizedLayer(name, original.alike(TapValues, values), found))
        if mode == "independent":
            for path in paths:
                weights.restore(path)
    return Randomization(original, rows, mode)


def _check(method: Any, inputs: Any) -> None:
    if not callable(method):
        raise errors.ArgumentError(
            f"{errors.received(method)} is no method: attributions of other weights are needed.", [], "give a method"
        )
    if is_dataset(inputs):
        raise errors.InputStructureError(
            "randomization compares the maps of one batch, and keeps all of them.", [], "next(iter(dataset))"
        )


def _chosen(
    graph: ForwardGraph, weights: OtherWeights, layers: Sequence[Address] | None
) -> list[tuple[str, list[str]]]:
    """Names of layers from the output down, each with the paths that hold its weights."""
    position = {path: calls[-1].last_op for path, calls in graph.calls.items() if calls}

    def last_op(path: str) -> int:
        """That of the nearest layer around it whose call was recorded: a cell runs inside of its layer's loop."""
        while path and path not in position:
            path = path.rpartition("/")[0]
        return position.get(path, 0)

    if layers is None:
        found = {path: [path] for path in weights.paths if path}
    else:
        names = {place.key: place.tap.path for address in layers for place in resolve(graph, address)}
        found = {k: [p for p in weights.paths if p == path or p.startswith(f"{path}/")] for k, path in names.items()}
    empty = [name for name, paths in found.items() if not paths]
    if empty or not found:
        raise errors.ArgumentError(
            "there are no weights to randomize.",
            [("without weights", ", ".join(f"`{name}`" for name in empty))] if empty else [],
            "name layers that hold weights; gt.taps(model) says how many parameters each has",
        )
    return sorted(found.items(), key=lambda item: -max(map(last_op, item[1])))
