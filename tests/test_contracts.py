"""What every method keeps, whatever it computes: one table of methods, and each passes all of it."""

from __future__ import annotations

import gc
import weakref

import keras
import numpy as np
import pytest
import tensorflow as tf

import contracts
import gradtap as gt
from contracts import METHODS, RUNS, beside, dropped, form, images, maze, plain, subclassed, tokens
from gradtap import errors
from gradtap.graph import surgery
from refusals import refuses
from states import assert_same, everything

CONV = ["conv", "tap"]
every_method = pytest.mark.parametrize("method", METHODS, ids=lambda method: method.label)


def close(actual, expected, tolerance=1e-12):
    """Equal to a share of the largest number, which must be one to speak of."""
    actual, expected = np.asarray(actual, np.float64), np.asarray(expected, np.float64)
    assert actual.shape == expected.shape
    assert np.isfinite(actual).all()
    largest = np.max(np.abs(expected))
    assert largest > 1e-5, f"nothing is compared: the numbers are at most {largest:.1e}"
    assert np.max(np.abs(actual - expected)) <= tolerance * largest


def test_every_method_is_in_the_table():
    assert {method.name for method in METHODS} == set(gt.attribution.__all__) - contracts.NO_METHODS


@every_method
@pytest.mark.parametrize("dtype", ["float64", "float32", "mixed_float16"])
def test_shapes_and_dtypes(method, dtype):
    x = images(dtype="float64" if dtype == "float64" else "float32")
    result = method(plain(dtype), x, at=CONV)
    activations = gt.activations(plain(dtype), x, at=CONV)
    assert list(result) == CONV
    # Noise is drawn in float32 or in float64, and the draws of a seed differ.
    other = "float32" if method.draws == "noise" and dtype != "float64" else "float64"
    expected = method(plain(other), images(dtype=other), at=CONV)
    for address, value in result.items():
        assert isinstance(value, tf.Tensor)
        assert value.shape == method.shape(activations[address].shape, x.shape)
        assert value.dtype == (x.dtype if method.gives == "input" else activations[address].dtype)
        close(value, expected[address], {"float64": 1e-12, "float32": 2e-5, "mixed_float16": 3e-2}[dtype])


@every_method
def test_inputs_in_a_dict_and_in_a_list(method):
    x, side = images(), np.zeros((3, 2))
    expected = method(plain(), x, at=["tap", ":input"])
    for kind, given in (("dict", {"side": side, "image": x}), ("list", [x, side])):
        result = method(beside(kind), given, at="tap")
        close(result["tap"], expected["tap"])
        if method.gives == "activations":
            both = method(beside(kind), given, at=":input")
            first, second = both
            close(both[first], expected[":input"])
            assert both[second].shape == (3, 2)


@every_method
def test_empty_batches_rows_and_parts_of_a_batch(method):
    model, classes = plain(), [0, 1, 2, 1, 0]
    whole = method(model, images(5), target=classes, at=CONV)
    empty = method(model, images(0), target=1, at=CONV)
    alone = method(model, images(5)[3:4], target=classes[3:4], at=CONV)
    parts = [method(model, images(5), target=classes, at=CONV, batch_size=size) for size in (1, 2, 7)]
    for address in CONV:
        assert empty[address].shape == (0, *whole[address].shape[1:])
        assert empty[address].dtype == whole[address].dtype
        close(alone[address], whole[address][3:4])
        for part in parts:
            close(part[address], whole[address])


@every_method
def test_any_batch_size_in_float32(method):
    x = images(5, "float32")
    whole = method(plain("float32"), x, target="predicted", at=CONV)
    parts = method(plain("float32"), x, target="predicted", at=CONV, batch_size=2)
    for address in CONV:
        close(parts[address], whole[address], 1e-6)


@every_method
@pytest.mark.parametrize("name", ["subclassed", "nested", "loaded"])
def test_other_forms_of_the_same_model(method, name):
    close(method(form(name), images(), at="tap")["tap"], method(plain(), images(), at=CONV)["tap"])


@every_method
def test_several_taps_at_once_by_name_class_and_layer(method):
    model, x = plain(), images()
    several = method(model, x, at=[*CONV, ":input"])
    assert list(several) == [":input", *CONV]
    for address in ("tap", ":input"):
        alone = method(model, x, at=address)
        close(several[address], alone.only)
        np.testing.assert_array_equal(alone[address], alone.only)
    by_class = method(model, x, at=keras.layers.Conv2D)
    layer = model.get_layer("tap")
    by_layer = method(model, x, at=layer)
    assert list(by_class) == CONV
    for found in (by_class[layer], by_class["tap"], by_layer[layer]):
        close(found, several["tap"])


@every_method
def test_the_same_numbers_by_seed(method):
    model, x = plain(), images()
    one, again = (method(model, x, at="tap", seed=5).only for _ in range(2))
    np.testing.assert_array_equal(one, again)
    other = method(model, x, at="tap", seed=6).only
    difference = np.max(np.abs(one - other))
    if method.draws:
        assert difference > 1e-4 * np.max(np.abs(one))
        unseeded = [method(model, x, at="tap", seed=None).only for _ in range(2)]
        assert np.max(np.abs(unseeded[0] - unseeded[1])) > 1e-4 * np.max(np.abs(one))
    else:
        assert difference == 0


@every_method
def test_dropout_by_seed(method):
    ask = {"at": "tap", "training": True}
    if not method.in_training:
        refuses(errors.ArgumentError, lambda: method(dropped(), images(), **ask), "training=True")
        return
    one, again, other = (method(dropped(), images(), **ask, seed=seed).only for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, again)
    assert np.max(np.abs(one - other)) > 1e-3 * np.max(np.abs(one))


@every_method
def test_errors(method):
    model, x = plain(), images()
    refuses(errors.UnknownTapError, lambda: method(model, x, at="cnov"), "cnov", "conv")
    refuses(errors.ClassRangeError, lambda: method(model, x, target=3, at="tap"), "3")
    refuses(errors.MissingTargetError, lambda: method(model, x, target=None, at="tap"))
    refuses(errors.InputShapeError, lambda: method(model, x[..., :1], at="tap"), "(3, 5, 5, 1)")
    refuses(errors.TargetCountError, lambda: method(model, x, target=[0, 1], at="tap"))
    refuses(errors.ArgumentError, lambda: method(model, x, at="tap", batch_size=0), "batch_size=0")
    refuses(errors.ArgumentError, lambda: method(model, x, at="tap", unconnected="none"), "unconnected")
    refuses(errors.ModelTypeError, lambda: method(3, x, at="tap"))
    ids = np.array([[1, 2, 3], [4, 5, 6]])
    refuses(errors.IntegerTapError, lambda: method(tokens(), ids, at=":input"), "embedding")


@every_method
def test_neither_python_nor_graph_for_another_class(method):
    model, x = form("subclassed"), images()
    method(model, x, target=0, at="tap")
    graph = gt.trace(model).graphs.any_graph().graph
    RUNS.clear()
    ops = surgery.op_count(graph)
    expected = method(plain(), x, target=2, at=CONV)
    close(method(model, x, target=2, at="tap").only, expected["tap"])
    close(method(model, x, target=[2, 2, 2], at="tap").only, expected["tap"])
    assert surgery.op_count(graph) == ops
    close(method(model, x, target=2, at="conv").only, expected["conv"])
    assert not RUNS


@every_method
def test_the_model_is_as_it_was(method):
    model, x = subclassed(), images()
    before = everything(model)

    def interrupted(outputs=None):
        raise KeyboardInterrupt

    model.on_call = interrupted
    found = everything(model)
    with pytest.raises(KeyboardInterrupt):
        method(model, x, at="tap")
    assert_same(found, everything(model))
    model.on_call = before[0][model.name, "on_call"]
    with pytest.raises(KeyboardInterrupt):
        method(model, x, target=interrupted, at="tap")
    assert_same(before, everything(model))
    with pytest.raises(gt.GradtapError):
        method(model, x, at="cnov")
    assert_same(before, everything(model))
    result = method(model, x, at="tap")
    close(result.only, method(plain(), x, at=CONV)["tap"])
    assert_same(before, everything(model))
    gone = [weakref.ref(model), weakref.ref(model.tap), weakref.ref(model.tap.kernel)]
    del model, before, found
    gc.collect()
    assert [ref() for ref in gone] == [None] * 3
    close(result["tap"], method(plain(), x, at=CONV)["tap"])


@every_method
@pytest.mark.parametrize("rows", [None, 3], ids=["any_batch", "known_batch"])
def test_inside_of_a_function(method, rows):
    function = tf.function(
        lambda x: method(plain(), x, at=CONV)["tap"],
        input_signature=[tf.TensorSpec((rows, *contracts.SIZE), tf.float64)],
    )
    close(function(images()), method(plain(), images(), at=CONV)["tap"])


@every_method
def test_datasets(method):
    whole = method(plain(), images(5), target="predicted", at=CONV)
    batches = tf.data.Dataset.from_tensor_slices((images(5), np.arange(5))).batch(2)
    result = method(plain(), batches, target="predicted", at=CONV)
    for address in CONV:
        close(result[address], whole[address])


@every_method
def test_shared_layers_patterns_and_what_is_not_reached(method):
    x, target = images(), gt.targets.class_score(2, output="scores")
    twins = method(maze("frozen"), x, target=target, at=["one", "two"])
    both = method(maze("shared"), x, target=target, at="shared[*]")
    each = [method(maze("shared"), x, target=target, at=f"shared[{call}]").only for call in range(2)]
    for call, twin in enumerate(twins.values()):
        close(each[call], twin)
        close(both[f"shared[{call}]"], twin)
    assert np.max(np.abs(each[0] - each[1])) > 1e-3 * np.max(np.abs(each[0]))
    refuses(errors.SharedLayerError, lambda: method(maze("shared"), x, target=target, at="shared"), "2")

    found = method(maze("frozen"), x, target=target, at=["?ne", "tw?", "aside*"])
    assert list(found) == ["one", "two"]
    assert list(found.skipped) == ["aside"]
    refuses(errors.UnconnectedTapError, lambda: method(maze("frozen"), x, target=target, at="aside"), "aside")
    zero = method(maze("frozen"), x, target=target, at=["one", "aside"], unconnected="zero")
    close(zero["one"], twins["one"])
    size = (3, 4, 4, 2)
    assert zero["aside"].shape == method.shape(size, x.shape)
    assert not np.any(zero["aside"])
