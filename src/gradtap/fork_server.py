"""A process that has imported TensorFlow and not used it: workers that are forks of it start at once.

This file imports nothing heavy, so that a command can start that process before it imports TensorFlow itself.
"""

from __future__ import annotations

import multiprocessing
import signal
import sys
from types import FrameType

#: What the process imports; each is skipped where it is not installed. This file comes first, and says what Ctrl-C does
#: there. What imports TensorFlow comes last: Dask's nanny looks at the versions of pandas and others as soon as a
#: worker lives.
_IMPORTED = ["gradtap.fork_server", "distributed", "pandas", "gradtap.dataset.dask_engine"]
#: How the names of Dask's workers begin, as processes; and the name of a process that has not been told its own yet.
_DEAF = ("Dask Worker process", "MainProcess")


def start() -> str:
    """Start the process, unless it runs already, and do not wait for it.

    It ends with this one. Python has one such process; where the user's own code has started it, workers import
    what they need by themselves.

    Returns:
      The start method for workers: ``"forkserver"``, or ``"spawn"`` where the system has no forks.
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return "spawn"
    from multiprocessing import forkserver

    multiprocessing.get_context("forkserver").set_forkserver_preload(_IMPORTED)
    forkserver.ensure_running()
    return "forkserver"


def check_not_a_copy() -> None:
    """End this process quietly where it is itself a worker that only now imports the user's script.

    A script that starts workers outside of ``if __name__ == "__main__":`` would have each of them start workers too.
    The process that runs the script sees that its workers do not come up, and says why.
    """
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise SystemExit(1)


def _on_interrupt(number: int, frame: FrameType | None) -> None:
    """What Ctrl-C does to a fork: a terminal sends it to all processes, and workers leave it to the one they serve."""
    if not multiprocessing.current_process().name.startswith(_DEAF):
        signal.default_int_handler(number, frame)


def _is_this_the_process() -> bool:
    from multiprocessing import forkserver

    return getattr(sys.modules.get("__main__"), "main", None) is forkserver.main


if _is_this_the_process():
    signal.signal(signal.SIGINT, _on_interrupt)
