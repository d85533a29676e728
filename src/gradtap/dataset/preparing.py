"""From what a user asks to a job: the method, the first result, and what the store will be made of."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gradtap import errors
from gradtap.asking import addresses
from gradtap.dataset.blocks import Plan
from gradtap.dataset.fingerprints import described, model_facts, versions
from gradtap.dataset.kinds_of_data import facts_of
from gradtap.dataset.methods import Method, TargetRows, rows_of
from gradtap.dataset.reading import Group, Source
from gradtap.dataset.specs import Spec, names_of, specs_of
from gradtap.dataset.statistics import Statistic
from gradtap.dataset.store import LAYOUT
from gradtap.dataset.working import StatisticKept, Worker
from gradtap.graph.coupling import couples_examples
from gradtap.graph.inputs import read_inputs
from gradtap.graph.keeping import Trace
from gradtap.graph.tracing import ForwardGraph
from gradtap.tap import Tap
from gradtap.targets import as_target

Array = np.ndarray[Any, Any]

#: So many examples are looked at for one that can be computed.
_TRIED = 64
_DTYPES = ("float16", "float32", "float64")


@dataclass(frozen=True)
class Question:
    """What is asked of every example.

    Args:
      method: What is computed.
      statistic: What is made of it; None where every example's results are kept.
      target: One for all; None where each example has its own.
      targets: One for each example.
      at: Addresses, as they were asked for.
      dtype: What floats are stored as; None for what they are.
    """

    method: Method
    statistic: Statistic | None
    target: Any
    targets: Array | TargetRows | None
    at: Sequence[Any]
    dtype: str | None

    @classmethod
    def of(cls, method: Any, options: Mapping[str, Any], target: Any, at: Any, dtype: Any, examples: int) -> Question:
        """Check and arrange what a user asks.

        Raises:
          ArgumentError: A value is outside of its choices.
        """
        statistic = method if isinstance(method, Statistic) else None
        if dtype is not None and (statistic is not None or str(dtype) not in _DTYPES):
            why = "statistics are kept in float64" if statistic is not None else ", ".join(_DTYPES)
            raise errors.ArgumentError(f"dtype={dtype!r} is not a choice.", [("choices", why)], "leave it out")
        targets = rows_of(target, examples)
        at = addresses(at)
        places = list(at) if isinstance(at, (list, tuple, set, frozenset)) else [at]
        if not places:
            raise errors.ArgumentError("at= is empty.", [], 'name a layer: at="conv1"')
        asked = Method(method.of if statistic is not None else method, options)
        if asked.takes_labels and target is None:
            raise errors.ArgumentError(
                f"`{asked.name}` needs labels.", [], "target=3 for all examples, or an array with one class for each"
            )
        return cls(
            asked,
            statistic,
            None if targets is not None else target,
            targets,
            places,
            None if dtype is None else str(dtype),
        )

    def arguments(self, keys: Sequence[str]) -> dict[str, Any]:
        """The arguments as JSON, with the addresses that they came to."""
        asked = self.target if self.targets is None else getattr(self.targets, "made_of", self.targets)
        found = {
            "method": self.method.name,
            "options": described(self.method.settings),
            "target": described(asked),
            "at": list(keys),
            "dtype": self.dtype,
        }
        if not self.method.has_name:
            found["code"] = described(self.method.function)
        if self.statistic is not None:
            pure = (self.statistic.init, self.statistic.update, self.statistic.merge, self.statistic.result)
            found["statistic"] = {"name": self.statistic.name, **described(self.statistic.options)}
            if not self.statistic.update.__module__.startswith("gradtap."):
                found["statistic"]["code"] = described(pure)
        return found


def first_result(worker: Worker) -> tuple[Group, dict[str, Array]]:
    """The first example that can be computed, and its results: what is wrong with the question is said here.

    Raises:
      InputStructureError: There is no example, or none of the first ones can be used.
      GradtapError: Whatever is wrong with the model, the target or the addresses.
    """
    reasons: dict[int, str] = {}
    failed: errors.GradtapError | None = None
    for i in range(min(worker.source.count, _TRIED)):
        read = worker.read(range(i, i + 1))
        reasons |= read.reasons
        if not read.groups:
            continue
        try:
            return read.groups[0], worker.of_batch(read.groups[0], checked=True)
        except (errors.InputShapeError, errors.InputDtypeError, errors.ModelRunError) as error:
            failed = failed or error
    if failed is not None:
        raise failed
    if not worker.source.count:
        raise errors.InputStructureError("the data has no example.", [], "give data with at least one")
    facts = [(f"example {i}", reason) for i, reason in list(reasons.items())[:4]]
    raise errors.InputStructureError(f"none of the first {len(reasons)} examples can be used.", facts, "look at them")


def resolved(worker: Worker, question: Question, results: Mapping[str, Array]) -> list[str]:
    """The addresses that were found, to be asked for from now on: patterns are looked up once."""
    keys = [key for key in results if "::" not in key]
    try:
        for key in keys:
            Tap.parse(key)
    except errors.AddressSyntaxError:  # the name of an op, which only a `Tap` can ask for
        return list(question.at)
    return keys


def varies(source: Source, trace: Trace) -> bool:
    """Whether examples may differ in shape, and their results with them."""
    declared = trace.source.declared_inputs()
    return not source.uniform and (declared is None or any(None in shape[1:] for shape in declared.shapes))


def plan_for(question: Question, examples: int, block: int) -> Plan:
    """How the run is cut."""
    return Plan(examples, block) if question.statistic is None else Plan.for_statistic(examples, block)


def check_targets(question: Question, graph: ForwardGraph) -> None:
    """Look at the targets of all examples at once: a class that does not exist is not found out halfway.

    Raises:
      GradtapError: One of them is wrong.
    """
    if question.targets is not None and question.method.is_ours and not question.method.takes_labels:
        as_target(getattr(question.targets, "target", question.targets)).key(graph)


def warn_of_coupling(question: Question, graph: ForwardGraph, block: int) -> None:
    """Say so where the results depend on which examples share a block."""
    if question.method.options.get("training") and (couples_examples(graph) or graph.draws):
        errors.warn(
            errors.BatchCouplingWarning(
                f"with training=True the examples of a block influence each other, or share their random masks: the "
                f"results are those of batches of {block}, and other ones with another block."
            )
        )


def forward_graph(trace: Trace, group: Group, method: Method) -> ForwardGraph:
    """The model's forward pass for inputs like these."""
    feeds = read_inputs(group.inputs, trace.source.declared_inputs(), trace.source.float_dtype())
    return trace.graphs.forward_graph(trace.source, feeds, bool(method.options.get("training", False)))


def specs_for(
    question: Question, results: Mapping[str, Array], axes: Mapping[str, Sequence[str]], may_vary: bool
) -> list[Spec]:
    """The arrays with a row for each example; a statistic has none."""
    return [] if question.statistic is not None else specs_of(results, axes, question.dtype, may_vary)


def statistic_of(
    question: Question, results: Mapping[str, Array], axes: Mapping[str, Sequence[str]]
) -> StatisticKept | None:
    """What keeps a statistic, without a store; None where every example's results are kept."""
    if question.statistic is None:
        return None
    shapes = {key: tuple(value.shape[1:]) for key, value in results.items() if "::" not in key}
    return StatisticKept(None, question.statistic, shapes, axes, names_of(shapes))


def header_of(
    trace: Trace,
    source: Source,
    question: Question,
    plan: Plan,
    graph: ForwardGraph,
    specs: Sequence[Spec],
    keys: Sequence[str],
) -> dict[str, Any]:
    """What the run is made of, for the attributes of its store.

    Args:
      trace: The model.
      source: The data.
      question: What is asked.
      plan: How the run is cut.
      graph: Its forward pass.
      specs: The arrays.
      keys: The addresses that were found.
    """
    return {
        "layout": LAYOUT,
        "run": {"examples": plan.examples, "block": plan.block, "blocks_of_task": plan.blocks_of_task},
        "model": model_facts(type(trace.model).__name__, graph),
        "data": facts_of(source),
        "arguments": question.arguments(keys),
        "arrays": [spec.as_json() for spec in specs],
        "results": names_of(keys) if question.statistic is not None else {},
        "versions": versions(),
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def check_counts(**counts: Any) -> None:
    """Raise unless every keyword is a positive int.

    Raises:
      ArgumentError: It says which is not.
    """
    for name, value in counts.items():
        if not isinstance(value, (int, np.integer)) or isinstance(value, bool) or value < 1:
            raise errors.ArgumentError(f"{name}={value!r} is not a positive int.", [], f"leave {name}= out")


def store_path(given: str | os.PathLike[str]) -> Path:
    """Where a store is to be, checked as far as that goes without touching it.

    Raises:
      StoreError: It is no path, or its folder does not exist.
    """
    if "://" in str(given):
        raise errors.StoreError(
            f"`{given}` is no path.",
            [("why", "stores are files of this machine, or of one that it mounts")],
            "mount it",
        )
    path = Path(given).expanduser()
    if not path.name or path.name in (".", ".."):
        raise errors.StoreError(f"`{given}` names no store.", [], "name a folder that does not exist: results.zarr")
    if not path.parent.is_dir():
        raise errors.StoreError(
            f"`{path}` cannot be made.", [("why", f"there is no folder `{path.parent}`")], f"mkdir -p {path.parent}"
        )
    return path.resolve()
