"""Two stores over one storage, as of two API servers; and a storage that fails them."""

import contextlib
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from kproxy import errors
from kproxy.controlplane.storage import base
from kproxy.controlplane.storage.memory import MemoryStorage
from kproxy.controlplane.store import EventType, Store, key_of

KEY = ("demo", "a")


def pod(name: str = "a", **spec: object) -> dict:
    return {"kind": "Pod", "metadata": {"name": name, "namespace": "demo"}, "spec": spec}


class Faulty:
    """A storage that can go away, forget what it answered, or be another one when it is back."""

    def __init__(self) -> None:
        self.inner = MemoryStorage()
        self.away = False
        self.unsure = False
        self._watches: list[FaultyWatch] = []

    def get(self, key: str) -> tuple[base.Entry | None, int]:
        self._check()
        return self.inner.get(key)

    def list(self, prefix: str) -> tuple[Sequence[base.Entry], int]:
        self._check()
        return self.inner.list(prefix)

    def revision(self) -> int:
        self._check()
        return self.inner.revision()

    def commit(self, writes: Sequence[base.Write]) -> int:
        self._check()
        revision = self.inner.commit(writes)
        if self.unsure:
            raise base.Unavailable("lost the answer", unknown=True)
        return revision

    def watch(self, prefix: str, since: int) -> base.Watch:
        self._check()
        watch = FaultyWatch(self.inner.watch(prefix, since))
        self._watches.append(watch)
        return watch

    def compact(self, revision: int) -> None:
        self.inner.compact(revision)

    def close(self) -> None:
        self.go_away()

    def go_away(self) -> None:
        self.away = True
        while self._watches:
            self._watches.pop().break_off()

    def _check(self) -> None:
        if self.away:
            raise base.Unavailable("no quorum")


class FaultyWatch:
    """Ends with its storage."""

    def __init__(self, inner: base.Watch) -> None:
        self._inner = inner
        self._broken = False

    def next(self, timeout: float | None) -> tuple[Sequence[base.Change], int]:
        told = self._inner.next(timeout)
        if self._broken:
            raise base.Unavailable("no quorum")
        return told

    def break_off(self) -> None:
        self._broken = True
        self._inner.close()

    def close(self) -> None:
        self._inner.close()


@pytest.fixture
def pair() -> Iterator[tuple[Store, Store]]:
    storage = MemoryStorage()
    with (
        contextlib.closing(Store(storage)) as one,
        contextlib.closing(Store(storage)) as other,
    ):
        yield one, other


@pytest.fixture
def faulty() -> Iterator[tuple[Store, Faulty]]:
    storage = Faulty()
    with contextlib.closing(Store(storage, patience=0.2)) as store:
        store.create("pods", pod())
        store.list("pods")
        yield store, storage


def test_what_one_has_written_the_other_reads_at_once(pair):
    one, other = pair
    for number in range(50):
        made = one.create("pods", pod(f"p{number}"))
        assert made in other.list("pods")[0]
        assert other.get("pods", ("demo", f"p{number}")) == made


def test_versions_are_common(pair):
    one, other = pair
    made = one.create("pods", pod(x=1))
    changed = other.update("pods", KEY, lambda old: {**old, "spec": {"x": 2}})
    with pytest.raises(errors.Conflict):
        one.update("pods", KEY, lambda _: {**made.obj, "spec": {"x": 3}})
    assert one.get("pods", KEY) == changed
    assert one.version == other.version == changed.revision


def test_both_watches_tell_the_same(pair):
    one, other = pair
    since = one.version
    one.create("pods", pod(x=1))
    other.update("pods", KEY, lambda old: {**old, "spec": {"x": 2}})
    one.delete("pods", KEY)
    told = []
    for store in pair:
        store.list("pods")
        events, reached = store.events("pods", since, 0)
        assert reached == since + 3
        told.append(events)
    assert told[0] == told[1]
    types = [EventType.ADDED, EventType.MODIFIED, EventType.DELETED]
    assert [event.type for event in told[0]] == types
    assert told[0][2].item.revision == since + 3


def test_concurrent_changes_without_a_version_are_all_done(pair):
    pair[0].create("pods", pod(count=0))

    def count(store: Store) -> None:
        for _ in range(50):
            store.update(
                "pods", KEY, lambda old: {**old, "spec": {"count": old["spec"]["count"] + 1}}
            )

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(count, pair * 2))
    assert pair[0].get("pods", KEY).obj["spec"]["count"] == 200


def test_of_two_who_create_one_is_refused(pair):
    barrier = threading.Barrier(2)

    def create(store: Store) -> str:
        barrier.wait()
        try:
            store.create("pods", pod())
        except errors.Conflict as error:
            return error.reason
        return "created"

    with ThreadPoolExecutor(2) as pool:
        assert sorted(pool.map(create, pair)) == ["AlreadyExists", "created"]


def test_the_last_finalizer_removes_what_is_to_be_deleted(pair):
    one, other = pair
    obj = pod()
    obj["metadata"]["finalizers"] = ["a/b", "c/d"]
    one.create("pods", obj)
    marked = other.delete("pods", KEY)
    assert marked.obj["metadata"]["deletionGracePeriodSeconds"] == 0
    assert other.delete("pods", KEY) == marked

    def without(name: str):
        def change(old: dict) -> dict:
            left = [one for one in old["metadata"]["finalizers"] if one != name]
            return {**old, "metadata": {**old["metadata"], "finalizers": left}}

        return change

    one.update("pods", KEY, without("a/b"))
    assert other.exists("pods", KEY)
    since = one.version
    one.update("pods", KEY, without("c/d"))
    assert not other.exists("pods", KEY)
    other.list("pods")
    assert [event.type for event in other.events("pods", since, 0)[0]] == [EventType.DELETED]


def test_finalizers_do_not_shorten_the_grace_period(pair):
    one, _ = pair
    obj = pod()
    obj["metadata"]["finalizers"] = ["a/b"]
    one.create("pods", obj)
    one.delete("pods", KEY, grace=30)
    one.update("pods", KEY, lambda old: {**old, "metadata": {**old["metadata"], "finalizers": []}})
    assert one.exists("pods", KEY)  # its owner still has to stop it
    one.delete("pods", KEY, grace=0)
    assert not one.exists("pods", KEY)


def test_without_the_storage_memory_answers_and_writes_fail(faulty):
    store, storage = faulty
    since = store.version
    storage.go_away()
    assert [key_of(item.obj) for item in store.list("pods", fresh=False)[0]] == [KEY]
    assert store.get("pods", KEY, fresh=False).obj["spec"] == {}
    assert store.events("pods", since, 0) == ([], since)
    writes = [
        lambda: store.create("pods", pod("b")),
        lambda: store.update("pods", KEY, lambda old: {**old, "spec": {"x": 1}}),
        lambda: store.delete("pods", KEY),
        lambda: store.list("pods"),
        lambda: store.get("pods", KEY),
    ]
    for write in writes:
        with pytest.raises(errors.ApiError) as caught:
            write()
        assert (caught.value.code, caught.value.reason) == (503, "ServiceUnavailable")
        assert caught.value.retry_after
    storage.away = False
    made = store.create("pods", pod("b"))
    events, _ = store.events("pods", since, 30)
    assert [event.item for event in events] == [made]


def test_a_write_of_which_nobody_knows_is_a_timeout(faulty):
    store, storage = faulty
    storage.unsure = True
    with pytest.raises(errors.ApiError) as caught:
        store.update("pods", KEY, lambda old: {**old, "spec": {"x": 1}})
    assert (caught.value.code, caught.value.reason) == (504, "Timeout")
    storage.unsure = False
    assert store.get("pods", KEY).obj["spec"] == {"x": 1}


def test_changes_forgotten_meanwhile_are_gone_and_all_is_listed_again(faulty):
    store, storage = faulty
    since = store.version
    heard: list[BaseException] = []

    def watch() -> None:
        try:
            store.events("pods", since, 30)
        except errors.Gone as error:
            heard.append(error)

    watcher = threading.Thread(target=watch)
    watcher.start()
    storage.go_away()
    key = "/registry/pods/demo/z"
    storage.inner.commit([base.Write(key, b'{"metadata":{"namespace":"demo","name":"z"}}')])
    storage.inner.compact(storage.inner.revision())
    storage.away = False
    watcher.join(60)
    assert [type(error) for error in heard] == [errors.Gone]
    items, version = store.list("pods")
    assert [key_of(item.obj) for item in items] == [KEY, ("demo", "z")]
    assert store.events("pods", version, 0) == ([], version)


def test_another_storage_in_its_place_is_listed_anew(faulty):
    store, storage = faulty
    for number in range(5):
        store.create("pods", pod(f"p{number}"))
    since = store.version
    store.list("pods")
    storage.go_away()
    storage.inner = MemoryStorage()
    storage.inner.commit(
        [base.Write("/registry/pods/demo/z", b'{"metadata":{"namespace":"demo","name":"z"}}')]
    )
    storage.away = False
    with pytest.raises(errors.Gone):
        store.events("pods", since, 30)
    assert [key_of(item.obj) for item in store.list("pods")[0]] == [("demo", "z")]


def test_a_server_that_starts_without_its_store_says_so_until_it_is_there():
    storage = Faulty()
    storage.away = True
    with contextlib.closing(Store(storage, patience=0.5)) as store:
        with pytest.raises(errors.ApiError) as caught:
            store.list("pods", fresh=False)
        assert caught.value.code == 503
        storage.away = False
        store._cache._patience = 60.0  # seconds, for those that it takes to look again
        store.create("pods", pod())
        assert store.list("pods")[0]


def test_what_is_no_object_is_passed_over():
    storage = MemoryStorage()
    storage.commit([base.Write("/registry/pods/demo/bad", b"{"), base.Write("/elsewhere", b"{}")])
    with contextlib.closing(Store(storage)) as store:
        made = store.create("pods", pod())
        storage.commit([base.Write("/registry/pods/demo/worse", b"[]")])
        assert store.list("pods")[0] == [made]
        with pytest.raises(errors.ApiError) as caught:
            store.get("pods", ("demo", "bad"))
        assert caught.value.code == 500


@pytest.mark.parametrize("value", [b"5", b"[]", b"{}", b'{"metadata": 5}', b"\xff", b"{"])
def test_a_value_that_is_no_object_does_not_end_the_following(value):
    storage = MemoryStorage()
    storage.commit([base.Write("/registry/pods/demo/first", value, base.ABSENT)])
    with contextlib.closing(Store(storage)) as store:
        storage.commit([base.Write("/registry/pods/demo/second", value, base.ABSENT)])
        made = store.create("pods", pod())
        assert store.list("pods")[0] == [made]


def test_a_storage_that_breaks_once_is_followed_again():
    class Breaks(MemoryStorage):
        sound = False

        def watch(self, prefix: str, since: int) -> base.Watch:
            if not self.sound:
                self.sound = True
                raise RuntimeError("broken")
            return super().watch(prefix, since)

    with contextlib.closing(Store(Breaks())) as store:
        made = store.create("pods", pod())
        assert store.list("pods")[0] == [made]
