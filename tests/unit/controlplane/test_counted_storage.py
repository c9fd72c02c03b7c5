"""What is counted of a store, and that counting changes nothing of it."""

import pytest
from exposition_parser import parse

from kproxy.controlplane.storage import base
from kproxy.controlplane.storage.counted import CountedStorage
from kproxy.controlplane.storage.memory import MemoryStorage
from kproxy.exposition import Registry

POD = "/registry/pods/demo/a"


class Failing(MemoryStorage):
    """A store that can be made to answer no more."""

    failing = False

    def commit(self, writes):
        if self.failing:
            raise base.Unavailable("no quorum")
        return super().commit(writes)


@pytest.fixture
def made():
    registry = Registry()
    inner = Failing()
    yield CountedStorage(inner, registry), inner, registry
    inner.close()


def told(registry, name):
    return {
        tuple(value for _, value in labels): value
        for (_, labels), value in parse(registry.text())[name].samples.items()
    }


def test_requests_are_counted_by_what_they_are_about(made):
    storage, _, registry = made
    first = storage.commit([base.Write(POD, b"1", base.ABSENT)])
    second = storage.commit([base.Write(POD, b"2", first)])
    assert storage.get(POD) == (base.Entry(POD, b"2", second), second)
    assert storage.list("/registry/")[0] == [base.Entry(POD, b"2", second)]
    storage.commit([base.unchanged(POD, second), base.Write(POD + "b", None)])
    assert storage.revision() >= second
    assert told(registry, "etcd_requests_total") == {
        ("create", "pods"): 1,
        ("update", "pods"): 1,
        ("delete", "pods"): 1,
        ("get", "pods"): 1,
        ("list", ""): 1,
        ("revision", ""): 1,
    }
    assert "etcd_request_errors_total" not in registry.text()


def test_a_refused_commit_is_an_answer(made):
    storage, _, registry = made
    storage.commit([base.Write(POD, b"1", base.ABSENT)])
    before = told(registry, "kproxy_store_last_success_timestamp_seconds")
    with pytest.raises(base.Mismatch):
        storage.commit([base.Write(POD, b"1", base.ABSENT)])
    after = told(registry, "kproxy_store_last_success_timestamp_seconds")
    assert after[("write",)] >= before[("write",)] > 0
    assert told(registry, "kproxy_store_last_failure_timestamp_seconds")[("write",)] == 0


def test_a_store_that_does_not_answer_is_one_whose_last_failure_is_younger(made):
    storage, inner, registry = made
    storage.commit([base.Write(POD, b"1", base.ABSENT)])
    inner.failing = True
    with pytest.raises(base.Unavailable):
        storage.commit([base.Write(POD, b"2")])
    assert told(registry, "etcd_request_errors_total") == {("update", "pods"): 1}
    failed = told(registry, "kproxy_store_last_failure_timestamp_seconds")
    succeeded = told(registry, "kproxy_store_last_success_timestamp_seconds")
    assert failed[("write",)] > succeeded[("write",)]
    storage.get(POD)
    assert told(registry, "kproxy_store_last_failure_timestamp_seconds")[("read",)] == 0
    inner.failing = False
    storage.commit([base.Write(POD, b"2")])
    succeeded = told(registry, "kproxy_store_last_success_timestamp_seconds")
    assert succeeded[("write",)] > failed[("write",)]


def test_a_watch_is_the_stores_own(made):
    storage, inner, _ = made
    since = storage.revision()
    watch = storage.watch("/registry/", since)
    inner.commit([base.Write(POD, b"1")])
    changes, _ = watch.next(10)
    assert [change.key for change in changes] == [POD]
    watch.close()
