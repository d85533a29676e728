"""Write measurements where TensorBoard reads them. It takes TensorFlow alone: TensorBoard need not be installed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from gradtap.flow.rows import FlowMeasurement, Histogram, TimeProfile
from gradtap.showing import face

_SCALAR, _TENSOR, _BLOBS = 1, 2, 3
#: What is drawn of each tap over the steps.
_OF_TAPS = ("gradient_norm", "activation_norm", "zeros", "dead", "saturated", "cosine")
_OF_WEIGHTS = ("gradient_norm", "weight_norm", "update_ratio")


class EventWriter:
    """One event file.

    Args:
      folder: Where it goes; it is made.
    """

    def __init__(self, folder: Path) -> None:
        self._writer = tf.summary.create_file_writer(str(folder), filename_suffix=".flow")

    def write(self, step: int, found: FlowMeasurement) -> None:
        """Write one measurement, and see to it that it is on the disk."""
        summary = tf.compat.v1.Summary(value=list(_values(found)))
        with self._writer.as_default():
            tf.summary.experimental.write_raw_pb(summary.SerializeToString(), step=step)
        self._writer.flush()

    def close(self) -> None:
        """Nothing more is written."""
        self._writer.close()


def _values(found: FlowMeasurement) -> Iterator[Any]:
    for row in found.rows:
        for name in _OF_TAPS:
            if np.isfinite(getattr(row, name)):
                yield _scalar(f"{name}/{row.address}", getattr(row, name))
        yield _histogram(f"gradients/{row.address}", row.gradients)
        yield _histogram(f"activations/{row.address}", row.activations)
    for weight in found.weights:
        for name in _OF_WEIGHTS:
            if np.isfinite(getattr(weight, name)):
                yield _scalar(f"weights/{name}/{weight.address}", getattr(weight, name))
    for profile in found.profiles:
        yield _picture(f"through_time/{profile.address}", profile)
    yield _scalar("findings", float(len(found.findings)))


def _scalar(tag: str, value: float) -> Any:
    tensor = tf.make_tensor_proto(value, tf.float32, shape=())
    return tf.compat.v1.Summary.Value(tag=tag, tensor=tensor, metadata=_metadata("scalars", _SCALAR))


def _histogram(tag: str, histogram: Histogram) -> Any:
    """Left edge, right edge and count of each bin, as TensorBoard has them."""
    rows = np.stack([histogram.edges[:-1], histogram.edges[1:], histogram.counts.astype(np.float64)], 1)
    return tf.compat.v1.Summary.Value(
        tag=tag, tensor=tf.make_tensor_proto(rows, tf.float64), metadata=_metadata("histograms", _TENSOR)
    )


def _picture(tag: str, profile: TimeProfile) -> Any:
    pixels = face("gradtap.plot.raster", "profile_pixels")(profile.gradient_norms)
    sizes = [str(pixels.shape[1]), str(pixels.shape[0])]
    tensor = tf.make_tensor_proto([*sizes, tf.io.encode_png(pixels).numpy()], tf.string)
    return tf.compat.v1.Summary.Value(tag=tag, tensor=tensor, metadata=_metadata("images", _BLOBS))


def _metadata(plugin: str, data: int) -> Any:
    kind = tf.compat.v1.SummaryMetadata
    return kind(plugin_data=kind.PluginData(plugin_name=plugin), data_class=data)
