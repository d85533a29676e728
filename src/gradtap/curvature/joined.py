"""Several solvers, each with a matrix of its own, run so that their products are formed together.

A solver of SciPy calls for one product at a time and waits for it. Here each runs in a thread of its own; once all that
are still at work wait, their vectors are multiplied in one go by the calling thread, and each is handed its own.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from typing import Any, TypeVar

import numpy as np

Vector = np.ndarray[Any, np.dtype[np.float64]]
Product = Callable[[Vector], Vector]
_Result = TypeVar("_Result")


class _Stopped(BaseException):
    """Unwinds a solver that is no longer wanted."""


def run_together(
    solvers: Sequence[Callable[[Product], _Result]], multiply: Callable[[list[int], Vector], Vector]
) -> list[_Result]:
    """Run solvers to their ends, all their products of one round in one call.

    No thread is left when it returns or raises, be it an error of a solver, of ``multiply``, or Ctrl-C.

    Args:
      solvers: Each is given a function that multiplies its matrix with a vector, and uses no TensorFlow itself.
      multiply: Given which solvers wait, in order, and their vectors ``(waiting, n)``; returns the products.

    Returns:
      What each solver returned.
    """
    said: SimpleQueue[tuple[int, str, Any]] = SimpleQueue()
    answers: list[SimpleQueue[Vector | None]] = [SimpleQueue() for _ in solvers]

    def work(number: int) -> None:
        def product(vector: Vector) -> Vector:
            said.put((number, "asks", np.array(vector, np.float64).reshape(-1)))
            answer = answers[number].get()
            if answer is None:
                raise _Stopped
            return answer

        try:
            said.put((number, "returned", solvers[number](product)))
        except BaseException as error:  # whatever it is, it belongs to the calling thread
            said.put((number, "raised", error))

    threads = [threading.Thread(target=work, args=(number,), daemon=True) for number in range(len(solvers))]
    results: dict[int, _Result] = {}
    at_work = set(range(len(solvers)))
    try:
        for thread in threads:
            thread.start()
        while at_work:
            waiting: dict[int, Vector] = {}
            while len(waiting) < len(at_work):
                number, what, value = said.get()
                if what == "asks":
                    waiting[number] = value
                    continue
                at_work.remove(number)
                if what == "raised":
                    raise value
                results[number] = value
            if waiting:
                asking = sorted(waiting)
                found = multiply(asking, np.stack([waiting[number] for number in asking]))
                for number, row in zip(asking, found, strict=True):
                    answers[number].put(row)
    finally:
        for answer in answers:
            answer.put(None)
        for thread in (thread for thread in threads if thread.ident is not None):
            thread.join()
    return [results[number] for number in range(len(solvers))]
