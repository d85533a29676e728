"""Attribution methods restated from their papers, in NumPy around plain tapes: slow, and nothing of ours in them.

A `net` here is a function ``net(x, put)`` that runs a model step by step, puts the values of ``put`` in the place of
the activations of that name, and returns all activations by name, with the scores under ``"scores"``.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import tensorflow as tf


def nodes_and_weights(rule, steps):
    """A quadrature on [0, 1]; Gauss-Legendre by the eigenvalues of Golub and Welsch."""
    if rule == "gausslegendre":
        k = np.arange(1, steps)
        off = k / np.sqrt(4.0 * k**2 - 1)
        values, vectors = np.linalg.eigh(np.diag(off, 1) + np.diag(off, -1))
        return (1 + values) / 2, vectors[0] ** 2
    if rule == "trapezoid":
        weights = np.zeros(steps)
        for i in range(steps - 1):
            weights[[i, i + 1]] += 0.5 / (steps - 1)
        return np.array([i / (steps - 1) for i in range(steps)]), weights
    place = {"riemann_left": 0.0, "riemann_middle": 0.5, "riemann_right": 1.0}[rule]
    return np.array([(i + place) / steps for i in range(steps)]), np.array([1 / steps] * steps)


def picked(scores, classes):
    """The score of one class for each example."""
    return tf.stack([scores[i, k] for i, k in enumerate(classes)])


def activations(net, x, tap):
    """What stands at a tap."""
    return np.asarray(net(x, {})[tap])


def score(net, x, classes, put=None):
    """The target with values put in the place of activations."""
    return np.asarray(picked(net(x, put or {})["scores"], classes))


def slopes(net, x, classes, put):
    """The derivative of the target by each of the values of ``put``, with the others held."""
    values = {name: tf.constant(value) for name, value in put.items()}
    with tf.GradientTape() as tape:
        tape.watch(list(values.values()))
        target = picked(net(x, values)["scores"], classes)
    found = tape.gradient(target, values, unconnected_gradients=tf.UnconnectedGradients.ZERO)
    return {name: value.numpy() for name, value in found.items()}


def slope(net, x, classes, tap, at=None):
    """The derivative of the target by the activations at a tap, there or elsewhere."""
    return slopes(net, x, classes, {tap: activations(net, x, tap) if at is None else at})[tap]


def integrated_gradients(net, x, classes, starts, rule, steps, multiply=True):
    """Of Sundararajan et al.: all taps of ``starts`` move together from there, the rest of the model stays at x."""
    ends = {tap: activations(net, x, tap) for tap in starts}
    totals = dict.fromkeys(starts, 0.0)
    for node, weight in zip(*nodes_and_weights(rule, steps), strict=True):
        found = slopes(net, x, classes, {tap: starts[tap] + node * (ends[tap] - starts[tap]) for tap in starts})
        totals = {tap: total + weight * found[tap] for tap, total in totals.items()}
    return {tap: total * (ends[tap] - starts[tap] if multiply else 1.0) for tap, total in totals.items()}


def conductance(net, x, x0, classes, tap, rule, steps):
    """Of Dhamdhere et al.: the slope at a unit times the rate at which it follows the path of the inputs."""
    total = 0.0
    for node, weight in zip(*nodes_and_weights(rule, steps), strict=True):
        point = tf.constant(x0 + node * (x - x0))
        with tf.autodiff.ForwardAccumulator(point, tf.constant(x - x0)) as forward:
            h = net(point, {})[tap]
        total = total + weight * slope(net, point, classes, tap) * forward.jvp(h).numpy()
    return total


def conductance_by_differences(net, x, x0, classes, tap, steps):
    """Of Shrikumar et al., as Captum has it: slopes times differences between the nodes."""
    nodes, _ = nodes_and_weights("gausslegendre", steps + 1)
    points = [x0 + node * (x - x0) for node in nodes]
    total = 0.0
    for here, there in pairwise(points):
        total = total + slope(net, here, classes, tap) * (activations(net, there, tap) - activations(net, here, tap))
    return total


def internal_influence(net, x, x0, classes, tap, rule, steps):
    """Of Leino et al.: the mean slope at a unit along the path of the inputs."""
    looks = zip(*nodes_and_weights(rule, steps), strict=True)
    return sum(weight * slope(net, x0 + node * (x - x0), classes, tap) for node, weight in looks)


def smooth_grad(net, x, classes, tap, noise, draws):
    """Of Smilkov et al.: slopes with noise added at the tap, as a share of each example's range; one for each draw."""
    h = activations(net, x, tap)
    width = np.array([noise * (one.max() - one.min()) for one in h]).reshape(-1, *[1] * (h.ndim - 1))
    return np.stack([slope(net, x, classes, tap, h + width * draw) for draw in draws])


def expected_gradients(net, x, classes, tap, baselines, shares):
    """Of Erion et al.: one baseline and one share of the way for each draw."""
    h, total = activations(net, x, tap), 0.0
    for baseline, share in zip(baselines, shares, strict=True):
        start = activations(net, baseline[None], tap)
        total = total + (h - start) * slope(net, x, classes, tap, start + share * (h - start))
    return total / len(shares)


def class_map(method, a, g, relu=True):
    """A class activation map of one example: activations and slopes ``(*spatial, channels)``."""
    spatial, channels = a.shape[:-1], a.shape[-1]
    total = np.zeros(spatial)
    for k in range(channels):
        maps, by = a[..., k], g[..., k]
        if method == "grad_cam":
            weight = by.mean()
        elif method == "grad_cam_plus_plus":
            weight = 0.0
            for place in np.ndindex(spatial):
                if by[place] > 0:
                    weight += by[place] * by[place] ** 2 / (2 * by[place] ** 2 + maps.sum() * by[place] ** 3)
        elif method == "layer_cam":
            weight = np.maximum(by, 0)
        elif method == "hires_cam":
            weight = by
        else:
            weight = (maps * by).sum() / maps.sum()
        total = total + weight * maps
    return np.maximum(total, 0) if relu else total


def upsampled(map_, size, interpolation):
    """A map in another size: half-pixel centres and linear between them, or the index ``floor(i * in / out)``."""
    for axis, new in enumerate(size):
        old = map_.shape[axis]
        rows = []
        for i in range(new):
            if interpolation == "nearest":
                rows.append(map_.take(i * old // new, axis))
                continue
            place = min(max((i + 0.5) * old / new - 0.5, 0.0), old - 1.0)
            below = int(np.floor(place))
            above = min(below + 1, old - 1)
            rows.append(map_.take(below, axis) * (1 - place + below) + map_.take(above, axis) * (place - below))
        map_ = np.stack(rows, axis)
    return map_


def score_cam(net, x, classes, tap, relu=True):
    """Of Wang et al.: channels weighted by the softmax of the scores of the input seen through them."""
    maps = []
    for one, k, a in zip(x, classes, activations(net, x, tap), strict=True):
        scores = []
        for channel in np.moveaxis(a, -1, 0):
            large = upsampled(channel, one.shape[:-1], "bilinear")
            mask = (large - large.min()) / (large.max() - large.min())
            scores.append(score(net, one[None] * mask[None, ..., None], [k])[0])
        weights = np.exp(scores) / np.sum(np.exp(scores))
        maps.append(sum(weight * a[..., i] for i, weight in enumerate(weights)))
    return np.maximum(maps, 0) if relu else np.asarray(maps)


def without_channels(net, x, classes, tap):
    """The target with each channel at zero, ``(batch, channels)``."""
    a = activations(net, x, tap)
    columns = []
    for k in range(a.shape[-1]):
        less = a.copy()
        less[..., k] = 0
        columns.append(score(net, x, classes, {tap: less}))
    return np.stack(columns, -1)
