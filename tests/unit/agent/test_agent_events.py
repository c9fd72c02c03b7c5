"""Events on the Node: few, never waiting for anybody, lost without harm."""

import io
import json
import threading
from typing import Any

import pytest

from kproxy.agent.events import BURST, INTERVAL_S, SILENCE_S, Events, Limit, event
from kproxy.errors import ApiError, KproxyError
from kproxy.logs import Log


class Server:
    """Takes events, or does not."""

    def __init__(self, error: KproxyError | None = None) -> None:
        self.error = error
        self.taken: list[dict[str, Any]] = []
        self.asked = threading.Semaphore(0)
        self.open = threading.Event()
        self.open.set()

    def derive(self) -> "Server":
        return self

    def request(self, method: str, path: str, *, body: bytes) -> bytes:
        self.open.wait(60)
        try:
            if self.error is not None:
                raise self.error
            self.taken.append({"method": method, "path": path, **json.loads(body)})
            return b""
        finally:
            self.asked.release()


def sender(server: Any) -> tuple[Events, io.StringIO]:
    output = io.StringIO()
    return Events(server, "n", lambda: "u-1", Log("test", "debug", output)), output


def test_an_event_is_posted_as_the_api_wants_it() -> None:
    server = Server()
    events, _ = sender(server)
    events.warn("SyncFailed", "add: refused")
    assert server.asked.acquire(timeout=60)
    (sent,) = server.taken
    assert (sent["method"], sent["path"]) == (
        "POST",
        "/apis/events.k8s.io/v1/namespaces/default/events",
    )
    assert sent["regarding"] == {"apiVersion": "v1", "kind": "Node", "name": "n", "uid": "u-1"}
    assert (sent["type"], sent["reason"], sent["note"]) == (
        "Warning",
        "SyncFailed",
        "add: refused",
    )


def test_what_the_api_limits_is_kept_within() -> None:
    made = event("n", "", "SyncFailed", "ü" * 2000, 1_700_000_000.25)
    assert len(made["note"].encode()) <= 1024
    assert made["eventTime"] == "2023-11-14T22:13:20.250000Z"
    assert made["regarding"]["uid"] == "n"


def test_the_same_is_not_said_again_soon() -> None:
    limit = Limit()
    assert limit.admits("a", "x", 0)
    assert not limit.admits("a", "x", SILENCE_S - 1)
    assert limit.admits("a", "y", SILENCE_S - 1)
    assert limit.admits("a", "x", SILENCE_S + 1)


def test_many_different_ones_are_limited() -> None:
    limit = Limit()
    admitted = [limit.admits("a", str(number), 1000.0) for number in range(BURST + 5)]
    assert admitted == [True] * BURST + [False] * 5
    assert limit.admits("a", "later", 1000.0 + INTERVAL_S)
    assert not limit.admits("a", "too soon", 1000.0 + INTERVAL_S)


def test_nobody_waits_for_a_server_that_does_not_answer() -> None:
    server = Server()
    server.open.clear()
    events, _ = sender(server)
    for number in range(40):
        events._limit = Limit()  # as if a long time had passed
        events.warn("SyncFailed", str(number))
    server.open.set()
    assert server.asked.acquire(timeout=60)
    assert len(server.taken) < 40, "the rest is lost"


@pytest.mark.parametrize("code", [403, 404])
def test_a_server_that_takes_no_events_is_asked_once(code: int) -> None:
    server = Server(ApiError(code, "No", "no such kind"))
    events, output = sender(server)
    events.warn("SyncFailed", "one")
    assert server.asked.acquire(timeout=60)
    events._thread.join(60)
    events.warn("SyncFailed", "two")
    assert not server.asked.acquire(timeout=0)
    (line,) = map(json.loads, output.getvalue().splitlines())
    assert (line["level"], line["msg"]) == ("debug", "event refused")


def test_while_the_server_is_away_events_are_lost_and_later_ones_sent() -> None:
    server = Server(KproxyError("unreachable"))
    events, _ = sender(server)
    events.warn("SyncFailed", "one")
    assert server.asked.acquire(timeout=60)
    server.error = None
    events.warn("SyncFailed", "two")
    assert server.asked.acquire(timeout=60)
    assert [sent["note"] for sent in server.taken] == ["two"]
