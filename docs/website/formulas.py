"""Formulas as MathML, which every browser draws by itself: no script, no fonts, no picture for each of them."""

from __future__ import annotations

import re
from typing import Any

from docutils import nodes
from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.application import Sphinx
from sphinx.util import logging

LOGGER = logging.getLogger(__name__)

#: Words that the pages use, and those that docutils knows instead.
OTHER_WORDS = {"big": "bigl", "Big": "Bigl", "dots": "ldots"}


def mathml(formula: str, *, block: bool) -> str:
    """A formula of TeX as MathML.

    Raises:
      MathError: It uses a word that is not known.
    """
    known = re.sub(r"\\([a-zA-Z]+)", lambda word: "\\" + OTHER_WORDS.get(word[1], word[1]), formula)
    return str(tex2mathml(known, as_block=block))


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


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the renderer under the name `mathml`."""
    app.add_html_math_renderer("mathml", inline_renderers=(_inline, None), block_renderers=(_block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
