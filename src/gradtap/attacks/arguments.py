"""What every attack checks of the values that it is given."""

from __future__ import annotations

from typing import Any

import numpy as np

from gradtap import errors
from gradtap.asking import check_choice
from gradtap.attacks.balls import NORMS


def check_ask(bounds: Any, targeted: Any) -> None:
    """Raise unless the bounds are a pair and ``targeted`` is a flag.

    Raises:
      ArgumentError: They are not.
    """
    check_flag("targeted", targeted)
    if bounds is not None and (np.shape(bounds) != (2,) or not bounds[0] < bounds[1]):
        raise errors.ArgumentError(f"bounds={bounds!r} is no pair.", [], "bounds=(lowest, highest), or None")


def check_norm(norm: Any, norms: tuple[str, ...] = NORMS) -> None:
    """Raise unless a norm is known.

    Raises:
      ArgumentError: It is not.
    """
    check_choice("norm", norm, norms)


def check_flag(name: str, value: Any) -> None:
    """Raise unless something is True or False.

    Raises:
      ArgumentError: It is neither.
    """
    check_choice(name, value, (True, False))


def check_sizes(name: str, value: Any) -> None:
    """Raise unless something is a size, or one for each example.

    Raises:
      ArgumentError: It is not.
    """
    try:
        numbers = np.asarray(value, np.float64)
        fine = bool(np.all(np.isfinite(numbers)) and np.all(numbers >= 0))
    except (TypeError, ValueError):
        fine = False
    if not fine:
        raise errors.ArgumentError(f"{name}={value!r} is no size.", [], "0 or more; a number, or one for each example")


def check_above(name: str, value: Any) -> None:
    """Raise unless something is one number above 0.

    Raises:
      ArgumentError: It is not.
    """
    check_sizes(name, value)
    if np.ndim(value) or not float(value) > 0:
        raise errors.ArgumentError(f"{name}={value!r} is not above 0.", [], "one number for all examples")
