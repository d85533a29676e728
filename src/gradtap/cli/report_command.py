"""``gradtap report``: a page that shows what a model file does with some inputs, layer by layer."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import click

from gradtap.cli.gradients_command import PREPROCESS_HELP
from gradtap.cli.options import Class, Size, ending_in, read_names, read_size, read_target
from gradtap.files.preprocessing import PREPROCESSINGS


@click.command(short_help="A page of maps, layer by layer.", epilog=PREPROCESS_HELP)
@click.argument("model", metavar="MODEL")
@click.argument("inputs", metavar="INPUT...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--at", "at", multiple=True, required=True, metavar="ADDRESS", help="Which layers: conv1. Repeat it.")
@click.option(
    "--methods",
    metavar="NAMES",
    default="grad_cam,integrated_gradients",
    show_default=True,
    help="Methods of gradtap.attribution, with commas between them.",
)
@click.option(
    "--target", metavar="CLASS", callback=read_target, help="'predicted' (the default) or the index of a class."
)
@click.option(
    "--classes", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="A file with one name a line."
)
@click.option("--title", help="Heading of the page; default: the model's file.")
@click.option("--preprocess", type=click.Choice(list(PREPROCESSINGS)), help="For images; default: unit. See below.")
@click.option(
    "--size", metavar="HxW", callback=read_size, help="Resize images, height x width, where the model takes any size."
)
@click.option("--batch-size", type=click.IntRange(min=1), help="Examples that are in memory at a time.")
@click.option("--unsafe", is_flag=True, help="Run code that the model's file holds (Lambda layers, custom functions).")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    callback=ending_in(".html", ".htm"),
    default=Path("report.html"),
    show_default=True,
    help="The page.",
)
def report(
    *,
    model: str,
    inputs: tuple[Path, ...],
    at: tuple[str, ...],
    methods: str,
    target: Class | None,
    classes: Path | None,
    title: str | None,
    preprocess: str | None,
    size: Size | None,
    batch_size: int | None,
    unsafe: bool,
    output: Path,
) -> None:
    """Write one page of HTML that shows activations, gradients and attributions of MODEL at every ADDRESS.

    The page holds all that it shows and asks the network for nothing. MODEL and INPUT are as in `gradtap gradients`.
    """
    from gradtap.cli.reading import find_files, read_inputs
    from gradtap.cli.writing import check_writable

    files = find_files(inputs)
    check_writable(output, files)
    names = read_names(classes)
    from gradtap.cli.model_file import declared_inputs, load_model

    trace = load_model(model, safe_mode=not unsafe)
    batch = read_inputs(files, declared_inputs(trace), preprocess, size)
    from gradtap.report import write

    document = write(
        trace,
        batch.values,
        output,
        at=list(at),
        methods=[name.strip() for name in methods.split(",") if name.strip()],
        target="predicted" if target is None else target,
        names=batch.names,
        pictures=batch.pictures or None,
        class_names=names,
        title=title or Path(model).name,
        batch_size=batch_size,
        command=shlex.join(["gradtap", *sys.argv[1:]]),
    )
    for kind, tap, evidence, _ in document.findings:
        click.echo(f"{kind} at {tap}: {evidence}")
    for what, why in document.left_out.items():
        click.echo(f"left out: {what}: {why}", err=True)
    click.echo(f"{output}  {output.stat().st_size / 1e6:.1f} MB, {document!r}")
