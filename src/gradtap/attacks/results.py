"""What an attack found."""

from __future__ import annotations

from dataclasses import dataclass

from gradtap.html_table import html_table
from gradtap.types import Structure, Tensor

#: So many examples a notebook shows.
_SHOWN = 20


@dataclass(frozen=True)
class Adversarial:
    """Examples that were changed so that a model says something else.

    Args:
      examples: The changed inputs, or the changed activations at another tap, ``(batch, ...)``.
      perturbation: The examples less what they were.
      success: Whether the final prediction differs from the label, or equals it where the attack was targeted,
        ``(batch,)``; where the model has no classes, whether the loss has come closer to what was wanted.
      distance: The norm of each perturbation, ``(batch,)``, in units of the tap.
      outputs: What the model says of the examples, nested as it returns it.
      steps: How many steps each example took, ``(batch,)`` int32.
      tap: Where the change was made.
    """

    examples: Tensor
    perturbation: Tensor
    success: Tensor
    distance: Tensor
    outputs: Structure
    steps: Tensor
    tap: str = ":input"

    def __repr__(self) -> str:
        shape = tuple(self.examples.shape)
        done = "" if not hasattr(self.success, "numpy") else f", success={float(self.success.numpy().mean()):.0%}"
        return f"{type(self).__name__}({self.tap} {shape}{done})"

    def _repr_html_(self) -> str:
        if not hasattr(self.success, "numpy"):
            return html_table(["attack"], [[repr(self)]])
        columns = (self.success.numpy(), self.distance.numpy(), self.steps.numpy())
        rows = [
            [str(i), "yes" if success else "no", f"{distance:.4g}", str(steps)]
            for i, (success, distance, steps) in enumerate(zip(*columns, strict=True))
        ]
        shown = rows[:_SHOWN]
        below = [f"and {len(rows) - _SHOWN} more"] if len(rows) > _SHOWN else []
        return html_table(["example", "success", "distance", "steps"], shown, caption=repr(self), below=below)
