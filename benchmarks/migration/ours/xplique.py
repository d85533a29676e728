"""gradtap's lines beside Xplique's, and what the two differ by."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

import gradtap as gt
from benchmarks.migration.compared import apart, correlation, ratio, sums
from benchmarks.migration.networks import images, network


def saliency(model, images):
    channels = gt.attribution.saliency(model, images, target=3, absolute=True).only
    maps = np.max(channels, axis=-1, keepdims=True)
    return maps, channels


def integrated_gradients(model, images):
    channels = gt.attribution.integrated_gradients(model, images, target=3, steps=50, rule="trapezoid").only
    maps = np.sum(channels, axis=-1)
    return maps, channels


def grad_cam(model, images):
    maps = gt.attribution.grad_cam(model, images, target=3, at="conv3", upsample="input").only
    plus_plus = gt.attribution.grad_cam_plus_plus(model, images, target=3, at="conv3", upsample="input").only
    plain = gt.attribution.grad_cam(model, images, target=3, at="conv3").only
    return maps, plus_plus, plain


def logits(model, images):
    logit = gt.targets.class_score(3, logits=True)
    of_logit = gt.attribution.saliency(model, images, target=logit, absolute=True).only
    of_probability = gt.attribution.saliency(model, images, target=3, absolute=True).only
    return of_logit, of_probability


def smooth_grad(model, images):
    span = float(np.ptp(images[0]))  # noise here is a share of the range
    ask = {"target": 3, "samples": 400, "noise": 0.1 / span, "seed": 0}
    smooth = gt.attribution.smooth_grad(model, images, **ask).only
    variance = gt.attribution.smooth_grad(model, images, statistic="variance", **ask).only
    return smooth, variance


def guided(model, images):
    guided = gt.attribution.guided_backprop(model, images, target=3).only
    deconvolved = gt.attribution.deconvnet(model, images, target=3).only
    return guided, deconvolved


def occlusion(model, images):
    apart = gt.attribution.occlusion(model, images, target=3, window=8).only
    overlapping = gt.attribution.occlusion(model, images, target=3, window=8, stride=4).only
    return apart, overlapping


def deletion(model, images):
    maps = np.max(gt.attribution.saliency(model, images, target=3, absolute=True).only, axis=-1)
    curves = gt.evaluate.deletion(model, images, {":input": maps}, target=3, steps=16)
    ours = np.mean(curves.area.only)
    return ours


def _saliency(theirs, ours):
    yield apart(theirs[0], ours[0], "maps")
    yield apart(theirs[1], ours[1], "channels")


def _integrated_gradients(theirs, ours):
    yield apart(theirs[1], ours[1], "channels, reducer=None")
    yield "maps, its default: " + ratio(theirs[0][..., 0], ours[0])
    model = network()
    change = np.asarray(model(images) - model(np.zeros_like(images)))[:, 3]
    yield f"change of the score    {sums(change[:, None])}"
    yield f"sums of its default    {sums(theirs[0])}"
    yield f"sums of reducer=None   {sums(theirs[1])}"
    yield f"sums of ours           {sums(ours[1])}"


def _grad_cam(theirs, ours):
    bicubic = np.asarray(tf.image.resize(ours[2][..., None], (32, 32), "bicubic"))
    yield apart(theirs[0], bicubic, "maps, our plain resized as it does")
    yield apart(theirs[0][..., 0], ours[0], "maps, bicubic there and bilinear here")
    smallest = [f"{maps.min() / maps.max():.3f}" for maps in (theirs[0], ours[0])]
    yield "maps, smallest over largest value: theirs {}, ours {}".format(*smallest)
    plain = gt.attribution.grad_cam_plus_plus(network(), images, target=3, at="conv3").only
    bicubic = np.asarray(tf.image.resize(plain[..., None], (32, 32), "bicubic"))
    yield "plus_plus, our plain resized as it does: " + ratio(theirs[1], bicubic)


def _logits(theirs, ours):
    yield apart(theirs[0], ours[1], "asked, beside of_probability")
    yield apart(theirs[0], ours[0], "asked, beside of_logit")
    yield apart(theirs[1], ours[0], "by_hand, beside of_logit")


def _smooth_grad(theirs, ours):
    yield f"smooth: correlation {correlation(theirs[0], ours[0]):.4f}, other draws"
    size = theirs[1].mean() / ours[1].mean()
    yield f"variance: correlation {correlation(theirs[1], ours[1]):.4f}, size {size:.3f} times"


def _guided(theirs, ours):
    yield apart(theirs[0], ours[0], "guided")
    yield apart(theirs[1], ours[1], "deconvolved")


def _occlusion(theirs, ours):
    yield apart(theirs[0][..., 0], ours[0], "apart")
    ratios = theirs[1][..., 0] / ours[1]
    yield "overlapping: theirs over ours is " + ", ".join(f"{v:g}" for v in sorted(set(np.round(ratios, 3).ravel())))


def _deletion(theirs, ours):
    yield f"theirs {float(theirs[0]):.6f}, ours {float(ours[0]):.6f}"


def _on_kind(model, images, tap):
    maps = gt.attribution.grad_cam(model, images, target=3, at=tap).only
    return tf.image.resize(maps[..., None], (32, 32), "bicubic")


def _input_on_kind(model, images):
    return saliency(model, images)[1]
