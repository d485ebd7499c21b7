"""The C library's heap."""

from __future__ import annotations

import contextlib
import ctypes
import sys


def give_back() -> None:
    """Return freed memory to the system, which glibc otherwise keeps for later; elsewhere nothing is done.

    For moments after which large memory will not be needed again soon: it takes milliseconds.
    """
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):  # another C library
            ctypes.CDLL(None).malloc_trim(0)
