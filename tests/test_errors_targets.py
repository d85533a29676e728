"""Targets that are missing, out of range, of the wrong shape, count or kind."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

import gradtap as gt
from gradtap.errors import (
    ArgumentError,
    ClassRangeError,
    MissingTargetError,
    ModelRunError,
    OutputChoiceError,
    TargetCountError,
    TargetShapeError,
    TargetTypeError,
)
from gradtap.targets import class_score, loss
from refusals import BOTH, IMAGES, ROWS, STEPS, gradients, heads, images, label, number, recurrent, refuses, rows

# -- no target ---------------------------------------------------------------------------------------------------------


def test_a_classifier_needs_a_target_and_the_choices_are_named():
    refuses(
        MissingTargetError,
        lambda: gradients(images(), IMAGES, target=None),
        "more than one number per example",
        "the output (batch, 4)",
        "target=k, the score of class k",
        'target="predicted"',
        "logits=True",
        "gt.targets.loss(fn, y_true)",
        "outputs -> (batch,)",
    )
    refuses(
        MissingTargetError,
        lambda: gradients(heads(), BOTH, target=None, at="trunk"),
        "output `aux` (batch, 2), output `scores` (batch, 3)",
        'class_score(k, output="aux")',
        'class_score("predicted", output="aux")',
    )
    refuses(MissingTargetError, lambda: gradients(recurrent(), STEPS, target=None), "target=(position, k)")
    assert gradients(number(), ROWS, target=None).target.shape == (2,)


# -- classes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "k", [4, -5, [0, 4], [-5, 0], np.array([4, 0]), 2**40, [0, 2**70], np.uint64(2**64 - 1)], ids=str
)
def test_a_class_out_of_range_says_the_range(k):
    refuses(
        ClassRangeError,
        lambda: gradients(images(), IMAGES, target=k),
        "is out of range: the output (batch, 4) has the classes 0 to 3",
        "asked  ",
        "from 0 to 3; -1 is the last",
    )


def test_a_position_out_of_range_says_the_axis():
    refuses(ClassRangeError, lambda: gradients(recurrent(), STEPS, target=(9, 1)), "position 9", "0 to 4 on axis 1")
    refuses(ClassRangeError, lambda: gradients(recurrent(), STEPS, target=(0, -7)), "class -7", "0 to 5 on axis 2")
    refuses(ClassRangeError, lambda: gradients(number(), ROWS, target=1), "has only class 0", "leave out the target")
    named = class_score(3, output="scores")
    refuses(ClassRangeError, lambda: gradients(heads(), BOTH, target=named), "output `scores` (batch, 3)", "0 to 2")


@pytest.mark.parametrize("k", [[0], [0, 1, 2], np.array([0, 1, 2]), tf.constant([0, 1, 2]), [], range(3)], ids=label)
def test_as_many_classes_as_examples(k):
    said = f"{len(k)} target{'s' * (len(k) != 1)} for 2 examples"
    refuses(TargetCountError, lambda: gradients(images(), IMAGES, target=k), said, "received", "for each example")


def test_no_targets_are_right_for_no_examples():
    assert gradients(images(), IMAGES[:0], target=[], at="conv1").only.shape == (0, 6, 6, 3)
    refuses(TargetCountError, lambda: gradients(images(), IMAGES[:0], target=[1]), "1 target for 0 examples")


def test_a_tuple_for_a_row_of_classes_has_two_readings():
    refuses(
        TargetTypeError,
        lambda: gradients(images(), IMAGES, target=(3, 1)),
        "the tuple (3, 1) has two readings for the output (batch, 4)",
        "either      one class for each example",
        "or          a position and a class",
        "target=[3, 1] for one class for each example",
        "target=1 for class 1 of every example",
    )
    refuses(TargetTypeError, lambda: gradients(images(), IMAGES, target=(3,)), "two readings", "target=3 for class 3")
    for k in ((), [(3, 1), (0, 1)]):
        refuses(TargetTypeError, lambda k=k: gradients(images(), IMAGES, target=k), "tuples are for outputs of higher")


@pytest.mark.parametrize(
    ("k", "parts"),
    [
        (1.0, ["a float is not a target", "received    1.0", "outputs -> (batch,)"]),
        (np.float32(1), ["np.float32(1.0) is not a class", "give an int"]),
        ([0.0, 1.0], ["is not a class or a list of classes", "a list that holds a float"]),
        (np.array([0.0, 1.0]), ["ndarray (2,) float64 is not a class"]),
        (float("nan"), ["a float is not a target"]),
        (True, ["True is not a class", "a mask: np.array(mask)"]),
        ([True, False], ["a list that holds a bool", "a mask"]),
        ("cat", ["'cat' is not a target", '"predicted"', "as an int"]),
        ("Predicted", ["'Predicted' is not a target", '"predicted"']),
        (["predicted", "predicted"], ["a list that holds a str"]),
        (b"predicted", ["a bytes is not a target"]),
        ({"scores": 1}, ["a dict is not a target"]),
        ({0, 1}, ["a set is not a target"]),
        ([0, None], ["a list that holds None"]),
        ([[0], [1]], ["a list that holds a list", "one-hot rows: np.argmax"]),
        ([[0, 1, 0, 0], [1, 0, 0, 0]], ["one-hot rows: np.argmax"]),
        ([[0], [1, 2]], ["is not a class or a list of classes"]),
        (object(), ["an object"]),
        (slice(0, 2), ["slice(0, 2, None) is not a class"]),
        (tf.constant("predicted"), ["is not a class"]),
        (np.array([[0], [1]]), ["two readings", "k[:, 0]", "mask.astype(bool)"]),
        (np.array([True, False]), ["a mask of shape (2,) does not fit the output (batch, 4)", "one example's output"]),
        (np.ones((2, 3)), ["a mask of shape (2, 3) does not fit"]),
        (np.array([["a", "b"]]), ["a mask of", "selects nothing"]),
        (keras.losses.MeanSquaredError(), ["a loss needs labels", "gt.targets.loss(fn, y_true)"]),
        (keras.losses.MeanSquaredError, ["the class `MeanSquaredError` is not a target", "gt.targets.loss"]),
        (keras.losses.mean_squared_error, ["a loss needs labels"]),
        (int, ["the class `int` is not a target"]),
    ],
    ids=label,
)
def test_a_target_of_a_kind_that_is_not_understood(k, parts):
    refuses(TargetTypeError, lambda: gradients(images(), IMAGES, target=k), *parts)


def test_an_object_that_fails_when_it_is_read():
    class Broken:
        def __array__(self, dtype=None, copy=None):
            raise RuntimeError("not today")

        def __repr__(self):
            raise RuntimeError("not even that")

    refuses(TargetTypeError, lambda: gradients(images(), IMAGES, target=Broken()), "a Broken", "not today")


@pytest.mark.parametrize("k", [1, [1, 2], (0, 1, 2), [(0, 1, 2), (0, 1, 2)], np.ones((6, 5))], ids=label)
def test_an_output_of_higher_rank_needs_a_position(k):
    parts = ["the output (batch, 5, 6)"] + ([] if isinstance(k, np.ndarray) else ["(position_1, k)", "a mask"])
    refuses(TargetTypeError, lambda: gradients(recurrent(), STEPS, target=k), *parts)


def test_tuples_of_one_form_and_as_many_as_examples():
    refuses(TargetTypeError, lambda: gradients(recurrent(), STEPS, target=[(0, 1), 2]), "differ in length")
    refuses(
        TargetCountError, lambda: gradients(recurrent(), STEPS, target=[(0, 1)]), "1 target for", "a tuple for each"
    )
    refuses(TargetCountError, lambda: gradients(recurrent(), STEPS, target=np.ones((3, 5, 6))), "3 masks for 2")
    refuses(TargetTypeError, lambda: gradients(recurrent(), STEPS, target="predicted"), "one row of class", "a mask")


@pytest.mark.parametrize("dtype", [bool, int, "float32", "float64"])
def test_a_mask_of_any_type_of_numbers_selects(dtype):
    mask = np.array([[0, 1, 0, 0], [0, 0, 1, 0]]).astype(dtype)
    by_mask = gradients(images(), IMAGES, target=mask).only
    np.testing.assert_allclose(by_mask, gradients(images(), IMAGES, target=[1, 2]).only, rtol=1e-6, atol=1e-9)


def test_class_scores_of_other_libraries_arrays():
    by_list = gradients(images(), IMAGES, target=[1, 2]).only
    for k in (tf.Variable([1, 2]), keras.Variable(np.array([1, 2]), dtype="int32"), [tf.constant(1), np.int8(2)]):
        np.testing.assert_array_equal(gradients(images(), IMAGES, target=k).only, by_list)


# -- outputs -----------------------------------------------------------------------------------------------------------


def test_which_output():
    both = "`aux` (batch, 2), `scores` (batch, 3)"
    refuses(OutputChoiceError, lambda: gradients(heads(), BOTH, target=0), "2 outputs", both, 'output="aux"')
    refuses(OutputChoiceError, lambda: gradients(heads(), BOTH, target="predicted"), "2 outputs", both)
    for output in ("score", 2, -3, 1.0, ["aux"]):
        refuses(
            OutputChoiceError, lambda o=output: gradients(heads(), BOTH, target=class_score(0, o)), f"`{output}`", both
        )
    refuses(OutputChoiceError, lambda: gradients(rows(), ROWS, target=class_score(0, "aux")), "no output `aux`")
    refuses(ArgumentError, lambda: class_score(0, output=True), "output=True", "the name or the position")
    refuses(ArgumentError, lambda: class_score(0, logits="yes"), "logits='yes'", "True or False")


@pytest.mark.parametrize(
    ("model", "error", "parts"),
    [
        (lambda x: tf.reduce_sum(x), TargetShapeError, ["a single number for the whole batch", "1/batch"]),
        (lambda x: tf.argmax(x, 1), TargetTypeError, ["the output (", "is of type int64, which has no gradient"]),
        (lambda x: x > 0, TargetTypeError, ["is of type bool"]),
        (lambda x: tf.strings.as_string(x), TargetTypeError, ["is of type string"]),
        (lambda x: tf.cast(x, tf.complex64), TargetTypeError, ["is of type complex64", "tf.math.real or tf.abs"]),
        (
            lambda x: tf.numpy_function(lambda a: a, [x], tf.float32),
            TargetTypeError,
            ["how many axes", "tf.ensure_shape"],
        ),
    ],
)
@pytest.mark.parametrize("target", [None, 0, "predicted"])
def test_an_output_that_cannot_be_differentiated(model, error, parts, target):
    refuses(error, lambda: gradients(model, ROWS, target=target), *parts)


def test_one_number_per_example_has_no_classes():
    def model(x):
        return tf.reduce_sum(x, 1)

    refuses(TargetTypeError, lambda: gradients(model, ROWS, target=0), "one number per example", "leave out the target")
    refuses(TargetTypeError, lambda: gradients(model, ROWS, target="predicted"), "leave out the target")


# -- callables ---------------------------------------------------------------------------------------------------------


def mean_of_all(scores):
    return tf.reduce_mean(scores)


@pytest.mark.parametrize(
    ("function", "error", "parts"),
    [
        (mean_of_all, TargetShapeError, ["`mean_of_all` gives ()", "1/batch", "leave out the reduction"]),
        (lambda y: y[:, :1], TargetShapeError, ["gives (", ", 1), not one number per example (batch,)", "[:, 0]"]),
        (lambda y: y, TargetShapeError, [", 4), not one number per example", "all axes but the first"]),
        (lambda y: tf.reshape(y, [-1]), TargetShapeError, ["gives 8 numbers for 2 examples"]),
        (lambda y: y[0], TargetShapeError, ["gives 4 numbers for 2 examples"]),
        (lambda y: 3.0, TargetShapeError, ["gives ()"]),
        (lambda y: None, TargetShapeError, ["gives None", "return one tensor"]),
        (lambda y: [y[:, 0]], TargetShapeError, ["gives a list"]),
        (lambda y: tf.RaggedTensor.from_tensor(y), TargetShapeError, ["gives a RaggedTensor"]),
        (lambda y: tf.sparse.from_dense(y), TargetShapeError, ["gives a SparseTensor"]),
        (lambda y: tf.argmax(y, 1), TargetTypeError, ["is of type int64, which has no gradient", "an argmax"]),
        (lambda y: y[:, 0] > 0, TargetTypeError, ["is of type bool"]),
        (lambda y: "high", TargetTypeError, ["is of type string"]),
        (lambda y: tf.cast(y[:, 0], tf.complex64), TargetTypeError, ["complex64", "tf.math.real or tf.abs"]),
        (lambda y: 1 / 0, TargetTypeError, ["raised ZeroDivisionError", "division by zero"]),
        (lambda y: y["scores"], TargetTypeError, ["raised TypeError", "outputs", "as the model returns them"]),
        (lambda y: np.asarray(y)[:, 0], TargetTypeError, ["raised NotImplementedError", "NumPy code and `if` cannot"]),
        (lambda y: y.numpy()[:, 0], TargetTypeError, ["raised AttributeError", "keras.ops"]),
        (lambda: 1, TargetTypeError, ["raised TypeError", "0 positional arguments"]),
        (lambda y: y[:, 7], TargetTypeError, ["slice index 7", "out of bounds"]),
    ],
)
def test_a_callable_that_gives_no_number_per_example(function, error, parts):
    refuses(error, lambda: gradients(images(), IMAGES, target=function), *parts)


def test_a_target_that_fails_while_it_runs():
    refuses(
        ModelRunError,
        lambda: gradients(images(), IMAGES, target=lambda y: y[:, 0] * tf.constant([1.0, 2.0, 3.0])),
        "Incompatible shapes",
        "`gradtap/",
        "look at the target",
    )


def test_an_interrupt_is_passed_on():
    def interrupted(scores):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        gradients(images(), IMAGES, target=interrupted)


def test_inside_a_function_classes_are_no_values():
    rows()  # a tf.function that makes variables is another matter

    @tf.function(autograph=False)  # AutoGraph would wrap the error in one of its own
    def outer(k):
        return gradients(rows(), ROWS, target=k).only

    refuses(TargetTypeError, lambda: outer(tf.constant([0, 1])), "without values", "tf.gather(y, k, batch_dims=1)")
    refuses(TargetTypeError, lambda: outer(tf.constant(1)), "without values", "a callable, lambda y: y[:, k]")


@pytest.mark.parametrize(
    ("target", "k"),
    [(lambda k: lambda y: y[:, k], 1), (lambda k: lambda y: tf.gather(y, k, batch_dims=1), [1, 0])],
)
def test_what_is_advised_inside_a_function_works(target, k):
    expected = gradients(rows(), ROWS, target=k).only

    @tf.function
    def outer(k):
        return gradients(rows(), ROWS, target=target(k)).only

    np.testing.assert_allclose(outer(tf.constant(k)), expected, rtol=1e-6)


# -- losses ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fn", "labels", "error", "parts"),
    [
        ("msee", [0, 1], TargetTypeError, ["loss('msee', ...) cannot be read: Keras has no such loss"]),
        (None, [0, 1], TargetTypeError, ["None is not a loss", "by name, function or object"]),
        (3, [0, 1], TargetTypeError, ["3 is not a loss"]),
        (keras.losses.MeanSquaredError, [0, 1], TargetTypeError, ["is not a loss"]),
        ("mse", None, TargetTypeError, ["the labels are no array", "labels      None"]),
        ("mse", [[0], [1, 2]], TargetTypeError, ["the labels are no array"]),
        ("sparse_categorical_crossentropy", ["a", "b"], TargetTypeError, ["are text", "classes as ints"]),
        ("sparse_categorical_crossentropy", [0, 1, 2], TargetCountError, ["labels of shape (3,) for 2 examples"]),
        ("sparse_categorical_crossentropy", 1, TargetCountError, ["labels of shape () for 2 examples"]),
        ("mse", np.zeros((2, 3)), TargetTypeError, ["raised ValueError", "labels      (2, 3) float64"]),
        ("categorical_crossentropy", [0, 1], TargetTypeError, ["lack the last axis", "keras.ops.one_hot(labels, 4)"]),
        ("mse", [0.0, 1.0], TargetTypeError, ["compares entry by entry", "the output (batch, 4)"]),
        ("sparse_categorical_crossentropy", np.eye(4)[:2], TargetTypeError, ["ints for a sparse one"]),
        ("sparse_categorical_crossentropy", [0, 9], ModelRunError, ["label value of 9", "look at the target"]),
        (lambda y_true, y: (y_true - y) ** 2, np.zeros((2, 4), int), TargetTypeError, ["give the labels as floats"]),
        (lambda y_true, y: 1 / 0, [0, 1], TargetTypeError, ["loss(<lambda>, ...) raised ZeroDivisionError"]),
        (lambda y_true, y: tf.reduce_mean(y), [0, 1], TargetShapeError, ["`loss(<lambda>)` gives ()", "1/batch"]),
    ],
    ids=label,
)
def test_a_loss_that_does_not_fit(fn, labels, error, parts):
    refuses(error, lambda: gradients(images(), IMAGES, target=loss(fn, labels)), *parts)


def test_a_loss_of_one_of_several_outputs():
    refuses(OutputChoiceError, lambda: gradients(heads(), BOTH, target=loss("mse", np.zeros((2, 3)))), "2 outputs")


# -- units and channels ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "error", "parts"),
    [
        (lambda: gt.targets.neuron("conv1", (0, 0, 9)), ClassRangeError, ["unit 9 is out of range", "0 to 2"]),
        (lambda: gt.targets.neuron("conv1", 0), TargetTypeError, ["names 1 axes", "`conv1`"]),
        (lambda: gt.targets.neuron("conv1", 1.5), TargetTypeError, ["a float is no index of a unit"]),
        (lambda: gt.targets.neuron("conv1", ("a", 0, 0)), TargetTypeError, ["a str is no index of a unit"]),
        (lambda: gt.targets.channel("conv1", 3), ClassRangeError, ["channel 3 is out of range", "0 to 2"]),
        (lambda: gt.targets.channel("conv1", "red"), TargetTypeError, ["a str is no index of a channel"]),
        (lambda: gt.targets.channel("conv1", 0, reduce="median"), ArgumentError, ["'mean', 'sum', 'max'"]),
        (lambda: gt.targets.contrast(0, 9), ClassRangeError, ["class 9"]),
        (lambda: gt.targets.contrast("cat", 1), TargetTypeError, ["'cat' is not a target"]),
    ],
)
def test_targets_inside_of_the_model(make, error, parts):
    refuses(error, lambda: gradients(images(), IMAGES, target=make()), *parts)
