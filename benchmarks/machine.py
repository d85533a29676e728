"""Where a result was measured. Only what explains numbers: no host, user or path."""

from __future__ import annotations

import datetime
import hashlib
import importlib.util
import os
import platform
from importlib import metadata
from pathlib import Path

PACKAGES = ("gradtap", "keras", "numpy", "tensorflow", "tensorflow-cpu")
PEERS = ("keract", "tf-explain", "tf-keras-vis", "xplique", "foolbox", "adversarial-robustness-toolbox")
DEFAULT = "TensorFlow's default"
THREADS = ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS", "TF_ENABLE_ONEDNN_OPTS")


def description() -> dict[str, object]:
    """Processor, memory, versions, thread settings and date."""
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gib": _memory_gib(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": {name: version for name in (*PACKAGES, *PEERS) if (version := _version(name))},
        "gradtap_source": source_digest(),
        "threads": {name: os.environ.get(name, DEFAULT) for name in THREADS},
    }


def source_digest() -> str | None:
    """The start of the SHA-256 of all of gradtap's Python files, so that a result names the code it was measured on."""
    spec = importlib.util.find_spec("gradtap")  # found, not imported: the driver stays small
    if spec is None or spec.origin is None:
        return None
    folder, digest = Path(spec.origin).parent, hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        digest.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:12]


def load() -> list[float]:
    """The load averages over 1, 5 and 15 minutes: above the number of cores the machine was not ours alone."""
    return [round(value, 2) for value in os.getloadavg()]


def _processor() -> str:
    for line in _lines("/proc/cpuinfo"):
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _memory_gib() -> float | None:
    for line in _lines("/proc/meminfo"):
        if line.startswith("MemTotal"):
            return round(int(line.split()[1]) / 2**20, 1)
    return None


def _lines(path: str) -> list[str]:
    file = Path(path)
    return file.read_text(encoding="utf-8").splitlines() if file.exists() else []


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
