"""What a model is to a trace: something to call, with names inside it and perhaps declared inputs."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import tensorflow as tf

from gradtap import errors
from gradtap.graph import keras_internals as internals
from gradtap.graph import surgery
from gradtap.graph.keras_internals import DeclaredInputs
from gradtap.graph.naming import named_layers
from gradtap.graph.saved_models import SavedModel, is_loaded
from gradtap.types import Model, Structure, Tensor


class Source:
    """A model, a layer, a `tf.Module` or a function, called the way its kind is called.

    Args:
      model: What the user handed over.
      signature: Which signature of a loaded SavedModel.

    Raises:
      ModelTypeError: It cannot be called with tensors.
      BackendError: It is a Keras 3 model and Keras runs on another backend than TensorFlow.
    """

    def __init__(self, model: Model, signature: str | None = None) -> None:
        model = SavedModel(model, signature) if is_loaded(model) else model
        self.model = model
        #: What the traces live with, and what they hold for while it stays the same.
        self.kept_with = model.loaded if isinstance(model, SavedModel) else model
        self.is_keras = internals.is_keras(model)
        if self.is_keras and internals.is_keras3(model) and internals.backend() != "tensorflow":
            raise errors.BackendError(
                f"Keras runs on the {internals.backend()} backend; gradtap needs TensorFlow.",
                [],
                'set KERAS_BACKEND=tensorflow before keras is imported, or "backend": "tensorflow" in keras.json',
            )
        if not callable(model):
            raise errors.ModelTypeError(
                f"{errors.kind_of(model)} is not a model.",
                [("received", repr(model)[:120])],
                "pass a Keras model or layer, a tf.Module, a function of tensors, or the path of a saved model",
            )

    def declared_inputs(self) -> DeclaredInputs | None:
        """The inputs that the model says it takes."""
        if isinstance(self.model, SavedModel):
            return self.model.declared_inputs()
        return internals.declared_inputs(self.model) if self.is_keras else None

    def float_dtype(self) -> str | None:
        """The type that float inputs are converted to where nothing is declared."""
        return internals.input_float_dtype(self.model) if self.is_keras else None

    def output_names(self) -> list[str] | None:
        """The names of the outputs, flattened, where the model names them."""
        return internals.output_names(self.model) if self.is_keras else None

    def call(self, inputs: Structure, training: bool) -> Structure:
        """Call the model on a structure of tensors."""
        args, kwargs = self._arguments(inputs)
        if self.is_keras or "training" in _parameters(self.model):
            kwargs["training"] = training
        return self._callable()(*args, **kwargs)

    def _callable(self) -> Callable[..., Any]:
        if self.is_keras or tf.executing_eagerly():
            return self.model  # type: ignore[no-any-return]
        method = vars(type(self.model)).get("__call__")
        if hasattr(method, "python_function"):
            return surgery.opened(method, self.model)
        return surgery.opened(self.model)

    def _arguments(self, inputs: Structure) -> tuple[list[Any], dict[str, Any]]:
        """Spread inputs over the parameters of a model that requires more than one."""
        function = self.model.call if self.is_keras else self.model
        required = [] if internals.is_named_container(self.model) else _required(function)
        if isinstance(inputs, Mapping) and len(required) > 1 and set(required) <= set(map(str, inputs)):
            first = required[0]
            return [inputs[first]], {str(k): v for k, v in inputs.items() if str(k) != first}
        if isinstance(inputs, Sequence) and len(required) == len(inputs) > 1:
            return list(inputs), {}
        return [inputs], {}

    def ensure_built(self, tensors: Sequence[Tensor], structure: Structure, training: bool = False) -> None:
        """Make the variables of layers that were never called, outside of any graph of ours.

        Variables made while a graph of ours is traced would leave Keras's global state poisoned.

        Args:
          tensors: What the model will be called on; only shapes and types are looked at.
          structure: How they are nested, positions at the leaves.
          training: As the model will be called: some layers run in training alone.
        """
        held = [named.layer for named in named_layers(self.model)]
        unbuilt = [layer for layer in held if not getattr(layer, "built", True)]
        if not unbuilt:
            return

        def call(*tensors: Tensor) -> Structure:
            return self.call(tf.nest.pack_sequence_as(structure, list(tensors)), training)

        one = tuple(tensors[0].shape) if len(tensors) == 1 else None
        if one is not None and self.is_keras and internals.build_in_order(self.model, one):
            return
        if any(map(internals.is_keras3, unbuilt)):
            internals.build_by_shape(call, tensors)
        elif not getattr(self.model, "built", False):
            call(*(tf.zeros([1 if d is None else d for d in t.shape], t.dtype) for t in tensors))


def _parameters(function: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    function = getattr(function, "python_function", function)
    try:
        return inspect.signature(function).parameters
    except (TypeError, ValueError):
        return {}


def _required(function: Callable[..., Any]) -> list[str]:
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    named = [
        name
        for name, p in _parameters(function).items()
        if p.default is inspect.Parameter.empty and p.kind in positional
    ]
    return [name for name in named if name != "self"]
