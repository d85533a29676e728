"""gradtap's lines beside keract's, and what the two differ by."""

from __future__ import annotations

import re

import numpy as np

import gradtap as gt
from benchmarks.migration.compared import apart, ratio


def activations(model, images):
    ours = gt.activations(model, images, at="conv3")["conv3"]
    return ours


def all_activations(model, images):
    ours = gt.activations(model, images, at="**")
    return (list(ours), *ours.values())


def gradients(model, images):
    labels = np.eye(10)[[3, 7]]
    loss = gt.targets.loss("categorical_crossentropy", labels)
    ours = gt.gradients(model, images, target=loss, at="conv3")["conv3"]
    return ours


def weights(model, images):
    labels = np.eye(10)[[3, 7]]
    loss = gt.targets.loss("categorical_crossentropy", labels)
    ours = gt.gradients(model, images, target=loss, at=["conv1:kernel", "conv1:bias", "logits:kernel"])
    return (list(ours), *ours.values())


def _all_activations(theirs, ours):
    mine = dict(zip(ours[0], ours[1:], strict=True))
    found = dict(zip(theirs[0], theirs[1:], strict=True))
    both = [name for name in found if name in mine]
    yield f"its keys   {', '.join(found)}"
    yield f"here       {', '.join(mine)}"
    yield from (apart(found[name], mine[name], name) for name in both)


def _gradients(theirs, ours):
    yield ratio(theirs[0], ours[0])


def _weights(theirs, ours):
    # What one process builds a second time has a number behind its name.
    found = {
        re.sub(r"_\d+/|:0", lambda m: "/" * ("/" in m[0]), key): v for key, v in zip(theirs[0], theirs[1:], strict=True)
    }
    for name, value in zip(ours[0], ours[1:], strict=True):
        yield f"{name:14s}" + ratio(found[name.replace(":", "/")], value)


def _on_kind(model, images, tap):
    return gt.activations(model, images, at=tap)[tap]
