"""How what is seen of one input axis lies in a tensor: along which axis, and where it goes with the elements."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod

from gradtap.receptive.fields import Field, Reads
from gradtap.receptive.windows import repeated

Shape = Sequence[int]


@dataclass(frozen=True)
class Spread:
    """What the elements of a tensor see of one axis of the input.

    The element at coordinate ``(o * length + u) * inner + i`` of the axis sees what `field` says of unit ``u``.

    Args:
      field: What each unit sees.
      positions: Length of the input axis.
      axis: Of the tensor; None where all of its elements see the same.
      outer: What else the axis holds, before the units.
      length: How many units there are.
      inner: What else the axis holds, behind the units.
      interleaved: How many units stand side by side in the batch instead, where a dilation was made of space and batch.
      because: The op from which on all elements see the same.
    """

    field: Field
    positions: int
    axis: int | None
    outer: int = 1
    length: int = 1
    inner: int = 1
    interleaved: int = 1
    because: str = ""

    @classmethod
    def of_input(cls, axis: int, positions: int) -> Spread:
        """The input itself."""
        return cls(Field.identity(), positions, axis, length=positions)

    def mixed(self, because: str) -> Spread:
        """What elements see that are made of all of the units."""
        if self.axis is None:
            return self
        return Spread(self.field.of_all(self.length, self.positions), self.positions, None, because=because)

    def moved(self, axis: int) -> Spread:
        """The same along another axis."""
        return replace(self, axis=axis)

    def plain(self) -> Spread:
        """The same with a unit of its own for each coordinate of the axis, where that can be."""
        if self.outer != 1 or self.inner == 1:
            return self
        field = self.field.through(repeated(self.inner))
        return self if field is None else replace(self, field=field, length=self.length * self.inner, inner=1)

    def through(self, op: Reads, length: int, because: str) -> Spread:
        """What the units behind an op see that reads along the axis.

        Args:
          op: What it reads.
          length: How many units there are behind it.
          because: Name of the op.
        """
        here = self.plain()
        field = here.field.through(op) if here.outer == here.inner == 1 else None
        return self.mixed(because) if field is None else replace(here, field=field, length=length)

    def reshaped(self, before: Shape, after: Shape, because: str) -> Spread:
        """The same after the elements were put into another shape, in their order.

        Args:
          before: The shape so far.
          after: The new one.
          because: Name of the op.
        """
        if self.axis is None:
            return self
        if tuple(before[: self.axis + 1]) == tuple(after[: self.axis + 1]):
            return self
        behind = prod(before[self.axis + 1 :])
        apart = self.inner * behind
        if self.length == 1 or not behind or self.interleaved != 1:
            # An axis of one position cannot be told from others; what stands behind it may tell.
            same = [j for j, n in enumerate(after) if n == before[self.axis] and prod(after[j + 1 :]) == behind]
            return self.moved(same[0]) if len(same) == 1 else self.mixed(because)
        for j, size in enumerate(after):
            rest = prod(after[j + 1 :])
            if apart % rest == 0 and rest * size >= apart * self.length and size % (apart // rest * self.length) == 0:
                inner = apart // rest
                return replace(self, axis=j, inner=inner, outer=size // (inner * self.length))
        return self.mixed(because)

    def united(self, other: Spread, because: str) -> Spread:
        """What elements see that are made of two others in the same place.

        Args:
          other: What the other sees.
          because: Name of the op.
        """
        one, two = self.plain(), other.plain()
        lie = [(s.axis, s.outer, s.length, s.inner, s.interleaved) for s in (one, two)]
        field = one.field.united(two.field) if lie[0] == lie[1] else None
        if field is not None:
            return replace(one, field=field, because=one.because or two.because)
        reason = self.because or other.because or because
        both = one.mixed(reason).field.united(two.mixed(reason).field)
        return Spread(both or Field.constant(0, self.positions - 1), self.positions, None, because=reason)
