"""Where the pages are, which of their lines are whose, and where their figures stand. It imports no TensorFlow."""

from __future__ import annotations

import ast
import importlib.util
import re
import textwrap
from pathlib import Path

from benchmarks.fresh import TREE

#: Each peer, and the environment that `make bench-migration` makes for it.
ENVIRONMENTS = {
    "keract": ".venv-keract",
    "tf_keras_vis": ".venv-peers",
    "tf_explain": ".venv-peers",
    "xplique": ".venv-peers",
    "alibi": ".venv-alibi",
    "captum": ".venv-captum",
}
#: Run there as well, to see what the newest TensorFlow and Keras say.
TODAY = {"keract": ".venv-peers"}
PEERS = tuple(ENVIRONMENTS)
_MARKED = re.compile(r"<!-- figures of (\w+), written by benchmarks\.migration -->\n```text\n(.*?)\n```\n", re.DOTALL)


def page(peer: str) -> Path:
    return TREE / "docs" / "migration" / f"{peer.replace('_', '-')}.md"


def shown(text: str) -> dict[str, str]:
    """The figures on a page, by name."""
    return dict(_MARKED.findall(text))


def written(figures: dict[str, str], text: str) -> str:
    """The page with other figures."""

    def replaced(mark: re.Match[str]) -> str:
        return mark[0].replace(f"\n{mark[2]}\n```", f"\n{figures[mark[1]]}\n```")

    return _MARKED.sub(replaced, text)


def lines(module: str) -> dict[str, str]:
    """The bodies of a module's public functions, without the `return` at the end: what a page shows of them."""
    spec = importlib.util.find_spec(module)
    source = Path(spec.origin).read_text(encoding="utf-8")
    return {
        node.name: _body(node, source.splitlines())
        for node in ast.parse(source).body
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_")
    }


def _body(node: ast.FunctionDef, source: list[str]) -> str:
    last = node.body[-1]
    if not isinstance(last, ast.Return):
        raise ValueError(f"{node.name} returns nothing")
    return textwrap.dedent("\n".join(source[node.body[0].lineno - 1 : last.lineno - 1])).strip() + "\n"
