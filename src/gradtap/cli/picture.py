"""The picture of a result: the maps of the spatial taps beside the images."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gradtap.cli.summary import is_spatial, spatial_map
from gradtap.cli.writing import write_whole

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.figure import Figure

    from gradtap.cli.result import Result

    Array = np.ndarray[Any, Any]

# More panels than this are too small to read in one picture.
MOST_TAPS = 6
MOST_EXAMPLES = 6
NOTE = "gradient × activation, summed over the channels: orange raises the score, blue lowers it"


def draw_layers(result: Result, *, title: str = "", captions: Sequence[str] | None = None) -> Figure | None:
    """Draw the maps of the spatial taps, beside the images where there are some.

    Of many taps a few are drawn, spread over the depth, and of many examples the first ones.

    Args:
      result: What was computed.
      title: Line above the picture.
      captions: One line for each example, below its image; default: its name, class and score.

    Returns:
      The figure; None where no tap is ``(batch, height, width, channels)``.
    """
    from gradtap import plot

    spatial = [address for address, array in result.gradients.items() if is_spatial(address, array.shape)]
    if not spatial:
        return None
    count = min(len(spatial), MOST_TAPS)
    chosen = [spatial[round(i * (len(spatial) - 1) / max(1, count - 1))] for i in range(count)]
    examples = len(result.scores)
    shown = [NOTE]
    shown += [f"{count} of {len(spatial)} layers"] * (count < len(spatial))
    shown += [f"the first {MOST_EXAMPLES} of {examples} examples"] * (examples > MOST_EXAMPLES)
    return plot.layers(
        {address: example_maps(result, address) for address in chosen},
        result.inputs.pictures[:MOST_EXAMPLES] or None,
        title=title,
        captions=[" × ".join(map(str, result.gradients[address].shape[1:])) for address in chosen],
        image_captions=result.lines() if captions is None else captions,
        note="; ".join(shown),
    )


def example_maps(result: Result, address: str) -> Array:
    """The maps of one spatial tap for the first examples: ``(batch, height, width)``."""
    return spatial_map(result.activations[address][:MOST_EXAMPLES], result.gradients[address][:MOST_EXAMPLES])


def write_single_maps(folder: Path, result: Result) -> list[Path]:
    """Draw the first example's map of every spatial tap into a file of its own, named by the address."""
    from gradtap import plot

    written = []
    for address, gradient in result.gradients.items():
        if is_spatial(address, gradient.shape):
            path = folder / (re.sub(r"[^\w.-]+", "_", address).strip("_") + ".png")
            image = result.inputs.pictures[0] if result.inputs.pictures else None
            size = " × ".join(map(str, gradient.shape[1:]))
            figure = plot.heatmap(example_maps(result, address)[0], image, title=address, caption=size)
            write_figure(path, figure)
            written.append(path)
    return written


def write_layers(path: Path, result: Result) -> bool:
    """Draw a result and write the picture; False where there is nothing to draw."""
    figure = draw_layers(result)
    if figure is not None:
        write_figure(path, figure)
    return figure is not None


def write_figure(path: Path, figure: Figure) -> None:
    """Write a figure as ``write_whole`` does.

    Args:
      path: The file; its suffix chooses the format.
      figure: What to write.
    """
    write_whole(path, lambda file: figure.savefig(file, format=path.suffix[1:].lower()))
