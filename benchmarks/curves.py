"""The picture of completeness errors."""

from __future__ import annotations

import json
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

COLOURS = {
    "gausslegendre": "C0",
    "riemann_left": "C1",
    "riemann_right": "C2",
    "riemann_middle": "C3",
    "trapezoid": "C4",
    "riemann_trapezoid": "C4",
}


def draw(source: str, picture: str) -> None:
    """A panel for each table of a result: ours in full lines, theirs dashed."""
    tables = json.loads(Path(source).read_text(encoding="utf-8"))["tables"]
    figure, panels = plt.subplots(2, 2, figsize=(11, 8.5), sharex=True, layout="constrained")
    # The columns are networks, the rows methods.
    for table, panel in zip(tables, panels.T.ravel(), strict=True):
        for name, errors in table["errors"].items():
            ours = name.startswith("gradtap")
            style = {"marker": "o", "linewidth": 1.5} if ours else {"marker": "x", "linestyle": "--", "linewidth": 2.5}
            colour = COLOURS.get(name.split()[-1], "black")
            panel.loglog(table["counts"], errors, label=name, color=colour, markersize=4, **style)
        panel.set_title(table["title"])
        panel.grid(alpha=0.3)
        panel.legend(fontsize=7)
    for panel in panels[-1]:
        panel.set_xlabel("steps")
    for panel in panels[:, 0]:
        panel.set_ylabel("completeness error / change of the target")
    figure.savefig(picture, dpi=90)
    plt.close(figure)
