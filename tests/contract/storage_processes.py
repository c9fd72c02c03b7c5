"""Processes that write to and watch one SQLite file, some of them to be killed.

As a program: ``storage_processes.py PATH NUMBER COMMITS TOTAL SINCE`` writes COMMITS keys of its
own and prints JSON lines: ``["acknowledged", key, revision]`` after each, and for what a watch
told ``["seen", key, revision]``, until it has seen TOTAL changes. COMMITS 0: until it is killed.
"""

import json
import random
import socket
import subprocess
import sys
import threading
from pathlib import Path

from kproxy.controlplane.storage import base, sqlite

Log = list[tuple[str, int]]


def start(path: Path, number: str, commits: int, total: int, since: int) -> subprocess.Popen:
    from child_processes import DIES_WITH_US  # not found by the program that this is, too

    arguments = [str(path), number, str(commits), str(total), str(since)]
    # Who writes until he is killed must wait for his reader now and then: in virtual time a
    # process that only computes would go on for ever.
    return subprocess.Popen(
        [*DIES_WITH_US, sys.executable, __file__, *arguments],
        stdout=subprocess.PIPE,
        start_new_session=True,
        pipesize=-1 if commits else 8192,
    )


def run_writers(path: Path, *, processes: int, commits: int) -> list[tuple[Log, Log]]:
    """Return what each of the processes has seen, and what it was acknowledged."""
    storage = sqlite.SqliteStorage(path)
    since = storage.revision()
    running = [
        start(path, str(number), commits, processes * commits, since)
        for number in range(processes)
    ]
    outputs = [process.communicate(timeout=120)[0] for process in running]
    storage.close()
    assert [process.returncode for process in running] == [0] * processes
    return [(told(output, "seen"), told(output, "acknowledged")) for output in outputs]


def told(output: bytes, what: str) -> Log:
    """Return the (key, revision) pairs of one sort; a line that a kill has cut off is left out."""
    lines = [json.loads(line) for line in output.split(b"\n")[:-1]]
    return [(key, revision) for kind, key, revision in lines if kind == what]


def free_loopback(port: int) -> str:
    """Return an address of the loopback network on which a port is free."""
    while True:
        address = (
            f"127.{random.randrange(1, 255)}.{random.randrange(256)}.{random.randrange(1, 255)}"
        )
        with socket.socket() as probe:
            try:
                probe.bind((address, port))
            except OSError:
                continue
            return address


def _say(kind: str, key: str, revision: int) -> None:
    sys.stdout.write(json.dumps([kind, key, revision]) + "\n")
    sys.stdout.flush()


def main(path: Path, number: str, commits: int, total: int, since: int) -> None:
    storage = sqlite.SqliteStorage(path)

    def watch() -> None:
        seen = 0
        changes = storage.watch("/", since)
        while seen < total:
            for change in changes.next(None)[0]:
                _say("seen", change.key, change.revision)
                seen += 1
        changes.close()

    watcher = threading.Thread(target=watch, daemon=not commits)
    watcher.start()
    done = 0
    while not commits or done < commits:
        key = f"/{number}/{done}"
        _say("acknowledged", key, storage.commit([base.Write(key, b"x" * 500, base.ABSENT)]))
        done += 1
    watcher.join()
    storage.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], *map(int, sys.argv[3:]))
