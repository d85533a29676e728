"""Run the peers' lines and gradtap's, and write what they differ by into the pages: see the package."""

from __future__ import annotations

import sys
import tempfile
from typing import Any

from benchmarks import fresh
from benchmarks.migration import pages


def main(peers: list[str]) -> None:
    for peer in peers or pages.PEERS:
        with tempfile.TemporaryDirectory() as folder:
            fresh.call("benchmarks.migration.here", "prepare", peer=peer, folder=folder)
            there = _there(peer, folder, pages.ENVIRONMENTS[peer])
            if peer in pages.TODAY:
                with tempfile.TemporaryDirectory() as other:
                    today = _there(peer, other, pages.TODAY[peer])
                names = pages.lines(f"benchmarks.migration.theirs.{peer}")
                there["today"] = {name: today["raised"][name] for name in names}
            figures = fresh.call("benchmarks.migration.here", "run", peer=peer, folder=folder, there=there)
        for name, text in figures.items():
            print(f"-- {peer}, {name}\n{text}", flush=True)
        path = pages.page(peer)
        if path.exists():
            path.write_text(pages.written(figures, path.read_text(encoding="utf-8")), encoding="utf-8")


def _there(peer: str, folder: str, environment: str) -> Any:
    python = fresh.TREE / environment / "bin" / "python"
    return fresh.call_in(str(python), {}, "benchmarks.migration.there", "run", peer=peer, folder=folder)


if __name__ == "__main__":
    main(sys.argv[1:])
