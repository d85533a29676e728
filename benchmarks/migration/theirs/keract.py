"""keract's lines, on the last TensorFlow and Keras that it runs on."""

from __future__ import annotations

from typing import Any

VERSIONS = ("keract", "tensorflow-cpu", "keras", "numpy")


def activations(model, images):
    import keract

    theirs = keract.get_activations(model, images, layer_names="conv3")["conv3"]
    return theirs


def all_activations(model, images):
    import keract

    theirs = keract.get_activations(model, images)
    return (list(theirs), *theirs.values())


def gradients(model, images):
    import keract
    import numpy as np

    model.compile(optimizer="sgd", loss="categorical_crossentropy")
    labels = np.eye(10)[[3, 7]]
    theirs = keract.get_gradients_of_activations(model, images, labels, layer_names="conv3")["conv3"]
    return theirs


def weights(model, images):
    import keract
    import numpy as np

    model.compile(optimizer="sgd", loss="categorical_crossentropy")
    labels = np.eye(10)[[3, 7]]
    theirs = keract.get_gradients_of_trainable_weights(model, images, labels)
    return (list(theirs), *theirs.values())


def _on_kind(model, images):
    import keract

    name = "backbone/conv3" if "backbone" in [layer.name for layer in model.layers] else "conv3"
    return keract.get_activations(model, images, layer_names=name, nested="/" in name)[name]


def _given(folder: str, name: str) -> dict[str, Any]:
    import keras
    import tensorflow as tf

    from benchmarks.migration.networks import images, network

    if name in ("gradients", "weights") and keras.__version__ < "3":
        tf.compat.v1.disable_eager_execution()  # as the page says: before the model is made
    return {"model": network(), "images": images}
