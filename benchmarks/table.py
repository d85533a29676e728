"""Results as Markdown."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks import machine

ORDER = (
    *("one_layer", "many_layers", "suffix", "tiny", "first_call", "memory", "retrace", "recurrent", "jacobian"),
    *("integrated", "integrated_tiny"),
    *(
        "integrated_memory",
        "in_flight",
        "dataset",
        "two_workers",
        "completeness",
        "captum",
        "many_maps",
        "maps",
        "flow",
        "flow_alarms",
    ),
    *("peers", "attacks"),
)
SCALES = {"s": ((1.0, "s"), (1e-3, "ms"), (1e-6, "us")), "B": ((2**30, "GiB"), (2**20, "MiB"))}


def page(folder: Path) -> str:
    """All results in `folder` as one page."""
    found = [
        json.loads(path.read_text(encoding="utf-8")) for name in ORDER if (path := folder / f"{name}.json").exists()
    ]
    head = "# Results\n\nWritten by `python -m benchmarks`; how to read them: [benchmarks](../README.md).\n"
    if (folder / "limits.md").exists():
        head += "\nWhere a target is missed, and why: [limits](limits.md).\n"
    return "\n".join([head, *(section(result) for result in found)])


def section(result: dict[str, Any]) -> str:
    """One benchmark's table, under its name and with its machine."""
    if "cases" in result:
        body = _peers(result)
    else:
        pairs = _pairs(result) if result["pairs"] else ""
        body = _curves(result.get("tables", [])) + pairs + _facts(result["facts"])
    return f"## {result['benchmark']}\n\n{result['about']}\n\n{body}\n{_machine(result)}\n"


def _pairs(result: dict[str, Any]) -> str:
    lines = [
        "| pair | ratio | each process | quartiles of single pairs | limit | values differ by | medians |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in result["pairs"]:
        each = ", ".join(f"{value:.3f}" for value in row["ratio_by_process"])
        low, high = row["ratio_of_single_pairs_quartiles"]
        medians = " / ".join(_scaled(row[side][5], row["unit"]) for side in ("subject_deciles", "reference_deciles"))
        limit = "" if row["limit"] is None else f"{row['limit']:g} {'met' if row['met'] else '**missed**'}"
        cells = [row["what"], f"**{row['ratio']:.3f}**", each, f"{low:.3f} to {high:.3f}", limit]
        lines.append(_row([*cells, _error(row["values_max_relative_difference"]), medians]))
    return "\n".join(lines) + "\n"


def _facts(facts: list[dict[str, Any]]) -> str:
    lines = []
    for entry in facts:
        number = _scaled(entry["value"], entry["unit"])
        limit = (
            "" if entry["limit"] is None else f" (limit {entry['limit']:g}: {'met' if entry['met'] else '**missed**'})"
        )
        lines.append(f"- {entry['what']}: {number}{limit}")
    return "\n" + "\n".join(lines) + "\n" if lines else ""


def _curves(tables: list[dict[str, Any]]) -> str:
    """Errors by number of steps, with the picture that `benchmarks.curves` draws of them."""
    lines = ["![Completeness error against steps](completeness.png)\n"] if tables else []
    for entry in tables:
        lines += [_row([entry["title"], *map(str, entry["counts"])]), "|---" * (len(entry["counts"]) + 1) + "|"]
        lines += [_row([name, *(f"{value:.0e}" for value in errors)]) for name, errors in entry["errors"].items()]
        lines.append("")
    return "\n".join(lines)


def _peers(result: dict[str, Any]) -> str:
    tools = [entry["tool"] for entry in result["cases"][0]["tools"]]
    lines = [_row(["model and layer", *tools]), "|---" * (len(tools) + 1) + "|"]
    notes: list[str] = []
    for case in result["cases"]:
        lines.append(_row([case["title"], *(_cell(entry, notes) for entry in case["tools"])]))
    quoted = "\n".join(f"{number}. {note}" for number, note in enumerate(notes, start=1))
    return "\n".join(lines) + f"\n\n{quoted}\n\nkeract with eager execution off: `{result['keract_without_eager']}`\n"


def _cell(entry: dict[str, Any], notes: list[str]) -> str:
    marks = [f"raises `{entry['raises']}`"] if "raises" in entry else []
    if "way_round" in entry:
        marks[0] += f"; a way round: {entry['way_round']}"
    for note in marks:
        if note not in notes:
            notes.append(note)
    marked = "".join(f" [{notes.index(note) + 1}]" for note in marks)
    if "values" not in entry:
        return f"raises{marked}"
    values, error = entry["values"], _error(entry["error"])
    if values.startswith("equal"):
        return f"x{entry['ratio']:.2f}, {values} ({error}){marked}"
    # An error is given where the right gradient was asked for; where a call is missing there is nothing to compare.
    return f"x{entry['ratio']:.2f}, **{values}**{f' ({error})' if values == 'wrong' else ''}{marked}"


def _machine(result: dict[str, Any]) -> str:
    about = result["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    code = f"Python {about['python']}, {versions}; source {about['gradtap_source']}"
    changed = [f"{name}={value}" for name, value in about["threads"].items() if value != machine.DEFAULT]
    threads = ", ".join(changed) or f"{machine.DEFAULT} threads"
    place = f"{about['processor']}, {about['cores']} cores, {about['memory_gib']} GiB, {about['system']}"
    load = f"load {result['load_before'][0]} before, {result['load_after'][0]} after"
    return f"*{about['date']}: {place}; {code}; {threads}; {load}.*"


def _scaled(value: float, unit: str) -> str:
    for factor, name in SCALES.get(unit, ()):
        if abs(value) >= factor:
            return f"{value / factor:.3g} {name}"
    return f"{value:.3g} {unit}"


def _error(value: float | None) -> str:
    return "" if value is None else "0" if value == 0 else f"{value:.0e}"


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"
