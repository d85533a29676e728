"""``gradtap taps``: every address of a model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from gradtap.cli.options import Class, read_target
from gradtap.errors import InputStructureError


@click.command(short_help="List every address of a model.")
@click.argument("model", metavar="MODEL")
@click.option(
    "--input",
    "input_path",
    type=click.Path(path_type=Path),
    help="An image, .npy or .npz to run the model on: needed where the model does not say what it takes.",
)
@click.option(
    "--target", metavar="CLASS", callback=read_target, help="Say which taps reach this target: 'predicted' or a class."
)
@click.option("--unsafe", is_flag=True, help="Run code that the model's file holds (Lambda layers, custom functions).")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def taps(*, model: str, input_path: Path | None, target: Class | None, unsafe: bool, as_json: bool) -> None:
    """List every address of MODEL with its class, shape, dtype, calls and parameters.

    MODEL is a .keras, .h5 or .hdf5 file or a SavedModel folder.
    """
    from gradtap.cli.reading import find_files, read_inputs

    files = find_files([input_path]) if input_path else []
    import gradtap as gt
    from gradtap.cli.model_file import declared_inputs, load_model
    from gradtap.cli.table import make_console

    trace = load_model(model, safe_mode=not unsafe)
    inputs = read_inputs(files, declared_inputs(trace), None, None).values if files else None
    try:
        listing = gt.taps(trace, inputs, target=target)
    except InputStructureError as error:
        if not files:
            error.do[:] = ["--input FILE, with an image or an array that the model takes"]
        raise
    if as_json:
        click.echo(json.dumps([_entry(entry) for entry in listing], indent=2))
    else:
        make_console().print(listing)


def _entry(entry: Any) -> dict[str, Any]:
    return {
        "address": entry.address,
        "layer": entry.layer,
        "shape": list(entry.shape) if entry.shape is not None else None,
        "dtype": str(entry.dtype),
        "calls": entry.calls,
        "parameters": entry.parameters,
        "reached": entry.reached,
    }
