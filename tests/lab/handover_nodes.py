"""Two proxies of one node, and what their tests look at: who writes when, and who answers."""

import itertools
import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import agent_node
import pytest
from agent_node import Node, Proxy
from stub_api import service, slice_of

from netns import namespace
from netns.wait import wait_until

FLAG = "--make-before-break"
CHECK_EVERY_S = 0.01
HEALTHZ, METRICS, CHECKED = 10256, 10249, 30999


MODES = (
    "iptables",
    pytest.param("ipvs", marks=pytest.mark.needs_module("ip_vs", "dummy", "ip_set")),
)


@pytest.fixture(params=MODES)
def node(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Node]:
    """Run a node on which there is something to write."""
    with agent_node.running(tmp_path, request.param) as one:
        one.api.put(service("web", "10.96.0.10"), slice_of("web", "10.128.0.5", "10.128.1.6"))
        yield one


class HealthCheck:
    """Asks a port every 10 ms, each time on a new connection, and keeps what went wrong."""

    def __init__(self, node: Node, port: int = HEALTHZ, path: str = "/healthz") -> None:
        self.asked = 0
        self.failed: list[str] = []
        self._node = node
        self._port = port
        self._path = path
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> "HealthCheck":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._over.wait(CHECK_EVERY_S):
            self.asked += 1
            try:
                answer = self._ask()
            except OSError as error:
                answer = str(error)
            if not answer.startswith("HTTP/1.1 200"):
                self.failed.append(answer)

    def _ask(self) -> str:
        with namespace.entered(self._node.name):
            connection = socket.create_connection(("127.0.0.1", self._port), 30)
        with connection:
            connection.sendall(f"GET {self._path} HTTP/1.1\r\n\r\n".encode())
            return connection.recv(4096).decode()

    def until_answered(self) -> None:
        """Wait until the first answer is as it should be."""
        wait_until(self._works, agent_node.PATIENCE_S, "an answer", interval=CHECK_EVERY_S)

    def await_more(self, number: int) -> None:
        """Wait until it has asked so many times more."""
        enough = self.asked + number
        why = f"{number} more questions"
        wait_until(
            lambda: self.asked >= enough, agent_node.PATIENCE_S, why, interval=CHECK_EVERY_S
        )

    def _works(self) -> bool:
        try:
            return self._ask().startswith("HTTP/1.1 200")
        except ConnectionError:
            return False


def events(proxy: Proxy) -> list[dict[str, Any]]:
    return [json.loads(line) for line in proxy.lines if line.startswith("{")]


def holdings(proxy: Proxy, ended_ns: int) -> list[tuple[int, int]]:
    """Return from when to when a proxy that ended at that time held the lock."""
    found, since = [], None
    for event in events(proxy):
        if event["msg"] == "holding":
            since = event["mono_ns"]
        elif event["msg"] == "released":
            assert since is not None
            found.append((since, event["mono_ns"]))
            since = None
    return found if since is None else [*found, (since, ended_ns)]


def one_writer(proxies: dict[Proxy, int]) -> None:
    """Check that no two held the lock at once, and that nobody wrote without it."""
    periods = []
    for proxy, ended_ns in proxies.items():
        own = holdings(proxy, ended_ns)
        for event in events(proxy):
            if event["msg"] == "synced":
                assert any(since <= event["mono_ns"] <= until for since, until in own)
        periods += own
    periods.sort()
    for (_, until), (since, _) in itertools.pairwise(periods):
        assert until <= since, "two held the lock at once"


def ended(proxy: Proxy, number: int = 0) -> int:
    """Wait for the end of a proxy, or bring it about; return when it was, or was begun."""
    if number:
        sent = time.monotonic_ns()
        proxy.end(number)
        return sent
    assert proxy.process.wait(agent_node.PATIENCE_S) == 0, "".join(proxy.lines)
    proxy._reader.join(agent_node.PATIENCE_S)
    return time.monotonic_ns()


def synced_to(proxy: Proxy, node: Node, text: str) -> None:
    """Wait until the kernel holds something, which this proxy has written."""
    while text not in node.contents():
        proxy.wait_for("synced")
