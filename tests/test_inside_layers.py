"""Places inside of a layer: its share of an input, its pre-activation, one of several outputs, layers within layers."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import gradtap as gt
from reference import layers as ref
from reference.differences import assert_same_numbers, central_differences
from reference.models import draws


def dense(layer, activation=lambda x: x):
    return lambda x: activation(ref.dense(x, layer))


# -- the input ---------------------------------------------------------------------------------------------------------


def test_each_layer_has_its_share_of_a_tensor_that_goes_to_several(float64):
    """A tensor goes to two layers, to one of them twice, and past them all: the shares sum to the whole."""
    a, b = layers.Dense(4, activation="tanh", name="a"), layers.Dense(4, name="b")
    x = keras.Input((4,))
    model = keras.Model(x, layers.Add(name="sum")([a(x), layers.Multiply(name="twice")([x, x]), b(x), x]))
    rows = draws(3, 4)
    fa, fb = dense(a, np.tanh), dense(b)

    def total(to_a, to_b, one, other, past):
        return np.sin(fa(to_a) + one * other + fb(to_b) + past).sum(-1)

    shares = {
        "a:input": lambda t: total(t, rows, rows, rows, rows),
        "b:input": lambda t: total(rows, t, rows, rows, rows),
        "twice:input.0": lambda t: total(rows, rows, t, t, rows),
        "sum:input.3": lambda t: total(rows, rows, rows, rows, t),
        ":input": lambda t: total(t, t, t, t, t),
    }
    g = gt.gradients(model, rows, target=lambda y: tf.reduce_sum(tf.sin(y), -1), at=list(shares))
    for address, function in shares.items():
        assert_same_numbers(g[address], central_differences(function, rows))
        np.testing.assert_array_equal(g.activations[address], rows)
    assert_same_numbers(sum(g[address] for address in list(shares)[:4]), g[":input"], 1e-12)


@pytest.mark.parametrize("order", [["outer:input", "outer/a:input"], ["outer/a:input", "outer:input"]])
def test_shares_of_a_model_and_of_a_layer_in_it(float64, order):
    """What the inner model is given, and what the first layer in it is given of that, in either order of asking."""
    a, b, c = (layers.Dense(4, activation="tanh", name=name) for name in "abc")
    x = keras.Input((4,))
    inner = keras.Model(x, layers.Add()([a(x), b(x), x]), name="outer")
    y = keras.Input((4,))
    model = keras.Model(y, layers.Add()([inner(y), c(y)]))
    rows = draws(3, 4)
    fa, fb, fc = (dense(layer, np.tanh) for layer in (a, b, c))
    functions = {
        "outer:input": lambda t: (fa(t) + fb(t) + t + fc(rows)).sum(-1),
        "outer/a:input": lambda t: (fa(t) + fb(rows) + rows + fc(rows)).sum(-1),
    }
    found = {}
    for address in order:  # in calls of their own: the second finds the graph as the first has left it
        found |= gt.gradients(model, rows, target=lambda y: tf.reduce_sum(y, -1), at=address)
    for address, function in functions.items():
        assert_same_numbers(found[address], central_differences(function, rows))


# -- the pre-activation ------------------------------------------------------------------------------------------------

#: A layer with an activation, the shape that it takes.
ACTIVATED = {
    "dense_relu": (lambda a: layers.Dense(4, activation=a, name="layer"), "relu", (5,)),
    "dense_softmax": (lambda a: layers.Dense(4, activation=a, name="layer"), "softmax", (5,)),
    "dense_of_sequences": (lambda a: layers.Dense(4, activation=a, name="layer"), "gelu", (3, 5)),
    "dense_function": (lambda a: layers.Dense(4, activation=a, name="layer"), lambda x: tf.sin(x) * x, (5,)),
    "dense_keras_function": (lambda a: layers.Dense(4, activation=a, name="layer"), keras.activations.silu, (5,)),
    "conv1d": (lambda a: layers.Conv1D(2, 3, activation=a, name="layer"), "relu", (5, 2)),
    "conv2d": (lambda a: layers.Conv2D(2, 3, activation=a, name="layer"), "elu", (5, 4, 2)),
    "separable": (lambda a: layers.SeparableConv2D(3, 2, activation=a, name="layer"), "tanh", (4, 4, 2)),
    "depthwise": (lambda a: layers.DepthwiseConv2D(2, activation=a, name="layer"), "relu", (4, 4, 2)),
    "transposed": (lambda a: layers.Conv2DTranspose(2, 2, activation=a, name="layer"), "relu", (3, 3, 2)),
    "einsum": (
        lambda a: layers.EinsumDense("ab,bc->ac", 4, activation=a, bias_axes="c", name="layer"),
        "sigmoid",
        (5,),
    ),
    "a_layer": (
        lambda a: layers.Dense(4, activation=a and layers.LeakyReLU(negative_slope=0.2), name="layer"),
        "leaky_relu",
        (5,),
    ),
    "linear": (lambda a: layers.Dense(4, activation=a, name="layer"), "linear", (5,)),
}


@pytest.mark.parametrize("name", ACTIVATED)
def test_preactivation(float64, name):
    """A twin without the activation gives the values; a tape from there on the gradients."""
    make, activation, shape = ACTIVATED[name]
    layer, twin = make(activation), make(None)
    model = keras.Sequential([keras.Input(shape), layer, layers.Flatten(), layers.Dense(2, name="last")])
    twin.build((None, *shape))
    twin.set_weights(layer.get_weights())
    rows = draws(3, *shape)
    inner = twin(rows)
    with tf.GradientTape() as tape:
        tape.watch(inner)
        function = keras.activations.get(activation)
        score = tf.reduce_sum(model.layers[-1](tf.reshape(function(inner), [3, -1]))[:, 1])
    g = gt.gradients(model, rows, target=1, at=["layer:preactivation", "layer"])
    assert_same_numbers(g.outputs, model(rows), 1e-14)
    assert_same_numbers(g.activations["layer:preactivation"], inner, 1e-14)
    assert_same_numbers(g["layer:preactivation"], tape.gradient(score, inner), 1e-13)
    np.testing.assert_allclose(g.activations["layer"], function(inner), atol=1e-14)
    if name == "a_layer":
        assert_same_numbers(
            gt.gradients(model, rows, target=1, at="layer/activation:input").only, g["layer:preactivation"]
        )


@pytest.mark.parametrize(
    "layer",
    [
        layers.ReLU(name="layer"),
        layers.LeakyReLU(name="layer"),
        layers.PReLU(name="layer"),
        layers.ELU(name="layer"),
        layers.Softmax(name="layer"),
        layers.Activation("tanh", name="layer"),
        layers.Activation(lambda x: x * x, name="layer"),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_layers_that_are_activations(layer):
    """What an activation layer is given is the pre-activation: its own share, not what goes past it."""
    first, last = layers.Dense(4, name="first"), layers.Dense(2, name="last")
    x = keras.Input((3,))
    h = first(x)
    model = keras.Model(x, last(layers.Add()([layer(h), h])))
    rows = draws(3, 3).astype("float32")
    g = gt.gradients(model, rows, target=1, at=["layer:preactivation", "layer:input", "layer", "first"])
    with tf.GradientTape() as tape:
        inner = first(rows)
        tape.watch(inner)
        score = tf.reduce_sum((layer(inner) @ last.kernel)[:, 1])
    expected = tape.gradient(score, inner)
    np.testing.assert_allclose(g["layer:preactivation"], expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(g["layer:preactivation"], g["layer:input"])
    np.testing.assert_allclose(g["first"], expected + g["layer"], rtol=1e-5, atol=1e-6)


# -- one of several outputs --------------------------------------------------------------------------------------------


class Several(layers.Layer):
    """Returns what it is told to, of three denses."""

    def __init__(self, form, **kwargs):
        super().__init__(**kwargs)
        self.form = form
        self.parts = [layers.Dense(2) for _ in range(3)]

    def build(self, shape):
        for part in self.parts:
            part.build(shape)

    def call(self, x):
        a, b, c = (part(x) for part in self.parts)
        forms = {
            "tuple": (a, b, c),
            "list": [a, b, c],
            "dict": {"z": a, "m": b, "a": c},
            "nested": {"q": [a, b], "p": c},
        }
        return forms[self.form]


@pytest.mark.parametrize("form", ["tuple", "list", "dict", "nested"])
def test_one_of_several_outputs(float64, form):
    """Outputs are counted as TensorFlow flattens them: the values of a dict by the order of their keys."""

    class Model(keras.Model):
        def __init__(self):
            super().__init__()
            self.several = Several(form)

        def call(self, x):
            a, b, c = tf.nest.flatten(self.several(x))
            return tf.sin(a) + 2 * tf.sin(b) * tf.sin(c)

    model, rows = Model(), draws(3, 4)
    names = [f"several:output.{k}" for k in range(3)]
    g = gt.gradients(model, rows, target=1, at=names)
    parts = [ref.dense(rows, part) for part in model.several.parts]
    order = {"dict": (2, 1, 0), "nested": (2, 0, 1)}.get(form, (0, 1, 2))
    a, b, c = (parts[k] for k in order)
    slopes = [np.cos(a), 2 * np.cos(b) * np.sin(c), 2 * np.sin(b) * np.cos(c)]
    for address, value, slope in zip(names, (a, b, c), slopes, strict=True):
        assert_same_numbers(g.activations[address], value, 1e-13)
        assert_same_numbers(g[address], slope * [0, 1], 1e-13)
    assert list(gt.activations(model, rows, at="several")) == names
    with pytest.raises(gt.errors.SideError, match=r"there is no output `3`"):
        gt.gradients(model, rows, target=1, at="several:output.3")
    if form == "dict":
        by_key = gt.gradients(model, rows, target=1, at=["several:output.z", "several:output.a"])
        np.testing.assert_array_equal(by_key["several:output.a"], g["several:output.0"])
        np.testing.assert_array_equal(by_key["several:output.z"], g["several:output.2"])
    deeper = gt.gradients(model, rows, target=1, at="several/parts/0").only
    assert_same_numbers(deeper, slopes[order.index(0)] * [0, 1], 1e-13)


# -- layers within layers ----------------------------------------------------------------------------------------------


class Residual(layers.Layer):
    """A composite: branches in a dict, layers in nested lists, a Sequential of its own."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.branches = {"left": [layers.Dense(4, activation="tanh"), layers.Dense(4)], "right": [layers.Dense(4)]}
        self.after = keras.Sequential(
            [layers.Dense(4, activation="tanh", name="first"), layers.Dense(4, name="second")]
        )

    def build(self, shape):
        for layer in [*self.branches["left"], *self.branches["right"], self.after]:
            layer.build(shape)

    def call(self, x):
        left = self.branches["left"][1](self.branches["left"][0](x))
        return x + self.after(left + self.branches["right"][0](x))


def test_layers_in_containers_of_a_composite(float64):
    block, last = Residual(name="block"), layers.Dense(2, name="last")
    model = keras.Sequential([keras.Input((4,)), block, last])
    rows = draws(3, 4)
    (l0, l1), (r0,) = block.branches["left"], block.branches["right"]
    first, second = block.after.layers
    fl0, fl1, fr0 = dense(l0, np.tanh), dense(l1), dense(r0)
    rest = lambda t: np.tanh(ref.dense(rows + ref.dense(np.tanh(ref.dense(t, first)), second), last))[:, 1]  # noqa: E731
    expected = {
        "block/branches/left/0": (fl0(rows), lambda t: rest(fl1(t) + fr0(rows))),
        "block/branches/right/0": (fr0(rows), lambda t: rest(fl1(fl0(rows)) + t)),
        "block/after:input": (fl1(fl0(rows)) + fr0(rows), rest),
        "block/after/first:preactivation": (
            ref.dense(fl1(fl0(rows)) + fr0(rows), first),
            lambda t: np.tanh(ref.dense(rows + ref.dense(np.tanh(t), second), last))[:, 1],
        ),
    }
    g = gt.gradients(model, rows, target=lambda y: tf.tanh(y[:, 1]), at=list(expected))
    for address, (values, function) in expected.items():
        assert_same_numbers(g.activations[address], values, 1e-13)
        assert_same_numbers(g[address], central_differences(function, values))


def test_inside_of_wrappers(float64):
    """A dense under spectral normalisation, and one at every step."""
    normal = layers.SpectralNormalization(layers.Dense(3, activation="tanh", name="inner"), name="normal")
    each = layers.TimeDistributed(layers.Dense(4, activation="tanh", name="inner"), name="each")
    last = layers.Dense(2, name="last")
    x = keras.Input((2, 5))
    model = keras.Model(x, last(normal(layers.Flatten()(each(x)))))
    rows = draws(3, 2, 5)
    g = gt.gradients(model, rows, target=1, at=["normal/layer:preactivation", "each/layer[1]:preactivation"])
    assert set(g.activations["each/layer[1]:preactivation"].shape) == {3, 4}
    w = ref.weights(last)["kernel"][:, 1]
    inner = ref.dense(rows, each.layer)
    outer = ref.dense(np.tanh(inner).reshape(3, -1), normal.layer)
    assert_same_numbers(g.activations["each/layer[1]:preactivation"], inner[:, 1], 1e-13)
    assert_same_numbers(g.activations["normal/layer:preactivation"], outer, 1e-13)
    slope = w * (1 - np.tanh(outer) ** 2)
    assert_same_numbers(g["normal/layer:preactivation"], slope, 1e-13)
    back = (slope @ ref.weights(normal.layer)["kernel"].T).reshape(3, 2, 4)[:, 1]
    assert_same_numbers(g["each/layer[1]:preactivation"], back * (1 - np.tanh(inner[:, 1]) ** 2), 1e-12)


class Same(layers.Layer):
    """Returns what it is given."""

    def call(self, x):
        return x


@pytest.mark.parametrize("same", [Same, lambda name: layers.Dropout(0.5, name=name), layers.Identity])
def test_a_layer_that_returns_its_input(float64, same):
    """Its output is what flows on from it, not what goes past it."""
    layer = same(name="same")
    last = layers.Dense(2, name="last")
    x = keras.Input((3,))
    model = keras.Model(x, layers.Add()([last(layer(x)), layers.Dense(2, name="past")(x)]))
    rows = draws(2, 3)
    g = gt.gradients(model, rows, target=1, at=["same", "same:input", ":input"])
    column = np.tile(ref.weights(last)["kernel"][:, 1], (2, 1))
    assert_same_numbers(g["same"], column, 1e-14)
    assert_same_numbers(g["same:input"], column, 1e-14)
    assert_same_numbers(g[":input"], column + ref.weights(model.get_layer("past"))["kernel"][:, 1], 1e-14)
    assert_same_numbers(g.outputs, model(rows), 1e-14)


# -- recomputed and quantised layers -----------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["full", "activations", "list_of_layers", "larger_than"])
def test_layers_that_recompute_their_activations(float64, mode):
    """Keras itself cannot run such a model in a `tf.function`; every layer of it can be tapped."""
    options = {"list_of_layers": {"layer_names": ["b"]}, "larger_than": {"output_size_threshold": 1}}
    with keras.RematScope(mode=mode, **options.get(mode, {})):
        a, b = layers.Dense(4, activation="tanh", name="a"), layers.Dense(3, activation="tanh", name="b")
        model = keras.Sequential([keras.Input((5,)), a, b, layers.Dense(2, name="last")])
    before = [layer._remat_mode for layer in model._flatten_layers()]
    rows = draws(3, 5)
    at = ["a:preactivation", "a", "b"]
    g = gt.gradients(model, rows, target=1, at=at)
    last = model.layers[-1]
    rest = lambda t: ref.dense(np.tanh(ref.dense(t, b)), last)[:, 1]  # noqa: E731
    inner = ref.dense(rows, a)
    assert_same_numbers(g["a"], central_differences(rest, np.tanh(inner)))
    assert_same_numbers(g["a:preactivation"], central_differences(lambda t: rest(np.tanh(t)), inner))
    assert_same_numbers(g.outputs, ref.dense(np.tanh(ref.dense(np.tanh(inner), b)), last), 1e-14)
    after = [layer._remat_mode for layer in model._flatten_layers()]
    assert all(one is other for one, other in zip(before, after, strict=True))


class Recomputed(layers.Layer):
    """Hides a layer in a function that is recomputed."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.inner = layers.Dense(3)

    def build(self, shape):
        self.inner.build(shape)

    def call(self, x):
        return keras.remat(self.inner)(x)


def test_a_layer_hidden_in_a_recomputed_function(float64):
    block, last = Recomputed(name="block"), layers.Dense(2, name="last")
    model = keras.Sequential([keras.Input((4,)), block, last])
    rows = draws(2, 4)
    g = gt.gradients(model, rows, target=1, at=[":input", "block"])
    slope = np.tile(ref.weights(last)["kernel"][:, 1], (2, 1))
    assert_same_numbers(g["block"], slope, 1e-14)
    assert_same_numbers(g[":input"], slope @ ref.weights(block.inner)["kernel"].T, 1e-13)
    with pytest.raises(gt.errors.NonDifferentiableError, match="block"):
        gt.gradients(model, rows, target=1, at="block/inner")


@pytest.mark.filterwarnings("ignore:Layer InputLayer does not have:UserWarning")
@pytest.mark.parametrize("mode", ["int8", "int4", "float8"])
def test_quantised_layers(mode):
    """Values are the model's; a gradient is what a tape gives, and of float8, where it gives none, finite."""
    inner = layers.Dense(6, activation="tanh", name="inner")
    mix = layers.EinsumDense("ab,bc->ac", 5, name="mix")
    x = keras.Input((8,))
    model = keras.Model(x, layers.Dense(2, name="last")(mix(inner(x))))
    model.quantize(mode)
    rows = tf.constant(draws(4, 8), tf.float32)
    g = gt.gradients(model, rows, target=1, at=[":input", "inner", "inner:preactivation", "mix"])
    np.testing.assert_allclose(g.outputs, model(rows), atol=1e-6)
    np.testing.assert_allclose(g.activations["inner"], inner(rows), atol=1e-6)
    np.testing.assert_allclose(g.activations["inner"], np.tanh(g.activations["inner:preactivation"]), atol=1e-6)
    assert all(np.isfinite(value).all() and np.any(value) for value in g.values())
    if mode != "float8":
        with tf.GradientTape() as tape:
            h = inner(rows)
            tape.watch(h)
            score = tf.reduce_sum(model.layers[-1](mix(h))[:, 1])
        np.testing.assert_allclose(g["inner"], tape.gradient(score, h), atol=1e-6)
