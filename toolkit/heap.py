"""Memory: the C library's heap, and what the machine has left."""

from __future__ import annotations

import contextlib
import ctypes
import sys
from pathlib import Path


def give_back() -> None:
    """Return freed memory to the system, which glibc otherwise keeps for later; elsewhere nothing is done.

    For moments after which large memory will not be needed again soon: it takes milliseconds.
    """
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):  # another C library
            ctypes.CDLL(None).malloc_trim(0)


def share_left() -> float:
    """Share (0-1) of memory that may still be taken: of the machine's, or of its container's where that is less."""
    import psutil  # takes longer than all else here

    machine = psutil.virtual_memory()
    return min(machine.available / machine.total, _left_in_groups())


_GROUPS = (
    ("0::", "", "max", "current", "inactive_file"),
    (":memory:", "memory", "limit_in_bytes", "usage_in_bytes", "total_inactive_file"),
)
"""For both versions of Linux's control groups: what tells their line, their folder, their limit, what is used, and what
of that files take that are not in use. See docs.kernel.org/admin-guide/cgroup-v2.html and cgroup-v1/memory.html."""


def _left_in_groups() -> float:
    """The same of the control groups around this process; 1 where none is limited."""
    least = 1.0
    with contextlib.suppress(OSError):  # another system
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            for sign, below, limit, used, unused in _GROUPS:
                if sign in line:
                    root = Path("/sys/fs/cgroup") / below
                    own = root / line.partition(sign)[2].lstrip("/")
                    for folder in (own, *own.parents[: len(own.parts) - len(root.parts)]):
                        least = min(least, _left_in(folder, limit, used, unused))
    return least


def _left_in(folder: Path, limit: str, used: str, unused: str) -> float:
    with contextlib.suppress(OSError, ValueError, KeyError):  # it has no limit, or is not shown in here
        most, taken = (int((folder / f"memory.{name}").read_text()) for name in (limit, used))
        facts = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        return 1 - max(0, taken - int(facts[unused])) / most
    return 1.0
