"""What is told about each tap: a few numbers that sum up its activation and its gradient."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

STRONGEST = 3
EXPLANATION = (
    "|activation| and |gradient| are 2-norms, averaged over the examples.\n"
    "zeros is the share of the gradient's entries that are exactly 0.\n"
    "channels are the three with the largest |sum over positions of activation × gradient|, the strongest first."
)


@dataclass(frozen=True)
class TapSummary:
    """One tap in numbers.

    Args:
      address: The tap.
      shape: Of its activation, batch axis included.
      activation_norm: Mean over the examples of the 2-norm.
      gradient_norm: Likewise.
      zeros: Share of the gradient's entries that are exactly 0.
      channels: Indices of the channels that matter most, the strongest first; empty where there is no channel axis.
    """

    address: str
    shape: tuple[int, ...]
    activation_norm: float
    gradient_norm: float
    zeros: float
    channels: list[int]

    def as_json(self) -> dict[str, Any]:
        """The same for JSON, which has no NaN and no infinity."""
        return {
            key: None if isinstance(value, float) and not math.isfinite(value) else value
            for key, value in asdict(self).items()
        }


def summarise(address: str, activation: Array, gradient: Array) -> TapSummary:
    """Sum up one tap.

    Args:
      address: The tap.
      activation: ``(batch, ...)``, of a float type.
      gradient: Of the same shape.

    Returns:
      Its numbers.
    """
    import numpy as np

    return TapSummary(
        address=address,
        shape=tuple(activation.shape),
        activation_norm=_mean_norm(activation),
        gradient_norm=_mean_norm(gradient),
        zeros=float(np.mean(gradient == 0)),
        channels=_strongest_channels(activation, gradient) if has_channels(address, gradient.ndim) else [],
    )


def has_channels(address: str, rank: int) -> bool:
    """Whether the last axis of a tap holds channels or units: the last axis of attention probabilities holds keys."""
    return rank >= 2 and not _is_attention(address)


def is_spatial(address: str, shape: Sequence[int]) -> bool:
    """Whether a tap is ``(batch, height, width, channels)`` with more than one place."""
    return len(shape) == 4 and shape[1] * shape[2] > 1 and not _is_attention(address)


def spatial_map(activation: Array, gradient: Array) -> Array:
    """Gradient x activation, summed over the channels: ``(batch, height, width)``, float64."""
    import numpy as np

    return np.asarray(np.einsum("bhwc,bhwc->bhw", activation, gradient, dtype=np.float64))


def _is_attention(address: str) -> bool:
    return address.rpartition(":")[2].partition(".")[0] == "attention"


def _mean_norm(values: Array) -> float:
    import numpy as np

    rows = values.reshape(len(values), -1)
    return float(np.sqrt(np.einsum("ij,ij->i", rows, rows, dtype=np.float64)).mean())


def _strongest_channels(activation: Array, gradient: Array) -> list[int]:
    import numpy as np

    batch, channels = gradient.shape[0], gradient.shape[-1]
    shape = (batch, -1, channels)
    sums = np.einsum("bpc,bpc->bc", activation.reshape(shape), gradient.reshape(shape), dtype=np.float64)
    weight = np.nan_to_num(np.abs(sums).mean(axis=0))
    # Stable, so that equal channels come in the order of their index; a channel that does not matter is not listed.
    order = np.argsort(-weight, kind="stable")[:STRONGEST]
    return [int(index) for index in order if weight[index] > 0]
