"""Zarr, imported where it is used."""

from __future__ import annotations

from typing import Any

from gradtap import errors


def zarr() -> Any:
    """The package.

    Raises:
      MissingExtraError: It is not installed.
    """
    try:
        import zarr as package
    except ImportError:
        raise errors.MissingExtraError.of("store", "working on a whole data set") from None
    return package
