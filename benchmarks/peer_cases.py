"""The models on which gradtap and its peers answer the same question."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import keras

from benchmarks import handwritten, models
from benchmarks.handwritten import Tape

CLASS = 3


@dataclass(frozen=True)
class Case:
    """One model, one layer in it, and the hand-written tape that is the truth."""

    title: str
    build: Callable[[], keras.Model]
    shape: tuple[int, ...]
    layer: str
    hand: Callable[[keras.Model], Tape]
    addresses: tuple[str, ...] = ()
    rounds: int = 40
    logits: bool = False  # differentiate what goes into the softmax, the output of the layer `logits`

    @property
    def taps(self) -> list[str]:
        """What gradtap is asked for: the layer, or each of its calls."""
        return list(self.addresses or (self.layer,))


def _split(layer: str) -> Callable[[keras.Model], Tape]:
    return lambda model: handwritten.through_split(model, [layer], CLASS)


def _rewritten() -> keras.Model:
    """The subclassed model made functional by its user, as peers that ask for `model.inputs` need it."""
    model = models.tiny_cnn()
    inputs = keras.Input((28, 28, 1))
    return keras.Model(inputs, model.call(inputs))


CASES = {
    "resnet50": Case(
        "ResNet50, `conv4_block6_out`, batch 4",
        models.resnet50,
        (4, 224, 224, 3),
        "conv4_block6_out",
        _split("conv4_block6_out"),
        rounds=8,
    ),
    "functional": Case(
        "functional CNN, `conv1`, batch 8", models.functional_cnn, (8, 28, 28, 1), "conv1", _split("conv1")
    ),
    "logits": Case(
        "the same, of the logit (softmax apart)",
        lambda: models.functional_cnn(softmax_apart=True),
        (8, 28, 28, 1),
        "conv1",
        lambda model: handwritten.through_split(models.up_to(model, "logits"), ["conv1"], CLASS),
        logits=True,
    ),
    "subclassed": Case(
        "subclassed CNN, `conv1`, batch 8",
        models.tiny_cnn,
        (8, 28, 28, 1),
        "conv1",
        lambda model: handwritten.through_layers(model, CLASS),
    ),
    "rewritten": Case(
        "the subclassed CNN, made functional by its user", _rewritten, (8, 28, 28, 1), "conv1", _split("conv1")
    ),
    "nested": Case(
        "backbone in a Sequential, `conv2` in the backbone",
        models.nested,
        (8, 28, 28, 1),
        "conv2",
        lambda model: handwritten.through_nest(model, "conv2", CLASS),
    ),
    "shared": Case(
        "a layer called twice, `shared`",
        models.shared_layer,
        (8, 28, 28, 1),
        "shared",
        lambda model: handwritten.through_both_calls(model, CLASS),
        addresses=("shared[0]", "shared[1]"),
    ),
    "residual": Case(
        "residual branch beside a skip, `branch`", models.residual, (8, 28, 28, 1), "branch", _split("branch")
    ),
}
