"""The classes that a model predicts, for questions about another run than the one they are predicted in."""

from __future__ import annotations

from typing import Any

import numpy as np

from gradtap import errors
from gradtap.asking import Settings
from gradtap.differentiate import activations
from gradtap.types import Model, Structure


def held_target(model: Model, inputs: Structure, target: Any, settings: Settings) -> Any:
    """A target that stays the same where the inputs or the weights change: ``"predicted"`` becomes a class for each.

    Args:
      model: The model.
      inputs: One batch.
      target: As the user gave it.
      settings: The keywords of the call.

    Raises:
      OutputChoiceError: The model has no single output of classes.
    """
    if not (isinstance(target, str) and target == "predicted"):
        return target
    outputs = activations(
        model, inputs, at=":output", batch_size=settings.batch_size, training=settings.training, seed=settings.seed
    )
    if len(outputs) > 1 or outputs.only.shape.rank != 2:
        raise errors.OutputChoiceError(
            'target="predicted" needs one output of classes, (batch, classes).',
            [("outputs", ", ".join(f"`{key}` {tuple(value.shape)}" for key, value in outputs.items()))],
            "give the classes: gt.targets.class_score(k, output=...)",
        )
    return np.argmax(outputs.only, axis=1).tolist()
