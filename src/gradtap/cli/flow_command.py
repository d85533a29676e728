"""``gradtap flow``: measure the flow of gradients through a model file, or compare activations and architectures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import click

from gradtap.cli.options import Class, ending_in, read_target

if TYPE_CHECKING:
    from gradtap.flow.comparison import Comparison
    from gradtap.flow.rows import FlowMeasurement

#: The exit status of ``--strict`` where something is wrong with the flow.
FOUND = 3
#: In a .npz of inputs the array of this name holds the labels.
LABELS = "labels"

_html = click.option(
    "--html",
    type=click.Path(path_type=Path),
    callback=ending_in(".html", ".htm"),
    help="Write a page with a picture and tables into this file.",
)
_strict = click.option("--strict", is_flag=True, help="Exit with status 3 if there is a finding.")
_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def _listed(ctx: click.Context, param: click.Parameter, value: str) -> list[str]:
    """Read a list such as ``relu,gelu``."""
    found = [one.strip() for one in value.split(",") if one.strip()]
    if not found:
        raise click.BadParameter("it names nothing", ctx, param)
    return found


def _depths(ctx: click.Context, param: click.Parameter, value: str) -> list[int]:
    """Read a list of depths such as ``4,16,64``."""
    try:
        found = [int(one) for one in value.split(",") if one.strip()]
    except ValueError:
        found = []
    if not found or min(found) < 1:
        raise click.BadParameter(f"{value!r} is not a list of depths such as 4,16,64", ctx, param)
    return found


@click.group(short_help="How gradients fare from layer to layer.")
def flow() -> None:
    """Measure how gradients fare on their way through a network.

    Exit status: 3 with --strict where a gradient vanishes, explodes, is blocked or underflows, or units are dead or
    saturated; else as for every command.
    """


@flow.command(short_help="Measure one model file.")
@click.argument("model", metavar="MODEL")
@click.argument("data", metavar="DATA...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--labels", "labels_path", type=click.Path(path_type=Path), help="A .npy with one label for each example."
)
@click.option("--loss", metavar="NAME", help="A loss of Keras; default: the model's own, else a cross-entropy.")
@click.option("--target", metavar="CLASS", callback=read_target, help="In the place of a loss; default: 'predicted'.")
@click.option("--at", "at", multiple=True, metavar="ADDRESS", help="Where; default: every layer. Repeat it.")
@click.option("--batch-size", type=click.IntRange(min=1), help="Examples that are in memory at a time.")
@click.option("--training", is_flag=True, help="As in training: batch statistics, dropout.")
@click.option("--unsafe", is_flag=True, help="Run code that the model's file holds (Lambda layers, custom functions).")
@_html
@_strict
@_json
@click.pass_context
def measure(
    ctx: click.Context,
    *,
    model: str,
    data: tuple[Path, ...],
    labels_path: Path | None,
    loss: str | None,
    target: Class | None,
    at: tuple[str, ...],
    batch_size: int | None,
    training: bool,
    unsafe: bool,
    html: Path | None,
    strict: bool,
    as_json: bool,
) -> None:
    """Measure activations and gradients of MODEL tap by tap, and say what is wrong.

    MODEL is a .keras, .h5 or .hdf5 file or a SavedModel folder. DATA is any number of images and folders of images, or
    one .npy, or one .npz with an array for each input of the model and, if there is one, an array `labels`.
    """
    from gradtap.cli.model_file import declared_inputs, load_model
    from gradtap.cli.reading import find_files, read_inputs
    from gradtap.cli.writing import check_writable

    files = find_files(data)
    labels = _labels(labels_path, files)
    if html:
        check_writable(html, files)
    import gradtap as gt

    trace = load_model(model, safe_mode=not unsafe)
    inputs = read_inputs(files, declared_inputs(trace), None, None, without=(LABELS,)).values
    wanted: dict[str, Any] = {"target": target or "predicted"}
    if labels is not None and target is None:
        wanted = {"loss": loss, LABELS: labels}
    found = gt.flow.measure(trace, inputs, **wanted, at=list(at) or "**", batch_size=batch_size, training=training)
    if as_json:
        click.echo(json.dumps({"model": model, **found.as_json()}, indent=2))
    else:
        _print_measurement(model, found)
    if html:
        _write_page(html, f"Gradient flow of {Path(model).name}", found)
    if strict and found.findings:
        ctx.exit(FOUND)


@flow.command(short_help="Compare activations, architectures and depths.")
@click.option("--activations", default="relu,gelu,tanh,sigmoid", show_default=True, callback=_listed, metavar="NAMES")
@click.option("--architectures", default="plain", show_default=True, callback=_listed, metavar="NAMES")
@click.option("--depth", "depths", default="16", show_default=True, callback=_depths, metavar="NUMBERS")
@click.option("--width", default=64, show_default=True, type=click.IntRange(min=4), help="Units in each layer.")
@click.option("--seeds", default=3, show_default=True, type=click.IntRange(min=1), help="Initialisations of each.")
@click.option("--steps", default=20, show_default=True, type=click.IntRange(min=0), help="Training steps; 0 for none.")
@click.option(
    "--data",
    "data_path",
    type=click.Path(path_type=Path),
    help="A .npz with `inputs` (examples, features) and `labels`; default: 128 random vectors in 10 classes.",
)
@_html
@_strict
@_json
@click.pass_context
def compare(
    ctx: click.Context,
    *,
    activations: list[str],
    architectures: list[str],
    depths: list[int],
    width: int,
    seeds: int,
    steps: int,
    data_path: Path | None,
    html: Path | None,
    strict: bool,
    as_json: bool,
) -> None:
    """Send the same data through networks of several activation functions, architectures and depths.

    Activations are those of Keras, or `all`. Architectures are plain, residual, normalised, recurrent and attention, or
    `all`. Every combination is initialised, measured, trained for a few steps and measured again.
    """
    from gradtap.cli.quiet import start_tensorflow
    from gradtap.cli.writing import check_writable

    if html:
        check_writable(html, [data_path] if data_path else [])
    start_tensorflow()
    import gradtap as gt
    from gradtap.cli.flow_data import compared_models, vectors

    inputs, labels = vectors(data_path)
    models = compared_models(activations, architectures, depths, width, inputs.shape[1], int(labels.max()) + 1)
    found = gt.flow.compare(models, inputs, labels, seeds=seeds, steps=steps)
    if as_json:
        click.echo(json.dumps(_as_json(found), indent=2))
    else:
        click.echo(found.table())
    if html:
        _write_page(html, "Gradient flow compared", found)
    if strict and any(model.findings for model in found.models):
        ctx.exit(FOUND)


def _labels(path: Path | None, files: list[Path]) -> Any:
    """The labels of a file of their own, or of the array of that name beside the inputs."""
    from gradtap.cli.reading import ARRAY_SUFFIXES, find_files
    from gradtap.errors import InputFileError
    from gradtap.files.arrays import load_arrays

    if path is not None:
        arrays = load_arrays(find_files([path])[0])
        if len(arrays) > 1 and LABELS not in arrays:
            raise InputFileError(
                f"`{path}` holds {len(arrays)} arrays.", [("they are", ", ".join(arrays))], f"name one `{LABELS}`"
            )
        return arrays.get(LABELS, next(iter(arrays.values())))
    if files[0].suffix.lower() in ARRAY_SUFFIXES:
        return load_arrays(files[0]).get(LABELS)
    return None


def _print_measurement(model: str, found: FlowMeasurement) -> None:
    click.echo(f"{model}, {found.examples} examples, target {found.target:.4g} on average\n")
    click.echo(found.table())
    for address, reason in list(found.skipped.items())[:5]:
        click.echo(f"skipped {address}: {reason}")
    if len(found.skipped) > 5:
        click.echo(f"skipped {len(found.skipped) - 5} more")


def _write_page(path: Path, title: str, found: Any) -> None:
    from gradtap.cli.flow_page import page
    from gradtap.cli.writing import write_whole

    def write(file: BinaryIO) -> None:
        file.write(page(title, found).encode("utf-8"))

    write_whole(path, write)
    click.echo(f"wrote {path}", err=True)


def _as_json(found: Comparison) -> dict[str, Any]:
    from gradtap.cli.flow_data import plain_lines

    return {"models": plain_lines(found.models), "rows": plain_lines(found.rows)}
