"""Which positions of one axis the units along another see: intervals that repeat, moved on, period by period."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import gcd, lcm

#: A pattern that takes more units than this to repeat is of no use to anybody.
_LONGEST_PERIOD = 4096

#: What sees nothing: its end lies before its beginning.
_NOTHING = (1, 0)


@dataclass(frozen=True)
class Reads:
    """What an op reads along an axis: unit ``q * period + r`` reads ``reads[r]``, each plus ``q * shift``.

    Args:
      reads: For each unit of one period the positions that it reads; there may be none.
      shift: By how many positions a period moves on.
    """

    reads: tuple[tuple[int, ...], ...]
    shift: int

    @property
    def period(self) -> int:
        """Units until the pattern repeats."""
        return len(self.reads)


@dataclass(frozen=True)
class Field:
    """What units see: unit ``q * period + r`` sees ``first[r]`` to ``last[r]``, both plus ``q * shift``.

    Args:
      first: The first position that each unit of one period sees.
      last: The last one; before the first where a unit sees nothing.
      shift: By how many positions a period moves on.
    """

    first: tuple[int, ...]
    last: tuple[int, ...]
    shift: int

    @classmethod
    def identity(cls) -> Field:
        """Each unit sees the position of its own number."""
        return cls((0,), (0,), 1)

    @classmethod
    def constant(cls, first: int, last: int) -> Field:
        """All units see the same."""
        return cls((first,), (last,), 0)

    @classmethod
    def _of(cls, intervals: Sequence[tuple[int, int]], shift: int) -> Field:
        return cls(tuple(first for first, _ in intervals), tuple(last for _, last in intervals), shift)

    @property
    def period(self) -> int:
        """Units until the pattern repeats."""
        return len(self.first)

    @property
    def stride(self) -> Fraction:
        """Positions from one unit to the next, on average."""
        return Fraction(self.shift, self.period)

    @property
    def size(self) -> int:
        """Positions from the first to the last that a unit sees; the largest of a period."""
        return max(0, *(last - first + 1 for first, last in zip(self.first, self.last, strict=True)))

    def at(self, unit: int) -> tuple[int, int]:
        """The first and the last position that a unit sees."""
        turns, r = divmod(unit, self.period)
        return self.first[r] + turns * self.shift, self.last[r] + turns * self.shift

    def through(self, op: Reads) -> Field | None:
        """What the units behind an op see that reads the units of this field; None where no period is in sight."""
        period = op.period * (self.period // gcd(op.shift, self.period))
        if period > _LONGEST_PERIOD:
            return None
        found = []
        for unit in range(period):
            turns, r = divmod(unit, op.period)
            found.append(_hull([self.at(read + turns * op.shift) for read in op.reads[r]]))
        shift = self.shift * (period // op.period * op.shift) // self.period
        return Field._of(found, shift)

    def united(self, other: Field) -> Field | None:
        """What units see that see by two ways; None where the two do not move on alike."""
        period = lcm(self.period, other.period)
        if self.stride != other.stride or period > _LONGEST_PERIOD:
            return None
        found = [_hull([self.at(unit), other.at(unit)]) for unit in range(period)]
        return Field._of(found, int(self.stride * period))

    def of_all(self, length: int, positions: int) -> Field:
        """What some units together see, within the axis.

        Args:
          length: How many units there are.
          positions: How many positions.
        """
        units = (
            range(length) if length <= 2 * self.period else [*range(self.period), *range(length - self.period, length)]
        )
        first, last = _hull([self.at(unit) for unit in units])
        return Field.constant(max(first, 0), min(last, positions - 1))


def _hull(intervals: Sequence[tuple[int, int]]) -> tuple[int, int]:
    some = [(first, last) for first, last in intervals if last >= first]
    return (min(first for first, _ in some), max(last for _, last in some)) if some else _NOTHING
