"""Run benchmarks, write their results and the table: `python -m benchmarks [NAME ...] [--quick]`."""

from __future__ import annotations

import argparse
import importlib.util
import json
from pathlib import Path
from typing import Any

from benchmarks import fresh, machine, table, timing

RESULTS = Path(__file__).with_name("results")
PROCESSES = {
    "one_layer": 3,
    "many_layers": 3,
    "suffix": 3,
    "tiny": 3,
    "retrace": 1,
    "first_call": 1,
    "memory": 1,
    "recurrent": 3,
    "jacobian": 3,
    "second_order": 3,
    "integrated": 2,
    "integrated_tiny": 2,
    "integrated_memory": 1,
    "in_flight": 1,
    "many_maps": 2,
    "completeness": 1,
    "flow": 2,
    "flow_alarms": 1,
    "dataset": 1,
    "two_workers": 1,
}
#: Each needs an environment of its own; see the Makefile.
WITH_PEERS = {"peers": 1, "maps": 3, "captum": 1, "attacks": 2}
EVERY = PROCESSES | WITH_PEERS


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of: {', '.join(EVERY)} (all but the last four)")
    parser.add_argument("--quick", action="store_true", help="a few rounds in one process; prints, keeps nothing")
    options = parser.parse_args()
    unknown = set(options.names) - set(EVERY)
    if unknown:
        parser.error(f"no benchmark {', '.join(sorted(unknown))}; there are {', '.join(EVERY)}")
    for name in options.names or PROCESSES:
        result = measure(name, quick=options.quick)
        print(table.section(result), flush=True)
        if not options.quick:
            path = RESULTS / f"{name}.json"
            path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
            if "tables" in result:
                fresh.call("benchmarks.curves", "draw", source=str(path), picture=str(path.with_suffix(".png")))
            (RESULTS / "README.md").write_text(table.page(RESULTS), encoding="utf-8")


def measure(name: str, *, quick: bool) -> dict[str, Any]:
    """The named benchmark's result, with the machine that it was measured on."""
    module = f"benchmarks.{name}"
    start, before = machine.load(), machine.source_digest()
    turns = 1 if quick else EVERY[name]
    runs = [fresh.call(module, "run", turn=turn, quick=quick) for turn in range(turns)]
    result = runs[0] if name == "peers" else timing.combine(runs)
    about = {"benchmark": name, "about": _first_line(module), "machine": machine.description()}
    if before != about["machine"]["gradtap_source"]:
        raise SystemExit("gradtap's source changed while it was measured; nothing is kept")
    return about | {"load_before": start, "load_after": machine.load()} | result


def _first_line(module: str) -> str:
    """The module's own description, read without running it: the driver stays small (see `fresh`)."""
    import ast

    spec = importlib.util.find_spec(module)
    source = Path(spec.origin).read_text(encoding="utf-8")
    return ast.get_docstring(ast.parse(source)).splitlines()[0]


if __name__ == "__main__":
    main()
