"""The models of tests/goldens, in a form that the installed Keras reads."""

from __future__ import annotations

import json
import zipfile
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import keras

FOLDER = Path(__file__).parents[1] / "goldens"

#: Older versions of Keras round constants of gelu and of attention to float32, and differ by that from newer ones.
IS_OLDER = tuple(map(int, keras.__version__.split(".")[:2])) < (3, 15)

#: Arguments that older versions of Keras do not know yet; all are at their defaults in these models.
_NEWER = {
    "input_axes",
    "output_axes",
    "renorm",
    "renorm_clipping",
    "renorm_momentum",
    "use_gate",
    "quantization_config",
    "flash_attention",
    "sliding_window",
}


@cache
def model_file(name: str, dtype: str) -> Path:
    """Path of a golden model, rewritten without what an older Keras does not know."""
    file = FOLDER / f"{name}.{dtype}.keras"
    if not IS_OLDER:
        return file
    older = Path(mkdtemp(), file.name)
    with zipfile.ZipFile(file) as source, zipfile.ZipFile(older, "w") as target:
        for entry in source.namelist():
            content = source.read(entry)
            if entry == "config.json":
                content = json.dumps(_without(json.loads(content))).encode()
            target.writestr(entry, content)
    return older


def _without(value):
    if isinstance(value, dict):
        return {key: _without(inner) for key, inner in value.items() if key not in _NEWER}
    return [_without(inner) for inner in value] if isinstance(value, list) else value


def bound(tolerance):
    """The bound on an error, as far as the installed Keras computes the same model."""
    return max(tolerance, 2e-5) if IS_OLDER else tolerance
