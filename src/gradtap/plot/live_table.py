"""A table in the terminal that follows a training run."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gradtap.flow.monitor import FlowMoment

#: More taps than this do not fit a terminal: those in the middle are left out.
_ROWS = 16


class LiveTable:
    """Shows the latest measurement on the error stream, and a text at the end.

    Args:
      show: Whether anything is shown; None for where the error stream is a terminal.
      verbose: What ``fit`` itself shows: beside its own bar there is no table unless it is asked for.
    """

    def __init__(self, show: bool | None, verbose: Any) -> None:
        looks = sys.stderr.isatty() or "ipykernel" in sys.modules
        self._ends = looks if show is None else show
        self._live: Any = None
        if show or (show is None and looks and verbose in (0, "0")):
            from rich.console import Console
            from rich.live import Live

            # A run that is interrupted never says so: then nothing may be left hidden or redirected.
            console = Console(stderr=True)
            self._live = Live(
                console=console, auto_refresh=False, transient=True, redirect_stdout=False, redirect_stderr=False
            )
            self._live.start()
            console.show_cursor(True)

    def show(self, moment: FlowMoment) -> None:
        """Show a measurement in the place of the last one."""
        if self._live is not None:
            self._live.update(_table(moment), refresh=True)

    def end(self, text: str) -> None:
        """Take the table away, and leave a text."""
        if self._live is not None:
            self._live.stop()
            self._live = None
        if self._ends:
            from rich.console import Console
            from rich.text import Text

            Console(stderr=True, highlight=False).print(Text(text), soft_wrap=True)


def _table(moment: FlowMoment) -> Any:
    from rich.table import Table
    from rich.text import Text

    title = f"step {moment.step}, epoch {moment.epoch}, loss {moment.target:.4g}"
    table = Table(title=title, title_justify="left")
    for name in ("tap", "|activation|", "|gradient|", "zeros", "dead"):
        table.add_column(name, justify="left" if name == "tap" else "right")
    half = _ROWS // 2
    left_out = len(moment.rows) - _ROWS
    rows = moment.rows if left_out <= 0 else moment.rows[:half] + moment.rows[-half:]
    for number, row in enumerate(rows):
        if left_out > 0 and number == half:
            table.add_row(Text(f"{left_out} more", style="dim"))
        norms = f"{row.activation_norm:.3g}", f"{row.gradient_norm:.3g}"
        table.add_row(Text(row.address), *norms, f"{row.zeros:.0%}", f"{row.dead:.0%}")
    if moment.findings:
        table.caption = Text("; ".join(f"{one.kind} at {one.tap}" for one in moment.findings))
    return table
