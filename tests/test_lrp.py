"""Layer-wise relevance propagation: Captum's numbers, each rule by hand, folded layers, conservation, missing rules."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import gradtap as gt
from gradtap import errors
from reference.differences import assert_same_numbers
from reference.goldens import bound, model_file
from reference.models import draws

FOLDER = Path(__file__).parent / "goldens"
TOLERANCE = {"float64": 1e-9, "float32": 1e-5}
RULES = ["epsilon", "gamma", "alpha_beta", "z_box", "flat"]


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_captums_numbers_through_relu_and_max_pooling(dtype):
    goldens = np.load(FOLDER / f"cnn_seq.lrp.{dtype}.npz")
    given = np.load(FOLDER / "cnn_seq.inputs.npz")
    target = gt.targets.class_score(given["target"], logits=True)
    found = gt.attribution.lrp(
        model_file("cnn_seq", dtype), given["input0"], target=target, at=[":input", "conv1", "conv2"]
    )
    assert len(goldens.files) == 3
    for key in goldens.files:
        layer = key.split("@logit/")[1]
        values = found[":input" if layer == "input" else layer]
        error = np.max(np.abs(values - goldens[key])) / np.max(np.abs(goldens[key]))
        assert error <= bound(TOLERANCE[dtype]), f"{key}: {error:.1e}"


def shared_out(rule, a, w, b, relevance, *, epsilon=1e-9, gamma=0.25, alpha=2.0, beta=1.0, low=-3.0, high=3.0):
    """One dense layer for one example, as the papers write the rules."""
    z = a[:, None] * w
    if rule == "gamma":
        y = z.sum(0) + b
        if np.all(a >= 0) and np.all((y > 0) | (relevance == 0)):
            z, b = a[:, None] * (w + gamma * w.clip(0)), b + gamma * b.clip(0)
        else:
            z, b = z * (1 + gamma * (z * y > 0)), b * (1 + gamma * (b * y > 0))
    if rule == "z_box":
        z, b = z - low * w.clip(0) - high * w.clip(None, 0), 0 * b
    if rule == "flat":
        z, b = np.ones_like(w), 0 * b
    if rule == "alpha_beta":
        above, below = z.clip(0), z.clip(None, 0)
        plus = above / (above.sum(0) + b.clip(0) + epsilon)
        minus = below / (below.sum(0) + b.clip(None, 0) - epsilon)
        return (alpha * plus - beta * minus) @ relevance
    y = z.sum(0) + b
    return z @ (relevance / (y + epsilon * np.where(y < 0, -1, 1)))


@pytest.mark.parametrize("rule", RULES)
def test_each_rule_is_that_of_the_papers(rule, float64):
    """Two dense layers with biases and inputs of both signs, against loops over one example at a time."""
    x = keras.Input((5,), dtype="float64")
    first, last = layers.Dense(6, activation="relu", name="first"), layers.Dense(3, name="last")
    model = keras.Model(x, last(first(x)))
    model.set_weights([draws(*weight.shape, seed=i) for i, weight in enumerate(model.weights)])
    rows = draws(4, 5, seed=9)
    found = gt.attribution.lrp(model, rows, target=2, at=[":input", "first"], rule=rule, bounds=(-3.0, 3.0))
    w1, b1, w2, b2 = model.get_weights()
    hidden = (rows @ w1 + b1).clip(0)
    for row, h, at_input, at_hidden in zip(rows, hidden, found[":input"], found["first"]):
        score = np.where(np.arange(3) == 2, h @ w2 + b2, 0.0)
        expected = shared_out(rule, h, w2, b2, score)
        np.testing.assert_allclose(at_hidden, expected, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(at_input, shared_out(rule, row, w1, b1, expected), rtol=1e-8, atol=1e-11)


def test_parameters_of_the_rules(float64):
    x = keras.Input((5,), dtype="float64")
    model = keras.Model(x, layers.Dense(3, name="last")(x))
    model.set_weights([draws(5, 3), draws(3, seed=1)])
    rows, (w, b) = draws(4, 5, seed=9), model.get_weights()
    low, high = -5 - draws(5, seed=3) ** 2, 5 + draws(5, seed=4) ** 2
    for rule, given, own in [
        ("epsilon", {"epsilon": 0.5}, {}),
        ("gamma", {"gamma": 2.0}, {}),
        ("gamma", {"gamma": 0.0}, {}),
        ("alpha_beta", {"alpha": 1.0, "beta": 0.0}, {}),
        ("z_box", {"bounds": (low, high)}, {"low": low[:, None], "high": high[:, None]}),
    ]:
        found = gt.attribution.lrp(model, rows, target=1, rule=rule, **given).only
        for row, relevance in zip(rows, found):
            score = np.where(np.arange(3) == 1, row @ w + b, 0.0)
            expected = shared_out(rule, row, w, b, score, **(own or given))
            np.testing.assert_allclose(relevance, expected, rtol=1e-9, atol=1e-12, err_msg=rule)


def blocks(kind, fold):
    """A convolution and a batch normalisation, or the convolution that the two come to."""
    made = {
        "Conv2D": lambda: layers.Conv2D(4, 3, padding="same", name="conv"),
        "SeparableConv2D": lambda: layers.SeparableConv2D(4, 3, name="conv"),
        "DepthwiseConv2D": lambda: layers.DepthwiseConv2D(3, name="conv"),
        "Conv2DTranspose": lambda: layers.Conv2DTranspose(4, 3, strides=2, name="conv"),
        "Dense": lambda: layers.Dense(4, name="conv"),
        "EinsumDense": lambda: layers.EinsumDense("abcd,de->abec", (4, 6), bias_axes="e", name="conv"),
    }
    x = keras.Input((6, 6, 2), dtype="float64")
    conv = made[kind]()
    h = conv(x)
    norm = layers.BatchNormalization(name="norm")
    y = norm(h)
    for i, weight in enumerate(norm.weights):
        weight.assign(
            0.5 + draws(*weight.shape, seed=i) ** 2 if "variance" in weight.path else draws(*weight.shape, seed=i)
        )
    for i, weight in enumerate(conv.weights):
        weight.assign(draws(*weight.shape, seed=20 + i))
    if fold:
        gamma, beta, mean, variance = (w.numpy() for w in norm.weights)
        slope = gamma / np.sqrt(variance + norm.epsilon)
        kernel, bias = conv.weights[-2].numpy(), conv.weights[-1].numpy()
        shaped = slope[:, None] if kind in ("DepthwiseConv2D", "Conv2DTranspose") else slope
        conv.weights[-2].assign(kernel * shaped)
        conv.weights[-1].assign((bias - mean) * slope + beta)
        y = h
    h = layers.GlobalAveragePooling2D()(layers.ReLU()(y))
    last = layers.Dense(3, name="last")
    y = last(h)
    last.set_weights([draws(*weight.shape, seed=40 + i) for i, weight in enumerate(last.weights)])
    return keras.Model(x, y)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("kind", ["Conv2D", "SeparableConv2D", "DepthwiseConv2D", "Conv2DTranspose", "Dense"])
def test_batch_normalisation_is_folded_in_the_graph(kind, rule, float64):
    """Scales of both signs: the relevance is that of a model whose weights were multiplied out."""
    model, folded, x = blocks(kind, False), blocks(kind, True), draws(2, 6, 6, 2, seed=5)
    np.testing.assert_allclose(model(x), folded(x), rtol=1e-10)
    before = [weight.numpy() for weight in model.weights]
    # The depthwise half of a separable convolution is folded into neither.
    composite = {"DepthwiseConv2dNative": "epsilon", "**": rule} if kind == "SeparableConv2D" else rule
    ask = {"target": 1, "at": [":input", "conv"], "rule": composite, "bounds": (-4.0, 4.0)}
    found, expected = gt.attribution.lrp(model, x, **ask), gt.attribution.lrp(folded, x, **ask)
    for address in expected:
        assert_same_numbers(found[address], expected[address], 1e-8)
    for old, new in zip(before, model.weights):
        np.testing.assert_array_equal(old, new)


def attention(x):
    rows = layers.Reshape((3, 2))(x)
    mixed = layers.MultiHeadAttention(2, 3, use_bias=False, name="attention")(rows, rows) + rows
    return layers.GlobalMaxPooling1D()(layers.LayerNormalization(center=False)(mixed))


def loops(x):
    rows = layers.Reshape((3, 2))(x)
    return layers.GRU(3, use_bias=False)(layers.LSTM(4, use_bias=False, return_sequences=True, name="lstm")(rows))


def squeeze_and_excite(x):
    maps = layers.Conv2D(4, 2, use_bias=False, padding="same", activation="silu")(layers.Reshape((2, 3, 1))(x))
    gate = layers.Dense(4, activation="sigmoid", use_bias=False)(layers.GlobalAveragePooling2D(keepdims=True)(maps))
    return layers.Flatten()(layers.AveragePooling2D(2, padding="same")(maps * gate))


def branches(x):
    one, two = layers.Dense(4, use_bias=False)(x), layers.Dense(4, use_bias=False, activation="gelu")(x)
    parts = [one + two, layers.Subtract()([one, two]), layers.Average()([one, two]), layers.Maximum()([one, two])]
    return layers.Concatenate()([*parts, layers.Multiply()([one, two])])


def activations(x):
    for name in ("elu", "tanh", "mish", "hard_silu", "relu6", "leaky_relu", "softsign", "gelu", "swish", "sigmoid"):
        x = layers.Dense(5, activation=name, use_bias=False)(x)
    return x


def images(x):
    x = layers.Conv2DTranspose(3, 2, use_bias=False)(layers.UpSampling2D()(layers.Reshape((2, 3, 1))(x)))
    x = layers.ZeroPadding2D()(layers.MaxPooling2D(2)(layers.Cropping2D(1)(x)))
    return layers.GlobalAveragePooling2D()(
        layers.SeparableConv2D(4, 2, use_bias=False, padding="same", dilation_rate=2)(x)
    )


def norms(x):
    x = layers.UnitNormalization()(layers.RMSNormalization()(layers.Dense(6, use_bias=False)(x)))
    return layers.GroupNormalization(2, center=False)(x)


def approximate_gelu(x):
    return keras.ops.gelu(layers.Dense(6, use_bias=False)(x), approximate=True)


@pytest.mark.parametrize(
    "body",
    [attention, loops, squeeze_and_excite, branches, activations, images, norms, approximate_gelu],
    ids=lambda f: f.__name__,
)
def test_without_biases_all_of_the_target_is_found_at_every_cut(body, float64):
    x = keras.Input((6,), dtype="float64")
    first = layers.Dense(6, use_bias=False, name="first")(x)
    model = keras.Model(x, layers.Dense(3, use_bias=False, activation="softmax")(body(first)))
    rows = draws(4, 6)
    target = gt.targets.class_score(1, logits=True)
    found = gt.attribution.lrp(model, rows, target=target, at=[":input", "first"])
    score = gt.gradients(model, rows, target=target, at=":input").target
    for address in found:
        np.testing.assert_allclose(tf.reduce_sum(found[address], 1), score, rtol=1e-5, err_msg=address)
    assert np.mean(found["first"] != 0) > 0.8


def test_gates_and_states(float64):
    """Attention takes no relevance, the states of a recurrent layer do; both can be asked for."""
    x = keras.Input((6,), dtype="float64")
    model = keras.Model(x, layers.Dense(2, use_bias=False)(attention(x)))
    found = gt.attribution.lrp(model, draws(2, 6), target=0, at=["attention:attention", "attention:value"])
    assert np.all(found["attention:attention"].numpy() == 0)
    assert np.any(found["attention:value"].numpy() != 0)
    model = keras.Model(x, layers.Dense(2, use_bias=False)(loops(x)))
    rows = draws(2, 6)
    at = ["lstm:hidden", "lstm:cell", "lstm"]
    found = gt.attribution.lrp(model, rows, target=0, at=at, epsilon=1e-12)
    score = model(rows)[:, 0]
    np.testing.assert_allclose(tf.reduce_sum(found["lstm"], [1, 2]), score, rtol=1e-6)
    # At the last step the hidden state is only what the next layer is given, and the cell only what it is made of.
    assert_same_numbers(found["lstm:hidden"][:, -1], found["lstm"][:, -1], 1e-8)
    assert_same_numbers(found["lstm:cell"][:, -1], found["lstm:hidden"][:, -1], 1e-8)


def test_an_outer_tape_differentiates_relevance(float64):
    """All of it: the target, from which relevance begins, changes as well."""
    x = keras.Input((4,), dtype="float64")
    h = layers.Dense(5, activation="tanh", name="hidden")(x)
    model = keras.Model(x, layers.Dense(2)(h))
    rows, v = draws(3, 4), draws(3, 4, seed=6)

    def total(rows):
        return tf.reduce_sum(gt.attribution.lrp(model, rows, target=1, epsilon=0.1).only ** 2)

    given = tf.constant(rows)
    with tf.GradientTape() as tape:
        tape.watch(given)
        score = total(given)
    found = np.sum(tape.gradient(score, given) * v)
    step = 1e-6
    expected = (total(rows + step * v) - total(rows - step * v)) / (2 * step)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize("kind", ["rescaling", "normalization", "batch_normalization"])
def test_preprocessing_hands_on_what_it_is_given(kind, float64):
    """A pixel of mid-grey is zero after it: a share of the shift would divide by that."""
    x = keras.Input((6, 6, 2), dtype="float64")
    made = {
        "rescaling": lambda: layers.Rescaling(1 / 127.5, offset=-1, name="before"),
        "normalization": lambda: layers.Normalization(mean=127.5, variance=900.0, name="before"),
        "batch_normalization": lambda: layers.BatchNormalization(
            moving_mean_initializer=keras.initializers.Constant(127.5), name="before"
        ),
    }
    h = layers.Conv2D(3, 3, activation="relu", use_bias=False, name="conv")(made[kind]()(x))
    model = keras.Model(x, layers.Dense(2, use_bias=False)(layers.Flatten()(h)))
    images = np.random.default_rng(0).uniform(0, 255, size=(2, 6, 6, 2))
    images[:, 2, 2] = 127.5
    rules = {"rule": {"conv": "z_box"}, "bounds": (-200.0, 200.0)}
    found = gt.attribution.lrp(model, images, target=0, at=[":input", "before"], **rules)
    np.testing.assert_allclose(found[":input"], found["before"], rtol=1e-9)
    np.testing.assert_allclose(np.sum(found[":input"], axis=(1, 2, 3)), model(images)[:, 0], rtol=1e-5)


def test_parameters_of_one_layer(float64):
    x = keras.Input((5,), dtype="float64")
    h = layers.Dense(4, activation="relu", name="one")(x)
    model = keras.Model(x, layers.Dense(3, name="two")(h))
    rows = draws(3, 5)
    own = gt.attribution.lrp(model, rows, target=1, rule={"one": ("gamma", {"gamma": 2.0}), "two": "epsilon"}).only
    same = gt.attribution.lrp(model, rows, target=1, rule={"one": "gamma"}, gamma=2.0).only
    np.testing.assert_array_equal(own, same)
    assert not np.allclose(own, gt.attribution.lrp(model, rows, target=1, rule={"one": "gamma"}).only)


def test_a_mask_of_token_ids_takes_nothing(float64):
    """The mean over the tokens that are no padding: all relevance is at the embedding."""
    ids = keras.Input((4,), dtype="int32")
    on = keras.ops.cast(ids != 0, "float64")[..., None]
    h = layers.Embedding(9, 5, name="embedding")(ids) * on
    mean = keras.ops.sum(h, 1) / keras.ops.sum(on, 1)
    model = keras.Model(ids, layers.Dense(2, use_bias=False)(mean))
    tokens = np.array([[1, 2, 0, 0], [3, 4, 5, 6]])
    found = gt.attribution.lrp(model, tokens, target=0, at="embedding").only.numpy()
    np.testing.assert_allclose(found.sum((1, 2)), model(tokens)[:, 0], rtol=1e-6)
    assert np.all(found[0, 2:] == 0)


def test_a_contrast_is_shared_by_both_classes(float64):
    x = keras.Input((4,), dtype="float64")
    model = keras.Model(x, layers.Dense(3, use_bias=False, name="last")(x))
    rows = draws(3, 4)
    found = gt.attribution.lrp(model, rows, target=gt.targets.contrast(0, 2), at=[":input", ":output"])
    scores = model(rows).numpy()
    np.testing.assert_allclose(found[":output"], scores * [1, 0, -1], rtol=1e-7)
    kernel = model.layers[-1].kernel.numpy()
    np.testing.assert_allclose(found[":input"], rows * (kernel[:, 0] - kernel[:, 2]), rtol=1e-6)


def test_composites_by_address_class_and_op(float64):
    """Each way to name the layers gives the same; the first key that fits holds; what fits none is by epsilon."""
    x = keras.Input((5,), dtype="float64")
    h = layers.Conv1D(3, 2, activation="relu", name="conv")(layers.Reshape((5, 1))(x))
    h = layers.Dense(4, activation="relu", name="dense1")(layers.Flatten()(h))
    model = keras.Model(x, layers.Dense(2, name="dense2")(h))
    rows = 0.5 + draws(3, 5) ** 2

    def ask(rule):
        return gt.attribution.lrp(model, rows, target=0, rule=rule, bounds=(0.0, 9.0)).only.numpy()

    by_name = ask({"conv": "z_box", "dense1": "gamma", "dense2": "gamma"})
    for same in (
        {"conv": "z_box", "dense*": "gamma"},
        {layers.Conv1D: "z_box", layers.Dense: "gamma"},
        {"Conv2D": "z_box", "MatMul": "gamma"},
        {model.get_layer("conv"): "z_box", "*": "gamma"},
    ):
        np.testing.assert_array_equal(ask(same), by_name)
    np.testing.assert_array_equal(ask({"conv": "flat"}), ask({"conv": "flat", "**": "epsilon"}))
    assert not np.allclose(ask({"dense1": "gamma"}), ask({"dense2": "gamma"}))
    assert not np.allclose(ask("gamma"), by_name)


def test_an_op_without_a_rule_is_named_and_one_that_is_not_passed_is_not():
    x = keras.Input((4,))
    squared = keras.ops.square(layers.Dense(3)(x))
    model = keras.Model(x, layers.Dense(2, name="last")(squared))
    with pytest.raises(errors.NoRuleError, match="Square"):
        gt.attribution.lrp(model, draws(3, 4), target=1)
    assert gt.attribution.lrp(model, draws(3, 4), target=1, at="last").only.shape == (3, 2)
    with pytest.raises(errors.NoRuleError, match="target"):
        gt.attribution.lrp(model, draws(3, 4), target=lambda y: tf.exp(y[:, 0]), at="last")


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        ({"rule": "zennit"}, "rule"),
        ({"rule": {"last": "zennit"}}, "rule"),
        ({"epsilon": -1.0}, "epsilon"),
        ({"gamma": float("nan")}, "gamma"),
        ({"rule": "alpha_beta", "alpha": 2.0, "beta": 0.0}, "not 1"),
        ({"rule": "z_box", "bounds": (1.0, 0.0)}, "above"),
        ({"bounds": 3}, "pair"),
        ({"rule": {"lost": "gamma"}}, "lost"),
        ({"rule": {"Conv3D": "gamma"}}, "nothing that `Conv3D` means"),
        ({"rule": {"last": ("gamma", {"gama": 1})}}, "gama"),
        ({"epsilon": "a"}, "epsilon"),
        ({"rule": "z_box", "bounds": (np.zeros(3), np.ones(4))}, "go together"),
        ({"rule": {gt.Tap.op("functional/last/MatMul:0"): "gamma"}}, "functional"),
    ],
)
def test_mistakes(wrong, match):
    x = keras.Input((4,))
    model = keras.Model(x, layers.Dense(2, name="last")(x))
    with pytest.raises(errors.GradtapError, match=match):
        gt.attribution.lrp(model, draws(3, 4), target=1, **wrong)


def test_slopes_are_as_before(float64):
    """The marks on the ops change no gradient, and a second composite does not meet the first."""
    x = keras.Input((4,), dtype="float64")
    model = keras.Model(x, layers.Dense(2)(layers.Dense(5, activation="silu", name="hidden")(x)))
    rows = draws(3, 4)
    before = gt.gradients(model, rows, target=1, at=":input").only
    flat = gt.attribution.lrp(model, rows, target=1, rule="flat").only
    epsilon = gt.attribution.lrp(model, rows, target=1).only
    np.testing.assert_array_equal(gt.gradients(model, rows, target=1, at=":input").only, before)
    np.testing.assert_array_equal(gt.attribution.lrp(model, rows, target=1, rule="flat").only, flat)
    assert not np.allclose(flat, epsilon)
