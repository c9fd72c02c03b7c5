"""A storage in one SQLite file, which all API servers of a machine share.

The database is in WAL mode with ``synchronous=FULL``: a commit that was acknowledged has been
written and synced, so it outlives a SIGKILL of any process at any moment, and a loss of power as
far as disk and file system keep what they have synced (a tmpfs keeps nothing). One writer at a
time: ``BEGIN IMMEDIATE``; who finds it taken sleeps until the other one has committed, and gives
up as Unavailable after BUSY_SECONDS. Readers never wait.

Every commit also writes its changes to a history, from which watches are served, and forgets the
oldest: ``history`` revisions are kept. Files beside the database: ``PATH-wal`` and ``PATH-shm``
are SQLite's, ``PATH-wake`` is the bell (:mod:`wakeup`). The file system must be a local one.
"""

import contextlib
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from . import base, wakeup

HISTORY = 10_000
"""So many revisions are kept for those who watch."""

BUSY_SECONDS = 5.0

BUSY_LOOK_SECONDS = 0.05
"""So long a writer waits for another's commit before it looks whether that was in vain."""

_BATCH = 512
"""A watch reads so many changes at once; more than a commit can have."""

_PARTS = 256
"""``sequence`` is revision * _PARTS + part."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS entries(
    key TEXT PRIMARY KEY, value BLOB NOT NULL, revision INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS changes(
    sequence INTEGER PRIMARY KEY, key TEXT NOT NULL, value BLOB, previous BLOB);
CREATE TABLE IF NOT EXISTS state(
    one INTEGER PRIMARY KEY CHECK (one = 1), revision INTEGER NOT NULL,
    compacted INTEGER NOT NULL);
INSERT OR IGNORE INTO state VALUES (1, 1, 1);
"""


class SqliteStorage:
    """Keys and values in a file. Raises Unavailable if it cannot be opened."""

    def __init__(self, path: Path, *, history: int = HISTORY) -> None:
        self._path = path
        self._history = history
        self._writing = threading.Lock()
        self._idle: list[sqlite3.Connection] = []
        self._closed = False
        with _unavailable(f"cannot open {path}"):
            self._bell = wakeup.Bell(wake_path(path))
            self._ear = wakeup.Ear(wake_path(path))
            self._writer = connect(path)
            if not _has_tables(self._writer):
                self._writer.executescript(f"BEGIN IMMEDIATE; {_SCHEMA} COMMIT;")
            self._writer.execute("PRAGMA busy_timeout = 0")  # see _begin()

    def get(self, key: str) -> tuple[base.Entry | None, int]:
        """See :class:`base.Storage`."""
        with self._snapshot() as connection:
            return _entry(connection, key), _state(connection)[0]

    def list(self, prefix: str) -> tuple[Sequence[base.Entry], int]:
        """See :class:`base.Storage`."""
        with self._snapshot() as connection:
            rows = connection.execute(
                "SELECT key, value, revision FROM entries WHERE key >= ? AND key < ? ORDER BY key",
                (prefix, base.prefix_end(prefix)),
            )
            return [base.Entry(*row) for row in rows], _state(connection)[0]

    def revision(self) -> int:
        """See :class:`base.Storage`."""
        with self._reader() as connection:
            return _state(connection)[0]

    def commit(self, writes: Sequence[base.Write]) -> int:
        """See :class:`base.Storage`."""
        with self._transaction() as connection:
            revision, compacted = _state(connection)
            changes = base.changes_of(writes, lambda key: _entry(connection, key), revision + 1)
            if not changes:
                return revision
            for part, change in enumerate(changes):
                _apply(connection, change, part)
            revision += 1
            compacted = max(compacted, revision - self._history)
            _forget(connection, revision, compacted)
        return revision

    def watch(self, prefix: str, since: int) -> "SqliteWatch":
        """See :class:`base.Storage`."""
        with _unavailable(f"cannot open {self._path}"):
            return SqliteWatch(self._path, prefix, since)

    def compact(self, revision: int) -> None:
        """See :class:`base.Storage`."""
        with self._transaction() as connection:
            latest, compacted = _state(connection)
            _forget(connection, latest, max(compacted, min(revision, latest)))

    def close(self) -> None:
        """See :class:`base.Storage`. Calls that are under way are finished first."""
        if self._closed:
            return
        self._closed = True
        self._ear.stop()
        with self._writing:
            self._ear.close()
            self._writer.close()
            self._bell.close()
            with contextlib.suppress(IndexError):
                while True:
                    self._idle.pop().close()

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """Be the only writer; what was written is undone if the body raises."""
        with self._writing, _unavailable("cannot write"):
            self._begin()
            try:
                yield self._writer
                # If this fails, SQLite itself cannot know whether the disk has it.
                with _unavailable("cannot commit", unknown=True):
                    self._writer.execute("COMMIT")
                    # While we hold the lock: close() must not take the bell's descriptor from us.
                    self._bell.ring()
            finally:
                with contextlib.suppress(sqlite3.Error):  # what is told is why it came to that
                    self._roll_back()

    def _roll_back(self) -> None:
        if self._writer.in_transaction:
            self._writer.execute("ROLLBACK")

    def _begin(self) -> None:
        """Become the only writer. Whoever must wait for another one tries after its commit.

        SQLite itself would wait longer and longer, so that a new writer never got in between
        two busy ones.
        """
        deadline = time.monotonic() + BUSY_SECONDS
        while True:
            self._check_open()
            try:
                self._roll_back()  # what a disk in trouble would not let us undo
                self._writer.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError as error:
                now = time.monotonic()
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or now >= deadline:
                    raise
                self._ear.wait(min(deadline, now + BUSY_LOOK_SECONDS))
            else:
                return

    @contextlib.contextmanager
    def _reader(self) -> Iterator[sqlite3.Connection]:
        """Borrow a connection: there are as many as threads that read at one time."""
        with _unavailable("cannot read"):
            self._check_open()
            try:
                connection = self._idle.pop()
            except IndexError:
                connection = connect(self._path)
            try:
                yield connection
            finally:
                self._idle.append(connection)
                if self._closed:  # while we read
                    with contextlib.suppress(IndexError):
                        self._idle.pop().close()

    @contextlib.contextmanager
    def _snapshot(self) -> Iterator[sqlite3.Connection]:
        """Read several things as of one revision."""
        with self._reader() as connection, _one_revision(connection):
            yield connection

    def _check_open(self) -> None:
        if self._closed:
            raise base.Unavailable("the storage is closed")


class SqliteWatch:
    """See :class:`base.Watch`. A thread that is within :meth:`next` frees what it used itself."""

    def __init__(self, path: Path, prefix: str, since: int) -> None:
        self._range = (prefix, base.prefix_end(prefix))
        self._reached = since
        self._using = threading.Lock()
        self._closed = False
        self._connection = connect(path)
        self._ear = wakeup.Ear(wake_path(path))

    def next(self, timeout: float | None) -> tuple[Sequence[base.Change], int]:
        """See :class:`base.Watch`."""
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._using:
            while not self._closed:
                with _unavailable("cannot read"):
                    changes = self._read()
                if changes or (deadline is not None and time.monotonic() >= deadline):
                    return changes, self._reached
                self._ear.wait(deadline)
            return [], self._reached

    def close(self) -> None:
        """See :class:`base.Watch`."""
        if not self._closed:
            self._closed = True
            self._ear.stop()
            with self._using:
                self._ear.close()
                self._connection.close()

    def _read(self) -> Sequence[base.Change]:
        """Return what has come since the last call, in whole commits."""
        with _one_revision(self._connection):
            revision, compacted = _state(self._connection)
            if self._reached < compacted:
                raise base.Compacted(self._reached, compacted)
            if revision <= self._reached:
                return []
            rows = self._connection.execute(
                "SELECT key, value, previous, sequence / ? FROM changes WHERE sequence >= ?"
                " AND key >= ? AND key < ? ORDER BY sequence LIMIT ?",
                (_PARTS, (self._reached + 1) * _PARTS, *self._range, _BATCH),
            )
            changes = [base.Change(*row) for row in rows]
        if len(changes) == _BATCH:  # the last commit may not be complete
            last = changes[-1].revision
            changes = [change for change in changes if change.revision < last]
            revision = last - 1
        self._reached = revision
        return changes


def wake_path(path: Path) -> Path:
    """Return where the bell of a database is."""
    return path.with_name(f"{path.name}-wake")


def connect(path: Path) -> sqlite3.Connection:
    """Open a database. Raises sqlite3.Error."""
    connection = sqlite3.connect(
        path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
    )
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute(f"PRAGMA journal_size_limit = {16 * 1024 * 1024}")
    return connection


def _has_tables(connection: sqlite3.Connection) -> bool:
    query = "SELECT count(*) FROM sqlite_master WHERE name = 'state'"
    return bool(connection.execute(query).fetchone()[0])


@contextlib.contextmanager
def _one_revision(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN")
    try:
        yield
    finally:
        connection.execute("COMMIT")


@contextlib.contextmanager
def _unavailable(what: str, *, unknown: bool = False) -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        raise base.Unavailable(f"{what}: {error}", unknown=unknown) from error


def _state(connection: sqlite3.Connection) -> tuple[int, int]:
    """Return the latest revision and the last one forgotten."""
    found: tuple[int, int] = connection.execute("SELECT revision, compacted FROM state").fetchone()
    return found


def _entry(connection: sqlite3.Connection, key: str) -> base.Entry | None:
    query = "SELECT key, value, revision FROM entries WHERE key = ?"
    row = connection.execute(query, (key,)).fetchone()
    return None if row is None else base.Entry(*row)


def _apply(connection: sqlite3.Connection, change: base.Change, part: int) -> None:
    if change.value is None:
        connection.execute("DELETE FROM entries WHERE key = ?", (change.key,))
    else:
        connection.execute(
            "INSERT OR REPLACE INTO entries VALUES (?, ?, ?)",
            (change.key, change.value, change.revision),
        )
    sequence = change.revision * _PARTS + part
    connection.execute(
        "INSERT INTO changes VALUES (?, ?, ?, ?)",
        (sequence, change.key, change.value, change.previous),
    )


def _forget(connection: sqlite3.Connection, revision: int, compacted: int) -> None:
    """Note the latest revision, and forget the changes up to another."""
    connection.execute("UPDATE state SET revision = ?, compacted = ?", (revision, compacted))
    connection.execute("DELETE FROM changes WHERE sequence < ?", ((compacted + 1) * _PARTS,))
