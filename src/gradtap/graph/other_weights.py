"""Other weights for a model that stays as it is: its graphs read copies, whose values can be changed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from gradtap.graph.keeping import Graphs, Trace
from gradtap.graph.naming import named_layers
from gradtap.graph.weights import variable_of, weights_of
from gradtap.types import Tensor


class OtherWeights:
    """Copies of the floating-point weights of a model, by the layer that holds them itself.

    Args:
      trace: The model; it must have been built.
    """

    def __init__(self, trace: Trace) -> None:
        layers = sorted(named_layers(trace.model), key=lambda named: -len(named.steps))
        self._originals: dict[str, list[Any]] = {}
        self._copies: dict[str, list[Any]] = {}
        stand_ins: dict[int, Tensor] = {}
        for named in layers:  # the deepest first: what a layer holds itself is what none below it does
            for variable in map(variable_of, weights_of(named.layer)):
                if variable.dtype.is_floating and id(variable.handle) not in stand_ins:
                    with tf.init_scope():
                        copy = tf.Variable(variable, trainable=False)
                    stand_ins[id(variable.handle)] = copy.handle
                    self._originals.setdefault(named.path, []).append(variable)
                    self._copies.setdefault(named.path, []).append(copy)
        #: The same model with these weights.
        self.trace = trace.with_graphs(Graphs(stand_ins))

    @property
    def paths(self) -> Sequence[str]:
        """The layers that hold weights themselves."""
        return list(self._copies)

    def permute(self, path: str, rng: np.random.Generator) -> None:
        """Put the entries of each weight of a layer in a random order."""
        for copy in self._copies[path]:
            values = copy.numpy()
            copy.assign(rng.permutation(values.reshape(-1)).reshape(values.shape))

    def restore(self, path: str) -> None:
        """Give a layer the weights that the model has."""
        for copy, original in zip(self._copies[path], self._originals[path], strict=True):
            copy.assign(original)
