"""Events: sent in the background, counted when they repeat, limited for each object."""

import io
import threading

from kproxy import errors, logs
from kproxy.api import catalog
from kproxy.controlplane import eventrecorder
from kproxy.controlplane.eventrecorder import Budget, Recorder

POD = {"metadata": {"name": "a", "namespace": "d", "uid": "u", "resourceVersion": "7"}}


class Sink:
    """Keeps what is written; wakes who waits for the n-th write."""

    def __init__(self):
        self.created = []
        self.patches = []
        self.failing = 0
        self._changed = threading.Condition()

    def create(self, kind, obj):
        with self._changed:
            if self.failing:
                self.failing -= 1
                self._changed.notify_all()
                raise errors.ApiError(500, "InternalError", "no")
            self.created.append(obj)
            self._changed.notify_all()
        return obj

    def patch(self, kind, namespace, name, patch, subresource=""):
        with self._changed:
            self.patches.append((namespace, name, patch))
            self._changed.notify_all()
        return patch

    def until(self, done):
        with self._changed:
            assert self._changed.wait_for(lambda: done(self), 10)


def recorder(sink):
    return Recorder(sink, "tester", logs.Log("t", stream=io.StringIO()))


def test_an_event_names_object_reason_and_source():
    sink = Sink()
    one = recorder(sink)
    one.event(catalog.POD, POD, "Reason", "text", warning=True)
    sink.until(lambda s: s.created)
    one.stop()
    (event,) = sink.created
    assert event["involvedObject"] == {
        "apiVersion": "v1",
        "kind": "Pod",
        "namespace": "d",
        "name": "a",
        "uid": "u",
        "resourceVersion": "7",
    }
    assert (event["type"], event["reason"], event["message"]) == ("Warning", "Reason", "text")
    assert event["metadata"]["namespace"] == "d"
    assert (event["count"], event["source"]) == (1, {"component": "tester"})


def test_events_of_one_moment_have_names_of_their_own(monkeypatch):
    """In virtual time a clock may show the same for long."""
    monkeypatch.setattr(eventrecorder.time, "time", lambda: 1_000.0)
    sink = Sink()
    one = recorder(sink)
    for reason in ("First", "Second", "Third"):
        one.event(catalog.POD, POD, reason, "text")
    sink.until(lambda s: len(s.created) == 3)
    one.stop()
    assert len({event["metadata"]["name"] for event in sink.created}) == 3


def test_the_same_again_is_counted():
    sink = Sink()
    one = recorder(sink)
    for _ in range(3):
        one.event(catalog.POD, POD, "Reason", "text")
    one.event(catalog.POD, POD, "Reason", "other")
    sink.until(lambda s: len(s.created) == 2)
    one.stop()
    assert [patch["count"] for _, _, patch in sink.patches] == [2, 3]
    assert {name for _, name, _ in sink.patches} == {sink.created[0]["metadata"]["name"]}


def test_a_failure_loses_that_event_only():
    sink = Sink()
    sink.failing = 1
    one = recorder(sink)
    one.event(catalog.POD, POD, "Lost", "text")
    one.event(catalog.POD, POD, "Kept", "text")
    sink.until(lambda s: s.created)
    one.stop()
    assert [event["reason"] for event in sink.created] == ["Kept"]


def test_each_object_has_a_budget_that_grows_again():
    budget = Budget()
    assert [budget.admits("a", 0.0) for _ in range(26)] == [True] * 25 + [False]
    assert budget.admits("b", 0.0)
    assert not budget.admits("a", eventrecorder.REFILL_S - 1)
    assert budget.admits("a", eventrecorder.REFILL_S)


def test_nothing_is_sent_after_the_end():
    sink = Sink()
    one = recorder(sink)
    one.event(catalog.POD, POD, "Reason", "text")
    sink.until(lambda s: s.created)
    one.stop()
    one.event(catalog.POD, POD, "Late", "text")
    one.stop()
    assert len(sink.created) == 1
