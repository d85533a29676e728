"""Inputs, arguments and models that are wrong, and models that fail."""

from __future__ import annotations

import collections

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import gradtap as gt
from gradtap import errors
from gradtap.errors import (
    InputDtypeError,
    InputShapeError,
    InputStructureError,
    RaggedInputError,
    StringInputError,
    SymbolicInputError,
    TargetCountError,
)
from refusals import (
    BOTH,
    IMAGES,
    ROWS,
    TOKENS,
    WIDE,
    Subclassed,
    gradients,
    heads,
    images,
    label,
    refuses,
    rows,
    subclassed,
    tokens,
)

SCORES = gt.targets.class_score(0, output="scores")


def dataset(*arrays, batch=1):
    return tf.data.Dataset.from_tensor_slices(arrays if len(arrays) > 1 else arrays[0]).batch(batch)


# -- shapes ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "parts"),
    [
        ((2, 1, 8, 8), ["`image` has shape (2, 1, 8, 8), the model takes (batch, 8, 8, 1)", "(0, 2, 3, 1)"]),
        ((8, 8, 1), ["add the batch axis: x[None]"]),
        ((8, 8), ["x[None, ..., None]"]),
        ((2, 9, 9, 1), ["resize(x, (8, 8))"]),
        ((2, 8, 8, 3), ["axis 3 holds 3 and must hold 1"]),
        ((5,), ["bring it to 4 axes"]),
        ((), ["has shape ()", "the first axis is the batch"]),
    ],
    ids=str,
)
def test_an_image_of_another_shape(shape, parts):
    refuses(InputShapeError, lambda: gradients(images(), np.zeros(shape, "float32")), *parts)
    refuses(InputShapeError, lambda: gt.activations(images(), np.zeros(shape, "float32"), at="conv1"), *parts)
    refuses(InputShapeError, lambda: gt.taps(images(), np.zeros(shape, "float32")), *parts)


def test_several_inputs_of_other_shapes():
    refuses(
        InputShapeError,
        lambda: gradients(heads(), {"left": WIDE, "right": ROWS}, target=SCORES, at="trunk"),
        "`left` has shape (2, 3), the model takes (batch, 4)",
        "also        input `right` has shape (2, 4), the model takes (batch, 3)",
        "axis 1 holds 3 and must hold 4",
    )
    refuses(
        InputShapeError,
        lambda: gradients(heads(), {"left": ROWS, "right": WIDE[:1]}, target=SCORES, at="trunk"),
        "unequal numbers of examples",
        "`left` 2, `right` 1",
    )
    refuses(InputShapeError, lambda: gradients(tf.nn.relu, 3.0), "`0` is a single number", "(batch, ...)")


# -- structure ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("inputs", "parts"),
    [
        ({"left": ROWS}, ["2 inputs", "`left` (batch, 4), `right` (batch, 3)", "missing     `right`"]),
        ({"left": ROWS, "rigth": WIDE}, ["unknown     `rigth` (nearest `right`)"]),
        ({**BOTH, "more": WIDE}, ["unknown     `more`"]),
        ({0: ROWS, "right": WIDE}, ["missing     `left`", "unknown     `0`"]),
        (ROWS, ["2 inputs, got one array", "a list in this order"]),
        ([ROWS, WIDE, WIDE], ["2 inputs, got 3 arrays"]),
        ([], ["2 inputs, got no array"]),
    ],
)
def test_inputs_that_are_not_the_two_that_the_model_takes(inputs, parts):
    refuses(InputStructureError, lambda: gradients(heads(), inputs, target=SCORES, at="trunk"), *parts)


@pytest.mark.parametrize(
    ("inputs", "parts"),
    [
        ([IMAGES[0], IMAGES[1]], ["1 input, got 2 arrays", "`image` (batch, 8, 8, 1)", "np.stack(images)"]),
        ((IMAGES, np.array([0, 1])), ["1 input, got 2 arrays", "without labels"]),
        ({"picture": IMAGES}, ["missing     `image`", "unknown     `picture`", "or one array"]),
        ({}, ["a dict with the keys []"]),
        ([], ["got no array"]),
    ],
)
def test_inputs_that_are_not_the_one_that_the_model_takes(inputs, parts):
    refuses(InputStructureError, lambda: gradients(images(), inputs), *parts)


def test_nothing_is_no_input():
    for nothing in ([], {}, (), [[]]):
        refuses(InputStructureError, lambda x=nothing: gradients(subclassed(), x), "holds no array")
    refuses(InputStructureError, lambda: gradients(subclassed(), {0: ROWS, "b": ROWS}), "have no order", "a name")
    refuses(InputStructureError, lambda: gt.taps(Subclassed()), "does not say what inputs it takes", "a batch of data")


def test_inputs_that_are_taken_as_the_model_itself_takes_them():
    expected = gradients(heads(), BOTH, target=SCORES, at="trunk").only
    pair = collections.namedtuple("Pair", "left right")(ROWS, WIDE)
    for same in ([ROWS, WIDE], (ROWS, WIDE), pair, {"right": WIDE, "left": ROWS}):
        np.testing.assert_array_equal(gradients(heads(), same, target=SCORES, at="trunk").only, expected)


# -- datasets ----------------------------------------------------------------------------------------------------------


def test_datasets_that_give_no_batches():
    refuses(InputStructureError, lambda: gradients(images(), dataset(IMAGES[:0])), "the dataset is empty")
    refuses(InputStructureError, lambda: gradients(images(), dataset(IMAGES).repeat()), "has no end", "take(100)")
    broken = dataset(IMAGES).map(
        lambda x: tf.ensure_shape(tf.py_function(lambda a: a / 0 + 1 // 0, [x], "float32"), x.shape)
    )
    refuses(InputStructureError, lambda: gradients(images(), broken), "failed to make its next batch", "ZeroDivision")
    unbatched = tf.data.Dataset.from_tensor_slices(IMAGES)
    refuses(InputShapeError, lambda: gradients(images(), unbatched), "dataset.batch(32)")


def test_a_dataset_takes_no_target_for_each_example():
    for target in ([0, 1], [0], np.eye(4)[:2], gt.targets.loss("mse", np.zeros((2, 4)))):
        refuses(
            TargetCountError,
            lambda t=target: gradients(images(), dataset(IMAGES, batch=2), target=t),
            "with a dataset a target holds for every example",
            "a call for each batch",
        )
    for target in (0, "predicted", np.array([True, False, False, False])):
        assert gradients(images(), dataset(IMAGES, [0, 1]), target=target).only.shape == IMAGES.shape


def test_batches_whose_results_do_not_fit_together():
    sizes = tf.data.Dataset.from_generator(
        lambda: iter([np.ones((1, 5), "float32"), np.ones((1, 7), "float32")]),
        output_signature=tf.TensorSpec((None, None), tf.float32),
    )
    call = lambda: gradients(lambda x: tf.nn.relu(x), sizes)  # noqa: E731
    refuses(InputShapeError, call, "the batches differ in shape", "(5,)", "(7,)", "a call for each batch")


# -- types -------------------------------------------------------------------------------------------------------------


class Frame:
    """An array of another library: it has columns, a length, and says how NumPy reads it."""

    def __init__(self, values):
        self.values, self.columns = values, list("abcd")

    def __len__(self):
        return len(self.values)

    def __array__(self, dtype=None, copy=None):
        return self.values


class Broken:
    def __array__(self, dtype=None, copy=None):
        raise RuntimeError("not today")

    def __repr__(self):
        raise RuntimeError("not even that")


class Loader:
    """Any sequence can be made an array by NumPy; a data set would be read as a whole."""

    def __len__(self):
        return 1_000_000

    def __getitem__(self, item):
        raise AssertionError("nobody asked for the data")


@pytest.mark.parametrize(
    ("inputs", "error", "parts"),
    [
        (None, InputDtypeError, ["input `0` is None", "an array of numbers"]),
        ([None], InputDtypeError, ["input `0` is None"]),
        ([[1.0, None, 2.0, 3.0]], InputDtypeError, ["no array of numbers", "ndarray (1, 4) object"]),
        (np.array([None, object()]), InputDtypeError, ["ndarray (2,) object", 'x.astype("float32")']),
        (object(), InputDtypeError, ["input `0` is no array of numbers", "<object object"]),
        (Loader(), InputDtypeError, ["is no array of numbers", "Loader"]),
        (Broken(), InputDtypeError, ["is no array of numbers", "it said     RuntimeError: not today"]),
        ((x for x in [ROWS]), InputDtypeError, ["generator"]),
        ({1.0, 2.0}, InputDtypeError, ["{1.0, 2.0}"]),
        (int, InputDtypeError, ["<class 'int'>"]),
        (np.array(["2020-01-01"], "datetime64[D]"), InputDtypeError, ["datetime64"]),
        (np.ones((2, 4), np.longdouble), InputDtypeError, ["is no array of numbers"]),
        ([[2**70, 1, 2, 3]], InputDtypeError, ["is no array of numbers"]),
        (np.array(["a", "b"]), StringInputError, ["input `0` holds text", "ndarray (2,) text", "token ids"]),
        (["a", "b"], StringInputError, ["holds text"]),
        ("a photo.jpg", StringInputError, ["'a photo.jpg'", "keras.utils.load_img(path)"]),
        (b"a", StringInputError, ["holds text"]),
        ([[1.0, "a", 2.0, 3.0]], StringInputError, ["holds text"]),
        (tf.constant(["a"]), StringInputError, ["EagerTensor (1,) string"]),
        (np.array([["a", 1]], object), StringInputError, ["holds text"]),
        (Frame(np.array([["a"]], object)), StringInputError, ["holds text"]),
        ([[1.0, 2.0], [3.0]], RaggedInputError, ["differ in length", "[[1.0, 2.0], [3.0]]", "pad_sequences"]),
        ([[1.0, 2.0], 3.0], RaggedInputError, ["differ in length"]),
        (tf.ragged.constant([[1.0, 2.0], [3.0]]), RaggedInputError, ["is a RaggedTensor", "x.to_tensor()"]),
        (tf.sparse.from_dense(ROWS), RaggedInputError, ["is a SparseTensor", "tf.sparse.to_dense(x)"]),
        (keras.Input((4,)), SymbolicInputError, ["is a symbolic tensor", "KerasTensor (None, 4)", "a batch of data"]),
    ],
    ids=label,
)
def test_inputs_of_a_kind_that_cannot_be_fed(inputs, error, parts):
    refuses(error, lambda: gradients(subclassed(), inputs), *parts)


def test_sparse_matrices_of_scipy():
    sparse = pytest.importorskip("scipy.sparse")
    refuses(RaggedInputError, lambda: gradients(subclassed(), sparse.csr_matrix(ROWS)), "x.toarray()")


def test_inputs_are_named():
    two = {"left": np.array(["a", "b"]), "right": None}
    with pytest.raises(errors.SeveralErrors, match=r"(?s)input `left` holds text.*input `right` is None"):
        gradients(heads(), two, target=SCORES, at="trunk")
    text = np.array(["a", "b"])
    refuses(
        StringInputError,
        lambda: gradients(heads(), {"left": text, "right": text}, target=SCORES, at="trunk"),
        "`left`",
        "also        input `right` holds text",
    )


def test_a_tensor_of_a_graph_that_is_not_being_built():
    with tf.Graph().as_default():
        placeholder = tf.compat.v1.placeholder(tf.float32, (None, 4))
    refuses(SymbolicInputError, lambda: gradients(rows(), placeholder), "SymbolicTensor (None, 4) float32")

    @tf.function
    def inside(x):
        return gradients(rows(), x).only

    np.testing.assert_array_equal(inside(tf.constant(ROWS)), gradients(rows(), ROWS).only)


@pytest.mark.parametrize(
    "same",
    [
        Frame(ROWS),
        ROWS.astype(object).astype("float64"),
        ROWS.tolist(),
        [[np.float32(v) for v in row] for row in ROWS],
        memoryview(ROWS),
        tf.Variable(ROWS),
        ROWS.astype(">f4"),
    ],
    ids=label,
)
def test_arrays_of_every_library_are_welcome(same):
    np.testing.assert_allclose(gradients(rows(), same).only, gradients(rows(), ROWS).only, rtol=1e-6)


def test_conversions_never_change_values_without_a_word():
    parts = "with values that int32, the type the model takes, cannot hold", "whole numbers"
    for wrong in (TOKENS + 0.5, np.full((2, 3), np.nan), np.full((2, 3), 2**40)):
        refuses(InputDtypeError, lambda x=wrong: gradients(tokens(), x, at="embedding"), "input `tokens`", *parts)
    for right in (TOKENS.astype("float64"), TOKENS.astype("uint8"), TOKENS.tolist()):
        assert gradients(tokens(), right, at="embedding").only.shape == (2, 3, 4)
    whole = keras.Sequential(
        [keras.Input((8, 8, 1), dtype="uint8", name="image"), layers.Rescaling(1 / 255), *images().layers]
    )
    refuses(InputDtypeError, lambda: gradients(whole, IMAGES, at="conv1"), "uint8", "from 0.0 to 1.0", "scaled to 0..1")
    refuses(InputDtypeError, lambda: gradients(images(), IMAGES + 1j), "the imaginary part would be lost", "np.stack")
    assert gradients(images(), (255 * IMAGES).astype("uint8"), checks=False).only.dtype == "float32"


def test_a_model_of_text_takes_text():
    words = layers.TextVectorization(output_sequence_length=3, vocabulary=["good", "bad", "film"])
    text = keras.Input((1,), dtype="string", name="text")
    scores = layers.Dense(2)(layers.Flatten()(layers.Embedding(6, 3, name="embedding")(words(text))))
    model = keras.Model(text, scores)
    assert np.any(gradients(model, np.array([["good film"], ["bad"]]), at="embedding").only)
    refuses(InputDtypeError, lambda: gradients(model, np.ones((2, 1)), at="embedding"), "the model takes text")
