"""What every storage promises, on the one in memory, on SQLite and on etcd."""

import contextlib
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from child_processes import DIES_WITH_US
from storage_processes import free_loopback, run_writers

from kproxy import errors
from kproxy.controlplane.storage import base, etcd, etcdmember, measure, memory, sqlite
from kproxy.controlplane.storage.base import ABSENT, Change, Compacted, Mismatch, Write

Open = Callable[[], base.Storage]


@contextlib.contextmanager
def etcd_member(directory: Path) -> Iterator[str]:
    """Run one member on a loopback address of its own; return its endpoint."""
    peers = {"one": free_loopback(etcdmember.CLIENT_PORT)}
    command = etcdmember.command("one", directory / "data", peers)
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(
            [*DIES_WITH_US, *command], stdout=log, stderr=log, start_new_session=True
        )
    try:
        yield etcdmember.endpoints(peers)[0]
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
        shutil.rmtree(directory / "data", ignore_errors=True)


@pytest.fixture(scope="module")
def etcd_endpoint(tmp_path_factory) -> Iterator[str]:
    try:
        etcdmember.program()
    except errors.Unsupported as error:
        pytest.skip(str(error))
    with etcd_member(tmp_path_factory.mktemp("etcd")) as endpoint:
        yield endpoint


def emptied(endpoint: str) -> base.Storage:
    storage = etcd.EtcdStorage([endpoint], patience=60)
    for entry in storage.list("")[0]:
        storage.commit([Write(entry.key, None)])
    return storage


@pytest.fixture(params=["memory", "sqlite", "etcd"])
def opened(request, tmp_path) -> Iterator[Open]:
    """Return a function that returns one more client of the same storage."""
    make = maker(request, tmp_path)
    with contextlib.ExitStack() as stack:
        yield lambda: stack.enter_context(contextlib.closing(make()))


def maker(request: pytest.FixtureRequest, directory: Path) -> Open:
    """Return what makes a client of one and the same storage."""
    if request.param == "memory":
        shared = memory.MemoryStorage()
        return lambda: shared
    if request.param == "sqlite":
        return lambda: sqlite.SqliteStorage(directory / "db")
    endpoint = request.getfixturevalue("etcd_endpoint")
    emptied(endpoint).close()
    return lambda: etcd.EtcdStorage([endpoint])


@pytest.fixture
def storage(opened) -> base.Storage:
    return opened()


def put(storage: base.Storage, key: str, value: bytes = b"1", expected: int | None = None) -> int:
    return storage.commit([Write(key, value, expected)])


def test_what_is_written_is_read_with_its_revision(storage):
    first = put(storage, "/a/1", b"one")
    second = put(storage, "/a/2", bytes(range(256)))
    assert second == first + 1
    assert storage.get("/a/1") == (base.Entry("/a/1", b"one", first), second)
    assert storage.get("/a/3") == (None, second)
    assert storage.revision() == second
    put(storage, "/b/1")
    put(storage, "/a0")
    entries, revision = storage.list("/a/")
    assert [(entry.key, entry.revision) for entry in entries] == [
        ("/a/1", first),
        ("/a/2", second),
    ]
    assert revision == second + 2
    assert [entry.key for entry in storage.list("")[0]] == ["/a/1", "/a/2", "/a0", "/b/1"]


def test_a_long_list_is_of_one_revision(storage):
    for start in range(0, 1200, 100):
        storage.commit([Write(f"/a/{number:04}", b"x") for number in range(start, start + 100)])
    entries, revision = storage.list("/a/")
    assert [entry.key for entry in entries] == [f"/a/{number:04}" for number in range(1200)]
    assert revision == storage.revision()


def test_a_write_that_expects_another_revision_is_refused_and_told_what_is_there(storage):
    first = put(storage, "/a", b"one", ABSENT)
    for expected in (ABSENT, first + 1, first - 1 or first + 2):
        with pytest.raises(Mismatch) as caught:
            put(storage, "/a", b"two", expected)
        assert caught.value.key == "/a"
        assert caught.value.current == base.Entry("/a", b"one", first)
    second = put(storage, "/a", b"two", first)
    with pytest.raises(Mismatch):
        storage.commit([Write("/a", None, first)])
    assert storage.commit([Write("/a", None, second)]) == second + 1
    with pytest.raises(Mismatch) as caught:
        put(storage, "/a", b"three", second)
    assert caught.value.current is None
    put(storage, "/a", b"again", ABSENT)


def test_a_commit_is_done_whole_or_not_at_all(storage):
    first = put(storage, "/a", b"old")
    watch = storage.watch("/", first)
    with pytest.raises(Mismatch) as caught:
        storage.commit([Write("/a", b"new"), Write("/b", b"new"), Write("/c", b"new", 7_000_000)])
    assert caught.value.key == "/c"
    assert [entry.value for entry in storage.list("/")[0]] == [b"old"]
    revision = storage.commit([Write("/a", None, first), Write("/b", b"1"), Write("/c", b"2")])
    assert {entry.revision for entry in storage.list("/")[0]} == {revision}
    changes, reached = watch.next(60)
    assert sorted(changes, key=lambda change: change.key) == [
        Change("/a", None, b"old", revision),
        Change("/b", b"1", None, revision),
        Change("/c", b"2", None, revision),
    ]
    assert reached == revision
    watch.close()


def test_a_commit_may_depend_on_a_key_that_it_does_not_write(storage):
    first = put(storage, "/gate", b"open")
    revision = storage.commit([Write("/a", b"1"), base.unchanged("/gate", first)])
    assert storage.get("/gate")[0] == base.Entry("/gate", b"open", first)
    assert storage.get("/a")[0] == base.Entry("/a", b"1", revision)
    shut = put(storage, "/gate", b"shut")
    for gone in (False, True):
        with pytest.raises(Mismatch) as caught:
            storage.commit([Write("/b", b"1"), base.unchanged("/gate", first)])
        now = None if gone else base.Entry("/gate", b"shut", shut)
        assert (caught.value.key, caught.value.current) == ("/gate", now)
        assert storage.get("/b")[0] is None
        storage.commit([Write("/gate", None)])
    many = [Write(f"/{number}", b"") for number in range(base.LARGEST_COMMIT)]
    storage.commit([*many, base.unchanged("/gate", ABSENT)])


def test_deleting_the_absent_is_no_change(storage):
    before = put(storage, "/a")
    assert storage.commit([Write("/b", None)]) == before
    assert storage.commit([Write("/b", None, ABSENT)]) == before
    assert put(storage, "/c") == before + 1


def test_what_no_caller_may_ask(storage):
    with pytest.raises(ValueError, match="one key twice"):
        storage.commit([Write("/a", b"1"), Write("/a", b"2")])
    with pytest.raises(ValueError, match="a commit of"):
        storage.commit([Write(f"/{number}", b"") for number in range(base.LARGEST_COMMIT + 1)])
    storage.commit([Write(f"/{number}", b"") for number in range(base.LARGEST_COMMIT)])


def test_a_watch_tells_changes_below_its_prefix_from_its_revision_on(storage):
    put(storage, "/a/1", b"before")
    since = put(storage, "/a/2", b"before")
    one = put(storage, "/a/1", b"after")
    put(storage, "/b/1", b"elsewhere")
    two = storage.commit([Write("/a/2", None)])
    watch = storage.watch("/a/", since)
    seen: list[Change] = []
    while len(seen) < 2:
        seen += watch.next(60)[0]
    assert seen == [
        Change("/a/1", b"after", b"before", one),
        Change("/a/2", None, b"before", two),
    ]
    assert watch.next(0)[0] == []
    three = put(storage, "/a/3", b"new")
    assert watch.next(60) == ([Change("/a/3", b"new", None, three)], three)
    watch.close()


def test_a_watch_of_the_future_waits_for_it(storage):
    now = put(storage, "/a")
    watch = storage.watch("/", now + 1)
    put(storage, "/b")
    last = put(storage, "/c")
    assert watch.next(60) == ([Change("/c", b"1", None, last)], last)
    watch.close()


def test_a_watch_reaches_revisions_that_other_prefixes_have(storage):
    watch = storage.watch("/a/", storage.revision())
    last = put(storage, "/b")
    deadline = time.monotonic() + 60
    reached = 0
    while reached < last and time.monotonic() < deadline:
        reached = watch.next(0.01)[1]
    assert reached == last
    watch.close()


def test_a_watch_from_what_is_forgotten_is_refused(storage):
    first = put(storage, "/a", b"1")
    for _ in range(5):
        last = put(storage, "/a", b"2")
    storage.compact(last)
    storage.compact(last)
    with pytest.raises(Compacted) as caught:
        storage.watch("/", first - 1).next(60)
    assert caught.value.oldest == last
    assert storage.get("/a")[0] == base.Entry("/a", b"2", last)
    watch = storage.watch("/", caught.value.oldest)
    newest = put(storage, "/a", b"3")
    assert watch.next(60) == ([Change("/a", b"3", b"2", newest)], newest)
    watch.close()


def test_closing_a_watch_ends_its_waiting(storage):
    watch = storage.watch("/", storage.revision())
    ended = threading.Event()

    def wait() -> None:
        watch.next(None)
        ended.set()

    thread = threading.Thread(target=wait)
    thread.start()
    watch.close()
    watch.close()
    assert ended.wait(60)
    thread.join()
    assert watch.next(None)[0] == []


def test_several_clients_see_the_same(opened):
    one, other = opened(), opened()
    watch = other.watch("/", other.revision())
    revision = put(one, "/a", b"1", ABSENT)
    assert other.get("/a") == (base.Entry("/a", b"1", revision), revision)
    assert watch.next(60) == ([Change("/a", b"1", None, revision)], revision)
    with pytest.raises(Mismatch):
        put(other, "/a", b"2", ABSENT)
    put(other, "/a", b"2", revision)
    with pytest.raises(Mismatch):
        put(one, "/a", b"3", revision)
    watch.close()


def test_of_concurrent_commits_none_is_lost_and_every_watch_sees_all_in_order(opened):
    """Four threads count up two keys at once; the sum is right, and each step was seen."""
    since = opened().revision()
    watches = [opened().watch("/count/", since) for _ in range(2)]
    clients = [opened() for _ in range(4)]

    def count(storage: base.Storage, key: str) -> None:
        for _ in range(25):
            while True:
                here, _ = storage.get(key)
                total, _ = storage.get("/count/total")
                try:
                    storage.commit([successor(key, here), successor("/count/total", total)])
                except Mismatch:
                    continue
                break

    threads = [
        threading.Thread(target=count, args=(client, f"/count/{number % 2}"))
        for number, client in enumerate(clients)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for watch in watches:
        seen: list[Change] = []
        while len(seen) < 200:
            changes, _ = watch.next(60)
            assert changes
            seen += changes
        totals = [int(one.value or b"") for one in seen if one.key == "/count/total"]
        assert totals == list(range(1, 101))
        assert [one.revision for one in seen] == sorted(one.revision for one in seen)
        watch.close()


def successor(key: str, entry: base.Entry | None) -> Write:
    if entry is None:
        return Write(key, b"1", ABSENT)
    return Write(key, str(int(entry.value) + 1).encode(), entry.revision)


def test_concurrent_processes_lose_nothing_and_all_see_all(tmp_path):
    """SQLite: four processes write and watch one file."""
    path = tmp_path / "db"
    storage = sqlite.SqliteStorage(path)
    since = storage.revision()
    outcome = run_writers(path, processes=4, commits=100)
    watch = storage.watch("/", since)
    seen: list[Change] = []
    while len(seen) < 400:
        seen += watch.next(60)[0]
    expected = [(one.key, one.revision) for one in seen]
    assert len(set(expected)) == 400
    for seen_there, acknowledged in outcome:
        assert seen_there == expected
        assert set(acknowledged) <= set(expected)
    watch.close()
    storage.close()


def test_what_was_stored_is_there_after_closing(tmp_path):
    with contextlib.closing(sqlite.SqliteStorage(tmp_path / "db")) as storage:
        since = storage.revision()
        revision = put(storage, "/a", b"1")
    with contextlib.closing(sqlite.SqliteStorage(tmp_path / "db")) as storage:
        assert storage.get("/a") == (base.Entry("/a", b"1", revision), revision)
        with contextlib.closing(storage.watch("/", since)) as watch:
            assert watch.next(60)[0] == [Change("/a", b"1", None, revision)]


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
def test_the_history_is_bounded(kind, tmp_path):
    storage: base.Storage
    if kind == "memory":
        storage = memory.MemoryStorage(history=20)
    else:
        storage = sqlite.SqliteStorage(tmp_path / "db", history=20)
    first = storage.revision()
    for _ in range(100):
        last = put(storage, "/a")
    with pytest.raises(Compacted):
        storage.watch("/", first).next(60)
    watch = storage.watch("/", last - 20)
    assert len(watch.next(60)[0]) == 20
    watch.close()
    storage.close()


def test_a_closed_storage_is_unavailable(tmp_path):
    storage = sqlite.SqliteStorage(tmp_path / "db")
    storage.close()
    storage.close()
    with pytest.raises(base.Unavailable):
        storage.revision()
    with pytest.raises(base.Unavailable):
        put(storage, "/a")


def test_nobody_there_is_unavailable_and_surely_not_written():
    storage = etcd.EtcdStorage([f"http://{free_loopback(2379)}:2379"], patience=0.2)
    with pytest.raises(base.Unavailable) as caught:
        put(storage, "/a")
    assert not caught.value.unknown
    with pytest.raises(base.Unavailable):
        storage.watch("/", 1)
    storage.close()


def test_what_is_measured_is_of_all_commits(opened):
    measured = measure.measure(opened, commits=20, writers=2)
    assert len(measured.commit_s) == len(measured.watch_s) == 20
    assert measured.commits_per_s > 0
    assert opened().list("/measure/")[0] == []
