"""Make the pictures of the documentation, and write the measured figures into its pages.

Run ``python docs/make_pictures.py`` for all of them, or name some of ``EXAMPLES``. What an example needs installed
stands at its head, in ``docs/examples``. Most take minutes on two cores.
"""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path

DOCS = Path(__file__).parent
IMAGES = DOCS / "images"
#: Each example, and the page that shows its figures.
EXAMPLES = {
    "photographs": "real-networks.md",
    "visualised": "real-networks.md",
    "minilm": "real-networks.md",
    "notes": "real-networks.md",
    "sanity_checks": "evaluation.md",
    "shortcut": "shortcut.md",
    "receptive_fields": "receptive-fields.md",
    "curvature_depths": "curvature.md",
    "adversarial_digits": "attacks.md",
    "gradient_flow": "gradient-flow.md",
    "pages": "seeing.md",
}


def marks(name: str) -> tuple[str, str]:
    """What stands before and after the figures of an example on the page."""
    return f"<!-- figures of {name}, written by docs/make_pictures.py -->\n```text\n", "\n```\n<!-- end -->"


def shown(name: str, page: str) -> str:
    """The figures of an example that the page shows."""
    before, after = marks(name)
    return page.split(before)[1].split(after, maxsplit=1)[0]


def written(name: str, figures: str, page: str) -> str:
    """The page with other figures of an example."""
    before, after = marks(name)
    head, rest = page.split(before)
    return head + before + figures + after + rest.split(after, 1)[1]


def main(names: list[str]) -> None:
    """Run the examples."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    sys.path.insert(0, str(DOCS / "examples"))
    for name in names or EXAMPLES:
        figures = importlib.import_module(name).main(IMAGES)
        print(figures)
        page = DOCS / EXAMPLES[name]
        if page.exists():
            page.write_text(written(name, figures, page.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
