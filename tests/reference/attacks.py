"""Attacks on one example, restated in NumPy from the papers, step by step and without any trick."""

from __future__ import annotations

import math

import numpy as np


def ball(change, epsilon, norm):
    """The nearest point of the ball, linf or l2."""
    if norm == "linf":
        return np.clip(change, -epsilon, epsilon)
    size = np.linalg.norm(change)
    return change if size <= epsilon else change * (epsilon / size)


def ball_and_box(change, epsilon, low, high):
    """The nearest point of the l1 ball and a box around zero: the threshold by bisection."""

    def at(threshold):
        return np.clip(np.sign(change) * np.maximum(np.abs(change) - threshold, 0), low, high)

    if np.abs(at(0.0)).sum() <= epsilon:
        return at(0.0)
    under, over = 0.0, float(np.abs(change).max())
    for _ in range(200):
        middle = (under + over) / 2
        under, over = (middle, over) if np.abs(at(middle)).sum() > epsilon else (under, middle)
    return at(over)


def checkpoints(steps):
    """Croce and Hein 2020, section 3: p_0 = 0, p_1 = 0.22, p_{j+1} = p_j + max(p_j - p_{j-1} - 0.03, 0.06)."""
    p = [0.0, 0.22]
    while p[-1] < 1:
        p.append(p[-1] + max(p[-1] - p[-2] - 0.03, 0.06))
    return sorted({math.ceil(round(steps * value, 9)) for value in p})


def auto_pgd(look, done, x, epsilon, steps, norm, bounds=None, stop=False):
    """Croce and Hein 2020, algorithm 1.

    Args:
      look: Gives the loss and its slope at a point.
      done: Whether the attack has succeeded at a point.
      stop: End at the first point that succeeds.

    Returns:
      The best of the points that succeeded; where none did, the best of all.
    """

    def project(point):
        inner = x + ball(point - x, epsilon, norm)
        return inner if bounds is None else np.clip(inner, *bounds)

    def direction(slope):
        return np.sign(slope) if norm == "linf" else slope / np.linalg.norm(slope)

    places = checkpoints(steps)
    xs = [x]
    loss, slope = look(x)
    fs, best = [loss], (loss, x, slope)
    won = (loss, x) if done(x) else None
    eta, etas, bests = 2 * epsilon, {0: 2 * epsilon}, {0: loss}
    for k in range(steps):
        if stop and won is not None:
            break
        if k in places[1:]:
            before = places[places.index(k) - 1]
            rises = sum(fs[i + 1] > fs[i] for i in range(before, k))
            etas[k], bests[k] = eta, best[0]
            if rises < 0.75 * (k - before) or (etas[before] == etas[k] and bests[before] == bests[k]):
                eta /= 2
                xs[k], slope = best[1], best[2]
        z = project(xs[k] + eta * direction(slope))
        after = z if k == 0 else project(xs[k] + 0.75 * (z - xs[k]) + 0.25 * (xs[k] - xs[k - 1]))
        xs.append(after)
        loss, slope = look(after)
        fs.append(loss)
        if loss > best[0]:
            best = (loss, after, slope)
        if done(after) and (won is None or loss > won[0]):
            won = (loss, after)
    return best[1] if won is None else won[1]


def auto_pgd_l1(look, x, epsilon, steps, bounds):
    """Croce and Hein 2021: sparse steps into ball and box, the sparsity of the best point, no momentum."""
    period = max(1, math.ceil(0.04 * steps))
    eta, share, changed, size = epsilon, 0.2, x.size, x.size
    best, point = None, x
    for k in range(steps + 1):
        loss, slope = look(point)
        if best is None or loss > best[0]:
            best = (loss, point, slope)
        if k == steps:
            break
        if k and k % period == 0:
            now = int(np.sum(best[1] != x))
            share = now / size / 1.5
            if now < 0.95 * changed:
                eta, point, slope = epsilon, best[1], best[2]
            else:
                eta = max(eta / 1.5, epsilon / 10)
            changed = now
        least = np.sort(np.abs(slope).ravel())[min(max(int((1 - share) * size), 0), size - 1)]
        step = np.where(np.abs(slope) >= least, np.sign(slope), 0.0)
        step = step / np.abs(step).sum() if np.any(step) else step
        point = x + ball_and_box(point + eta * step - x, epsilon, bounds[0] - x, bounds[1] - x)
    return best[1], best[0]


def dlr(logits, label):
    """Croce and Hein 2020, equation 3."""
    ordered = np.sort(logits)[::-1]
    return -(logits[label] - np.delete(logits, label).max()) / (ordered[0] - ordered[2])


def targeted_dlr(logits, label, target):
    """Croce and Hein 2020, equation 4: large where the target is ahead of the label."""
    ordered = np.sort(logits)[::-1]
    return -(logits[label] - logits[target]) / (ordered[0] - (ordered[2] + ordered[3]) / 2)


def deep_fool(look, x, label, *, steps, norm, overshoot, rivals, bounds=None):
    """Moosavi-Dezfooli et al. 2016, algorithm 2; ``look`` gives the logits and the slope of each."""
    total, point = np.zeros_like(x), x
    for taken in range(steps + 1):
        logits, slopes = look(point)
        if np.argmax(logits) != label or taken == steps:
            return point, taken
        nearest = None
        for k in rivals:
            f, w = logits[k] - logits[label], slopes[k] - slopes[label]
            size = np.linalg.norm(w.ravel(), 1 if norm == "linf" else 2)
            if nearest is None or abs(f) / size < nearest[0]:
                nearest = (abs(f) / size, np.sign(w) if norm == "linf" else w / size)
        total = total + nearest[0] * nearest[1]
        point = x + (1 + overshoot) * total
        point = point if bounds is None else np.clip(point, *bounds)
    raise AssertionError


def carlini_wagner(look, done, x, *, steps, searches, rate, kappa, constant, bounds=None):
    """Carlini and Wagner 2017, section VI, with Adam as Kingma and Ba write it.

    Args:
      look: Gives the margin (large where the attack has succeeded) and its slope.
      done: Whether the model says otherwise at a point.
    """
    low, high, weight = 0.0, np.inf, constant
    best, smallest = x, 0.0 if done(x) and look(x)[0] >= kappa else np.inf
    for _ in range(searches):
        if smallest == 0:
            break
        if bounds is None:
            w = np.zeros_like(x)
        else:
            half, middle = (bounds[1] - bounds[0]) / 2, (bounds[1] + bounds[0]) / 2
            w = np.arctanh((1 - 1e-6) * (x - middle) / half)
        m, v, found = np.zeros_like(x), np.zeros_like(x), False
        for t in range(1, steps + 1):
            point = x + w if bounds is None else middle + half * np.tanh(w)
            inner = 1.0 if bounds is None else half * (1 - np.tanh(w) ** 2)
            margin, slope = look(point)
            if done(point) and margin >= kappa:
                found = True
                if np.sum((point - x) ** 2) < smallest:
                    best, smallest = point, np.sum((point - x) ** 2)
            g = 2 * (point - x)
            if -margin > -kappa:
                g = g - weight * slope
            g = g * inner
            m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
            w = w - rate * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
        if found:
            high = min(high, weight)
        else:
            low = max(low, weight)
        weight = (low + high) / 2 if high < np.inf else 10 * weight
    return best, math.sqrt(smallest)
