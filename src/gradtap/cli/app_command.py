"""``gradtap app``: the explorer in the browser."""

from __future__ import annotations

from pathlib import Path

import click

from gradtap.cli.gradients_command import PREPROCESS_HELP
from gradtap.cli.options import Size, read_names, read_size
from gradtap.files.preprocessing import PREPROCESSINGS


@click.command(short_help="Explore a model in the browser.", epilog=PREPROCESS_HELP)
@click.argument("model", metavar="MODEL")
@click.argument("images", metavar="[IMAGE...]", nargs=-1, type=click.Path(path_type=Path))
@click.option("--beside", metavar="MODEL", help="A second model that takes the same, to compare with.")
@click.option(
    "--classes", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="A file with one name a line."
)
@click.option("--preprocess", type=click.Choice(list(PREPROCESSINGS)), help="Default: unit. See below.")
@click.option(
    "--size", metavar="HxW", callback=read_size, help="Resize images, height x width, where the model takes any size."
)
@click.option("--port", type=click.IntRange(1, 65535), help="Default: the first free one from 7860 on.")
@click.option("--no-browser", is_flag=True, help="Do not open a browser.")
@click.option("--unsafe", is_flag=True, help="Run code that the model's file holds (Lambda layers, custom functions).")
def app(
    *,
    model: str,
    images: tuple[Path, ...],
    beside: str | None,
    classes: Path | None,
    preprocess: str | None,
    size: Size | None,
    port: int | None,
    no_browser: bool,
    unsafe: bool,
) -> None:
    """Serve a page on this machine that shows MODEL's layers: pick an image, click a layer, choose a method.

    IMAGE is any number of images and folders of images; more can be added on the page. Nothing is sent anywhere, and no
    other machine can reach the page.
    """
    from gradtap.cli.reading import find_files

    files = find_files(images) if images else []
    from gradtap.app.explorer import Explorer
    from gradtap.app.interface import serve
    from gradtap.cli.model_file import declared_inputs, load_model

    paths = {Path(path).name: path for path in (model, beside) if path}
    if beside and len(paths) == 1:  # two folders have a file of this name
        paths = {path: path for path in (model, beside)}
    models = {name: load_model(path, safe_mode=not unsafe) for name, path in paths.items()}
    declared = declared_inputs(next(iter(models.values())))
    names = read_names(classes)
    explorer = Explorer(
        models,
        declared,
        files,
        preprocessing=preprocess,
        size=size,
        class_names=names,
        paths=paths,
        unsafe=unsafe,
    )
    serve(explorer, port=port, open_browser=not no_browser, say=click.echo)
