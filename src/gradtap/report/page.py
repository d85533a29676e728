"""A report's data as one page of HTML: style, script and pictures stand in it, and it asks the network for nothing."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

from gradtap.report.collecting import collect
from gradtap.report.document import Array, Document, Example, Look
from gradtap.report.pictures import as_source, packed
from gradtap.types import Address, Model, Structure

#: Nothing is loaded from anywhere; what stands in the page may run.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"


def write(
    model: Model,
    inputs: Structure,
    path: str | Path,
    *,
    at: Address | Sequence[Address],
    methods: Sequence[str] = ("grad_cam", "integrated_gradients"),
    target: Any = "predicted",
    names: Sequence[str] | None = None,
    pictures: Sequence[Array] | None = None,
    class_names: Sequence[str] | None = None,
    title: str | None = None,
    batch_size: int | None = None,
    command: str | None = None,
) -> Document:
    """Write a page that shows what a network does with some inputs, layer by layer, into one file.

    The page holds all that it shows and runs without a network.

    Args:
      model: See `gradtap.gradients`.
      inputs: One batch of at most 64 examples.
      path: Of the file; it is written whole or not at all.
      at: See `gradtap.gradients`.
      methods: See `gradtap.report.collect`.
      target: See `gradtap.gradients`.
      names: See `gradtap.report.collect`.
      pictures: See `gradtap.report.collect`.
      class_names: See `gradtap.report.collect`.
      title: See `gradtap.report.collect`.
      batch_size: See `gradtap.gradients`.
      command: See `gradtap.report.collect`.

    Returns:
      `Document`: the data of the page.

    Raises:
      MissingExtraError: Pillow is not installed and there are pictures.
      GradtapError: One class for each cause; ``docs/errors`` has a page for each.

    Example:
      >>> import gradtap as gt, keras, numpy as np
      >>> convs = [keras.layers.Conv2D(4, 3, name=name) for name in ["conv1", "conv2"]]
      >>> model = keras.Sequential([keras.Input((16, 16, 3)), *convs, keras.layers.GlobalAveragePooling2D()])
      >>> images = np.random.default_rng(0).random((2, 16, 16, 3))
      >>> document = gt.report.write(model, images, "report.html", at=["conv1", "conv2"], methods=["grad_cam"])
    """
    document = collect(
        model,
        inputs,
        at=at,
        methods=methods,
        target=target,
        names=names,
        pictures=pictures,
        class_names=class_names,
        title=title,
        batch_size=batch_size,
        command=command,
    )
    target_file = Path(path)
    unfinished = target_file.with_name(f".{target_file.name}.unfinished")
    try:
        unfinished.write_text(page(document), encoding="utf-8")
        unfinished.replace(target_file)
    finally:
        unfinished.unlink(missing_ok=True)
    return document


def page(document: Document) -> str:
    """A report as HTML."""
    parts = files("gradtap.report")
    data = json.dumps(_for_the_script(document), allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
    filled = {
        "policy": _POLICY,
        "title": escape(document.title),
        "style": parts.joinpath("page.css").read_text(encoding="utf-8"),
        "script": parts.joinpath("page.js").read_text(encoding="utf-8"),
        "data": data,
        "findings": _findings(document),
        "taps": _taps(document),
        "errors": _errors(document),
        "left_out": _left_out(document),
        "tree": _tree(document),
        "made": _made(document),
        "summary": escape(_summary(document)),
    }
    # In one pass: what is put in may hold braces of its own.
    text = parts.joinpath("page.html").read_text(encoding="utf-8")
    return re.sub(r"{{(\w+)}}", lambda match: filled[match[1]], text)


def _summary(document: Document) -> str:
    examples, taps = len(document.examples), len(document.taps)
    return f"{document.model}, {examples} example{'s' * (examples > 1)}, {taps} layer{'s' * (taps > 1)}"


def _for_the_script(document: Document) -> dict[str, Any]:
    return {
        "layers": [
            {"address": tap.address, "kind": tap.layer, "shape": _shape(tap.shape), "classes": tap.classes}
            for tap in document.taps
        ],
        "methods": document.methods,
        "said": {name: said.replace("`", "") for name, said in document.said.items()},
        "examples": [_example(example) for example in document.examples],
    }


def _example(example: Example) -> dict[str, Any]:
    return {
        "name": example.name,
        "picture": None if example.picture is None else as_source(example.picture),
        "prediction": [[name, _number(score)] for name, score in example.prediction],
        "target": example.target,
        "score": _number(example.score),
        "looks": {address: _look(look) for address, look in example.looks.items()},
    }


def _look(look: Look) -> dict[str, Any]:
    return {
        "activation": packed(look.activation),
        "gradient": packed(look.gradient),
        "attributions": {name: packed(values) for name, values in look.attributions.items()},
    }


def _coded(text: str) -> str:
    """Text whose names stand in backticks."""
    return re.sub(r"`([^`]*)`", r"<code>\1</code>", escape(text))


def _number(value: float) -> str:
    return f"{value:.4g}"


def _shape(shape: Sequence[int | None] | None) -> str:
    return "" if shape is None else " × ".join("·" if n is None else str(n) for n in shape)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], caption: str) -> str:
    first = "".join(f'<th scope="col">{escape(name)}</th>' for name in head)
    body = "".join(
        f'<tr><th scope="row">{row[0]}</th>' + "".join(f"<td>{cell}</td>" for cell in row[1:]) + "</tr>" for row in rows
    )
    return f'<div class="wide"><table><caption>{escape(caption)}</caption><tr>{first}</tr>{body}</table></div>'


def _taps(document: Document) -> str:
    rows = [
        [
            f"<code>{escape(tap.address)}</code>",
            escape(tap.layer),
            _shape(tap.shape),
            _number(tap.activation_norm),
            _number(tap.gradient_norm),
            f"{tap.zeros:.0%}",
            f"{tap.dead:.0%}",
        ]
        for tap in document.taps
    ]
    head = ["layer", "class", "shape", "|activation|", "|gradient|", "zeros", "dead units"]
    return _table(
        head, rows, "Means over the examples of the 2-norms; zeros among activations; units that are always 0."
    )


def _findings(document: Document) -> str:
    if not document.findings:
        return '<p class="well">Nothing is wrong with the flow of gradients through these layers.</p>'
    return "".join(
        f'<p class="finding"><b>{escape(kind)}</b> at <code>{escape(tap)}</code>: {_coded(evidence)}<br>'
        f'<span class="faint">{_coded(remedy)}</span></p>'
        for kind, tap, evidence, remedy in document.findings
    )


def _errors(document: Document) -> str:
    methods = [m for m in document.methods if any(m in example.errors for example in document.examples)]
    if not methods:
        return ""
    addresses = [tap.address for tap in document.taps]
    rows = [
        [
            f"{escape(example.name)}, {escape(method)}",
            *(_number(example.errors[method][a]) if a in example.errors[method] else "–" for a in addresses),
        ]
        for example in document.examples
        for method in methods
        if method in example.errors
    ]
    caption = "By how much the attributions of complete methods miss the change of the target."
    return "<h2>Completeness</h2>" + _table(["example, method", *addresses], rows, caption)


def _left_out(document: Document) -> str:
    if not document.left_out:
        return ""
    lines = "".join(f"<li><code>{escape(k)}</code>: {_coded(why)}</li>" for k, why in document.left_out.items())
    return f"<h2>Left out</h2><ul>{lines}</ul>"


def _tree(document: Document) -> str:
    lines = "".join(
        f'<li style="--depth:{row.depth}"{" class=tapped" if row.tapped else ""}><code>{escape(row.address)}</code> '
        f'<span class="faint">{escape(row.layer)} {_shape(row.shape)}'
        + (f", {row.parameters:,} parameters" if row.parameters else "")
        + "</span></li>"
        for row in document.rows
    )
    return f'<ul class="tree">{lines}</ul>'


def _made(document: Document) -> str:
    rows = "".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in document.made.items() if k != "again")
    return f"<dl>{rows}</dl><pre>{escape(document.made.get('again', ''))}</pre>"
