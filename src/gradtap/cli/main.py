"""The ``gradtap`` command and its subcommands."""

from __future__ import annotations

import click

from gradtap.cli.app_command import app
from gradtap.cli.demo_command import demo
from gradtap.cli.explain_command import explain
from gradtap.cli.flow_command import flow
from gradtap.cli.gradients_command import gradients
from gradtap.cli.outcome import ReportingGroup
from gradtap.cli.report_command import report
from gradtap.cli.run_command import run
from gradtap.cli.taps_command import taps


@click.group(cls=ReportingGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="gradtap", message="gradtap %(version)s")
def cli() -> None:
    """Gradients of a model's output with respect to the activations of its inner layers.

    Exit status: 0 done, 1 something is wrong with the model, the inputs or the addresses, 2 wrong usage, 3 a finding
    with --strict.
    """


cli.add_command(taps)
cli.add_command(gradients)
cli.add_command(flow)
cli.add_command(report)
cli.add_command(app)
cli.add_command(run)
cli.add_command(demo)
cli.add_command(explain)


def main() -> None:
    """Run the command with the arguments of the process."""
    cli(prog_name="gradtap")
