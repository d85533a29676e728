"""The models of a comparison: each built once, and given other weights for each seed."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from gradtap import errors
from gradtap.graph.keeping import Trace
from gradtap.graph.keras_internals import is_keras, is_named_container
from gradtap.graph.model_files import as_trace
from gradtap.types import Layer, Model, Structure


class Variant:
    """A model, or a function that builds one, with as many initialisations as one likes.

    Args:
      name: What it is called in the comparison.
      given: A Keras model, a `Trace`, the path of a model file, or a function without arguments that returns a model.
      inputs: One batch, on which a model that was never called is built.

    Raises:
      ModelTypeError: It is neither.
    """

    def __init__(self, name: str, given: Any, inputs: Structure) -> None:
        self.name = name
        self._inputs = tf.nest.map_structure(lambda x: x[:1], inputs)
        given = as_trace(given).model if isinstance(given, (str, Path, Trace)) else given
        if not is_keras(given) and not callable(given):
            raise errors.ModelTypeError(
                f"`{name}` is {errors.kind_of(given)}, which cannot be initialised anew.",
                [("received", errors.received(given))],
                "a Keras model, or a function without arguments that returns one",
            )
        #: The model that was given, for what it was compiled with; None where it is built.
        self.original = given if is_keras(given) else None
        self._build: Callable[[], Any] = given if self.original is None else lambda: _clone(name, given)
        self.model: Any = None

    def initialise(self, seed: int) -> Model:
        """The one model of this variant, with the weights that belong to a seed."""
        with seeded(seed):
            fresh = self._build()
            if not is_keras(fresh):
                raise errors.ModelTypeError(
                    f"the builder `{self.name}` returned {errors.kind_of(fresh)}.", [], "return a Keras model"
                )
            if not fresh.built or not fresh.weights:
                fresh(self._inputs)
        if self.model is None:
            self.model = fresh
        else:
            self.model.set_weights(fresh.get_weights())
        return self.model


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Let whatever Keras initialises follow from a seed, and leave the caller's random numbers as they were."""
    states = random.getstate(), np.random.get_state()
    try:
        random.seed(seed)  # from which Keras draws the seed of an initialiser, or of a dropout, that was given none
        np.random.seed(seed)
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])


def _clone(name: str, model: Layer) -> Layer:
    """A model of the same structure with weights of its own."""
    try:
        if is_named_container(model):
            return keras.models.clone_model(model, clone_function=_without_seeds)
        return type(model).from_config(model.get_config())
    except Exception as error:
        raise errors.ModelTypeError(
            f"`{name}` ({type(model).__name__}) cannot be cloned.",
            [("it said", f"{type(error).__name__}: {error}"[:300])],
            "give a function without arguments that builds it",
        ) from error


def _without_seeds(layer: Layer) -> Layer:
    """A copy of a layer whose initialisers draw anew."""
    return type(layer).from_config(_unseeded(layer.get_config()))


def _unseeded(config: Any) -> Any:
    if isinstance(config, Mapping):
        found = {key: _unseeded(value) for key, value in config.items()}
        if "initializer" in str(config.get("module", "")) and isinstance(found.get("config"), dict):
            found["config"].pop("seed", None)
        return found
    return [_unseeded(one) for one in config] if isinstance(config, list) else config
