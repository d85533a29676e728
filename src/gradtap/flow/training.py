"""A short training, the same for every model of a comparison and every seed."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from gradtap.types import Model, Structure

_BATCH = 32


class ShortTraining:
    """Trains one model again and again from other weights; its training function is built once.

    Args:
      model: The model.
      inputs: All examples.
      labels: Their labels.
      loss: What it is trained for, as ``compile`` takes it.
      optimizer: A Keras optimizer, by name or object; a copy of it is used.
      steps: How many steps, through the data in their order and over again.
    """

    def __init__(
        self, model: Model, inputs: Structure, labels: Structure, loss: Any, optimizer: Any, steps: int
    ) -> None:
        self._model, self._steps = model, steps
        self._data = _in_order(inputs, labels)
        own = keras.optimizers.get(optimizer)
        model.compile(type(own).from_config(own.get_config()), loss, jit_compile=False)
        model.optimizer.build(model.trainable_variables)
        self._start = [np.array(variable) for variable in model.optimizer.variables]

    def run(self) -> None:
        """Train from the weights that the model has."""
        for variable, value in zip(self._model.optimizer.variables, self._start, strict=True):
            variable.assign(value)
        with _quiet():
            self._model.fit(self._data(), steps_per_epoch=self._steps, epochs=1, shuffle=False, verbose=0)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keras makes a function for each model, which TensorFlow takes for one that is traced again and again."""
    logger = tf.get_logger()
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


def _in_order(inputs: Structure, labels: Structure) -> Callable[[], Any]:
    """Batches of the data in their order, again and again."""
    arrays = tf.nest.map_structure(tf.convert_to_tensor, (inputs, labels))
    return lambda: tf.data.Dataset.from_tensor_slices(arrays).batch(_BATCH).repeat()
