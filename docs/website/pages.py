"""Pages that the site has and `docs/` has not, and links that lead to them.

Pages from outside of `docs/` are copied, and the reference is split by module, as its six thousand lines are too many
for one page. Both are written into `docs/made` before Sphinx looks for pages. Links are written as the repository shows
them; what they lead to on the site is looked up here.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

import make_reference

if TYPE_CHECKING:
    from sphinx.application import Sphinx

DOCS = Path(__file__).parent.parent
ROOT = DOCS.parent
MADE = DOCS / "made"

#: Pages from outside, and their names on the site.
OUTSIDE = {
    ROOT / "README.md": MADE / "project" / "readme.md",
    ROOT / "CONTRIBUTING.md": MADE / "project" / "contributing.md",
    ROOT / "CHANGELOG.md": MADE / "project" / "changelog.md",
    ROOT / "benchmarks" / "README.md": MADE / "project" / "benchmarks.md",
    ROOT / "benchmarks" / "results" / "README.md": MADE / "project" / "results.md",
    ROOT / "benchmarks" / "results" / "limits.md": MADE / "project" / "limits.md",
}
#: The pages for users of other libraries; the site can be built without them.
MIGRATION = DOCS / "migration" / "README.md"
#: Where a link leads to on the site, if not to the file that it names.
MOVED = OUTSIDE | {DOCS / "gallery": MADE / "gallery" / "index.rst"}
#: Pages that list what is beside them; on the site it stands below them.
LISTS = ("errors/README", "adr/README", "migration/README")

_CODE = re.compile(r"^(?P<fence>`{3,}).*?^(?P=fence)\s*?$|`[^`\n]+`", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"(?<=\]\()(?!\w+:|#)([^)\s#]+)")


def led(text: str, origin: Path, place: Path) -> str:
    """A page with its links as they are written at another place, to what there is on the site.

    Args:
      text: The page, in Markdown.
      origin: The file that it stands in.
      place: The file that Sphinx reads it from.
    """

    def leads(link: re.Match[str]) -> str:
        there = (origin.parent / link[1]).resolve()
        if there not in MOVED and origin == place:
            return link[1]
        return Path(os.path.relpath(MOVED.get(there, there), place.parent)).as_posix()

    parts, end = [], 0
    for code in _CODE.finditer(text):
        parts += [_LINK.sub(leads, text[end : code.start()]), code[0]]
        end = code.end()
    return "".join([*parts, _LINK.sub(leads, text[end:])])


def modules() -> dict[Path, str]:
    """The pages of the reference: one for each heading of `docs/reference.md`."""
    found = {}
    for heading, text in make_reference.parts().items():
        place = MADE / "reference" / (re.sub(r"\W+", "-", heading.lower()) + ".md")
        found[place] = led(re.sub(r"^#(#+ )", r"\1", text, flags=re.MULTILINE), make_reference.PAGE, place)
    return found


def write(app: Sphinx) -> None:
    """Write the pages that have changed, and remove those that are no more."""
    pages = modules() | {place: led(page.read_text("utf-8"), page, place) for page, place in OUTSIDE.items()}
    for place, text in pages.items():
        place.parent.mkdir(parents=True, exist_ok=True)
        if not place.exists() or place.read_text("utf-8") != text:
            place.write_text(text, "utf-8")
    for page in [*MADE.glob("project/*.md"), *MADE.glob("reference/*.md")]:
        if page not in pages:
            page.unlink()


def read(app: Sphinx, name: str, source: list[str]) -> None:
    """What Sphinx reads in the place of a page's text."""
    page = DOCS / f"{name}.md"
    if name == "reference":
        source[0] = "# Reference\n" + make_reference.WORDS
        source[0] += (
            "\n```{toctree}\n:maxdepth: 2\n\n"
            + "\n".join(f"made/reference/{place.stem}" for place in modules())
            + "\n```\n"
        )
    elif page.exists() and MADE not in page.parents:
        source[0] = led(source[0], page, page)
    if name == "index" and not MIGRATION.exists():
        source[0] = source[0].replace(f"\n{MIGRATION.relative_to(DOCS).with_suffix('')}\n", "\n")
    if name in LISTS:
        source[0] += "\n```{toctree}\n:glob:\n:hidden:\n\n*\n```\n"


def outdated(*_: object) -> list[str]:
    """Pages whose text depends on more than their file: what there is to list, and the docstrings."""
    return ["index", "reference"]


def setup(app: Sphinx) -> dict[str, bool]:
    """Connect the three."""
    app.connect("env-get-outdated", outdated)
    app.connect("builder-inited", write)
    app.connect("source-read", read)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
