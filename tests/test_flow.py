"""What is measured of the flow, against sums in NumPy; and what is found, on networks that are broken on purpose."""

from __future__ import annotations

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import gradtap as gt
from gradtap import errors, flow
from gradtap.flow import architectures
from gradtap.flow.merging import exponents_of
from reference.models import draws, policy

X, Y = draws(24, 16).astype("float32"), np.arange(24) % 10


def classifier(activation="relu", depth=3, width=12, **options):
    hidden = [layers.Dense(width, activation=activation, name=f"dense{i}", **options) for i in range(depth)]
    return keras.Sequential([keras.Input((16,)), *hidden, layers.Dense(10, name="logits")])


def cross_entropy(model):
    return gt.targets.loss(keras.losses.SparseCategoricalCrossentropy(from_logits=True), Y)


def kinds(found):
    return [(finding.kind, finding.tap) for finding in found.findings]


# -- numbers -----------------------------------------------------------------------------------------------------------


def brute_force(a, g):
    """The numbers of a row, from all activations and gradients."""
    n = len(a)
    a, g = (np.asarray(v, np.float64).reshape(n, -1) for v in (a, g))
    a_norms, g_norms = np.linalg.norm(a, axis=1), np.linalg.norm(g, axis=1)
    cosines = [g[i] @ g[j] / g_norms[i] / g_norms[j] for i, j in itertools.combinations(range(n), 2)]
    mean = g.mean(0)
    noise = np.mean(np.sum((g - mean) ** 2, 1))
    return {
        "activation_norm": a_norms.mean(),
        "activation_median": np.median(a_norms),
        "activation_mean": a.mean(),
        "activation_deviation": a.std(),
        "gradient_norm": g_norms.mean(),
        "gradient_median": np.median(g_norms),
        "gradient_mean": g.mean(),
        "gradient_deviation": g.std(),
        "zeros": np.mean(a == 0),
        "gradient_zeros": np.mean(g == 0),
        "signal_to_noise": np.linalg.norm(mean) / np.sqrt(noise),
        "cosine": np.mean(cosines),
    }


def convolutional():
    convolution = layers.Conv2D(6, 3, activation="relu", name="conv")
    stages = [
        convolution,
        layers.MaxPooling2D(name="pool"),
        layers.Flatten(name="flat"),
        layers.Dense(10, name="logits"),
    ]
    return keras.Sequential([keras.Input((8, 8, 2)), *stages])


@pytest.mark.parametrize("kind", ["dense", "convolution"])
@pytest.mark.parametrize("batch_size", [None, 1, 7])
def test_numbers_are_those_of_all_activations_and_gradients(kind, batch_size, float64):
    model, x = (classifier(), X) if kind == "dense" else (convolutional(), draws(24, 8, 8, 2))
    found = flow.measure(model, x, labels=Y, batch_size=batch_size)
    g = gt.gradients(model, x, target=cross_entropy(model), at="**")
    assert [row.address for row in found.rows] == list(g)
    for row in found.rows:
        expected = brute_force(g.activations[row.address], g[row.address])
        for name, value in expected.items():
            np.testing.assert_allclose(
                getattr(row, name), value, rtol=1e-9, atol=1e-15, err_msg=f"{row.address} {name}"
            )
        units = np.asarray(g.activations[row.address]).reshape(-1, row.shape[-1])
        assert row.dead == np.mean(np.all(units == 0, 0))
        assert row.examples == 24
        np.testing.assert_allclose(row.gradient_norms, np.linalg.norm(np.reshape(g[row.address], (24, -1)), axis=1))
    ratios = [a.gradient_norm / b.gradient_norm for a, b in itertools.pairwise(found.rows)]
    np.testing.assert_allclose([row.ratio for row in found.rows[:-1]], ratios)
    np.testing.assert_allclose(found.target, np.mean(g.target), rtol=1e-12)


def test_a_unit_that_only_the_last_example_wakes_is_not_dead():
    model = keras.Sequential([keras.Input((3,)), layers.Dense(3, activation="relu", name="hidden"), layers.Dense(2)])
    model.get_layer("hidden").kernel.assign(np.eye(3))
    x = -np.ones((8, 3), "float32")
    x[-1, 0] = 1.0
    for batch_size in (None, 3, 1):
        np.testing.assert_allclose(flow.measure(model, x, target=0, batch_size=batch_size).rows[0].dead, 2 / 3)


def test_histograms_count_every_entry_in_its_bin(float64):
    model = classifier("tanh")
    found = flow.measure(model, X, labels=Y, batch_size=5)
    a = gt.activations(model, X, at="dense1").only.numpy().astype("float32").reshape(-1)
    histogram = found.rows[1].activations
    expected, _ = np.histogram(a, histogram.edges)
    # A power of two itself belongs to the bin beyond it, and here none is met.
    np.testing.assert_array_equal(histogram.counts, expected)
    assert histogram.counts.sum() == a.size
    sizes, counts = exponents_of(histogram)
    np.testing.assert_array_equal(counts, [np.sum(np.floor(np.log2(np.abs(a))) == size) for size in sizes])


def test_weights_have_the_gradient_of_the_mean_loss():
    model = classifier()
    found = flow.measure(model, X, labels=Y, batch_size=5)
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(keras.losses.sparse_categorical_crossentropy(Y, model(X), from_logits=True))
    slopes = tape.gradient(loss, [w.value for w in model.trainable_weights])
    assert [row.address for row in found.weights] == [
        f"{n}:{w}" for n in ("dense0", "dense1", "dense2", "logits") for w in ("kernel", "bias")
    ]
    for row, weight, slope in zip(found.weights, model.trainable_weights, slopes, strict=True):
        np.testing.assert_allclose(row.gradient_norm, np.linalg.norm(slope), rtol=1e-5)
        np.testing.assert_allclose(row.weight_norm, np.linalg.norm(weight), rtol=1e-6)
        assert np.isnan(row.update_ratio)


def test_weights_and_states_alone_have_no_rows():
    x = keras.Input((5, 2))
    model = keras.Model(x, layers.Dense(3, name="scores")(layers.LSTM(4, name="lstm")(x)))
    series = draws(3, 5, 2).astype("float32")
    assert flow.measure(model, series, target=0, at="lstm:hidden").rows == []
    found = flow.measure(model, series, target=0, at="scores:kernel")
    assert found.rows == []
    assert "scores:kernel" in [weight.address for weight in found.weights]


def test_only_the_weights_of_what_was_asked_for_and_no_frozen_ones():
    model = classifier()
    assert [row.address for row in flow.measure(model, X, labels=Y, at="dense1").weights] == [
        "dense1:kernel",
        "dense1:bias",
    ]
    model.get_layer("dense1").trainable = False
    assert not [row for row in flow.measure(model, X, labels=Y).weights if row.address.startswith("dense1")]


def test_a_dataset_with_labels_is_streamed_and_gives_the_same():
    model = classifier()
    data = tf.data.Dataset.from_tensor_slices((X, Y)).batch(7)
    whole, streamed = flow.measure(model, X, labels=Y), flow.measure(model, data)
    for a, b in zip(whole.rows, streamed.rows, strict=True):
        np.testing.assert_allclose(a.gradient_norm, b.gradient_norm, rtol=1e-5)
        np.testing.assert_allclose(a.cosine, b.cosine, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(
        [r.gradient_norm for r in whole.weights], [r.gradient_norm for r in streamed.weights], rtol=1e-4
    )
    assert streamed.examples == 24


def test_sizes_far_outside_of_float32_squares_are_kept():
    inputs = keras.Input((4,))
    hidden = layers.Dense(4, use_bias=False, name="hidden")(inputs)
    model = keras.Model(inputs, keras.ops.sum(hidden, -1) * 1e-30)
    row = flow.measure(model, np.ones((3, 4)), at="hidden").rows[0]
    np.testing.assert_allclose(row.gradient_norm, 2e-30, rtol=1e-5)
    np.testing.assert_allclose(row.signal_to_noise, np.inf)
    np.testing.assert_allclose(row.cosine, 1.0)


def test_sequences_of_different_lengths_have_no_common_direction():
    inputs = keras.Input((None, 3))
    hidden = layers.Dense(5, activation="relu", name="hidden")(inputs)
    model = keras.Model(inputs, layers.Dense(2, name="scores")(layers.GlobalAveragePooling1D()(hidden)))
    batches = [draws(4, 6, 3).astype("float32"), draws(4, 9, 3).astype("float32")]
    data = tf.data.Dataset.from_generator(lambda: iter(batches), output_signature=tf.TensorSpec((None, None, 3)))
    hidden_row = flow.measure(model, data, target=0).rows[0]
    assert np.isnan(hidden_row.cosine) and np.isnan(hidden_row.signal_to_noise)
    norms = np.concatenate(
        [
            np.linalg.norm(np.reshape(gt.gradients(model, b, target=0, at="hidden").only, (4, -1)), axis=1)
            for b in batches
        ]
    )
    np.testing.assert_allclose(hidden_row.gradient_norm, norms.mean(), rtol=1e-6)


def test_no_example_gives_numbers_that_are_nan_and_no_finding():
    found = flow.measure(classifier("sigmoid", depth=12), X[:0], labels=Y[:0])
    assert found.examples == 0 and not found.findings
    assert np.isnan(found.rows[0].gradient_norm)


def test_a_second_measurement_of_new_weights_traces_nothing():
    model = classifier()
    flow.measure(model, X, labels=Y)
    graph = gt.trace(model).graphs.any_graph()
    before = len(graph.graph.get_operations())
    model.get_layer("dense1").kernel.assign(2 * model.get_layer("dense1").kernel)
    flow.measure(model, X, labels=Y[::-1].copy())
    assert gt.trace(model).graphs.any_graph() is graph
    assert len(graph.graph.get_operations()) == before


# -- objectives --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("last", [None, "softmax"])
def test_whole_numbers_are_compared_by_cross_entropy_from_logits_unless_a_softmax_ends_the_model(last):
    inputs = keras.Input((16,))
    model = keras.Model(
        inputs, layers.Dense(10, activation=last, name="scores")(layers.Dense(8, name="hidden")(inputs))
    )
    expected = keras.losses.sparse_categorical_crossentropy(Y, model(X), from_logits=last is None)
    np.testing.assert_allclose(flow.measure(model, X, labels=Y).target, np.mean(expected), rtol=1e-5)


def test_labels_may_be_lists_of_numbers_or_of_rows():
    model = classifier()
    np.testing.assert_allclose(
        flow.measure(model, X, labels=Y.tolist()).target, flow.measure(model, X, labels=Y).target
    )
    rows = draws(24, 10, seed=3).astype("float32")
    as_rows = flow.measure(model, X, labels=rows.tolist(), loss="mse").target
    np.testing.assert_allclose(as_rows, flow.measure(model, X, labels=rows, loss="mse").target)


def test_the_compiled_loss_is_taken_and_a_given_one_goes_before_it():
    model = classifier()
    values = draws(24, 10, seed=3).astype("float32")
    model.compile("sgd", "mse")
    expected = {"mse": np.mean((model(X) - values) ** 2), "mae": np.mean(np.abs(model(X) - values))}
    np.testing.assert_allclose(flow.measure(model, X, labels=values).target, expected["mse"], rtol=1e-5)
    np.testing.assert_allclose(flow.measure(model, X, labels=values, loss="mae").target, expected["mae"], rtol=1e-5)


def test_one_number_and_whole_labels_are_yes_and_no():
    model = keras.Sequential([keras.Input((16,)), layers.Dense(4, name="hidden"), layers.Dense(1, name="score")])
    expected = keras.losses.binary_crossentropy(Y[:, None] % 2, model(X), from_logits=True)
    np.testing.assert_allclose(flow.measure(model, X, labels=Y % 2).target, np.mean(expected), rtol=1e-5)


@pytest.mark.parametrize("by", ["name", "position"])
def test_the_losses_of_several_outputs_are_added_up(by):
    inputs = keras.Input((16,))
    hidden = layers.Dense(8, activation="tanh", name="hidden")(inputs)
    model = keras.Model(inputs, {"a": layers.Dense(10, name="a")(hidden), "b": layers.Dense(2, name="b")(hidden)})
    values = draws(24, 2, seed=4).astype("float32")
    model.compile("sgd", {"a": keras.losses.SparseCategoricalCrossentropy(from_logits=True), "b": "mse"})
    labels = {"a": Y, "b": values} if by == "name" else [Y, values]
    out = model(X)
    expected = np.mean(keras.losses.sparse_categorical_crossentropy(Y, out["a"], from_logits=True)) + np.mean(
        (out["b"] - values) ** 2
    )
    np.testing.assert_allclose(flow.measure(model, X, labels=labels).target, expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"loss": "mse"}, errors.ArgumentError),
        ({"target": 0, "labels": Y}, errors.ArgumentError),
        ({"labels": Y.astype("float32")}, errors.ArgumentError),
        ({"labels": Y + 5}, errors.ClassRangeError),
        ({"labels": Y[:5]}, errors.TargetCountError),
        ({}, errors.MissingTargetError),
        ({"labels": Y, "at": "dnse"}, errors.UnknownTapError),
    ],
)
def test_mistakes_are_said(options, error):
    with pytest.raises(error):
        flow.measure(classifier(), X, **options)


def test_a_dataset_brings_its_labels():
    data = tf.data.Dataset.from_tensor_slices((X, Y)).batch(8)
    with pytest.raises(errors.ArgumentError, match="brings its labels"):
        flow.measure(classifier(), data, labels=Y)
    with pytest.raises(errors.InputStructureError, match="empty"):
        flow.measure(classifier(), data.take(0))


# -- the trunk ---------------------------------------------------------------------------------------------------------


def test_the_trunk_is_what_everything_flows_through():
    model = architectures.residual(16, 10, depth=3)
    found = flow.measure(model, X, labels=Y)
    assert [row.address for row in found.rows if row.on_trunk] == ["stem", "block_1", "block_2", "block_3", "logits"]
    plain = flow.measure(architectures.plain(16, 10, depth=3), X, labels=Y)
    assert all(row.on_trunk for row in plain.rows)


def test_the_trunk_leads_through_loops_and_past_masks():
    ids = keras.Input((None,), dtype="int32")
    x = layers.Embedding(20, 8, mask_zero=True, name="embedding")(ids)
    x = layers.LSTM(6, return_sequences=True, name="first")(x)
    model = keras.Model(ids, layers.Dense(3, name="scores")(layers.GRU(5, name="second")(x)))
    found = flow.measure(model, np.array([[1, 2, 3, 0], [4, 5, 0, 0]]), target=0)
    assert [row.address for row in found.rows if row.on_trunk] == ["embedding", "first", "second", "scores"]


# -- findings ----------------------------------------------------------------------------------------------------------


def seeded(seed, make):
    keras.utils.set_random_seed(seed)
    return make()


@pytest.mark.parametrize("seed", range(2))
def test_sigmoids_vanish(seed):
    found = flow.measure(seeded(seed, lambda: classifier("sigmoid", depth=10, width=32)), X, labels=Y)
    assert kinds(found) == [("vanishing", "dense0")]
    assert "by a factor of 0.2" in found.findings[0].evidence and found.findings[0].remedy


@pytest.mark.parametrize("seed", range(1))
def test_small_and_large_weights_vanish_and_explode(seed):
    small, large = keras.initializers.RandomNormal(stddev=0.02), keras.initializers.RandomNormal(stddev=0.6)
    make = lambda start: lambda: classifier("relu", depth=12, width=32, kernel_initializer=start)  # noqa: E731
    assert ("vanishing", "dense0") in kinds(flow.measure(seeded(seed, make(small)), X, labels=Y))
    assert ("exploding", "dense0") in kinds(flow.measure(seeded(seed, make(large)), X, labels=Y))


def test_a_single_scale_is_no_trend():
    """All layers but the last see the same small gradient, which any optimizer that adapts its steps undoes."""
    model = keras.Sequential([*classifier("tanh", depth=5).layers, layers.Rescaling(1e-6)])
    found = flow.measure(model, X, labels=Y)
    assert found.rows[-1].gradient_norm > 1e5 * found.rows[0].gradient_norm and not found.findings


def test_a_gradient_that_is_exactly_zero_is_found_whatever_made_it_so():
    inputs = keras.Input((16,))
    x = layers.Dense(12, name="early")(inputs)
    x = Stopping(lambda x: tf.clip_by_value(x, 50.0, 60.0), name="clip")(x)
    model = keras.Model(inputs, layers.Dense(10, name="logits")(layers.Dense(12, name="after")(x)))
    found = flow.measure(model, X, labels=Y)
    assert kinds(found) == [("vanishing", "early")] and "exactly 0" in found.findings[0].evidence


def test_what_is_no_number_explodes_where_it_begins():
    model = classifier(depth=4)
    model.get_layer("dense2").kernel.assign(np.full((12, 12), 3e38, "float32"))
    found = flow.measure(model, X, labels=Y)
    assert kinds(found)[0] == ("exploding", "dense2")
    assert "NaN or infinity in the activation" in found.findings[0].evidence
    found = flow.measure(classifier(depth=4), X, target=lambda y: tf.sqrt(0.0 * y[:, 0]))
    assert kinds(found)[0] == ("exploding", "logits")
    assert "NaN or infinity in the gradient" in found.findings[0].evidence


def test_half_of_the_units_dead_is_a_finding_and_fewer_are_none():
    for dead, expected in [(8, ["dense1"]), (5, []), (16, ["dense1"])]:
        model = classifier(depth=3, width=16)
        model.get_layer("dense1").bias.assign([-100.0] * dead + [1.0] * (16 - dead))
        found = flow.measure(model, X, labels=Y)
        assert [f.tap for f in found.findings if f.kind == "dead"][:1] == expected, dead
        assert found.rows[1].dead >= dead / 16


@pytest.mark.parametrize("activation", ["relu", "gelu", "silu"])
def test_dead_units_of_any_rectifier(activation):
    model = classifier(activation, depth=3)
    model.get_layer("dense1").bias.assign(np.full(12, -1e4))
    assert ("dead", "dense1") in kinds(flow.measure(model, X, labels=Y))


def test_a_layer_that_is_zero_without_being_dead_is_none():
    """The last layer of a branch that begins at zero has a gradient."""
    inputs = keras.Input((16,))
    x = layers.Dense(12, name="stem")(inputs)
    branch = layers.Dense(12, kernel_initializer="zeros", name="zero")(layers.Dense(12, activation="relu")(x))
    model = keras.Model(inputs, layers.Dense(10, name="logits")(layers.Add(name="sum")([x, branch])))
    found = flow.measure(model, X, labels=Y)
    assert next(row for row in found.rows if row.address == "zero").dead == 1.0
    assert not found.findings


@pytest.mark.parametrize("activation", ["tanh", "sigmoid", "softsign", "hard_sigmoid", "hard_tanh"])
def test_saturation(activation):
    big = keras.initializers.RandomNormal(stddev=300.0)
    model = classifier(activation, depth=2, kernel_initializer=big)
    found = flow.measure(model, X, labels=Y)
    assert {("saturated", "dense0"), ("saturated", "dense1")} <= set(kinds(found))
    a = gt.activations(model, X, at="dense0").only.numpy()
    low = 0.0 if "sigmoid" in activation else -1.0
    near = 0.01 * (1 - low)
    np.testing.assert_allclose(found.rows[0].saturated, np.mean((a < low + near) | (a > 1 - near)), atol=1e-3)


def test_what_a_model_returns_may_be_sure_of_itself():
    model = keras.Sequential(
        [keras.Input((16,)), layers.Dense(8, name="hidden"), layers.Dense(1, activation="sigmoid", name="p")]
    )
    model.get_layer("p").bias.assign([-20.0])
    found = flow.measure(model, X, labels=np.zeros(24, int))
    assert np.isnan(found.rows[-1].saturated) and not [f for f in found.findings if f.kind == "saturated"]


class Stopping(layers.Layer):
    def __init__(self, function, **options):
        super().__init__(**options)
        self.function = function

    def call(self, x):
        return self.function(x)


STOPS = {
    "StopGradient": tf.stop_gradient,
    "Round": tf.round,
    "ArgMax": lambda x: tf.one_hot(tf.argmax(x, -1), 12),
    "Sign": tf.sign,
    "Floor": tf.floor,
    "PyFunction": lambda x: tf.ensure_shape(tf.numpy_function(np.copy, [x], tf.float32), (None, 12)),
}


@pytest.mark.parametrize("op", STOPS)
def test_a_cut_is_found_with_its_op(op):
    inputs = keras.Input((16,))
    x = layers.Dense(12, activation="tanh", name="early")(inputs)
    x = layers.Dense(12, activation="tanh", name="before")(x)
    x = Stopping(STOPS[op], name="stop")(x)
    model = keras.Model(inputs, layers.Dense(10, name="logits")(layers.Dense(12, activation="tanh", name="after")(x)))
    found = flow.measure(model, X, labels=Y)
    assert kinds(found) == [("blocked", "before")]
    assert f"{op} in `stop`" in found.findings[0].evidence
    if op != "Sign":  # which hands back zeros
        assert "the 1 tap before it" in found.findings[0].evidence
        assert set(found.skipped) >= {"early", "before"}


def test_what_is_meant_to_have_no_gradient_is_no_finding():
    inputs, ids = keras.Input((16,)), keras.Input((3,), dtype="int32")
    words = layers.GlobalAveragePooling1D()(layers.Embedding(9, 4, mask_zero=True)(ids))
    joined = layers.Concatenate()([layers.Dense(8, activation="relu")(inputs), words])
    other = layers.Dense(2, name="other")(layers.Dense(4, name="aside")(inputs))
    model = keras.Model([inputs, ids], [layers.Dense(10, name="logits")(joined), other])
    found = flow.measure(model, [X, np.ones((24, 3), int)], target=gt.targets.class_score(0, output=0))
    assert not found.findings and "aside" in found.skipped


def test_float16_underflows_and_a_scaled_loss_does_not():
    with policy("mixed_float16"):
        model = classifier("tanh", depth=3)
        final = layers.Rescaling(1e-6, dtype="float32")
        model = keras.Sequential([*model.layers, final])
    found = flow.measure(model, X, target=0)
    assert [f.kind for f in found.findings] == ["underflow"]
    assert "below 2^-14" in found.findings[0].evidence
    values = np.zeros((24, 10), "float32")
    assert "underflow" in [f.kind for f in flow.measure(model, X, labels=values, loss="mae").findings]
    inner = keras.optimizers.SGD()
    model.compile(keras.optimizers.LossScaleOptimizer(inner, initial_scale=2.0**20), "mae")
    scaled = flow.measure(model, X, labels=values)
    assert not scaled.findings
    with policy("float32"):
        wide = keras.Sequential([*classifier("tanh", depth=3).layers, layers.Rescaling(1e-6)])
    wide.set_weights(model.get_weights())
    for a, b in zip(scaled.rows, flow.measure(wide, X, labels=values, loss="mae").rows, strict=True):
        np.testing.assert_allclose(a.gradient_norm, b.gradient_norm, rtol=0.02)
        assert abs(np.log2(a.gradients.edges[-1] / b.gradients.edges[-1])) <= 1


def test_the_gradient_of_a_contractive_state_dies():
    model = keras.Sequential(
        [
            keras.Input((40, 3)),
            layers.SimpleRNN(8, name="rnn", recurrent_initializer=keras.initializers.Orthogonal(0.5)),
            layers.Dense(4, name="scores"),
        ]
    )
    x = draws(6, 40, 3).astype("float32")
    found = flow.measure(model, x, target=0)
    assert kinds(found) == [("vanishing", "rnn:hidden")]
    g = gt.gradients(model, x, target=0, at="rnn:hidden").only.numpy()
    norms = np.linalg.norm(g, axis=-1).mean(0)
    np.testing.assert_allclose(found.profiles[0].gradient_norms, norms, rtol=1e-5)
    after = 40 - int(np.flatnonzero(norms >= 1e-3 * norms.max())[0])
    assert f"from {after} steps" in found.findings[0].evidence


@pytest.mark.parametrize("bias, expected", [(8.0, []), (0.0, ["lstm:cell"])])
def test_a_forget_bias_keeps_the_gradient_of_a_cell(bias, expected):
    model = keras.Sequential(
        [keras.Input((60, 3)), layers.LSTM(8, name="lstm", unit_forget_bias=False), layers.Dense(4)]
    )
    values = np.zeros(32, "float32")
    values[8:16] = bias
    model.get_layer("lstm").cell.bias.assign(values)
    found = flow.measure(model, draws(6, 60, 3).astype("float32"), target=0)
    assert [f.tap for f in found.findings if f.tap == "lstm:cell"] == expected


def test_a_layer_that_runs_backwards_is_read_backwards():
    model = keras.Sequential(
        [
            keras.Input((40, 3)),
            layers.SimpleRNN(
                8, name="rnn", go_backwards=True, recurrent_initializer=keras.initializers.Orthogonal(0.5)
            ),
            layers.Dense(4),
        ]
    )
    found = flow.measure(model, draws(6, 40, 3).astype("float32"), target=0)
    assert kinds(found) == [("vanishing", "rnn:hidden")]
    profile = found.profiles[0].gradient_norms
    assert profile[0] > 1e3 * profile[-1]


# -- healthy networks --------------------------------------------------------------------------------------------------

HEALTHY = {
    "plain relu": lambda: architectures.plain(16, 10, depth=12),
    "plain tanh": lambda: architectures.plain(16, 10, activation="tanh", depth=12),
    "residual": lambda: architectures.residual(16, 10, depth=5),
    "normalised": lambda: architectures.normalised(16, 10, depth=5),
    "convolution": convolutional,
    "attention": lambda: architectures.attention(16, 10, depth=1),
}


@pytest.mark.parametrize("name", HEALTHY)
def test_healthy_networks_give_no_finding(name):
    x = draws(24, 8, 8, 2).astype("float32") if name == "convolution" else X
    found = flow.measure(seeded(1, HEALTHY[name]), x, labels=Y)
    assert not found.findings, found


@pytest.mark.slow
def test_a_collapsed_network_of_rectifiers_is_not_called_dead():
    """Where all examples look alike, half of a layer is off for all of them by chance, and half on."""
    for seed in range(2):
        model = seeded(seed, lambda: architectures.plain(16, 10, depth=60, width=48))
        found = flow.measure(model, X, labels=Y)
        assert max(row.dead for row in found.rows) >= 0.5, "then nothing is tested"
        assert not [f for f in found.findings if f.kind == "dead"]


# -- what is shown -----------------------------------------------------------------------------------------------------


def test_text_and_json():
    found = flow.measure(classifier("sigmoid", depth=10), X, labels=Y)
    lines = str(found).splitlines()
    assert len(lines) == 1 + len(found.rows) + len(found.findings) and "vanishing at `dense0`" in lines[-1]
    plain = found.as_json()
    assert plain["rows"][-1]["ratio"] is None and plain["rows"][0]["address"] == "dense0"
    assert plain["findings"][0]["kind"] == "vanishing"
