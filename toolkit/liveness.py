"""Which processes that share a folder are alive.

Each holds a lock on a file of its own for as long as it lives; the system lets go of it however the process ends, so
a lock that can be had belongs to the dead. Process numbers are no help: they are given out again.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import sys
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

if sys.platform == "win32":
    import msvcrt

    def _lock(file: int, *, shared: bool) -> None:
        msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
else:
    import fcntl

    def _lock(file: int, *, shared: bool) -> None:
        # flock and not lockf: it also tells apart two owners within one process.
        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)


T = TypeVar("T")

_resets: weakref.WeakKeyDictionary[Any, Callable[[Any], None]] = weakref.WeakKeyDictionary()


def after_fork(one: T, reset: Callable[[T], None]) -> None:
    """Have `reset(one)` called in children this process forks, for as long as `one` lives."""
    _resets[one] = reset


def _reset_all() -> None:
    for one, reset in list(_resets.items()):
        reset(one)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_reset_all)


def claim(path: Path) -> int | None:
    """The file, made where there is none and locked, as a descriptor whose closing lets go; None while it is taken.

    Raises:
        OSError: when it cannot be made, or not be locked.
    """
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        _lock(file, shared=False)
    except (BlockingIOError, PermissionError):
        os.close(file)
        return None
    except BaseException:
        os.close(file)
        raise
    return file


class Owner:
    """This process, as other processes that share `folder` see it.

    A forked child is another owner, with an id of its own from its first use on.

    Args:
        folder: where `owners/<id>.lock` lies; None when only this process needs to know.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder / "owners" if folder else None
        self._fresh()
        after_fork(self, Owner._inherited)

    def _fresh(self) -> None:
        self._mutex = threading.Lock()
        self._id = ""
        self._file: int | None = None
        self._closing: weakref.finalize[[int, Path], Owner] | None = None

    def _inherited(self) -> None:
        """Forget the parent's id; closing its file, without unlocking, leaves the lock to the parent alone."""
        if self._closing:
            self._closing.detach()
        if self._file is not None:
            os.close(self._file)
        self._fresh()

    @property
    def id(self) -> str:
        """Sixteen hexadecimal digits, drawn at first use.

        Raises:
            OSError: when the lock file cannot be made.
        """
        with self._mutex:
            if not self._id:
                name = secrets.token_hex(8)
                if self._folder:
                    for folder in (self._folder.parent, self._folder):
                        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                    self._sweep(self._folder)
                    self._file = _held(self._folder / f"{name}.lock")
                    self._closing = weakref.finalize(self, _let_go, self._file, self._folder / f"{name}.lock")
                self._id = name
            return self._id

    def alive(self, id: str) -> bool:
        """Whether the process with this id lives; the lock file of a dead one is removed."""
        if id == self._id or not id:
            return bool(id)
        return self._folder is not None and _taken(self._folder / f"{id}.lock")

    def close(self) -> None:
        """Be dead to the others from now on; the next use of `id` begins anew."""
        with self._mutex:
            if self._closing:
                self._closing()
            self._id, self._file, self._closing = "", None, None

    @staticmethod
    def _sweep(folder: Path) -> None:
        for path in folder.glob("*.lock"):
            _taken(path)


def _held(path: Path) -> int:
    """The locked file, as a descriptor; made anew while another process sweeps it away before it is locked."""
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            _lock(file, shared=False)
            if os.path.samestat(os.fstat(file), os.stat(path)):
                return file
        except (BlockingIOError, PermissionError, FileNotFoundError):
            pass  # it is just being looked at, or was swept away
        except OSError:
            os.close(file)
            raise
        os.close(file)


def _taken(path: Path) -> bool:
    """Whether somebody holds the lock; if nobody does, the file is removed."""
    try:
        file = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        return False
    try:
        _lock(file, shared=True)  # several may look at once
        if sys.platform != "win32":
            _remove(file, path)
    except (BlockingIOError, PermissionError):  # PermissionError: Windows' way to say that it is taken
        return True
    finally:
        os.close(file)
    if sys.platform == "win32":  # which removes no file that anybody has open
        with contextlib.suppress(OSError):
            path.unlink()
    return False


def _remove(file: int, path: Path) -> None:
    """Remove a dead owner's file while nobody can lock it, so that none who just made it loses it."""
    with contextlib.suppress(OSError):  # another looks at it too, or was first
        _lock(file, shared=False)
        if os.path.samestat(os.fstat(file), os.stat(path)):
            path.unlink()


def _let_go(file: int, path: Path) -> None:
    os.close(file)
    with contextlib.suppress(OSError):
        path.unlink()
