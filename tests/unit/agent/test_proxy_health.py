import json
import threading
from typing import NoReturn

import pytest

from kproxy.agent.health import TO_BE_DELETED_TAINT, ProxyHealth
from kproxy.agent.healthserver import HttpServer, parse_bind_address
from kproxy.agent.http import Find, respond
from kproxy.agent.listeners import Listeners
from kproxy.api.core import Node, NodeSpec, Taint
from kproxy.api.meta import ObjectMeta
from kproxy.logs import Log

WALL = 1_700_000_000.5


def node(*, taint: str = "", deleted: bool = False) -> Node:
    return Node(
        metadata=ObjectMeta(
            name="n", deletion_timestamp="2026-01-01T00:00:00Z" if deleted else None
        ),
        spec=NodeSpec(taints=[Taint(key=taint)] if taint else None),
    )


def codes(health: ProxyHealth, now: float) -> tuple[int, int]:
    return health.healthz(now, WALL).code, health.livez(now, WALL).code


def synced(health: ProxyHealth) -> None:
    health.sync_started()
    health.sync_succeeded(WALL)


def test_healthy_while_starting_however_long() -> None:
    health = ProxyHealth(60)
    health.queued(0)
    assert codes(health, 1000) == (200, 200)


def test_unhealthy_once_a_change_waited_for_the_time_out() -> None:
    health = ProxyHealth(60)
    synced(health)
    health.queued(100)
    health.queued(150)  # the oldest counts
    assert codes(health, 159.9) == (200, 200)
    assert codes(health, 160) == (503, 503)
    synced(health)
    assert codes(health, 161) == (200, 200)


def test_a_sync_that_hangs_or_fails_does_not_hide_what_waits() -> None:
    health = ProxyHealth(60)
    synced(health)
    health.queued(100)
    health.sync_started()
    assert codes(health, 160) == (503, 503)
    health.sync_started()  # tried again after a failure
    assert codes(health, 161) == (503, 503)


def test_a_change_during_a_sync_waits_for_the_next() -> None:
    health = ProxyHealth(60)
    synced(health)
    health.queued(100)
    health.sync_started()
    health.queued(101)
    health.sync_succeeded(WALL)
    assert codes(health, 160.5) == (200, 200)
    assert codes(health, 161) == (503, 503)


@pytest.mark.parametrize("leaving", [node(taint=TO_BE_DELETED_TAINT), node(deleted=True), None])
def test_a_leaving_node_is_not_healthy_but_alive(leaving: Node | None) -> None:
    health = ProxyHealth(60)
    synced(health)
    health.node_changed(leaving)
    assert codes(health, 1) == (503, 200)
    health.node_changed(node(taint="other"))
    assert codes(health, 1) == (200, 200)


def test_bodies_are_kube_proxys() -> None:
    health = ProxyHealth(60)
    health.sync_started()
    health.sync_succeeded(WALL - 100)
    now = "2023-11-14 22:13:20.500000000 +0000 UTC"
    expected = {"lastUpdated": now, "currentTime": now, "nodeEligible": True}
    assert expected == json.loads(health.healthz(0, WALL).body)
    health.node_changed(None)
    body = json.loads(health.healthz(0, WALL).body)
    assert body["nodeEligible"] is False
    assert body["lastUpdated"] == "2023-11-14 22:11:40.500000000 +0000 UTC"
    assert {"lastUpdated", "currentTime"} == json.loads(health.livez(0, WALL).body).keys()


def handlers(health: ProxyHealth) -> Find:
    return {"/healthz": lambda: health.healthz(0, WALL)}.get


def test_the_server_answers_in_http() -> None:
    health = ProxyHealth(60)
    answer = respond(b"GET /healthz HTTP/1.1\r\n\r\n", handlers(health))
    head, _, body = answer.partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    assert lines[0] == "HTTP/1.1 200 OK"
    assert f"Content-Length: {len(body)}" in lines
    assert json.loads(body)["nodeEligible"] is True
    health.node_changed(None)
    answer = respond(b"GET /healthz?x HTTP/1.1\r\n\r\n", handlers(health))
    assert answer.startswith(b"HTTP/1.1 503 ")


@pytest.mark.parametrize(
    ("request_line", "code"),
    [(b"GET / HTTP/1.1", 404), (b"POST /healthz HTTP/1.1", 405), (b"", 404), (b"\xff", 404)],
)
def test_the_server_survives_any_request(request_line: bytes, code: int) -> None:
    answer = respond(request_line + b"\r\n\r\n", handlers(ProxyHealth(60)))
    assert answer.startswith(b"HTTP/1.1 %d " % code)


def test_head_has_no_body() -> None:
    answer = respond(b"HEAD /healthz HTTP/1.1\r\n\r\n", handlers(ProxyHealth(60)))
    assert answer.endswith(b"\r\n\r\n")
    assert b"Content-Length: 0" not in answer


class Listening(Listeners):
    """Tells when it begins to listen, and does not."""

    def __init__(self, port: int = 1) -> None:
        super().__init__()
        self.begun = threading.Event()
        self.server = HttpServer(("127.0.0.1", port), {}, Log("test"), self)

    def listen(self, address: tuple[str, int]) -> NoReturn:
        self.begun.set()
        threading.Event().wait()
        raise AssertionError


def test_the_server_listens_after_the_first_sync_however_that_ends_or_takes() -> None:
    over = threading.Event()
    early, late = Listening(), Listening()
    early.server.start(over, at_latest_s=3600)
    late.server.start(threading.Event(), at_latest_s=0)
    assert late.begun.wait(60), "a first sync that never ends"
    assert not early.begun.is_set()
    over.set()
    assert early.begun.wait(60)


def test_with_port_0_nothing_is_served() -> None:
    threads = threading.active_count()
    nowhere = Listening(port=0)
    nowhere.server.start(threading.Event(), at_latest_s=0)
    assert threading.active_count() <= threads
    assert not nowhere.begun.is_set()


def test_bind_addresses() -> None:
    assert parse_bind_address("0.0.0.0:10256") == ("0.0.0.0", 10256)
    assert parse_bind_address("[::1]:1") == ("::1", 1)
    assert parse_bind_address(":1") == ("0.0.0.0", 1)
    assert parse_bind_address("127.0.0.1:0") == ("127.0.0.1", 0)
    for text in ("127.0.0.1", "127.0.0.1:x", "127.0.0.1:-1", "127.0.0.1:65536"):
        with pytest.raises(ValueError, match=r"invalid literal|is out of range"):
            parse_bind_address(text)
