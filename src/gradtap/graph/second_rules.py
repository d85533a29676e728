"""Derivatives of gradient ops for which TensorFlow has none, so that it cannot differentiate twice where they stand.

They are marked in our own graphs, where a first derivative has put them; what TensorFlow has registered stays as it is.
"""

from __future__ import annotations

import tensorflow as tf

from gradtap.types import Operation, Tensor

#: Names of the gradients below, by the type of the op that is marked with it.
RULES = {
    "SoftsignGrad": "GradtapSoftsignGrad",
    "ResizeBilinearGrad": "GradtapResizeBilinearGrad",
    "ResizeNearestNeighborGrad": "GradtapResizeNearestNeighborGrad",
    "ResizeBicubicGrad": "GradtapResizeBicubicGrad",
    "ScaleAndTranslateGrad": "GradtapScaleAndTranslateGrad",
}


@tf.RegisterGradient("GradtapSoftsignGrad")
def _softsign(op: Operation, slope: Tensor) -> tuple[Tensor, Tensor]:
    r"""Of :math:`g / (1 + |x|)^2`."""
    gradient, x = op.inputs
    bent = -2 * tf.sign(x) / (1 + tf.abs(x)) ** 3
    return tf.raw_ops.SoftsignGrad(gradients=slope, features=x), slope * gradient * bent


# The gradient of a resizing is linear: its own is the resizing again.


@tf.RegisterGradient("GradtapResizeNearestNeighborGrad")
def _nearest(op: Operation, slope: Tensor) -> tuple[Tensor, None]:
    return tf.raw_ops.ResizeNearestNeighbor(images=slope, size=_size(op), **_corners(op)), None


@tf.RegisterGradient("GradtapResizeBilinearGrad")
def _bilinear(op: Operation, slope: Tensor) -> tuple[Tensor, None]:
    return tf.raw_ops.ResizeBilinear(images=slope, size=_size(op), **_corners(op)), None


@tf.RegisterGradient("GradtapResizeBicubicGrad")
def _bicubic(op: Operation, slope: Tensor) -> tuple[Tensor, None]:
    return tf.raw_ops.ResizeBicubic(images=slope, size=_size(op), **_corners(op)), None


@tf.RegisterGradient("GradtapScaleAndTranslateGrad")
def _scale(op: Operation, slope: Tensor) -> tuple[Tensor, None, None, None]:
    how = {name: op.get_attr(name) for name in ("kernel_type", "antialias")}
    _, _, scale, translation = op.inputs
    again = tf.raw_ops.ScaleAndTranslate(images=slope, size=_size(op), scale=scale, translation=translation, **how)
    return again, None, None, None


def _size(op: Operation) -> Tensor:
    return tf.shape(op.inputs[0])[1:3]


def _corners(op: Operation) -> dict[str, bool]:
    return {name: op.get_attr(name) for name in ("align_corners", "half_pixel_centers")}
