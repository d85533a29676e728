"""Whole models, drawn: what blocks they are of, how wide, in what clothes.

Every block maps sequences ``(batch, time, width)`` to sequences, so any block follows any other. The last layer of
block i is called ``b{i}`` and cuts the model in two; ``in{i}`` lies on one of several ways through its block.
"""

from __future__ import annotations

import random
import tempfile
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

import keras
import numpy as np
from keras import layers

from reference.models import float64_policy

TIME, FEATURES, CLASSES = 3, 2, 3
ACTIVATIONS = ("tanh", "sigmoid", "gelu", "softplus", "softsign", "elu", "mish")
BLOCKS = ("dense", "convolution", "lstm", "gru", "attention", "skip", "shared", "branches", "normal")
CLOTHES = ("functional", "subclassed", "nested", "loaded")


@dataclass(frozen=True)
class Spec:
    """What a model is made of.

    Args:
      blocks: Kind, width and activation of each block.
      head: The activation that the model ends in.
    """

    blocks: tuple[tuple[str, int, str], ...]
    head: str | None

    @property
    def is_recurrent(self):
        return any(kind in ("lstm", "gru") for kind, _, _ in self.blocks)

    @property
    def cuts(self):
        return [f"b{i}" for i in range(len(self.blocks))]

    @property
    def taps(self):
        inner = {"attention": ["in{}"], "skip": ["in{}"], "branches": ["in{}"], "normal": ["in{}"]}
        inner["shared"] = ["in{}[0]", "in{}[1]"]
        return [*self.cuts, *(t.format(i) for i, block in enumerate(self.blocks) for t in inner.get(block[0], []))]


def drawn_spec(seed, kinds=BLOCKS):
    """A specification; the same seed gives the same."""
    draw = random.Random(seed)
    blocks = [(draw.choice(kinds), draw.randint(2, 4), draw.choice(ACTIVATIONS)) for _ in range(draw.randint(1, 3))]
    blocks[0] = (kinds[seed % len(kinds)], *blocks[0][1:])  # every kind comes up early
    return Spec(tuple(blocks), draw.choice(["softmax", "tanh", None]))


def _block(number, kind, width, activation):
    """The layers of a block and what is done with them."""
    last, inner = f"b{number}", f"in{number}"
    if kind == "convolution":
        made = [layers.Conv1D(width, 2, padding="same", activation=activation, name=last)]
    elif kind in ("lstm", "gru"):
        made = [{"lstm": layers.LSTM, "gru": layers.GRU}[kind](width, return_sequences=True, name=last)]
    elif kind == "attention":
        made = [layers.Dense(width), layers.MultiHeadAttention(2, 2, name=inner), layers.LayerNormalization(name=last)]
        return made, lambda x: _attend(x, *made)
    elif kind == "skip":
        made = [layers.Dense(width), layers.Dense(width, activation=activation, name=inner), layers.Add(name=last)]
        return made, lambda x: _skip(x, *made)
    elif kind == "shared":
        made = [layers.Dense(width), layers.Dense(width, activation=activation, name=inner), layers.Identity(name=last)]
        return made, lambda x: made[2](made[1](made[1](made[0](x))))
    elif kind == "branches":
        made = [layers.Dense(width, activation=activation, name=inner), layers.Conv1D(width, 2, padding="same")]
        join = layers.Multiply(name=last)
        return [*made, join], lambda x: join([made[0](x), made[1](x)])
    elif kind == "normal":
        made = [layers.Dense(2 * width, activation=activation, name=inner), layers.GroupNormalization(2, name=last)]
    else:
        made = [layers.Dense(width, activation=activation, name=last)]
    return made, lambda x: _chain(x, made)


def _chain(x, made):
    for layer in made:
        x = layer(x)
    return x


def _attend(x, into, attend, norm):
    h = into(x)
    return norm(h + attend(h, h))


def _skip(x, into, branch, add):
    h = into(x)
    return add([h, branch(h)])


class Subclassed(keras.Model):
    """The same layers in a model of the plainest kind."""

    def __init__(self, made, steps):
        super().__init__()
        self.made = made
        self.steps = [steps]  # a list of functions is no list of layers

    def call(self, x):
        for step in self.steps[0]:
            x = step(x)
        return x


class Drawn:
    """One architecture in all its clothes, with weights that can be drawn anew.

    Args:
      spec: What it is made of.
    """

    def __init__(self, spec):
        self.spec = spec
        keras.utils.set_random_seed(0)
        with float64_policy():
            blocks = [_block(i, *block) for i, block in enumerate(spec.blocks)]
            pool = layers.GlobalAveragePooling1D(name="pool")
            head = layers.Dense(CLASSES, activation=spec.head, name="scores")
        self._layers = [layer for made, _ in blocks for layer in made] + [pool, head]
        self._steps = [*(step for _, step in blocks), pool, head]
        self.functional = self._functional()

    def _functional(self):
        with float64_policy():
            x = keras.Input((TIME, FEATURES))
            y = x
            for step in self._steps:
                y = step(y)
            return keras.Model(x, y)

    @cached_property
    def nested(self):
        """The first block as a model inside of a model."""
        with float64_policy():
            x, y = keras.Input((TIME, FEATURES)), keras.Input((TIME, FEATURES))
            inner = keras.Model(x, self._steps[0](x), name="inner")
            z = inner(y)
            for step in self._steps[1:]:
                z = step(z)
            return keras.Model(y, z)

    @cached_property
    def subclassed(self):
        with float64_policy():
            return Subclassed(self._layers, self._steps)

    @cached_property
    def loaded(self):
        with tempfile.TemporaryDirectory() as folder, float64_policy():
            self.functional.save(Path(folder, "model.keras"))
            return keras.saving.load_model(Path(folder, "model.keras"))

    def with_weights(self, seed):
        """Draw all weights; the functional, subclassed and nested models share them."""
        rng = np.random.default_rng(seed)
        for weight in self.functional.weights:
            scale = rng.normal(size=weight.shape) * (0.9 / np.sqrt(max(1, weight.shape[0])) + 0.3)
            weight.assign(scale + ("gamma" in weight.path))
        return self

    def in_clothes(self, which):
        model = getattr(self, which)
        if which == "loaded":
            model.set_weights(self.functional.get_weights())
        return model


@cache
def drawn(spec):
    """One architecture is built and traced once, whatever weights it is given."""
    return Drawn(spec)
