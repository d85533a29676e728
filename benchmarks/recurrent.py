"""LSTM(64), batch 8: 1,000 steps against 10, and every state of 1,000 steps against a hand-written compiled tape."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

import gradtap as gt
from benchmarks import models, timing, values
from gradtap.graph.inputs import read_inputs

SHORT, LONG, BATCH, FEATURES, UNITS = 10, 1000, 8, 16, 64
STATES = ["rnn:hidden", "rnn:cell"]
LIMIT = 1.10


def run(turn: int = 0, quick: bool = False) -> dict[str, Any]:
    short, long = _model(SHORT), _model(LONG)
    x, y = models.images(BATCH, SHORT, FEATURES), models.images(BATCH, LONG, FEATURES)
    rounds = 3 if quick else 20
    tracing = timing.interleave({"long": _tracing(long, y), "short": _tracing(short, x)}, 2 if quick else 8, turn)
    hand = tf.function(_by_hand(long))
    calls = {
        "states": lambda: gt.gradients(long, y, target=1, at=STATES),
        "short": lambda: gt.gradients(short, x, target=1, at=STATES),
        "input": lambda: gt.gradients(long, y, target=1, at=":input"),
        "hand": lambda: hand(y),
    }
    start = time.perf_counter()
    first = calls["states"]()
    first_call = time.perf_counter() - start
    seconds = timing.interleave(calls, rounds, turn)
    error = values.difference(calls["input"]().only, calls["hand"]())
    # What a last layer is given is the last hidden state, so the gradient there is a column of its weights.
    ends = values.difference(first["rnn:hidden"][:, -1], tf.repeat(long.layers[-1].kernel[None, :, 1], BATCH, 0))
    pairs = [
        timing.pair("trace, states and all: 1,000 steps / 10 steps", tracing["long"], tracing["short"], limit=1.5),
        timing.pair(
            "every hidden and cell state: 1,000 steps / 10 steps", seconds["states"], seconds["short"], limit=100
        ),
        timing.pair(
            "gradtap / hand: the input of 1,000 steps", *_both(seconds, "input"), limit=LIMIT, difference=error
        ),
        timing.pair("every state with gradtap / the input alone by hand", *_both(seconds, "states"), difference=ends),
    ]
    traced = {SHORT: _tracing(short, x)(), LONG: _tracing(long, y)()}
    ops = [timing.fact(f"ops of the traced graph, {n:,} steps", g.forward_ops, "ops") for n, g in traced.items()]
    return {"pairs": pairs, "facts": [*ops, timing.fact("first call at 1,000 steps, trace and all", first_call, "s")]}


def _model(steps: int) -> keras.Model:
    keras.utils.set_random_seed(models.SEED)
    rnn = keras.layers.LSTM(UNITS, name="rnn")
    return keras.Sequential([keras.Input((steps, FEATURES)), rnn, keras.layers.Dense(4, name="scores")])


def _tracing(model: keras.Model, x: tf.Tensor) -> Callable[[], Any]:
    def trace() -> Any:
        kept = gt.trace(model)
        kept.forget()
        feeds = read_inputs(x, kept.source.declared_inputs(), kept.source.float_dtype())
        return kept.graphs.forward_graph(kept.source, feeds, False, states=True)

    return trace


def _by_hand(model: keras.Model) -> Callable[[tf.Tensor], tf.Tensor]:
    def slope(x: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            tape.watch(x)
            score = model(x, training=False)[:, 1]
        return tape.gradient(score, x)

    return slope


def _both(seconds: dict[str, list[float]], name: str) -> tuple[list[float], list[float]]:
    return seconds[name], seconds["hand"]
