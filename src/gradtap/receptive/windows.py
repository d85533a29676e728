"""What windows read along one axis: convolutions, transposed ones, pooling, resizing."""

from __future__ import annotations

from fractions import Fraction
from math import ceil, floor, gcd

from gradtap.receptive.fields import Reads


def moved(before: int) -> Reads:
    """Unit u reads position u - before: padding, or, where it is negative, a slice."""
    return Reads(((-before,),), 1)


def every(step: int, begin: int = 0) -> Reads:
    """Unit u reads position begin + u * step: a slice with a step."""
    return Reads(((begin,),), step)


def repeated(times: int) -> Reads:
    """Each position is read by so many units in a row."""
    return Reads(((0,),) * times, 1)


def window(size: int, stride: int, dilation: int, before: int) -> Reads:
    """A window of a convolution or of pooling.

    Args:
      size: Positions that it reads.
      stride: Positions from one window to the next.
      dilation: Positions from one that it reads to the next.
      before: Padding before the first position.
    """
    return Reads((tuple(j * dilation - before for j in range(size)),), stride)


def transposed_window(size: int, stride: int, dilation: int, before: int) -> Reads:
    """A transposed convolution: unit u reads position v where u = v * stride + j * dilation - before."""
    return Reads(
        tuple(
            tuple(
                (r + before - j * dilation) // stride for j in range(size) if (r + before - j * dilation) % stride == 0
            )
            for r in range(stride)
        ),
        1,
    )


def same_padding(positions: int, units: int, size: int, stride: int, dilation: int) -> int:
    """Padding before the first position where "same" is asked for; what is odd goes behind the last.

    Args:
      positions: Of the longer side.
      units: Of the shorter side.
      size: Of the window.
      stride: Of the window.
      dilation: Of the window.
    """
    return max((units - 1) * stride + (size - 1) * dilation + 1 - positions, 0) // 2


def resized(
    kind: str, positions: int, units: int, *, align_corners: bool, half_pixels: bool, smooth: bool = True
) -> Reads:
    """What the units of an axis that was resized read.

    Args:
      kind: ``"nearest"``, ``"bilinear"``, ``"bicubic"``, ``"area"``, or a radius in positions.
      positions: Before.
      units: After.
      align_corners: Whether the first and the last position are those of the units.
      half_pixels: Whether both axes are of cells, whose centres lie at halves.
      smooth: Whether a radius is one of units where these are the coarser.
    """
    long, short = (positions - 1, units - 1) if align_corners and units > 1 else (positions, units)
    common = gcd(long, short) or 1
    scale = Fraction(long, short)
    half = Fraction(1, 2)
    reads: list[tuple[int, ...]] = []
    for unit in range(max(short // common, 1)):
        place = (unit + half) * scale - half if half_pixels else unit * scale
        if kind == "nearest":
            nearest = (unit + half) * scale if half_pixels else place + half if align_corners else place
            reads.append((floor(nearest),))
        elif kind == "area":
            reads.append(tuple(range(floor(unit * scale), ceil((unit + 1) * scale))))
        elif kind == "bilinear":
            reads.append((floor(place), ceil(place)))
        elif kind == "bicubic":
            reads.append((floor(place) - 1, floor(place) + 2))
        else:
            radius = Fraction(kind) * (max(scale, Fraction(1)) if smooth else 1)
            reads.append((ceil(place - radius), floor(place + radius)))
    return Reads(tuple(reads), long // common)
