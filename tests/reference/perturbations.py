"""Occlusion and RISE in plain loops, from the papers."""

from __future__ import annotations

from itertools import product

import numpy as np

from reference.attributions import activations, score


def occlusion(run, x, classes, tap, window, stride, value):
    """The mean loss over the windows that cover a position; ``value`` broadcasts with the activations."""
    h = activations(run, x, tap)
    sizes = h.shape[1:-1]
    starts = [[*range(0, size - window, stride), size - window] for size in sizes]
    total, count = np.zeros(h.shape[:-1]), np.zeros(sizes)
    for corner in product(*starts):
        inside = tuple(slice(start, start + window) for start in corner)
        hidden = h.copy()
        hidden[(slice(None), *inside)] = np.broadcast_to(value, h.shape)[(slice(None), *inside)]
        lost = score(run, x, classes, {}) - score(run, x, classes, {tap: hidden})
        total[(slice(None), *inside)] += lost.reshape(-1, *[1] * len(sizes))
        count[inside] += 1
    return total / count


def mask(grid, shares, sizes):
    """A binary grid, enlarged to one cell more than covers the axes and cropped, position by position."""
    made = np.zeros(sizes)
    for position in product(*map(range, sizes)):
        weights = np.ones(())
        for place, size, cells, share in zip(position, sizes, grid.shape, shares, strict=True):
            cell = int(np.ceil(size / cells))
            full = np.interp(
                (np.arange((cells + 1) * cell) + 0.5) * cells / ((cells + 1) * cell) - 0.5,
                np.arange(cells),
                np.arange(cells),
            )
            where = full[int(share * cell) + place]
            row = [np.interp(where, np.arange(cells), np.eye(cells)[c]) for c in range(cells)]
            weights = np.multiply.outer(weights, row)
        made[position] = np.sum(weights * grid)
    return made


def rise(run, x, classes, tap, masks, probability):
    """The mean of masks ``(runs, *positions)`` weighted by the scores of what is seen through them."""
    h = activations(run, x, tap)
    total = np.zeros(h.shape[:-1])
    for each in masks:
        seen = score(run, x, classes, {tap: h * each[..., None]})
        total += seen.reshape(-1, *[1] * each.ndim) * each
    return total / (probability * len(masks))
