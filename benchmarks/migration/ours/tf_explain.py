"""gradtap's lines beside tf-explain's, and what the two differ by."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

import gradtap as gt
from benchmarks.migration.compared import apart, correlation, sums
from benchmarks.migration.networks import images, network


def grad_cam(model, images):
    slopes = gt.gradients(model, images, target=3, at="conv3")
    a, g = slopes.activations["conv3"], slopes["conv3"]
    guided = np.sum(a * np.mean(np.where((a > 0) & (g > 0), g, 0), axis=(1, 2), keepdims=True), axis=-1)
    plain = gt.attribution.grad_cam(model, images, target=3, at="conv3", relu=False).only
    return guided, plain


def vanilla_gradients(model, images):
    logit = gt.targets.class_score(3, logits=True)
    slopes = gt.attribution.saliency(model, images, target=logit).only
    return slopes


def integrated_gradients(model, images):
    mean = gt.attribution.integrated_gradients(model, images, target=3, steps=50, multiply=False).only
    values = gt.attribution.integrated_gradients(model, images, target=3, steps=50).only
    brighter = gt.attribution.integrated_gradients(model, 4 * images, target=3, steps=50).only
    return mean, values, brighter


def smooth_grad(model, images):
    loss = gt.targets.loss("sparse_categorical_crossentropy", np.array([3, 3]))
    span = float(np.ptp(images[0]))  # noise here is a share of the range
    of_loss = gt.attribution.smooth_grad(model, images, target=loss, samples=400, noise=0.1 / span, seed=0).only
    of_class = gt.attribution.smooth_grad(model, images, target=3, samples=400, noise=0.1 / span, seed=0).only
    return of_loss, of_class


def occlusion(model, images):
    lost = gt.attribution.occlusion(model, images, target=3, window=8, value=127.5).only
    grey = gt.attribution.occlusion(model, images, target=3, window=8, value=0.5).only
    return lost, grey


def activations(model, images):
    values = gt.activations(model, images, at="conv3")["conv3"]
    return values


def _grad_cam(theirs, ours):
    yield f"picture: {theirs[0].dtype} {theirs[0].shape}"
    yield apart(theirs[1], ours[0], "guided, its default")
    yield apart(theirs[2], ours[1], "use_guided_grads=False")
    yield f"its default beside Grad-CAM: correlation {correlation(theirs[1], theirs[2]):.4f}"


def _vanilla_gradients(theirs, ours):
    yield apart(theirs[1], ours[0], "slopes")
    grey = np.sum(np.abs(ours[0]), axis=-1)
    standard = (grey - grey.mean()) / max(grey.std(), grey.size**-0.5)
    grid = np.concatenate(np.clip(255 * standard, 0, 255).astype("uint8"), axis=1)
    same = np.mean(grid == theirs[0][: grid.shape[0], : grid.shape[1]])
    yield f"picture: {theirs[0].dtype} {theirs[0].shape}"
    yield f"{same:.1%} of its bytes are our slopes, summed over the colours, standardised, times 255, cut to 0..255"
    yield f"of those {np.mean(grid == 0):.0%} are black, and the brightest is {grid.max()}"


def _integrated_gradients(theirs, ours):
    yield f"picture: {theirs[0].dtype} {theirs[0].shape}"
    yield apart(theirs[1], ours[0], "values beside `mean`") + ": other points on the path"
    model = network()
    for what, factor, number in (("images", 1, 1), ("4 * images", 4, 2)):
        change = np.asarray(model(factor * images) - model(np.zeros_like(images)))[:, 3:4]
        both = f"sums of theirs {sums(theirs[number])}, of ours {sums(ours[number])}"
        yield f"{what:11s} score's change {sums(change)}, {both}"


def _smooth_grad(theirs, ours):
    yield f"theirs beside of_loss:  correlation {correlation(theirs[1], ours[0]):.4f}, " + _size(theirs[1], ours[0])
    yield f"theirs beside of_class: correlation {correlation(theirs[1], ours[1]):.4f}, " + _size(theirs[1], ours[1])


def _size(theirs, ours):
    return f"size {np.abs(theirs).sum() / np.abs(ours).sum():.3f} times"


def _occlusion(theirs, ours):
    scores = np.asarray(network()(images))[:, 3]
    # Its map has one value for each window, resized as tf.image does; the middles of our windows show ours.
    windows = np.asarray(ours[0])[:, 4::8, 4::8]
    expected = tf.image.resize(1 - (scores[:, None, None] - windows)[..., None], (32, 32))[..., 0]
    yield apart(theirs[1], np.asarray(expected), "values, beside 1 - (score - lost), resized as it does")


def _activations(theirs, ours):
    yield f"picture: {theirs[0].dtype} {theirs[0].shape}"
    yield apart(theirs[1], ours[0], "values")


def _on_kind(model, images, tap):
    return gt.attribution.grad_cam(model, images, target=3, at=tap, relu=False).only


def _input_on_kind(model, images):
    return gt.attribution.saliency(model, images, target=3).only
