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
    assert worked.wait(60)
    queue.stop()
    thread.join(60)
    assert not thread.is_alive()


def test_a_key_may_come_back_in_longer_than_a_thread_can_wait():
    """Pods may bear a taint for 31,000 years; the others of the queue must not wait for them."""
    queue = WorkQueue()
    queue.add_after("a", 1e12)
    threading.Timer(0.05, queue.add, ["b"]).start()
    assert queue.get() == "b"


def test_a_key_comes_back_at_the_earliest_of_its_times():
    queue = WorkQueue()
    queue.add_after("a", 1000.0)
    queue.add_after("a", 0.0)
    queue.add_after("a", 500.0)
    assert queue.get(0) == "a"
    assert queue.get(0) is None
    queue.add_after("a", 0.0)
    assert queue.get(0) == "a"


def test_a_queue_tells_what_it_does():
    told = []

    class Metrics:
        def added(self, depth):
            told.append(("added", depth))

        def taken(self, depth, waited):
            told.append(("taken", depth, waited >= 0))

        def done(self, worked):
            told.append(("done", worked >= 0))

        def retried(self):
            told.append(("retried",))

    queue = WorkQueue(Metrics())
    queue.add("a")
    queue.add("b")
    assert queue.working_for() == 0.0
    queue.get(0)
    assert queue.working_for() >= 0.0
    queue.done()
    queue.retry("a")
    assert told == [
        ("added", 1),
        ("added", 2),
        ("taken", 1, True),
        ("done", True),
        ("retried",),
    ]
