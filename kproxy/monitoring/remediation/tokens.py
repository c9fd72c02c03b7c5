"""Who may send alerts and read the audit log: whoever knows the token in a file."""

import hashlib
import hmac
import os
import threading
from collections.abc import Mapping
from pathlib import Path

from kproxy.errors import UsageError
from kproxy.logs import Log

_NONE = (-1,)
"""The mark of a file that cannot be read."""
SHORTEST = 16
"""A token of fewer characters can be guessed."""


class Token:
    """The token in a file, which is read again when it has changed. For several threads.

    While the file cannot be read, or holds no token, nobody is let in. Raises UsageError if that
    is so at the start.
    """

    def __init__(self, path: Path, log: Log) -> None:
        self._path = path
        self._log = log
        self._lock = threading.Lock()
        self._mark: tuple[int, ...] = ()
        self._digest: bytes | None = None
        self._refresh()
        if self._digest is None:
            problem = f"{path} holds no token that can be read, of {SHORTEST} characters or more"
            raise UsageError(problem, remedy="make one: openssl rand -hex 32")

    def admits(self, headers: Mapping[str, str]) -> bool:
        """Return whether the headers of a request prove that the sender knows the token."""
        scheme, _, given = headers.get("authorization", "").partition(" ")
        with self._lock:
            self._refresh()
            digest = self._digest
        # Digests have one length, so the time that this takes tells nothing.
        same = hmac.compare_digest(_digest(given.strip().encode("latin-1")), digest or b"")
        return same and scheme.lower() == "bearer"

    def _refresh(self) -> None:
        try:
            found = os.stat(self._path)  # noqa: PTH116  the fields are wanted, and an OSError
            mark = (found.st_mtime_ns, found.st_size, found.st_ino)
            if mark == self._mark:
                return
            if found.st_mode & 0o007:
                self._log.warning("the token can be read by anybody", file=str(self._path))
            text = self._path.read_bytes().strip()
            self._digest = _digest(text) if len(text) >= SHORTEST else None
            if self._digest is None:
                self._log.error("no token", file=str(self._path), error="it is too short")
            self._mark = mark
        except OSError as error:
            if self._mark != _NONE:  # Once: strangers could make as many lines as they ask.
                self._log.error("no token", file=str(self._path), error=error.strerror)
            self._digest, self._mark = None, _NONE


def _digest(token: bytes) -> bytes:
    return hashlib.sha256(token).digest()
