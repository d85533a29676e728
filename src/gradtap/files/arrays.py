"""Array files: ``.npy`` and ``.npz``."""

from __future__ import annotations

import tokenize
import zipfile
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gradtap.files.images import unreadable

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

#: What NumPy raises on a damaged file depends on where the damage is: in the archive, its data, or an array's header.
DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    tokenize.TokenError,
    EOFError,
    ArithmeticError,
    LookupError,
    MemoryError,
    NotImplementedError,
    SyntaxError,
    TypeError,
    ValueError,
)


def load_arrays(file: Path) -> dict[str, Array]:
    """Read a ``.npy`` or ``.npz`` file; the array of a ``.npy`` is called ``array``.

    Args:
      file: The file. Objects in it, which could run code, are refused.

    Returns:
      Name to array, at least one.

    Raises:
      InputFileError: The file is damaged, of another kind, or holds objects.
    """
    import numpy as np

    try:
        with file.open("rb") as stream:
            loaded = np.load(stream, allow_pickle=False)
            arrays = {key: loaded[key] for key in loaded.files} if hasattr(loaded, "files") else {"array": loaded}
    except OSError as error:
        raise unreadable(file, error.strerror or str(error)) from None
    except DAMAGE as error:
        # NumPy takes whatever it does not know for a pickle and refuses it as such.
        why = "it is damaged, or holds objects instead of numbers" if "pickle" in str(error) else str(error)
        raise unreadable(file, why) from None
    if not arrays:
        raise unreadable(file, "it holds no array")
    return arrays
