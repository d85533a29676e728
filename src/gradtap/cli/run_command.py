"""``gradtap run``: a method over a whole data set, into a store that the same command goes on with."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gradtap import fork_server
from gradtap.cli.options import Size, logits_option, read_size, target_output_option
from gradtap.cli.run_question import (
    ATTACKS,
    STATISTICS,
    method_of,
    read_options,
    read_target_or_file,
    target_of,
    with_target,
)
from gradtap.files.preprocessing import PREPROCESSINGS
from gradtap.locking import check_free

if TYPE_CHECKING:
    from gradtap.dataset.progress import Progress
    from gradtap.dataset.stored import Stored

FAILURES_SHOWN = 10
HELP = f"""Methods: gradients, activations, every function of gradtap.attribution, the attacks
{", ".join(ATTACKS)}, and the statistics {", ".join(STATISTICS)} of what --of names.

With --json an error is text on standard error, as without, and nothing is on standard output.

What is done to the pixels x of images:

\b
""" + "\n".join(f"{name:<10} {what}" for name, what in PREPROCESSINGS.items())


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
    callback=read_target_or_file,
    help="'predicted' (the default), the index of a class, or a .npy with a class for each example.",
)
@target_output_option
@logits_option
@click.option("--store", required=True, type=click.Path(path_type=Path), help="Where the results go: out.zarr.")
@click.option("--engine", type=click.Choice(["local", "dask"]), default="local", show_default=True)
@click.option("--workers", type=click.IntRange(min=1), help="With dask: processes here; default: 2.")
@click.option("--scheduler", metavar="ADDRESS", help="With dask: the scheduler of a cluster that sees the same files.")
@click.option("--block", type=click.IntRange(min=1), default=64, show_default=True, help="Examples at a time.")
@click.option("--dtype", type=click.Choice(["float16", "float32", "float64"]), help="What numbers are stored as.")
@click.option("--compression", type=click.Choice(["fast", "small", "none"]), default="fast", show_default=True)
@click.option("--retry", is_flag=True, help="Compute the blocks with failed examples anew.")
@click.option("--preprocess", type=click.Choice(list(PREPROCESSINGS)), help="For images; default: unit. See below.")
@click.option("--size", metavar="HxW", callback=read_size, help="Resize images, where the model takes any size.")
@click.option("--column", "columns", multiple=True, metavar="NAME", help="Which columns or arrays are the inputs.")
@click.option(
    "--option", "options", multiple=True, metavar="NAME=VALUE", callback=read_options, help="A keyword of the method."
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
    target_output: str | None,
    logits: bool,
    store: Path,
    engine: Any,
    workers: int | None,
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
    if workers is not None and (engine != "dask" or scheduler is not None):
        raise click.UsageError("--workers is for --engine dask without --scheduler.")
    check_free(store)
    from gradtap.cli.quiet import start_tensorflow, without_chatter

    if engine == "dask" and scheduler is None:
        with without_chatter(lasting=True):
            fork_server.start()  # it imports TensorFlow while this process does
    start_tensorflow()
    import gradtap as gt

    asked, options = method_of(method, of, options, scored=target_output is not None or logits)
    wanted = target_of(target, target_output, logits)
    told = _Lines() if as_json else None
    start = time.monotonic()

    def computed(target: Any) -> Stored:
        return gt.dataset.run(
            gt.trace(model, safe_mode=False) if unsafe else model,
            data,
            asked,
            store,
            at=list(at),
            target=target,
            engine=engine,
            workers=workers or 2,
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

    try:
        found = with_target(computed, wanted)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(_how_far(store)) from None
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
        left = None if math.isinf(now.remaining) else round(now.remaining, 1)
        facts = {"done": now.done, "examples": now.examples, "failures": now.failures}
        click.echo(json.dumps(facts | {"rate": round(now.rate, 1) or None, "seconds_left": left}), err=True)


def _how_far(store: Path) -> str:
    """What is said of a run that was interrupted."""
    from gradtap import dataset
    from gradtap.errors import StoreError

    try:
        found = dataset.open(store)
    except StoreError:
        return "nothing is written yet"
    done = sum(min(found.block, found.examples - i * found.block) for i, one in enumerate(found.done.tolist()) if one)
    return f"{done} of {found.examples} examples are done, in {store}; the same command goes on with the others"


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
