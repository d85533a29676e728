"""Path methods against their restatement from the papers, and the laws that they obey."""

from __future__ import annotations

import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import gradtap as gt
from gradtap import attribution, errors
from gradtap.staged.quadrature import nodes_and_weights
from reference import attributions as restated
from reference.differences import assert_same_numbers
from reference.models import draws, float64_policy
from reference.nets import net
from refusals import refuses

RULES = ["gausslegendre", "riemann_left", "riemann_right", "riemann_middle", "trapezoid"]
CLASSES = [2, 0, 1]


def other(x):
    """A baseline that is not zero, one row for each example."""
    return 0.3 * draws(*x.shape, seed=11)


def sums(values):
    return np.sum(values, axis=tuple(range(1, np.ndim(values))))


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("steps", [2, 7])
def test_nodes_and_weights(rule, steps):
    for ours, own in zip(nodes_and_weights(rule, steps), restated.nodes_and_weights(rule, steps), strict=True):
        np.testing.assert_allclose(ours, own, rtol=0, atol=1e-13)
    nodes, weights = nodes_and_weights(rule, steps)
    assert abs(weights.sum() - 1) < 1e-14
    exact = {"gausslegendre": 2 * steps, "riemann_middle": 2, "trapezoid": 2}.get(rule, 1)
    for degree in range(exact):
        assert abs(np.sum(weights * nodes**degree) - 1 / (degree + 1)) < 1e-14
    assert abs(np.sum(weights * nodes**exact) - 1 / (exact + 1)) > 1e-9


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("tap", ["tap", "late", ":input"])
def test_integrated_gradients_by_every_rule_around_a_skip_connection(rule, tap):
    model, run, x = net("skip")
    start = restated.activations(run, other(x), tap)
    expected = restated.integrated_gradients(run, x, CLASSES, {tap: start}, rule, 5)[tap]
    ask = {"target": CLASSES, "at": tap, "steps": 5, "rule": rule}
    assert_same_numbers(attribution.integrated_gradients(model, x, **ask, baseline=other(x)).only, expected, 1e-12)
    at_tap = attribution.integrated_gradients(model, x, **ask, baseline=attribution.at_tap(start))
    assert_same_numbers(at_tap.only, expected, 1e-12)
    one_by_one = attribution.integrated_gradients(model, x, **ask, baseline=other(x), batch_size=1)
    assert_same_numbers(one_by_one.only, expected, 1e-12)


@pytest.mark.parametrize("kind", ["skip", "series", "vision_transformer"])
def test_integrated_gradients_without_the_factor(kind):
    model, run, x = net(kind)
    start = restated.activations(run, 0 * x, "tap")
    expected = restated.integrated_gradients(run, x, CLASSES, {"tap": start}, "gausslegendre", 6, multiply=False)
    found = attribution.integrated_gradients(model, x, target=CLASSES, at="tap", steps=6, multiply=False)
    assert_same_numbers(found.only, expected["tap"], 1e-12)


def test_taps_on_one_path_have_partial_slopes():
    model, run, x = net("skip")
    starts = {tap: restated.activations(run, other(x), tap) for tap in ("tap", "late")}
    expected = restated.integrated_gradients(run, x, CLASSES, starts, "gausslegendre", 4)
    ask = {"target": CLASSES, "at": ["tap", "late"], "steps": 4, "baseline": other(x)}
    # With `late` held at its place, `tap` has no way to the scores.
    assert not np.any(expected["tap"])
    found = attribution.integrated_gradients(model, x, **ask, joint=True)
    assert not np.any(found["tap"])
    assert_same_numbers(found["late"], expected["late"], 1e-12)
    both = {tap: restated.activations(run, other(x), tap) for tap in ("stem", "tap")}
    expected = restated.integrated_gradients(run, x, CLASSES, both, "gausslegendre", 30)
    found = attribution.integrated_gradients(model, x, **ask | {"at": ["stem", "tap"], "steps": 30}, joint=True)
    for tap in both:
        assert_same_numbers(found[tap], expected[tap], 1e-12)
    moved = gt.patch(model, x, both)
    change = restated.score(run, x, CLASSES) - np.asarray(moved)[range(3), CLASSES]
    np.testing.assert_allclose(sums(found["stem"]) + sums(found["tap"]), change, atol=1e-9)
    np.testing.assert_allclose(found.delta, sums(found["stem"]) + sums(found["tap"]) - change, atol=1e-13)


@pytest.mark.parametrize("kind", ["skip", "series", "vision_transformer"])
def test_completeness_is_against_the_patched_model(kind):
    model, run, x = net(kind)
    start = restated.activations(run, other(x), "tap")
    change = restated.score(run, x, CLASSES) - np.asarray(gt.patch(model, x, {"tap": start}))[range(3), CLASSES]
    exact = attribution.integrated_gradients(model, x, target=CLASSES, at="tap", baseline=other(x), steps=30)
    np.testing.assert_allclose(sums(exact.only), change, atol=1e-6)
    rough = attribution.integrated_gradients(model, x, target=CLASSES, at="tap", baseline=other(x), steps=2)
    np.testing.assert_allclose(rough.delta, sums(rough.only) - change, atol=1e-13)
    assert np.max(np.abs(rough.delta)) > 1e-7
    if kind == "skip":  # the change of the inputs is another: a branch goes around the tap
        whole = restated.score(run, x, CLASSES) - restated.score(run, other(x), CLASSES)
        assert np.max(np.abs(change - whole)) > 1e-3


@pytest.mark.parametrize("kind", ["skip", "series", "vision_transformer"])
@pytest.mark.parametrize("rule", ["gausslegendre", "riemann_left", "trapezoid", "difference"])
def test_conductance(kind, rule):
    model, run, x = net(kind)
    if rule == "difference":
        expected = restated.conductance_by_differences(run, x, other(x), CLASSES, "tap", 4)
    else:
        expected = restated.conductance(run, x, other(x), CLASSES, "tap", rule, 4)
    ask = {"target": CLASSES, "at": "tap", "baseline": other(x), "steps": 4, "rule": rule}
    assert_same_numbers(attribution.conductance(model, x, **ask).only, expected, 1e-11)
    assert_same_numbers(attribution.conductance(model, x, **ask, batch_size=1).only, expected, 1e-11)


def test_conductance_over_a_cut_is_the_change_of_the_target():
    model, run, x = net("skip")
    change = restated.score(run, x, CLASSES) - restated.score(run, other(x), CLASSES)
    ask = {"target": CLASSES, "baseline": other(x), "steps": 40}
    found = attribution.conductance(model, x, **ask, at=[":input", "stem", "tap", "late"])
    for cut in (":input", "stem", "late"):
        np.testing.assert_allclose(sums(found[cut]), change, atol=1e-6)
        np.testing.assert_allclose(found.delta[cut], sums(found[cut]) - change, atol=1e-13)
    assert np.max(np.abs(sums(found["tap"]) - change)) > 1e-3, "a branch goes around it"
    integrated = attribution.integrated_gradients(model, x, **ask, at=":input")
    assert_same_numbers(found[":input"], integrated.only, 1e-9)


def test_conductance_along_a_tap_and_with_fewer_steps_than_by_differences():
    model, run, x = net("skip")
    stem = restated.activations(run, x, "stem")
    found = attribution.conductance(
        model, x, target=CLASSES, at=["stem", "late"], along="stem", baseline=attribution.at_tap(0.0), steps=40
    )
    change = restated.score(run, x, CLASSES) - restated.score(run, x, CLASSES, {"stem": 0 * stem})
    for tap in ("stem", "late"):
        np.testing.assert_allclose(sums(found[tap]), change, atol=1e-6)
    ask = {"target": CLASSES, "at": "late", "baseline": other(x)}
    by_flow = attribution.conductance(model, x, **ask, steps=16)
    by_differences = attribution.conductance(model, x, **ask, steps=50, rule="difference")
    assert np.max(np.abs(by_flow.delta)) < np.max(np.abs(by_differences.delta))


@pytest.mark.parametrize("rule", RULES)
def test_internal_influence(rule):
    model, run, x = net("skip")
    ask = {"target": CLASSES, "at": ["tap", "late"], "baseline": other(x), "steps": 5, "rule": rule}
    found = attribution.internal_influence(model, x, **ask)
    for tap in ("tap", "late"):
        expected = restated.internal_influence(run, x, other(x), CLASSES, tap, rule, 5)
        assert_same_numbers(found[tap], expected, 1e-12)


def test_baselines_of_every_form():
    model, _, x = net("series")

    def found(baseline):
        return attribution.integrated_gradients(model, x, target=CLASSES, at="tap", steps=3, baseline=baseline).only

    expected = found(np.full_like(x, 0.1))
    for same in (
        0.1,
        np.float64(0.1),
        np.full((1, 7, 2), 0.1),
        np.full((7, 2), 0.1),
        lambda v: 0 * v + 0.1,
        [x * 0 + 0.1],
    ):
        assert_same_numbers(found(same), expected, 1e-12)
    a = np.asarray(gt.activations(model, x, at="tap").only)
    there = np.asarray(gt.activations(model, np.full_like(x, 0.1), at="tap").only)
    for same in (there, there[:1], {"tap": there}):
        assert_same_numbers(found(attribution.at_tap(same)), expected, 1e-12)
    assert_same_numbers(found(attribution.at_tap(0.25)), found(attribution.at_tap(np.full_like(a, 0.25))), 1e-12)
    refuses(errors.InputShapeError, lambda: found(np.zeros((2, 7, 2))), "2 rows for 3 examples")
    refuses(errors.InputShapeError, lambda: found(np.zeros((3, 7, 1))))
    refuses(errors.ArgumentError, lambda: found(None), "baseline=None")


def test_baselines_of_ids():
    with float64_policy():
        embedding = layers.Embedding(10, 4, name="embedding", embeddings_initializer="normal")
        hidden = layers.Dense(3, activation="tanh")
        made = [embedding, layers.GlobalAveragePooling1D(), hidden, layers.Dense(2)]
        model = keras.Sequential([keras.Input((3,), dtype="int32"), *made])
    embedding.embeddings.assign(draws(10, 4))
    ids = np.array([[1, 2, 3], [9, 0, 4]])
    table = embedding.embeddings.numpy()
    ask = {"target": 1, "at": "embedding", "steps": 4}
    expected = attribution.integrated_gradients(model, ids, **ask, baseline=attribution.at_tap(table[[[7, 7, 7]]])).only
    for same in (7, np.array([[7, 7, 7]]), np.full((2, 3), 7), lambda x: 0 * x + 7):
        assert_same_numbers(attribution.integrated_gradients(model, ids, **ask, baseline=same).only, expected, 1e-12)
    refuses(
        errors.InputDtypeError,
        lambda: attribution.integrated_gradients(model, ids, **ask, baseline=0.5),
        "fractions",
    )
    flow = attribution.conductance(model, ids, target=1, at="embedding", along="embedding", baseline=7, steps=4)
    assert_same_numbers(flow.only, expected, 1e-12)


def test_a_tolerance_doubles_the_steps():
    model, _, x = net("skip")
    ask = {"target": CLASSES, "at": ":input", "baseline": other(x), "steps": 2, "rule": "trapezoid"}
    rough = attribution.integrated_gradients(model, x, **ask)
    fine = attribution.integrated_gradients(model, x, **ask, tolerance=1e-4)
    assert rough.steps == 2
    assert np.max(np.abs(rough.delta)) > 1e-4
    assert fine.steps in (4, 8, 16, 32, 64, 128, 256)
    assert np.max(np.abs(fine.delta)) <= 1e-4
    before = attribution.integrated_gradients(model, x, **ask | {"steps": fine.steps // 2})
    assert np.max(np.abs(before.delta)) > 1e-4
    same = attribution.integrated_gradients(model, x, **ask | {"steps": fine.steps})
    assert_same_numbers(fine.only, same.only, 1e-12)


def test_the_orders_of_the_rules():
    model, _, x = net("skip")
    ask = {"target": CLASSES, "at": ":input", "baseline": other(x)}

    def error(rule, steps):
        return np.max(np.abs(attribution.integrated_gradients(model, x, **ask, rule=rule, steps=steps).delta))

    for rule, factor in (("riemann_left", 2), ("riemann_middle", 4)):
        assert abs(error(rule, 32) / error(rule, 64) / factor - 1) < 0.15
    assert abs(error("trapezoid", 33) / error("trapezoid", 65) / 4 - 1) < 0.15
    assert error("gausslegendre", 40) < 1e-3 * error("trapezoid", 40)


def test_networks_without_bias_give_the_euler_relation():
    with float64_policy():
        made = [layers.Dense(6, activation="relu", use_bias=False, name=n) for n in ("one", "two")]
        model = keras.Sequential([keras.Input((4,)), *made, layers.Dense(2, use_bias=False)])
    x = draws(5, 4)
    scores = model(x).numpy()[:, 1]
    for tap in (":input", "one", "two"):
        product = attribution.activation_x_gradient(model, x, target=1, at=tap).only
        np.testing.assert_allclose(sums(product), scores, rtol=1e-12)
        path = attribution.integrated_gradients(model, x, target=1, at=tap, steps=1, rule="riemann_right").only
        assert_same_numbers(path, product, 1e-12)


def test_entries_that_play_the_same_part_get_the_same():
    model = keras.Sequential([keras.Input((3,), dtype="float64"), layers.Dense(4, activation="tanh", dtype="float64")])
    kernel = draws(3, 4)
    kernel[1] = kernel[0]
    model.layers[0].kernel.assign(kernel)
    x = np.array([[0.4, 0.4, -0.2]])
    path = attribution.integrated_gradients(model, x, target=2).only.numpy()
    assert path[0, 0] == path[0, 1] != 0
    kernel[2] = 0
    model.layers[0].kernel.assign(kernel)
    assert attribution.integrated_gradients(model, x, target=2).only[0, 2] == 0


@pytest.mark.parametrize("method", ["integrated_gradients", "conductance", "internal_influence"])
def test_the_predicted_class_is_that_of_the_inputs_all_along(method):
    model, _, x = net("skip")
    rows = np.concatenate([x, other(x)])
    predicted = np.argmax(model(rows), -1)
    assert np.any(predicted != np.argmax(model(0 * rows), -1)), "the class must change along the path"
    ask = {"at": "late", "steps": 5}
    found = getattr(attribution, method)(model, rows, target="predicted", **ask)
    assert_same_numbers(found.only, getattr(attribution, method)(model, rows, target=predicted, **ask).only, 1e-12)


def test_a_target_of_the_outputs_follows_the_path():
    model, _, x = net("series")
    found = attribution.integrated_gradients(model, x, target=lambda y: y[:, 0] * y[:, 1], at=":input", steps=40)
    y, y0 = model(x).numpy(), model(0 * x).numpy()
    np.testing.assert_allclose(sums(found.only), y[:, 0] * y[:, 1] - y0[:, 0] * y0[:, 1], atol=1e-9)
    assert isinstance(found.only, tf.Tensor)


def test_two_inputs_move_together_and_calls_of_a_layer_apart():
    with float64_policy():
        left, right = keras.Input((3,), name="left"), keras.Input((3,), name="right")
        shared = layers.Dense(3, activation="tanh", name="shared")
        h = layers.Multiply()([shared(left), shared(right)])
        model = keras.Model([left, right], layers.Dense(2, activation="softmax")(h))
    a, b = draws(4, 3), draws(4, 3, seed=1)
    found = attribution.integrated_gradients(model, [a, b], target=1, at=":input", steps=40)
    change = (model([a, b]) - model([0 * a, 0 * b])).numpy()[:, 1]
    np.testing.assert_allclose(sum(sums(v) for v in found.values()), change, atol=1e-9)
    apart = attribution.integrated_gradients(model, [a, b], target=1, at="shared[*]", steps=40)
    for call, values in apart.items():
        start = np.tanh(np.zeros((4, 3)) + shared.bias.numpy())
        moved = (model([a, b]) - gt.patch(model, [a, b], {call: start})).numpy()[:, 1]
        np.testing.assert_allclose(sums(values), moved, atol=1e-9)
    assert len(apart) == 2


def test_a_tolerance_that_rounding_keeps_out_of_reach_is_given_up():
    """Doubling on would take thousands of points for nothing."""
    x = keras.Input((4,))
    hidden = layers.Dense(16, activation="tanh")(x)
    model = keras.Model(x, layers.Dense(2, name="scores")(layers.Dense(16, activation="tanh")(hidden)))
    rows = np.random.default_rng(0).normal(size=(2, 4)).astype("float32")
    with pytest.warns(errors.GradtapWarning, match=r"after \d+ steps, above tolerance=1e-12"):
        found = attribution.integrated_gradients(model, rows, target=1, steps=20, tolerance=1e-12)
    assert found.steps <= 20 * 2**6
    assert np.max(np.abs(found.delta)) < 1e-5


def test_a_tolerance_goes_on_until_the_points_are_closer_than_a_narrow_step(float64):
    """The first points all miss it, and their error does not come down."""
    model = keras.Sequential(
        [keras.Input((1,), dtype="float64"), layers.Lambda(lambda x: keras.ops.tanh(300 * (x - 0.3137)))]
    )
    found = attribution.integrated_gradients(model, [[1.0]], steps=4, tolerance=1e-4)
    assert found.steps > 4 * 2**5
    np.testing.assert_allclose(found.only, [[1 + np.tanh(300 * 0.3137)]], atol=1e-4)


def test_a_warning_that_is_made_an_error_arrives_as_it_is(float64):
    model = keras.Sequential([keras.Input((1,), dtype="float64"), layers.ReLU()])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(errors.GradtapWarning, match="completeness error"):
            attribution.integrated_gradients(
                model, [[1.0]], baseline=-0.4142, rule="riemann_left", steps=2, tolerance=1e-12
            )


@pytest.mark.parametrize("method", ["integrated_gradients", "smooth_grad", "score_cam", "ablation_cam", "conductance"])
def test_a_target_that_is_saturated_wherever_it_is_looked_at_is_said_to_be(method):
    """And not one that is so at the input alone: that is what a path is for."""
    x = keras.Input((4, 4, 1))
    pooled = layers.GlobalAveragePooling2D()(layers.Conv2D(2, 3, name="tap")(x))
    model = keras.Model(x, layers.Dense(2, activation="softmax", name="scores")(pooled))
    kernel, bias = model.get_layer("scores").get_weights()
    rows = np.random.default_rng(0).random((2, 4, 4, 1)).astype("float32")
    ask = {"target": 1, "at": "tap"} | ({"seed": 0} if method == "smooth_grad" else {})
    model.get_layer("scores").set_weights([kernel, bias + np.array([0, 200])])
    with pytest.warns(errors.SaturatedTargetWarning, match="logits=True"):
        getattr(attribution, method)(model, rows, **ask)
    model.get_layer("scores").set_weights([kernel, bias])
    getattr(attribution, method)(model, rows, **ask)
    # A difference of two probabilities may be small or negative without being at a limit.
    getattr(attribution, method)(model, rows, **ask | {"target": gt.targets.contrast(0, 1)})
    getattr(attribution, method)(model, rows, **ask | {"target": gt.targets.contrast(1, 0)})
