"""Attention relevance: attention, weighted by its gradient and rolled out over the blocks of a transformer."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from itertools import pairwise
from typing import Any

import tensorflow as tf

from gradtap import errors
from gradtap.asking import Settings, Unconnected, ask
from gradtap.differentiate import OfTarget
from gradtap.graph import surgery, walking
from gradtap.graph.resolve import Place
from gradtap.graph.scores import Score, widen
from gradtap.graph.tracing import ForwardGraph
from gradtap.results import AttentionRelevance, TapValues
from gradtap.targets import as_target
from gradtap.types import Address, Model, Structure, Tensor


@surgery.unconverted
def attention_relevance(
    model: Model,
    inputs: Structure,
    *,
    target: Any = None,
    at: Address | Sequence[Address] = "**:attention",
    token: int | None = None,
    unconnected: Unconnected = "error",
    batch_size: int | None = None,
    training: bool = False,
    seed: int | None = None,
    checks: bool = True,
) -> AttentionRelevance:
    r"""Attention relevance: how much each token has to do with each other one, for the target, over all blocks.

    For the attention :math:`A_l` of block :math:`l` with its heads :math:`h`, and the gradient of the target there,

    .. math:: \bar A_l = \frac 1H \sum_h \mathrm{relu}\left(\frac{\partial F}{\partial A_{l,h}} \odot A_{l,h}\right),
       \qquad R_l = R_{l-1} + \bar A_l R_{l-1}, \qquad R_0 = 1 .

    Row :math:`i` of the last :math:`R` says what token :math:`i` of the last block has been made of, as far as it
    matters for the target. For a model that reads its answer from one token, that token's row is what counts.

    Args:
      model: See `gradtap.gradients`.
      inputs: See `gradtap.gradients`.
      target: See `gradtap.gradients`.
      at: The attention of the blocks, all of one stack of self-attention; they are taken in forward order.
      token: The row that is wanted: 0 for a class token that comes first, -1 for the last one; None for all rows.
      unconnected: See `gradtap.gradients`.
      batch_size: See `gradtap.gradients`.
      training: See `gradtap.gradients`.
      seed: See `gradtap.gradients`.
      checks: See `gradtap.gradients`.

    Returns:
      `AttentionRelevance`: under ``":input"`` the relevance ``(batch, tokens, tokens)``, or ``(batch, tokens)`` with
      ``token``, float32 or wider; ``.blocks`` maps the address of each block to its :math:`\bar A`.

    Raises:
      SideError: An address is no self-attention, or there are several stacks.
      GradtapError: One class for each cause; ``docs/errors`` has a page for each.

    Example:
      >>> import gradtap as gt, keras, numpy as np
      >>> x = keras.Input((5, 8))
      >>> attended = keras.layers.MultiHeadAttention(2, 4, name="block")(x, x)
      >>> model = keras.Model(x, keras.layers.Dense(3)(attended[:, 0]))
      >>> gt.attribution.attention_relevance(model, np.ones((2, 5, 8)), target=1, token=0).only.shape
      TensorShape([2, 5])

    References:
      Chefer, Gur, Wolf, Generic Attention-Model Explainability for Interpreting Bi-Modal and Encoder-Decoder
      Transformers, https://arxiv.org/abs/2103.15679, 2021: equations 5 and 6.
    """
    if token is not None and (not isinstance(token, int) or isinstance(token, bool)):
        raise errors.ArgumentError(f"token={token!r} is no int.", [], "the place of a token, or None for all")
    settings = Settings(unconnected, batch_size, training, seed, checks)
    program, parts = ask(model, inputs, _Rollout(as_target(target), at), settings)
    blocks = TapValues.at(program.places, parts["blocks"])
    [rolled] = parts["attributions"]
    count = rolled.shape[1]
    if token is not None and count is not None and not -count <= token < count:
        raise errors.ArgumentError(
            f"there is no token {token}: there are {count} tokens.", [], "they count from 0, or from the end with -1"
        )
    rolled = rolled if token is None else rolled[:, token]
    return AttentionRelevance([(":input", rolled)], skipped=program.skipped, blocks=blocks)


class _Rollout(OfTarget):
    """The rollout in the graph of the gradients."""

    copies = 1

    def options(self) -> tuple[Hashable, ...]:
        return ("attention relevance",)

    def parts(
        self, graph: ForwardGraph, places: list[Place], slopes: list[Tensor], score: Score
    ) -> dict[str, list[Tensor]]:
        errors.raise_all([found for place in places if (found := _no_self_attention(graph, place))])
        for before, after in pairwise(places):
            if after.tensor.op not in walking.descendants([before.tensor]):
                raise _side_by_side(before, after)
        blocks = [
            _over_heads(tf.nn.relu(widen(place.tensor) * widen(slope)))
            for place, slope in zip(places, slopes, strict=True)
        ]
        rolled = tf.eye(tf.shape(blocks[0])[1], dtype=blocks[0].dtype)[None]
        for block in blocks:
            rolled += tf.matmul(block, tf.broadcast_to(rolled, tf.shape(block)))
        return {"attributions": [rolled], "blocks": blocks, "score": [score.value]}


def _over_heads(weighed: Tensor) -> Tensor:
    """The mean over the heads, where a layer has several."""
    return tf.reduce_mean(weighed, axis=1) if weighed.shape.rank == 4 else weighed


def _side_by_side(one: Place, other: Place) -> errors.GradtapError:
    return errors.SideError(
        f"`{one.key}` and `{other.key}` stand side by side, and not in one stack: neither is made of the other.",
        [],
        "name the attention of one stack: at=[...]",
    )


def _no_self_attention(graph: ForwardGraph, place: Place) -> errors.GradtapError | None:
    """Why a place cannot be a block of the stack."""
    if place.tap.face != "attention" or place.tensor.shape.rank not in (3, 4):
        return errors.SideError(
            f"`{place.key}` is no attention over tokens: its activations are {tuple(place.tensor.shape)}.",
            [],
            "give the side `:attention` of attention layers, or leave `at` out for all of them",
        )
    call = graph.calls[place.tap.path][place.tap.call if isinstance(place.tap.call, int) else 0]
    given = {walking.same_value_source(t).ref() for t in call.inputs if surgery.is_float(t) and t.shape.rank == 3}
    if len(given) > 1:
        return errors.SideError(
            f"`{place.key}` attends from one sequence to another one; the rollout is over a stack of self-attention.",
            [],
            'name one stack: at="encoder/**:attention"',
        )
    return None
