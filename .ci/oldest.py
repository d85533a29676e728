"""Print the oldest version of a package that pyproject.toml admits."""

import re
import sys
import tomllib
from itertools import chain
from pathlib import Path

project = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())["project"]
requirements = [*project["dependencies"], *chain(*project["optional-dependencies"].values())]
for requirement in requirements:
    if match := re.fullmatch(rf"{re.escape(sys.argv[1])}>=([\d.]+).*", requirement):
        print(match[1])
        break
else:
    sys.exit(f"{sys.argv[1]} has no oldest version in pyproject.toml")
