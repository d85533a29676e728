"""The explanations that are evaluated: those of a method, or arrays that are there already."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeAlias

import tensorflow as tf

from gradtap import errors
from gradtap.graph.resolve import is_several
from gradtap.results import Attributions, TapValues
from gradtap.types import Model, Structure, Tensor

#: A function that is called as the methods are, ``method(model, inputs, target=..., at=...)``.
Method: TypeAlias = Callable[..., Mapping[str, Tensor]]
#: Attributions, or what gives them.
Explanation: TypeAlias = Method | Mapping[Any, Any] | Any


def explained(model: Model, inputs: Structure, explanation: Explanation, target: Any, at: Any) -> TapValues:
    """The attributions at the taps.

    Args:
      model: The model.
      inputs: One batch.
      explanation: A method, a mapping from address to array, or an array for the only tap.
      target: See `gradtap.gradients`.
      at: See `gradtap.gradients`. A method that is bound to a tap of its own keeps it.

    Raises:
      ArgumentError: What was given is no explanation.
    """
    if callable(explanation):
        if isinstance(explanation, partial) and "target" in explanation.keywords:
            raise errors.ArgumentError(
                "the method is bound to a target of its own, which is not the one that is evaluated.",
                [("bound to", repr(explanation.keywords["target"])[:120])],
                "leave it out of the partial, and give target= to the evaluation",
            )
        found = explanation(model, inputs, target=target, **({} if has_own_tap(explanation) else {"at": at}))
        if isinstance(found, Mapping) or hasattr(found, "shape"):
            return explained(model, inputs, found, target, at)
        raise errors.ArgumentError(
            f"the method returned {errors.received(found)}, and no attributions.",
            [],
            "give one of gradtap.attribution, a functools.partial of it, or a function that returns arrays",
        )
    if isinstance(explanation, TapValues):
        return explanation
    if isinstance(explanation, Mapping):
        return Attributions([(str(key), tf.convert_to_tensor(value)) for key, value in explanation.items()])
    if not isinstance(at, str) or not hasattr(explanation, "shape"):
        raise errors.ArgumentError(
            f"{errors.received(explanation)} is no explanation.",
            [],
            [
                "a method: gt.attribution.saliency",
                "a mapping from address to array",
                "an array, where `at` is one address",
            ],
        )
    return Attributions([(at, tf.convert_to_tensor(explanation))])


def has_own_tap(explanation: Explanation) -> bool:
    """Whether a method is bound to a tap, as ``partial(grad_cam, at="conv5", upsample="input")`` is."""
    return isinstance(explanation, partial) and "at" in explanation.keywords


def at_places(found: TapValues, keys: Sequence[str], elsewhere: bool = False) -> list[Tensor]:
    """The attributions in the order of some places.

    Args:
      found: The attributions.
      keys: The places.
      elsewhere: Whether a single map may come from another tap.

    Raises:
      ArgumentError: There is none for a place.
    """
    if elsewhere and len(found) == len(keys) == 1:
        return [tf.convert_to_tensor(found.only)]
    missing = [key for key in keys if key not in found]
    if missing:
        raise errors.ArgumentError(
            "there are no attributions for some taps.",
            [("missing", ", ".join(f"`{key}`" for key in missing)), ("given", ", ".join(f"`{key}`" for key in found))],
            [
                "explain and evaluate at the same addresses",
                "a map of a layer that was brought to the size of the input: give its array (`.only`), or the method "
                'with its tap, functools.partial(gt.attribution.grad_cam, at="conv5", upsample="input")',
            ],
        )
    return [tf.convert_to_tensor(found[key]) for key in keys]


def listed(at: Any) -> Any:
    """Addresses as a list where they are several, so that they can be read more than once."""
    return list(at) if is_several(at) else at
