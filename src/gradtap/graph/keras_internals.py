"""What Keras does not say in public: the children of a layer, its declared inputs, how it is called.

Keras 3 and Keras 2 (`tf_keras`) layers are told apart by what they have, not by their class, so that this file
imports neither. Everything that depends on a private name of Keras stands here.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gradtap.types import Layer, Structure

#: Attributes in which Keras keeps its own books. A change in them is no change of what the layer computes, and
#: layers found in them are found elsewhere too.
# fmt: off
BOOKKEEPING = frozenset(
    [
        "_allow_non_tensor_positional_args", "_auto_config", "_build_shapes_dict", "_call_context_args",
        "_call_has_context_arg", "_call_has_mask_arg", "_call_has_training_arg", "_call_signature", "_called",
        "_convert_input_args", "_inbound_nodes", "_input_spec", "_lock", "_loss_ids", "_losses", "_losses_override",
        "_metrics", "_outbound_nodes", "_parent_path", "_path", "_saved_model_arg_spec", "_saved_model_inputs_spec",
        "_supports_masking", "_tracked", "_tracker", "build", "built", "call_signature_parameters", "quantize",
        "supports_jit", "_compile_config", "_compile_loss", "_compile_metrics", "_compiled_trainable_state",
        "_compute_loss_has_training_arg", "_distribute_strategy", "_eval_epoch_iterator", "_initial_epoch",
        "_jit_compile", "_loss_tracker", "_run_eagerly", "compiled", "history", "loss", "optimizer",
        "predict_function", "steps_per_execution", "stop_training",
        "stop_evaluating", "stop_predicting", "test_function", "train_function",
        "unrolled_steps_per_execution", "call", "_inputs", "_inputs_struct", "_outputs", "_outputs_struct", "_nodes",
        "_nodes_by_depth", "_operations_by_depth",
        # Keras 2
        "_thread_local", "_obj_reference_counts_dict", "_metrics_lock", "_saved_model_inputs_spec", "_train_counter",
        "_test_counter", "_predict_counter", "_callable_losses", "_updates", "_self_tracked_trackables",
        "compiled_loss", "compiled_metrics", "_steps_per_execution", "train_tf_function", "_training_state",
        "_cluster_coordinator", "_checkpoint", "_keras_api_names",
    ]
)
# fmt: on


@dataclass(frozen=True)
class DeclaredInputs:
    """The inputs that a model says it takes: the structure it was built with, flattened.

    Args:
      structure: The nest, with a position at each leaf.
      names: One name for each leaf.
      shapes: One for each leaf, batch axis included, None where an axis is free.
      dtypes: Names such as ``"float32"``.
    """

    structure: Structure
    names: tuple[str, ...]
    shapes: tuple[tuple[int | None, ...], ...]
    dtypes: tuple[str, ...]


def is_keras(thing: Any) -> bool:
    """Whether something is a Keras layer or model, of Keras 3 or Keras 2."""
    return hasattr(thing, "_flatten_layers") and not isinstance(thing, type) and callable(getattr(thing, "call", None))


def is_keras3(thing: Any) -> bool:
    """Whether something is a layer or an operation of Keras 3."""
    return hasattr(thing, "symbolic_call") and not isinstance(thing, type)


def is_callable_node(thing: Any) -> bool:
    """Whether something is called as a node of a model: a layer, or an operation such as `keras.ops.relu` makes."""
    return is_keras(thing) or (is_keras3(thing) and callable(getattr(thing, "call", None)))


def is_input_layer(layer: Layer) -> bool:
    """Whether a layer is the placeholder of a functional model's input, which is never called."""
    return type(layer).__name__ == "InputLayer"


def is_named_container(layer: Layer) -> bool:
    """Whether a model names its children by their Keras names: Functional and Sequential models do."""
    return hasattr(layer, "_operations") or hasattr(layer, "_functional") or _is_keras2_graph(layer)


def _is_keras2_graph(layer: Layer) -> bool:
    return bool(getattr(layer, "_is_graph_network", False)) or (
        any(c.__name__ == "Sequential" for c in type(layer).__mro__) and is_keras(layer)
    )


def children(layer: Layer) -> list[Layer]:
    """The layers and operations that a layer holds directly, in their own order."""
    functional = getattr(layer, "_functional", None)
    operations = getattr(layer, "_operations", None) or getattr(functional, "_operations", None)
    tracked = list(layer._flatten_layers(include_self=False, recursive=False)) if is_keras(layer) else []
    found = [*(operations or ()), *(child for child in tracked if child is not functional)]
    return list({id(child): child for child in found}.values())


def declared_inputs(model: Layer) -> DeclaredInputs | None:
    """What a functional model, or a Sequential that was told its input shape, takes; None where it does not say."""
    functional = getattr(model, "_functional", None) or model
    structure = getattr(functional, "_inputs_struct", None)
    if structure is None and not is_keras3(model) and _is_keras2_graph(model):
        structure = getattr(model, "_nested_inputs", None)
    if structure is None:
        return None
    import tensorflow as tf

    leaves = tf.nest.flatten(structure)
    if functional is not model and leaves[0].shape[0] is not None:
        # A Sequential without an Input takes over the shape of the first batch it saw, and binds nobody to it.
        return None
    return DeclaredInputs(
        structure=tf.nest.pack_sequence_as(structure, list(range(len(leaves)))),
        names=tuple(_input_name(leaf) for leaf in leaves),
        # Keras takes any number of examples, whatever an Input says.
        shapes=tuple(tuple(n if axis else None for axis, n in enumerate(leaf.shape)) for leaf in leaves),
        dtypes=tuple(_dtype_name(leaf.dtype) for leaf in leaves),
    )


def _input_name(leaf: Any) -> str:
    history = getattr(leaf, "_keras_history", None)
    operation = getattr(history, "operation", None) or getattr(history, "layer", None)
    return str(getattr(operation, "name", None) or leaf.name)


def _dtype_name(dtype: Any) -> str:
    return str(getattr(dtype, "name", dtype))


def built_shapes(model: Layer) -> Structure | None:
    """The shapes a model was built with, where it keeps them; the batch axis as it was then."""
    shapes = getattr(model, "_build_shapes_dict", None)
    if not isinstance(shapes, Mapping) or not shapes:
        return None
    return next(iter(shapes.values())) if len(shapes) == 1 else tuple(shapes.values())


def build_by_shape(call: Any, tensors: Iterable[Any]) -> None:
    """Make variables outside of any graph of ours, the way Keras itself does on a symbolic call.

    Args:
      call: A function of symbolic tensors that calls layers of Keras 3.
      tensors: What has the shapes and types to call it on.
    """
    from keras import KerasTensor
    from keras.src.backend import compute_output_spec

    compute_output_spec(call, *(KerasTensor(tuple(t.shape), dtype=_dtype_name(t.dtype)) for t in tensors))


def build_in_order(model: Layer, shape: tuple[int | None, ...]) -> bool:
    """Build a Sequential layer by layer, which keeps the constants that layers make of theirs out of any graph.

    Returns:
      Whether the model is one that is built so.
    """
    if getattr(model, "_functional", model) is not None:  # no Sequential, or one that has its shape
        return False
    model.build(shape)
    return True


def input_layers(model: Layer) -> list[Layer]:
    """The placeholders of a functional model's inputs, in the order of its flattened inputs."""
    functional = getattr(model, "_functional", None) or model
    # A Keras 2 tensor has no truth value, so `or` is of no use here.
    found = [getattr(functional, name, None) for name in ("_inputs", "_nested_inputs")]
    tensors: Structure = next((one for one in found if one is not None), [])
    import tensorflow as tf

    histories = [getattr(t, "_keras_history", None) for t in tf.nest.flatten(tensors)]
    return [getattr(h, "operation", None) or getattr(h, "layer", None) for h in histories]


def output_names(model: Layer) -> list[str] | None:
    """The names of a functional model's outputs, flattened; None where it has none."""
    names = getattr(model, "output_names", None)
    return [str(n) for n in names] if names else None


def seed_generators(layers: Iterable[Layer]) -> list[Any]:
    """The random number generators that Keras 3 layers draw from, each once."""
    from keras.src.backend.common import global_state

    own = [generator for layer in layers for generator in getattr(layer, "_seed_generators", ())]
    shared = global_state.get_global_attribute("global_seed_generator")
    return list({id(g): g for g in [*own, shared] if g is not None}.values())


def without_assignments() -> Any:
    """A scope in which Keras 3 assigns to no variable, and later reads see what would have been assigned."""
    from keras import StatelessScope

    return StatelessScope()


#: How a Sequential of Keras 2 without an input adapts itself to the shape of each new batch.
ADAPTING = "_build_graph_network_for_inferred_shape"


def is_recurrent(layer: Layer) -> bool:
    """Whether a layer runs a cell in a loop."""
    return is_keras(layer) and hasattr(layer, "cell") and hasattr(layer, "return_sequences")


#: Whether a layer of Keras 2 may run as one op, in which no state can be reached; without it it runs its cell.
KERAS2_FUSED = "_could_use_gpu_kernel"


def keras2_backend() -> Any:
    """The module whose ``rnn`` is the loop of all recurrent layers of Keras 2; None where Keras 2 is not in use."""
    return sys.modules.get("tf_keras.src.backend")


#: What a layer that attends without projecting does with its query, key and value.
ATTENDING = {"_calculate_scores": ("query", "key"), "_apply_scores": ("value",)}


def attends_unprojected(layer: Layer) -> bool:
    """Whether a layer is an `Attention`, an `AdditiveAttention` or alike, of Keras 3 or Keras 2."""
    return is_keras(layer) and all(hasattr(layer, method) for method in ATTENDING)


def query_heads(layer: Layer) -> int | None:
    """How many heads an attention layer of KerasHub has; several may share their keys."""
    heads = getattr(layer, "num_query_heads", None)
    return heads if isinstance(heads, int) else None


def takes_batch_for_length(layer: Layer, args: Sequence[Any]) -> bool:
    """Whether Keras would go wrong here in silence: it repeats a layer along a free time axis once for each example."""
    sequence = args[0] if args and type(layer).__name__ == "TimeDistributed" and is_keras3(layer) else None
    return sequence is not None and len(sequence.shape) > 1 and sequence.shape[1] is None


def rnn_loop(step: Any, inputs: Any, initial_states: list[Any], **options: Any) -> Any:
    """Keras's own loop over time: last output, all outputs, last states."""
    from keras.src import backend as keras_backend

    return keras_backend.rnn(step, inputs, initial_states, **options)


def call_attribute(layer: Layer) -> str:
    """The method that runs when the layer is called: quantised layers have one of their own."""
    return "quantized_call" if getattr(layer, "quantization_mode", None) is not None else "call"


def input_float_dtype(model: Layer) -> str | None:
    """The float type that inputs of other float types are converted to; None where a layer takes them as they are.

    It is the type of the variables: under mixed precision the layer itself casts to the narrower type.
    """
    if not getattr(model, "autocast", getattr(model, "_autocast", False)):
        return None
    dtype = getattr(model, "variable_dtype", None)
    return _dtype_name(dtype) if dtype else None


def backend() -> str:
    """The backend that Keras 3 runs on."""
    import keras

    return str(keras.config.backend())
