"""``gradtap run``: a method over a whole data set, into a store that the same command goes on with."""

from __future__ import annotations

import inspect
import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gradtap import fork_server
from gradtap.cli.options import Size, read_size, read_target
from gradtap.errors import GradtapError, InputFileError, MissingTargetError
from gradtap.files.preprocessing import PREPROCESSINGS

if TYPE_CHECKING:
    from gradtap.dataset.progress import Progress
    from gradtap.dataset.stored import Stored

STATISTICS = ("mean", "variance", "quantiles", "histogram", "top_examples")
FAILURES_SHOWN = 10
HELP = """Methods: gradients, activations, every function of gradtap.attribution, the attacks fgsm and pgd, and the
statistics mean, variance, quantiles, histogram and top_examples of what --of names.

What is done to the pixels x of images:

\b
""" + "\n".join(f"{name:<10} {what}" for name, what in PREPROCESSINGS.items())


def _read_target(ctx: click.Context, param: click.Parameter, value: str | None) -> Any:
    """Read a target as other commands do, or the name of a ``.npy`` with one class for each example."""
    if value is not None and value.endswith(".npy"):
        return Path(value)
    return read_target(ctx, param, value)


def _read_options(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> dict[str, Any]:
    """Read ``NAME=VALUE``; values are JSON, or text."""
    found: dict[str, Any] = {}
    for text in values:
        name, equals, value = text.partition("=")
        if not equals or not name.isidentifier():
            raise click.BadParameter(f"{text!r} is not NAME=VALUE, such as steps=20", ctx, param)
        try:
            found[name] = json.loads(value)
        except ValueError:
            found[name] = value
    return found


@click.command(short_help="A whole data set, into a store.", epilog=HELP)
@click.argument("model", metavar="MODEL")
@click.argument("data", metavar="DATA", type=click.Path(path_type=Path))
@click.option("--method", default="gradients", show_default=True, metavar="NAME", help="What is computed. See below.")
@click.option("--of", "of", metavar="METHOD", help="For a statistic: of what; default: gradients.")
@click.option(
    "--at", "at", multiple=True, required=True, metavar="ADDRESS", help="Where: conv1, 'block?/conv*'. Repeat it."
)
@click.option(
    "--target",
    metavar="CLASS",
    callback=_read_target,
    help="'predicted' (the default), the index of a class, or a .npy with a class for each example.",
)
@click.option("--store", required=True, type=click.Path(path_type=Path), help="Where the results go: out.zarr.")
@click.option("--engine", type=click.Choice(["local", "dask"]), default="local", show_default=True)
@click.option("--workers", type=click.IntRange(min=1), default=2, show_default=True, help="With dask: processes here.")
@click.option("--scheduler", metavar="ADDRESS", help="With dask: the scheduler of a cluster that sees the same files.")
@click.option("--block", type=click.IntRange(min=1), default=64, show_default=True, help="Examples at a time.")
@click.option("--dtype", type=click.Choice(["float16", "float32", "float64"]), help="What numbers are stored as.")
@click.option("--compression", type=click.Choice(["fast", "small", "none"]), default="fast", show_default=True)
@click.option("--retry", is_flag=True, help="Compute the blocks with failed examples anew.")
@click.option("--preprocess", type=click.Choice(list(PREPROCESSINGS)), help="For images; default: unit. See below.")
@click.option("--size", metavar="HxW", callback=read_size, help="Resize images, where the model takes any size.")
@click.option("--column", "columns", multiple=True, metavar="NAME", help="Which columns or arrays are the inputs.")
@click.option(
    "--option", "options", multiple=True, metavar="NAME=VALUE", callback=_read_options, help="A keyword of the method."
)
@click.option("--unsafe", is_flag=True, help="Run code that the model's file holds (Lambda layers, custom functions).")
@click.option("--json", "as_json", is_flag=True, help="Print JSON; progress goes to standard error, a line a second.")
def run(
    *,
    model: str,
    data: Path,
    method: str,
    of: str | None,
    at: tuple[str, ...],
    target: Any,
    store: Path,
    engine: Any,
    workers: int,
    scheduler: str | None,
    block: int,
    dtype: Any,
    compression: Any,
    retry: bool,
    preprocess: str | None,
    size: Size | None,
    columns: tuple[str, ...],
    options: dict[str, Any],
    unsafe: bool,
    as_json: bool,
) -> None:
    """Compute a method for every example of DATA, block by block, into a Zarr store.

    Stop it at any time, in any way: the same command goes on where it stopped. MODEL is a .keras, .h5 or .hdf5 file or
    a SavedModel folder. DATA is a folder of images (and of such folders), a .npy, .npz, .parquet or Zarr.
    """
    if of is not None and method not in STATISTICS:
        raise click.UsageError(f"--of is for statistics: {', '.join(STATISTICS)}.")
    if scheduler is not None and engine != "dask":
        raise click.UsageError("--scheduler is for --engine dask.")
    from gradtap.cli.quiet import start_tensorflow, without_chatter

    if engine == "dask" and scheduler is None:
        with without_chatter(lasting=True):
            fork_server.start()  # it imports TensorFlow while this process does
    start_tensorflow()
    import gradtap as gt

    asked, options = _method(method, of, options)
    told = _Lines() if as_json else None
    start = time.monotonic()

    def computed(wanted: Any) -> Stored:
        return gt.dataset.run(
            gt.trace(model, safe_mode=False) if unsafe else model,
            data,
            asked,
            store,
            at=list(at),
            target=wanted,
            engine=engine,
            workers=workers,
            scheduler=scheduler,
            block=block,
            dtype=dtype,
            compression=compression,
            retry=retry,
            preprocess=preprocess,
            image_size=size,
            columns=list(columns) or None,
            progress=told,
            **options,
        )

    found = _with_target(computed, _classes(target))
    summary = _summary(model, method, found, time.monotonic() - start)
    if as_json:
        click.echo(json.dumps(summary, indent=2))
    else:
        _print(summary)


class _Lines:
    """Tells of progress in lines of JSON on standard error, once a second and at the end."""

    def __init__(self) -> None:
        self._last = 0.0

    def __call__(self, now: Progress) -> None:
        if now.done < now.examples and now.seconds - self._last < 1:
            return
        self._last = now.seconds
        left = round(now.remaining, 1) if now.rate else None
        facts = {"done": now.done, "examples": now.examples, "failures": now.failures}
        click.echo(json.dumps(facts | {"rate": round(now.rate, 1), "seconds_left": left}), err=True)


def _method(name: str, of: str | None, options: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
    """The method, and its own keywords; those of a statistic go to the statistic."""
    if name not in STATISTICS:
        return name, dict(options)
    from gradtap import dataset

    make: Callable[..., Any] = getattr(dataset, name)
    parameters = inspect.signature(make).parameters
    own = {key: value for key, value in options.items() if key in parameters}
    missing = [key for key, p in parameters.items() if p.default is inspect.Parameter.empty and key not in own]
    if missing:
        raise click.UsageError(f"{name} needs --option {missing[0]}=..., such as edges=[-1,0,1].")
    statistic = make(**({"of": of} if of else {}), **own)
    return statistic, {key: value for key, value in options.items() if key not in parameters}


def _classes(target: Any) -> Any:
    if not isinstance(target, Path):
        return target
    from gradtap.files.arrays import load_arrays

    if not target.exists():
        raise InputFileError(f"`{target}` cannot be read.", [("why", "there is no such file")])
    return load_arrays(target)["array"]


def _with_target(computed: Callable[[Any], Stored], target: Any) -> Stored:
    """Without a target the model's one number counts, or the class that it predicts where it has more."""
    try:
        return computed(target)
    except GradtapError as error:
        if target is not None or not any(isinstance(e, MissingTargetError) for e in getattr(error, "errors", [error])):
            raise
    return computed("predicted")


def _summary(model: str, method: str, found: Stored, seconds: float) -> dict[str, Any]:
    failures = [{"example": i, "name": found.name(i), "reason": why} for i, why in sorted(found.failures.items())]
    arrays = {address: found[address] for address in found}
    return {
        "model": model,
        "method": method,
        "store": str(found.path),
        "examples": found.examples,
        "blocks": len(found.done),
        "blocks_done": int(found.done.sum()),
        "failures": failures,
        "taps": [
            {"address": address, "shape": list(array.shape), "dtype": str(array.dtype)}
            for address, array in arrays.items()
        ],
        "seconds": round(seconds, 3),
    }


def _print(summary: Mapping[str, Any]) -> None:
    from gradtap.cli.table import make_console, print_facts

    console = make_console()
    taps = [f"{tap['address']}  {' × '.join(map(str, tap['shape']))}  {tap['dtype']}" for tap in summary["taps"]]
    facts = {
        "model": summary["model"],
        "method": summary["method"],
        "examples": f"{summary['examples']}, {len(summary['failures'])} of them failed",
        "blocks": f"{summary['blocks_done']} of {summary['blocks']} done",
        "taps": "\n".join(taps),
    }
    if summary["failures"]:
        facts["failed"] = "\n".join(_failed(summary["failures"]))
    print_facts(console, facts | {"wrote": summary["store"]})


def _failed(failures: Sequence[Mapping[str, Any]]) -> list[str]:
    lines = [f"{failure['name'] or failure['example']}: {failure['reason']}" for failure in failures[:FAILURES_SHOWN]]
    return [*lines, *([f"and {len(failures) - FAILURES_SHOWN} more"] if len(failures) > FAILURES_SHOWN else [])]
