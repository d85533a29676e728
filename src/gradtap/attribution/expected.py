"""Expected gradients: integrated gradients over baselines that are drawn from data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from gradtap.asking import Settings, Unconnected, address_key, ask
from gradtap.graph import surgery
from gradtap.graph.scores import widen
from gradtap.results import Attributions
from gradtap.staged.baselines import reference_inputs
from gradtap.staged.noise import generator
from gradtap.staged.quadrature import check_count
from gradtap.staged.slope_legs import slope_legs
from gradtap.staged.stages import Stage, Staged, expand
from gradtap.targets import as_target
from gradtap.types import Address, Model, Structure, Tensor, TensorLike


@surgery.unconverted
def expected_gradients(
    model: Model,
    inputs: Structure,
    *,
    target: Any = None,
    at: Address | Sequence[Address] = ":input",
    baselines: Structure,
    samples: int = 100,
    unconnected: Unconnected = "error",
    batch_size: int | None = None,
    training: bool = False,
    seed: int | None = None,
    checks: bool = True,
) -> Attributions:
    r"""Expected gradients: integrated gradients averaged over baselines drawn from data.

    With :math:`h` the activations of an example at the tap, :math:`h'` those of a baseline and :math:`\alpha` uniform
    on [0, 1],

    .. math:: \mathbb{E}_{h', \alpha}\big[(h - h') \odot \nabla F(h' + \alpha (h - h'))\big] .

    Its entries sum to :math:`F(h) - \mathbb{E}\, F(h')` but for the error of the draws. Each draw has an
    :math:`\alpha` from a part of [0, 1] of its own, and the baselines are used equally often, which makes it smaller.

    Args:
      model: See `gradtap.gradients`.
      inputs: See `gradtap.gradients`.
      target: See `gradtap.gradients`.
      at: See `gradtap.gradients`. Several taps are taken one by one.
      baselines: Inputs that stand for what is usual, as the model takes them, any number of rows.
      samples: How many draws; more than there are baselines, or each is used at most once.
      unconnected: See `gradtap.gradients`.
      batch_size: Most examples in flight at once, draws included; None chooses it from the size of the activations.
      training: See `gradtap.gradients`.
      seed: An int makes the draws the same each time; None draws anew. All examples are given the same draws.
      checks: See `gradtap.gradients`.

    Returns:
      `Attributions`: a mapping from address to a tensor of the shape and dtype of its activations.

    Raises:
      GradtapError: One class for each cause; ``docs/errors`` has a page for each.

    Example:
      A linear model has the same gradient everywhere.

      >>> import gradtap as gt, keras, numpy as np
      >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
      >>> x, usual = np.ones((1, 3)), np.array([[0.0, 0.0, 0.0], [2.0, 2.0, 2.0]])
      >>> a = gt.attribution.expected_gradients(model, x, target=0, baselines=usual, samples=4)
      >>> bool(np.allclose(a.only, 0.0, atol=1e-6))
      True

    References:
      Erion, Janizek, Sturmfels, Lundberg, Lee, Improving Performance of Deep Learning Models with Axiomatic Attribution
      Priors and Expected Gradients, https://arxiv.org/abs/1906.10670, 2019.
    """
    settings = Settings(unconnected, batch_size, training, seed, checks)
    check_count("samples", samples)
    wanted = as_target(target)

    def work(stages: list[Stage], inputs: list[Tensor], arrays: list[TensorLike]) -> dict[str, list[Tensor]]:
        given = reference_inputs(baselines, stages[0].graph, inputs)
        count = given[0].shape[0]
        draws = generator(seed, 2)
        rows = np.concatenate([draws.permutation(count) for _ in range(-(-samples // count))])[:samples]
        nodes = (draws.permutation(samples) + draws.uniform(size=samples)) / samples
        found = [mean for stage in stages for mean in _means(stage, stage.elsewhere(given), rows, nodes)]
        dtypes = [place.tensor.dtype for stage in stages for place in stage.leg.measured]
        return {"attributions": [tf.cast(value, dtype) for value, dtype in zip(found, dtypes, strict=True)]}

    name = ("expected", address_key(at))
    question = Staged(wanted, name, lambda graph, own: slope_legs(graph, own, wanted, at), work)
    program, parts = ask(model, inputs, question, settings)
    return Attributions.at(program.places, parts["attributions"], skipped=program.skipped)


def _means(stage: Stage, baselines: list[Tensor], rows: Any, nodes: Any) -> list[Tensor]:
    """For each tap the mean over draws of a baseline and a point on the line from it."""
    here = [widen(h) for h in stage.here]
    totals = [tf.zeros_like(h) for h in here]
    for part in stage.parts(len(rows), f"baselines at {stage.leg.measured[0].key}"):
        starts = [tf.gather(widen(b), rows[part])[:, None] for b in baselines]
        changes = [h[None] - start for h, start in zip(here, starts, strict=True)]
        points = [
            start + expand(nodes[part], change[0]) * change for start, change in zip(starts, changes, strict=True)
        ]
        slopes = stage.run([tf.cast(p, own.dtype) for p, own in zip(points, stage.here, strict=True)])
        for i, change in enumerate(changes):
            totals[i] += tf.reduce_sum(change * widen(slopes[i]), 0)
    return [total / len(rows) for total in totals]
