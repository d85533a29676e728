"""Files that appear whole or not at all, in places that are checked before anything is computed."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from gradtap.cli.outcome import OutputFileError

if TYPE_CHECKING:
    import numpy as np


def check_writable(path: Path, inputs: list[Path]) -> None:
    """Make sure that a file can be written before the work is done that it is for.

    Args:
      path: The file to come.
      inputs: Files that are read and must not be overwritten.

    Raises:
      OutputFileError: The folder is missing or cannot be written to, or the path is a folder or one of the inputs.
    """
    if not path.parent.is_dir():
        raise _unwritable(path, f"there is no folder `{path.parent}`", f"mkdir -p {path.parent}")
    if path.is_dir():
        raise _unwritable(path, "it is a folder", "name a file in it")
    if any(path.resolve() == other.resolve() for other in inputs):
        raise _unwritable(path, "it is one of the inputs, which would be lost", "name another file")
    try:
        # Only an attempt tells: permissions, read-only mounts and quotas look alike to `os.access`.
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise _unwritable(path, f"its folder cannot be written to: {error.strerror}", "name another folder") from None


@contextmanager
def results_folder(path: Path) -> Iterator[None]:
    """Make a folder for results, with those above it; where nothing comes to stand in it, it is gone again.

    Raises:
      OutputFileError: It cannot be made, or a file has its name.
    """
    made = [folder for folder in (path, *path.parents) if not folder.exists()]
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable(path, error.strerror or str(error), "name another folder") from None
    try:
        yield
    except BaseException:
        with suppress(OSError):  # it holds something: then it stays
            for folder in made:
                folder.rmdir()
        raise


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray[Any, Any]]) -> None:
    """Write arrays by name into a ``.npz`` file, as `write_whole` does.

    Args:
      path: The file.
      arrays: Name to array; a name may hold slashes.
    """
    import numpy as np

    write_whole(path, lambda file: np.savez(file, allow_pickle=False, **arrays))


def write_whole(path: Path, write: Callable[[BinaryIO], None]) -> None:
    """Write a file beside its place and move it there: a reader never meets half of it, nor does a crash leave one.

    Args:
      path: The file; one that is there is replaced.
      write: Writes the content.

    Raises:
      OutputFileError: The disk is full, or the folder is gone or cannot be written to.
    """
    try:
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
        try:
            with open(handle, "wb") as file:
                write(file)
            # A temporary file is for its owner only; the result gets what any new file gets.
            os.chmod(temporary, 0o666 & ~_umask())
            os.replace(temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise
    except OSError as error:
        raise _unwritable(path, error.strerror or str(error), "name another folder") from None


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _unwritable(path: Path, why: str, remedy: str) -> OutputFileError:
    return OutputFileError(f"`{path}` cannot be written.", [("why", why)], remedy)
