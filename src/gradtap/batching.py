"""Run a program over a batch: all at once, in parts, over a dataset, or over nothing."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from gradtap import errors
from gradtap.graph.resolve import Place
from gradtap.program import Program, report
from gradtap.types import Structure, Tensor, TensorLike

#: Results smaller than this are never worth a look at the free memory.
_UNWATCHED_BYTES = 64 << 20


#: Activations that a repeated run of a model's suffix aims to stay below.
_IN_FLIGHT_BYTES = 256 << 20

#: Convolutions of large images get no faster from here on; one image at a time takes a fifth to a third longer.
_FEW = 4

#: The gradients of weights are added up from time to time, so that a dataset of any length takes no more memory.
_PIECES_OF_WEIGHTS = 16

_LOOK_AT_TARGET = "look at the target: it is computed from the outputs and the labels, and they do not fit together"


def rows_in_flight(bytes_per_example: int, bytes_kept: int) -> int:
    """How many examples to run at once where the caller does not say.

    As many as fit were all activations kept; but a few where those do that really are kept, since most are gone before
    the backward pass. `python -m benchmarks in_flight` measures what that costs and saves.

    Args:
      bytes_per_example: What the activations of one take; its gradients take as much again.
      bytes_kept: What of them the backward pass needs.
    """
    all_kept = _IN_FLIGHT_BYTES // max(2 * bytes_per_example, 1)
    few = _IN_FLIGHT_BYTES // max(bytes_kept, 1)  # a run was seen to take 1.2 times what it keeps
    return max(1, all_kept, min(few, _FEW))


def run_batch(
    program: Program,
    inputs: Sequence[Tensor],
    *,
    seeds: Sequence[TensorLike] = (),
    values: Sequence[TensorLike] = (),
    batch_size: int | None = None,
) -> dict[str, list[Tensor]]:
    """Run a program on one batch.

    Args:
      program: What to run.
      inputs: The model's inputs.
      seeds: What its random draws are fed; the same for every part of the batch.
      values: What the target brings along; each has one row for each example, or one for all.
      batch_size: Most examples at once; None for all.

    Returns:
      The fetched tensors by part, the examples of all runs in one.

    Raises:
      MemoryBudgetError: The result would take more than half of the free memory.
      ModelRunError: TensorFlow failed on these inputs.
    """
    return join(list(run_parts(program, inputs, seeds=seeds, values=values, batch_size=batch_size)), program.places)


def run_parts(
    program: Program,
    inputs: Sequence[Tensor],
    *,
    seeds: Sequence[TensorLike] = (),
    values: Sequence[TensorLike] = (),
    batch_size: int | None = None,
) -> Iterator[dict[str, list[Tensor]]]:
    """Run a program on one batch as `run_batch` does, and hand on what each run fetched.

    Yields:
      The fetched tensors by part, of so many examples at most.
    """
    batch = inputs[0].shape[0] if inputs[0].shape.rank else None
    if batch == 0:
        yield _run_empty(program, inputs, seeds, values)
        return
    check_memory(program, batch)
    if batch is None and batch_size is not None:
        raise errors.ArgumentError(
            f"batch_size={batch_size} cannot be kept inside of a tf.function that does not know its batch.",
            [],
            ["give the batch axis a size in the input_signature", "leave batch_size out"],
        )
    batch_size = batch_size or program.in_flight
    if batch is None or batch_size is None or batch <= batch_size:
        yield run_once(program, [*inputs, *seeds, *values])
        return
    batch_size = -(-batch // -(-batch // batch_size))  # parts of about one size

    def rows(tensors: Sequence[TensorLike], start: int) -> list[TensorLike]:
        return [_rows(tensor, start, start + batch_size, batch) for tensor in tensors]

    for start in range(0, batch, batch_size):
        try:
            part = run_once(program, [*rows(inputs, start), *seeds, *rows(values, start)])
        except errors.GradtapError as error:
            if isinstance(error, errors.TargetShapeError) or _LOOK_AT_TARGET in error.do:
                whole = f"the target is given {batch_size} of the {batch} examples at a time"
                error.do.append(f"batch_size=None where it holds something for each of them: {whole}")
            raise
        yield part


def run_once(program: Program, feeds: Sequence[TensorLike]) -> dict[str, list[Tensor]]:
    """Run a program and warn of what its flags show."""
    parts = program.split(_run(program, feeds))
    _check_score(program, parts, feeds)
    report(program, parts)
    return parts


def _run(program: Program, feeds: Sequence[TensorLike]) -> Sequence[Tensor]:
    try:
        fetched: Sequence[Tensor] = program.run(
            *(f if isinstance(f, tf.Tensor) else tf.convert_to_tensor(f) for f in feeds)
        )
    except tf.errors.OpError as error:
        raise _run_error(error, feeds) from error
    except (errors.GradtapError, Warning):  # a warning, where the caller has made it an error
        raise
    except Exception as error:  # of Python code that runs with the graph, or of a tensor that was left in the model
        raise errors.ModelRunError(
            f"{type(error).__name__} was raised while the model ran on these inputs.",
            [("it said", (str(error).splitlines() or [""])[0][:400])],
            "call the model itself on these inputs: it should fail in the same way",
        ) from error
    return fetched


def _check_score(program: Program, parts: dict[str, list[Tensor]], feeds: Sequence[TensorLike]) -> None:
    """A target that reduces the wrong axis can be told from a right one only by its length."""
    batch, score = np.shape(feeds[0])[:1], parts.get("score")
    if score and batch and None not in (batch[0], score[0].shape[0]) and score[0].shape[0] != batch[0]:
        raise errors.TargetShapeError(
            f"the target `{program.target}` gives {score[0].shape[0]} numbers for {batch[0]} examples.",
            [],
            "a target maps the outputs to one number per example, (batch,): reduce or pick all axes but the first",
        )


def join(pieces: Sequence[dict[str, list[Tensor]]], places: Sequence[Place] = ()) -> dict[str, list[Tensor]]:
    """Put the examples of several runs in one; what has no batch axis is taken from the first.

    Args:
      pieces: What the runs fetched, by part.
      places: The taps. What belongs to a weight is for all examples together, and is added up.
    """
    if len(pieces) == 1:
        return pieces[0]
    first = pieces[0]
    joined: dict[str, list[Tensor]] = {}
    for name, tensors in first.items():
        columns = [[piece[name][i] for piece in pieces] for i in range(len(tensors))]
        own = [_is_of_weight(places, name, i) for i in range(len(tensors))]
        joined[name] = [
            (c[0] if name == "activations" else tf.add_n(c)) if of_weight else _concatenated(c)
            for c, of_weight in zip(columns, own, strict=True)
            if name != "flags"
        ]
    return joined


def _is_of_weight(places: Sequence[Place], part: str, position: int) -> bool:
    """Whether a tensor belongs to a weight; two parts have one for each tap."""
    return part in ("gradients", "activations") and bool(places) and places[position].weight is not None


def _concatenated(pieces: Sequence[Tensor]) -> Tensor:
    if not pieces[0].shape.rank:
        return pieces[0]
    shapes = {tuple(piece.shape[1:]) for piece in pieces}
    if len(shapes) > 1:
        raise errors.InputShapeError(
            "the batches differ in shape, so their results cannot be put in one.",
            [("an example's", " and ".join(map(str, list(shapes)[:4])))],
            "bring the examples to one shape, or make a call for each batch",
        )
    return tf.concat(pieces, 0)


def is_dataset(inputs: Any) -> bool:
    """Whether the inputs are a `tf.data.Dataset` of batches."""
    return isinstance(inputs, tf.data.Dataset)


def dataset_batches(dataset: Any) -> Iterator[Structure]:
    """The inputs of each batch; labels and weights that come along are left out, as Keras orders them."""
    for element in whole_batches(dataset):
        yield element[0] if isinstance(element, tuple) else element


def whole_batches(dataset: Any) -> Iterator[Structure]:
    """Each batch of a dataset as it comes.

    Raises:
      InputStructureError: The dataset has no end, or failed to make its next batch.
    """
    if tf.get_static_value(dataset.cardinality()) == tf.data.INFINITE_CARDINALITY:
        raise errors.InputStructureError(
            "the dataset has no end.", [("received", errors.received(dataset))], "take a part of it: dataset.take(100)"
        )
    batches = iter(dataset)
    while True:
        try:
            element = next(batches)
        except StopIteration:
            return
        except tf.errors.OpError as error:
            raise errors.InputStructureError(
                "the dataset failed to make its next batch.",
                [("it said", _said(error))],
                "loop over the dataset itself: it should fail in the same way",
            ) from error
        yield element


def over_dataset(
    dataset: Any, one: Callable[[Structure], tuple[Program, dict[str, list[Tensor]]]]
) -> tuple[Program, dict[str, list[Tensor]]]:
    """Run batch after batch, and put the results in one.

    Raises:
      InputStructureError: The dataset is empty.
      MemoryBudgetError: What has been collected takes more than half of the free memory.
    """
    pieces: list[dict[str, list[Tensor]]] = []
    program: Program | None = None
    collected = 0
    for batch in dataset_batches(dataset):
        program, parts = one(batch)
        pieces.append(parts)
        collected += sum(_bytes(t) for tensors in parts.values() for t in tensors)
        if collected > _UNWATCHED_BYTES:
            _compare(collected, "the results so far take", stays=True)
        if len(pieces) == _PIECES_OF_WEIGHTS and any(place.weight is not None for place in program.places):
            pieces = [join(pieces, program.places)]
            collected = sum(_bytes(t) for tensors in pieces[0].values() for t in tensors)
    if program is None:
        raise errors.InputStructureError("the dataset is empty.", [], "pass a dataset with at least one batch")
    return program, join(pieces, program.places)


def check_memory(program: Program, batch: int | None) -> None:
    """Raise before a result would take more than half of the free memory.

    Raises:
      MemoryBudgetError: It says how many bytes, and what to use instead.
    """
    if batch is None:
        return
    per_example = 0
    for place in (place for place in program.places if place.weight is None):
        sizes = place.tensor.shape.as_list()[1:] if place.tensor.shape.rank else []
        if None not in sizes:
            per_example += int(np.prod(sizes, dtype=np.int64)) * place.tensor.dtype.size
    needed = program.copies * per_example * batch
    if needed > _UNWATCHED_BYTES:
        _compare(needed, "the result would take", stays=False)


def _compare(needed: int, what: str, stays: bool) -> None:
    free = free_memory()
    limit = None if free is None else free if stays else free // 2
    if limit is not None and needed > limit:
        raise errors.MemoryBudgetError(
            f"{what} {needed / 1e9:.1f} GB; {free / 1e9 if free else 0:.1f} GB of memory are free.",
            [],
            [
                "ask for fewer taps",
                "pass fewer examples at a time, and keep what you need of each result",
                "gt.dataset.run, which keeps the results on the disk",
            ],
        )


def free_memory() -> int | None:
    """Bytes of memory that are free for use; None where the system does not say."""
    try:
        with open("/proc/meminfo", encoding="ascii") as lines:
            for line in lines:
                if line.startswith("MemAvailable:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    return None


def _run_empty(
    program: Program, inputs: Sequence[Tensor], seeds: Sequence[TensorLike], values: Sequence[TensorLike]
) -> dict[str, list[Tensor]]:
    """No examples: run one of zeros and keep none of it.

    An empty batch would abort the process in some backward kernels (a C++ check in oneDNN's MaxPoolGrad).
    """
    one = [tf.zeros((1, *t.shape[1:]), t.dtype) if t.shape.rank else t for t in inputs]
    fed = [np.zeros((1, *np.shape(v)[1:]), np.asarray(v).dtype) for v in values]
    parts = program.split(_run(program, [*one, *seeds, *fed]))

    def of_none(name: str, tensors: list[Tensor], i: int) -> Tensor:
        if _is_of_weight(program.places, name, i):
            return tensors[i] if name == "activations" else tf.zeros_like(tensors[i])
        return tensors[i][:0] if tensors[i].shape.rank else tensors[i]

    return {n: [of_none(n, kept, i) for i in range(len(kept))] for n, kept in parts.items() if n != "flags"}


def _rows(tensor: TensorLike, start: int, stop: int, batch: int) -> TensorLike:
    shape = np.shape(tensor)
    return tensor[start:stop] if shape and shape[0] == batch else tensor


def _bytes(tensor: Tensor) -> int:
    return int(np.prod(tensor.shape, dtype=np.int64)) * int(tensor.dtype.size)


def _run_error(error: Any, feeds: Iterable[Any]) -> errors.GradtapError:
    shapes = ", ".join(f"{tuple(np.shape(f))}" for f in feeds)
    node = re.search(r"node (?:\{\{node )?([\w/.]+)", str(error.message))
    facts = [("it said", _said(error)), *([("in the op", f"`{node[1]}`")] if node else []), ("fed shapes", shapes)]
    if isinstance(error, tf.errors.ResourceExhaustedError):
        return errors.MemoryBudgetError("TensorFlow ran out of memory.", facts, "batch_size=1, or fewer taps at a time")
    outside = re.search(r"indices\[.*?\] = -?\d+ is not in \[0, (\d+)\)", str(error.message))
    if outside is not None:
        rows = int(outside[1])
        do = f"the ids are outside of the embedding: it has {rows} rows, so pass ids from 0 to {rows - 1}"
    elif node is not None and node[1].startswith("gradtap/"):
        do = _LOOK_AT_TARGET
    else:
        do = "call the model itself on these inputs: it should fail in the same way"
    return errors.ModelRunError("TensorFlow failed while the model ran on these inputs.", facts, do)


def _said(error: Any) -> str:
    """The line of a TensorFlow message that holds the cause, without the stack that it comes with."""
    lines = [line.strip() for line in str(error.message).split("[[")[0].splitlines()]
    stack = ("File ", "Traceback ", "Detected at ", "Graph execution error", "Stack trace", "(most recent", "^")
    telling = [line for line in lines if line and not line.startswith(stack)]
    return re.sub(r"\{\{.*?\}\}\s*", "", telling[-1] if telling else type(error).__name__)[:400]
