"""An etcd cluster of three loses its leader, a link, its majority: what its client notices."""

import contextlib
import threading
import time
from collections.abc import Iterator

import pytest
from etcd_cluster import EtcdCluster, etcd_cluster

from kproxy import errors
from kproxy.controlplane.storage import base, etcd
from kproxy.controlplane.storage.base import ABSENT, Change, Write
from kproxy.controlplane.store import EventType, Store

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.once,
    pytest.mark.needs_tool("etcd", "nsenter", "unshare", "ip"),
]


@pytest.fixture
def cluster(namespace, tmp_path) -> Iterator[EtcdCluster]:
    with etcd_cluster(tmp_path) as made:
        made.leader()
        yield made


@pytest.fixture
def storage(cluster) -> Iterator[etcd.EtcdStorage]:
    with contextlib.closing(etcd.EtcdStorage(cluster.endpoints)) as made:
        yield made


class Counting:
    """Counts a key up by compare and swap, in a thread, and watches it, in another."""

    def __init__(self, cluster: EtcdCluster, since: int) -> None:
        self._storages = [etcd.EtcdStorage(cluster.endpoints, patience=60) for _ in range(2)]
        self.acknowledged: list[tuple[int, int]] = []
        """(value, revision)"""
        self.seen: list[tuple[int, int]] = []
        self._stop = False
        self._moved = threading.Condition()
        self._threads = [
            threading.Thread(target=self._count, args=(self._storages[0],), daemon=True),
            threading.Thread(target=self._watch, args=(self._storages[1], since), daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    def wait_for_more(self, number: int = 20) -> None:
        with self._moved:
            goal = len(self.acknowledged) + number
            assert self._moved.wait_for(lambda: len(self.acknowledged) >= goal, 60)

    def stop(self) -> None:
        self._stop = True
        for thread in self._threads:
            thread.join(60)
            assert not thread.is_alive()
        for storage in self._storages:
            storage.close()

    def _count(self, storage: base.Storage) -> None:
        value, revision = 0, ABSENT
        while not self._stop:
            write = Write("/count", str(value + 1).encode(), revision)
            revision = storage.commit([write])
            value += 1
            with self._moved:
                self.acknowledged.append((value, revision))
                self._moved.notify_all()
        storage.commit([Write("/end", b"", ABSENT)])

    def _watch(self, storage: base.Storage, since: int) -> None:
        while True:
            try:
                with contextlib.closing(storage.watch("/", since)) as watch:
                    while True:
                        changes, since = watch.next(None)
                        for change in changes:
                            if change.key == "/end":
                                return
                            self.seen.append((int(change.value or b""), change.revision))
            except base.Unavailable:
                # Nothing tells when it is available again: it asks once more after a while;
                # `stop` has the deadline.
                time.sleep(0.05)


@pytest.mark.parametrize("fault", ["killed", "cut off"])
def test_without_its_leader_writes_go_on_and_no_watch_misses_any(cluster, storage, fault):
    counting = Counting(cluster, storage.revision())
    counting.wait_for_more()
    for _ in range(2):
        leader = cluster.leader()
        if fault == "killed":
            cluster.kill(leader)
        else:
            cluster.cut_off(leader, down=True)
        counting.wait_for_more()
        if fault == "killed":
            cluster.start(leader)
        else:
            cluster.cut_off(leader, down=False)
        counting.wait_for_more()
    counting.stop()
    values = [value for value, _ in counting.acknowledged]
    assert values == list(range(1, len(values) + 1))
    assert counting.seen == counting.acknowledged


def test_without_a_majority_it_is_unavailable_until_there_is_one(cluster):
    with (
        contextlib.closing(etcd.EtcdStorage(cluster.endpoints, patience=60)) as storage,
        contextlib.closing(etcd.EtcdStorage(cluster.endpoints, patience=3)) as hasty,
    ):
        first = storage.commit([Write("/a", b"1", ABSENT)])
        watch = hasty.watch("/", first)
        gone = sorted(cluster.peers)[:2]
        for name in gone:
            cluster.kill(name)
        with pytest.raises(base.Unavailable):
            hasty.commit([Write("/a", b"2", first)])
        with pytest.raises(base.Unavailable):
            hasty.get("/a")
        with pytest.raises(base.Unavailable):
            watch.next(60)
        watch.close()
        for name in gone:
            cluster.start(name)
        cluster.leader()
        entry, _ = storage.get("/a")
        assert entry is not None
        assert entry.value in (b"1", b"2")  # nobody knew whether it was done
        last = storage.commit([Write("/b", b"3", ABSENT)])
        with contextlib.closing(storage.watch("/", first)) as watch:
            seen: list[Change] = []
            while not seen or seen[-1].revision < last:
                seen += watch.next(60)[0]
        assert seen[-1] == Change("/b", b"3", None, last)
        assert [change.revision for change in seen] == list(range(first + 1, last + 1))


def test_an_api_server_reads_on_without_its_store_and_catches_up(cluster):
    """Reads that need not be the newest and watches outlive the store; writes fail until then."""
    storage = etcd.EtcdStorage(cluster.endpoints, patience=60)
    with contextlib.closing(Store(storage)) as store:
        made = store.create("pods", {"metadata": {"namespace": "demo", "name": "a"}, "spec": {}})
        items, since = store.list("pods")
        gone = sorted(cluster.peers)[:2]
        for name in gone:
            cluster.kill(name)
        storage._gateway._patience = 2
        with pytest.raises(errors.ApiError) as caught:
            store.update("pods", ("demo", "a"), lambda old: {**old, "spec": {"x": 1}})
        assert caught.value.code in (503, 504)
        assert store.list("pods", fresh=False) == ([made], since)
        assert store.get("pods", ("demo", "a"), fresh=False) == items[0]
        assert store.events("pods", since, 0) == ([], since)
        with pytest.raises(errors.ApiError) as caught:
            store.list("pods")
        assert caught.value.code == 503
        for name in gone:
            cluster.start(name)
        storage._gateway._patience = 60
        cluster.leader()
        store.update("pods", ("demo", "a"), lambda old: {**old, "spec": {"x": 2}})
        seen = []
        while not seen or seen[-1].item.obj["spec"] != {"x": 2}:
            events, since = store.events("pods", since, 60)
            assert events
            seen += events
        assert {event.type for event in seen} == {EventType.MODIFIED}
