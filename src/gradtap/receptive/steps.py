"""One step from an input of an op to one of its outputs, with what is known of the op when the model ran."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from gradtap.types import Operation, Tensor


@dataclass(frozen=True)
class Step:
    """One input of an op, with what is known of the op.

    Args:
      op: The op.
      index: Which of its inputs what is seen comes by.
      output: Which of its outputs it goes to.
      shape: The shape of a tensor, when the model ran.
      value: What a tensor held when the model ran; for what decides about places, not for activations.
    """

    op: Operation
    index: int
    output: int
    shape: Callable[[Tensor], tuple[int, ...]]
    value: Callable[[Tensor], np.ndarray[Any, Any]]

    @property
    def before(self) -> tuple[int, ...]:
        """Shape of the input."""
        return self.shape(self.op.inputs[self.index])

    @property
    def after(self) -> tuple[int, ...]:
        """Shape of the output."""
        return self.shape(self.op.outputs[self.output])

    def ints(self, index: int) -> list[int]:
        """The numbers that an input of the op holds."""
        return [int(n) for n in np.ravel(self.value(self.op.inputs[index]))]
