"""Plant each bug in a copy of the package and see the tests fail: `python -m tests.planted [WORD ...]`.

With words, only the bugs whose names hold one of them. Exits with 1 if a bug survives or no longer applies.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.planted import (
    attack_bugs,
    attribution_bugs,
    bugs,
    concept_bugs,
    curvature_bugs,
    dataset_bugs,
    explanation_bugs,
    flow_bugs,
    perturbation_bugs,
    receptive_bugs,
)
from tests.planted.bugs import Bug

ROOT = Path(__file__).parents[2]


def outcome(bug: Bug) -> str:
    """What comes of a bug: "killed", or what is wrong."""
    with tempfile.TemporaryDirectory() as folder:
        package = Path(folder, "gradtap")
        shutil.copytree(ROOT / "src" / "gradtap", package, ignore=shutil.ignore_patterns("__pycache__"))
        source = (package / bug.file).read_text(encoding="utf-8")
        if source.count(bug.old) != 1:
            return f"does not apply: the text stands {source.count(bug.old)} times in {bug.file}"
        (package / bug.file).write_text(source.replace(bug.old, bug.new), encoding="utf-8")
        name, *rest = bug.tests
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", f"tests/{name}", *rest]
        environment = os.environ | {"PYTHONPATH": folder, "PYTHONDONTWRITEBYTECODE": "1"}
        run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    # 1: tests failed. 2 to 5: pytest itself did, or found no test; below 0: the process died.
    killed = run.returncode == 1 or run.returncode < 0
    return "killed" if killed else f"survived: pytest ended with {run.returncode}\n{run.stdout[-500:]}"


def every_bug() -> list[Bug]:
    """All bugs that are planted."""
    rooms = (
        bugs,
        curvature_bugs,
        attack_bugs,
        attribution_bugs,
        explanation_bugs,
        perturbation_bugs,
        concept_bugs,
        dataset_bugs,
        flow_bugs,
        receptive_bugs,
    )
    return [bug for room in rooms for bug in room.BUGS]


def main(words: list[str]) -> int:
    chosen = [bug for bug in every_bug() if not words or any(word in bug.name for word in words)]
    alive = 0
    for bug in chosen:
        found = outcome(bug)
        alive += found != "killed"
        print(f"{bug.name}: {found}", flush=True)
    print(f"{len(chosen) - alive} of {len(chosen)} killed")
    return int(alive > 0 or not chosen)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
