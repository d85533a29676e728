"""ResNet50: peak resident memory (`ru_maxrss`) of fresh processes, gradtap against hand-written tapes."""

from __future__ import annotations

from typing import Any

from benchmarks import alternately, timing

LIMIT = 1.1


def run(turn: int = 0, quick: bool = False) -> dict[str, Any]:
    pairs, facts = [], []
    for batch in (4,) if quick else (4, 16):
        ways = ["gradtap", "compiled", "eager"]
        samples, error = alternately.measure(ways, rounds=1 if quick else 5, turn=turn, batch=batch, calls=3)
        peak = {way: [sample["peak"] for sample in samples[way]] for way in ways}
        above = {way: [sample["peak"] - sample["before"] for sample in samples[way]] for way in ways}
        for other in ("compiled", "eager"):
            what, limit = f"gradtap / {other} hand tape, batch {batch}", LIMIT if other == "compiled" else None
            subject, reference = peak["gradtap"], peak[other]
            pairs.append(timing.pair(what, subject, reference, unit="B", limit=limit, difference=error["gradtap"]))
        what = f"the same above the built model: gradtap / compiled, batch {batch}"
        pairs.append(timing.pair(what, above["gradtap"], above["compiled"], unit="B"))
        built = samples["compiled"][0]["before"]
        facts.append(timing.fact(f"peak of the process once the model is built, batch {batch}", built, "B"))
    return {"pairs": pairs, "facts": facts}
