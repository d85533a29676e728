"""SavedModels: a signature as a function whose ops, in nested functions once, stand open in the traced graph.

The functions are inlined, not frozen: the variables stay variables, so that new values of them are seen, and there is
no limit of 2 GB.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import tensorflow as tf

from gradtap import errors
from gradtap.graph import surgery
from gradtap.graph.keras_internals import DeclaredInputs
from gradtap.types import Structure

_DEFAULT = "serving_default"


class SavedModel:
    """One signature of a loaded SavedModel, to be called and to be traced.

    Args:
      loaded: What `tf.saved_model.load` gives.
      signature: Name of the signature; ``"serving_default"`` where it is None.

    Raises:
      BrokenModelFileError: It has no such signature.
    """

    def __init__(self, loaded: Any, signature: str | None = None) -> None:
        name = signature or _DEFAULT
        if name not in loaded.signatures:
            raise errors.BrokenModelFileError(
                f"the SavedModel has no signature `{name}`.",
                [("signatures", ", ".join(map(str, loaded.signatures)) or "none")],
                "gt.trace(model, signature=...) picks one; a model without any has to be exported again",
            )
        #: What the traces live with; variables die with it.
        self.loaded = loaded
        self.name = name
        self._function = loaded.signatures[name]

    def declared_inputs(self) -> DeclaredInputs:
        """What the signature takes, by name."""
        specs = dict(sorted(self._function.structured_input_signature[1].items()))
        names = tuple(specs)
        return DeclaredInputs(
            structure=0 if len(names) == 1 else {name: i for i, name in enumerate(names)},
            names=names,
            shapes=tuple(tuple(s.shape) if s.shape.rank is not None else () for s in specs.values()),
            dtypes=tuple(s.dtype.name for s in specs.values()),
        )

    def __call__(self, inputs: Structure) -> Structure:
        """Run the signature; inside of a graph its ops become ops of that graph."""
        names = self.declared_inputs().names
        given = inputs if isinstance(inputs, dict) else {names[0]: inputs}
        if tf.executing_eagerly():
            outputs = self._function(**{n: tf.convert_to_tensor(v) for n, v in given.items()})
        else:
            outputs = surgery.inline(self._function, given)
        return next(iter(outputs.values())) if len(outputs) == 1 else dict(outputs)


def is_loaded(thing: Any) -> bool:
    """Whether something is what `tf.saved_model.load` gives, which need not be callable."""
    return hasattr(thing, "signatures") and hasattr(thing, "tensorflow_version") and not hasattr(thing, "layers")


def load_saved_model(path: Path, signature: str | None) -> SavedModel:
    """Load a signature of a SavedModel folder.

    Raises:
      BrokenModelFileError: The folder is no SavedModel, TensorFlow cannot load it, or it has no such signature.
    """
    if not (path / "saved_model.pb").exists():
        raise errors.BrokenModelFileError(
            f"the folder `{path}` is no SavedModel.", [("missing", "saved_model.pb")], "give the folder that holds it"
        )
    try:
        return SavedModel(_load(path), signature)
    except errors.GradtapError:
        raise
    except Exception as error:
        said = str(error).strip().splitlines() or [""]
        raise errors.BrokenModelFileError(
            f"`{path}` cannot be loaded.",
            [("it said", f"{type(error).__name__}: {said[0][:300]}")],
            "export it anew with this version of TensorFlow",
        ) from error


def _load(path: Path) -> Any:
    slots_removed = surgery.without_optimizer_slots((path / "saved_model.pb").read_bytes())
    if slots_removed is None:
        return tf.saved_model.load(str(path))
    # Old Keras saved its optimizer's slots, and TensorFlow looks for an optimizer to put them into. A folder that
    # links to everything but the description has none.
    with tempfile.TemporaryDirectory() as folder:
        for part in path.iterdir():
            if part.name != "saved_model.pb":
                Path(folder, part.name).symlink_to(part.resolve())
        Path(folder, "saved_model.pb").write_bytes(slots_removed)
        return tf.saved_model.load(folder)
