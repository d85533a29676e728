"""``gradtap demo``: the main job on a real photograph with a real trained network."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

#: An early, a middle and the last layer with places: 112, 14 and 7 of them along a side.
DEPTHS = ("stem_relu", "block5_3_add", "head_relu")
PHOTOGRAPH = "coffee"
# Twice what the network sees, so that the photograph is sharp in the picture.
SHOWN_SIDE = 448


@click.command(short_help="The main job on a real photograph.")
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    default=Path("demo-output"),
    show_default=True,
    metavar="FOLDER",
    help="Where the pictures and the arrays go.",
)
@click.option(
    "--image",
    type=click.Path(dir_okay=False, path_type=Path),
    help="A photograph of your own; default: a cup of coffee.",
)
@click.option("--at", "at", multiple=True, metavar="ADDRESS", help="Layers to look at; default: three depths.")
def demo(*, output: Path, image: Path | None, at: tuple[str, ...]) -> None:
    """Show which parts of a photograph speak for what EfficientNet-Lite0 sees in it, at three depths.

    The network was trained on ImageNet. Its weights, the names of its classes and the photograph come from installed
    packages; nothing is downloaded.
    """
    from gradtap.cli.reading import find_files
    from gradtap.cli.writing import results_folder
    from gradtap.demo.efficientnet_lite import weights_file
    from gradtap.demo.photographs import class_names, photograph_file
    from gradtap.files.images import open_image

    # Everything that can be missing is asked for before TensorFlow is imported, which takes seconds.
    weights_file()
    names = class_names()
    [file] = find_files([image]) if image else [photograph_file(PHOTOGRAPH)]
    photograph = open_image(file).convert("RGB")
    with results_folder(output):
        _show(output, file, photograph, at or DEPTHS, names)


def _show(output: Path, file: Path, photograph: Any, at: Sequence[str], names: Sequence[str]) -> None:
    """Compute, write and print."""
    from gradtap.cli.reading import Inputs
    from gradtap.cli.writing import check_writable, write_arrays
    from gradtap.demo.efficientnet_lite import pretrained_efficientnet_lite0
    from gradtap.demo.photographs import network_crop, network_input

    check_writable(output / "layers.png", [file])
    from gradtap.cli.quiet import start_tensorflow

    start_tensorflow()
    import numpy as np

    import gradtap as gt
    from gradtap.cli.picture import draw_layers, write_figure, write_single_maps
    from gradtap.cli.result import compute
    from gradtap.cli.table import print_result

    model = pretrained_efficientnet_lite0()
    shown = np.asarray(network_crop(photograph, SHOWN_SIDE))
    inputs = Inputs(network_input(photograph), [file.name], [shown], f"{file.name}, centre cropped to 224 × 224")
    result = compute(gt.trace(model), inputs, at, target="predicted")
    name = names[result.classes[0]].split(",")[0]
    write_arrays(output / "gradients.npz", result.arrays())
    written = [output / "gradients.npz", *write_single_maps(output, result)]
    title = f"What speaks for “{name}” in EfficientNet-Lite0"
    figure = draw_layers(result, title=title, captions=[f"{name}, p = {result.scores[0]:.3f}"])
    if figure is not None:
        write_figure(output / "layers.png", figure)
        written.insert(0, output / "layers.png")
    described = f"EfficientNet-Lite0, {model.count_params():,} parameters, trained on ImageNet-1k"
    print_result(
        described,
        result,
        [str(path) for path in written],
        names,
        scored="the probability of each image's likeliest class",
    )
