"""How a command ends: errors and warnings as plain lines on standard error, and the exit status."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

from gradtap.cli.wording import for_a_shell, sentence_for_a_shell
from gradtap.errors import GradtapError

USER_ERROR = 1
INTERRUPTED = 130


class OutputFileError(GradtapError):
    """A result cannot be written where it was asked for."""


class ReportingGroup(click.Group):
    """A group of commands that reports what went wrong without a traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the chosen command; a user's error ends it with status 1, an interrupt with 130."""
        # TensorFlow prints what it found of the machine unless this is set before its first import.
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        try:
            with _plain_warnings():
                return super().invoke(ctx)
        except GradtapError as error:
            click.echo(f"error: {for_a_shell(error)}", err=True)
            ctx.exit(USER_ERROR)
        except KeyboardInterrupt as interrupt:
            click.echo(": ".join(filter(None, ["interrupted", str(interrupt)])), err=True)
            ctx.exit(INTERRUPTED)


@contextmanager
def _plain_warnings() -> Iterator[None]:
    """Print each warning as one line, without the place in the source; leave out those for programmers."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("default", UserWarning)
        warnings.simplefilter("default", RuntimeWarning)
        warnings.showwarning = _print_warning  # type: ignore[assignment]
        yield


def _print_warning(message: Warning | str, *_category_and_place: Any) -> None:
    click.echo(f"warning: {sentence_for_a_shell(' '.join(str(message).split()))}", err=True)
