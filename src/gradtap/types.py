"""Type aliases shared by every floor. TensorFlow ships no types, so its tensors are `Any` to the checker."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

#: A `tf.Tensor`, eager or symbolic.
Tensor: TypeAlias = Any

#: Anything `tf.convert_to_tensor` takes.
TensorLike: TypeAlias = Any

#: A nested structure (dict, list, tuple) of tensors.
Structure: TypeAlias = Any

#: A `tf.Operation` of a traced graph.
Operation: TypeAlias = Any

#: What a user may hand over as a model: see "What a model may be" in docs/how-it-works.md.
Model: TypeAlias = Any

#: A Keras layer or operation.
Layer: TypeAlias = Any

#: Where to tap: an address, a `Tap`, a layer object, or a layer class.
Address: TypeAlias = Any

#: A compiled function of flat tensors.
Compiled: TypeAlias = Callable[..., Any]
