"""Results as text in a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from gradtap.cli.summary import EXPLANATION, TapSummary

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from gradtap.cli.result import Result

# Wide enough for a table in a file or a pipe, where nothing has to fit a window.
PIPE_WIDTH = 160
EXAMPLES_SHOWN = 10
SKIPPED_SHOWN = 5


def make_console() -> Console:
    """A console for standard output: as wide as the terminal, or wide enough for every row in a file or a pipe."""
    from rich.console import Console

    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=PIPE_WIDTH)


def print_result(
    model: str, result: Result, written: Sequence[str], class_names: Sequence[str] | None = None, scored: str = ""
) -> None:
    """Print what was computed: the model and its inputs, the scores, one row for each tap, and the files.

    Args:
      model: What to call the model.
      result: What was computed.
      written: The files that hold it.
      class_names: Names of the classes.
      scored: What the differentiated score is, where that is known.
    """
    console = make_console()
    lines = result.lines(class_names)
    more = [f"and {len(lines) - EXAMPLES_SHOWN} more"] if len(lines) > EXAMPLES_SHOWN else []
    facts = {
        "model": model,
        "inputs": result.inputs.description,
        "target": f"{result.target}: {scored}" if scored else result.target,
        "scores": "\n".join(lines[:EXAMPLES_SHOWN] + more),
    }
    print_facts(console, facts)
    _print_summaries(console, result.summaries(), result.skipped)
    if written:
        print_facts(console, {"wrote": "\n".join(written)})


def print_facts(console: Console, facts: Mapping[str, str]) -> None:
    """Print texts beside their labels.

    Args:
      console: Where.
      facts: Label to text.
    """
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    for label, text in facts.items():
        grid.add_row(Text(label), Text(text))
    _print_rows(console, grid)


def _print_rows(console: Console, rows: Table) -> None:
    """Print a table; in a file or a pipe without the blanks that fill its rows up to one width."""
    if console.is_terminal:
        console.print(rows)
        return
    with console.capture() as captured:
        console.print(rows)
    console.file.write("".join(f"{line.rstrip()}\n" for line in captured.get().splitlines()))


def _print_summaries(console: Console, summaries: Iterable[TapSummary], skipped: Mapping[str, str]) -> None:
    from rich.box import SIMPLE
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE, pad_edge=False, header_style="bold")
    table.add_column("tap", overflow="fold")
    table.add_column("shape", overflow="fold")
    for title in ("|activation|", "|gradient|", "zeros"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("channels", no_wrap=True)
    for row in summaries:
        shape = " × ".join(map(str, row.shape))
        norms = (f"{row.activation_norm:.4g}", f"{row.gradient_norm:.4g}", f"{row.zeros:.1%}")
        table.add_row(Text(row.address), shape, *norms, " ".join(map(str, row.channels)))
    _print_rows(console, table)
    console.print(Text(EXPLANATION, style="dim"))
    for address, reason in list(skipped.items())[:SKIPPED_SHOWN]:
        console.print(Text(f"skipped {address}: {reason}", style="dim"))
    if len(skipped) > SKIPPED_SHOWN:
        console.print(Text(f"skipped {len(skipped) - SKIPPED_SHOWN} more", style="dim"))
