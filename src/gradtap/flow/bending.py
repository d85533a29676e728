"""How much a target bends at a tap: the Frobenius norm of its Hessian, from one product with random signs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from gradtap.differentiate import activations
from gradtap.second_order import hvp
from gradtap.types import Model, Structure


def frobenius_norms(model: Model, inputs: Structure, target: Any, at: Sequence[str], seed: int) -> dict[str, float]:
    r"""The root of the mean over the examples of :math:`|Hv|^2`, whose expectation over signs is :math:`|H|_F^2`.

    Args:
      model: The model.
      inputs: One batch.
      target: What is differentiated twice.
      at: The taps, each by itself.
      seed: Draws the signs.
    """
    rng = np.random.default_rng(seed)
    here = activations(model, inputs, at=list(at), checks=False)
    found = {}
    for address in at:
        signs = rng.choice([-1.0, 1.0], size=here[address].shape).astype(here[address].dtype.as_numpy_dtype)
        product = np.asarray(hvp(model, inputs, signs, target=target, at=address, checks=False).only, np.float64)
        found[address] = float(np.sqrt(np.sum(product**2) / len(product)))
    return found
