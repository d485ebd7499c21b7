"""Files that appear whole or not at all: written beside the target under another name, then renamed."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from toolkit.errors import OutputError
from toolkit.photo.source import reason


@contextlib.contextmanager
def whole_file(
    target: Path,
    *,
    overwrite: bool,
    permissions: int | None = None,
    check: Callable[[Path], None] | None = None,
) -> Iterator[BinaryIO]:
    """A stream for reading and writing whose content becomes `target` when the block ends without an error.

    Args:
        overwrite: replace an existing target.
        check: called with the finished file before it takes the target's place; what it raises leaves the target alone.
        permissions: the source's permission bits; the new file is never open to more people than the source was.
            An existing target keeps its own.

    Raises:
        OutputError: when the target exists (unless `overwrite`), or cannot be written; nothing is left behind.
    """
    target = Path(target)
    if target.is_dir():
        raise OutputError(f"{target}: is a folder; name a file in it")
    if target.exists():
        if not overwrite:
            raise OutputError(f"{target}: already exists; name another output or allow overwriting")
        target = target.resolve()
        permissions = target.stat().st_mode & 0o777
    elif permissions is not None:
        permissions |= 0o600
    temporary = target.with_name(f".{target.name[:100]}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    first = 0o666 if permissions is None else 0o600 | permissions & 0o666  # nobody else reads it meanwhile
    try:
        descriptor = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_RDWR | getattr(os, "O_BINARY", 0), first)
    except OSError as error:
        raise OutputError(_sentence(target, error)) from error
    try:
        with os.fdopen(descriptor, "w+b") as stream:
            yield stream
        if permissions is not None:
            allowed = temporary.stat().st_mode & 0o777
            with contextlib.suppress(OSError):
                os.chmod(temporary, permissions if overwrite and target.exists() else allowed & permissions)
        if check is not None:
            check(temporary)
        _publish(temporary, target, overwrite)
    except OSError as error:
        raise OutputError(_sentence(target, error)) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def _publish(temporary: Path, target: Path, overwrite: bool) -> None:
    if overwrite:
        os.replace(temporary, target)
        return
    try:
        os.link(temporary, target)  # unlike a rename, this fails when another program was faster
    except FileExistsError:
        raise OutputError(f"{target}: already exists; name another output or allow overwriting") from None
    except OSError:  # a file system without hard links
        if target.exists():
            raise OutputError(f"{target}: already exists; name another output or allow overwriting") from None
        os.replace(temporary, target)


def _sentence(target: Path, error: OSError) -> str:
    if error.errno == errno.ENOSPC:
        return f"{target}: the disk is full; nothing was written"
    if error.errno == errno.ENOENT:
        return f"{target}: there is no folder {str(target.parent)!r}; create it first"
    return f"{target}: cannot be written ({reason(error)})"
