"""The store: versions, conflicts, deletion, and that list + watch is all there is to know."""

import contextlib
import threading
import time
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kproxy import errors
from kproxy.controlplane.storage.memory import MemoryStorage
from kproxy.controlplane.store import EventType, Store, key_of


def pod(name: str, **spec: object) -> dict:
    return {"kind": "Pod", "metadata": {"name": name, "namespace": "demo"}, "spec": spec}


@pytest.fixture
def store() -> Iterator[Store]:
    with contextlib.closing(Store(MemoryStorage(), now=lambda: 0.0)) as made:
        yield made


KEY = ("demo", "a")


def test_create_gives_identity_version_and_time(store):
    meta = store.create("pods", pod("a")).obj["metadata"]
    assert meta["generation"] == 1
    assert meta["creationTimestamp"] == "1970-01-01T00:00:00Z"
    assert meta["resourceVersion"] == str(store.version)
    other = store.create("pods", pod("b")).obj["metadata"]
    assert other["uid"] != meta["uid"]
    assert int(other["resourceVersion"]) > int(meta["resourceVersion"])


def test_one_counter_for_all_kinds(store):
    first = store.create("pods", pod("a")).obj["metadata"]["resourceVersion"]
    second = store.create("services", pod("a")).obj["metadata"]["resourceVersion"]
    assert int(second) == int(first) + 1


def test_create_twice_is_already_exists(store):
    store.create("pods", pod("a"))
    with pytest.raises(errors.Conflict) as caught:
        store.create("pods", pod("a"))
    assert caught.value.reason == "AlreadyExists"


def test_generation_counts_changes_of_the_specification_only(store):
    store.create("pods", pod("a", x=1))
    item = store.update("pods", KEY, lambda old: {**old, "status": {"phase": "Running"}})
    assert item.obj["metadata"]["generation"] == 1
    item = store.update("pods", KEY, lambda old: {**old, "spec": {"x": 2}})
    assert item.obj["metadata"]["generation"] == 2


def test_update_without_change_writes_nothing(store):
    before = store.create("pods", pod("a"))
    version = store.version
    assert store.update("pods", KEY, lambda old: dict(old)) == before
    assert store.version == version


def test_update_of_an_old_version_conflicts(store):
    old = store.create("pods", pod("a", x=1)).obj
    store.update("pods", KEY, lambda current: {**current, "spec": {"x": 2}})
    with pytest.raises(errors.Conflict) as caught:
        store.update("pods", KEY, lambda current: {**old, "spec": {"x": 3}})
    assert caught.value.reason == "Conflict"
    assert store.get("pods", KEY).obj["spec"] == {"x": 2}


def test_of_two_concurrent_writers_one_conflicts(store):
    base = store.create("pods", pod("a", x=0)).obj
    outcomes: list[str] = []
    barrier = threading.Barrier(2)

    def write(value: int) -> None:
        barrier.wait()
        try:
            store.update("pods", KEY, lambda _: {**base, "spec": {"x": value}})
            outcomes.append("written")
        except errors.Conflict:
            outcomes.append("conflict")

    threads = [threading.Thread(target=write, args=(value,)) for value in (1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["conflict", "written"]


def test_delete_with_grace_marks_and_can_only_be_shortened(store):
    store.create("pods", pod("a"))
    meta = store.delete("pods", KEY, grace=30).obj["metadata"]
    assert meta["deletionTimestamp"] == "1970-01-01T00:00:30Z"
    assert store.delete("pods", KEY, grace=60).obj["metadata"] == meta
    assert store.delete("pods", KEY, grace=5).obj["metadata"]["deletionGracePeriodSeconds"] == 5
    store.delete("pods", KEY, grace=0)
    with pytest.raises(errors.ApiError) as caught:
        store.get("pods", KEY)
    assert caught.value.code == 404


def test_a_deletion_mark_cannot_be_written_away(store):
    store.create("pods", pod("a"))
    store.delete("pods", KEY, grace=30)
    item = store.update("pods", KEY, lambda old: {**old, "metadata": {"name": "a"}, "spec": {}})
    assert "deletionTimestamp" in item.obj["metadata"]


def test_delete_of_another_uid_conflicts(store):
    store.create("pods", pod("a"))
    with pytest.raises(errors.Conflict):
        store.delete("pods", KEY, uid="somebody else")


@pytest.fixture
def forgetful() -> Iterator[Store]:
    with contextlib.closing(Store(MemoryStorage(), history=10)) as made:
        yield made


def test_a_watcher_that_fell_too_far_behind_is_told(forgetful):
    store = forgetful
    start = store.version
    store.create("pods", pod("a"))
    for value in range(30):
        store.update("pods", KEY, lambda old, value=value: {**old, "spec": {"x": value}})
    store.list("pods")
    with pytest.raises(errors.Gone):
        store.events("pods", start, 0)
    events, _ = store.events("pods", store.version - 10, 0)
    assert [event.item.obj["spec"]["x"] for event in events] == list(range(20, 30))


def test_a_version_of_another_server_is_gone(store):
    with pytest.raises(errors.Gone):
        store.events("pods", store.version + 1, 0)
    with (
        contextlib.closing(Store(MemoryStorage(first_revision=1000))) as other,
        pytest.raises(errors.Gone),
    ):
        other.events("pods", 999, 0)


def test_a_waiting_watcher_is_woken_by_its_kind_only(store):
    heard: list[object] = []
    since = store.version
    watcher = threading.Thread(target=lambda: heard.extend(store.events("pods", since, 60)[0]))
    watcher.start()
    store.create("services", pod("s"))
    store.create("pods", pod("a"))
    watcher.join()
    assert [event.item.obj["metadata"]["name"] for event in heard] == ["a"]


def test_close_ends_waiting(store):
    watcher = threading.Thread(target=store.events, args=("pods", store.version, None))
    watcher.start()
    store.close()
    watcher.join(60)
    assert not watcher.is_alive()


def test_waiting_ends_in_time_with_a_version_to_go_on_from(store):
    since = store.version
    store.create("services", pod("s"))
    store.list("services")
    assert store.events("pods", since, 0.001) == ([], store.version)


ACTIONS = st.lists(
    st.tuples(
        st.sampled_from(["create", "update", "status", "mark", "delete"]),
        st.sampled_from("abc"),
        st.integers(0, 3),
    ),
    max_size=40,
)


def act(store: Store, verb: str, name: str, value: int) -> None:
    key = ("demo", name)
    try:
        match verb:
            case "create":
                store.create("pods", pod(name, x=value))
            case "update":
                store.update("pods", key, lambda old: {**old, "spec": {"x": value}})
            case "status":
                store.update("pods", key, lambda old: {**old, "status": {"y": value}})
            case "mark":
                store.delete("pods", key, grace=value)
            case "delete":
                store.delete("pods", key)
    except errors.ApiError as error:
        if error.code not in (404, 409):
            raise


@given(before=ACTIONS, after=ACTIONS)
def test_list_and_watch_from_it_is_the_newest_list(before, after):
    with contextlib.closing(Store(MemoryStorage(), now=time.time)) as store:
        check_list_and_watch(store, before, after)


def check_list_and_watch(store: Store, before: list, after: list) -> None:
    for action in before:
        act(store, *action)
    items, version = store.list("pods")
    replayed = {key_of(item.obj): item.obj for item in items}
    for action in after:
        act(store, *action)
    newest, _ = store.list("pods")
    events, _ = store.events("pods", version, 0)
    for event in events:
        key = key_of(event.item.obj)
        assert (key in replayed) is (event.type is not EventType.ADDED)
        assert replayed.get(key) == event.previous
        if event.type is EventType.DELETED:
            del replayed[key]
        else:
            replayed[key] = event.item.obj
    assert replayed == {key_of(item.obj): item.obj for item in newest}
    versions = [event.version for event in events]
    assert versions == sorted(set(versions))
