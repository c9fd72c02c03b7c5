"""Storages in trouble: a full disk, no inotify, a busy file, certificates."""

import contextlib
import shutil
import sqlite3
import ssl
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from child_processes import DIES_WITH_US
from storage_processes import free_loopback

from kproxy.controlplane.access.pki import Authority
from kproxy.controlplane.storage import base, etcd, etcdgateway, etcdmember, sqlite, wakeup
from kproxy.controlplane.storage.base import ABSENT, Change, Write

FILL = """
import resource, sys
from pathlib import Path
from kproxy.controlplane.storage import base, sqlite

storage = sqlite.SqliteStorage(Path(sys.argv[1]))
resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, resource.RLIM_INFINITY))
done = 0
try:
    while True:
        storage.commit([base.Write(f"/{done}", b"x" * 2000, base.ABSENT)])
        done += 1
except base.Unavailable as error:
    full = str(error)
assert len(storage.list("/")[0]) == done
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
storage.commit([base.Write("/after", b"1", base.ABSENT)])
print(done, full)
"""


HOLD = """
import sys
from pathlib import Path
from kproxy.controlplane.storage import wakeup

bell = wakeup.Bell(Path(sys.argv[1]))
print(flush=True)
sys.stdin.read()
"""


def test_a_commit_that_could_not_wake_anybody_may_have_been_done(tmp_path, monkeypatch):
    def ring(bell):
        raise OSError(28, "No space left on device")

    with contextlib.closing(sqlite.SqliteStorage(tmp_path / "db")) as storage:
        monkeypatch.setattr(wakeup.Bell, "ring", ring)
        with pytest.raises(base.Unavailable) as caught:
            storage.commit([Write("/a", b"1", ABSENT)])
        assert caught.value.unknown
        assert storage.get("/a")[0] == base.Entry("/a", b"1", 2)


class Troubled:
    """A connection to a disk that fails some statements, once each."""

    def __init__(self, connection, *statements):
        self._connection = connection
        self._fails = list(statements)

    def execute(self, statement, *parameters):
        if statement in self._fails:
            self._fails.remove(statement)
            raise sqlite3.OperationalError("disk I/O error")
        return self._connection.execute(statement, *parameters)

    def __getattr__(self, name):
        return getattr(self._connection, name)


def test_a_commit_that_can_be_neither_done_nor_undone_is_unknown_and_holds_up_nobody(tmp_path):
    with contextlib.closing(sqlite.SqliteStorage(tmp_path / "db")) as storage:
        storage._writer = Troubled(storage._writer, "COMMIT", "ROLLBACK")
        with pytest.raises(base.Unavailable) as caught:
            storage.commit([Write("/a", b"1", ABSENT)])
        assert caught.value.unknown
        assert storage.commit([Write("/b", b"1", ABSENT)]) == 2
        assert [entry.key for entry in storage.list("/")[0]] == ["/b"]


def test_a_storage_is_not_closed_between_a_commit_and_its_bell(tmp_path, monkeypatch):
    """The bell's descriptor may be another file's by then, and that would be written to."""
    storage = sqlite.SqliteStorage(tmp_path / "db")
    usual, closing = wakeup.Bell.ring, threading.Thread(target=storage.close)

    def ring(bell):
        closing.start()
        closing.join(0.5)  # so long a chance to do what it must not
        usual(bell)

    monkeypatch.setattr(wakeup.Bell, "ring", ring)
    assert storage.commit([Write("/a", b"1", ABSENT)]) == 2
    closing.join()


def test_a_full_disk_is_unavailable_and_costs_nothing_that_was_acknowledged(tmp_path):
    """A limit on the size of files stands for the disk."""
    path = tmp_path / "db"
    output = subprocess.run(
        [sys.executable, "-c", FILL, path], stdout=subprocess.PIPE, check=True, text=True
    ).stdout
    done = int(output.split()[0])
    assert done > 10
    assert "cannot" in output
    with contextlib.closing(sqlite.SqliteStorage(path)) as storage:
        keys = {entry.key for entry in storage.list("/")[0]}
    assert keys == {f"/{number}" for number in range(done)} | {"/after"}


def test_without_inotify_a_watch_looks_again_by_itself(tmp_path, monkeypatch):
    monkeypatch.setattr(wakeup, "_watch", lambda _path: -1)
    with (
        contextlib.closing(sqlite.SqliteStorage(tmp_path / "db")) as storage,
        contextlib.closing(storage.watch("/", storage.revision())) as watch,
    ):
        assert watch.next(0)[0] == []
        timer = threading.Timer(0.1, storage.commit, [[Write("/a", b"1", ABSENT)]])
        timer.start()
        changes, revision = watch.next(60)
        assert changes == [Change("/a", b"1", None, revision)]
        timer.join()


def test_inotify_is_tried_not_guessed(tmp_path):
    bell = wakeup.Bell(tmp_path / "wake")
    ear = wakeup.Ear(tmp_path / "wake")
    assert not ear.polls
    ear.close()
    bell.close()


def test_the_end_of_a_process_rings(tmp_path):
    """It may have been killed after its commit, before it could ring."""
    path = tmp_path / "wake"
    wakeup.Bell(path).close()
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert holder.stdout is not None
    holder.stdout.readline()
    ear = wakeup.Ear(path)
    woken = threading.Event()

    def listen() -> None:
        ear.wait(None)
        woken.set()

    listener = threading.Thread(target=listen)
    listener.start()
    holder.kill()
    holder.communicate()
    assert woken.wait(60)
    listener.join()
    ear.close()


def test_a_writer_that_holds_the_file_makes_others_unavailable(tmp_path, monkeypatch):
    monkeypatch.setattr(sqlite, "BUSY_SECONDS", 0.2)
    path = tmp_path / "db"
    with contextlib.closing(sqlite.SqliteStorage(path)) as storage:
        other = sqlite.connect(path)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(base.Unavailable) as caught:
            storage.commit([Write("/a", b"1")])
        assert not caught.value.unknown
        assert storage.get("/a")[0] is None  # readers do not wait
        other.execute("ROLLBACK")
        other.close()
        storage.commit([Write("/a", b"1")])


def test_a_file_that_is_no_database_is_unavailable(tmp_path):
    path = tmp_path / "db"
    path.write_text("not a database\n" * 100)
    with pytest.raises(base.Unavailable, match="cannot open"):
        sqlite.SqliteStorage(path)
    with pytest.raises(base.Unavailable, match="cannot open"):
        sqlite.SqliteStorage(tmp_path / "nowhere" / "db")


def test_certificates_that_are_not_there_are_told(tmp_path):
    with pytest.raises((OSError, ssl.SSLError)):
        etcdgateway.Gateway(["https://127.0.0.1:1"], authority=Path(tmp_path / "none"), patience=1)


@pytest.mark.needs_tool("etcd")
def test_etcd_with_certificates(tmp_path):
    authority = Authority.make()
    authority.pair.save(tmp_path, "ca")
    address = free_loopback(etcdmember.CLIENT_PORT)
    certificate, key = authority.server("etcd", [address]).save(tmp_path, "etcd")
    command = etcdmember.command("one", tmp_path / "data", {"one": address})
    port = etcdmember.CLIENT_PORT
    plain, secured = f"http://{address}:{port}", f"https://{address}:{port}"
    command = [argument.replace(plain, secured) for argument in command]
    command += [f"--cert-file={certificate}", f"--key-file={key}"]
    with (tmp_path / "log").open("wb") as log:
        member = subprocess.Popen(
            [*DIES_WITH_US, *command], stdout=log, stderr=log, start_new_session=True
        )
    try:
        trusting = etcd.EtcdStorage([secured], authority=tmp_path / "ca.crt", patience=60)
        with contextlib.closing(trusting) as storage:
            revision = storage.commit([Write("/a", b"1", ABSENT)])
            with contextlib.closing(storage.watch("/", revision - 1)) as watch:
                assert watch.next(60)[0] == [Change("/a", b"1", None, revision)]
        wary = etcd.EtcdStorage([secured], patience=0.5)
        with contextlib.closing(wary) as storage:
            with pytest.raises(base.Unavailable, match="certificate verify failed") as caught:
                storage.commit([Write("/a", b"2")])
            assert not caught.value.unknown
    finally:
        member.kill()
        member.wait()
        shutil.rmtree(tmp_path / "data", ignore_errors=True)
