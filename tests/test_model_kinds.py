"""Every kind of model: the activations, and central differences at the tap of a forward pass restated in NumPy.

Each case is a function that makes a model and its inputs and says, for some addresses, how the activations follow from
the inputs and how the target follows from the activations. Weights are read when the reference runs, so a model that
was never called may be given.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from types import SimpleNamespace
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import gradtap as gt
from reference import layers as ref
from reference.differences import assert_same_numbers, central_differences
from reference.models import draws, float64_policy, policy

Tapped = tuple[np.ndarray, Callable[[np.ndarray], np.ndarray]]


@dataclass
class Case:
    """A model, what is asked of it, and the numbers restated by hand."""

    model: Any
    inputs: Any
    #: By address: the activations, and the target as a function of them.
    taps: Callable[[], dict[Any, Tapped]]
    target: Any = 1


CASES: dict[str, Callable[[], Case]] = {}


def case(function):
    """Add a case to the table."""
    CASES[function.__name__] = function
    return function


def chain(*functions):
    """Apply functions one after the other."""

    def run(x):
        for function in functions:
            x = function(x)
        return x

    return run


def pick(k):
    """The score of class k."""
    return lambda y: y[:, k]


def dense(layer, activation=lambda x: x):
    """A dense layer in NumPy."""
    return lambda x: activation(ref.dense(x, layer))


def suffixes(x, names, functions, score):
    """For a chain of layers: the activations after each, and the rest of the chain as a function of them."""
    found = {":input": (x, chain(*functions, score))}
    for i, name in enumerate(names):
        x = functions[i](x)
        found[name] = (x, chain(*functions[i + 1 :], score))
    return found


# -- Sequential --------------------------------------------------------------------------------------------------------


def two_dense():
    return [layers.Dense(5, activation="tanh", name="a"), layers.Dense(3, activation="softmax", name="b")]


def two_dense_case(model, a, b):
    x = draws(4, 6)
    return Case(model, x, lambda: suffixes(x, ["a", "b"], [dense(a, np.tanh), dense(b, ref.softmax)], pick(1)))


@case
def sequential_with_input():
    a, b = two_dense()
    return two_dense_case(keras.Sequential([keras.Input((6,)), a, b]), a, b)


@case
def sequential_never_called():
    a, b = two_dense()
    return two_dense_case(keras.Sequential([a, b]), a, b)


@case
def sequential_built_by_a_call():
    a, b = two_dense()
    model = keras.Sequential([a, b])
    model(draws(7, 6))
    return two_dense_case(model, a, b)


@case
def sequential_built_by_shape():
    a, b = two_dense()
    model = keras.Sequential([a, b])
    model.build((None, 6))
    return two_dense_case(model, a, b)


@case
def convolutions():
    """No ReLU stands before the pooling: where a whole window is zero the maximum has no derivative."""
    conv1 = layers.Conv2D(3, 3, padding="same", activation="gelu", name="conv1")
    conv2 = layers.Conv2D(4, 2, activation="relu", name="conv2")
    last = layers.Dense(3, activation="softmax", name="last")
    pool, mean = layers.MaxPooling2D(name="pool"), layers.GlobalAveragePooling2D(name="mean")
    model = keras.Sequential([keras.Input((6, 6, 2)), conv1, pool, conv2, mean, last])
    x = draws(2, 6, 6, 2)
    steps = {
        "conv1:preactivation": lambda t: ref.convolution(t, conv1),
        "conv1": ref.gelu,
        "pool": ref.max_pool,
        "conv2:preactivation": lambda t: ref.convolution(t, conv2),
        "conv2": ref.relu,
        "mean": lambda t: t.mean((1, 2)),
        "last:preactivation": dense(last),
        "last": ref.softmax,
    }

    def taps():
        found = suffixes(x, list(steps), list(steps.values()), pick(1))
        return found | {"pool:input": found["conv1"], "last:input": found["mean"]}

    return Case(model, x, taps)


@case
def batch_normalization_in_inference():
    a, norm, b = layers.Dense(4, name="a"), layers.BatchNormalization(name="norm"), layers.Dense(3, name="b")
    model = keras.Sequential([keras.Input((5,)), a, norm, layers.Activation("tanh", name="act"), b])
    norm.set_weights([1 + draws(4, seed=i) ** 2 for i in range(4)])
    x = draws(3, 5)
    steps = [dense(a), lambda h: ref.batch_normalization(h, norm), np.tanh, dense(b)]
    return Case(model, x, lambda: suffixes(x, ["a", "norm", "act", "b"], steps, pick(1)))


@case
def frozen_weights():
    a, b = two_dense()
    model = keras.Sequential([keras.Input((6,)), a, b])
    model.trainable = False
    return two_dense_case(model, a, b)


# -- Functional --------------------------------------------------------------------------------------------------------


@case
def functional_with_a_skip():
    """What bypasses the tap stays as it is; the input of a layer is what that layer alone is given."""
    a, b, c = (layers.Dense(4, activation="tanh", name=n) for n in "abc")
    x = keras.Input((4,), name="x")
    first = a(x)
    second = layers.Add(name="sum")([b(first), first])
    model = keras.Model(x, layers.Dense(2, name="last")(c(second)))
    last = model.get_layer("last")
    rows = draws(3, 4)
    h = np.tanh(ref.dense(rows, a))
    inner = np.tanh(ref.dense(h, b))
    end = chain(dense(c, np.tanh), dense(last), pick(1))
    return Case(
        model,
        rows,
        lambda: {
            "a": (h, lambda t: end(np.tanh(ref.dense(t, b)) + t)),
            "b": (inner, lambda t: end(t + h)),
            "b:input": (h, lambda t: end(np.tanh(ref.dense(t, b)) + h)),
            "sum": (inner + h, end),
        },
    )


@case
def identity_layers_do_not_sum_branches():
    """In inference Dropout returns the very tensor that it was given, which a skip uses as well."""
    a, b, c = (layers.Dense(3, activation="tanh", name=n) for n in "abc")
    x = keras.Input((4,))
    first = a(x)
    dropped = layers.Dropout(0.5, name="drop")(first)
    linear = layers.Activation("linear", name="linear")(dropped)
    model = keras.Model(x, layers.Add()([b(linear), c(first)]))
    rows = draws(3, 4)
    h = np.tanh(ref.dense(rows, a))
    skip = np.tanh(ref.dense(h, c))

    def through(t):
        return (np.tanh(ref.dense(t, b)) + skip)[:, 1]

    def everywhere(t):
        return (np.tanh(ref.dense(t, b)) + np.tanh(ref.dense(t, c)))[:, 1]

    return Case(model, rows, lambda: {"a": (h, everywhere), "drop": (h, through), "linear": (h, through)})


@case
def an_output_that_is_used_inside_as_well():
    """The same layer is an output and feeds another: the tap has both ways to the target."""
    a, b = layers.Dense(3, activation="tanh", name="a"), layers.Dense(3, name="b")
    x = keras.Input((4,))
    first = a(x)
    model = keras.Model(x, [first, b(first)])
    rows = draws(3, 4)
    h = np.tanh(ref.dense(rows, a))
    return Case(
        model,
        rows,
        lambda: {
            "a": (h, lambda t: t[:, 0] * ref.dense(t, b)[:, 1]),
            "b": (ref.dense(h, b), lambda t: h[:, 0] * t[:, 1]),
        },
        target=lambda y: y[0][:, 0] * y[1][:, 1],
    )


@case
def preactivation_that_a_skip_uses_as_well():
    a, b = layers.Dense(4, name="a"), layers.Dense(2, name="b")
    relu = layers.ReLU(name="relu")
    x = keras.Input((3,))
    before = a(x)
    model = keras.Model(x, b(layers.Multiply(name="product")([relu(before), before])))
    rows = draws(3, 3)
    h = ref.dense(rows, a)
    end = chain(dense(b), pick(1))
    return Case(
        model,
        rows,
        lambda: {
            "a": (h, lambda t: end(ref.relu(t) * t)),
            "relu:preactivation": (h, lambda t: end(ref.relu(t) * h)),
            "relu:input": (h, lambda t: end(ref.relu(t) * h)),
            "relu": (ref.relu(h), lambda t: end(t * h)),
            "product:input.0": (ref.relu(h), lambda t: end(t * h)),
            "product:input.1": (h, lambda t: end(ref.relu(h) * t)),
        },
    )


@case
def keras_ops_nodes():
    a, b = layers.Dense(4, name="a"), layers.Dense(3, name="b")
    x = keras.Input((5,))
    squashed = keras.ops.tanh(a(x))
    doubled = keras.ops.multiply(squashed, squashed)
    model = keras.Model(x, b(doubled + squashed))
    ops = [o.name for o in model.operations if not isinstance(o, keras.Layer)]
    rows = draws(3, 5)
    h = np.tanh(ref.dense(rows, a))
    end = chain(dense(b), pick(1))
    return Case(
        model,
        rows,
        lambda: {
            ops[0]: (h, lambda t: end(t * t + t)),
            ops[1]: (h * h, lambda t: end(t + h)),
            ops[2]: (h * h + h, end),
            f"{ops[2]}:input.1": (h, lambda t: end(h * h + t)),
        },
    )


@case
def shared_siamese():
    shared, last = layers.Dense(3, activation="tanh", name="shared"), layers.Dense(2, name="last")
    left, right = keras.Input((4,), name="left"), keras.Input((4,), name="right")
    model = keras.Model([left, right], last(layers.Concatenate()([shared(left), shared(right)])))
    x, y = draws(3, 4), draws(3, 4, seed=1)
    a, b = (np.tanh(ref.dense(v, shared)) for v in (x, y))
    end = chain(dense(last), pick(1))
    return Case(
        model,
        [x, y],
        lambda: {
            "shared[0]": (a, lambda t: end(np.concatenate([t, b], -1))),
            "shared[1]": (b, lambda t: end(np.concatenate([a, t], -1))),
            "shared[1]:input": (y, lambda t: end(np.concatenate([a, np.tanh(ref.dense(t, shared))], -1))),
            "shared[0]:preactivation": (
                ref.dense(x, shared),
                lambda t: end(np.concatenate([np.tanh(t), b], -1)),
            ),
        },
    )


@case
def shared_chained():
    shared, last = layers.Dense(4, activation="tanh", name="shared"), layers.Dense(2, name="last")
    model = keras.Sequential([keras.Input((4,)), shared, last])
    x = keras.Input((4,))
    model = keras.Model(x, last(shared(shared(shared(x)))))
    rows = draws(3, 4)
    steps = [dense(shared, np.tanh)] * 3 + [dense(last)]
    return Case(model, rows, lambda: suffixes(rows, ["shared[0]", "shared[1]", "shared[2]", "last"], steps, pick(1)))


@case
def shared_nested_model():
    """A whole model used twice: each call of each layer inside is told apart."""
    inner = keras.Sequential([keras.Input((3,)), layers.Dense(3, activation="tanh", name="d")], name="inner")
    x = keras.Input((3,))
    model = keras.Model(x, layers.Dense(2, name="last")(inner(inner(x))))
    d, last = inner.layers[0], model.get_layer("last")
    rows = draws(3, 3)
    steps = [dense(d, np.tanh)] * 2 + [dense(last)]

    def taps():
        by_layer = suffixes(rows, ["inner/d[0]", "inner/d[1]", "last"], steps, pick(1))
        by_model = suffixes(rows, ["inner[0]", "inner[1]", "last"], steps, pick(1))
        return by_layer | by_model

    return Case(model, rows, taps)


# -- several inputs and outputs ----------------------------------------------------------------------------------------


@case
def several_inputs_in_a_list():
    a, b = keras.Input((3,), name="first"), keras.Input((2,), name="second")
    mixed = layers.Dense(4, activation="tanh", name="mixed")
    last = layers.Dense(2, name="last")
    model = keras.Model([a, b], last(mixed(layers.Concatenate()([a, b]))))
    x, y = draws(3, 3), draws(3, 2, seed=1)
    end = chain(dense(mixed, np.tanh), dense(last), pick(1))
    return Case(
        model,
        [x, y],
        lambda: {
            ":input.first": (x, lambda t: end(np.concatenate([t, y], -1))),
            ":input.second": (y, lambda t: end(np.concatenate([x, t], -1))),
            "first": (x, lambda t: end(np.concatenate([t, y], -1))),
            ":input.1": (y, lambda t: end(np.concatenate([x, t], -1))),
        },
    )


@case
def several_inputs_in_a_dict():
    """Keras sorts a dict by its keys; what a name means must not depend on the order in which it was written."""
    inputs = {"zebra": keras.Input((3,), name="zebra"), "ant": keras.Input((2,), name="ant")}
    last = layers.Dense(2, name="last")
    model = keras.Model(inputs, last(layers.Concatenate()([inputs["zebra"] ** 2, inputs["ant"]])))
    x, y = draws(3, 3), draws(3, 2, seed=1)
    end = chain(dense(last), pick(1))
    return Case(
        model,
        {"ant": y, "zebra": x},
        lambda: {
            ":input.zebra": (x, lambda t: end(np.concatenate([t**2, y], -1))),
            ":input.ant": (y, lambda t: end(np.concatenate([x**2, t], -1))),
        },
    )


@case
def several_outputs_in_a_dict():
    trunk, left, right = (
        layers.Dense(n, activation="tanh", name=name) for n, name in ((4, "trunk"), (2, "left"), (3, "right"))
    )
    x = keras.Input((5,))
    h = trunk(x)
    model = keras.Model(x, {"wide": right(h), "narrow": left(h)})
    rows = draws(3, 5)
    hidden = np.tanh(ref.dense(rows, trunk))
    return Case(
        model,
        rows,
        lambda: {
            "trunk": (hidden, lambda t: np.tanh(ref.dense(t, right))[:, 2]),
            "right": (np.tanh(ref.dense(hidden, right)), pick(2)),
            ":output.wide": (np.tanh(ref.dense(hidden, right)), pick(2)),
        },
        target=gt.targets.class_score(2, output="wide"),
    )


class TwoArguments(keras.Model):
    """Called with two arguments, whose order in the call is not that of the alphabet."""

    def __init__(self):
        super().__init__()
        self.last = layers.Dense(3)

    def call(self, zebra, ant, training=False):
        return {"pair": [self.last(zebra), self.last(ant)], "difference": self.last(zebra) - 2 * self.last(ant * ant)}


def two_arguments_case(in_list):
    model = TwoArguments()
    x, y = draws(3, 4), draws(3, 4, seed=1)

    def end(t):
        return np.tanh(t[:, 1])

    def score(z, a):
        return np.tanh(ref.dense(z, model.last) - 2 * ref.dense(a * a, model.last))[:, 1]

    names = (":input.0", ":input.1") if in_list else (":input.zebra", ":input.ant")
    return Case(
        model,
        [x, y] if in_list else {"ant": y, "zebra": x},
        lambda: {
            names[0]: (x, lambda t: score(t, y)),
            names[1]: (y, lambda t: score(x, t)),
            "last[2]": (ref.dense(x, model.last), lambda t: end(t - 2 * ref.dense(y * y, model.last))),
            "last[3]": (ref.dense(y * y, model.last), lambda t: end(ref.dense(x, model.last) - 2 * t)),
        },
        target=lambda outputs: tf.tanh(outputs["difference"][:, 1]),
    )


@case
def two_arguments_in_a_list():
    return two_arguments_case(in_list=True)


@case
def two_arguments_by_name_and_nested_outputs():
    return two_arguments_case(in_list=False)


class OneDict(keras.Model):
    """Called with one dict, which holds a list."""

    def __init__(self):
        super().__init__()
        self.last = layers.Dense(2)

    def call(self, inputs):
        a, b = inputs["pair"]
        return [self.last(a * 3 + b * b), inputs["other"]]


@case
def nested_inputs_of_a_subclassed_model():
    model = OneDict()
    a, b, other = (draws(3, 4, seed=i) for i in range(3))
    end = chain(dense(model.last), pick(1))
    return Case(
        model,
        {"pair": [a, b], "other": other},
        lambda: {
            ":input.1": (a, lambda t: end(t * 3 + b * b)),
            ":input.2": (b, lambda t: end(a * 3 + t * t)),
            "last": (ref.dense(a * 3 + b * b, model.last), pick(1)),
        },
        target=gt.targets.class_score(1, output=0),
    )


# -- nested ------------------------------------------------------------------------------------------------------------


@case
def sequential_in_sequential():
    a, b, c = (layers.Dense(4, activation="tanh", name=n) for n in "abc")
    inner = keras.Sequential([a, b], name="inner")
    model = keras.Sequential([keras.Input((5,)), inner, c])
    rows = draws(3, 5)
    steps = [dense(layer, np.tanh) for layer in (a, b, c)]
    return Case(model, rows, lambda: suffixes(rows, ["inner/a", "b", "c"], steps, pick(1)))


@case
def nested_model_with_skips_inside_and_around():
    """One tensor goes to the inner model, to a layer inside of it and around both: each input is told apart."""
    a, deep, last = layers.Dense(3, activation="tanh", name="a"), layers.Dense(3, name="deep"), layers.Dense(2)
    inside = keras.Input((3,), name="in")
    inner = keras.Model(inside, layers.Add(name="both")([deep(inside) ** 2, inside]), name="inner")
    x = keras.Input((4,))
    h = a(x)
    model = keras.Model(x, last(layers.Multiply(name="product")([inner(h), h])))
    rows = draws(3, 4)
    v = np.tanh(ref.dense(rows, a))

    def whole(at_deep, at_both, around):
        return ref.dense((ref.dense(at_deep, deep) ** 2 + at_both) * around, last)[:, 1]

    return Case(
        model,
        rows,
        lambda: {
            "inner/deep:input": (v, lambda t: whole(t, v, v)),
            "inner:input": (v, lambda t: whole(t, t, v)),
            "inner/both:input.1": (v, lambda t: whole(v, t, v)),
            "inner/in": (v, lambda t: whole(t, t, v)),
            "product:input.1": (v, lambda t: whole(v, v, t)),
            "a": (v, lambda t: whole(t, t, t)),
        },
    )


class Block(layers.Layer):
    """A custom layer with its own weight and a layer inside."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.project = layers.Dense(units, activation="tanh")

    def build(self, shape):
        self.scale = self.add_weight(shape=(shape[-1],), initializer="normal", name="scale")
        self.project.build(shape)

    def call(self, x):
        return self.project(x * self.scale)

    def by_hand(self, x):
        return np.tanh(ref.dense(x * np.asarray(self.scale), self.project))


@case
def custom_layer_alone_never_called():
    block = Block(3)
    x = draws(4, 5)
    return Case(
        block,
        x,
        lambda: {
            ":input": (x, chain(block.by_hand, pick(1))),
            "project:input": (x * np.asarray(block.scale), chain(dense(block.project, np.tanh), pick(1))),
            "project": (block.by_hand(x), pick(1)),
        },
    )


class Stack(keras.Model):
    """Layers in attributes, in a list, in a dict, and in a dict of lists."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.stem = layers.Dense(4, activation="tanh")
        self.blocks = [Block(4), Block(4)]
        self.deep = {"pair": [layers.Dense(4, activation="tanh"), layers.Dense(4, activation="tanh")]}
        self.heads = {"large": layers.Dense(3)}

    def call(self, x):
        x = self.stem(x)
        for layer in [*self.blocks, *self.deep["pair"]]:
            x = layer(x)
        return self.heads["large"](x)

    def steps(self):
        """By address, what each layer does."""
        return {
            "stem": dense(self.stem, np.tanh),
            "blocks/0": self.blocks[0].by_hand,
            "blocks/1": self.blocks[1].by_hand,
            "deep/pair/0": dense(self.deep["pair"][0], np.tanh),
            "deep/pair/1": dense(self.deep["pair"][1], np.tanh),
            "heads/large": dense(self.heads["large"]),
        }


def stack_case(model):
    x = draws(3, 5)

    def taps():
        found = suffixes(x, list(model.steps()), list(model.steps().values()), pick(1))
        return found | {"blocks/1/project": found["blocks/1"]}

    return Case(model, x, taps)


@case
def subclassed_never_called():
    return stack_case(Stack())


@case
def subclassed_built_by_a_call():
    model = Stack()
    model(draws(2, 5))
    return stack_case(model)


@case
def subclassed_in_functional():
    stack, last = Stack(name="stack"), layers.Dense(2, activation="softmax", name="last")
    x = keras.Input((5,))
    model = keras.Model(x, last(stack(x)))
    rows = draws(3, 5)

    def taps():
        steps = stack.steps() | {"last": dense(last, ref.softmax)}
        names = [f"stack/{n}" for n in stack.steps()] + ["last"]
        return suffixes(rows, names, list(steps.values()), pick(1))

    return Case(model, rows, taps)


class Around(keras.Model):
    """A subclassed model that holds a functional one."""

    def __init__(self, inner):
        super().__init__()
        self.backbone = inner
        self.last = layers.Dense(2)

    def call(self, x):
        return self.last(self.backbone(x))


@case
def functional_in_subclassed():
    x = keras.Input((5,))
    a, b = layers.Dense(4, activation="tanh", name="a"), layers.Dense(4, activation="tanh", name="b")
    model = Around(keras.Model(x, b(a(x)), name="inner"))
    rows = draws(3, 5)

    def taps():
        steps = [dense(a, np.tanh), dense(b, np.tanh), dense(model.last)]
        return suffixes(rows, ["backbone/a", "inner/b", "last"], steps, pick(1))

    return Case(model, rows, taps)


# -- what layers return ------------------------------------------------------------------------------------------------


class Halves(layers.Layer):
    """Returns a dict, or a tuple."""

    def __init__(self, as_dict, **kwargs):
        super().__init__(**kwargs)
        self.as_dict = as_dict

    def call(self, x):
        both = {"zig": keras.ops.tanh(x), "ace": x * x}
        return both if self.as_dict else (both["zig"], both["ace"])


def halves_case(as_dict):
    class Model(keras.Model):
        def __init__(self):
            super().__init__()
            self.halves = Halves(as_dict)
            self.last = layers.Dense(2)

        def call(self, x):
            both = self.halves(x)
            zig, ace = (both["zig"], both["ace"]) if as_dict else both
            return self.last(zig * 2 + ace)

    model, x = Model(), draws(3, 4)
    first, second = (x * x, np.tanh(x)) if as_dict else (np.tanh(x), x * x)

    def end(zig, ace):
        return ref.dense(zig * 2 + ace, model.last)[:, 1]

    of_zig, of_ace = (lambda t: end(t, x * x)), (lambda t: end(np.tanh(x), t))
    ends = (of_ace, of_zig) if as_dict else (of_zig, of_ace)
    return Case(model, x, lambda: {"halves:output.0": (first, ends[0]), "halves:output.1": (second, ends[1])})


@case
def layer_that_returns_a_dict():
    return halves_case(as_dict=True)


@case
def layer_that_returns_a_tuple():
    return halves_case(as_dict=False)


@case
def activation_as_a_layer_object():
    a = layers.Dense(4, activation=layers.LeakyReLU(negative_slope=0.25), name="a")
    b = layers.Dense(2, name="b")
    relu = layers.ReLU(name="relu")
    model = keras.Sequential([keras.Input((5,)), a, relu, b])
    x = draws(3, 5)
    before = ref.dense(x, a)

    def leaky(t):
        return np.where(t > 0, t, 0.25 * t)

    end = chain(ref.relu, dense(b), pick(1))
    return Case(
        model,
        x,
        lambda: {
            "a:preactivation": (before, chain(leaky, end)),
            "a": (leaky(before), end),
            "relu:preactivation": (leaky(before), end),
        },
    )


# -- sequences ---------------------------------------------------------------------------------------------------------


@case
def lstm_with_sequences_and_states():
    lstm = layers.LSTM(4, return_sequences=True, return_state=True, name="lstm")
    last = layers.Dense(2, name="last")
    x = keras.Input((None, 3))
    sequence, h, c = lstm(x)
    mean = layers.GlobalAveragePooling1D()(sequence)
    model = keras.Model(x, last(layers.Concatenate()([mean, h, c])))
    rows = draws(2, 5, 3)
    hidden, cell = ref.lstm(rows, lstm)

    def end(sequence, h, c):
        return ref.dense(np.concatenate([sequence.mean(1), h, c], -1), last)[:, 1]

    def all_of(t):
        hidden, cell = ref.lstm(t, lstm)
        return end(hidden, hidden[:, -1], cell)

    return Case(
        model,
        rows,
        lambda: {
            ":input": (rows, all_of),
            "lstm:output.0": (hidden, lambda t: end(t, hidden[:, -1], cell)),
            "lstm:output.1": (hidden[:, -1], lambda t: end(hidden, t, cell)),
            "lstm:output.2": (cell, lambda t: end(hidden, hidden[:, -1], t)),
        },
    )


@case
def lstm_then_gru():
    lstm, gru = layers.LSTM(4, return_sequences=True, name="lstm"), layers.GRU(3, name="gru")
    last = layers.Dense(2, activation="softmax", name="last")
    model = keras.Sequential([keras.Input((None, 3)), lstm, gru, last])
    rows = draws(2, 4, 3)
    steps = [lambda t: ref.lstm(t, lstm)[0], lambda t: ref.gru(t, gru)[:, -1], dense(last, ref.softmax)]
    return Case(model, rows, lambda: suffixes(rows, ["lstm", "gru", "last"], steps, pick(1)))


@case
def embedding_of_integers():
    embed, gru, last = layers.Embedding(7, 3, name="embed"), layers.GRU(3, name="gru"), layers.Dense(2, name="last")
    model = keras.Sequential([keras.Input((4,), dtype="int32"), embed, gru, last])
    ids = np.array([[1, 2, 2, 6], [0, 5, 3, 1]])
    rest = chain(lambda t: ref.gru(t, gru)[:, -1], dense(last), pick(1))
    return Case(model, ids, lambda: {"embed": (ref.weights(embed)["embeddings"][ids], rest)})


@case
def transformer_block():
    attend = layers.MultiHeadAttention(2, 4, name="attend")
    norm, mlp, last = layers.LayerNormalization(name="norm"), layers.Dense(4, "gelu", name="mlp"), layers.Dense(2)
    x = keras.Input((None, 4))
    h = norm(layers.Add(name="skip")([x, attend(x, x)]))
    model = keras.Model(x, last(layers.GlobalAveragePooling1D()(mlp(h))))
    norm.set_weights([1 + draws(4, seed=1), draws(4, seed=2)])
    rows = draws(2, 3, 4)
    mixed = ref.attention(rows, rows, attend)
    end = chain(dense(mlp, ref.gelu), lambda t: t.mean(1), dense(last), pick(1))

    def normed(t):
        return ref.layer_normalization(t, norm)

    return Case(
        model,
        rows,
        lambda: {
            ":input": (rows, lambda t: end(normed(t + ref.attention(t, t, attend)))),
            "attend": (mixed, lambda t: end(normed(rows + t))),
            "skip": (rows + mixed, chain(normed, end)),
            "norm": (normed(rows + mixed), end),
            "mlp:preactivation": (
                ref.dense(normed(rows + mixed), mlp),
                chain(ref.gelu, lambda t: t.mean(1), dense(last), pick(1)),
            ),
        },
    )


@case
def attention_alone_called_with_two_arguments():
    attend = layers.MultiHeadAttention(2, 4)
    q, v = draws(2, 3, 4), draws(2, 5, 4, seed=1)

    def score(y):
        return y[:, 1, 2]

    return Case(
        attend,
        [q, v],
        lambda: {
            ":input.0": (q, lambda t: score(ref.attention(t, v, attend))),
            ":input.1": (v, lambda t: score(ref.attention(q, t, attend))),
            ":output": (ref.attention(q, v, attend), score),
        },
        target=(1, 2),
    )


@case
def attention_alone_called_by_name():
    attend = layers.MultiHeadAttention(2, 4)
    inputs = {"value": draws(2, 5, 4, seed=1), "query": draws(2, 3, 4)}
    q, v = inputs["query"], inputs["value"]

    def score(y):
        return y[:, 1, 2]

    return Case(
        attend,
        inputs,
        lambda: {
            ":input.query": (q, lambda t: score(ref.attention(t, v, attend))),
            ":input.value": (v, lambda t: score(ref.attention(q, t, attend))),
        },
        target=(1, 2),
    )


@case
def masked_steps():
    """The mask that an embedding hangs on its output must reach the layer after it."""
    embed = layers.Embedding(7, 3, mask_zero=True, name="embed")
    lstm, last = layers.LSTM(4, name="lstm"), layers.Dense(2, name="last")
    model = keras.Sequential([keras.Input((None,), dtype="int32"), embed, lstm, last])
    ids = np.array([[1, 2, 0, 0], [4, 5, 3, 1], [6, 0, 0, 0]])
    end = chain(dense(last), pick(1))

    def hidden(t):
        return ref.lstm(t, lstm, mask=ids != 0)[0][:, -1]

    def taps():
        vectors = ref.weights(embed)["embeddings"][ids]
        return {"embed": (vectors, chain(hidden, end)), "lstm": (hidden(vectors), end)}

    return Case(model, ids, taps)


class Tokens(layers.Layer):
    """Hands on what its embedding returns, and with it the mask that hangs on the tensor."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.embed = layers.Embedding(7, 3, mask_zero=True)

    def build(self, shape):
        self.embed.build(shape)

    def call(self, ids):
        return self.embed(ids)


@case
def mask_from_a_layer_inside():
    tokens, lstm, last = Tokens(name="tokens"), layers.LSTM(4, name="lstm"), layers.Dense(2, name="last")
    ids = keras.Input((None,), dtype="int32")
    model = keras.Model(ids, last(lstm(tokens(ids))))
    rows = np.array([[1, 2, 0, 0], [4, 5, 3, 1], [6, 0, 0, 0]])
    end = chain(dense(last), pick(1))

    def hidden(t):
        return ref.lstm(t, lstm, mask=rows != 0)[0][:, -1]

    def taps():
        vectors = ref.weights(tokens.embed)["embeddings"][rows]
        return {"tokens": (vectors, chain(hidden, end)), "tokens/embed": (vectors, chain(hidden, end))}

    return Case(model, rows, taps)


@case
def bidirectional():
    both = layers.Bidirectional(layers.LSTM(3, name="steps"), name="both")
    last = layers.Dense(2, name="last")
    model = keras.Sequential([keras.Input((4, 3)), both, last])
    x = draws(2, 4, 3)
    end = chain(dense(last), pick(1))

    def forward(t):
        return ref.lstm(t, both.forward_layer)[0][:, -1]

    def backward(t):
        return ref.lstm(t[:, ::-1], both.backward_layer)[0][:, -1]

    def joined(a, b):
        return np.concatenate([a, b], -1)

    return Case(
        model,
        x,
        lambda: {
            ":input": (x, lambda t: end(joined(forward(t), backward(t)))),
            "both": (joined(forward(x), backward(x)), end),
            "forward_steps": (forward(x), lambda t: end(joined(t, backward(x)))),
            "both/backward_layer": (backward(x), lambda t: end(joined(forward(x), t))),
        },
    )


@case
def time_distributed():
    """The layer inside runs in a loop of its own; the outer one is tapped as any other."""
    inner, last = layers.Dense(3, activation="tanh", name="inner"), layers.Dense(2, name="last")
    mean = layers.GlobalAveragePooling1D(name="mean")
    model = keras.Sequential([keras.Input((4, 5)), layers.TimeDistributed(inner, name="each"), mean, last])
    x = draws(2, 4, 5)
    steps = [dense(inner, np.tanh), lambda t: t.mean(1), dense(last)]
    return Case(model, x, lambda: suffixes(x, ["each", "mean", "last"], steps, pick(1)))


# -- not Keras models --------------------------------------------------------------------------------------------------


@case
def function_that_closes_over_a_model():
    a, b = two_dense()
    net = keras.Sequential([keras.Input((6,)), a, b], name="net")

    def function(x):
        return net(tf.tanh(x)) * 2.0

    x = draws(4, 6)
    end = chain(dense(b, ref.softmax), lambda y: 2 * y[:, 1])
    return Case(
        function,
        x,
        lambda: {
            ":input": (x, chain(np.tanh, dense(a, np.tanh), end)),
            "net/a": (np.tanh(ref.dense(np.tanh(x), a)), end),
            "net": (chain(np.tanh, dense(a, np.tanh), dense(b, ref.softmax))(x), lambda y: 2 * y[:, 1]),
        },
    )


@case
def function_that_closes_over_a_model_never_called():
    a, b = two_dense()
    net = keras.Sequential([a, b], name="net")
    x = draws(4, 6)
    return Case(
        lambda x: net(x),
        x,
        lambda: {"net/a": (np.tanh(ref.dense(x, a)), chain(dense(b, ref.softmax), pick(1)))},
    )


@case
def function_that_is_a_tf_function():
    a, b = two_dense()
    net = keras.Sequential([keras.Input((6,)), a, b], name="net")
    x = draws(4, 6)
    function = tf.function(lambda x: net(x))
    return Case(function, x, lambda: {":input": (x, chain(dense(a, np.tanh), dense(b, ref.softmax), pick(1)))})


class Module(tf.Module):
    """A module of plain variables that holds another, and a Keras layer."""

    def __init__(self):
        super().__init__()
        self.w = tf.Variable(draws(5, 4))
        self.layer = layers.Dense(3, activation="tanh", name="inner")
        self.layer.build((None, 4))

    def __call__(self, x):
        return self.layer(tf.tanh(x @ self.w))


@case
def tf_module():
    module, x = Module(), draws(3, 5)

    def hidden(t):
        return np.tanh(t @ module.w.numpy())

    end = chain(dense(module.layer, np.tanh), pick(1))
    return Case(
        module,
        x,
        lambda: {
            ":input": (x, chain(hidden, end)),
            "layer": (np.tanh(ref.dense(hidden(x), module.layer)), pick(1)),
            "layer:input": (hidden(x), end),
            "inner:preactivation": (ref.dense(hidden(x), module.layer), chain(np.tanh, pick(1))),
        },
    )


class Modules(tf.Module):
    """Modules in a list, and a Keras layer that was never called."""

    def __init__(self):
        super().__init__()
        self.parts = [Module(), Module()]
        self.parts[1].w = tf.Variable(draws(3, 4, seed=1))
        self.late = layers.Dense(3, activation="tanh", name="late")

    def __call__(self, x):
        for part in self.parts:
            x = part(x)
        return self.late(x)


@case
def tf_modules_in_a_list():
    module, x = Modules(), draws(3, 5)

    def taps():
        def run(part):
            return lambda t: np.tanh(ref.dense(np.tanh(t @ part.w.numpy()), part.layer))

        steps = [*map(run, module.parts), dense(module.late, np.tanh)]
        return suffixes(x, ["parts/0/layer", "parts/1/inner", "late"], steps, pick(1))

    return Case(module, x, taps)


@case
def function_of_two_tensors():
    a = layers.Dense(3, activation="tanh", name="a")

    def function(x, y):
        return a(x) * tf.tanh(y)

    x, y = draws(3, 4), draws(3, 3, seed=1)
    return Case(
        function,
        (x, y),
        lambda: {
            ":input.0": (x, lambda t: (np.tanh(ref.dense(t, a)) * np.tanh(y))[:, 1]),
            ":input.1": (y, lambda t: (np.tanh(ref.dense(x, a)) * np.tanh(t))[:, 1]),
            "a": (np.tanh(ref.dense(x, a)), lambda t: (t * np.tanh(y))[:, 1]),
        },
    )


@case
def bound_method():
    """Layers are found among the attributes of the object that the method belongs to."""

    class Pipeline:
        def __init__(self):
            self.net = layers.Dense(3, activation="tanh", name="net")

        def run(self, x):
            return self.net(x) ** 2

    pipeline, x = Pipeline(), draws(3, 4)
    return Case(
        pipeline.run,
        x,
        lambda: {"net": (np.tanh(ref.dense(x, pipeline.net)), lambda t: t[:, 1] ** 2)},
    )


# -- what holds for all of them ---------------------------------------------------------------------------------------


@cache
def asked(name):
    """A case, its expected numbers and its result, made once for all tests."""
    keras.utils.set_random_seed(sum(map(ord, name)))
    with float64_policy():
        one = CASES[name]()
        # A model that was never called has no weights to restate it with: this is its first call.
        gt.activations(one.model, one.inputs, at=":output")
        expected = one.taps()
        return one, expected, gt.gradients(one.model, one.inputs, target=one.target, at=list(expected))


def rows_of(inputs, start, stop):
    """Some examples of every array."""
    return tf.nest.map_structure(lambda a: a[start:stop], inputs)


def count_of(inputs):
    """Number of examples."""
    return len(tf.nest.flatten(inputs)[0])


@pytest.mark.parametrize("name", CASES)
def test_gradients_and_activations_are_those_restated_by_hand(name):
    _, expected, result = asked(name)
    assert set(result) == set(expected)
    for address, (activations, score) in expected.items():
        assert_same_numbers(result.activations[address], activations, 1e-12)
        assert_same_numbers(result[address], central_differences(score, activations))
        assert_same_numbers(result.target, score(activations), 1e-12)


@pytest.mark.parametrize("name", CASES)
def test_no_way_of_splitting_a_batch_changes_a_number(name):
    one, expected, result = asked(name)
    split = gt.gradients(one.model, one.inputs, target=one.target, at=list(expected), batch_size=2)
    first = gt.gradients(one.model, rows_of(one.inputs, 0, 1), target=one.target, at=list(expected))
    for address, whole in result.items():
        assert_same_numbers(split[address], whole, 1e-12)
        assert_same_numbers(split.activations[address], result.activations[address], 1e-12)
        assert_same_numbers(first[address], whole[:1], 1e-12)
    assert_same_numbers(split.target, result.target, 1e-12)
    tf.nest.map_structure(lambda a, b: assert_same_numbers(a, b, 1e-12), split.outputs, result.outputs)


@pytest.mark.parametrize("name", CASES)
def test_of_no_examples_there_are_no_gradients(name):
    one, expected, result = asked(name)
    none = gt.gradients(one.model, rows_of(one.inputs, 0, 0), target=one.target, at=list(expected))
    assert list(none) == list(result)
    for address, whole in result.items():
        assert none[address].shape == (0, *whole.shape[1:])
        assert none[address].dtype == whole.dtype
        assert none.activations[address].shape == (0, *whole.shape[1:])
    assert none.target.shape == (0,)


@pytest.mark.parametrize("name", CASES)
def test_inside_a_tf_function_of_unknown_batch(name):
    one, expected, result = asked(name)
    specs = tf.nest.map_structure(lambda a: tf.TensorSpec((None, *a.shape[1:]), a.dtype), one.inputs)

    @tf.function(input_signature=[specs])
    def compiled(inputs):
        g = gt.gradients(one.model, inputs, target=one.target, at=list(expected))
        return list(g.values()), g.target

    values, target = compiled(tf.nest.map_structure(tf.convert_to_tensor, one.inputs))
    assert_same_numbers(target, result.target, 1e-12)
    for value, whole in zip(values, result.values(), strict=True):
        assert_same_numbers(value, whole, 1e-12)


@pytest.mark.parametrize("seed", range(4))
def test_the_order_of_asking_changes_no_number(seed):
    """Inputs of layers are told apart by ops that are put into the kept graph: whichever is asked first."""
    with float64_policy():
        one = CASES["nested_model_with_skips_inside_and_around"]()
    expected = one.taps()
    for address in np.random.default_rng(seed).permutation(list(expected)):
        activations, score = expected[address]
        g = gt.gradients(one.model, one.inputs, target=1, at=str(address))
        assert_same_numbers(g.only, central_differences(score, activations))


# -- models that were never called -------------------------------------------------------------------------------------


NEVER_CALLED = [n for n in CASES if n.endswith("never_called")]


@pytest.mark.parametrize("name", [*NEVER_CALLED, "attention_alone_called_by_name", "tf_modules_in_a_list"])
def test_never_called_models_leave_keras_fit_for_the_next(name):
    """Variables made while a graph of ours is traced would break whatever is built next."""
    with float64_policy():
        one = CASES[name]()
        g = gt.gradients(one.model, one.inputs, target=one.target, at=":output")
        again = one.model(**one.inputs) if isinstance(one.inputs, dict) else one.model(one.inputs)
    assert_same_numbers(g.outputs, again, 1e-12)
    after = keras.Sequential([layers.Dense(3), layers.Dense(1)])
    after.compile("sgd", "mse")
    after.fit(np.ones((4, 2)), np.ones((4, 1)), verbose=0)
    assert np.isfinite(after.predict(np.ones((4, 2)), verbose=0)).all()


def test_a_declared_number_of_examples_binds_nobody(float64):
    """Keras takes any number whatever an Input says, and so do we."""
    x = keras.Input(batch_shape=(2, 3))
    model = keras.Model(x, layers.Dense(2, activation="tanh", name="last")(x))
    last, rows = model.get_layer("last"), draws(5, 3)
    assert_same_numbers(model(rows), np.tanh(ref.dense(rows, last)), 1e-12)
    g = gt.gradients(model, rows, target=1, at=":input")
    assert_same_numbers(g.only, central_differences(chain(dense(last, np.tanh), pick(1)), rows))
    assert [e.shape for e in gt.taps(model)][:2] == [(None, 3), (None, 2)]


def test_inputs_by_name_in_any_order(float64):
    """A model of a list of inputs takes a dict of their names, and no order of a dict means anything."""
    zebra, ant = keras.Input((3,), name="zebra"), keras.Input((3,), name="ant")
    out = layers.Dense(1, use_bias=False, name="last")(layers.Subtract()([zebra, 2 * ant]))
    x, y = draws(2, 3), draws(2, 3, seed=1)
    for model in (keras.Model([zebra, ant], out), keras.Model({"zebra": zebra, "ant": ant}, out)):
        kernel = model.get_layer("last").kernel.numpy()[:, 0]
        for given in ({"zebra": x, "ant": y}, {"ant": y, "zebra": x}):
            g = gt.gradients(model, given, at=":input")
            assert_same_numbers(g.target, (x - 2 * y) @ kernel, 1e-12)
            np.testing.assert_allclose(g[":input.zebra"], np.tile(kernel, (2, 1)))
            np.testing.assert_allclose(g[":input.ant"], np.tile(-2 * kernel, (2, 1)))
            np.testing.assert_array_equal(g.activations[":input.ant"], y)


def test_first_call_inside_a_tf_function(float64):
    """The model is built and traced outside of the function's graph, which keeps nothing of it."""
    one = CASES["subclassed_never_called"]()
    x = tf.constant(one.inputs)
    values = tf.function(lambda x: list(gt.gradients(one.model, x, target=1, at=["stem", "blocks/1"]).values()))(x)
    expected = one.taps()
    for value, address in zip(values, ["stem", "blocks/1"], strict=True):
        activations, score = expected[address]
        assert_same_numbers(value, central_differences(score, activations))
    assert_same_numbers(gt.gradients(one.model, x, target=1, at="stem").only, values[0], 1e-12)


def test_a_sequential_without_an_input_is_bound_to_no_size(float64):
    """It takes over the shape of the first batch; Keras runs it on others, and so do we."""
    lstm, last = layers.LSTM(3, name="lstm"), layers.Dense(2, name="last")
    model = keras.Sequential([lstm, last])
    for batch, time in ((4, 5), (2, 5), (3, 7), (1, 4)):
        x = draws(batch, time, 3)
        g = gt.gradients(model, x, target=1, at=[":input", "lstm"])
        assert_same_numbers(g.outputs, model(x), 1e-12)

        def score(t):
            return ref.dense(ref.lstm(t, lstm)[0][:, -1], last)[:, 1]

        assert_same_numbers(g[":input"], central_differences(score, x))


# -- backbones ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def backbone_model():
    keras.utils.set_random_seed(0)
    with float64_policy():
        backbone = keras.applications.MobileNetV2((32, 32, 3), alpha=0.35, include_top=False, weights=None)
        last = layers.Dense(5, activation="softmax", name="last")
        return keras.Sequential([keras.Input((32, 32, 3)), backbone, layers.GlobalAveragePooling2D(name="mean"), last])


@pytest.mark.parametrize("inner", ["block_6_expand_relu", "block_4_project_BN", "block_4_add", "out_relu"])
def test_backbone_in_a_sequential_by_path_and_by_tail(backbone_model, inner):
    """Against a tape over the same layers, called one by one; around `block_4_project_BN` leads a skip."""
    backbone, mean, last = backbone_model.layers
    images = np.random.default_rng(0).random((2, 32, 32, 3))
    two = keras.Model(backbone.input, [backbone.get_layer(inner).output, backbone.output])
    x = tf.constant(images)
    with tf.GradientTape() as tape:
        tape.watch(x)
        tapped, features = two(x, training=False)
        score = last(mean(features))[:, 3]
    expected = tape.gradient(score, tapped)
    path = f"{backbone.name}/{inner}"
    g = gt.gradients(backbone_model, images, target=3, at=[inner, path, backbone.get_layer(inner)])
    assert set(g) == {inner, path}
    for address in g:
        assert_same_numbers(g[address], expected, 1e-11, floor=1e-12)
        assert_same_numbers(g.activations[address], tapped, 1e-11, floor=1e-12)


# -- types -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("half", ["float16", "bfloat16"])
def test_mixed_precision(half):
    """Score and first gradient in float32, the rest as the layers compute; equal to a tape that does the same."""
    with policy(f"mixed_{half}"):
        model = keras.Sequential([keras.Input((6,)), *two_dense()])
    a, b = model.layers
    x = draws(4, 6).astype("float32")
    g = gt.gradients(model, x, target=1, at=[":input", "a", "a:preactivation", "b"])
    inputs = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        before = tf.matmul(tf.cast(inputs, half), tf.cast(a.kernel, half)) + tf.cast(a.bias, half)
        hidden = tf.tanh(before)
        scores = tf.nn.softmax(tf.matmul(hidden, tf.cast(b.kernel, half)) + tf.cast(b.bias, half))
        score = tf.cast(scores, "float32")[:, 1]
    expected = tape.gradient(score, [inputs, before, hidden, scores])
    assert [v.dtype.name for v in g.values()] == ["float32", half, half, half]
    assert [v.dtype.name for v in g.activations.values()] == ["float32", half, half, half]
    assert g.target.dtype == tf.float32
    assert_same_numbers(g.target, score, 1e-6)
    for value, slope in zip(g.values(), [expected[0], expected[1], expected[2], expected[3]], strict=True):
        assert_same_numbers(tf.cast(value, "float32"), tf.cast(slope, "float32"), 1e-2)


def test_a_loss_in_half_precision_is_formed_in_float32():
    """The square of 300 is beyond float16."""
    with policy("mixed_float16"):
        model = keras.Sequential([keras.Input((2,)), layers.Dense(2, use_bias=False, name="a")])
    model.set_weights([np.eye(2) * 300])
    g = gt.gradients(model, np.ones((1, 2)), target=gt.targets.loss("mse", [[0.0, 100.0]]), at="a")
    np.testing.assert_array_equal(g.target, [(300**2 + 200**2) / 2])
    np.testing.assert_array_equal(g["a"], [[300, 200]])
    assert g["a"].dtype == tf.float16


def test_inputs_are_cast_as_the_model_casts_them():
    """Integer images, float64 rows: the model's own type."""
    model = keras.Sequential([keras.Input((3,)), layers.Dense(2, name="a")])
    rows = np.array([[0, 128, 255]], "uint8")
    for given in (rows, rows.tolist(), rows.astype("float64"), tf.constant(rows), tf.constant(rows, "float64")):
        g = gt.gradients(model, given, target=1, at=":input")
        assert g.only.dtype == tf.float32
        np.testing.assert_allclose(g.only, [model.layers[0].kernel[:, 1]])
        np.testing.assert_array_equal(g.activations[":input"], rows.astype("float32"))


# -- free sizes --------------------------------------------------------------------------------------------------------


class Counted(layers.Layer):
    """Sums over the inner axes, and counts how often its Python runs."""

    runs = 0

    def __init__(self, sizes=(), **kwargs):
        super().__init__(**kwargs)
        self.sizes = sizes
        self.conv = layers.Conv2D(2, 3, padding="same", activation="tanh", name="conv")

    def call(self, x):
        Counted.runs += 1
        for axis in self.sizes:
            x = sum(tf.gather(x, [i], axis=axis) for i in range(x.shape[axis]))
        return keras.ops.mean(self.conv(x), axis=(1, 2))


def counted_score(layer, k, repeats=1):
    def score(t):
        for axis in layer.sizes:
            t = t.sum(axis, keepdims=True)
        return np.repeat(np.tanh(ref.convolution(t, layer.conv)).mean((1, 2))[:, k], repeats)

    return score


SIZES = [(2, 4, 5), (3, 4, 5), (2, 6, 5), (1, 6, 3), (2, 5, 7), (2, 4, 5)]


def runs_for(model, layer, sizes):
    """How often the Python of a layer ran after each of some inputs; their gradients are compared."""
    Counted.runs = 0
    counts = []
    for size in sizes:
        x = draws(*size, 2)
        g = gt.gradients(model, x, target=1, at=[":input", "conv"])
        counts.append(Counted.runs)
        assert_same_numbers(g[":input"], central_differences(counted_score(layer, 1), x))
    return counts


def test_declared_free_sizes_are_traced_once(float64):
    layer = Counted()
    x = keras.Input((None, None, 2))
    model = keras.Model(x, layer(x))
    assert runs_for(model, layer, SIZES) == [1] * len(SIZES)


def test_sizes_that_differ_are_set_free_in_the_second_trace(float64):
    """Nothing is declared, so the sizes are static until another one is seen; the batch is free from the start."""
    layer = Counted()
    layer(draws(1, 4, 4, 2))
    # The third size frees the height, the fourth the width as well.
    assert runs_for(layer, layer, SIZES) == [1, 1, 2, 3, 3, 3]


def test_python_that_needs_the_sizes_gets_them(float64):
    layer = Counted(sizes=(1, 2))
    layer(draws(1, 4, 4, 2))
    runs_for(layer, layer, SIZES[:4])


def test_python_that_needs_the_number_of_examples_gets_it(float64):
    """A trace for two examples must not answer for three."""

    def model(x):
        return tf.stack([tf.reduce_sum(x[i] ** (i + 1.0)) for i in range(x.shape[0])])

    for batch in (2, 3, 2, 1):
        x = 1 + draws(batch, 3) ** 2
        powers = np.arange(1.0, batch + 1)[:, None]
        assert_same_numbers(gt.gradients(model, x, at=":input").only, powers * x ** (powers - 1), 1e-12)


def test_stateful_rnn_starts_from_its_state_and_keeps_it(float64):
    lstm, last = layers.LSTM(3, stateful=True, name="lstm"), layers.Dense(2, name="last")
    model = keras.Sequential([keras.Input(batch_shape=(2, 4, 3)), lstm, last])
    x = draws(2, 4, 3)
    for _ in range(2):
        state = tuple(np.array(s) for s in lstm.states)

        def score(t, state=state):
            return ref.dense(ref.lstm(t, lstm, state=state)[0][:, -1], last)[:, 1]

        g = gt.gradients(model, x, target=1, at=":input")
        assert_same_numbers(g.only, central_differences(score, x))
        for before, after in zip(state, lstm.states, strict=True):
            np.testing.assert_array_equal(before, after)
        model(x)
        assert not np.array_equal(state[0], lstm.states[0])


@pytest.mark.parametrize("declares", [True, False])
def test_an_input_that_does_not_say_how_many_axes_it_has_is_refused(declares):
    model = keras.Sequential([keras.Input((3,)), layers.Dense(1)]) if declares else lambda x: tf.reduce_sum(x, -1)

    @tf.function(input_signature=[tf.TensorSpec(None, tf.float32)])
    def function(x):
        return gt.gradients(model, x, at=":input").only

    with pytest.raises(gt.errors.InputShapeError, match="how many axes"):
        function(tf.ones((2, 3)))


# -- training ----------------------------------------------------------------------------------------------------------


def test_with_batch_statistics_a_row_is_the_sum_over_all_targets(float64):
    """Under ``training=True`` the examples depend on each other through the moments of the batch."""
    norm, last = layers.BatchNormalization(name="norm"), layers.Dense(2, activation="tanh", name="last")
    model = keras.Sequential([keras.Input((3,)), norm, last])
    norm.set_weights([1 + draws(3, seed=i) ** 2 for i in range(4)])
    x = draws(4, 3)
    w = ref.weights(norm)

    def sum_of_targets(t):
        t = t.reshape(4, 3)
        h = (t - t.mean(0)) / np.sqrt(t.var(0) + norm.epsilon) * w["gamma"] + w["beta"]
        return np.tanh(ref.dense(h, last))[:, 1].sum(keepdims=True)

    g = gt.gradients(model, x, target=1, at=":input", training=True)
    assert_same_numbers(g.only, central_differences(sum_of_targets, x.reshape(1, 12)).reshape(4, 3))
    for name, value in ref.weights(norm).items():
        np.testing.assert_array_equal(value, w[name])


def test_functions_are_told_whether_they_train(float64):
    def model(x, training=False):
        return tf.reduce_sum(x, -1) * (3.0 if training else 1.0)

    x = draws(2, 3)
    np.testing.assert_array_equal(gt.gradients(model, x, at=":input").only, np.ones((2, 3)))
    np.testing.assert_array_equal(gt.gradients(model, x, at=":input", training=True).only, np.full((2, 3), 3.0))


# -- models that read what is not theirs -------------------------------------------------------------------------------


class Settings:
    """A plain object, with an attribute, an object inside, and methods that read them."""

    def __init__(self):
        self.factor = 1.0
        self.inner = SimpleNamespace(factor=1.0)
        self.table = {"factor": 1.0}

    def by_attribute(self, x):
        return tf.reduce_sum(x, -1) * self.factor

    def by_inner(self, x):
        return tf.reduce_sum(x, -1) * self.inner.factor

    def by_table(self, x):
        return tf.reduce_sum(x, -1) * self.table["factor"]

    def by_method(self, x):
        return self.by_inner(x)


class Scaled(layers.Layer):
    """A layer that reads a plain object of its own."""

    def __init__(self, settings):
        super().__init__()
        self.settings = settings

    def call(self, x):
        return keras.ops.sum(x, -1) * self.settings.inner.factor


class ScaledModule(tf.Module):
    """A module that reads a plain object of its own."""

    def __init__(self, settings):
        super().__init__()
        self.settings = settings

    def __call__(self, x):
        return self.settings.by_attribute(x)


GLOBAL = SimpleNamespace(factor=1.0)


def reads_a_global(x):
    return tf.reduce_sum(x, -1) * GLOBAL.factor


READERS = {
    "bound_method": lambda s: (s.by_attribute, lambda: setattr(s, "factor", 3.0)),
    "object_in_an_object": lambda s: (s.by_inner, lambda: setattr(s.inner, "factor", 3.0)),
    "table": lambda s: (s.by_table, lambda: s.table.update(factor=3.0)),
    "method_that_calls_another": lambda s: (s.by_method, lambda: setattr(s.inner, "factor", 3.0)),
    "closure": lambda s: (lambda x: s.by_attribute(x), lambda: setattr(s, "factor", 3.0)),
    "helper": lambda s: (lambda x: reads_a_global(x), lambda: setattr(GLOBAL, "factor", 3.0)),
    "layer": lambda s: (Scaled(s), lambda: setattr(s.inner, "factor", 3.0)),
    "module": lambda s: (ScaledModule(s), lambda: setattr(s, "factor", 3.0)),
    "lambda_layer": lambda s: (layers.Lambda(lambda x: s.by_inner(x)), lambda: setattr(s.inner, "factor", 3.0)),
}


@pytest.mark.parametrize("reader", READERS)
def test_a_change_in_what_the_python_of_a_model_reads_is_seen(reader, monkeypatch):
    monkeypatch.setattr(GLOBAL, "factor", 1.0)
    model, change = READERS[reader](Settings())
    x = np.ones((2, 3), "float32")
    for factor in (1.0, 1.0):
        np.testing.assert_array_equal(gt.gradients(model, x, at=":input").only, np.full((2, 3), factor))
    change()
    for factor in (3.0, 3.0):
        np.testing.assert_array_equal(gt.gradients(model, x, at=":input").only, np.full((2, 3), factor))


def test_a_bound_method_is_traced_once_though_it_is_made_anew_at_each_access():
    runs = []

    class Counting(Settings):
        def run(self, x):
            runs.append(1)
            return self.by_attribute(x)

    settings, others = Counting(), []
    for _ in range(4):
        gt.gradients(settings.run, np.ones((2, 3)), at=":input")
        others.append(settings.run)  # takes the address that the first one had
    assert len(runs) == 1


def test_a_change_in_what_it_does_not_read_costs_no_trace():
    """A counter beside, a new attribute: nothing that the function names."""
    runs = []
    settings = Settings()

    def model(x):
        runs.append(1)
        return settings.by_attribute(x)

    for step in range(3):
        settings.step = step
        settings.inner.factor = float(step)
        gt.gradients(model, np.ones((2, 3)), at=":input")
    assert len(runs) == 1


# -- ops ---------------------------------------------------------------------------------------------------------------


def test_any_op_is_tapped_by_its_name(float64):
    """Inside of a layer that has no name for it: the square in the middle."""

    def model(x):
        return tf.reduce_sum(tf.exp(tf.square(x, name="middle"), name="end"), -1)

    x = draws(3, 4) / 2
    g = gt.gradients(model, x, at=[gt.Tap.op("end:0"), gt.Tap.op("middle"), ":input"])
    assert list(g) == [":input", "middle:0", "end:0"]
    squares = x**2
    assert_same_numbers(g["middle:0"], np.exp(squares), 1e-12)
    assert_same_numbers(g[gt.Tap.op("middle")], np.exp(squares), 1e-12)
    assert_same_numbers(g["end:0"], np.ones((3, 4)), 1e-12)
    assert_same_numbers(g[":input"], 2 * x * np.exp(squares), 1e-12)
    assert_same_numbers(g.activations["middle:0"], squares, 1e-12)


def test_ops_of_a_layer_bear_its_name(float64):
    hidden, last = layers.Dense(4, activation="tanh", name="hidden"), layers.Dense(2, name="last")
    model = keras.Sequential([keras.Input((3,)), hidden, last], name="net")
    x = draws(2, 3)
    g = gt.gradients(model, x, target=1, at=gt.Tap.op("net_1/hidden_1/Tanh"))
    assert_same_numbers(g.only, np.tile(last.kernel.numpy()[:, 1], (2, 1)), 1e-12)
