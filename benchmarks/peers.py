"""The same gradients from gradtap, keract, tf-keras-vis, tf-explain and Xplique, beside the hand-written tape.

Times are ratios to the compiled hand-written tape, all tools in turn in one process for each model. Values are
compared with the eager hand-written tape. A tool that raises is quoted; where a user has a known way round, it is
taken and named.
"""

from __future__ import annotations

import statistics
from typing import Any

from benchmarks import fresh


def run(turn: int = 0, quick: bool = False) -> dict[str, Any]:
    from benchmarks.peer_cases import CASES

    cases = [fresh.call("benchmarks.peers", "one_case", name=name, turn=turn, quick=quick) for name in CASES]
    return {"cases": cases, "keract_without_eager": fresh.call("benchmarks.peers", "keract_without_eager")}


def one_case(name: str, turn: int, quick: bool) -> dict[str, Any]:
    import tensorflow as tf

    from benchmarks import models, timing
    from benchmarks.peer_calls import TOOLS
    from benchmarks.peer_cases import CASES

    case = CASES[name]
    x = models.images(*case.shape)
    truths = case.hand(case.build())(x)
    compiled = tf.function(case.hand(case.build()))
    calls: dict[str, timing.Call] = {"hand": lambda: compiled(x)}
    entries = []
    for tool in TOOLS:
        entry, gradient = _first_answer(tool, case, x, truths)
        entries.append(entry)
        if gradient is not None:
            calls[tool] = lambda gradient=gradient: gradient(x)
    seconds = timing.interleave(calls, 3 if quick else case.rounds, turn)
    hand = statistics.median(seconds["hand"])
    for entry in entries:
        if samples := seconds.get(entry["tool"]):
            single = sorted(s / h for s, h in zip(samples, seconds["hand"], strict=True))
            entry["ratio"] = round(statistics.median(samples) / hand, 3)
            entry["ratio_quartiles"] = [round(value, 3) for value in statistics.quantiles(single, n=4)[::2]]
    return {"case": name, "title": case.title, "rounds": len(seconds["hand"]), "hand_s": hand, "tools": entries}


def _first_answer(tool: str, case: Any, x: Any, truths: Any) -> tuple[dict[str, Any], Any]:
    """Try the tool's own way on a model of its own, then the way round it; what came of it, and the call to time."""
    from benchmarks.peer_calls import DETOURS, TOOLS
    from benchmarks.values import verdict

    entry: dict[str, Any] = {"tool": tool}
    ways = [("", TOOLS[tool])]
    if case.layer not in {layer.name for layer in case.build().layers} and tool in DETOURS:
        ways.append(DETOURS[tool])
    for detour, way in ways:
        try:
            gradient = way(case.build(), case)
            found = gradient(x)
        except Exception as error:  # whatever a peer raises is its result here
            if tool == "gradtap":
                raise
            entry["raises"] = _quote(error)
            continue
        entry["values"], entry["error"] = verdict(found, truths)
        if detour:
            entry["way_round"] = detour
        return entry, gradient
    return entry, None


def keract_without_eager() -> str:
    """What keract says once eager execution is off, as its message asks."""
    import tensorflow as tf

    tf.compat.v1.disable_eager_execution()
    import keract
    import numpy as np

    from benchmarks.models import functional_cnn

    model = functional_cnn()
    model.compile(optimizer="sgd", loss="mse")
    x, y = np.ones((1, 28, 28, 1), "float32"), np.ones((1, 10), "float32")
    try:
        keract.get_gradients_of_activations(model, x, y, layer_names="conv1")
    except Exception as error:  # the message is the result
        return _quote(error)
    return "it ran"


def _quote(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else ''}"[:160].replace("`", "'")
