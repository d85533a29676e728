"""One self-contained page of HTML about a measurement or a comparison: style and picture stand in it."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from gradtap.errors import MissingExtraError
from gradtap.flow.comparison import Comparison
from gradtap.flow.rows import FlowMeasurement
from gradtap.plot import flow as draw

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1f2328; max-width: 72rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; font-size: 13px; margin: 1rem 0; }
th, td { text-align: right; padding: 0.2rem 0.7rem; border-bottom: 1px solid #d1d9e0; }
th:first-child, td:first-child { text-align: left; font-family: ui-monospace, monospace; }
img { max-width: 100%; }
.finding { border-left: 4px solid #d55e00; padding: 0.3rem 0.8rem; margin: 0.7rem 0; background: #fff6f0; }
.well { border-left-color: #009e73; background: #f0faf6; }
.faint { color: #59636e; }
"""


def page(title: str, found: FlowMeasurement | Comparison) -> str:
    """The whole page.

    Args:
      title: Its heading.
      found: What is shown.
    """
    body = _measurement(found) if isinstance(found, FlowMeasurement) else _comparison(found)
    head = f'<meta charset="utf-8"><title>{escape(title)}</title><style>{_STYLE}</style>'
    inside = f"<h1>{escape(title)}</h1>{_picture(found)}{body}"
    return f'<!doctype html><html lang="en"><head>{head}</head><body>{inside}</body></html>\n'


def _measurement(found: FlowMeasurement) -> str:
    said = "".join(
        f'<div class="finding"><b>{one.kind}</b> at <code>{escape(one.tap)}</code>: {escape(one.evidence)}<br>'
        f'<span class="faint">{escape(one.remedy)}</span></div>'
        for one in found.findings
    )
    said = said or '<div class="finding well">Nothing is wrong with the flow.</div>'
    taps = ["address", "layer", "activation_norm", "gradient_norm", "ratio", "zeros", "gradient_zeros", "dead"]
    taps += ["saturated", "signal_to_noise", "cosine"]
    weights = ("address", "weight_norm", "gradient_norm", "ratio")
    skipped = "".join(f"<li><code>{escape(a)}</code>: {escape(why)}</li>" for a, why in found.skipped.items())
    return (
        f'<p class="faint">{found.examples} examples</p>{said}<h2>Taps</h2>{_table(taps, map(vars, found.rows))}'
        f"<h2>Weights</h2>{_table(weights, map(vars, found.weights))}"
        + (f"<h2>Left out</h2><ul>{skipped}</ul>" if skipped else "")
    )


def _comparison(found: Comparison) -> str:
    lines = [
        {
            "model": one.name,
            "stage": one.stage,
            "depth": one.depth,
            "first": one.first.mean,
            "last": one.last.mean,
            "per layer": one.per_layer.mean,
            "dead": one.dead,
            "curvature": one.curvature,
            "loss": one.loss.mean,
            "ms": one.seconds * 1e3,
            "findings": ", ".join(f"{kind} {count}/{one.seeds}" for kind, count in one.findings.items()),
        }
        for one in found.models
    ]
    return _table(list(lines[0]), lines)


def _table(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> str:
    head = "".join(f"<th>{escape(name.replace('_', ' '))}</th>" for name in columns)
    body = "".join(f"<tr>{''.join(f'<td>{_cell(row[name])}</td>' for name in columns)}</tr>" for row in rows)
    return f"<table><tr>{head}</tr>{body}</table>"


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.3g}"
    return escape(str(value))


def _picture(found: Any) -> str:
    try:
        figure = draw(found)
    except MissingExtraError as error:
        return f'<p class="faint">No picture: {escape(error.headline)}</p>'
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png")
    return f'<img alt="gradient flow" src="data:image/png;base64,{base64.b64encode(drawn.getvalue()).decode()}">'
