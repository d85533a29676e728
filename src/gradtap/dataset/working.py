"""What happens to a block: read it, compute it, and put aside what cannot be computed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import reduce
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from gradtap import errors
from gradtap.dataset.blocks import Task
from gradtap.dataset.methods import ClassOfEach, Method
from gradtap.dataset.names import axis_names, is_weight
from gradtap.dataset.reading import Elsewhere, Group, Read, Source, finite_rows, reason_of, without_bad_numbers
from gradtap.dataset.specs import Spec
from gradtap.dataset.statistics import Statistic
from gradtap.dataset.store import State, Store, padded
from gradtap.types import Model, Structure

Array = np.ndarray[Any, Any]


class Computed(NamedTuple):
    """The results of some examples.

    Args:
      groups: Ids and the results by key, for examples of one shape.
      reasons: Why the others failed, by id.
    """

    groups: list[tuple[Array, dict[str, Array]]]
    reasons: dict[int, str]


class Outcome(NamedTuple):
    """What came of a task, once it is written.

    Args:
      task: Which.
      reasons: Why examples failed, by id.
    """

    task: Task
    reasons: dict[int, str]


class Worker:
    """Computes blocks with one model.

    Args:
      model: The model, ready to be asked.
      source: The data.
      method: What is computed.
      target: One for all, as the method takes it; None where each example has its own.
      targets: One for each example of the data.
      at: Addresses.
    """

    def __init__(
        self,
        model: Model,
        source: Source,
        method: Method,
        target: Any,
        targets: Array | ClassOfEach | None,
        at: Sequence[str],
    ) -> None:
        self.model = model
        self.source = source
        self._method = method
        self._target = target
        self._targets = targets
        self.at = at

    def without_model(self) -> Worker:
        """The same, for another process, which loads the model itself."""
        return Worker(
            None,
            self.source if self.source.portable else Elsewhere(),
            self._method,
            self._target,
            self._targets,
            self.at,
        )

    def read(self, rows: range) -> Read:
        """Read examples, and put aside those that hold no finite numbers."""
        return without_bad_numbers(self.source.read(rows.start, rows.stop))

    def compute(self, read: Read) -> Computed:
        """Compute what was read; one example that fails does not take others along."""
        found, reasons = [], dict(read.reasons)
        for group in read.groups:
            for ids, results in self._of_group(group, reasons):
                bad = np.zeros(len(ids), bool)
                for value in results.values():
                    bad |= ~finite_rows(value)
                reasons |= dict.fromkeys(ids[bad].tolist(), "the result has NaN or infinity")
                found.append((ids, results))
        return Computed(found, reasons)

    def _of_group(self, group: Group, reasons: dict[int, str]) -> list[tuple[Array, dict[str, Array]]]:
        try:
            return [(group.ids, self.of_batch(group))]
        except Exception as error:  # of a method or a model of the user's as well
            if len(group.ids) == 1 or isinstance(error, (errors.InputShapeError, errors.InputDtypeError)):
                reasons |= dict.fromkeys(group.ids.tolist(), reason_of(error))
                return []
        middle = len(group.ids) // 2
        halves = (slice(0, middle), slice(middle, None))
        return [one for half in halves for one in self._of_group(_part(group, half), reasons)]

    def of_batch(self, group: Group) -> dict[str, Array]:
        """Compute examples of one shape."""
        target = self._target if self._targets is None else self._targets[group.ids]
        results = self._method(self.model, group.inputs, target, self.at)
        for key, value in results.items():
            if value.ndim == 0 or len(value) != len(group.ids) or is_weight(key):
                raise errors.ArgumentError(
                    f"the result at `{key}` has no row for each example.",
                    [("shape", f"{value.shape} for {len(group.ids)} examples")],
                    "ask for activations or inputs: what belongs to a weight is one sum over all examples",
                )
        return results


def _part(group: Group, half: slice) -> Group:
    inputs: Structure = tf.nest.map_structure(lambda leaf: leaf[half], group.inputs)
    return Group(group.ids[half], inputs)


class ArraysKept:
    """Keeps every example's results.

    Args:
      store: Where; None on the way to another process.
    """

    def __init__(self, store: Store | None) -> None:
        self._store = store

    @property
    def store(self) -> Store:
        """The store."""
        return _there(self._store)

    def into(self, store: Store | None) -> ArraysKept:
        """The same in a store, or without one, for another process."""
        return ArraysKept(store)

    def add(self, kept: Any, computed: Computed) -> tuple[Any, dict[int, str]]:
        """Take a block in; a task has one."""
        more = overflows(computed, self.store.specs)
        return computed, computed.reasons | more

    def write(self, task: Task, kept: Computed) -> None:
        """Write the task's block."""
        rows = self.store.plan.rows(task.blocks.start)
        values, shapes = {}, {}
        for spec in self.store.specs:
            values[spec.key], shapes[spec.key] = _in_rows(spec, kept, rows)
        self.store.write(task.blocks.start, values, shapes)


def overflows(computed: Computed, specs: Sequence[Spec]) -> dict[int, str]:
    """The examples with a number that is too large for the type it is stored in."""
    found: dict[int, str] = {}
    for ids, results in computed.groups:
        for spec in specs:
            value = results[spec.key]
            if spec.dtype == value.dtype.name or value.dtype.kind != "f" or not value.size:
                continue
            largest = np.finfo(spec.dtype).max
            if value.max() > largest or value.min() < -largest:
                rows = np.abs(value.reshape(len(value), -1)).max(axis=1) > largest
                found |= dict.fromkeys(ids[rows].tolist(), f"a result is too large for {spec.dtype}")
    return found


def _in_rows(spec: Spec, kept: Computed, rows: range) -> tuple[Array, Array]:
    """The results of a block in the order of its examples, with each one's own shape."""
    if len(kept.groups) == 1 and len(kept.groups[0][0]) == len(rows):
        value = kept.groups[0][1][spec.key]
        return _cast(value, spec), np.broadcast_to(np.array(value.shape[1:], np.int32), (len(rows), value.ndim - 1))
    largest = spec.shape
    for _, results in kept.groups:
        largest = tuple(map(max, largest, results[spec.key].shape[1:])) if spec.varies else spec.shape
    values = np.full((len(rows), *largest), spec.fill, spec.dtype)
    shapes = np.zeros((len(rows), len(spec.shape)), np.int32)
    for ids, results in kept.groups:
        value = _cast(results[spec.key], spec)
        values[ids - rows.start] = padded(value, largest, spec.fill) if value.shape[1:] != largest else value
        shapes[ids - rows.start] = value.shape[1:]
    return values, shapes


def _cast(value: Array, spec: Spec) -> Array:
    with np.errstate(over="ignore"):  # what overflows is recorded
        return value.astype(spec.dtype, copy=False)


class StatisticKept:
    """Keeps a statistic's states.

    Args:
      store: Where; None before it is made, and on the way to another process.
      statistic: The statistic.
      shapes: The shape of one example's result, by key.
      names: The array's name, by key.
    """

    def __init__(
        self,
        store: Store | None,
        statistic: Statistic,
        shapes: Mapping[str, tuple[int, ...]],
        names: Mapping[str, str],
    ) -> None:
        self._store = store
        self._statistic = statistic
        self._shapes = shapes
        self._names = names

    @property
    def store(self) -> Store:
        """The store."""
        return _there(self._store)

    def into(self, store: Store | None) -> StatisticKept:
        """The same in a store, or without one, for another process."""
        return StatisticKept(store, self._statistic, self._shapes, self._names)

    def empty(self) -> dict[str, State]:
        """The states of no example, by key."""
        return {key: self._statistic.init(shape) for key, shape in self._shapes.items()}

    def empty_by_name(self) -> dict[str, State]:
        """The states of no example, by the name of the result's array."""
        return {self._names[key]: state for key, state in self.empty().items()}

    def add(self, kept: dict[str, State] | None, computed: Computed) -> tuple[dict[str, State], dict[int, str]]:
        """Take a block in: it has a state of its own, which is merged, so that who computes it makes no difference."""
        return self.merged(kept, self.of_block(computed)), computed.reasons

    def of_block(self, computed: Computed) -> dict[str, State]:
        """The states of a block; an example that failed is in none."""
        states = self.empty()
        for ids, results in computed.groups:
            good = np.array([int(i) not in computed.reasons for i in ids], bool)
            for key, state in states.items() if good.any() else ():
                value = results[key] if good.all() else results[key][good]
                states[key] = self._statistic.update(state, value, ids[good])
        return states

    def merged(self, kept: dict[str, State] | None, states: dict[str, State]) -> dict[str, State]:
        """Two sets of states in one."""
        if kept is None:
            return states
        return {key: self._statistic.merge(kept[key], state) for key, state in states.items()}

    def write(self, task: Task, kept: dict[str, State]) -> None:
        """Write the task's states."""
        self.store.write_part(task.number, {self._names[key]: state for key, state in kept.items()})

    def finish(self) -> None:
        """Merge all tasks in their order and write the results."""
        store, statistic = self.store, self._statistic
        beside = []
        for key, empty in self.empty().items():
            name = self._names[key]
            parts = (store.part(name, task, empty) for task in range(store.plan.tasks))
            state = reduce(statistic.merge, parts, empty)
            for what, value in statistic.result(state).items():
                at = name if what == statistic.name else f"also/{what}/{name}"
                beside += [at] if at != name else []
                store.write_result(at, value, _axes(key, np.ndim(value), statistic.axes.get(what, ())), key)
        store.update_header({**store.header, "beside": beside})


def _there(store: Store | None) -> Store:
    if store is None:
        raise RuntimeError("what is kept has no store yet")
    return store


def _axes(address: str, rank: int, own: Sequence[str]) -> list[str]:
    """The names of a result's axes."""
    return axis_names(address, [*(f"axis{i}" for i in range(rank - len(own))), *own])


Kept = ArraysKept | StatisticKept
