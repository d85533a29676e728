"""How what is seen passes through ops with windows: convolutions, pooling, resizing, space to depth."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from gradtap.receptive.spread import Spread
from gradtap.receptive.steps import Step
from gradtap.receptive.windows import moved, repeated, resized, same_padding, transposed_window, window

#: Radius of the kernels that images are resized with, in positions; see `tf.image.ResizeMethod`.
_RADII = {
    "lanczos1": "1",
    "lanczos3": "3",
    "lanczos5": "5",
    "gaussian": "3/2",
    "box": "1/2",
    "triangle": "1",
    "keyscubic": "2",
    "mitchellcubic": "2",
}
_KINDS = {
    "ResizeNearestNeighbor": "nearest",
    "ResizeBilinear": "bilinear",
    "ResizeBicubic": "bicubic",
    "ResizeArea": "area",
}


def _attribute(step: Step, name: str, default: Any) -> Any:
    try:
        return step.op.get_attr(name)
    except ValueError:
        return default


def _channels(step: Step) -> int:
    """The axis of the channels."""
    return len(step.before) - 1 if _attribute(step, "data_format", b"NHWC").endswith(b"C") else 1


def _geometry(step: Step, axis: int, size: int, positions: int, units: int) -> tuple[int, int, int, int]:
    """Size, stride, dilation and padding of a window along an axis.

    Args:
      step: The op.
      axis: Of the tensor.
      size: Of the window.
      positions: Of the side that the window lies on.
      units: Of the other side.
    """
    stride = _attribute(step, "strides", [1] * len(step.before))[axis]
    dilation = (_attribute(step, "dilations", None) or [1] * len(step.before))[axis]
    padding = _attribute(step, "padding", b"VALID")
    before = 0
    if padding == b"SAME":
        before = same_padding(positions, units, size, stride, dilation)
    elif padding == b"EXPLICIT":
        before = step.op.get_attr("explicit_paddings")[2 * axis]
    return size, stride, dilation, before


def _convolved(step: Step, seen: Spread) -> Spread:
    axis = seen.axis
    if step.index != 0 or axis is None or axis in (0, _channels(step)):
        return seen if step.index == 0 and axis == 0 else seen.mixed(step.op.name)
    kernel = step.shape(step.op.inputs[1])
    size = kernel[axis - 1 - (_channels(step) == 1)]
    return _windowed(step, seen, *_geometry(step, axis, size, step.before[axis], step.after[axis]))


def _pooled(step: Step, seen: Spread) -> Spread:
    axis = seen.axis
    if step.index != 0 or axis is None:
        return seen.mixed(step.op.name)
    size = step.op.get_attr("ksize")[axis]
    return _windowed(step, seen, *_geometry(step, axis, size, step.before[axis], step.after[axis]))


def _windowed(step: Step, seen: Spread, size: int, stride: int, dilation: int, before: int) -> Spread:
    apart = seen.interleaved
    if apart > 1 and stride > 1:
        return seen.mixed(step.op.name)
    reads = window(size, stride, dilation * apart, before * apart)
    return seen.through(reads, step.after[seen.axis or 0] * apart, step.op.name)


def _transposed_convolution(step: Step, seen: Spread) -> Spread:
    axis = seen.axis
    if step.index != 2 or axis is None or axis in (0, _channels(step)):
        return seen if step.index == 2 and axis == 0 else seen.mixed(step.op.name)
    kernel = step.shape(step.op.inputs[1])
    size = kernel[axis - 1 - (_channels(step) == 1)]
    reads = transposed_window(*_geometry(step, axis, size, step.after[axis], step.before[axis]))
    return seen.through(reads, step.after[axis], step.op.name)


def _resized(step: Step, seen: Spread) -> Spread:
    axis = seen.axis
    if step.index != 0 or axis is None or axis == 0 or axis == len(step.before) - 1:
        return seen if step.index == 0 else seen.mixed(step.op.name)
    positions, units = step.before[axis], step.after[axis]
    if step.op.type == "ScaleAndTranslate":
        scale, move = (step.value(step.op.inputs[i])[axis - 1] for i in (2, 3))
        radius = _RADII.get(step.op.get_attr("kernel_type").decode(), "5")
        if move or abs(scale * positions - units) > 1e-3:
            return seen.mixed(step.op.name)
        smooth = bool(step.op.get_attr("antialias"))
        reads = resized(radius, positions, units, align_corners=False, half_pixels=True, smooth=smooth)
    else:
        corners = bool(step.op.get_attr("align_corners"))
        half = bool(_attribute(step, "half_pixel_centers", False))
        reads = resized(_KINDS[step.op.type], positions, units, align_corners=corners, half_pixels=half)
    return seen.through(reads, units, step.op.name)


def _space_to_batch(step: Step, seen: Spread) -> Spread:
    """Units move into the batch, side by side: a convolution there is one with gaps."""
    axis = seen.axis
    if step.index != 0 or axis is None or axis == 0:
        return seen.mixed(step.op.name)
    block = step.ints(1)
    if axis > len(block) or block[axis - 1] == 1:
        return seen
    before = step.ints(2)[2 * (axis - 1)]
    apart = block[axis - 1]
    behind = seen.through(moved(before), step.after[axis] * apart, step.op.name)
    return behind if behind.axis is None else replace(behind, interleaved=apart)


def _batch_to_space(step: Step, seen: Spread) -> Spread:
    axis = seen.axis
    if step.index != 0 or axis is None or axis == 0:
        return seen.mixed(step.op.name)
    block = step.ints(1)
    apart = block[axis - 1] if axis <= len(block) else 1
    if apart != seen.interleaved:
        return replace(seen, interleaved=1).mixed(step.op.name)
    if apart == 1:
        return seen
    crop = step.ints(2)[2 * (axis - 1)]
    return replace(seen, interleaved=1).through(moved(-crop), step.after[axis], step.op.name)


def _depth_to_space(step: Step, seen: Spread) -> Spread:
    if seen.axis not in (1, 2) or _channels(step) == 1:
        return seen.mixed(step.op.name)
    return seen.through(repeated(step.op.get_attr("block_size")), step.after[seen.axis], step.op.name)


def _space_to_depth(step: Step, seen: Spread) -> Spread:
    if seen.axis not in (1, 2) or _channels(step) == 1:
        return seen.mixed(step.op.name)
    block = step.op.get_attr("block_size")
    return seen.through(window(block, block, 1, 0), step.after[seen.axis], step.op.name)


def _patches(step: Step, seen: Spread) -> Spread:
    axis = seen.axis
    if axis is None or axis in (0, len(step.before) - 1):
        return seen if axis == 0 else seen.mixed(step.op.name)
    size, rate = step.op.get_attr("ksizes")[axis], step.op.get_attr("rates")[axis]
    positions, units = step.before[axis], step.after[axis]
    stride = step.op.get_attr("strides")[axis]
    same = step.op.get_attr("padding") == b"SAME"
    before = same_padding(positions, units, size, stride, rate) if same else 0
    return _windowed(step, seen, size, stride, rate, before)


RULES: dict[str, Callable[[Step, Spread], Spread | None]] = {
    **dict.fromkeys(["Conv2D", "Conv3D", "DepthwiseConv2dNative"], _convolved),
    **dict.fromkeys(["AvgPool", "AvgPool3D", "MaxPool", "MaxPool3D", "MaxPoolWithArgmax"], _pooled),
    **dict.fromkeys(
        ["Conv2DBackpropInput", "Conv3DBackpropInputV2", "DepthwiseConv2dNativeBackpropInput"], _transposed_convolution
    ),
    **dict.fromkeys([*_KINDS, "ScaleAndTranslate"], _resized),
    "SpaceToBatchND": _space_to_batch,
    "BatchToSpaceND": _batch_to_space,
    "DepthToSpace": _depth_to_space,
    "SpaceToDepth": _space_to_depth,
    "ExtractImagePatches": _patches,
}
