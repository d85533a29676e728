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


def pytest_addoption(parser):
    parser.addoption(
        "--nothing-missing", action="store_true", help="fail where a test is skipped for want of a package"
    )


def pytest_sessionfinish(session):
    """`make thorough` installs all that the tests use, so a package that is missing there is a mistake."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None or not session.config.getoption("--nothing-missing"):
        return
    reasons = [str(report.longrepr[2]) for report in reporter.stats.get("skipped", ())]
    missing = [reason for reason in reasons if "not installed" in reason or "could not import" in reason]
    if missing:
        reporter.write_line("skipped for want of a package: " + "; ".join(sorted(set(missing))), red=True)
        session.exitstatus = 1
