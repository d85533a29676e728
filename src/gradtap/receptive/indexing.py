"""What a slice of a tensor reads along one axis, and where that axis goes."""

from __future__ import annotations

from collections.abc import Sequence

from gradtap.receptive.fields import Reads
from gradtap.receptive.windows import every
from gradtap.types import Operation


def sliced(
    op: Operation, numbers: Sequence[Sequence[int]], shape: Sequence[int], axis: int
) -> tuple[int | None, Reads | None, int]:
    """What a ``Slice`` or a ``StridedSlice`` reads.

    Args:
      op: The op.
      numbers: What its inputs behind the first hold.
      shape: Of the tensor that is sliced.
      axis: The axis of it that is asked about.

    Returns:
      The axis of what comes out, or None where one position is taken; what is read along it, or None where that is all
      of it; and the one position.
    """
    if op.type == "Slice":
        begin = numbers[0][axis]
        return axis, every(1, begin), begin
    masks = {name: op.get_attr(f"{name}_mask") for name in ("begin", "end", "ellipsis", "new_axis", "shrink_axis")}
    begins, _, steps = numbers
    named = sum(not masks["new_axis"] >> i & 1 and not masks["ellipsis"] >> i & 1 for i in range(len(begins)))
    position = after = 0
    for i, begin in enumerate(begins):
        if masks["ellipsis"] >> i & 1:
            skipped = len(shape) - named
            if position <= axis < position + skipped:
                return after + axis - position, None, 0
            position, after = position + skipped, after + skipped
        elif masks["new_axis"] >> i & 1:
            after += 1
        elif masks["shrink_axis"] >> i & 1:
            if position == axis:
                return None, None, begin % shape[axis]
            position += 1
        else:
            if position == axis:
                return after, _read(steps[i], begin, bool(masks["begin"] >> i & 1), shape[axis]), 0
            position, after = position + 1, after + 1
    return after + axis - position, None, 0


def _read(step: int, begin: int, from_end: bool, size: int) -> Reads | None:
    if from_end:
        begin = 0 if step > 0 else size - 1
    begin = min(max(begin + size * (begin < 0), 0), size)
    return None if step == 1 and begin == 0 else every(step, begin)
