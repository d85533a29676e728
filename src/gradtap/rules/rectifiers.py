"""Rules of back-propagation through rectifiers: what guided back-propagation and the deconvolution let pass."""

from __future__ import annotations

import tensorflow as tf

from gradtap.differentiate import NamedRules
from gradtap.graph.surgery import registered_gradient
from gradtap.types import Operation, Tensor

#: Every form that a rectifier takes as an op: a layer, ``activation="relu"``, ``keras.ops.relu``, ReLU6, leaky.
RECTIFIERS = ("Relu", "Relu6", "LeakyRelu")


def _guided(op: Operation, slope: Tensor) -> Tensor:
    """What is positive, where the unit is on; a leaky one lets its share pass where it is off."""
    return registered_gradient(op.type)(op, tf.nn.relu(slope))


def _deconvolved(op: Operation, slope: Tensor) -> Tensor:
    """What is positive, whether the unit is on or not."""
    return tf.nn.relu(slope)


GUIDED = NamedRules("guided", dict.fromkeys(RECTIFIERS, _guided))
DECONVOLVED = NamedRules("deconvolved", dict.fromkeys(RECTIFIERS, _deconvolved))
