"""A process that has imported TensorFlow and not used it: workers that are forks of it start at once.

This file imports nothing heavy, so that a command can start that process before it imports TensorFlow itself.
"""

from __future__ import annotations

import multiprocessing

#: What the process imports; each is skipped where it is not installed. What imports TensorFlow comes last: Dask's
#: nanny looks at the versions of pandas and others as soon as a worker lives.
_IMPORTED = ["distributed", "pandas", "gradtap.dataset.dask_engine"]


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
