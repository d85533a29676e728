"""gradtap's lines beside alibi's, and what the two differ by."""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf

import gradtap as gt
from benchmarks.migration.compared import apart, ratio, sums
from benchmarks.migration.networks import images, network


def at_input(model, images):
    found = gt.attribution.integrated_gradients(model, images, target=3, steps=50)
    values, deltas = found.only, found.delta
    return values, deltas


def baselines(model, images):
    ask = {"target": [3, 7], "baseline": 0.5, "steps": 50, "rule": "trapezoid"}
    values = gt.attribution.integrated_gradients(model, images, **ask).only
    return values


def at_layer(model, images):
    found = gt.attribution.integrated_gradients(model, images, target=3, at="conv3", steps=50)
    values, deltas = found.only, found.delta
    return values, deltas


def layer_inputs(model, images):
    found = gt.attribution.integrated_gradients(model, images, target=3, at="conv3:input", steps=50)
    values = found.only
    return values


def beside_skip(skip, images):
    found = gt.attribution.integrated_gradients(skip, images, target=3, at="conv2", steps=50)
    values, deltas = found.only, found.delta
    return values, deltas


def _at_input(theirs, ours):
    yield apart(theirs[0], ours[0])
    yield from _deltas(theirs, ours)


def _at_layer(theirs, ours):
    yield apart(theirs[0], ours[0])
    yield from _deltas(theirs, ours)


def _deltas(theirs, ours):
    yield "deltas: theirs {}, ours {}".format(*(" ".join(f"{v:.1e}" for v in side[1]) for side in (theirs, ours)))


def _baselines(theirs, ours):
    yield ratio(theirs[0], ours[0])


def _beside_skip(theirs, ours):
    yield apart(theirs[0], ours[0])
    yield apart(theirs[0], _skip_at_zeros(), "theirs beside the path with the skip fed a black image")
    skip = network(skip=True)
    here = gt.activations(skip, np.zeros_like(images), at="conv2")["conv2"]
    whole, without = skip(images), gt.patch(skip, images, {"conv2": here})
    yield f"sums of theirs                           {sums(theirs[0])}"
    yield f"sums of ours                             {sums(ours[0])}"
    yield f"F(x) - F(x, conv2 as for a black image)  {sums(np.asarray(whole - without)[:, 3:4])}"
    yield f"F(x) - F(black image)                    {sums(np.asarray(whole - skip(np.zeros_like(images)))[:, 3:4])}"
    yield from _deltas(theirs, ours)


def _skip_at_zeros():
    """By hand: the same path at conv2, but what goes around it is that of a black image."""
    skip = network(skip=True)
    ends = [skip.get_layer(name).output for name in ("conv1", "conv2")]
    head, tail = keras.Model(skip.inputs[0], ends), keras.Model(ends, skip.outputs[0])
    (around, low), (_, high) = head(np.zeros_like(images)), head(images)
    nodes, weights = np.polynomial.legendre.leggauss(50)
    total = 0.0
    for node, weight in zip((nodes + 1) / 2, weights / 2, strict=True):
        with tf.GradientTape() as tape:
            point = low + float(node) * (high - low)
            tape.watch(point)
            score = tail([around, point])[:, 3]
        total = total + float(weight) * tape.gradient(score, point)
    return np.asarray((high - low) * total)


def _on_kind(model, images, tap):
    return gt.attribution.integrated_gradients(model, images, target=3, at=tap, steps=50).only


def _input_on_kind(model, images):
    return at_input(model, images)[0]
