"""Which positions of an input move which units: each position is raised in turn, and all outputs are compared."""

from __future__ import annotations

import keras
import numpy as np

#: So much that a raised position wins every max-pool; in float64 what is added to it is still seen.
BUMP = 1e4


def make_positive(model, seed=0):
    """Give every weight a positive value, so that no influence is cancelled by another."""
    rng = np.random.default_rng(seed)
    for weight in model.weights:
        weight.assign(rng.uniform(0.5, 1.0, weight.shape))
    return model


def supports(model, at, shape, seed=0):
    """Whether each position of space of an input moves each unit, ``(*units, *positions)``.

    Args:
      model: A Functional model of float64 and one input.
      at: Name of the layer.
      shape: Of one example ``(*positions, channels)``.
      seed: Draws the input.
    """
    base = np.random.default_rng(seed).uniform(0.5, 1.0, (1, *shape))
    positions = shape[:-1]
    raised = np.repeat(base, np.prod(positions), 0)
    for i, place in enumerate(np.ndindex(*positions)):
        raised[(i, *place)] += BUMP
    part = keras.Model(model.inputs, model.get_layer(at).output)
    rest = part.predict(np.concatenate([base, raised]), verbose=0, batch_size=512)
    moved = np.any(rest[1:] != rest[:1], -1)
    return np.moveaxis(moved, 0, -1).reshape(*rest.shape[1:-1], *positions)


def box(support):
    """The bounding box of what is True, as (first, last) for each axis; None where nothing is."""
    if not support.any():
        return None
    places = np.argwhere(support)
    return tuple(zip(places.min(0).tolist(), places.max(0).tolist(), strict=True))
