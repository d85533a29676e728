"""From what a user hands over to a trace: models as they are, traces, and files."""

from __future__ import annotations

import json
import os
import zipfile
from pathlib import Path
from typing import Any

from gradtap import errors
from gradtap.graph.keeping import Trace
from gradtap.types import Model

_SUFFIXES = (".keras", ".h5", ".hdf5")


def trace(model: Model, *, jit_compile: bool = False, signature: str | None = None, safe_mode: bool = True) -> Trace:
    """Make a trace to reuse; it is accepted wherever a model is.

    A plain model is traced behind the scenes and its trace is kept, weakly, with the model. A trace of one's own is
    needed for options, and spares a file being loaded twice.

    Args:
      model: A Keras model or layer, a `tf.Module`, a function of tensors, a trace, or the path of a ``.keras``, ``.h5``
        or ``.hdf5`` file or of a SavedModel folder.
      jit_compile: Compile with XLA. Slower on a CPU; falls back with a warning where XLA refuses the ops.
      signature: Which signature of a SavedModel; ``"serving_default"`` where it is None.
      safe_mode: Refuse to run code that a model file brings along.

    Returns:
      A `Trace`; nothing runs until it is used.

    Raises:
      ModelTypeError: This is nothing that can be traced.
      ModelFileError: The file is missing, broken, too new, or holds code.

    Example:
      >>> import gradtap as gt, keras
      >>> gt.trace(keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)]))
      Trace(Sequential, graphs=0)
    """
    if isinstance(model, Trace):
        return model
    if isinstance(model, (str, os.PathLike)):
        model = load_model(Path(model), signature=signature, safe_mode=safe_mode)
        signature = None  # the model that was loaded is that signature
    return Trace(model, jit_compile=jit_compile, signature=signature)


def as_trace(model: Model) -> Trace:
    """The trace of anything that is accepted as a model."""
    return model if isinstance(model, Trace) else trace(model)


def forget(model: Model) -> None:
    """Drop the kept trace of a model; its next use runs the model's Python again.

    Needed only where a change cannot be seen from outside: a file that the model's code reads, an object deep inside
    of an attribute.

    Args:
      model: The model, or a trace of it.

    Raises:
      ModelTypeError: This is nothing that can be traced.

    Example:
      >>> import gradtap as gt, keras
      >>> gt.forget(keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)]))
    """
    as_trace(model).forget()


def load_model(path: Path, *, signature: str | None = None, safe_mode: bool = True) -> Model:
    """Load a model file, without running code that it holds unless asked to.

    Raises:
      ModelFileError: The file is missing, broken, too new, or holds code.
    """
    if not path.exists():
        near = errors.nearest(path.name, [p.name for p in path.parent.glob("*")]) if path.parent.is_dir() else ""
        raise errors.MissingModelFileError(
            f"there is no model at `{path}`.", [("nearest", near)] if near else [], "give the path of a model file"
        )
    if path.is_dir():
        from gradtap.graph.saved_models import load_saved_model

        return load_saved_model(path, signature)
    if path.suffix not in _SUFFIXES:
        raise errors.BrokenModelFileError(
            f"`{path}` is not a model file.", [("known", f"{', '.join(_SUFFIXES)}, a SavedModel folder")], "convert it"
        )
    config = _keras_config(path) if path.suffix == ".keras" else _h5_config(path)
    if safe_mode and _holds_code(config):
        raise errors.UnsafeModelFileError(
            f"`{path}` holds Python code in a Lambda layer, which loading it would run.",
            [],
            [
                "if you trust where it comes from: gt.trace(path, safe_mode=False)",
                "replace the Lambda by a layer class",
            ],
        )
    return _load(path, config, safe_mode)


def _load(path: Path, config: str, safe_mode: bool) -> Model:
    import keras

    try:
        return keras.saving.load_model(path, compile=False, safe_mode=safe_mode)
    except Exception as error:
        written, installed = _version(config), keras.__version__
        said = str(error).strip().splitlines() or [type(error).__name__]
        facts = [("it said", f"{type(error).__name__}: {said[0][:300]}")]
        if written and _numbers(written) > _numbers(installed):
            raise errors.NewerModelFileError(
                f"`{path}` was written by Keras {written}; Keras {installed} is installed and cannot read it.",
                facts,
                f'pip install "keras>={written}"',
            ) from error
        raise errors.BrokenModelFileError(
            f"`{path}` cannot be loaded.",
            facts,
            [
                "with classes of your own: decorate them with keras.saving.register_keras_serializable and import "
                "them, or load the model yourself and pass the model",
                "write the file anew: it may be damaged",
            ],
        ) from error


def _keras_config(path: Path) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            names = set(archive.namelist())
            if "config.json" not in names:
                raise errors.BrokenModelFileError(
                    f"`{path}` is an archive without a model in it.", [("it holds", ", ".join(sorted(names)[:6]))], []
                )
            metadata = archive.read("metadata.json").decode() if "metadata.json" in names else "{}"
            config = archive.read("config.json").decode()
            json.loads(config)
            return f'{{"metadata": {metadata}, "config": {config}}}'
    except (zipfile.BadZipFile, UnicodeDecodeError, json.JSONDecodeError, OSError, KeyError) as error:
        if isinstance(error, errors.GradtapError):
            raise
        raise errors.BrokenModelFileError(
            f"`{path}` is damaged or no .keras file.", [("it said", str(error)[:200])], "write the file anew"
        ) from error


def _h5_config(path: Path) -> str:
    import h5py

    try:
        with h5py.File(path, "r") as file:
            config = file.attrs.get("model_config")
            version = file.attrs.get("keras_version", "")
    except OSError as error:
        raise errors.BrokenModelFileError(
            f"`{path}` is damaged or no HDF5 file.", [("it said", str(error)[:200])], "write the file anew"
        ) from error
    if config is None:
        raise errors.BrokenModelFileError(
            f"`{path}` holds weights without a model.",
            [],
            "build the model, call model.load_weights(path), and pass the model",
        )
    config = config.decode() if isinstance(config, bytes) else str(config)
    version = version.decode() if isinstance(version, bytes) else str(version)
    return f'{{"metadata": {{"keras_version": "{version}"}}, "config": {config}}}'


def _holds_code(config: str) -> bool:
    """Whether a configuration brings code along: the byte code of a lambda."""

    def search(value: Any) -> bool:
        if isinstance(value, dict):
            if value.get("class_name") in ("__lambda__", "Lambda") and _is_lambda(value):
                return True
            return any(map(search, value.values()))
        return isinstance(value, list) and any(map(search, value))

    return search(json.loads(config))


def _is_lambda(value: dict[str, Any]) -> bool:
    if value["class_name"] == "__lambda__":
        return True
    inner = value.get("config") or {}
    return inner.get("function_type") == "lambda" or isinstance(inner.get("function"), list)


def _version(config: str) -> str:
    return str((json.loads(config).get("metadata") or {}).get("keras_version") or "")


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:3] if part.isdigit())
