"""What every test gets: fixed seeds, and Keras as it was found."""

from __future__ import annotations

import os
import random
import sys

import numpy as np
import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")


@pytest.fixture(autouse=True)
def _fixed_seeds():
    """Seed what is there: a test that never imports TensorFlow does not pay for it."""
    random.seed(0)
    np.random.seed(0)
    keras = sys.modules.get("keras")
    if keras is not None:
        keras.utils.set_random_seed(0)


@pytest.fixture
def float64():
    """Layers and inputs of float64 by default, so that central differences resolve seven digits."""
    from reference.models import float64_policy

    with float64_policy():
        yield


@pytest.fixture
def rng():
    """Numbers that are the same in every run."""
    return np.random.default_rng(0)
