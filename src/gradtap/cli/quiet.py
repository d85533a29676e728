"""Import TensorFlow without what it prints of itself and of the machine."""

from __future__ import annotations

import os
import re
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

#: No setting of TensorFlow's silences these lines without changing what it computes with.
_CHATTER = re.compile(
    rb"All log messages before absl::InitializeLog|oneDNN custom operations are on|cpu_feature_guard|"
    rb"rebuild TensorFlow with the appropriate compiler flags"
)


def start_tensorflow() -> None:
    """Import TensorFlow, if it is not imported yet.

    Raises:
      MissingExtraError: It is not installed.
    """
    import gradtap as gt

    if "tensorflow" not in sys.modules:
        with without_chatter():
            _ = gt.trace  # its module is imported with all that it needs


@contextmanager
def without_chatter(*, lasting: bool = False) -> Iterator[None]:
    """Leave known lines out of standard error; a process of its own passes all others on, even if this one dies.

    Args:
      lasting: Processes that are started meanwhile live on, and so does what passes on their lines.
    """
    if not hasattr(os, "fork") or threading.active_count() > 1:
        yield
        return
    try:
        kept = os.dup(2)
    except OSError:  # there is no standard error
        yield
        return
    reads, writes = os.pipe()
    sys.stderr.flush()
    relay = os.fork()
    if relay == 0:
        os.close(writes)
        _pass_on(reads, kept)
    os.close(reads)
    os.dup2(writes, 2)
    os.close(writes)
    try:
        yield
    finally:
        sys.stderr.flush()
        os.dup2(kept, 2)
        os.close(kept)
        if not lasting:
            os.waitpid(relay, 0)


def _pass_on(reads: int, to: int) -> None:
    """What the forked process does until nobody writes any more; it does not return."""
    try:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        with open(reads, "rb") as lines:
            for line in lines:
                if not _CHATTER.search(line):
                    os.write(to, line)
    finally:
        os._exit(0)
