"""Theoretical receptive fields: published sizes, sums on paper, and what moves which unit, found by trying."""

from __future__ import annotations

import re

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import gradtap as gt
from gradtap import errors
from gradtap.receptive import theoretical
from reference.supports import box, make_positive, supports

#: Sizes in the table of Araujo et al., Computing Receptive Fields of Convolutional Neural Networks, 2019.
PUBLISHED = {"VGG16": 212, "MobileNet": 315, "ResNet50": 483, "InceptionV3": 1311, "InceptionResNetV2": 3039}


@pytest.mark.parametrize("name", [n if n == "VGG16" else pytest.param(n, marks=pytest.mark.slow) for n in PUBLISHED])
def test_published_sizes_come_out(name):
    model = getattr(keras.applications, name)(weights=None, include_top=False, input_shape=(None, None, 3))
    field = theoretical(model, at=":output")
    assert field.size == (PUBLISHED[name],) * 2
    assert field.stride == (32, 32)


def made(*middle, shape=(17, 15, 1)):
    return keras.Sequential([keras.Input(shape, dtype="float64"), *middle])


#: Layers with what is known on paper of the last: size, stride, start.
ON_PAPER = {
    "valid": ([layers.Conv2D(1, (3, 5))], (3, 5), (1, 1), (0, 0)),
    "same": ([layers.Conv2D(1, (3, 5), padding="same")], (3, 5), (1, 1), (-1, -2)),
    "two": ([layers.Conv2D(1, 3, padding="same"), layers.Conv2D(1, 3, padding="same")], (5, 5), (1, 1), (-2, -2)),
    # 17 and 15 positions, stride 2: 9 and 8 windows of 4 need 20 and 18, so 3 are added, 1 before.
    "stride": ([layers.Conv2D(1, 4, strides=2, padding="same")], (4, 4), (2, 2), (-1, -1)),
    "dilated": ([layers.Conv2D(1, 3, dilation_rate=3)], (7, 7), (1, 1), (0, 0)),
    "pool": ([layers.Conv2D(1, 3), layers.MaxPool2D(3, strides=2)], (5, 5), (2, 2), (0, 0)),
    "pool then conv": ([layers.MaxPool2D(2), layers.Conv2D(1, 3)], (6, 6), (2, 2), (0, 0)),
    "depthwise": ([layers.DepthwiseConv2D(3, dilation_rate=2, padding="same")], (5, 5), (1, 1), (-2, -2)),
    "crop": ([layers.Cropping2D(((2, 1), (3, 0)))], (1, 1), (1, 1), (2, 3)),
    "pad": ([layers.ZeroPadding2D(((2, 1), (3, 0)))], (1, 1), (1, 1), (-2, -3)),
    "up": ([layers.UpSampling2D(2)], (1, 1), (0.5, 0.5), (0, 0)),
    "up then conv": ([layers.UpSampling2D((2, 4)), layers.Conv2D(1, 3)], (2, 2), (0.5, 0.25), (0, 0)),
    # Unit u reads positions v with u = 2 v + j - 0, j = 0..2: two of them where u is even.
    "transposed": ([layers.Conv2DTranspose(1, 3, strides=2)], (2, 2), (0.5, 0.5), (-1, -1)),
    "grouped": ([layers.Conv2D(4, 1), layers.Conv2D(4, 3, groups=2)], (3, 3), (1, 1), (0, 0)),
    "separable": ([layers.SeparableConv2D(2, 3, strides=2, padding="same")], (3, 3), (2, 2), (-1, -1)),
    "channels only": (
        [
            layers.Conv2D(4, 3),
            layers.Dense(3),
            layers.LayerNormalization(),
            layers.BatchNormalization(),
            layers.PReLU(),
        ],
        (3, 3),
        (1, 1),
        (0, 0),
    ),
}


@pytest.mark.parametrize("case", ON_PAPER)
def test_sums_on_paper(case):
    middle, size, stride, start = ON_PAPER[case]
    middle = [layer.__class__.from_config(layer.get_config()) for layer in middle]
    field = theoretical(made(*middle), at=":output")
    assert (field.size, field.stride, field.start) == (size, stride, start)
    assert not field.everything


#: Cases whose windows have holes: at a border a position may be seen by none.
HOLES = re.compile("dilated|patches")
#: Layers whose fields are exact at every unit, borders included.
EXACT = {
    "conv": lambda: [layers.Conv2D(2, (3, 2), strides=(2, 1), padding="same")],
    "dilated": lambda: [layers.Conv2D(2, 3, dilation_rate=(2, 3), padding="same")],
    "depthwise dilated": lambda: [layers.DepthwiseConv2D((2, 3), dilation_rate=2)],
    "separable": lambda: [layers.SeparableConv2D(2, 3, strides=3, padding="same")],
    "average": lambda: [layers.AveragePooling2D((3, 2), strides=(2, 3), padding="same")],
    "max": lambda: [layers.MaxPool2D((2, 3), strides=2, padding="same")],
    "transposed": lambda: [layers.Conv2DTranspose(2, (4, 3), strides=(2, 3), padding="same")],
    "transposed valid": lambda: [layers.Conv2DTranspose(2, 5, strides=2)],
    "transposed gaps": lambda: [layers.Conv2DTranspose(2, 2, strides=3)],
    "transposed odd": lambda: [layers.Conv2DTranspose(1, 3, strides=2, padding="same", output_padding=(0, 1))],
    "transposed dilated": lambda: [layers.Conv2DTranspose(1, 3, dilation_rate=2, padding="same")],
    "nearest": lambda: [layers.UpSampling2D((3, 2))],
    "bilinear": lambda: [layers.UpSampling2D((2, 3), interpolation="bilinear")],
    "resized down": lambda: [layers.Resizing(6, 9, interpolation="nearest", dtype="float64")],
    "pad and crop": lambda: [layers.ZeroPadding2D(((1, 2), (3, 0))), layers.Cropping2D(((0, 4), (1, 2)))],
    "u-net": lambda: [
        layers.Conv2D(2, 3, padding="same"),
        layers.MaxPool2D(2),
        layers.Conv2D(2, 3, padding="same"),
        layers.UpSampling2D(2),
    ],
    "permuted": lambda: [layers.Permute((2, 1, 3)), layers.Conv2D(1, (1, 3)), layers.Permute((2, 1, 3))],
    "one axis and two again": lambda: [
        layers.Reshape((-1, 2)),
        layers.Dense(3),
        layers.Reshape((12, 10, 3)),
        layers.Conv2D(1, 2),
    ],
    "space to depth": lambda: [layers.Lambda(lambda x: tf.nn.space_to_depth(x, 2)), layers.Conv2D(2, 2)],
    "depth to space": lambda: [layers.Conv2D(4, 2), layers.Lambda(lambda x: tf.nn.depth_to_space(x, 2))],
    "strided slice": lambda: [layers.Lambda(lambda x: x[:, 1::2, ..., -3::-1, :][:, :, :5])],
    "reversed": lambda: [layers.Conv2D(1, 3), layers.Lambda(lambda x: tf.reverse(x, [1]))],
    "shifted": lambda: [layers.Lambda(lambda x: keras.ops.concatenate([keras.ops.zeros_like(x[:, :1]), x[:, :-1]], 1))],
    "patches": lambda: [
        layers.Lambda(lambda x: tf.image.extract_patches(x, [1, 3, 2, 1], [1, 2, 2, 1], [1, 1, 2, 1], "SAME"))
    ],
}


@pytest.mark.parametrize("case", EXACT)
def test_every_unit_sees_what_moves_it(case):
    shape = (12, 10, 2)
    model = make_positive(made(*EXACT[case](), shape=shape))
    last = model.layers[-1].name
    measured = supports(model, last, shape)
    field = theoretical(model, at=last).only
    for unit in np.ndindex(*measured.shape[:-2]):
        region = field.region(unit)
        seen = box(measured[unit])
        if seen is None:
            assert any(s.stop <= s.start for s in region), unit
        elif not HOLES.search(case) or field.of_unit(unit) == tuple((s.start, s.stop - 1) for s in region):
            assert tuple((s.start, s.stop - 1) for s in region) == seen, unit
        else:  # the last position inside of the border may be in a hole
            assert all(s.start <= first <= last < s.stop for s, (first, last) in zip(region, seen, strict=True)), unit


def attending():
    x = keras.Input((8, 8, 4))
    tokens = layers.Reshape((64, 4))(layers.Conv2D(4, 3, padding="same", name="conv")(x))
    y = layers.MultiHeadAttention(2, 2, name="attention")(tokens, tokens)
    return keras.Model(x, layers.Dense(2, name="out")(y))


def gated():
    x = keras.Input((8, 8, 4))
    y = layers.Conv2D(4, 3, padding="same", name="conv")(x)
    gate = layers.Dense(4, activation="sigmoid")(layers.GlobalAveragePooling2D(keepdims=True)(y))
    return keras.Model(x, layers.Multiply(name="out")([y, gate]))


EVERYTHING = {
    "attention": attending,
    "a gate": gated,
    "dense": lambda: keras.Sequential([keras.Input((8, 8, 4)), layers.Flatten(), layers.Dense(3, name="out")]),
    "global pooling": lambda: keras.Sequential([keras.Input((8, 8, 4)), layers.GlobalMaxPool2D(name="out")]),
    "a loop": lambda: keras.Sequential([keras.Input((8, 4)), layers.LSTM(3, return_sequences=True, name="out")]),
    "normalised space": lambda: keras.Sequential(
        [keras.Input((8, 8, 4)), layers.LayerNormalization(axis=(1, 2, 3), name="out")]
    ),
    "groups": lambda: keras.Sequential([keras.Input((8, 8, 4)), layers.GroupNormalization(2, name="out")]),
}


@pytest.mark.parametrize("case", EVERYTHING)
def test_what_mixes_all_positions_shows_everything(case):
    field = theoretical(EVERYTHING[case](), at="out")
    assert field.everything
    assert set(field.size) == {8}
    assert set(field.stride) == {0}
    assert "everything" in repr(field)
    assert field.only.because


def test_a_gate_leaves_the_layers_before_it_alone():
    field = theoretical(gated(), at=["conv", "out"])
    assert field["conv"].size == (3, 3)
    assert field["out"].everything
    with pytest.raises(errors.MissingResultError):
        _ = field.size


def test_an_op_that_is_not_known_shows_everything():
    model = made(layers.Conv2D(1, 3), layers.Lambda(lambda x: tf.roll(x, 3, 1)))
    field = theoretical(model, at=":output").only
    assert field.everything
    assert "Roll" in field.because


def test_causal_dilated_convolutions_of_a_series():
    convs = [layers.Conv1D(3, 2, dilation_rate=2**i, padding="causal", name=f"c{i}") for i in range(4)]
    model = keras.Sequential([keras.Input((None, 3)), *convs, layers.Lambda(lambda x: x[:, -1], name="last")])
    field = theoretical(model, np.zeros((2, 50, 3)), at=["c3", "last"])
    assert (field["c3"].size, field["c3"].stride, field["c3"].start) == ((16,), (1,), (-15,))
    assert field["last"].of_unit(()) == ((34, 49),)
    assert not field["last"].everything


def test_branches_that_merge_see_what_either_sees():
    x = keras.Input((20, 20, 1))
    wide = layers.Conv2D(2, 7, padding="same")(x)
    shifted = layers.Conv2D(2, 3)(layers.ZeroPadding2D(((0, 2), (2, 0)))(x))
    model = keras.Model(x, layers.Concatenate(name="both")([shifted, layers.Conv2D(1, 1)(shifted)]))
    both = keras.Model(x, layers.Add(name="sum")([wide, shifted]))
    assert theoretical(model, at="both").start == (0, -2)
    assert (theoretical(both, at="sum").size, theoretical(both, at="sum").start) == ((7, 7), (-3, -3))


def test_branches_that_move_on_at_another_pace_are_never_said_to_see_too_little():
    x = keras.Input((16, 16, 1), dtype="float64")
    both = layers.Add(name="both")([layers.Cropping2D(4)(x), layers.AveragePooling2D(2)(x)])
    model = make_positive(keras.Model(x, both))
    field = theoretical(model, at="both").only
    measured = supports(model, "both", (16, 16, 1))
    for unit in np.ndindex(8, 8):
        assert all(
            s.start <= a and b < s.stop for s, (a, b) in zip(field.region(unit), box(measured[unit]), strict=True)
        )


class Net(keras.Model):
    def __init__(self):
        super().__init__()
        self.stem = layers.Conv2D(2, 3, strides=2)
        self.inner = keras.Sequential([layers.Conv2D(2, 3), layers.MaxPool2D(2)])

    def call(self, x):
        return self.inner(keras.ops.relu(self.stem(x)))


def test_models_of_other_kinds(tmp_path):
    net = Net()
    with pytest.raises(errors.InputStructureError):
        theoretical(net, at="stem")
    images = np.zeros((4, 21, 21, 3), np.float32)
    field = theoretical(net, images, at=["stem", "inner"])
    assert (field["stem"].size, field["inner"].size, field["inner"].stride) == ((3, 3), (9, 9), (4, 4))
    net.export(str(tmp_path / "saved"), verbose=False)
    for path in [str(tmp_path / "saved"), tf.saved_model.load(str(tmp_path / "saved"))]:
        assert theoretical(path, images, at=":output").size == (9, 9)
    assert theoretical(lambda x: tf.nn.avg_pool2d(x, 5, 2, "VALID"), images, at=":output").size == (5, 5)


def test_fields_within_a_layer_follow_a_chain():
    convs = [layers.Conv2D(2, 3, strides=2, name=f"c{i}") for i in range(3)]
    model = made(*convs, shape=(40, 40, 1))
    field = theoretical(model, at="c2", along="c0")
    assert (field.size, field.stride, field.start) == ((7, 7), (4, 4), (0, 0))
    whole = theoretical(model, at=["c0", "c2"])
    first, last = field.only.of_unit((1, 2))[0]
    ends = whole["c0"].of_unit((first, 0))[0][0], whole["c0"].of_unit((last, 0))[0][1]
    assert whole["c2"].of_unit((1, 2))[0] == ends


def test_of_two_inputs_the_one_that_the_tap_depends_on():
    a, b = keras.Input((16, 16, 1), name="a"), keras.Input((16, 16, 1), name="b")
    of_a, of_b = layers.Conv2D(1, 3, name="of_a")(a), layers.Conv2D(1, 5, padding="same", name="of_b")(b)
    crop = layers.Cropping2D(1)(of_b)
    model = keras.Model([a, b], layers.Add(name="sum")([of_a, crop]))
    assert theoretical(model, at="of_a").size == (3, 3)
    assert theoretical(model, at="sum", along=":input.b").size == (5, 5)
    with pytest.raises(errors.ArgumentError, match=r":input\.a"):
        theoretical(model, at="sum")
    with pytest.raises(errors.UnconnectedTapError):
        theoretical(model, at="of_a", along=":input.b")
    both = theoretical(model, at="of_*", along=":input.b")
    assert list(both) == ["of_b"]


def test_free_axes_need_no_inputs_and_take_their_length():
    model = keras.Sequential([keras.Input((None, None, 1)), layers.Conv2D(1, 3, strides=2, padding="same")])
    # Of an even length one position is missing, and "same" puts it behind; of an odd one, one before and one behind.
    assert theoretical(model, at=":output").start == (0, 0)
    assert theoretical(model, np.zeros((1, 15, 16, 1)), at=":output").start == (-1, 0)


def test_token_ids_are_positions_too():
    ids = keras.Input((20,), dtype="int32")
    y = layers.Conv1D(3, 5, padding="same", name="conv")(layers.Embedding(10, 4, name="embedding")(ids))
    model = keras.Model(ids, y)
    assert theoretical(model, at="conv").size == (5,)
    assert theoretical(model, at="embedding").start == (0,)


def test_the_model_is_not_traced_again(monkeypatch):
    calls = []

    class Counted(layers.Conv2D):
        def call(self, x):
            calls.append(1)
            return super().call(x)

    model = made(Counted(1, 3, name="a"), Counted(1, 3, name="b"))
    gt.activations(model, np.zeros((1, 17, 15, 1)), at="a")
    calls.clear()
    theoretical(model, at="b")
    theoretical(model, at=["a", "b"])
    assert calls == []
