"""Run a model with activations replaced; everything that bypasses a replaced tap stays at the true inputs."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import Any

import tensorflow as tf

from gradtap import errors
from gradtap.asking import Settings, Unconnected, ask
from gradtap.graph import surgery
from gradtap.graph.arrays import like
from gradtap.graph.keeping import Trace
from gradtap.graph.resolve import Place, resolve
from gradtap.graph.tracing import ForwardGraph
from gradtap.program import Program, assemble, program_for
from gradtap.types import Address, Model, Structure, Tensor, TensorLike

Replacement = TensorLike | Callable[[Tensor], TensorLike]


@surgery.unconverted
def patch(
    model: Model,
    inputs: Structure,
    replacements: Mapping[Address, Replacement],
    *,
    unconnected: Unconnected = "error",
    batch_size: int | None = None,
    training: bool = False,
    seed: int | None = None,
    checks: bool = True,
) -> Structure:
    """Run a model with activations replaced.

    What depends on a replaced tap follows it; what bypasses it, a skip connection or another branch, is computed from
    the inputs as always. The states of a recurrent layer follow each other: an array gives them at every
    step; a function changes those entries that it returns changed, and the others follow the steps before.

    Args:
      model: See `gradtap.gradients`.
      inputs: See `gradtap.gradients`.
      replacements: For each address an array of the shape of its activations, ``(batch, ...)`` or ``(1, ...)`` for all
        examples, or a function from the activations to such an array. A function sees the activations as they are
        after the replacements before it.
      unconnected: Accepted for uniformity; nothing is differentiated.
      batch_size: See `gradtap.gradients`.
      training: See `gradtap.gradients`.
      seed: See `gradtap.gradients`.
      checks: Warn of NaN and infinity, in the same run.

    Returns:
      The model's outputs, nested as the model returns them.

    Raises:
      GradtapError: One class for each cause; ``docs/errors`` has a page for each.

    Example:
      >>> import gradtap as gt, keras, numpy as np
      >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, name="hidden"), keras.layers.Dense(2)])
      >>> outputs = gt.patch(model, np.ones((5, 4)), {"hidden": lambda h: 0.0 * h})
      >>> bool(np.allclose(outputs, model.layers[-1].bias))
      True
    """
    settings = Settings(unconnected, batch_size, training, seed, checks)
    if not isinstance(replacements, Mapping) or not replacements:
        raise errors.ArgumentError(
            "nothing to replace.", [("received", repr(replacements)[:120])], "give {address: array or function}"
        )
    program, parts = ask(model, inputs, _Patch(dict(replacements)), settings)
    return program.pack_outputs(parts["outputs"])


class _Patch:
    """A program of stages: up to each place whose replacement is a function of what is there, then to the outputs."""

    def __init__(self, replacements: Mapping[Any, Replacement]) -> None:
        self.replacements = replacements

    def key(self, graph: ForwardGraph) -> Hashable:
        return None  # what runs between the stages is the caller's; the stages are kept

    def values(self, graph: ForwardGraph, batch: int | None) -> list[TensorLike]:
        found = self._places(graph)
        instead = ["a function of the activations, such as lambda a: 0.0 * a"]
        return [like(r, p.tensor, batch, f"values for `{p.key}`", instead) for p, r in found if not callable(r)]

    def _places(self, graph: ForwardGraph) -> list[tuple[Place, Replacement]]:
        """The replaced places, in forward order."""
        by_key = {p.key: r for address, r in self.replacements.items() for p in resolve(graph, address)}
        found = resolve(graph, list(self.replacements))
        return [(place, by_key[place.key]) for place in found]

    def build(self, trace: Trace, graph: ForwardGraph, settings: Settings) -> Program:
        found = self._places(graph)
        places = [place for place, _ in found]

        def stage(count: int) -> Program:
            """From the inputs and the first so many replaced places to the next one, or to the outputs."""
            fetched = [places[count].tensor] if count < len(places) else graph.outputs
            watch = dict(zip(graph.output_names, graph.outputs, strict=True)) if count == len(places) else None
            fed = [*graph.all_feeds, *(tensor for place in places[:count] for tensor in place.feeds)]
            feeds = list({tensor.ref(): tensor for tensor in fed}.values())
            key = ("patch", tuple(p.tensor.name for p in places), count, settings.checks, trace.jit_compile)
            return program_for(
                graph,
                key,
                lambda: assemble(
                    graph,
                    feeds,
                    {"outputs": fetched},
                    places[:count],
                    watch=watch if settings.checks else None,
                    jit_compile=trace.jit_compile,
                ),
            )

        def run(*feeds: Tensor) -> list[Tensor]:
            inputs, given = feeds[: len(graph.all_feeds)], iter(feeds[len(graph.all_feeds) :])
            # By tensor: an input can be replaced as well, and two addresses may mean the same.
            fed = dict(zip((tensor.ref() for tensor in graph.all_feeds), inputs, strict=True))
            for count, (place, replacement) in enumerate(found):
                if callable(replacement):
                    activations = stage(count).run(*fed.values())[0]
                    what = f"replaced values of `{place.key}`"
                    value = like(replacement(activations), place.tensor, activations.shape[0], what)
                    changed = tf.not_equal(value, activations)
                else:
                    value = _for_each(next(given), inputs[0])
                    changed = tf.fill(tf.shape(value), True)
                if place.state is not None:
                    fed[place.state.replaced.ref()] = tf.cast(changed, place.state.replaced.dtype)
                    value = tf.where(changed, value, tf.zeros_like(value))
                fed[place.variable.ref()] = value
            return list(stage(len(found)).run(*fed.values()))

        last = stage(len(found))
        return Program(run, places, last.counts, graph.pack_outputs, last.watched)


def _for_each(value: Tensor, inputs: Tensor) -> Tensor:
    """A value for all examples becomes one for each, where only the run itself knows how many there are."""
    unknown = inputs.shape.rank and inputs.shape[0] is None
    return tf.repeat(value, tf.shape(inputs)[0], axis=0) if unknown and value.shape[0] == 1 else value
