"""Windows that slide over the positions of activations, and random masks of whole regions of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from gradtap import errors
from gradtap.graph.resolve import Place
from gradtap.types import Tensor

_Array = np.ndarray[Any, Any]


def positions(place: Place, here: Tensor) -> tuple[int, ...]:
    """The lengths of the axes between batch and channels; of activations ``(batch, units)`` the number of units.

    Args:
      place: The tap.
      here: Its activations ``(batch, ...)``.

    Raises:
      SideError: There are none.
      InputShapeError: They are not known, inside of a `tf.function`.
    """
    shape = here.shape.as_list()
    if len(shape) < 2:
        raise errors.SideError(
            f"`{place.key}` has no positions: its activations are {tuple(place.tensor.shape)}.",
            [],
            "tap a layer that returns (batch, ..., channels) or (batch, units)",
        )
    found = tuple(shape[1:-1] or shape[1:])
    if None in found:
        raise errors.InputShapeError(
            f"how many positions `{place.key}` has is not known inside of this tf.function.",
            [("activations", str(tuple(shape)))],
            ["give these axes a size in the input_signature", "call outside of the tf.function"],
        )
    return found


def over_channels(masks: Tensor, here: Tensor) -> Tensor:
    """Masks ``(runs, *positions)`` shaped to be applied to ``(batch, ...)``, which gives ``(runs, batch, ...)``."""
    return masks[:, None, ..., None] if here.shape.rank > 2 else masks[:, None]


def check_lengths(name: str, value: Any) -> None:
    """Raise unless a keyword is a positive int, or several.

    Raises:
      ArgumentError: It is not.
    """
    each = value if isinstance(value, (tuple, list)) else [value]
    if not each or any(isinstance(n, bool) or not isinstance(n, (int, np.integer)) or n < 1 for n in each):
        raise errors.ArgumentError(
            f"{name}={value!r} is not a number of positions.", [], f"{name}=4, or one for each axis: {name}=(4, 4)"
        )


def for_each_axis(name: str, value: Any, sizes: Sequence[int]) -> list[int]:
    """One int for each axis, where one may have been given for all.

    Raises:
      ArgumentError: There are more, or fewer.
    """
    each = list(value) if isinstance(value, (tuple, list)) else [value] * len(sizes)
    if len(each) != len(sizes):
        raise errors.ArgumentError(
            f"{name}={value!r} is for {len(each)} axes, and the activations have {len(sizes)} of positions.",
            [("positions", str(tuple(sizes)))],
            "give one int for all, or one for each",
        )
    return each


class Windows:
    """Windows of one size over the positions, the last of each axis flush with the border.

    Args:
      sizes: The lengths of the axes.
      window: The size of a window along each; all of an axis where it is longer.
      stride: From one window to the next.

    Raises:
      ArgumentError: There are lengths for other axes, or positions that no window covers.
    """

    def __init__(self, sizes: Sequence[int], window: Any, stride: Any) -> None:
        windows = for_each_axis("window", window, sizes)
        strides = windows if stride is None else for_each_axis("stride", stride, sizes)
        if any(s > w for s, w in zip(strides, windows, strict=True)):
            raise errors.ArgumentError(
                f"stride={stride!r} with window={window!r} leaves positions that no window covers.",
                [],
                "a stride is at most the window",
            )
        #: For each axis which positions each window covers, ``(windows, positions)`` of booleans.
        self.covered = [_covered(*each) for each in zip(sizes, windows, strides, strict=True)]
        self._grid = tuple(len(rows) for rows in self.covered)
        self.count = int(np.prod(self._grid))

    def masks(self, part: slice) -> Tensor:
        """Which positions some of the windows cover, ``(windows, *positions)`` of booleans."""
        which = np.unravel_index(np.arange(part.start, part.stop), self._grid)
        found: Tensor = tf.ones([part.stop - part.start] + [1] * len(self._grid), tf.bool)
        for axis, (index, rows) in enumerate(zip(which, self.covered, strict=True)):
            shape = [len(index)] + [1] * len(self._grid)
            shape[axis + 1] = rows.shape[1]
            found &= tf.constant(rows[index].reshape(shape))
        return found

    def means(self, values: Tensor) -> Tensor:
        """For each position the mean over the windows that cover it, from ``(windows, batch)`` to ``(batch, ...)``."""
        found = tf.reshape(values, (*self._grid, -1))
        for rows in self.covered:
            shares = rows / rows.sum(0)
            found = tf.tensordot(found, tf.constant(shares, found.dtype), [[0], [0]])
        return found


def _covered(size: int, window: int, stride: int) -> _Array:
    last = max(size - window, 0)
    starts = np.array([*range(0, last, stride), last])[:, None]
    places = np.arange(size)
    covered: _Array = (places >= starts) & (places < starts + window)
    return covered


@dataclass(frozen=True)
class RandomMasks:
    """Masks of random regions: coarse binary grids, enlarged bilinearly and shifted within a cell.

    The mask of a run is drawn by its number, so that any runs may be made at once.

    Args:
      cells: How many cells a grid has along each axis.
      probability: How likely a cell is kept.
      base: From the seed.
    """

    cells: Any
    probability: float
    base: int

    def grids(self, run: int, shape: Sequence[int]) -> tuple[_Array, _Array]:
        """The draws of a run: which cells are kept, and for each axis the shift as a share of a cell."""
        draws = np.random.default_rng(np.random.SeedSequence(self.base, spawn_key=(run,)))
        return draws.random(tuple(shape)) < self.probability, draws.random(len(shape))

    def masks(self, part: slice, sizes: Sequence[int], units: bool) -> Tensor:
        """The masks of some runs in [0, 1], ``(runs, *positions)``, float64.

        Args:
          part: Which runs.
          sizes: The lengths of the axes.
          units: Whether the positions are units, which have no neighbours and are kept or not one by one.
        """
        cells = list(sizes) if units else for_each_axis("cells", self.cells, sizes)
        drawn = [self.grids(run, cells) for run in range(part.start, part.stop)]
        found = tf.constant(np.stack([grid for grid, _ in drawn]).astype(np.float64))
        if units:
            return found
        shifts = np.stack([shift for _, shift in drawn])
        for axis, (size, count) in enumerate(zip(sizes, cells, strict=True)):
            found = tf.einsum("nc...,npc->n...p", found, tf.constant(_enlarging(size, count, shifts[:, axis])))
        return found


def _enlarging(size: int, cells: int, shifts: _Array) -> _Array:
    """What each position takes of each cell, ``(runs, size, cells)``: linear between centres, clamped outside of them.

    The grid of so many cells is spread over one cell more than covers the axis, and the axis begins somewhere in the
    first.
    """
    cell = -(-size // cells)
    begins = np.floor(shifts * cell)[:, None]
    places = (begins + np.arange(size) + 0.5) * cells / ((cells + 1) * cell) - 0.5
    places = np.clip(places, 0, cells - 1)[..., None]
    shares: _Array = np.maximum(0.0, 1.0 - np.abs(places - np.arange(cells)))
    return shares
