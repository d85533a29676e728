"""Arguments and models that are wrong, and models that fail."""

from __future__ import annotations

import warnings
from unittest import mock

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import gradtap as gt
from gradtap import errors
from gradtap.errors import ArgumentError, BackendError, MemoryBudgetError, ModelCallError, ModelRunError, ModelTypeError
from refusals import ROWS, TOKENS, gradients, label, refuses, rows, through, tokens

# -- arguments ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value", "part"),
    [
        ("unconnected", "foo", "'error', 'zero'"),
        ("unconnected", None, "'error', 'zero'"),
        ("unconnected", np.array(["error", "zero"]), "'error', 'zero'"),
        ("batch_size", 0, "not a positive int"),
        ("batch_size", -1, "not a positive int"),
        ("batch_size", 1.5, "not a positive int"),
        ("batch_size", "2", "not a positive int"),
        ("batch_size", True, "not a positive int"),
        ("training", "yes", "True, False"),
        ("training", 1, "True, False"),
        ("training", None, "True, False"),
        ("checks", "no", "True, False"),
        ("seed", "a", "not an int"),
        ("seed", 1.5, "not an int"),
    ],
)
def test_a_keyword_outside_of_its_choices(name, value, part):
    for call in (gt.activations, gradients):
        refuses(ArgumentError, lambda c=call: c(rows(), ROWS, at="hidden", **{name: value}), f"{name}=", part)


def test_what_a_trace_is_told():
    refuses(ArgumentError, lambda: gt.trace(rows(), jit_compile="yes"), "jit_compile='yes'", "True, False")
    refuses(ArgumentError, lambda: gt.trace(rows(), safe_mode=0), "safe_mode=0", "True, False")
    refuses(ArgumentError, lambda: gt.trace(rows(), signature="serve"), "signature='serve' is for SavedModels", "a Seq")


def test_a_result_larger_than_the_memory_is_refused_before_it_is_made():
    refuses(
        MemoryBudgetError,
        lambda: gradients(lambda x: tf.tile(x, [1, 10_000_000]), np.ones((1_000, 100)), at=":output"),
        "the result would take 16000.0 GB",
        "GB of memory are free",
        "fewer examples at a time",
    )


# -- models ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "model", [None, 3, [], {}, np.ones(3), object(), b"model.keras", True, tf.constant(1.0), tf.Module()], ids=label
)
def test_what_is_no_model(model):
    parts = "is not a model", "received", "a Keras model or layer, a tf.Module, a function of tensors"
    refuses(ModelTypeError, lambda: gradients(model, ROWS), *parts)
    refuses(ModelTypeError, lambda: gt.taps(model), *parts)
    refuses(ModelTypeError, lambda: gt.trace(model), *parts)


@pytest.mark.parametrize("model", [keras.Model, layers.Dense, int])
def test_a_class_is_no_model(model):
    refuses(ModelTypeError, lambda: gradients(model, ROWS), f"`{model.__name__}` is a class", f"{model.__name__}(...)")


def test_another_backend():
    with mock.patch("keras.config.backend", return_value="jax"):
        refuses(BackendError, lambda: gradients(rows(), ROWS), "the jax backend", "KERAS_BACKEND=tensorflow")


@pytest.mark.parametrize(
    ("model", "error", "parts"),
    [
        (lambda x: None, ModelTypeError, ["the model returned nothing", "return a tensor"]),
        (lambda x: {}, ModelTypeError, ["the model returned nothing"]),
        (lambda x: tf.RaggedTensor.from_tensor(x), ModelTypeError, ["returns a RaggedTensor", "x.to_tensor()"]),
        (lambda x: tf.sparse.from_dense(x), ModelTypeError, ["returns a SparseTensor"]),
        (lambda x: [1.0, 2.0], errors.OutputChoiceError, ["the model has 2 outputs"]),
        (lambda x: 3.0, errors.TargetShapeError, ["a single number for the whole batch"]),
        (lambda x: 1 / 0, ModelCallError, ["raised ZeroDivisionError", "division by zero", "inputs      (", "itself"]),
        (lambda x: x.numpy(), ModelCallError, ["AttributeError", "NumPy code in `call`: write it with TensorFlow"]),
        (lambda x: np.exp(x), ModelCallError, ["NotImplementedError", "it runs eagerly and cannot be traced"]),
        (lambda x: x if x[0, 0] > 0 else -x, ModelCallError, ["as a Python `bool`", "write it with tf.where"]),
        (lambda: 1, ModelCallError, ["0 positional arguments"]),
        (lambda x: tf.reshape(x, (3, -1)), ModelRunError, ["Input to reshape", "fed shapes", "call the model itself"]),
        (lambda x: tf.debugging.check_numerics(x / 0, "here"), ModelRunError, ["here : Tensor had"]),
    ],
)
def test_a_function_that_is_no_model_or_fails(model, error, parts):
    refuses(error, lambda: gradients(model, ROWS), *parts)


class Numpy(keras.Model):
    def __init__(self):
        super().__init__()
        self.hidden = layers.Dense(3)

    def call(self, x):
        return self.hidden(np.asarray(x))


class Raising(keras.layers.Layer):
    def call(self, x):
        if x.shape[-1] == 4:
            raise RuntimeError("only wide inputs")
        return x


def test_a_model_that_fails_in_its_python():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Keras warns that it cannot build the model
        refuses(ModelCallError, lambda: gradients(Numpy(), ROWS), "Numpy raised NotImplementedError", "(2, 4) float32")
    inner = keras.Sequential([layers.Dense(4, name="hidden"), Raising(name="picky")])
    refuses(ModelCallError, lambda: gradients(inner, ROWS), "RuntimeError", "only wide inputs")
    # What failed leaves nothing behind.
    assert np.any(gradients(rows(), ROWS).only)


def test_a_layer_that_fails_is_named():
    def once(z):
        if failing:
            raise RuntimeError("not today")
        return z

    failing = []
    model = through(once, name="moody")
    failing.append(True)
    refuses(ModelCallError, lambda: gradients(model, ROWS), "raised in   `moody`", "RuntimeError", "not today")


def test_ids_outside_of_an_embedding():
    refuses(
        ModelRunError,
        lambda: gradients(tokens(), TOKENS + 1, at="embedding"),
        "= 10 is not in [0, 10)",
        "embedding",
        "it has 10 rows, so pass ids from 0 to 9",
    )
    refuses(ModelRunError, lambda: gt.activations(tokens(), TOKENS + 1, at="mean"), "is not in [0, 10)")


def test_a_tensor_that_was_left_in_the_model():
    with tf.Graph().as_default():
        left = tf.constant([1.0])
    refuses(ModelRunError, lambda: gradients(lambda x: x * left, ROWS), "TypeError was raised", "out of scope")


def test_whatever_is_raised_while_a_model_runs_is_told():
    def patched(activations):
        raise ZeroDivisionError("not today")

    refuses(
        ModelRunError, lambda: gt.patch(rows(), ROWS, {"hidden": patched}), "ZeroDivisionError was raised", "not today"
    )


def test_an_interrupt_in_a_model_is_passed_on():
    def interrupted(x):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        gradients(interrupted, ROWS)
    assert np.any(gradients(rows(), ROWS).only)
