"""Receptive fields as results: by address, with the numbers of the only one at hand."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from gradtap.graph.resolve import Place
from gradtap.html_table import Cell, Picture, html_table
from gradtap.receptive.fields import Field
from gradtap.receptive.spread import Spread
from gradtap.results import TapValues
from gradtap.showing import face

_Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class ReceptiveField:
    """What the units of a layer can see of the input, axis by axis; see `gradtap.receptive.theoretical`.

    Args:
      size: Positions from the first to the last that a unit sees, padding included; where units differ, after an
        up-sampling, the largest.
      stride: Positions of the input from one unit to the next; below 1 after an up-sampling, 0 where all see the same.
      start: The first position that unit 0 sees, negative where padding reaches out.
      everything: Whether every unit sees the whole input.
      because: The op from which on all units see the same; empty where none does.
      input_size: The length of each axis of the input.
      units: How many units there are along each axis of the layer between batch and channels.
      by_axis: What is seen of each axis of the input, as intervals that repeat from period to period.
      along: Along which axis of the layer the units move over it; None where all see the same.
    """

    size: tuple[int, ...]
    stride: tuple[float, ...]
    start: tuple[int, ...]
    everything: bool
    because: str
    input_size: tuple[int, ...]
    units: tuple[int, ...]
    by_axis: tuple[Field, ...]
    along: tuple[int | None, ...]

    @classmethod
    def of(cls, spreads: Sequence[Spread | None], lengths: Sequence[int], shape: Sequence[int]) -> ReceptiveField:
        """From what the elements of a tensor see of each axis.

        Args:
          spreads: One for each axis; None where nothing is seen of it.
          lengths: Of the axes.
          shape: Of the tensor.
        """
        plain = [None if s is None else s.plain() for s in spreads]
        plain = [s if s is None or s.outer == s.inner == s.interleaved == 1 else s.mixed("") for s in plain]
        found = [Field.constant(0, -1) if s is None else s.field for s in plain]
        return cls(
            tuple(f.size for f in found),
            tuple(_number(f.stride) for f in found),
            tuple(f.at(0)[0] for f in found),
            all(f.shift == 0 and f.at(0) == (0, n - 1) for f, n in zip(found, lengths, strict=True)),
            next((s.because for s in spreads if s is not None and s.because), ""),
            tuple(lengths),
            tuple(shape[1:-1]),
            tuple(found),
            tuple(None if s is None or s.axis is None else s.axis - 1 for s in plain),
        )

    def of_unit(self, unit: int | Sequence[int]) -> tuple[tuple[int, int], ...]:
        """What one unit sees: the first and the last position of each axis of the input, padding included.

        Args:
          unit: Its place among the axes of the layer between batch and channels.
        """
        place = tuple(unit) if isinstance(unit, Sequence) else (unit,)
        return tuple(
            field.at(0 if axis is None else place[axis]) for field, axis in zip(self.by_axis, self.along, strict=True)
        )

    def region(self, unit: int | Sequence[int]) -> tuple[slice, ...]:
        """What one unit sees of the input, as slices of its axes; see `of_unit`."""
        ends = zip(self.of_unit(unit), self.input_size, strict=True)
        return tuple(slice(min(max(first, 0), n), max(min(last + 1, n), 0)) for (first, last), n in ends)

    def __str__(self) -> str:
        if self.everything:
            return f"everything, {_by(self.input_size)}" + (f", from `{self.because}` on" if self.because else "")
        return f"size {_by(self.size)}, stride {_by(self.stride)}, start {self.start}"


def _number(value: Fraction) -> float:
    return int(value) if value.denominator == 1 else float(value)


def _by(numbers: Sequence[float]) -> str:
    return " x ".join(f"{n:g}" for n in numbers)


class ReceptiveFields(TapValues):
    """A read-only mapping from address to `ReceptiveField`, with the numbers of the only one."""

    @property
    def size(self) -> tuple[int, ...]:
        """`ReceptiveField.size` of the only tap."""
        return self._only.size

    @property
    def stride(self) -> tuple[float, ...]:
        """`ReceptiveField.stride` of the only tap."""
        return self._only.stride

    @property
    def start(self) -> tuple[int, ...]:
        """`ReceptiveField.start` of the only tap."""
        return self._only.start

    @property
    def everything(self) -> bool:
        """`ReceptiveField.everything` of the only tap."""
        return self._only.everything

    @property
    def _only(self) -> ReceptiveField:
        found: ReceptiveField = self.only
        return found

    def __repr__(self) -> str:
        rows = [f"  {key!r}: {field}" for key, field in self.items()]
        return "\n".join([f"{type(self).__name__}({{", *rows, "})"])


@dataclass(frozen=True)
class EffectiveField:
    """How much each position of the input moves a unit; see `gradtap.receptive.effective`.

    Args:
      map: Mean absolute gradient, ``(height, width)`` for images; a first axis ``units`` for a list of them.
      sigma: Deviation along each axis, in positions, of a Gaussian fitted to the map; NaN for a map of zeros.
      share: Of the theoretical field, that with more than 4.55 % of the largest value; a float, or ``(units,)``.
      unit: The place of the unit, or of each of them.
      theory: The theoretical field.
    """

    map: _Array
    sigma: tuple[float, ...] | _Array
    share: float | _Array
    unit: Any
    theory: ReceptiveField

    @classmethod
    def of_units(cls, fields: Sequence[EffectiveField]) -> EffectiveField:
        """Those of several units of a layer in one."""
        return cls(
            np.stack([f.map for f in fields]),
            np.stack([f.sigma for f in fields]),
            np.array([f.share for f in fields]),
            [f.unit for f in fields],
            fields[0].theory,
        )

    def __str__(self) -> str:
        if np.ndim(self.sigma) > 1:
            return f"{len(self.map)} units"
        sigma = _by([float(f"{s:.3g}") for s in np.ravel(self.sigma)])
        return f"sigma {sigma}, {float(self.share):.0%} of {self.theory}"


class EffectiveFields(TapValues):
    """A read-only mapping from address to `EffectiveField`, with the numbers of the only one.

    Args:
      values: Pairs of a key and a field.
      places: Where each belongs.
      skipped: Places that a pattern fits and that the input does not move, with the reason.
    """

    def __init__(
        self,
        values: Iterable[tuple[str, Any]],
        places: Sequence[Place] | None = None,
        *,
        skipped: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(values, places)
        self.skipped = dict(skipped or {})

    @property
    def map(self) -> _Array:
        """`EffectiveField.map` of the only tap."""
        return self._only.map

    @property
    def sigma(self) -> tuple[float, ...] | _Array:
        """`EffectiveField.sigma` of the only tap."""
        return self._only.sigma

    @property
    def share(self) -> float | _Array:
        """`EffectiveField.share` of the only tap."""
        return self._only.share

    @property
    def _only(self) -> EffectiveField:
        found: EffectiveField = self.only
        return found

    def __repr__(self) -> str:
        rows = [f"  {key!r}: {field}" for key, field in self.items()]
        return "\n".join([f"{type(self).__name__}({{", *rows, "})"])


@dataclass(frozen=True)
class Patch:
    """A region of an input that excites a channel.

    Args:
      crop: What its unit can see, cut out of the input, ``(height, width, channels)`` of an image; NumPy.
      activation: Of the unit.
      example: Number of the example in the data.
      unit: Its place among the axes of the layer between batch and channels.
      region: Where it was cut out, slices of the input.
    """

    crop: _Array
    activation: float
    example: int
    unit: tuple[int, ...]
    region: tuple[slice, ...]


class StrongestPatches(Sequence[Patch]):
    """The regions that excite a channel most, the strongest first; see `gradtap.receptive.patches`.

    Args:
      found: The regions.
      at: The address of the layer.
      channel: The channel.
      searched: How many examples there were.
    """

    def __init__(self, found: Sequence[Patch], at: str, channel: int, searched: int) -> None:
        self._found = tuple(found)
        self.at = at
        self.channel = channel
        self.searched = searched

    def __getitem__(self, index: Any) -> Any:
        return self._found[index]

    def __len__(self) -> int:
        return len(self._found)

    def __repr__(self) -> str:
        rows = [f"  {p.activation:.4g} at {p.unit} of example {p.example}" for p in self._found]
        return "\n".join([f"{self._caption()}:", *rows])

    def _caption(self) -> str:
        return f"channel {self.channel} of `{self.at}`, the strongest of {self.searched} examples"

    def _repr_html_(self) -> str:
        draw = face("gradtap.report.pictures", "of_image")
        rows: list[list[Cell]] = []
        for number, patch in enumerate(self._found, start=1):
            row: list[Cell] = [str(number), f"{patch.activation:.4g}", str(patch.example), str(patch.unit)]
            source = draw(patch.crop)
            rows.append(row + ([Picture(source, f"region of example {patch.example}")] if source else []))
        head = ["", "activation", "example", "unit", *(["region"] if any(len(row) > 4 for row in rows) else [])]
        return html_table(head, rows, caption=self._caption())
