"""Where files were brought to, by a key of their content: each is brought once, by one thread of one process."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Collection, Iterator, Mapping

from toolkit.attempts import Attempts
from toolkit.errors import Cancelled, EngineError
from toolkit.turns import Turns

_TICK = 0.2
"""Seconds between looks at whether another process is finished, and whether the caller cancelled."""


class Addresses:
    """The rows of the journal's table `upload`. A row without an address has an owner, who brings the file.

    They cost nothing, and a power cut may take the last ones.

    Args:
        attempts: the journal's, by which processes are told apart.
    """

    def __init__(self, attempts: Attempts) -> None:
        self._attempts, self._database, self._turns = attempts, attempts.database, Turns()

    @contextlib.contextmanager
    def bring(self, keys: Collection[str], cancelled: Callable[[], bool]) -> Iterator[Bringing]:
        """Hold some files: whoever else needs one of them waits until the block is left or we die.

        Args:
            keys: hashes of the files' content.
            cancelled: asked while waiting.

        Raises:
            Cancelled: when `cancelled` said so.
            EngineError: when the journal cannot be written.
        """
        keys = sorted(set(keys))
        self._turns.take(keys, cancelled)
        try:
            while (known := self._take(keys)) is None:
                if cancelled():
                    raise Cancelled
                time.sleep(_TICK)
            bringing = Bringing(self, known, {key for key in keys if key not in known})
            try:
                yield bringing
            finally:
                if bringing.missing:  # if it cannot be written, others bring them when this process ends
                    with contextlib.suppress(EngineError):
                        self._leave(sorted(bringing.missing))
        finally:
            self._turns.end(keys)

    def forget(self, keys: Collection[str]) -> None:
        """Have files brought anew when they are next needed.

        Raises:
            EngineError: when the journal cannot be written.
        """
        self._database.change(f"DELETE FROM upload WHERE url != '' AND key IN ({_marks(keys)})", tuple(keys))

    def forget_expired(self) -> None:
        """Make room: what is no longer there takes none.

        Raises:
            EngineError: when the journal cannot be written.
        """
        self._database.change("DELETE FROM upload WHERE url != '' AND expires <= ?", (time.time(),))

    def _take(self, keys: list[str]) -> dict[str, str] | None:
        """Addresses of those that are there, the others now ours to bring; None while another process brings one."""
        me = self._attempts.me()
        rows = ", ".join(["(?, ?)"] * len(keys))
        values = [value for key in keys for value in (key, me)]
        # Most files are new, and one statement is all it takes.
        if self._database.change(f"INSERT OR IGNORE INTO upload (key, owner) VALUES {rows}", values) == len(keys):
            return {}
        with self._database.write() as database:
            found = database.execute(f"SELECT * FROM upload WHERE key IN ({_marks(keys)})", keys).fetchall()
            known = {row["key"]: row["url"] for row in found if row["url"] and row["expires"] > time.time()}
            owners = {row["owner"] for row in found if row["key"] not in known} - {"", me}
            if any(self._attempts.lives(owner) for owner in owners):  # wait, and hold none meanwhile
                database.execute(f"DELETE FROM upload WHERE owner = ? AND key IN ({_marks(keys)})", (me, *keys))
                return None
            left = [(key, me) for key in keys if key not in known]
            database.executemany("INSERT OR REPLACE INTO upload (key, owner) VALUES (?, ?)", left)
            return known

    def _keep(self, urls: Mapping[str, str], expires: float) -> None:
        rows = ", ".join(["(?, ?, ?, '')"] * len(urls))
        values = [value for key, url in urls.items() for value in (key, url, expires)]
        self._database.change(f"INSERT OR REPLACE INTO upload (key, url, expires, owner) VALUES {rows}", values)

    def _leave(self, keys: list[str]) -> None:
        statement = f"DELETE FROM upload WHERE owner = ? AND key IN ({_marks(keys)})"
        self._database.change(statement, (self._attempts.me(), *keys))


class Bringing:
    """Files that are held.

    Attributes:
        known: addresses of those that had been brought before, by key.
        missing: keys of those that are the holder's to bring.
    """

    def __init__(self, addresses: Addresses, known: Mapping[str, str], missing: set[str]) -> None:
        self._addresses, self.known, self.missing = addresses, known, missing

    def keep(self, urls: Mapping[str, str], expires: float) -> None:
        """Note where files now are.

        Args:
            urls: addresses by key.
            expires: seconds since the epoch until which they are good.

        Raises:
            EngineError: when the journal cannot be written.
        """
        if urls:
            self._addresses._keep(urls, expires)
            self.missing -= urls.keys()


def _marks(values: Collection[str]) -> str:
    return ", ".join("?" * len(values))
