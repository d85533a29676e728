"""The measurements of one model over seeds and stages, and what is said of all of them together."""

from __future__ import annotations

import re
import statistics
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from gradtap.asking import Settings
from gradtap.flow.bending import frobenius_norms
from gradtap.flow.comparison import ComparedModel, ComparedTap, Stage
from gradtap.flow.intervals import of_sizes, of_values
from gradtap.flow.measuring import Objective, measured
from gradtap.flow.objectives import objective
from gradtap.flow.rows import FlowMeasurement, FlowRow
from gradtap.graph.model_files import as_trace
from gradtap.types import Model, Structure

#: Curvature takes a second backward pass for each tap: so many examples are enough for a mean.
_BENDING_EXAMPLES = 16
#: What the blocks of `gradtap.flow.architectures` are called.
_BLOCK = re.compile(r"(.*/)?block_\d+")


@dataclass(frozen=True)
class Data:
    """What every model of a comparison is given.

    Args:
      inputs: One batch.
      labels: One for each example.
      loss: What is differentiated.
      settings: The keywords of the call.
      curvature: At how many taps curvature is looked at.
      judged: Whether findings are looked for.
    """

    inputs: Structure
    labels: Structure
    loss: Any
    settings: Settings
    curvature: int
    judged: bool


class Runs:
    """The measurements of one model.

    Args:
      name: What the model is called.
      data: What it is given.
    """

    def __init__(self, name: str, data: Data) -> None:
        self._name, self._data = name, data
        self._found: dict[Stage, list[FlowMeasurement]] = {}
        self._bends: dict[Stage, list[dict[str, float]]] = {}
        self._seconds: list[float] = []

    def look(self, model: Model, stage: Stage) -> None:
        """Measure a model with the weights that it has."""
        is_first = not self._found
        found = self._measured(model)
        self._found.setdefault(stage, []).append(found)
        if is_first:  # that was with building and compiling
            self._measured(model)
            del self._seconds[0]
        if self._data.curvature:
            self._bends.setdefault(stage, []).append(self._bent(model, found))

    def _measured(self, model: Model) -> FlowMeasurement:
        data = self._data
        start = time.perf_counter()
        found = measured(
            as_trace(model),
            data.inputs,
            data.labels,
            Objective(None, data.loss),
            "**",
            data.settings,
            judged=data.judged,
        )
        self._seconds.append(time.perf_counter() - start)
        return found

    def _bent(self, model: Model, found: FlowMeasurement) -> dict[str, float]:
        taps = [row.address for row in by_depth(found)]
        places = np.unique(np.linspace(0, len(taps) - 1, min(self._data.curvature, len(taps))).round().astype(int))
        few = tf.nest.map_structure(lambda x: x[:_BENDING_EXAMPLES], (self._data.inputs, self._data.labels))
        target = objective(model, None, self._data.loss, few[1])
        return frobenius_norms(model, few[0], target, [taps[i] for i in places], self._data.settings.seed or 0)

    @property
    def stages(self) -> list[Stage]:
        """The stages at which the model was looked at."""
        return list(self._found)

    def rows(self, stage: Stage) -> list[ComparedTap]:
        """One row for each tap along the trunk, and one for each step of each recurrent state."""
        seeds = [by_depth(found) for found in self._found[stage]]
        bends = self._bends.get(stage, [])
        rows = []
        for depth, each in enumerate(zip(*seeds, strict=True), 1):
            address = each[0].address
            size = of_sizes([row.gradient_norm for row in each])
            bent = [values[address] for values in bends if address in values]
            rows.append(
                ComparedTap(
                    self._name,
                    stage,
                    address,
                    depth,
                    *size,
                    of_sizes([row.activation_norm for row in each]).mean,
                    of_values([row.dead for row in each]).mean,
                    of_values([row.cosine for row in each]).mean,
                    of_sizes(bent).mean if bent else float("nan"),
                )
            )
        return rows + self._steps(stage)

    def _steps(self, stage: Stage) -> list[ComparedTap]:
        none = float("nan")
        rows = []
        for profiles in zip(*(found.profiles for found in self._found[stage]), strict=True):
            for step, norms in enumerate(zip(*(profile.gradient_norms for profile in profiles), strict=True), 1):
                address = f"{profiles[0].address}@{step - 1}"
                size = of_sizes(norms)
                rows.append(ComparedTap(self._name, stage, address, step, *size, none, none, none, none, True))
        return rows

    def line(self, stage: Stage) -> ComparedModel:
        """The model in one line. The depth of a recurrent network is that of its first state."""
        found = self._found[stage]
        norms = [_norms(one) for one in found]
        bends = [value for values in self._bends.get(stage, []) for value in values.values()]
        depth = len(norms[0])
        factors = [_per_layer(each) for each in norms]
        return ComparedModel(
            name=self._name,
            stage=stage,
            depth=depth,
            first=of_sizes([each[0] for each in norms]),
            last=of_sizes([each[-1] for each in norms]),
            per_layer=of_sizes(factors),
            dead=of_values([row.dead for one in found for row in by_depth(one)]).mean,
            curvature=of_sizes(bends).mean if bends else float("nan"),
            loss=of_values([one.target for one in found]),
            seconds=statistics.median(self._seconds),
            findings=dict(Counter(kind for one in found for kind in {finding.kind for finding in one.findings})),
            seeds=len(found),
        )


def by_depth(found: FlowMeasurement) -> list[FlowRow]:
    """The taps along which depth is counted: blocks where they are called so, else the trunk, else all."""
    blocks = [row for row in found.rows if _BLOCK.fullmatch(row.address)]
    trunk = [row for row in found.rows if row.on_trunk]
    return blocks or trunk or found.rows


def _per_layer(norms: Sequence[float]) -> float:
    """The factor at each layer on the way back, as far as float32 has a number for the gradient."""
    first = next((i for i, norm in enumerate(norms) if norm), len(norms) - 1)
    if not norms[-1]:
        return float("nan")
    return float((norms[first] / norms[-1]) ** (1 / max(len(norms) - 1 - first, 1)))


def _norms(found: FlowMeasurement) -> list[float]:
    """The gradient's norms from the input to the output, or from the first step to the last."""
    if found.profiles:
        return [float(norm) for norm in found.profiles[0].gradient_norms]
    return [row.gradient_norm for row in by_depth(found)]
