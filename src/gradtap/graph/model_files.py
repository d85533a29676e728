"""From what a user hands over to a trace: models as they are, traces, and files."""

from __future__ import annotations

import json
import os
import re
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import Any

from gradtap import errors
from gradtap.graph.keeping import Trace
from gradtap.graph.saved_models import is_loaded, load_saved_model
from gradtap.types import Model

_SUFFIXES = (".keras", ".h5", ".hdf5")

#: What to do with the files of others, by suffix.
_CONVERT = {
    ".pb": "give the folder that holds it",
    ".json": "a configuration holds no weights: load both in Keras, and pass the model",
    "": "load it with the library that wrote it, and pass the model or a function of tensors",
}


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
      ArgumentError: An option has a value outside of its choices, or does not apply to the model.

    Example:
      >>> import gradtap as gt, keras
      >>> gt.trace(keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)]))
      Trace(Sequential, graphs=0)
    """
    _check_flags(jit_compile=jit_compile, safe_mode=safe_mode)
    if isinstance(model, Trace):
        return model
    if isinstance(model, type):
        raise errors.ModelTypeError(
            f"`{model.__name__}` is a class, not a model.", [], f"make a model of it: {model.__name__}(...)"
        )
    is_saved_model = is_loaded(model)
    if isinstance(model, (str, os.PathLike)):
        path = _existing(model)
        is_saved_model = path.is_dir()
        model = load_model(path, signature=signature, safe_mode=safe_mode)
    if signature is not None and not is_saved_model:
        raise errors.ArgumentError(
            f"signature={signature!r} is for SavedModels; this is {errors.kind_of(model)}.", [], "leave it out"
        )
    # A model that was loaded is that signature.
    return Trace(model, jit_compile=jit_compile, signature=signature if is_loaded(model) else None)


def _check_flags(**flags: Any) -> None:
    for name, value in flags.items():
        if not isinstance(value, bool):
            raise errors.ArgumentError(f"{name}={value!r} is not a choice.", [("choices", "True, False")], "give one")


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


def _existing(given: str | os.PathLike[str]) -> Path:
    """The path of a file or folder that is there.

    Raises:
      MissingModelFileError: Nothing is there; the message lists the nearest names.
    """
    path = Path(given)
    try:
        path = path.expanduser()
        if str(given) and path.exists():
            return path
        beside = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else None
    except (OSError, RuntimeError, ValueError):  # a name too long, a user that does not exist
        beside = []
    near = errors.nearest(path.name, [name for name in beside or () if name != path.name])
    facts = [("nearest", near)] if near else []
    if beside is None:
        facts.append(("why", f"there is no folder `{path.parent}`"))
    elif path.name in beside:
        facts.append(("why", f"it is a link to `{os.readlink(path)}`, which is not there"))
    do = "download it first, and give the path of the file" if "://" in str(given) else "give the path of a model file"
    raise errors.MissingModelFileError(f"there is no model at `{str(given)[:200]}`.", facts, do)


def load_model(path: Path, *, signature: str | None = None, safe_mode: bool = True) -> Model:
    """Load a model file, without running code that it holds unless asked to.

    Raises:
      ModelFileError: The file is broken, too new, or holds code.
    """
    if path.is_dir():
        return load_saved_model(path, signature)
    if path.suffix not in _SUFFIXES or not path.is_file():
        raise errors.BrokenModelFileError(
            f"`{path}` is not a model file.",
            [("known", f"{', '.join(_SUFFIXES)}, a SavedModel folder")],
            _rename(path) or _CONVERT.get(path.suffix.lower(), _CONVERT[""]),
        )
    try:
        version, config = _keras_config(path) if path.suffix == ".keras" else _h5_config(path)
        holds_code = _holds_code(config)
    except errors.GradtapError:
        raise
    except PermissionError as error:
        raise errors.BrokenModelFileError(
            f"`{path}` may not be read.", [("it said", str(error))], "chmod +r"
        ) from error
    except (OSError, ValueError, KeyError, RecursionError, zipfile.BadZipFile) as error:
        form = "Keras archive" if path.suffix == ".keras" else "HDF5 file"
        raise errors.BrokenModelFileError(
            f"`{path}` is damaged, or no {form}.",
            [("it said", str(error)[:200])],
            _rename(path) or "write the file anew: model.save(path)",
        ) from error
    if safe_mode and holds_code:
        raise errors.UnsafeModelFileError(
            f"`{path}` holds Python code in a Lambda layer, which loading it would run.",
            [],
            [
                "if you trust where it comes from: gt.trace(path, safe_mode=False)",
                "replace the Lambda by a layer class",
            ],
        )
    return _load(path, version, safe_mode)


def _rename(path: Path) -> str:
    """The remedy for a file that holds another form than its suffix says; empty where it does not."""
    form = path.suffix
    with suppress(OSError, zipfile.BadZipFile):
        if path.is_file() and zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                form = ".keras" if "config.json" in archive.namelist() else form
        elif path.is_file():
            with path.open("rb") as file:
                form = ".h5" if file.read(6) == b"\x89HDF\r\n" and form != ".hdf5" else form
    return f"rename it to `{path.with_suffix(form).name}`, which is what it holds" if form != path.suffix else ""


def _load(path: Path, version: str, safe_mode: bool) -> Model:
    import keras

    try:
        return keras.saving.load_model(path, compile=False, safe_mode=safe_mode)
    except Exception as error:
        # Keras quotes whole configurations; the cause comes last.
        cause = str(error).rsplit("Exception encountered: ", 1)[-1].strip() or type(error).__name__
        facts = [("it said", f"{type(error).__name__}: {cause.splitlines()[0][:300]}")]
        if _numbers(version) > _numbers(keras.__version__):
            raise errors.NewerModelFileError(
                f"`{path}` was written by Keras {version}; Keras {keras.__version__} is installed and cannot read it.",
                facts,
                f'pip install "keras>={version}"',
            ) from error
        unknown = re.search(r"(?:locate class|Unknown layer:|deserialize) '([\w.]+)'", cause)
        if unknown is not None:
            raise errors.BrokenModelFileError(
                f"`{path}` cannot be loaded: Keras does not know the class `{unknown[1]}`.",
                facts,
                [
                    "decorate the class with @keras.saving.register_keras_serializable() and import it first",
                    "load the model yourself, with custom_objects, and pass the model",
                ],
            ) from error
        raise errors.BrokenModelFileError(
            f"`{path}` cannot be loaded.",
            facts,
            ["write the file anew: it may be damaged", "load the model yourself and pass the model"],
        ) from error


def _keras_config(path: Path) -> tuple[str, Any]:
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        if "config.json" not in names:
            raise errors.BrokenModelFileError(
                f"`{path}` is an archive without a model in it.",
                [("it holds", ", ".join(sorted(names)[:6]) or "nothing")],
                "give a file that model.save(path) has written",
            )
        config = json.loads(archive.read("config.json"))
        metadata: Any = {}
        if "metadata.json" in names:
            with suppress(ValueError):  # it says nothing that loading needs
                metadata = json.loads(archive.read("metadata.json"))
    return str(metadata.get("keras_version", "")) if isinstance(metadata, dict) else "", config


def _h5_config(path: Path) -> tuple[str, Any]:
    import h5py

    with h5py.File(path, "r") as file:
        config = file.attrs.get("model_config")
        version = file.attrs.get("keras_version", "")
    if config is None:
        raise errors.BrokenModelFileError(
            f"`{path}` holds weights without a model.",
            [],
            "build the model, call model.load_weights(path), and pass the model",
        )
    text = config if isinstance(config, (bytes, str)) else str(config)
    return version.decode() if isinstance(version, bytes) else str(version), json.loads(text)


def _holds_code(config: Any) -> bool:
    """Whether a configuration brings code along: the byte code of a lambda."""
    if isinstance(config, dict):
        is_code = config.get("class_name") in ("__lambda__", "Lambda") and _is_lambda(config)
        return is_code or any(map(_holds_code, config.values()))
    return isinstance(config, list) and any(map(_holds_code, config))


def _is_lambda(value: dict[str, Any]) -> bool:
    if value["class_name"] == "__lambda__":
        return True
    inner = value.get("config")
    if not isinstance(inner, dict):
        return False
    return inner.get("function_type") == "lambda" or isinstance(inner.get("function"), list)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:3] if part.isdigit())
