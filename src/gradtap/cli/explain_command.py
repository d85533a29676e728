"""``gradtap explain``: the page of an error or a warning, which comes with the package."""

from __future__ import annotations

import re
from pathlib import Path

import click

#: Where the pages lie in an installed package, and in a checkout of the project.
PLACES = ("docs/errors", "../../docs/errors")


@click.command(short_help="Print the page of an error or a warning.")
@click.argument("name", metavar="NAME", required=False)
def explain(*, name: str | None) -> None:
    """Print the page of the error or warning NAME: what causes it, and what to do.

    NAME is that of the class (UnknownTapError) or of the page (docs/errors/unknown-tap.md). Without it, all are listed.
    """
    pages = _pages()
    if name is None:
        click.echo(pages["README"].read_text(encoding="utf-8").rstrip())
        return
    found = pages.get(_page_name(name))
    if found is None:
        from gradtap.errors import nearest

        close = nearest(_page_name(name), pages)
        raise click.UsageError(f"there is no page `{name}`." + (f" The nearest: {close}." if close else ""))
    click.echo(found.read_text(encoding="utf-8").rstrip())


def _pages() -> dict[str, Path]:
    """The pages by name."""
    package = Path(__file__).parent.parent
    folder = next((package / place for place in PLACES if (package / place).is_dir()), None)
    if folder is None:
        raise click.ClickException("the pages are not installed with this package.")
    return {page.stem: page for page in sorted(folder.glob("*.md"))}


def _page_name(name: str) -> str:
    """`UnknownTapError`, `unknown-tap` and `docs/errors/unknown-tap.md` as the name of the page."""
    stem = re.sub(r"(?<=.)(Error|Warning)$", "", name.rpartition("/")[2].removesuffix(".md"))
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "-", stem).lower() if stem != "README" else stem
