"""Targets: the score that is differentiated is restated by hand, and differentiated by central differences."""

from __future__ import annotations

import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import gradtap as gt
from gradtap import errors
from gradtap.targets import class_score, loss
from reference import layers as ref
from reference.differences import assert_same_numbers, central_differences, directional_difference
from reference.models import draws, float64_policy, policy

CLASSES = 4


def made(activation=None, classes=CLASSES, dtype="float64"):
    """A dense network of two layers, which the helpers below restate."""
    keras.utils.set_random_seed(0)
    with policy(dtype, "float64" if dtype == "float64" else "float32"):
        hidden = layers.Dense(3, activation="tanh", name="hidden")
        last = layers.Dense(classes, activation=activation, name="last")
        return keras.Sequential([keras.Input((5,)), hidden, last])


@pytest.fixture(scope="module")
def linear():
    return made()


@pytest.fixture(scope="module")
def softmax():
    return made("softmax")


@pytest.fixture(scope="module")
def x():
    return draws(6, 5)


def hidden_of(model, x):
    return np.tanh(ref.dense(x, model.get_layer("hidden")))


def check(model, x, target, by_hand, **options):
    """The result at `hidden` against central differences of a score restated as a function of the last layer's sum."""
    last, hidden = model.get_layer("last"), hidden_of(model, x)
    g = gt.gradients(model, x, target=target, at="hidden", **options)
    assert_same_numbers(g.target, by_hand(ref.dense(hidden, last)), 1e-12)
    assert_same_numbers(g["hidden"], central_differences(lambda h: by_hand(ref.dense(h, last)), hidden))
    return g


# -- classes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("k", [0, 3, -1, -4, np.int64(2), np.array(1), tf.constant(2)])
def test_one_class_for_all(linear, x, k):
    g = check(linear, x, k, lambda z: z[:, int(k)])
    np.testing.assert_allclose(g["hidden"], np.tile(linear.get_layer("last").kernel[:, int(k)], (6, 1)), rtol=1e-12)


@pytest.mark.parametrize("convert", [list, np.array, tf.constant, lambda k: np.array(k, "uint8")])
def test_a_class_for_each_example(softmax, x, convert):
    k = [0, 3, 1, 1, 2, 0]
    check(softmax, x, convert(k), lambda z: ref.softmax(z)[np.arange(6), k])
    check(softmax, x, convert(k), lambda z: ref.softmax(z)[np.arange(6), k], batch_size=4)


def test_negative_classes_for_each_example(softmax, x):
    k = [-1, 3, -4, 1, -2, 0]
    check(softmax, x, k, lambda z: ref.softmax(z)[np.arange(6), k])


def test_predicted(softmax, x):
    winners = ref.dense(hidden_of(softmax, x), softmax.get_layer("last")).argmax(-1)
    assert len(set(winners)) > 1
    for target in ("predicted", class_score("predicted")):
        check(softmax, x, target, lambda z: ref.softmax(z)[np.arange(6), winners])
    check(softmax, x, class_score("predicted", logits=True), lambda z: z[np.arange(6), winners])


def test_one_number_per_example_needs_no_target(x):
    check(made(classes=1), x, None, lambda z: z[:, 0])
    check(made("sigmoid", classes=1), x, None, lambda z: ref.sigmoid(z)[:, 0])

    def function(x):
        return tf.reduce_sum(x**2, -1)

    np.testing.assert_allclose(gt.gradients(function, x, at=":input").only, 2 * x)


def test_none_is_a_target_for_nothing_else(linear, x):
    with pytest.raises(errors.MissingTargetError, match='"predicted"'):
        gt.gradients(linear, x, at="hidden")


# -- logits ------------------------------------------------------------------------------------------------------------


ENDS = [
    layers.Softmax,
    lambda: layers.Activation("softmax"),
    lambda: layers.Activation("sigmoid"),
    lambda: keras.ops.softmax,
]


@pytest.mark.parametrize("end", ENDS)
def test_logits_are_what_stands_before_the_end(x, end):
    model = made()
    with float64_policy():
        whole = keras.Model(model.inputs, end()(model.outputs[0]))
    check(whole, x, class_score(2, logits=True), lambda z: z[:, 2])


def test_logits_inside_of_a_nested_model(x):
    """The softmax is in a model inside of a model, the output goes through layers that hand it on."""
    inner = made("softmax")
    with float64_policy():
        model = keras.Sequential([keras.Input((5,)), inner, layers.Dropout(0.5), layers.Activation("linear")])
    last, hidden = inner.get_layer("last"), hidden_of(inner, x)
    g = gt.gradients(model, x, target=class_score(1, logits=True), at="hidden")
    assert_same_numbers(g.target, ref.dense(hidden, last)[:, 1], 1e-12)
    np.testing.assert_allclose(g.only, np.tile(last.kernel[:, 1], (6, 1)), rtol=1e-12)


def test_logits_of_a_classes_list_and_of_one_number(softmax, x):
    k = [0, 3, 1, 1, 2, 0]
    check(softmax, x, class_score(k, logits=True), lambda z: z[np.arange(6), k], batch_size=5)
    check(made("sigmoid", classes=1), x, class_score(0, logits=True), lambda z: z[:, 0])


def test_logits_of_half_precision_are_widened():
    """A softmax in float32 at the end of a float16 model, as Keras advises; and one that is in float16 itself."""
    for end_type in ("float32", "float16"):
        with policy("mixed_float16"):
            hidden, last = layers.Dense(3, activation="tanh", name="hidden"), layers.Dense(4, name="last")
            end = layers.Activation("softmax", dtype=end_type)
            model = keras.Sequential(
                [keras.Input((5,)), hidden, last, end, layers.Activation("linear", dtype="float32")]
            )
        x = draws(3, 5).astype("float32")
        g = gt.gradients(model, x, target=class_score(1, logits=True), at=["hidden", "last"])
        assert g.target.dtype == tf.float32
        assert g["last"].dtype == tf.float16
        np.testing.assert_array_equal(g.target, tf.cast(g.activations["last"], "float32")[:, 1])
        np.testing.assert_array_equal(g["last"], np.tile([0, 1, 0, 0], (3, 1)))
        np.testing.assert_array_equal(g["hidden"], np.tile(tf.cast(last.kernel, "float16")[:, 1], (3, 1)))


def test_logits_of_what_ends_in_none_are_the_output_with_a_warning(linear, x):
    with pytest.warns(errors.NoLogitsWarning):
        check(linear, x, class_score(2, logits=True), lambda z: z[:, 2])


def test_logits_where_the_probability_is_saturated():
    model = made("softmax", dtype="float32")
    model.get_layer("last").set_weights([np.zeros((3, 4)), np.array([200.0, 0, 0, 0])])
    x = draws(2, 5).astype("float32")
    with pytest.warns(errors.SaturatedTargetWarning, match="logits=True"):
        assert not np.any(gt.gradients(model, x, target=0, at="last:preactivation").only)
    g = gt.gradients(model, x, target=class_score(0, logits=True), at="last:preactivation")
    np.testing.assert_array_equal(g.only, np.tile([1, 0, 0, 0], (2, 1)))


# -- callables ---------------------------------------------------------------------------------------------------------


def test_callables_take_the_outputs_as_the_model_returns_them(softmax, x):
    check(softmax, x, lambda y: y[:, 0] - y[:, 2] ** 2, lambda z: ref.softmax(z)[:, 0] - ref.softmax(z)[:, 2] ** 2)
    check(softmax, x, lambda y: keras.ops.max(y, axis=-1), lambda z: ref.softmax(z).max(-1))


def test_callables_of_a_dict_of_outputs(x):
    with float64_policy():
        inputs = keras.Input((5,))
        h = layers.Dense(3, name="hidden")(inputs)
        model = keras.Model(inputs, {"b": layers.Dense(1, name="one")(h), "a": layers.Dense(2, name="two")(h)})
    one, two = (model.get_layer(n).kernel.numpy() for n in ("one", "two"))
    g = gt.gradients(model, x, target=lambda y: y["a"][:, 1] * 3 - y["b"][:, 0], at="hidden")
    np.testing.assert_allclose(g.only, np.tile(two[:, 1] * 3 - one[:, 0], (6, 1)))
    assert set(g.outputs) == {"a", "b"}


def test_a_lambda_in_a_loop_is_never_stale(linear, x):
    kernel = linear.get_layer("last").kernel.numpy()
    for k in (0, 2, 1, 0):
        g = gt.gradients(linear, x, target=lambda y: y[:, k], at="hidden")
        np.testing.assert_allclose(g.only[0], kernel[:, k])
        np.testing.assert_array_equal(g.target, g.outputs[:, k])


FACTOR = 1.0


def scaled(y):
    return y[:, 0] * FACTOR


def test_a_function_that_reads_a_global_is_never_stale(linear, x, monkeypatch):
    kernel = linear.get_layer("last").kernel.numpy()
    for factor in (1.0, 2.0, -3.0, 1.0):
        monkeypatch.setitem(globals(), "FACTOR", factor)
        np.testing.assert_allclose(gt.gradients(linear, x, target=scaled, at="hidden").only[0], factor * kernel[:, 0])


def test_a_function_that_reads_objects_is_never_stale(linear, x):
    kernel = linear.get_layer("last").kernel.numpy()

    class Weighted:
        def __init__(self):
            self.weights = np.array([1.0, 0, 0, 0])

        def __call__(self, y):
            return tf.linalg.matvec(y, self.weights)

    weighted, several, variable = Weighted(), [1.0], tf.Variable([1.0, 0, 0, 0], dtype="float64")
    for k in range(4):
        weighted.weights = np.eye(4)[k]
        np.testing.assert_allclose(gt.gradients(linear, x, target=weighted, at="hidden").only[0], kernel[:, k])
        weighted.weights[:] = 2 * np.eye(4)[k]  # in place
        np.testing.assert_allclose(gt.gradients(linear, x, target=weighted, at="hidden").only[0], 2 * kernel[:, k])
        several[0] = float(k)
        g = gt.gradients(linear, x, target=lambda y: y[:, 1] * several[0], at="hidden", checks=False)
        np.testing.assert_allclose(g.only[0], k * kernel[:, 1])
        variable.assign(np.eye(4)[k])
        g = gt.gradients(linear, x, target=lambda y: tf.linalg.matvec(y, variable), at="hidden")
        np.testing.assert_allclose(g.only[0], kernel[:, k])
        constant = tf.constant(np.eye(4)[k])
        g = gt.gradients(linear, x, target=lambda y: tf.linalg.matvec(y, constant), at="hidden")
        np.testing.assert_allclose(g.only[0], kernel[:, k])


# -- several outputs ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def heads():
    with float64_policy():
        x = keras.Input((5,))
        h = layers.Dense(3, name="hidden")(x)
        left = layers.Dense(2, activation="softmax", name="left")(h)
        right = layers.Dense(4, activation="sigmoid", name="right")(h)
        return keras.Model(x, [left, right])


@pytest.mark.parametrize("output", ["right", 1, -1])
def test_the_output_by_name_and_by_position(heads, x, output):
    right, h = heads.get_layer("right"), ref.dense(x, heads.get_layer("hidden"))
    g = gt.gradients(heads, x, target=class_score(3, output=output), at="hidden")
    assert_same_numbers(g.only, central_differences(lambda h: ref.sigmoid(ref.dense(h, right))[:, 3], h))
    g = gt.gradients(heads, x, target=class_score([0, 1, 2, 3, 0, 1], output=output, logits=True), at="hidden")
    np.testing.assert_allclose(g.only, right.kernel.numpy().T[[0, 1, 2, 3, 0, 1]])


def test_several_outputs_and_no_word_on_which_is_an_error(heads, x):
    with pytest.raises(errors.OutputChoiceError, match=r"left.*right"):
        gt.gradients(heads, x, target=0, at="hidden")


# -- losses ------------------------------------------------------------------------------------------------------------


def crossentropy(labels):
    return lambda z: -np.log(ref.softmax(z)[np.arange(len(labels)), labels])


def mean_squared(labels):
    return lambda z: ((z - labels) ** 2).mean(-1)


LABELS = [0, 3, 1, 1, 2, 0]


@pytest.mark.parametrize("reduction", ["sum_over_batch_size", "sum", "mean", "none", None, "mean_with_sample_weight"])
def test_losses_of_any_reduction_are_those_of_each_example(softmax, x, reduction):
    fn = keras.losses.SparseCategoricalCrossentropy(reduction=reduction)
    check(softmax, x, loss(fn, LABELS), crossentropy(LABELS))
    check(softmax, x, loss(fn, LABELS), crossentropy(LABELS), batch_size=4)


@pytest.mark.parametrize(
    "fn",
    ["sparse_categorical_crossentropy", keras.losses.sparse_categorical_crossentropy],
)
def test_losses_by_name_and_as_functions(softmax, x, fn):
    check(softmax, x, loss(fn, np.array(LABELS)), crossentropy(LABELS))
    check(softmax, x, loss(fn, tf.constant(LABELS)), crossentropy(LABELS))


def test_losses_of_one_hot_rows_and_from_logits(softmax, linear, x):
    rows = np.eye(CLASSES)[LABELS]
    check(softmax, x, loss("categorical_crossentropy", rows), crossentropy(LABELS))
    check(linear, x, loss(keras.losses.CategoricalCrossentropy(from_logits=True), rows), crossentropy(LABELS))
    fn = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.2)
    smooth = rows * 0.8 + 0.2 / CLASSES
    check(linear, x, loss(fn, rows), lambda z: -(smooth * np.log(ref.softmax(z))).sum(-1))


def test_losses_of_regression(linear, x):
    y = draws(6, CLASSES, seed=1)
    check(linear, x, loss("mse", y), mean_squared(y))
    check(linear, x, loss(keras.losses.MeanAbsoluteError(), y), lambda z: np.abs(z - y).mean(-1))
    check(linear, x, loss(keras.losses.Huber(delta=0.5), y), lambda z: huber(z - y, 0.5).mean(-1))
    check(
        linear, x, loss(lambda true, pred: tf.reduce_sum((true - pred) ** 4, -1), y), lambda z: ((z - y) ** 4).sum(-1)
    )


@pytest.mark.parametrize("shape", [(6,), (6, 1)])
@pytest.mark.parametrize("dtype", ["int32", "float16", "float64"])
@pytest.mark.parametrize(
    "fn",
    [
        "binary_crossentropy",
        keras.losses.binary_crossentropy,
        keras.losses.BinaryCrossentropy(),
        lambda true, p: (
            -tf.reduce_mean(
                tf.cast(true, p.dtype) * tf.math.log(p) + (1 - tf.cast(true, p.dtype)) * tf.math.log(1 - p), -1
            )
        ),
    ],
)
def test_labels_as_keras_takes_them(x, fn, shape, dtype):
    y = np.array([0, 1, 1, 0, 1, 0])
    model = made("sigmoid", classes=1)

    def by_hand(z):
        p = ref.sigmoid(z)[:, 0]
        return -(y * np.log(p) + (1 - y) * np.log(1 - p))

    check(model, x, loss(fn, y.reshape(shape).astype(dtype)), by_hand)


def test_float_labels_for_a_function_in_float32():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, name="h"), keras.layers.Dense(1)])
    x = np.linspace(-1, 1, 12, dtype="float32").reshape(3, 4)
    y = np.array([1.0, 0.5, -2.0])
    weights = model.layers[-1].kernel.numpy()[:, 0]
    expected = 2 * (model(x).numpy() - y[:, None]) * weights
    for labels in (y, y[:, None]):
        fn = loss(lambda true, p: tf.reduce_mean((true - p) ** 2, -1), labels)
        np.testing.assert_allclose(gt.gradients(model, x, target=fn, at="h").only, expected, rtol=1e-5)


def test_labels_of_steps_with_and_without_the_last_axis():
    steps = keras.Sequential([keras.Input((5, 4)), keras.layers.Dense(3, name="h"), keras.layers.Dense(1)])
    flat = keras.Sequential([*steps.layers, keras.layers.Reshape((5,))])
    x = np.linspace(-1, 1, 40, dtype="float32").reshape(2, 5, 4)
    y = np.linspace(0, 1, 10).reshape(2, 5)

    def mean_square(true, p):
        return tf.reduce_mean((true - p) ** 2, -1)

    expected = gt.gradients(flat, x, target=loss("mse", y), at="h").only
    for model in (steps, flat):
        for labels in (y, y[..., None]):
            for fn in ("mse", mean_square):
                found = gt.gradients(model, x, target=loss(fn, labels), at="h").only
                np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-7)


def fourth_power(true, predicted):
    return tf.reduce_sum((true - predicted) ** 4, -1)


def huber(d, delta):
    return np.where(np.abs(d) < delta, d**2 / 2, delta * np.abs(d) - delta**2 / 2)


def test_labels_are_fed_and_never_stale(linear, x):
    for seed in range(3):
        y = draws(6, CLASSES, seed=seed)
        check(linear, x, loss("mse", y), mean_squared(y))


def test_a_binary_loss_of_a_sigmoid(x):
    y = np.array([[0.0], [1], [1], [0], [1], [0]])
    model = made("sigmoid", classes=1)

    def by_hand(z):
        p = ref.sigmoid(z)
        return -(y * np.log(p) + (1 - y) * np.log(1 - p))[:, 0]

    check(model, x, loss("binary_crossentropy", y), by_hand)


def test_a_binary_loss_takes_a_softmax_as_the_probabilities_that_it_gives(softmax, x):
    """What stands before a softmax is not what stands before a sigmoid."""
    rows = np.eye(CLASSES)[LABELS]

    def by_hand(z):
        p = ref.softmax(z)
        return -(rows * np.log(p) + (1 - rows) * np.log(1 - p)).mean(-1)

    check(softmax, x, loss("binary_crossentropy", rows), by_hand)


def test_a_loss_at_the_probabilities_themselves(softmax, x):
    """The tap comes after what Keras forms a cross-entropy from; the loss depends on it all the same."""
    rows = np.eye(CLASSES)[LABELS]
    p = ref.softmax(ref.dense(hidden_of(softmax, x), softmax.get_layer("last")))

    def by_hand(p):
        return -(rows * np.log(p / p.sum(-1, keepdims=True))).sum(-1)

    for target in (loss("categorical_crossentropy", rows), loss("sparse_categorical_crossentropy", LABELS)):
        g = gt.gradients(softmax, x, target=target, at=["hidden", "last:preactivation", "last", ":output"])
        assert_same_numbers(g["last"], central_differences(by_hand, p))
        assert_same_numbers(g[":output"], central_differences(by_hand, p))
        assert_same_numbers(g["last:preactivation"], p - rows, 1e-12)
        check(softmax, x, target, crossentropy(LABELS))


@pytest.mark.parametrize("dtype", ["float32", "mixed_float16"])
def test_a_cross_entropy_of_a_probability_that_was_rounded_to_zero(dtype):
    model = made("softmax", dtype=dtype)
    model.get_layer("last").set_weights([np.zeros((3, 4)), np.array([200.0, 0, 0, 0])])
    rows = draws(2, 5).astype("float32")
    g = gt.gradients(model, rows, target=loss("sparse_categorical_crossentropy", [0, 1]), at="last:preactivation")
    np.testing.assert_allclose(g.target, [0, 200], rtol=1e-6)
    np.testing.assert_array_equal(g.only, [[0, 0, 0, 0], [1, -1, 0, 0]])


def test_a_loss_over_positions_is_their_mean(positions):
    model, x = positions
    y = draws(2, 3, 4, seed=1)
    last = model.get_layer("last")

    def by_hand(h):
        return ((np.tanh(ref.dense(h, last)) - y) ** 2).mean((1, 2))

    g = gt.gradients(model, x, target=loss("mse", y), at=":input")
    assert_same_numbers(g.only, central_differences(by_hand, x))


def test_a_loss_of_one_of_several_outputs(heads, x):
    right, h = heads.get_layer("right"), ref.dense(x, heads.get_layer("hidden"))
    y = draws(6, 4, seed=1)
    g = gt.gradients(heads, x, target=loss("mse", y, output="right"), at="hidden")
    assert_same_numbers(g.only, central_differences(lambda h: mean_squared(y)(ref.sigmoid(ref.dense(h, right))), h))


# -- outputs of higher rank --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def positions():
    """Outputs (batch, 3, 4)."""
    keras.utils.set_random_seed(0)
    with float64_policy():
        model = keras.Sequential([keras.Input((3, 5)), layers.Dense(4, activation="tanh", name="last")])
    return model, draws(2, 3, 5)


def check_positions(positions, target, by_hand, **options):
    model, x = positions
    last = model.get_layer("last")
    g = gt.gradients(model, x, target=target, at=":input", **options)
    assert_same_numbers(g.target, by_hand(np.tanh(ref.dense(x, last))), 1e-12)
    assert_same_numbers(g.only, central_differences(lambda t: by_hand(np.tanh(ref.dense(t, last))), x))


def test_a_tuple_is_a_position_and_a_class(positions):
    check_positions(positions, (1, 3), lambda y: y[:, 1, 3])
    check_positions(positions, (-1, -2), lambda y: y[:, 2, 2])
    check_positions(positions, class_score((0, 2)), lambda y: y[:, 0, 2])


def test_a_list_of_tuples_is_one_for_each_example(positions):
    check_positions(positions, [(1, 3), (2, 0)], lambda y: np.array([y[0, 1, 3], y[1, 2, 0]]), batch_size=1)


def test_a_mask_sums_what_it_selects(positions):
    rng = np.random.default_rng(0)
    one, each = rng.random((3, 4)) > 0.5, rng.random((2, 3, 4)) > 0.5
    weights = rng.normal(size=(3, 4))
    check_positions(positions, one, lambda y: (y * one).sum((1, 2)))
    check_positions(positions, tf.constant(each), lambda y: (y * each).sum((1, 2)), batch_size=1)
    check_positions(positions, weights, lambda y: (y * weights).sum((1, 2)))
    check_positions(positions, class_score(one), lambda y: (y * one).sum((1, 2)), batch_size=1)


def test_a_tuple_for_one_row_of_classes_is_refused(linear, x):
    with pytest.raises(errors.TargetTypeError, match="two readings"):
        gt.gradients(linear, x[:2], target=(0, 1), at="hidden")


# -- units inside of the model -----------------------------------------------------------------------------------------


def test_a_neuron_a_channel_and_a_contrast(softmax, x):
    hidden = softmax.get_layer("hidden")
    h = hidden_of(softmax, x)
    before = 1 - h**2  # the derivative of tanh

    def at_input(weights):
        return (before * weights) @ hidden.kernel.numpy().T

    g = gt.gradients(softmax, x, target=gt.targets.neuron("hidden", 1), at=":input")
    np.testing.assert_allclose(g.only, at_input([0, 1, 0]), rtol=1e-12)
    np.testing.assert_allclose(g.target, h[:, 1], rtol=1e-12)
    g = gt.gradients(softmax, x, target=gt.targets.neuron("hidden", slice(1, None)), at=":input")
    np.testing.assert_allclose(g.only, at_input([0, 1, 1]), rtol=1e-12)
    g = gt.gradients(softmax, x, target=gt.targets.channel("hidden", 2), at=":input")
    np.testing.assert_allclose(g.only, at_input([0, 0, 1]), rtol=1e-12)
    check(softmax, x, gt.targets.contrast(3, 1), lambda z: ref.softmax(z)[:, 3] - ref.softmax(z)[:, 1])
    logits = [class_score(k, logits=True) for k in (3, 1)]
    check(softmax, x, gt.targets.contrast(*logits), lambda z: z[:, 3] - z[:, 1])


def test_a_channel_is_reduced_over_its_positions(positions):
    model, x = positions
    last = model.get_layer("last")
    y = np.tanh(ref.dense(x, last))
    for reduce, by_hand in (("mean", y.mean(1)), ("sum", y.sum(1)), ("max", y.max(1))):
        g = gt.gradients(model, x, target=gt.targets.channel("last", 2, reduce=reduce), at="last")
        np.testing.assert_allclose(g.target, by_hand[:, 2], rtol=1e-12)
        weights = {
            "mean": np.full((2, 3), 1 / 3),
            "sum": np.ones((2, 3)),
            "max": y[..., 2] == y[..., 2].max(1)[:, None],
        }
        np.testing.assert_allclose(g.only[..., 2], weights[reduce])
        assert not np.any(g.only.numpy()[..., [0, 1, 3]])


# -- what is no target -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "error"),
    [
        (4, errors.ClassRangeError),
        (-5, errors.ClassRangeError),
        ([0, 1, 2, 3, 4, 0], errors.ClassRangeError),
        ([0, 1], errors.TargetCountError),
        (lambda y: tf.reduce_mean(y), errors.TargetShapeError),
        (lambda y: y, errors.TargetShapeError),
        (lambda y: tf.argmax(y, -1), errors.TargetTypeError),
        (lambda y: y[:2, 0], errors.TargetShapeError),
        (1.5, errors.TargetTypeError),
        ("best", errors.TargetTypeError),
    ],
)
def test_what_is_not_one_number_per_example_is_refused(linear, x, target, error):
    with pytest.raises(error):
        gt.gradients(linear, x, target=target, at="hidden")


# -- ways to run -------------------------------------------------------------------------------------------------------


def test_datasets_with_and_without_labels(softmax, x):
    whole = gt.gradients(softmax, x, target="predicted", at=[":input", "hidden"])
    plain = tf.data.Dataset.from_tensor_slices(x).batch(4)
    labelled = tf.data.Dataset.from_tensor_slices((x, np.zeros(6))).batch(2)
    for dataset in (plain, labelled):
        g = gt.gradients(softmax, dataset, target="predicted", at=[":input", "hidden"])
        assert list(g) == list(whole)
        for address in whole:
            assert_same_numbers(g[address], whole[address], 1e-12)
            assert_same_numbers(g.activations[address], whole.activations[address], 1e-12)
        assert_same_numbers(g.target, whole.target, 1e-12)
        assert_same_numbers(g.outputs, whole.outputs, 1e-12)
    a = gt.activations(softmax, labelled, at="hidden")
    assert_same_numbers(a.only, hidden_of(softmax, x), 1e-12)


def test_datasets_of_dicts(x):
    with float64_policy():
        a, b = keras.Input((5,), name="a"), keras.Input((5,), name="b")
        model = keras.Model({"a": a, "b": b}, layers.Dense(1)(layers.Subtract()([a, b])))
    dataset = tf.data.Dataset.from_tensor_slices(({"a": x, "b": 2 * x}, np.zeros(6))).batch(4)
    g = gt.gradients(model, dataset, at=":input")
    assert g[":input.a"].shape == (6, 5)
    np.testing.assert_array_equal(g[":input.a"], -g[":input.b"])
    np.testing.assert_array_equal(g.activations[":input.b"], 2 * x)


@pytest.mark.parametrize("batch_size", [1, 2, 4, 5, 6, 100])
def test_the_size_of_the_parts_changes_nothing(softmax, x, batch_size):
    k = [0, 3, 1, 1, 2, 0]
    y = draws(6, CLASSES, seed=1)
    for target in (1, k, "predicted", lambda y: y[:, 0] * y[:, 1], loss("mse", y), np.abs(y)):
        whole = gt.gradients(softmax, x, target=target, at=[":input", "hidden"])
        split = gt.gradients(softmax, x, target=target, at=[":input", "hidden"], batch_size=batch_size)
        for address in whole:
            assert_same_numbers(split[address], whole[address], 1e-13)
        assert_same_numbers(split.outputs, whole.outputs, 1e-13)


def test_autograph_leaves_gradtap_and_the_target_alone(linear, x):
    """Inside of a `tf.function` nothing of ours is rewritten: that would take seconds."""
    stacks = []

    def target(y):
        import inspect

        stacks.append([frame.filename for frame in inspect.stack()])
        return y[:, 0]

    def outer(x):
        return gt.gradients(linear, x, target=target, at="hidden").only

    value = tf.function(outer)(tf.constant(x))
    np.testing.assert_allclose(value, np.tile(linear.get_layer("last").kernel[:, 0], (6, 1)))
    assert stacks
    for (
        files
    ) in stacks:  # innermost first: from the target out to the call of gradtap, and the user's function behind it
        ours = max(i for i, f in enumerate(files) if f.endswith("gradtap/differentiate.py"))
        assert not [f for f in files[:ours] if "__autograph_generated_file" in f]
        assert [f for f in files[ours:] if "__autograph_generated_file" in f]


def test_errors_inside_a_tf_function_are_the_same(linear, x):
    """AutoGraph would wrap them in an error of its own, which nobody catches."""

    def wrong(x):
        return gt.gradients(linear, x, target=7, at="hidden").only

    with pytest.raises(errors.ClassRangeError, match="7 is out of range"):
        tf.function(wrong)(tf.constant(x))


def test_inside_a_tf_function_with_other_targets(softmax, x):
    y = draws(6, CLASSES, seed=1)
    for target in ([0, 3, 1, 1, 2, 0], "predicted", loss("mse", y), lambda y: y[:, 1]):
        outside = gt.gradients(softmax, x, target=target, at="hidden").only
        inside = tf.function(lambda x, t=target: gt.gradients(softmax, x, target=t, at="hidden").only)(tf.constant(x))
        assert_same_numbers(inside, outside, 1e-13)


# -- differentiated again ----------------------------------------------------------------------------------------------


def dense_net():
    return [layers.Dense(4, activation="tanh", name="tap"), layers.Dense(3, activation="softmax")], (3,)


def convolutional():
    conv = layers.Conv2D(3, 2, activation="gelu", name="tap")
    return [conv, layers.MaxPooling2D(), layers.Flatten(), layers.Dense(3, activation="tanh")], (5, 5, 2)


def recurrent():
    return [layers.LSTM(3, return_sequences=True, name="tap"), layers.GRU(3), layers.Dense(3, activation="tanh")], (
        4,
        2,
    )


class SelfAttention(layers.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.attend = layers.MultiHeadAttention(2, 2)
        self.norm = layers.LayerNormalization()

    def call(self, x):
        return self.norm(x + self.attend(x, x))


def attentive():
    return [SelfAttention(name="tap"), SelfAttention(), layers.Flatten(), layers.Dense(3, activation="tanh")], (3, 4)


@pytest.mark.parametrize("kind", [dense_net, convolutional, recurrent, attentive])
def test_an_outer_tape_differentiates_gradients_again(kind):
    """An attribution as a part of a loss: with respect to the inputs and to every weight, against differences."""
    keras.utils.set_random_seed(1)
    with float64_policy():
        parts, shape = kind()
        model = keras.Sequential([keras.Input(shape), *parts])
    x = draws(2, *shape)
    some = gt.gradients(model, x, target=1, at=["tap", ":input"])
    weights = [draws(*v.shape, seed=i) for i, v in enumerate(some.values())]

    def total(x):
        g = gt.gradients(model, x, target=1, at=["tap", ":input"])
        return tf.add_n([tf.reduce_sum(tf.tanh(3 * v) * w) for v, w in zip(g.values(), weights, strict=True)])

    variable = tf.Variable(x)
    with tf.GradientTape() as tape:
        value = total(tf.convert_to_tensor(variable))
    by_input, *by_weight = tape.gradient(value, [variable, *model.trainable_variables])
    direction = draws(*x.shape, seed=3)
    expected = directional_difference(lambda x: total(tf.constant(x)).numpy(), x, direction)
    assert_same_numbers(np.sum(by_input * direction), expected)
    checked = 0
    for weight, slope in zip(model.trainable_variables, by_weight, strict=True):
        start, direction = weight.numpy(), draws(*weight.shape, seed=4)

        def moved(w, weight=weight):
            weight.assign(w)
            return total(tf.constant(x)).numpy()

        expected = directional_difference(moved, start, direction)
        weight.assign(start)
        if abs(expected) < 1e-6:  # a bias before a softmax over keys moves nothing
            assert slope is None or np.abs(np.sum(slope * direction)) < 1e-6
            continue
        assert_same_numbers(np.sum(slope * direction), expected, 2e-7)
        checked += 1
    assert checked >= 3


def test_training_on_a_gradient_inside_a_tf_function():
    """A penalty on the input gradient, as in double backpropagation, driven to zero by an optimizer."""
    model = made("tanh", dtype="float32")
    x = tf.constant(draws(6, 5).astype("float32"))
    optimizer = keras.optimizers.SGD(0.5)
    optimizer.build(model.trainable_variables)

    @tf.function
    def step():
        with tf.GradientTape() as tape:
            penalty = tf.reduce_mean(tf.square(gt.gradients(model, x, target=0, at=":input").only))
        optimizer.apply(tape.gradient(penalty, model.trainable_variables), model.trainable_variables)
        return penalty

    penalties = [float(step()) for _ in range(30)]
    assert penalties[-1] < 0.1 * penalties[0]
    direct = np.mean(np.square(gt.gradients(model, x, target=0, at=":input").only))
    np.testing.assert_allclose(step(), direct, rtol=1e-5)


def test_targets_are_shown_as_they_were_asked():
    assert repr(class_score(3, output="aux", logits=True)) == "class_score(3, output='aux', logits=True)"
    assert repr(class_score("predicted")) == 'class_score("predicted")'
    assert repr(loss("mse", [[0.0]])) == "loss('mse')"


def test_no_warning_where_nothing_is_saturated(softmax, x):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        gt.gradients(softmax, x, target=0, at="hidden")


class Nest(keras.Model):
    """Returns dicts and a tuple inside of a dict."""

    def __init__(self):
        super().__init__()
        self.heads = [keras.layers.Dense(2) for _ in range(4)]

    def call(self, x):
        a, c, d, e = (head(x) for head in self.heads)
        return {"a": a, "b": {"c": c, "d": (d, e)}}


@pytest.mark.parametrize(("output", "head"), [("a", 0), ("b.c", 1), ("b.d.0", 2), ("b.d.1", 3), (2, 2)])
def test_outputs_in_a_nest_are_named_by_where_they_stand(x, output, head):
    model = Nest()
    g = gt.gradients(model, x, target=gt.targets.class_score(1, output=output), at=":input")
    np.testing.assert_allclose(g.only, np.tile(model.heads[head].kernel[:, 1], (6, 1)), rtol=1e-6)
    assert gt.activations(model, x, at=":output.b.d.1").only.shape == (6, 2)
    with pytest.raises(errors.OutputChoiceError, match=r"`a` .*`b.c` .*`b.d.0`"):
        gt.gradients(model, x, target=gt.targets.class_score(1, output="c"), at=":input")
