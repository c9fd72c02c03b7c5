"""The work queue: each key once, failed ones later, and an end."""

import threading

from kproxy.controlplane.workqueue import WorkQueue


def test_a_key_waits_only_once_and_in_order():
    queue = WorkQueue()
    for key in ("a", "b", "a"):
        queue.add(key)
    assert [queue.get(0), queue.get(0), queue.get(0)] == ["a", "b", None]


def test_a_key_being_worked_on_is_queued_again():
    queue = WorkQueue()
    queue.add("a")
    assert queue.get(0) == "a"
    queue.add("a")
    assert queue.get(0) == "a"


def test_a_failed_key_comes_back_later():
    queue = WorkQueue()
    wait = queue.retry("a")
    assert wait > 0
    assert queue.get(0) is None
    assert queue.get(10) == "a"


def test_failures_are_forgotten_after_success():
    queue = WorkQueue()
    first = queue.retry("a")
    assert queue.retry("a") > first
    queue.succeeded("a")
    assert queue.retry("a") == first


def test_adding_wakes_and_stopping_ends_who_waits():
    queue = WorkQueue()
    worked = threading.Event()

    def work() -> None:
        while queue.get() is not None:
            worked.set()

    thread = threading.Thread(target=work)
    thread.start()
    queue.add("a")
    assert worked.wait(10)
    queue.stop()
    thread.join(10)
    assert not thread.is_alive()
