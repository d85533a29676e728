"""ResNet50, batch 4: the first call in a fresh process, gradtap against the hand-written `tf.function`.

The hand-written side's split model is made before its clock starts; gradtap's clock runs over all that it does.
"""

from __future__ import annotations

import statistics
from typing import Any

from benchmarks import alternately, timing

LIMIT = 1.5


def run(turn: int = 0, quick: bool = False) -> dict[str, Any]:
    samples, error = alternately.measure(["gradtap", "compiled"], rounds=2 if quick else 9, turn=turn, batch=4, calls=1)
    ours, hand = samples["gradtap"], samples["compiled"]
    first, fresh, processor, hand_processor = (
        [sample[key] for sample in side] for key in ("first", "processor") for side in (ours, hand)
    )
    with_split = [sample["first"] + sample["prepare"] for sample in hand]
    pairs = [
        timing.pair("gradtap / hand: first call", first, fresh, limit=LIMIT, difference=error["gradtap"]),
        timing.pair("the same, the hand's split model included", first, with_split),
        timing.pair("the same in processor time, which other jobs hardly touch", processor, hand_processor),
    ]
    importing = statistics.median(sample["prepare"] for sample in ours)
    return {"pairs": pairs, "facts": [timing.fact("import gradtap, TensorFlow there already", importing, "s")]}
