"""Formulas as MathML, which every browser draws by itself: no script, and no picture for each of them.

Brackets that grow need a font with measures for mathematics, which not every system has. STIX Two Math (SIL Open Font
License) comes with the package `ziamath`; the part of it that formulas use goes onto the site.
"""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from docutils import nodes
from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml
from fontTools import subset
from sphinx.application import Sphinx
from sphinx.util import logging

LOGGER = logging.getLogger(__name__)

#: Words that the pages use, and those that docutils knows instead.
OTHER_WORDS = {"big": "bigl", "Big": "Bigl", "dots": "ldots"}

MATHML, BRACE = "http://www.w3.org/1998/Math/MathML", "⏟"
#: Latin, Greek, dashes and primes, letterlike signs, arrows, operators, brackets, arrows between them, alphabets.
LETTERS = ((0x20, 0xFF), (0x300, 0x3FF), (0x2010, 0x2057), (0x2100, 0x22FF), (0x2308, 0x230B), (0x23DC, 0x23DF))
LETTERS += ((0x27E8, 0x27EB), (0x1D400, 0x1D56B), (0x1D6A8, 0x1D71B))


def mathml(formula: str, *, block: bool) -> str:
    """A formula of TeX as MathML.

    Raises:
      MathError: It uses a word that is not known.
    """
    known = re.sub(r"\\([a-zA-Z]+)", lambda word: "\\" + OTHER_WORDS.get(word[1], word[1]), formula)
    return _with_labels_below(str(tex2mathml(known, as_block=block)))


def _with_labels_below(drawn: str) -> str:
    """What stands at a brace stands below it; docutils makes an index of it."""
    if BRACE not in drawn:
        return drawn
    ElementTree.register_namespace("", MATHML)
    tree = ElementTree.fromstring(drawn)
    for index in tree.iter(f"{{{MATHML}}}msub"):
        if len(index[0]) == 2 and index[0][1].text == BRACE:
            index.tag = f"{{{MATHML}}}munder"
    return ElementTree.tostring(tree, encoding="unicode")


def _drawn(node: nodes.Element, *, block: bool) -> str:
    try:
        return mathml(node.astext(), block=block)
    except MathError as error:
        LOGGER.warning("%s: %s", error, node.astext(), location=node)
        return f"<code>{node.astext()}</code>"


def _inline(writer: Any, node: nodes.math) -> None:
    writer.body.append(_drawn(node, block=False))
    raise nodes.SkipNode


def _block(writer: Any, node: nodes.math_block) -> None:
    writer.body.append(f'<div class="formula">{_drawn(node, block=True)}</div>\n')
    raise nodes.SkipNode


def _add_font(app: Sphinx, exception: Exception | None) -> None:
    """Write the font beside the style sheet that names it, with its own licence in it."""
    place = Path(app.outdir) / "_static" / "math.woff"
    if exception or not place.parent.exists() or place.exists():
        return
    package = importlib.util.find_spec("ziamath")
    if package is None or package.origin is None:
        LOGGER.warning("not installed: ziamath, which brings the font of the formulas")
        return
    options = subset.Options(flavor="woff", layout_features=["ssty"], name_IDs=["*"], notdef_outline=True)
    font = subset.load_font(str(Path(package.origin).parent / "fonts" / "STIXTwoMath-Regular.ttf"), options)
    wanted = subset.Subsetter(options)
    wanted.populate(unicodes=[letter for first, last in LETTERS for letter in range(first, last + 1)])
    wanted.subset(font)
    subset.save_font(font, str(place), options)


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the renderer under the name `mathml`."""
    app.connect("build-finished", _add_font)
    app.add_html_math_renderer("mathml", inline_renderers=(_inline, None), block_renderers=(_block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
