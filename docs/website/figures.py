"""The figures of the gallery. gradtap's figures are not pyplot's, so they are found among the names of the script."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from weakref import WeakSet

from matplotlib.figure import Figure

#: The scripts in `docs/gallery`, from the plainest to the most special.
ORDER = (
    "seed_case",
    "nested_pretrained",
    "attention_heads",
    "lstm_through_time",
    "adversarial_example",
    "receptive_field",
    "activations_compared",
)
#: Pixels, at most. A page is narrower, and a dense screen has twice as many.
WIDTH = 1500

_SAVED: WeakSet[Figure] = WeakSet()


class InReadingOrder:
    """Sorts scripts as `ORDER` has them."""

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def __call__(self, name: str) -> int:
        return ORDER.index(Path(name).stem)


def scrape(block: Any, variables: dict[str, Any], settings: dict[str, Any]) -> str:
    """Save each figure that a block has bound to a name, and return the markup that shows it."""
    from sphinx_gallery.scrapers import figure_rst

    shown = []
    for name, value in list(variables["example_globals"].items()):
        if isinstance(value, Figure) and value not in _SAVED:
            path = next(variables["image_path_iterator"])
            value.savefig(path, dpi=min(value.dpi, WIDTH / value.get_figwidth()), facecolor="white")
            _SAVED.add(value)
            shown.append(figure_rst([path], settings["src_dir"], name.replace("_", " ")))
    return "\n".join(shown)
