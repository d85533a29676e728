"""One run at a time on a store: a lock that the system drops when its owner dies, with the owner's name in it.

This file imports nothing heavy, so that a command can look at the lock before it imports TensorFlow.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from gradtap import errors

#: An owner on another machine that has not been heard of for this long is taken to be dead.
_SILENT = 120.0
_HEARTBEAT = 20.0


def lock_file(store: Path) -> Path:
    """Where the lock of a store stands: beside it, so that the store holds nothing but Zarr."""
    return store.with_name(f"{store.name}.lock")


@contextmanager
def locked(store: Path) -> Iterator[None]:
    """Hold the lock of a store.

    The lock itself is the system's (``flock``): it is gone with the process, however that ends. A file system that is
    shared by several machines may not tell them of each other's locks, so the file's age is looked at too.

    Raises:
      StoreLockedError: Another run holds it; the message says who, and for how long.
      StoreError: The folder cannot be written to.
    """
    path = lock_file(store)
    handle = _acquired(path)
    stop = threading.Event()
    beating = threading.Thread(target=_beat, args=(path, stop), daemon=True)
    try:
        beating.start()
        yield
    finally:
        stop.set()
        with suppress(OSError):
            path.unlink()
        os.close(handle)


def check_free(store: Path) -> None:
    """Raise where another run holds the lock of a store; nothing is held afterwards.

    Raises:
      StoreLockedError: Another run holds it.
    """
    store = store.expanduser().resolve()
    if store.name and lock_file(store).exists():
        with locked(store):
            pass


def _acquired(path: Path) -> int:
    import fcntl

    while True:
        try:
            handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise errors.StoreError(
                f"`{path.parent}` cannot be written to.", [("why", error.strerror or str(error))], "name another folder"
            ) from None
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            owner, age = _owner(handle), _age(handle)
            os.close(handle)
            raise _refusal(path, owner, age) from None
        if not _is_still(path, handle):  # its owner has removed it meanwhile
            os.close(handle)
            continue
        owner, age = _owner(handle), _age(handle)
        if owner.get("host") not in (None, socket.gethostname()) and age < _SILENT:
            os.close(handle)
            raise _refusal(path, owner, age)
        text = json.dumps({"host": socket.gethostname(), "pid": os.getpid(), "since": time.time()})
        os.ftruncate(handle, 0)
        os.pwrite(handle, text.encode(), 0)
        return handle


def _is_still(path: Path, handle: int) -> bool:
    try:
        return os.stat(path).st_ino == os.fstat(handle).st_ino
    except FileNotFoundError:
        return False


def _owner(handle: int) -> dict[str, Any]:
    try:
        found = json.loads(os.pread(handle, 4096, 0) or b"{}")
    except ValueError:  # it is just being written
        return {}
    return found if isinstance(found, dict) else {}


def _age(handle: int) -> float:
    return max(0.0, time.time() - os.fstat(handle).st_mtime)


def _beat(path: Path, stop: threading.Event) -> None:
    while not stop.wait(_HEARTBEAT):
        with suppress(OSError):
            os.utime(path)


def _refusal(path: Path, owner: dict[str, Any], age: float) -> errors.StoreLockedError:
    since = owner.get("since")
    held = f"{time.time() - since:.0f} s" if isinstance(since, (int, float)) else "an unknown time"
    who = f"process {owner.get('pid', 'unknown')} on {owner.get('host', 'an unknown machine')}"
    return errors.StoreLockedError(
        f"another run is at work on `{path.name.removesuffix('.lock')}`.",
        [("owner", who), ("since", held), ("last seen", f"{age:.0f} s ago")],
        ["wait for it to end", "give another store"],
    )
