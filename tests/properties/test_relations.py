"""Relations between results that need no oracle, on drawn models, weights, inputs, taps and targets.

``GRADTAP_EXAMPLES`` says how many examples all relations have together: 200 unless it is set, 10,000 in
``make thorough``. With more examples come more architectures.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import gradtap as gt
from gradtap.graph import surgery
from properties.architectures import BLOCKS, CLASSES, CLOTHES, FEATURES, TIME, Spec, drawn, drawn_spec
from reference.differences import directional_difference

#: Of thousands of drawn weights some make a probability of 1. The relations hold there as well.
pytestmark = [
    pytest.mark.filterwarnings("ignore::gradtap.errors.SaturatedTargetWarning"),
    # Of thousands of drawn networks some bend nowhere between tap and target.
    pytest.mark.filterwarnings("ignore::gradtap.errors.NoCurvatureWarning"),
]
EXAMPLES = int(os.environ.get("GRADTAP_EXAMPLES", "200"))
RELATIONS = 8
#: One architecture with each kind of block first, and one more for every five hundred examples beyond the first two
#: hundred: what takes time is to trace an architecture and to build a program for a tap and a target, weights do not.
SPECS = [drawn_spec(seed) for seed in range(len(BLOCKS) + max(0, EXAMPLES - 200) // 500)]
#: Second derivatives of loops take seconds to build, for each tap and target.
BENDING = [spec for i, spec in enumerate(SPECS) if not spec.is_recurrent or (EXAMPLES > 200 and i < len(BLOCKS))]

relation = settings(
    max_examples=max(1, EXAMPLES // RELATIONS),
    deadline=None,
    derandomize=EXAMPLES <= 200,
    database=None,
    suppress_health_check=list(HealthCheck),
)
seeds = st.integers(0, 2**20)
batches = st.integers(1, 4)


@st.composite
def targets(draw):
    """One of the kinds of targets, as a function of the number of examples."""
    k = draw(st.integers(-CLASSES, CLASSES - 1))
    each = draw(st.lists(st.integers(0, CLASSES - 1), min_size=4, max_size=4))
    made = [
        lambda n: k,
        lambda n: each[:n],
        lambda n: lambda y: y[:, 0] * y[:, 1] - y[:, 2] ** 2,
        lambda n: gt.targets.contrast(k, 0) if k % CLASSES else gt.targets.contrast(1, 2),
        lambda n: gt.targets.neuron("scores", slice(0, 2)),
        lambda n: gt.targets.channel("pool", 0),
    ]
    return draw(st.sampled_from(made))


@dataclass
class Case:
    """What was drawn; the model is made of it where it is used."""

    spec: Spec
    weights: int
    inputs: int
    batch: int
    tap: str
    target: object

    def made(self):
        one = drawn(self.spec).with_weights(self.weights)
        return one, np.random.default_rng(self.inputs).normal(size=(self.batch, TIME, FEATURES)), self.tap, self.target


@st.composite
def cases(draw, specs=tuple(SPECS)):
    """A model with its weights, its inputs, one of its taps and a target."""
    spec, n = draw(st.sampled_from(specs)), draw(batches)
    return Case(spec, draw(seeds), draw(seeds), n, draw(st.sampled_from(spec.taps)), draw(targets())(n))


def vectors(like, seed=0):
    return np.random.default_rng(seed).normal(size=np.shape(like))


def close(a, b, tolerance=1e-11):
    """Equal to a share of the larger one, or to the resolution of numbers about one."""
    a, b = np.asarray(a), np.asarray(b)
    assert a.shape == b.shape
    assert np.isfinite(a).all()
    assert np.max(np.abs(a - b), initial=0) <= tolerance * max(1e-2, np.max(np.abs(b), initial=0))


@relation
@given(cases())
def test_a_gradient_is_the_central_difference_at_the_tap(case):
    one, x, tap, target = case.made()
    model = one.functional
    g = gt.gradients(model, x, target=target, at=tap)
    a, slope = np.asarray(g.activations[tap]), np.asarray(g[tap])
    v = vectors(a)

    def score(a):
        if isinstance(target, (int, list)):
            return np.asarray(gt.patch(model, x, {tap: a}))[np.arange(len(x)), target]
        return scored(one, x, tap, a, target)

    difference = directional_difference(score, a, v)
    exact = np.sum(slope * v, axis=tuple(range(1, a.ndim)))
    size = np.linalg.norm(slope) * np.linalg.norm(v)
    assert np.max(np.abs(exact - difference)) <= 1e-7 * size + 1e-9


def scored(one, x, tap, a, target):
    """The value of a target with the activations at a tap replaced: outputs are all that `patch` gives."""
    outputs = tf.convert_to_tensor(gt.patch(one.functional, x, {tap: a}))
    if callable(target) and not hasattr(target, "build"):
        return target(outputs).numpy()
    if repr(target).startswith("contrast"):
        return (outputs[:, target.first.index.asked] - outputs[:, target.second.index.asked]).numpy()
    if repr(target).startswith("neuron"):
        return tf.reduce_sum(outputs[:, :2], 1).numpy()
    last = one.spec.cuts[-1]
    rest = a if tap == last else np.asarray(up_to_pool(one, x, tap, a))
    return rest.mean(1)[:, 0]


def up_to_pool(one, x, tap, a):
    """What the last block gives with a tap replaced."""
    seen = []
    last = one.spec.cuts[-1]
    gt.patch(one.functional, x, {tap: a, last: lambda h: seen.append(h) or h})
    return seen[0]


@relation
@given(cases(), st.data())
def test_the_chain_rule_holds_between_taps_that_cut_the_model(case, data):
    one, x, tap, target = case.made()
    block = int(tap.removeprefix("in").removeprefix("b")[0])
    cut = data.draw(st.sampled_from(one.spec.cuts[block:]), label="cut")
    g = gt.gradients(one.functional, x, target=target, at=[tap, cut])
    if tap != cut:
        close(gt.vjp(one.functional, x, g[cut], at=tap, of=cut).only, g[tap])


@relation
@given(cases(), st.integers(1, 4))
def test_rows_and_parts_of_a_batch_are_the_batch(case, size):
    one, x, tap, target = case.made()
    at = [tap, ":input"]
    whole = gt.gradients(one.functional, x, target=target, at=at)
    parts = gt.gradients(one.functional, x, target=target, at=at, batch_size=size)
    row = len(x) - 1
    of_row = [target[row]] if isinstance(target, list) else target
    alone = gt.gradients(one.functional, x[row:], target=of_row, at=at)
    for address in whole:
        close(parts[address], whole[address])
        close(alone[address], whole[address][row:])
    close(parts.target, whole.target)


@relation
@given(cases(), st.sampled_from(CLOTHES[1:]))
def test_the_same_function_in_other_clothes(case, clothes):
    one, x, tap, target = case.made()
    expected = gt.gradients(one.functional, x, target=target, at=tap)
    model = one.in_clothes(clothes)
    g = gt.gradients(model, x, target=target, at=tap)
    close(g.outputs, expected.outputs)
    close(g.activations[tap], expected.activations[tap])
    close(g[tap], expected[tap])


@relation
@given(cases(), st.data())
def test_taps_change_no_output_and_a_new_target_builds_nothing(case, data):
    one, x, tap, target = case.made()
    model = one.functional
    few = gt.gradients(model, x, target=target, at=tap)
    many = gt.gradients(model, x, target=target, at=one.spec.taps, unconnected="zero")
    np.testing.assert_array_equal(few.outputs, many.outputs)
    np.testing.assert_array_equal(few.activations[tap], many.activations[tap])
    close(few[tap], many[tap])
    close(few.outputs, model(x), 1e-12)
    graph = gt.trace(model).graphs.any_graph()
    gt.gradients(model, x, target=0, at=tap)
    before, runs = surgery.op_count(graph.graph), len(gt.trace(model).graphs)
    k = data.draw(st.integers(-CLASSES, CLASSES - 1), label="k")
    gt.gradients(model, x, target=k, at=tap)
    gt.gradients(model, x, target=[k % CLASSES] * len(x), at=tap)
    assert (surgery.op_count(graph.graph), len(gt.trace(model).graphs)) == (before, runs)


@relation
@given(cases())
def test_what_goes_forward_is_adjoint_to_what_goes_back(case):
    one, x, tap, _ = case.made()
    a = gt.activations(one.functional, x, at=tap).only
    u, v = vectors(np.zeros((len(x), CLASSES))), vectors(a, 1)
    left = np.asarray(gt.vjp(one.functional, x, u, at=tap).only)
    right = np.asarray(gt.jvp(one.functional, x, v, at=tap).only)
    close(np.sum(left * v, tuple(range(1, left.ndim))), np.sum(u * right, 1))


@relation
@given(cases(tuple(BENDING)))
def test_a_hessian_is_symmetric_and_the_difference_of_gradients(case):
    one, x, tap, target = case.made()
    model = one.functional
    a = np.asarray(gt.activations(model, x, at=tap).only)
    u, v = vectors(a), vectors(a, 1)
    hu, hv = (np.asarray(gt.hvp(model, x, w, target=target, at=tap).only) for w in (u, v))
    rows = tuple(range(1, a.ndim))
    close(np.sum(u * hv, rows), np.sum(v * hu, rows), 1e-9)
    moved = one.spec.taps[0] == tap and isinstance(target, int)
    if moved:
        rest = gt.trace(model).suffix(tap, x)

        def slope(a):
            a = tf.convert_to_tensor(a)
            with tf.GradientTape() as tape:
                tape.watch(a)
                score = rest(a)[:, target]
            return tape.gradient(score, a).numpy()

        difference = directional_difference(slope, a, v)
        assert np.linalg.norm(hv - difference) <= 1e-6 * np.linalg.norm(hv) + 1e-8


@relation
@given(cases())
def test_the_rest_of_a_model_gives_what_the_model_gives(case):
    one, x, tap, _ = case.made()
    a = np.asarray(gt.activations(one.functional, x, at=tap).only)
    moved = a + vectors(a)
    rest = gt.trace(one.functional).suffix(tap, x)
    close(rest(a), one.functional(x))
    close(rest(moved), gt.patch(one.functional, x, {tap: moved}))


def test_as_many_examples_as_were_asked_for():
    assert relation.max_examples * RELATIONS >= EXAMPLES - RELATIONS
    relations = [test for name, test in globals().items() if name.startswith("test_") and hasattr(test, "hypothesis")]
    assert len(relations) == RELATIONS


@pytest.mark.parametrize("spec", SPECS[:9], ids=lambda spec: "-".join(kind for kind, _, _ in spec.blocks))
def test_every_kind_of_block_is_drawn(spec):
    assert drawn(spec).functional.output_shape == (None, CLASSES)
