"""Maps of where a class is seen: channels of a layer, weighted and summed over its positions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import tensorflow as tf

from gradtap import errors
from gradtap.asking import check_choice
from gradtap.graph import walking
from gradtap.graph.resolve import Place
from gradtap.graph.tracing import ForwardGraph
from gradtap.maps.resizing import resized
from gradtap.types import Tensor

#: ``"found"`` among the tokens of an image model, a size, or None for a map along the tokens.
Grid: TypeAlias = Literal["found"] | tuple[int, int] | None
#: ``"input"``, a size, or None to leave the map as it is.
Upsample: TypeAlias = Literal["input"] | int | tuple[int, ...] | None

#: A vision transformer puts a class token before its grid, and some a few more.
_MOST_EXTRA_TOKENS = 8


@dataclass(frozen=True)
class MapOptions:
    """How a map is finished.

    Args:
      relu: Keep what speaks for the target only.
      upsample: The size it is brought to.
      interpolation: ``"bilinear"`` or ``"nearest"``.
      grid: How the tokens of a vision transformer lie in the image.
      sum_channels: False leaves the channels apart.

    Raises:
      ArgumentError: One of them has a value outside of its choices.
    """

    relu: bool = True
    upsample: Upsample = None
    interpolation: str = "bilinear"
    grid: Grid = "found"
    sum_channels: bool = True

    def __post_init__(self) -> None:
        check_choice("relu", self.relu, (True, False))
        check_choice("sum_channels", self.sum_channels, (True, False))
        check_choice("interpolation", self.interpolation, ("bilinear", "nearest"))
        for name, value, word in (("upsample", self.upsample, "input"), ("grid", self.grid, "found")):
            sizes = value if isinstance(value, (tuple, list)) else (value,)
            if value not in (None, word) and not all(_is_size(one) for one in sizes):
                raise errors.ArgumentError(
                    f"{name}={value!r} is not a choice.", [], [f'"{word}"', "a size: (height, width)", "None"]
                )
        if isinstance(self.upsample, list):
            object.__setattr__(self, "upsample", tuple(self.upsample))
        if isinstance(self.grid, list):
            object.__setattr__(self, "grid", tuple(self.grid))

    def key(self) -> tuple[Any, ...]:
        """All of it, hashable."""
        return self.relu, self.upsample, self.interpolation, self.grid, self.sum_channels


def _is_size(value: Any) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool) and int(value) > 0


class Layout:
    """How the activations at a tap lie in the input.

    Args:
      graph: The traced forward pass.
      place: The tap.
      options: How maps are finished.
    """

    def __init__(self, graph: ForwardGraph, place: Place, options: MapOptions) -> None:
        self._place = place
        self._options = options
        tensor = place.tensor
        if not tensor.shape.rank or tensor.shape.rank < 2:
            raise errors.SideError(
                f"`{place.key}` has no channels to be weighted: its activations are {tuple(tensor.shape)}.",
                [],
                "tap a layer that returns (batch, ..., channels)",
            )
        tokens = tensor.shape.rank == 3 and options.grid is not None
        if isinstance(options.grid, tuple) and not tokens:
            raise errors.ArgumentError(
                f"grid={options.grid}: `{place.key}` returns no tokens (batch, tokens, channels).",
                [("activations", str(tuple(tensor.shape)))],
                "leave out the grid",
            )
        image = _input_of_rank(graph, 4, tensor) if tokens else None
        self._image = None if image is None else graph.feeds[image]
        self.is_grid = tokens and (image is not None or isinstance(options.grid, tuple))
        self._extra, self._grid = self._found_grid() if self.is_grid else (0, None)
        self.is_grid = self._grid is not None
        self.rank = 4 if self.is_grid else tensor.shape.rank
        #: Position of the input that the map lies over; None where there is none.
        self.over = _input_of_rank(graph, self.rank, tensor)
        if options.upsample == "input" and self.rank > 2 and self.over is None:
            raise errors.ArgumentError(
                f'upsample="input": no input of the model lies as the map of `{place.key}` does.', [], "give a size"
            )
        wanted = self.rank - 2
        if isinstance(options.upsample, tuple) and len(options.upsample) != wanted:
            raise errors.ArgumentError(
                f"upsample={options.upsample!r}: the map of `{place.key}` has {wanted} axes beside the batch.",
                [],
                "give one size for each",
            )

    def laid(self, tensor: Tensor) -> Tensor:
        """Activations or gradients as ``(batch, *spatial, channels)``; tokens before the grid are left out."""
        if not self.is_grid:
            return tensor
        rows, columns = self._grid or (0, 0)
        return tf.reshape(tensor[:, self._extra :], (-1, rows, columns, tensor.shape[-1]))

    def over_input(self, graph: ForwardGraph) -> int:
        """The position of the input that the map lies over.

        Raises:
          SideError: There is none.
        """
        if self.over is None or self.rank < 3:
            takes = ", ".join(f"`{n}` {tuple(f.shape)}" for n, f in zip(graph.input_names, graph.feeds, strict=True))
            raise errors.SideError(
                f"the map of `{self._place.key}` lies over no input of the model.",
                [("inputs", takes)],
                "tap a layer whose activations lie as an input does: (batch, ..., channels)",
            )
        return self.over

    def size_over(self, inputs: Sequence[Tensor]) -> Tensor:
        """The spatial size of the input that the map lies over."""
        return tf.shape(inputs[self.over or 0])[1 : self.rank - 1]

    def finished(self, weighted: Tensor, inputs: Sequence[Tensor]) -> Tensor:
        """From weighted channels ``(batch, *spatial, channels)`` to the map.

        Args:
          weighted: What is summed over the channels.
          inputs: The model's inputs, of the graph or of the call.
        """
        maps = tf.reduce_sum(weighted, -1) if self._options.sum_channels else weighted
        maps = tf.nn.relu(maps) if self._options.relu else maps
        upsample = self._options.upsample
        if upsample is None or self.rank == 2:
            return maps
        sizes = upsample if isinstance(upsample, tuple) else (upsample,) * (self.rank - 2)
        size = self.size_over(inputs) if upsample == "input" else sizes
        return resized(maps, size, self._options.interpolation, range(1, self.rank - 1))

    def _found_grid(self) -> tuple[int, tuple[int, int] | None]:
        tokens, given = self._place.tensor.shape[1], self._options.grid
        if isinstance(given, tuple):
            extra = None if tokens is None else tokens - given[0] * given[1]
            if extra is None or not 0 <= extra <= _MOST_EXTRA_TOKENS:
                raise errors.ArgumentError(
                    f"grid={given}: `{self._place.key}` has {tokens} tokens, not {given[0] * given[1]}.",
                    [],
                    ["a grid may have a class token before it", "grid=None gives a map along the tokens"],
                )
            return extra, given
        height, width = self._image.shape[1:3] if self._image is not None else (None, None)
        for extra in range(_MOST_EXTRA_TOKENS + 1) if tokens else ():
            grid = _grid_of(tokens - extra, height or 1, width or 1)
            if grid is not None:
                return extra, grid
        return 0, None


def _grid_of(tokens: int, height: int, width: int) -> tuple[int, int] | None:
    """Rows and columns of so many patches of an image, in its proportions."""
    if tokens < 1:
        return None
    rows = round((tokens * height / width) ** 0.5)
    exact = rows > 0 and tokens % rows == 0 and tokens // rows * height == rows * width
    return (rows, tokens // rows) if exact else None


def _input_of_rank(graph: ForwardGraph, rank: int, tensor: Tensor) -> int | None:
    """The position of the first input of a rank that a tensor is made from."""
    fitting = [i for i, feed in enumerate(graph.feeds) if feed.shape.rank == rank]
    made_from = walking.ancestors([tensor]) if fitting else set()
    return next((i for i in fitting if graph.feeds[i].op in made_from), None)


def mean_over_positions(tensor: Tensor) -> Tensor:
    """The mean over all axes between batch and channels, kept as axes of one."""
    axes = spatial_axes(tensor)
    return tf.reduce_mean(tensor, axes, keepdims=True) if axes else tensor


def spatial_axes(tensor: Tensor) -> Sequence[int]:
    """The axes between batch and channels."""
    return list(range(1, tensor.shape.rank - 1))
