"""The state together with its journal, under one lock: what is known is on disk, in that order."""

import threading
from collections.abc import Callable

from .book import Policy
from .clock import Clock
from .journal import Journal, JournalFailed
from .records import AnyRecord, Notified, Started
from .state import State
from .webhook import Notification


class Ledger:
    """Reads the journal into the state, and from then on changes both. For several threads.

    ``changed`` is its lock, and notified after every change: hold it to look at ``state``.
    """

    def __init__(self, state: State, journal: Journal) -> None:
        self.changed = threading.Condition()
        self.state = state
        self._journal = journal
        self._owed: list[AnyRecord] = []
        latest = 0.0
        for record in journal.replay():
            state.apply(record)
            latest = max(latest, record.at)
        self.clock = Clock(latest)
        self.failures = 0
        """So many records could not be written."""

    @property
    def journal_bytes(self) -> int:
        """Return the size of the journal's newest file."""
        return self._journal.size

    def start(self, pid: int, *, dry_run: bool) -> None:
        """Write down that a receiver begins. Raises JournalFailed."""
        self.write(Started(at=self.clock.now(), pid=pid, dry_run=dry_run))

    def accept(self, notified: Notification, peer: str, policy: Policy) -> Notified:
        """Decide what becomes of a notification; it is on disk on return. Raises JournalFailed."""
        with self.changed:
            record = self.state.decide(notified, self.clock.now(), peer, policy)
            self._write(record)
            return record

    def write(
        self, record: AnyRecord, *, only_if: Callable[[State], bool] = lambda _: True
    ) -> bool:
        """Write a record and take it over, if ``only_if`` holds; return whether it did.

        It is on disk on return. Raises JournalFailed; then nothing has changed.
        """
        with self.changed:
            if not only_if(self.state):
                return False
            self._write(record)
            return True

    def note(self, record: AnyRecord) -> bool:
        """Take over what has happened already; return whether it could be written down as well.

        If not, it is written before the next record, and until then nothing else is. After a
        restart in between an action is found that began, and it is looked whether it helped.
        """
        with self.changed:
            try:
                self._write(record)
            except JournalFailed:
                self._owed.append(record)
                self.state.apply(record)
                self.changed.notify_all()
                return False
            return True

    def _write(self, record: AnyRecord) -> None:
        try:
            while self._owed:
                self._journal.append(self._owed[0])
                del self._owed[0]
            self._journal.append(record)
        except JournalFailed:
            self.failures += 1
            raise
        self.state.apply(record)
        if self._journal.is_full:
            try:
                self._journal.rotate(self.state.snapshot(record.at))
            except JournalFailed:
                self.failures += 1  # The old file goes on; the next record tries again.
        self.changed.notify_all()
