"""What a strong engineer writes instead of gradtap: one tape a model, restating what the model does where it must.

Each function returns the plain, eager form; `tf.function(...)` around it is the compiled form that is timed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import keras
import tensorflow as tf

from benchmarks.models import TinyCNN

Tape = Callable[[tf.Tensor], list[tf.Tensor]]


def through_split(model: keras.Model, layers: Sequence[str], k: int) -> Tape:
    """For a functional model: one more model with the layers' outputs beside the model's own."""
    split = keras.Model(model.inputs, [*(model.get_layer(name).output for name in layers), model.outputs[0]])

    def gradient(x: tf.Tensor) -> list[tf.Tensor]:
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(x)
            *hidden, scores = split(x, training=False)
            score = scores[:, k]
        return tape.gradient(score, hidden)

    return gradient


def through_layers(model: TinyCNN, k: int) -> Tape:
    """For the subclassed model: its forward pass is written out once more from the layer on."""

    def gradient(x: tf.Tensor) -> list[tf.Tensor]:
        hidden = model.conv1(x)
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(hidden)
            score = model.after_conv1(hidden)[:, k]
        return [tape.gradient(score, hidden)]

    return gradient


def through_nest(model: keras.Sequential, layer: str, k: int) -> Tape:
    """For a backbone in a Sequential: the backbone is split, the head called layer by layer."""
    backbone, *head = model.layers
    split = keras.Model(backbone.inputs, [backbone.get_layer(layer).output, backbone.outputs[0]])

    def gradient(x: tf.Tensor) -> list[tf.Tensor]:
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(x)
            hidden, scores = split(x, training=False)
            for each in head:
                scores = each(scores)
            score = scores[:, k]
        return [tape.gradient(score, hidden)]

    return gradient


def through_both_calls(model: keras.Model, k: int) -> Tape:
    """For the shared layer: the forward pass is written out, as `layer.output` means the first call only."""
    stem, shared, mean, scores = (model.get_layer(name) for name in ("stem", "shared", "mean", "scores"))

    def gradient(x: tf.Tensor) -> list[tf.Tensor]:
        start = stem(x)
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(start)
            first = shared(start)
            second = shared(first)
            score = scores(mean(second))[:, k]
        return tape.gradient(score, [first, second])

    return gradient
