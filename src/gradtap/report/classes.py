"""Names of classes, beside what a model gives."""

from __future__ import annotations

from collections.abc import Sequence

from gradtap import errors


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
