"""Send the same data through several models, over several seeds, before and after a short training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import keras
import numpy as np

from gradtap import errors
from gradtap.asking import Settings, Unconnected
from gradtap.flow.comparison import ComparedModel, ComparedTap, Comparison
from gradtap.flow.objectives import compiled_loss, is_several, loss_to_train
from gradtap.flow.runs import Data, Runs
from gradtap.flow.training import ShortTraining
from gradtap.flow.variants import Variant, seeded
from gradtap.graph import surgery
from gradtap.staged.progress import tracked
from gradtap.staged.quadrature import check_count
from gradtap.types import Structure


@surgery.unconverted
def compare(
    models: Mapping[str, Any],
    inputs: Structure,
    labels: Structure,
    *,
    loss: Any = None,
    seeds: int | Sequence[int] = 3,
    steps: int = 20,
    optimizer: Any = None,
    curvature: int = 3,
    unconnected: Unconnected = "error",
    batch_size: int | None = None,
    training: bool = False,
    seed: int | None = 0,
    checks: bool = True,
) -> Comparison:
    r"""Send the same data through several models, and set their gradients, dead units, curvature and time side by side.

    Each model is initialised anew for each seed, measured as `measure` does, trained for a few steps on the same data
    in the same order, and measured again. Means over the seeds come with 95 % intervals (Student's; of logarithms where
    sizes are compared). The curvature at a tap is the Frobenius norm of the loss's Hessian there, estimated by
    :math:`\sqrt{\overline{|Hv|^2}}` with random signs :math:`v`.

    Args:
      models: Name to a Keras model, the path of a model file, or a function without arguments that builds a model. A
        model is cloned: what is given stays as it is. `gradtap.flow.architectures` builds some.
      inputs: One batch as the models take it.
      labels: One for each example ``(batch, ...)``.
      loss: A Keras loss; None for the one that a model was compiled with, else a cross-entropy for whole numbers, from
        logits unless a softmax or sigmoid ends the model.
      seeds: How many, from 0 on, or which.
      steps: Training steps of up to 32 examples; 0 for none.
      optimizer: A Keras optimizer, by name or object; None for the one that a model was compiled with, else
        Adam with a learning rate of 0.001.
      curvature: At how many taps of each model the curvature is looked at; 0 for none.
      unconnected: See `gradtap.gradients`.
      batch_size: Most examples in flight at once; None for all.
      training: Passed to the models where they are measured.
      seed: Draws the dropout masks, and the signs for the curvature.
      checks: Look for findings.

    Returns:
      `Comparison`: ``.rows`` for each model, stage and tap along the trunk; ``.models`` with one line for each;
      ``.table()`` and ``.plot()``.

    Raises:
      ArgumentError: There is no model, or a keyword has a value outside of its choices.
      ModelTypeError: A model cannot be cloned, or is none.
      GradtapError: One class for each cause; ``docs/errors`` has a page for each.

    Example:
      >>> import functools, gradtap as gt, numpy as np
      >>> x, y = np.random.default_rng(0).normal(size=(32, 8)), np.arange(32) % 3
      >>> plain = gt.flow.architectures.plain
      >>> models = {name: functools.partial(plain, 8, 3, activation=name, depth=8) for name in ["relu", "sigmoid"]}
      >>> found = gt.flow.compare(models, x, y, seeds=2, steps=0, curvature=0)
      >>> {model.name: model.per_layer.mean < 0.5 for model in found.models}
      {'relu': False, 'sigmoid': True}

    References:
      Glorot, Bengio, Understanding the Difficulty of Training Deep Feedforward Neural Networks,
      https://proceedings.mlr.press/v9/glorot10a.html, 2010.
      He et al., Delving Deep into Rectifiers, https://arxiv.org/abs/1502.01852, 2015.
    """
    listed = _checked(models, seeds, steps, curvature)
    labels = labels if is_several(labels) else np.asarray(labels)
    settings = Settings(unconnected, batch_size, training, seed, checks=False)
    rows: list[ComparedTap] = []
    lines: list[ComparedModel] = []
    for name, given in tracked(models.items(), len(models), "models compared"):
        runs = _run(
            Variant(name, given, inputs),
            Data(inputs, labels, loss, settings, curvature, checks),
            listed,
            steps,
            optimizer,
        )
        for stage in runs.stages:
            rows += runs.rows(stage)
            lines.append(runs.line(stage))
    return Comparison(rows, lines)


def _checked(models: Any, seeds: int | Sequence[int], steps: int, curvature: int) -> list[int]:
    """The seeds, one by one, where the keywords have values that they can have.

    Raises:
      ArgumentError: One of them has another.
    """
    if not isinstance(models, Mapping) or not models:
        raise errors.ArgumentError(
            "there is no model to compare.", [("received", errors.received(models))], "{name: model or builder}"
        )
    check_count("steps", steps, 0)
    check_count("curvature", curvature, 0)
    if isinstance(seeds, (int, np.integer)):
        check_count("seeds", seeds, 1)
    listed = list(range(seeds)) if isinstance(seeds, (int, np.integer)) else [int(one) for one in seeds]
    if not listed:
        raise errors.ArgumentError("there is no seed.", [], "seeds=3, or a list of ints")
    return listed


def _run(variant: Variant, data: Data, seeds: Sequence[int], steps: int, optimizer: Any) -> Runs:
    """Measure one model over all seeds, before and after training."""
    own = data.loss if data.loss is not None else compiled_loss(variant.original)
    data = replace(data, loss=own)
    runs, trained = Runs(variant.name, data), None
    for seed in seeds:
        model = variant.initialise(seed)
        runs.look(model, "initial")
        if not steps:
            continue
        with seeded(seed):
            if trained is None:
                loss = loss_to_train(model, data.labels, own)
                chosen = optimizer or getattr(variant.original, "optimizer", None) or keras.optimizers.Adam()
                trained = ShortTraining(model, data.inputs, data.labels, loss, chosen, steps)
            trained.run()
        runs.look(model, "trained")
    return runs
