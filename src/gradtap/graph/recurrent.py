r"""The states of a recurrent layer at every step, without unrolling its loop.

A state lives inside of a loop, where it has no tensor to tap. So the loop is run with a perturbation: each new state
:math:`s_t` becomes :math:`p_t = s_t + \varepsilon_t`, and whatever the step has made of :math:`s_t` so far is made of
:math:`p_t` instead. With :math:`\varepsilon = 0` nothing changes, and :math:`dF/d\varepsilon_t` is the gradient with
respect to the state at step :math:`t` as back-propagation through time defines it, for any cell.

Where a mask says so, what is fed takes the place of the state instead: that is how states are replaced.

Only a forward graph in which states were asked for is traced in this way.
"""

from __future__ import annotations

import inspect
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
      replaced: Integer zeros of the same shape: where it is fed others, the state is what is fed as the perturbation.
      kind: The first state of a cell is its ``"hidden"`` one, the second its ``"cell"``.
    """

    values: Tensor
    perturbation: Tensor
    replaced: Tensor
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
        takes_training = getattr(layer.cell, "_call_has_training_arg", False)
        arguments = {"training": training} if takes_training else {}
        loop = _Loop(
            lambda x, states: layer.cell(x, states, **arguments),
            sequences,
            initial_state,
            _only(mask),
            backwards=layer.go_backwards,
            padded_with_zeros=layer.zero_output_for_mask,
            over_time=internals.rnn_loop,
        )
        last, outputs, states = loop.run(_states_of_cells(layer))
        record(loop.states)
        return last, outputs, states

    return inner_loop


def recorded_rnn(
    original: Callable[..., Any],
    layer: Callable[[], Layer | None],
    record: Callable[[list[LoopState]], None],
) -> Callable[..., Any]:
    """What takes the place of Keras 2's loop over time, which all its recurrent layers call.

    Args:
      original: The loop itself.
      layer: Gives the layer that is being called; None where the call is not the trace's own.
      record: Called with the states.
    """
    signature = inspect.signature(original)

    def rnn(*args: Any, **kwargs: Any) -> Any:
        given = signature.bind(*args, **kwargs)
        given.apply_defaults()
        options = given.arguments
        calling = layer()
        # Keras sends other things than cells around this loop; and of those only what is laid out as Keras 3 does.
        other = options["time_major"] or isinstance(options["input_length"], tf.Tensor)
        if calling is None or not internals.is_recurrent(calling) or other or not options["initial_states"]:
            return original(*args, **kwargs)
        constants = tuple(options["constants"] or ())
        loop = _Loop(
            lambda x, states: options["step_function"](x, (*states, *constants)),
            options["inputs"],
            tuple(options["initial_states"]),
            _only(options["mask"]),
            backwards=options["go_backwards"],
            padded_with_zeros=options["zero_output_for_mask"],
            over_time=original,
        )
        last, outputs, states = loop.run(_states_of_cells(calling))
        record(loop.states)
        return last, outputs, states

    return rnn


def _only(mask: Any) -> Tensor | None:
    return mask[0] if isinstance(mask, (list, tuple)) else mask


def _states_of_cells(layer: Layer) -> list[int]:
    """How many states each of a layer's cells has, as far as it says."""
    cells = getattr(layer.cell, "cells", [layer.cell])
    return [len(tf.nest.flatten(getattr(cell, "state_size", None))) for cell in cells]


class _Loop:
    """A loop over time whose states are perturbed.

    Args:
      step: ``step(x, states) -> (output, states)``, the states nested as ``initial`` is.
      sequences: ``(batch, time, ...)``.
      initial: The states to begin with.
      mask: ``(batch, time)``; a padded step hands its states and its output on.
      backwards: Begin at the end.
      padded_with_zeros: The output of a padded step is zero.
      over_time: Keras's own loop.
    """

    def __init__(
        self,
        step: Callable[[Tensor, Structure], tuple[Tensor, Structure]],
        sequences: Tensor,
        initial: Any,
        mask: Any,
        *,
        backwards: bool,
        padded_with_zeros: bool,
        over_time: Callable[..., Any],
    ) -> None:
        self.step = step
        self.sequences = sequences
        self.structure = initial
        self.initial = tf.nest.flatten(initial)
        self.mask = mask if mask is None or mask.shape.rank == 3 else mask[..., None]
        self.backwards = backwards
        self.padded_with_zeros = padded_with_zeros
        self.over_time = over_time
        self.states: list[LoopState] = []

    def run(self, counts: Sequence[int]) -> tuple[Tensor, Tensor, Structure]:
        """Last output, all outputs and last states; ``counts`` says how many states each cell has."""
        perturbations = [self._zeros(state, state.dtype) for state in self.initial]
        # Of 32 bits: where it transposes narrower ones slowly, TensorFlow complains on standard error.
        replaced = [self._zeros(state, tf.int32) for state in self.initial]
        masks = [] if self.mask is None else [tf.cast(self.mask, tf.bool)]
        carried = [] if self.mask is None else [tf.zeros_like(self.step(self.sequences[:, 0], self.structure)[0])]
        # Nested inputs have no length of their own that Keras could read; the loop ends with the input all the same.
        unbounded = np.int32(2**31 - 1)
        _, emitted, last = self.over_time(
            self._perturbed_step,
            (self.sequences, *masks, *perturbations, *replaced),
            [*self.initial, *carried],
            go_backwards=self.backwards,
            input_length=unbounded,
            return_all_outputs=True,
        )
        outputs, *values = emitted
        if self.backwards:
            values = [tf.reverse(v, [1]) for v in values]  # as the input's time runs, like the perturbations
        kinds = _kinds(counts if sum(counts) == len(values) else [len(values)])
        found = zip(values, perturbations, replaced, kinds, strict=True)
        self.states = [LoopState(*each) for each in found]
        final = tf.nest.pack_sequence_as(self.structure, list(last)[: len(self.initial)])
        return outputs[:, -1], outputs, final

    def _zeros(self, state: Tensor, dtype: Any) -> Tensor:
        """One for every entry of a state at every step."""
        static = [self.sequences.shape[0], self.sequences.shape[1], *state.shape[1:]]
        dynamic = tf.concat([tf.shape(self.sequences)[:2], tf.shape(state)[1:]], 0)
        return tf.ensure_shape(tf.zeros(dynamic, dtype), static)

    def _perturbed_step(self, inputs: Sequence[Tensor], states: Sequence[Tensor]) -> tuple[Any, list[Tensor]]:
        x, *rest = inputs
        old = list(states[: len(self.initial)])
        mask = None if self.mask is None else rest.pop(0)
        output, new = self.step(x, tf.nest.pack_sequence_as(self.structure, old))
        finals = []
        for state, before, added, replaced in zip(
            tf.nest.flatten(new), old, rest[: len(old)], rest[len(old) :], strict=True
        ):
            perturbed = _perturb(state, old, added, replaced)
            output = perturbed if output is state else output
            # A padded step hands its old state on, which can be perturbed as well.
            handed_on = None if mask is None else _added(before, added, replaced)
            finals.append(perturbed if mask is None else _where(mask, perturbed, handed_on))
        if mask is None:
            return (output, *finals), finals
        previous = states[len(self.initial)]
        output = _where(mask, output, tf.zeros_like(previous) if self.padded_with_zeros else previous)
        return (output, *finals), [*finals, output]


def _kinds(counts: Sequence[int]) -> list[str]:
    """The kind of each state, flattened; cells that are stacked have states of their own."""
    return [kind for count in counts for kind in ["hidden", "cell", *["other"] * count][:count]]


def _perturb(state: Tensor, old: Sequence[Tensor], perturbation: Tensor, replaced: Tensor) -> Tensor:
    if any(state is one for one in old):
        # A cell that hands its old state on: its users are not this step's.
        return _added(tf.identity(state), perturbation, replaced)
    users = list(state.consumers())
    perturbed = _added(state, perturbation, replaced)
    surgery.replace_input(users, state, perturbed)
    return perturbed


def _added(state: Tensor, perturbation: Tensor, replaced: Tensor) -> Tensor:
    # The plain op: what `tf.where` makes has a gradient of many ops, which sum over axes that might be broadcast.
    return tf.raw_ops.Select(condition=tf.not_equal(replaced, 0), x=perturbation, y=state + perturbation)


def _where(mask: Tensor, kept: Tensor, other: Any) -> Tensor:
    for _ in range(kept.shape.rank - mask.shape.rank):
        mask = mask[..., None]
    return tf.where(mask, kept, other)
