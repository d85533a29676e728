"""Completeness error against steps, for gradtap's rules and Captum's and alibi's, on a smooth and a ReLU network.

Captum's rules are restated here: alibi's file of rules is a copy of Captum's, so one curve is both. In float64,
relative to the change of the target, the mean over the examples.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import gradtap as gt
from benchmarks import models, timing

EXAMPLES, CLASS, HIDDEN = 64, 3, "hidden"
COUNTS = (2, 3, 5, 8, 12, 16, 20, 30, 50, 100)
RULES = ("gausslegendre", "riemann_left", "riemann_right", "riemann_middle", "riemann_trapezoid")
#: What rounding leaves of sums in float64, and what a third of Captum's 50 steps is.
FLOOR, THIRD = 1e-12, 16


def run(turn: int = 0, quick: bool = False) -> dict[str, Any]:
    counts = COUNTS[:4] if quick else COUNTS
    tables, facts = [], []
    for title, activation in (("tanh and gelu", ("tanh", "gelu")), ("ReLU", ("relu", "relu"))):
        model, x = _network(activation), _examples()
        paths = _path_errors(model, x, counts)
        flows = _flow_errors(model, x, counts)
        tables += [_table(f"integrated gradients, {title}", counts, paths)]
        tables += [_table(f"conductance, {title}", counts, flows)]
        facts += _path_facts(title, paths) + _flow_facts(title, counts, flows)
    return {"pairs": [], "facts": facts, "tables": tables}


def _network(activations: tuple[str, str]) -> keras.Model:
    """Three convolutions and a dense layer; offsets away from zero, or a ReLU network would be homogeneous."""
    keras.utils.set_random_seed(models.SEED)
    first, second = activations
    offsets = {"bias_initializer": keras.initializers.RandomNormal(stddev=0.3), "dtype": "float64"}
    x = inputs = keras.Input((12, 12, 3), dtype="float64")
    x = keras.layers.Conv2D(16, 3, activation=first, **offsets)(x)
    x = keras.layers.Conv2D(24, 3, strides=2, activation=second, name=HIDDEN, **offsets)(x)
    x = keras.layers.Conv2D(32, 3, activation=second, **offsets)(x)
    x = keras.layers.Dense(32, activation=first, **offsets)(keras.layers.Flatten(dtype="float64")(x))
    return keras.Model(inputs, keras.layers.Dense(10, **offsets)(x))


def _examples() -> np.ndarray:
    return 2.0 * np.random.default_rng(models.SEED).normal(size=(EXAMPLES, 12, 12, 3))


def _path_errors(model: keras.Model, x: np.ndarray, counts: Sequence[int]) -> dict[str, list[float]]:
    """Of integrated gradients at the input; ours through the public function, theirs by their nodes and weights."""

    @tf.function
    def speed(a: tf.Tensor) -> tf.Tensor:
        """How fast the target changes at a place of the path: what a rule integrates."""
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            points = a * x
            tape.watch(points)
            score = model(points)[:, CLASS]
        return tf.reduce_sum(tape.gradient(score, points) * x, (1, 2, 3))

    change = (model(x) - model(0 * x))[:, CLASS].numpy()
    found: dict[str, list[float]] = {}
    for rule in RULES:
        ours = rule.replace("riemann_trapezoid", "trapezoid")
        found[f"gradtap {ours}"] = [
            _error(
                gt.attribution.integrated_gradients(model, x, target=CLASS, steps=n, rule=ours).delta + change, change
            )
            for n in counts
        ]
        found[f"Captum, alibi {rule}"] = []
        for n in counts:
            nodes, weights = _captum_rule(rule, n)
            integral = sum(w * speed(tf.constant(a)).numpy() for a, w in zip(nodes, weights, strict=True))
            found[f"Captum, alibi {rule}"].append(_error(integral, change))
    return found


def _captum_rule(rule: str, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Its multipliers and step sizes. Those of the trapezoid sum to (n - 1) / n, not to one."""
    if rule == "gausslegendre":
        nodes, weights = np.polynomial.legendre.leggauss(n)
        return (1 + nodes) / 2, weights / 2
    weights = np.full(n, 1 / n)
    if rule == "riemann_trapezoid":
        weights[[0, -1]] /= 2
    ends = {
        "riemann_left": (0, 1 - 1 / n),
        "riemann_right": (1 / n, 1),
        "riemann_middle": (1 / (2 * n), 1 - 1 / (2 * n)),
        "riemann_trapezoid": (0, 1),
    }
    return np.linspace(*ends[rule], n), weights


def _flow_errors(model: keras.Model, x: np.ndarray, counts: Sequence[int]) -> dict[str, list[float]]:
    """Of conductance at a hidden layer. Captum's sum is our rule "difference", which its goldens agree with."""
    change = (model(x) - model(0 * x))[:, CLASS].numpy()
    return {
        name: [
            _error(
                gt.attribution.conductance(model, x, target=CLASS, at=HIDDEN, steps=n, rule=rule).delta + change, change
            )
            for n in counts
        ]
        for name, rule in (
            ("gradtap gausslegendre", "gausslegendre"),
            ("gradtap riemann_middle", "riemann_middle"),
            ("Captum", "difference"),
        )
    }


def _error(integral: Any, change: np.ndarray) -> float:
    return float(np.mean(np.abs(np.asarray(integral) - change)) / np.mean(np.abs(change)))


def _path_facts(title: str, errors: dict[str, list[float]]) -> list[dict[str, Any]]:
    """The largest ratio of our error to theirs, over all numbers of steps."""

    def worst(ours: list[float], theirs: list[float]) -> float:
        return max(max(o, FLOOR) / max(t, FLOOR) for o, t in zip(ours, theirs, strict=True))

    same = [
        worst(errors[f"gradtap {rule.replace('riemann_trapezoid', 'trapezoid')}"], errors[f"Captum, alibi {rule}"])
        for rule in RULES
    ]
    ours, theirs = ([e for n, e in errors.items() if n.startswith(who)] for who in ("gradtap", "Captum"))
    best, others = ([min(column) for column in zip(*side, strict=True)] for side in (ours, theirs))
    default = errors["gradtap gausslegendre"]
    what = f"integrated gradients, {title}, largest ratio over the steps:"
    # Equal rules give equal sums but for the order in which they are added.
    return [
        timing.fact(f"{what} each rule of ours / theirs of that name", round(max(same), 4), "", 1.0),
        timing.fact(f"{what} our best rule / their best", round(worst(best, others), 4), "", 1.0),
        timing.fact(f"{what} our default / their best", round(worst(default, others), 4), "", 1.0),
    ]


def _flow_facts(title: str, counts: Sequence[int], errors: dict[str, list[float]]) -> list[dict[str, Any]]:
    reached = errors["Captum"][counts.index(50)] if 50 in counts else errors["Captum"][-1]
    facts = []
    for name in ("gradtap gausslegendre", "gradtap riemann_middle"):
        steps = next((n for n, e in zip(counts, errors[name], strict=True) if e <= reached), 10 * counts[-1])
        what = f"conductance, {title}: steps of {name} for Captum's error at 50"
        facts.append(timing.fact(what, steps, "", THIRD if name.endswith("legendre") else None))
    return facts


def _table(title: str, counts: Sequence[int], errors: dict[str, list[float]]) -> dict[str, Any]:
    return {"title": title, "counts": list(counts), "errors": errors}
