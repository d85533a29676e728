"""Pairs measured in turn, and what is said of them. No TensorFlow here."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

Call = Callable[[], object]


def interleave(calls: Mapping[str, Call], rounds: int, turn: int = 0, warm: int = 2) -> dict[str, list[float]]:
    """Time every call once a round, in an order that turns round each time: seconds by name.

    A drift of the machine then falls on all of them alike, and none always runs in the wake of the same other one.
    """
    for call in calls.values():
        for _ in range(warm):
            call()
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(rounds):
        names = list(calls) if (number + turn) % 2 == 0 else list(reversed(calls))
        for name in names:
            start = time.perf_counter()
            result = calls[name]()
            seconds[name].append(time.perf_counter() - start)
            del result
    return seconds


def pair(
    what: str,
    subject: Sequence[float],
    reference: Sequence[float],
    *,
    unit: str = "s",
    limit: float | None = None,
    difference: float | None = None,
) -> dict[str, Any]:
    """One comparison as a benchmark hands it over: raw samples, the limit on their ratio, the values' error."""
    row = {"what": what, "unit": unit, "limit": limit, "difference": difference}
    return row | {"subject": list(subject), "reference": list(reference)}


def fact(what: str, value: float, unit: str, limit: float | None = None) -> dict[str, Any]:
    """One number that is not a ratio."""
    return {"what": what, "value": value, "unit": unit, "limit": limit}


def combine(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Reduce the same benchmark's runs in several processes to what is kept of them."""
    pairs = [_summary([run["pairs"][index] for run in runs]) for index in range(len(runs[0]["pairs"]))]
    facts = [_median_fact([run["facts"][index] for run in runs]) for index in range(len(runs[0].get("facts", [])))]
    kept = {"tables": runs[0]["tables"]} if "tables" in runs[0] else {}
    return {"processes": len(runs), "pairs": pairs, "facts": facts} | kept


def _summary(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    ratios = [statistics.median(row["subject"]) / statistics.median(row["reference"]) for row in rows]
    each = [s / r for row in rows for s, r in zip(row["subject"], row["reference"], strict=True)]
    differences = [row["difference"] for row in rows if row["difference"] is not None]
    ratio, limit = statistics.median(ratios), rows[0]["limit"]
    return {
        "what": rows[0]["what"],
        "ratio": round(ratio, 4),
        "limit": limit,
        "met": None if limit is None else ratio <= limit,
        "ratio_by_process": [round(value, 4) for value in ratios],
        "ratio_of_single_pairs_quartiles": [round(value, 4) for value in _quantiles(each, 4)[::2]],
        "values_max_relative_difference": max(differences, default=None),
        "unit": rows[0]["unit"],
        "samples": len(each),
        "subject_deciles": _deciles([value for row in rows for value in row["subject"]]),
        "reference_deciles": _deciles([value for row in rows for value in row["reference"]]),
    }


def _median_fact(facts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    values = [entry["value"] for entry in facts]
    value, limit = statistics.median(values), facts[0]["limit"]
    met = None if limit is None else value <= limit
    return facts[0] | {"value": value, "by_process": values, "met": met}


def _quantiles(values: Sequence[float], n: int) -> list[float]:
    return statistics.quantiles(values, n=n, method="inclusive") if len(values) > 1 else [values[0]] * (n - 1)


def _deciles(values: Sequence[float]) -> list[float]:
    """Minimum, nine deciles, maximum."""
    return [float(f"{value:.5g}") for value in (min(values), *_quantiles(values, 10), max(values))]
