"""Programs are cut out of a traced graph: with the constants, the order and the shapes that the graph had."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

import gradtap as gt
from reference.differences import assert_same_numbers
from reference.models import draws

TABLE = tf.constant(draws(40, 4, seed=1))  # too large to be written into a graph


def test_a_large_constant_is_read_from_where_it_is():
    def model(x):
        return tf.reduce_sum(tf.tanh(x @ tf.transpose(TABLE)), 1)

    x = draws(3, 4)
    g = gt.gradients(model, x, at=":input")
    assert_same_numbers(g.outputs, model(x), 1e-14)
    assert_same_numbers(g.only, (1 - np.tanh(x @ TABLE.numpy().T) ** 2) @ TABLE.numpy(), 1e-13)


def test_what_has_to_run_before_runs_before():
    def model(x):
        with tf.control_dependencies([tf.debugging.assert_positive(x, "all have to be positive")]):
            return tf.reduce_sum(tf.math.log(tf.identity(x)), 1)

    x = np.abs(draws(3, 4)) + 0.1
    assert_same_numbers(gt.gradients(model, x, at=":input").only, 1 / x, 1e-14)
    with pytest.raises(gt.errors.ModelRunError, match="positive"):
        gt.gradients(model, -x, at=":input")


def test_a_shape_that_only_python_knows():
    def model(x):
        y = tf.reshape(x, tf.cast(tf.shape(x) + tf.cast(0.0 * tf.reduce_sum(x), tf.int32), tf.int32))
        y.set_shape((None, 4))
        return y

    @tf.function(input_signature=[tf.TensorSpec((None, 4), tf.float64)])
    def within(x):
        outputs = gt.activations(model, x, at=":output").only
        assert tuple(outputs.shape) == (None, 4)
        return outputs

    x = draws(3, 4)
    np.testing.assert_array_equal(within(x), x)
