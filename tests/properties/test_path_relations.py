"""Laws of the path methods on drawn models, weights, inputs, taps and targets; see `test_relations`."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import gradtap as gt
from gradtap import attribution
from properties.test_relations import BENDING, EXAMPLES, cases, close, scored, vectors

pytestmark = pytest.mark.filterwarnings("ignore::gradtap.errors.SaturatedTargetWarning")
#: Each example builds a graph of its own, so they are few in `make test`.
relation = settings(
    max_examples=max(1, EXAMPLES // 40),
    deadline=None,
    derandomize=EXAMPLES <= 200,
    database=None,
    suppress_health_check=list(HealthCheck),
)
#: Activations with a bend of the second order make a Gauss-Legendre rule slow.
TOLERANCE = 1e-4


def sums(values):
    return np.sum(values, axis=tuple(range(1, np.ndim(values))))


def score(one, x, tap, a, target):
    if isinstance(target, (int, list)):
        return np.asarray(gt.patch(one.functional, x, {tap: a}))[np.arange(len(x)), target]
    return scored(one, x, tap, a, target)


@relation
@given(cases(tuple(BENDING)), st.integers(1, 3))
def test_a_path_accounts_for_the_change_that_its_tap_makes(case, size):
    one, x, tap, target = case.made()
    start = 0.5 * vectors(x, 3)
    here, there = (np.asarray(gt.activations(one.functional, inputs, at=tap).only) for inputs in (x, start))
    change = score(one, x, tap, here, target) - score(one, x, tap, there, target)
    ask = {"target": target, "at": tap, "baseline": start}
    found = attribution.integrated_gradients(one.functional, x, **ask, steps=16, tolerance=TOLERANCE)
    total = sums(found.only)
    assert np.max(np.abs(total - change)) <= TOLERANCE + 1e-9
    np.testing.assert_allclose(found.delta, total - change, rtol=0, atol=1e-10)
    close(
        attribution.integrated_gradients(one.functional, x, **ask, steps=found.steps, batch_size=size).only, found.only
    )


@relation
@given(cases(tuple(BENDING)))
def test_conductance_over_a_cut_accounts_for_the_change_of_the_inputs(case):
    one, x, _, target = case.made()
    start = 0.5 * vectors(x, 3)
    ask = {"target": target, "baseline": start, "steps": 12}
    cut = one.spec.cuts[-1]
    at_input = gt.activations(one.functional, x, at=":input").only
    change = score(one, x, ":input", at_input, target) - score(one, x, ":input", start, target)
    found = attribution.conductance(one.functional, x, **ask, at=[":input", cut])
    for address in (":input", cut):
        np.testing.assert_allclose(found.delta[address], sums(found[address]) - change, rtol=0, atol=1e-10)
    # On one path, node by node, all of a slope at the inputs flows through the cut.
    np.testing.assert_allclose(sums(found[":input"]), sums(found[cut]), rtol=0, atol=1e-10)
    close(attribution.integrated_gradients(one.functional, x, **ask, at=":input").only, found[":input"])
