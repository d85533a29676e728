"""SavedModels from disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gradtap import errors
from gradtap.types import Model


def load_saved_model(path: Path, signature: str | None) -> Model:
    """Load a signature of a SavedModel folder as a function of its inputs.

    Raises:
      BrokenModelFileError: The folder is no SavedModel, or TensorFlow cannot load it.
      UnknownTapError: It has no such signature.
    """
    import tensorflow as tf

    if not any((path / name).exists() for name in ("saved_model.pb", "saved_model.pbtxt")):
        raise errors.BrokenModelFileError(
            f"the folder `{path}` is no SavedModel.", [("missing", "saved_model.pb")], "give the folder that holds it"
        )
    try:
        loaded: Any = tf.saved_model.load(str(path))
    except Exception as error:
        raise errors.BrokenModelFileError(
            f"`{path}` cannot be loaded.",
            [("it said", f"{type(error).__name__}: {str(error).splitlines()[0][:300]}")],
            "export it anew with this version of TensorFlow",
        ) from error
    name = signature or "serving_default"
    if name not in loaded.signatures:
        raise errors.BrokenModelFileError(
            f"`{path}` has no signature `{name}`.",
            [("signatures", ", ".join(loaded.signatures) or "none")],
            "gt.trace(path, signature=...)",
        )
    return loaded.signatures[name]
