"""Names of classes, beside what a model gives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from gradtap import errors
from gradtap.report.document import Array


def check_class_names(names: Sequence[str] | None, shape: object) -> None:
    """Refuse names that are not one for each class: those that are there would stand at the wrong ones.

    Args:
      names: What the classes are called; None or none where nobody says it.
      shape: Of the model's output with its batch axis; what is not ``(batch, classes)`` is not looked at.

    Raises:
      ArgumentError: There are more or fewer names than classes.
    """
    if not names or not isinstance(shape, tuple) or len(shape) != 2 or not isinstance(shape[1], int) or shape[1] < 2:
        return
    if len(names) != shape[1]:
        raise errors.ArgumentError(
            f"there {'is' if len(names) == 1 else 'are'} {len(names)} class name{'s' * (len(names) > 1)}, "
            f"but the model has {shape[1]} classes.",
            [],
            "one name for each class, in order",
        )


def named(k: int, names: Sequence[str] | None) -> str:
    """What a class is called."""
    return str(names[k]) if names else f"class {k}"


def target_words(target: Any, outputs: Array | None, n: int, names: Sequence[str] | None) -> str:
    """What was differentiated of an example, in words.

    Args:
      target: See `gradtap.gradients`.
      outputs: The model's, ``(batch, classes)`` where it has classes; None where there are several.
      n: Which example.
      names: What the classes are called.

    Example:
      >>> target_words("predicted", np.array([[0.1, 0.9]]), 0, ["cat", "dog"])
      'class 1, dog (predicted)'
    """
    if outputs is None or outputs.ndim != 2:
        return "the predicted class" if isinstance(target, str) and target == "predicted" else repr(target)
    if outputs.shape[1] == 1 and (target is None or isinstance(target, str) or np.array_equal(target, 0)):
        return "the model's one output"
    predicted = int(outputs[n].argmax())
    asked = predicted if isinstance(target, str) and target == "predicted" else target
    if isinstance(asked, list | np.ndarray) and np.shape(asked) == (len(outputs),):
        asked = asked[n]
    if not isinstance(asked, int | np.integer):
        return repr(target)
    k = int(asked)
    return f"class {k}{f', {names[k]}' if names else ''}{' (predicted)' if k == predicted else ''}"
