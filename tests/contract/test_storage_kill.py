"""SQLite: processes that write are killed at any moment; nothing acknowledged is ever lost."""

import contextlib
import random
import signal
import time

from storage_processes import start, told

from kproxy.controlplane.storage import base, sqlite

ROUNDS = 30
WRITERS = 3


def test_what_was_acknowledged_outlives_a_kill_at_any_moment(tmp_path):
    path = tmp_path / "db"
    draw = random.Random(1)
    acknowledged: list[tuple[str, int]] = []
    with contextlib.closing(sqlite.SqliteStorage(path)) as storage:
        since = storage.revision()
        # One watch lives through all of it; the others begin after each round.
        with contextlib.closing(storage.watch("/", since)) as steady:
            seen: list[base.Change] = []
            for number in range(ROUNDS):
                before = storage.revision()
                acknowledged += killed_writers(path, f"{number}", draw)
                seen += drained(steady)
                with contextlib.closing(storage.watch("/", before)) as late:
                    assert drained(late) == [one for one in seen if one.revision > before]
        last = storage.revision()
        assert [one.revision for one in seen] == list(range(since + 1, last + 1))
    assert len(acknowledged) > ROUNDS * WRITERS
    with contextlib.closing(sqlite.SqliteStorage(path)) as storage:
        stored = {entry.key: entry.revision for entry in storage.list("/")[0]}
    assert stored.items() >= dict(acknowledged).items()
    assert stored == {one.key: one.revision for one in seen}
    # Each writer has at most the one key more that it could not yet say.
    assert len(stored) <= len(acknowledged) + ROUNDS * WRITERS


def killed_writers(path, name: str, draw: random.Random) -> list[tuple[str, int]]:
    """Let three processes write, kill them one after the other; return what they were told."""
    writers = [start(path, f"{name}-{number}", 0, 0, 0) for number in range(WRITERS)]
    acknowledged = []
    for writer in writers:
        assert writer.stdout is not None
        first = writer.stdout.readline()
        time.sleep(draw.uniform(0, 0.02))  # the kill may come anywhere in what it does
        writer.send_signal(signal.SIGKILL)
        rest, _ = writer.communicate()
        assert writer.returncode == -signal.SIGKILL
        acknowledged += told(first + rest, "acknowledged")
    return acknowledged


def drained(watch: base.Watch) -> list[base.Change]:
    changes: list[base.Change] = []
    while more := watch.next(0)[0]:
        changes += more
    return changes
