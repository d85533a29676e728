"""Call a function in a Python process of its own: `python -m benchmarks.fresh MODULE FUNCTION KEYWORDS RESULT`.

The caller must stay small: on Linux a child's `ru_maxrss` starts at the size of the process that forked it, so the
driver and the benchmarks that measure memory never import TensorFlow themselves.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

TREE = Path(__file__).resolve().parents[1]
QUIET = {"TF_CPP_MIN_LOG_LEVEL": "3", "KERAS_BACKEND": "tensorflow", "PYTHONHASHSEED": "0"}


def call(module: str, function: str, **keywords: Any) -> Any:
    """What `module.function(**keywords)` returns in a new interpreter; keywords and result travel as JSON."""
    return call_in(sys.executable, {}, module, function, **keywords)


def call_in(python: str, environment: dict[str, str], module: str, function: str, **keywords: Any) -> Any:
    """The same by another interpreter, or with other environment variables."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "result.json")
        command = [python, "-m", __name__, module, function, json.dumps(keywords), str(path)]
        variables = os.environ | QUIET | environment
        done = subprocess.run(command, cwd=TREE, env=variables, capture_output=True, text=True, check=False)
        if done.returncode or not path.exists():
            tail = "\n".join((done.stdout + done.stderr).splitlines()[-25:])
            raise RuntimeError(f"{module}.{function} ended with code {done.returncode}:\n{tail}")
        return json.loads(path.read_text(encoding="utf-8"))


def _answer() -> None:
    module, function, keywords, path = sys.argv[1:]
    result = getattr(importlib.import_module(module), function)(**json.loads(keywords))
    Path(path).write_text(json.dumps(result), encoding="utf-8")


if __name__ == "__main__":
    _answer()
