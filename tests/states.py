"""All that can be seen of a model, and whether it is as it was."""

from __future__ import annotations

import numpy as np


def everything(model):
    """Attributes by identity, containers by content, variables by value."""
    state = {}
    for layer in model._flatten_layers():
        for name, value in vars(layer).items():
            state[layer.name, name] = list(value) if isinstance(value, (list, dict)) else value
    values = {v.path: v.numpy() for v in model.variables}
    seeds = [v.numpy() for layer in model._flatten_layers() for g in layer._seed_generators for v in [g.state.value]]
    return state, values, seeds


def assert_same(before, after):
    """The model has what it had."""
    state, values, seeds = before
    assert state.keys() == after[0].keys()
    for key, value in state.items():
        same = value == after[0][key] if isinstance(value, list) else value is after[0][key]
        assert same, f"{key}: {value!r} became {after[0][key]!r}"
    for path, value in values.items():
        np.testing.assert_array_equal(value, after[1][path], err_msg=path)
    for one, other in zip(seeds, after[2], strict=True):
        np.testing.assert_array_equal(one, other)
