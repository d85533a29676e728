"""gradtap's lines beside Captum's, and what the two differ by."""

from __future__ import annotations

import numpy as np

import gradtap as gt
from benchmarks.migration.compared import apart, correlation, nearest, ratio, sums


def saliency(model, images):
    magnitudes = gt.attribution.saliency(model, images, target=3, absolute=True).only
    slopes = gt.attribution.saliency(model, images, target=3).only
    products = gt.attribution.activation_x_gradient(model, images, target=3).only
    return magnitudes, slopes, products


def logits(model, images):
    logit = gt.targets.class_score(3, logits=True)
    slopes = gt.attribution.saliency(model, images, target=logit).only
    return slopes


def grad_cam(model, images):
    plain = gt.attribution.grad_cam(model, images, target=3, at="conv3", relu=False).only
    positive = gt.attribution.grad_cam(model, images, target=3, at="conv3").only
    enlarged = {"upsample": "input", "interpolation": "nearest"}
    maps = gt.attribution.grad_cam(model, images, target=3, at="conv3", **enlarged).only
    return plain, positive, maps


def integrated_gradients(model, images):
    found = gt.attribution.integrated_gradients(model, images, target=3, steps=50)
    values, deltas = found.only, found.delta
    trapezoid = gt.attribution.integrated_gradients(model, images, target=3, steps=50, rule="trapezoid").only
    return values, deltas, trapezoid


def beside_skip(skip, images):
    found = gt.attribution.integrated_gradients(skip, images, target=3, at="conv2", steps=50)
    values, deltas = found.only, found.delta
    return values, deltas


def conductance(model, images):
    found = gt.attribution.conductance(model, images, target=3, at="conv2", steps=50)
    values, deltas = found.only, found.delta
    as_there = gt.attribution.conductance(model, images, target=3, at="conv2", steps=50, rule="difference").only
    return values, deltas, as_there


def neuron(model, images):
    slopes = gt.attribution.saliency(model, images, target=gt.targets.neuron("conv3", (8, 9, 5))).only
    return slopes


def smooth(model, images):
    span = float(np.ptp(images[0]))  # noise here is a share of the range
    slopes = gt.attribution.smooth_grad(model, images, target=3, samples=400, noise=0.1 / span, seed=0).only
    return slopes


def by_rules(model, images):
    guided = gt.attribution.guided_backprop(model, images, target=3).only
    logit = gt.targets.class_score(3, logits=True)
    found = gt.attribution.deep_lift(model, images, target=logit)
    lifted, deltas = found.only, found.delta
    return guided, lifted, deltas


def functions(model, images):
    logit = gt.targets.class_score(3, logits=True)
    lifted = gt.attribution.deep_lift(model, images, target=logit).only
    products = gt.attribution.activation_x_gradient(model, images, target=logit).only
    return lifted, products


def twice(shared, images):
    calls = ["conv3[0]:preactivation", "conv3[1]:preactivation"]
    found = gt.attribution.activation_x_gradient(shared, images, target=3, at=calls)
    first, second = (found[call] for call in calls)
    return first, second


def _saliency(theirs, ours):
    for name, one, other in zip(("magnitudes", "slopes", "products"), theirs, ours, strict=True):
        yield apart(one, other, name)


def _grad_cam(theirs, ours):
    for name, one, other in zip(("plain", "positive", "maps"), theirs, ours, strict=True):
        yield apart(one[..., 0], other, name)


def _integrated_gradients(theirs, ours):
    yield apart(theirs[0], ours[0], "values")
    yield from _deltas(theirs, ours)
    yield "trapezoid: " + ratio(theirs[2], ours[2])


def _beside_skip(theirs, ours):
    yield apart(theirs[0], ours[0], "values")
    yield from _deltas(theirs, ours)


def _deltas(theirs, ours):
    yield "deltas: theirs {}, ours {}".format(*(" ".join(f"{v:.1e}" for v in side[1]) for side in (theirs, ours)))


def _conductance(theirs, ours):
    yield apart(theirs[0], ours[0], "values")
    yield apart(theirs[0], ours[2], "theirs beside as_there")
    yield f"sums: theirs {sums(theirs[0])}, ours {sums(ours[0])}"
    yield from _deltas(theirs, ours)


def _smooth(theirs, ours):
    yield f"slopes: correlation {correlation(theirs[1], ours[0]):.4f}, other draws"
    yield "sum of magnitudes: theirs, its default {:.4f}; theirs, of slopes {:.4f}; ours {:.4f}".format(
        *(float(np.abs(each).sum()) for each in (theirs[0], theirs[1], ours[0]))
    )


def _by_rules(theirs, ours):
    yield apart(theirs[0], ours[0], "guided")
    yield apart(theirs[1], ours[1], "lifted")
    yield "deltas: theirs {}, ours {}; theirs with the copy {}".format(
        *(" ".join(f"{v:.1e}" for v in each) for each in (theirs[2], ours[2], theirs[4]))
    )
    yield apart(theirs[3], ours[1], "copied, beside our lifted")


def _functions(theirs, ours):
    yield apart(theirs[1], theirs[0], "theirs, lifted beside products")
    yield apart(theirs[1], ours[1], "products")
    yield apart(theirs[0], ours[0], "lifted")


def _twice(theirs, ours):
    yield "theirs: " + nearest(theirs[0], {"the first": ours[0], "the second": ours[1]})
