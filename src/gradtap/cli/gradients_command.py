"""``gradtap gradients``: the gradients of a model file's score with respect to its inner layers."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import click

from gradtap.cli.options import Class, Size, ending_in, logits_option, read_size, read_target, target_output_option
from gradtap.errors import MissingExtraError
from gradtap.files.preprocessing import PREPROCESSINGS

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".pdf", ".svg")
PREPROCESS_HELP = "What is done to the pixels x of images:\n\n\b\n" + "\n".join(
    f"{name:<10} {what}" for name, what in PREPROCESSINGS.items()
)


@click.command(short_help="Gradients with respect to inner layers.", epilog=PREPROCESS_HELP)
@click.argument("model", metavar="MODEL")
@click.argument("inputs", metavar="INPUT...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--at", "at", multiple=True, required=True, metavar="ADDRESS", help="Where: conv1, 'block?/conv*'. Repeat it."
)
@click.option(
    "--target", metavar="CLASS", callback=read_target, help="'predicted' (the default) or the index of a class."
)
@target_output_option
@logits_option
@click.option("--preprocess", type=click.Choice(list(PREPROCESSINGS)), help="For images; default: unit. See below.")
@click.option(
    "--size", metavar="HxW", callback=read_size, help="Resize images, height x width, where the model takes any size."
)
@click.option("--batch-size", type=click.IntRange(min=1), help="Examples that are in memory at a time.")
@click.option("--unsafe", is_flag=True, help="Run code that the model's file holds (Lambda layers, custom functions).")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), callback=ending_in(".npz"), help="Write the arrays to this .npz."
)
@click.option(
    "--picture",
    type=click.Path(path_type=Path),
    callback=ending_in(*PICTURE_SUFFIXES),
    help="Draw the maps of spatial layers into this file; default: beside the .npz.",
)
@click.option("--no-picture", is_flag=True, help="Draw nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def gradients(
    *,
    model: str,
    inputs: tuple[Path, ...],
    at: tuple[str, ...],
    target: Class | None,
    target_output: str | None,
    logits: bool,
    preprocess: str | None,
    size: Size | None,
    batch_size: int | None,
    unsafe: bool,
    output: Path | None,
    picture: Path | None,
    no_picture: bool,
    as_json: bool,
) -> None:
    """Differentiate a score of MODEL with respect to the activations at every ADDRESS.

    MODEL is a .keras, .h5 or .hdf5 file or a SavedModel folder. INPUT is any number of images and folders of images,
    which are resized to what the model takes (bicubic, the aspect ratio is not kept), or one .npy, or one .npz with an
    array for each input of the model. Arrays are taken as they are.
    """
    from gradtap.cli.reading import find_files, read_inputs
    from gradtap.cli.writing import check_writable

    if picture and no_picture:
        raise click.UsageError("--picture and --no-picture exclude each other.")
    files = find_files(inputs)
    drawn = None if no_picture else picture or (output.with_suffix(".png") if output else None)
    for path in filter(None, (output, drawn)):
        check_writable(path, files)
    if drawn and not _can_draw(required=picture is not None):
        drawn = None
    from gradtap.cli.model_file import declared_inputs, load_model
    from gradtap.cli.picture import write_layers
    from gradtap.cli.result import compute
    from gradtap.cli.table import print_result
    from gradtap.cli.writing import write_arrays

    trace = load_model(model, safe_mode=not unsafe)
    batch = read_inputs(files, declared_inputs(trace), preprocess, size)
    result = compute(trace, batch, at, target=target, output=target_output, logits=logits, batch_size=batch_size)
    written = []
    if output:
        write_arrays(output, result.arrays())
        written.append(str(output))
    if drawn and write_layers(drawn, result):
        written.append(str(drawn))
    elif picture:
        click.echo("warning: no picture: no tap is (batch, height, width, channels)", err=True)
    if as_json:
        click.echo(json.dumps({"model": model, **result.as_json(), "written": written}, indent=2))
    else:
        print_result(model, result, written)


def _can_draw(*, required: bool) -> bool:
    """Whether matplotlib is there; where only the default asks for a picture, its absence is no error."""
    if importlib.util.find_spec("matplotlib") is not None:
        return True
    error = MissingExtraError.of("viz", "drawing a picture")
    if required:
        raise error
    click.echo(f"warning: no picture: {error.headline} {error.do[0]}", err=True)
    return False
