"""From the name of a method, or a function, to what is computed for a batch: one array for each tap."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from gradtap import attacks, attribution, errors
from gradtap.attacks.results import Adversarial
from gradtap.dataset.sketches import quantiles
from gradtap.dataset.statistics import Statistic, histogram, mean, top_examples, variance
from gradtap.differentiate import activations, gradients
from gradtap.targets.functions import Loss
from gradtap.targets.outputs import ClassScore
from gradtap.types import Model, Structure

Array = np.ndarray[Any, Any]

#: What comes before the name of a result that belongs to no address; no address begins like that.
BESIDE = "::"

#: What makes a statistic of a method's results, by name.
STATISTICS: dict[str, Callable[..., Statistic]] = {
    function.__name__: function for function in (mean, variance, quantiles, histogram, top_examples)
}

#: What is kept of an attack, beside the changed examples.
_OF_ATTACKS = ("success", "distance", "steps")


def named_methods() -> dict[str, Callable[..., Any]]:
    """Everything that can be asked for by name."""
    found: dict[str, Callable[..., Any]] = {"gradients": gradients, "activations": activations}
    found |= {name: getattr(attribution, name) for name in attribution.__all__}
    for name in attacks.__all__:
        if inspect.signature(getattr(attacks, name)).return_annotation == "Adversarial":
            found[name] = getattr(attacks, name)
    return {name: function for name, function in found.items() if "model" in inspect.signature(function).parameters}


class Method:
    """What is computed for a batch.

    Args:
      method: A name, or a function ``(model, inputs, *, target, at, ...)`` or ``(model, inputs, labels, *, at, ...)``.
      options: Its other keywords.

    Raises:
      ArgumentError: There is no such method, or it has no such keyword.
    """

    def __init__(self, method: Any, options: Mapping[str, Any]) -> None:
        known = named_methods()
        _check_no_statistic(method)
        if isinstance(method, str) and method not in known:
            near = errors.nearest(method, [*known, *STATISTICS])
            facts = [("choices", ", ".join(known)), ("statistics", ", ".join(f"gt.dataset.{s}()" for s in STATISTICS))]
            raise errors.ArgumentError(
                f"there is no method {method!r}.",
                [*([("nearest", near)] if near else []), *facts],
                "give one of them, or a function like them",
            )
        if not isinstance(method, str) and not callable(method):
            raise errors.ArgumentError(
                f"method is {errors.kind_of(method)}.", [], 'give a name such as "gradients", or a function'
            )
        self.function: Callable[..., Any] = known[method] if isinstance(method, str) else method
        self.name = method if isinstance(method, str) else name_of(method)
        parameters = inspect.signature(self.function).parameters
        open_ended = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())
        own = [name for name in parameters if name not in ("model", "inputs", "labels", "target", "at")]
        for name in [] if open_ended else [name for name in options if name not in own]:
            raise errors.ArgumentError(
                f"`{self.name}` has no keyword `{name}`.",
                [("nearest", errors.nearest(name, own)), ("it has", ", ".join(own))],
                "leave it out",
            )
        needed = [
            name
            for name, parameter in parameters.items()
            if parameter.kind is inspect.Parameter.KEYWORD_ONLY and parameter.default is inspect.Parameter.empty
        ]
        missing = [name for name in needed if name in own and name not in options]
        if missing:
            raise errors.ArgumentError(
                f"`{self.name}` needs {' and '.join(f'`{name}`' for name in missing)}.",
                [("it has", ", ".join(own))],
                "give " + ", ".join(f"{name}=..." for name in missing),
            )
        self.takes_labels = "labels" in parameters
        self.takes_target = self.takes_labels or "target" in parameters
        # What is wrong with an example is recorded with it. Draws without a seed would differ from run to run.
        self.options: dict[str, Any] = {"checks": False} if "checks" in parameters else {}
        self._checked = {"checks": True} if "checks" in parameters and "checks" not in options else {}
        self.options |= {"seed": 0} if "seed" in parameters else {}
        self.options |= dict(options)
        defaults = {name: parameters[name].default for name in own}
        #: All keywords, those that were left out as well.
        self.settings = {k: v for k, v in defaults.items() if v is not inspect.Parameter.empty} | self.options
        self.is_ours = name_of(self.function).startswith("gradtap.")
        self.has_name = isinstance(method, str)

    def __call__(
        self, model: Model, inputs: Structure, target: Any, at: Sequence[str], *, checked: bool = False
    ) -> dict[str, Array]:
        """Compute one batch.

        Args:
          model: The model.
          inputs: The batch.
          target: The target, or the labels of an attack.
          at: Addresses.
          checked: Let it warn.

        Returns:
          An array with the examples along its first axis for each address; an attack has some more.
        """
        where: Any = at[0] if len(at) == 1 else list(at)
        given = (target,) if self.takes_labels else ()
        named = {"target": target} if self.takes_target and not self.takes_labels else {}
        options = self.options | self._checked if checked else self.options
        found = self.function(model, inputs, *given, at=where, **named, **options)
        if isinstance(found, Adversarial):
            arrays = {found.tap: found.examples} | {f"{BESIDE}{name}": getattr(found, name) for name in _OF_ATTACKS}
        elif isinstance(found, Mapping):
            arrays = {str(key): value for key, value in found.items()}
        else:
            arrays = dict.fromkeys(at[:1], found)
        return {name: numbers(value) for name, value in arrays.items()}


def name_of(function: Callable[..., Any]) -> str:
    """Where a function comes from; a `functools.partial` is its function, an object its class."""
    inner = function
    while isinstance(inner, functools.partial):
        inner = inner.func
    inner = inner if hasattr(inner, "__qualname__") else type(inner)
    return f"{inner.__module__}.{inner.__qualname__}"


def _check_no_statistic(method: Any) -> None:
    """Raise where a statistic is named, or its function given, and not called."""
    name = method if isinstance(method, str) else getattr(method, "__name__", "")
    if name not in STATISTICS or not (isinstance(method, str) or method is STATISTICS[name]):
        return
    what = repr(name) if isinstance(method, str) else f"the function `gt.dataset.{name}`"
    keywords = "edges=[-1,0,1]" if name == "histogram" else ""
    raise errors.ArgumentError(
        f"{what} makes a statistic, and is no method.", [], f"method=gt.dataset.{name}({keywords})"
    )


def numbers(value: Any) -> Array:
    """A tensor as an array of a type that can be stored."""
    array = np.asarray(value)
    if array.dtype.name == "bfloat16":
        array = array.astype(np.float32)
    if array.dtype.kind not in "biufc":
        raise errors.ArgumentError(
            f"the method returned {errors.kind_of(value)}, which cannot be stored.",
            [("received", errors.received(value))],
            "return a mapping from address to tensor (batch, ...)",
        )
    return array


class TargetRows:
    """A target object that has something for each example of the data: labels of a loss, classes.

    Args:
      target: The target.
    """

    def __init__(self, target: Any) -> None:
        self.target = target

    def __getitem__(self, rows: Array) -> Any:
        return self.target.of_rows(rows)

    @property
    def made_of(self) -> Any:
        """What tells it from other targets: classes are the same in a list and in an array."""
        target = self.target
        if isinstance(target, ClassScore):
            return {"classes": target.index.rows, "output": target.output, "logits": target.logits}
        return target


def rows_of(target: Any, examples: int) -> Array | TargetRows | None:
    """A target that has something for each example of the data; None for any other.

    Args:
      target: As the user gave it.
      examples: How many there are.

    Raises:
      TargetCountError: It has another length.
    """
    found: Array | TargetRows
    if isinstance(target, Loss):
        found, count = TargetRows(target), target.labels.shape[0] if target.labels.shape.rank else 1
    elif isinstance(target, ClassScore) and target.index.per_example:
        found, count = TargetRows(target), len(target.index.rows)
    elif isinstance(target, (list, np.ndarray, tf.Tensor)) and np.ndim(target) > 0:
        found = np.asarray(target)
        count = len(found)
    else:
        return None
    if count != examples:
        raise errors.TargetCountError(
            f"there are {count} targets for {examples} examples.",
            [("received", errors.received(target))],
            ["one for each example of the data", 'one for all: target=3, or target="predicted"'],
        )
    return found
