"""gradtap's lines beside tf-keras-vis's, and what the two differ by."""

from __future__ import annotations

import numpy as np

import gradtap as gt
from benchmarks.migration.compared import apart, correlation, ratio, scaled
from benchmarks.migration.networks import network

#: What it adds to a range before it divides by it.
EPSILON = 1e-7


def grad_cam(model, images):
    maps = gt.attribution.grad_cam(model, images, target=3, at="conv3", upsample="input").only
    plain = gt.attribution.grad_cam(model, images, target=3, at="conv3").only
    return maps, plain


def logits(model, images):
    logit = gt.targets.class_score(3, logits=True)
    ours = gt.attribution.grad_cam(model, images, target=logit, at="conv3").only
    return ours


def other_maps(model, images):
    plus_plus = gt.attribution.grad_cam_plus_plus(model, images, target=3, at="conv3").only
    layer = gt.attribution.layer_cam(model, images, target=3, at="conv3").only
    by_score = gt.attribution.score_cam(model, images, target=3, at="conv3").only
    return plus_plus, layer, by_score


def saliency(model, images):
    maps = np.max(gt.attribution.saliency(model, images, target=3, absolute=True).only, axis=-1)
    slopes = gt.attribution.saliency(model, images, target=3).only
    return maps, slopes


def smooth(model, images):
    ours = gt.attribution.smooth_grad(model, images, target=3, samples=400, noise=0.2, seed=0).only
    return ours


def maximisation(model):
    channel = gt.targets.channel("conv3", 5)
    ours = gt.visualise(model, target=channel, shape=(32, 32, 3), steps=100).images
    return ours


def _grad_cam(theirs, ours):
    from scipy.ndimage import zoom

    yield apart(theirs[1], ours[1], "plain")
    yield apart(theirs[0], scaled(ours[0]), "maps, ours scaled to 0..1")
    as_there = scaled(zoom(ours[1], (1, 2, 2), order=1), EPSILON)
    yield apart(theirs[0], as_there, "maps, our plain resized and scaled as it does")


def _other_maps(theirs, ours):
    for name, one, other in zip(("plus_plus", "layer", "by_score"), theirs, ours, strict=True):
        yield f"{name}: " + ratio(one, other)


def _saliency(theirs, ours):
    yield apart(theirs[1], ours[1], "slopes")
    yield apart(theirs[0], scaled(ours[0]), "maps, ours scaled to 0..1")
    yield apart(theirs[0], scaled(ours[0], EPSILON), "maps, ours scaled as it does")


def _smooth(theirs, ours):
    yield f"signed: correlation with ours {correlation(theirs[1], ours[0]):.4f}, other draws"
    magnitudes = [float(np.abs(maps).sum()) for maps in (theirs[0], theirs[1], ours[0])]
    yield "sum of magnitudes: theirs {:.4f}, signed {:.4f}, ours {:.4f}".format(*magnitudes)


def _maximisation(theirs, ours):
    model = network()
    for whose, found in (("theirs", theirs[0]), ("ours", ours[0])):
        mean = np.mean(gt.activations(model, np.asarray(found, "float32"), at="conv3").only[..., 5])
        yield f"{whose:7s} in {found.min():.3f}..{found.max():.3f}, mean activation of the channel {mean:.4f}"


def _on_kind(model, images, tap):
    return gt.attribution.grad_cam(model, images, target=3, at=tap).only


def _input_on_kind(model, images):
    return saliency(model, images)[1]
