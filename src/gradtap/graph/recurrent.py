r"""The states of a recurrent layer at every step, without unrolling its loop.

A state lives inside of a loop, where it has no tensor to tap. So the loop is run with a perturbation: each new state
:math:`s_t` becomes :math:`p_t = s_t + \varepsilon_t`, and whatever the step has made of :math:`s_t` so far is made of
:math:`p_t` instead. With :math:`\varepsilon = 0` nothing changes, and :math:`dF/d\varepsilon_t` is the gradient with
respect to the state at step :math:`t` as back-propagation through time defines it, for any cell.

Only a forward graph in which states were asked for is traced in this way.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from gradtap.graph import keras_internals as internals
from gradtap.graph import surgery
from gradtap.types import Layer, Structure, Tensor


@dataclass
class LoopState:
    """One state of a recurrent layer.

    Args:
      values: What it is after each step, ``(batch, time, units)``, in the order of the input's time.
      perturbation: Zeros of the same shape, added to it; the gradient arrives here.
      kind: The first state of a cell is its ``"hidden"`` one, the second its ``"cell"``.
    """

    values: Tensor
    perturbation: Tensor
    kind: str


def recorded_inner_loop(
    layer: Layer,
    original: Callable[..., Any],
    is_recording: Callable[[], bool],
    record: Callable[[list[LoopState]], None],
) -> Callable[..., Any]:
    """What takes the place of a Keras 3 recurrent layer's ``inner_loop`` while a model is traced.

    Args:
      layer: The recurrent layer.
      original: Its own ``inner_loop``.
      is_recording: Whether the call is the trace's own.
      record: Called with the states.
    """

    def inner_loop(sequences: Tensor, initial_state: Structure, mask: Any, training: bool = False) -> Any:
        if not is_recording():
            return original(sequences=sequences, initial_state=initial_state, mask=mask, training=training)
        loop = _Loop(layer, sequences, initial_state, _only(mask), training)
        last, outputs, states = loop.run()
        record(loop.states)
        return last, outputs, states

    return inner_loop


def _only(mask: Any) -> Tensor | None:
    return mask[0] if isinstance(mask, (list, tuple)) else mask


class _Loop:
    def __init__(self, layer: Layer, sequences: Tensor, initial_state: Any, mask: Any, training: bool) -> None:
        self.layer = layer
        self.sequences = sequences
        self.structure = initial_state
        self.initial = tf.nest.flatten(initial_state)
        self.mask = mask if mask is None or mask.shape.rank == 3 else mask[..., None]
        takes_training = getattr(layer.cell, "_call_has_training_arg", False)
        self.cell_arguments = {"training": training} if takes_training else {}
        self.states: list[LoopState] = []

    def run(self) -> tuple[Tensor, Tensor, Structure]:
        perturbations = [self._zeros(state) for state in self.initial]
        masks = [] if self.mask is None else [tf.cast(self.mask, tf.bool)]
        carried = [] if self.mask is None else [tf.zeros_like(self._probe())]
        # Nested inputs have no length of their own that Keras could read; the loop ends with the input all the same.
        unbounded = np.int32(2**31 - 1)
        _, emitted, last = internals.rnn_loop(
            self._step,
            (self.sequences, *masks, *perturbations),
            [*self.initial, *carried],
            go_backwards=self.layer.go_backwards,
            input_length=unbounded,
        )
        outputs, *values = emitted
        if self.layer.go_backwards:
            values = [tf.reverse(v, [1]) for v in values]  # as the input's time runs, like the perturbations
        kinds = _kinds(self.structure)
        self.states = [LoopState(v, p, k) for v, p, k in zip(values, perturbations, kinds, strict=True)]
        final = tf.nest.pack_sequence_as(self.structure, list(last)[: len(self.initial)])
        return outputs[:, -1], outputs, final

    def _zeros(self, state: Tensor) -> Tensor:
        static = [self.sequences.shape[0], self.sequences.shape[1], *state.shape[1:]]
        dynamic = tf.concat([tf.shape(self.sequences)[:2], tf.shape(state)[1:]], 0)
        return tf.ensure_shape(tf.zeros(dynamic, state.dtype), static)

    def _probe(self) -> Tensor:
        return self.layer.cell(self.sequences[:, 0], self.structure, **self.cell_arguments)[0]

    def _step(self, inputs: Sequence[Tensor], states: Sequence[Tensor]) -> tuple[Any, list[Tensor]]:
        x, *rest = inputs
        old = list(states[: len(self.initial)])
        mask = None if self.mask is None else rest.pop(0)
        output, new = self.layer.cell(x, tf.nest.pack_sequence_as(self.structure, old), **self.cell_arguments)
        finals = []
        for state, before, perturbation in zip(tf.nest.flatten(new), old, rest, strict=True):
            perturbed = _perturb(state, old, perturbation)
            output = perturbed if output is state else output
            # A padded step hands its old state on, which can be perturbed as well.
            finals.append(perturbed if mask is None else _where(mask, perturbed, before + perturbation))
        if mask is None:
            return (output, *finals), finals
        previous = states[len(self.initial)]
        kept = tf.zeros_like(previous) if self.layer.zero_output_for_mask else previous
        output = _where(mask, output, kept)
        return (output, *finals), [*finals, output]


def _kinds(structure: Structure) -> list[str]:
    """The kind of each state, flattened; cells that are stacked have their states nested."""
    nested = any(isinstance(states, (list, tuple)) for states in structure)
    kinds = []
    for states in structure if nested else [structure]:
        count = len(tf.nest.flatten(states))
        kinds += ["hidden", "cell", *["other"] * count][:count]
    return kinds


def _perturb(state: Tensor, old: Sequence[Tensor], perturbation: Tensor) -> Tensor:
    if any(state is one for one in old):
        return tf.identity(state) + perturbation  # a cell that hands its old state on: its users are not this step's
    users = list(state.consumers())
    perturbed = state + perturbation
    surgery.replace_input(users, state, perturbed)
    return perturbed


def _where(mask: Tensor, kept: Tensor, other: Tensor) -> Tensor:
    for _ in range(kept.shape.rank - mask.shape.rank):
        mask = mask[..., None]
    return tf.where(mask, kept, other)
