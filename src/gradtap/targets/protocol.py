"""What every target can do."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Protocol, runtime_checkable

from gradtap.graph.scores import Score
from gradtap.graph.tracing import ForwardGraph
from gradtap.types import TensorLike


@runtime_checkable
class Target(Protocol):
    """What every target can do."""

    def key(self, graph: ForwardGraph) -> Hashable:
        """Checks the target against the graph. Equal keys: the same ops, only the fed values differ."""

    def build(self, graph: ForwardGraph) -> Score:
        """Add the target's ops to the graph; called inside of it."""

    def values(self, graph: ForwardGraph, batch: int | None) -> list[TensorLike]:
        """What to feed to the score's placeholders; each has one row for each example, or one row for all."""
