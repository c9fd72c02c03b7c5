"""The API server is away for a minute and back: rules stay, changes come soon, nobody crowds it.

In virtual time only: there a minute passes at once, and how long something takes is exact.
"""

import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import agent_node
import pytest
import stub_api
from agent_node import Node
from stub_api import service, slice_of

from kproxy.api import core
from kproxy.client.backoff import lots
from kproxy.client.informer import Informer
from kproxy.client.kubeconfig import Access
from kproxy.client.rest import Rest
from netns import namespace
from netns.kernels import base
from netns.wait import wait_until

pytestmark = [
    pytest.mark.lab,
    pytest.mark.needs_tool("ip", "iptables-legacy-save"),
    pytest.mark.skipif(base.clock() is not base.Clock.VIRTUAL, reason="needs the virtual clock"),
]

AWAY_S = 60.0
VANISHED_S = 47.0
"""A kernel left alone would have asked again 15 and will 31 seconds after the first time, which is
30 seconds after the last answer."""
SOON_NS = 2 * 10**9
CLIENTS = 20
PATIENCE_S = 60.0

GONE = b'{"kind": "Status", "reason": "Expired", "code": 410}'
EXPIRED = b"HTTP/1.1 410 Gone\r\nContent-Length: %d\r\n\r\n%s" % (len(GONE), GONE)


class KillableApi(stub_api.StubApi):
    """Ends as a process that is killed does, and may come back at the same port."""

    def __init__(self) -> None:
        self.came_ns: list[int] = []
        self.forgetful = False
        self._connections: list[socket.socket] = []
        super().__init__()
        self.port = int(self.url.rpartition(":")[2])

    def _serve(self, connection: socket.socket) -> None:
        self.came_ns.append(time.monotonic_ns())
        self._connections.append(connection)
        super()._serve(connection)

    def _watch(self, connection: socket.socket, resource: str, version: int) -> None:
        if self.forgetful and version < self._version:
            connection.sendall(EXPIRED)
            return
        super()._watch(connection, resource, version)

    def kill(self) -> None:
        """End it, with all connections."""
        self._socket.shutdown(socket.SHUT_RDWR)
        self._acceptor.join()
        self._socket.close()
        for connection in self._connections:
            if connection.fileno() >= 0:
                connection.shutdown(socket.SHUT_RDWR)
        self._connections.clear()

    def start_again(self, *, forgetful: bool = False) -> None:
        """Listen again; a forgetful server knows no versions of before."""
        self.forgetful = forgetful
        self.came_ns.clear()
        self._socket = socket.create_server(("127.0.0.1", self.port), backlog=64)
        self._acceptor = threading.Thread(target=self._accept, daemon=True)
        self._acceptor.start()


@pytest.fixture(
    params=[
        "iptables",
        pytest.param("ipvs", marks=pytest.mark.needs_module("ip_vs", "dummy", "ip_set")),
        pytest.param("nftables", marks=pytest.mark.needs_tool("nft")),
    ]
)
def node(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Node]:
    monkeypatch.setattr(stub_api, "StubApi", KillableApi)
    with agent_node.running(tmp_path, request.param) as node:
        node.api.put(
            service("web", "10.96.0.10"),
            slice_of("web", "10.128.0.5", "10.128.1.6"),
            service("dns", "10.96.0.11", 53, "UDP"),
            slice_of("dns", "10.128.0.7", port=5353, protocol="UDP"),
        )
        yield node


def rules(node: Node) -> str:
    """Return what packets meet, in every mode."""
    return node.contents() + node.run("nft", "--stateless", "list", "ruleset", check=False)


@pytest.mark.parametrize("forgetful", [False, True], ids=["goes on", "begins anew"])
def test_a_change_made_when_the_server_is_back_is_in_the_kernel_soon(
    node: Node, forgetful: bool
) -> None:
    api = node.api
    assert isinstance(api, KillableApi)
    proxy = node.start()
    proxy.wait_for("synced", first=True)
    contents = rules(node)
    api.kill()
    away_ns = time.monotonic_ns()
    time.sleep(AWAY_S)  # nothing happens
    assert rules(node) == contents
    api.put(slice_of("web", "10.128.0.5", "10.128.1.8"))
    with namespace.entered(node.name):
        api.start_again(forgetful=forgetful)
    back_ns = time.monotonic_ns()
    while (event := proxy.wait_for("synced"))["mono_ns"] < back_ns or not event["writes"]:
        assert event["mono_ns"] < away_ns or not event["writes"], "the kernel was left alone"
    assert event["mono_ns"] - back_ns <= SOON_NS
    after = rules(node)
    assert "10.128.1.6" in contents
    assert "10.128.1.6" not in after
    assert all(address in after for address in ("10.128.1.8", "10.128.0.5", "10.128.0.7"))
    # Each kind of object is complained about at first, and then now and then.
    assert 0 < proxy.pending("API problem") <= 4 * (2 + AWAY_S / 30)


@pytest.mark.parametrize("node", ["iptables"], indirect=True)
def test_a_machine_that_vanishes_and_comes_back_is_found_soon(node: Node) -> None:
    """Nothing answers, not even with a refusal: packets to the server are dropped."""
    api = node.api
    assert isinstance(api, KillableApi)
    ways = [
        ("INPUT", "-p", "tcp", way, str(api.port), "-j", "DROP") for way in ("--dport", "--sport")
    ]
    proxy = node.start()
    proxy.wait_for("synced", first=True)
    for way in ways:
        node.run("iptables-legacy", "-I", *way)
    time.sleep(VANISHED_S)  # nothing gets through
    api.put(slice_of("web", "10.128.0.5", "10.128.1.8"))
    for way in ways:
        node.run("iptables-legacy", "-D", *way)
    back_ns = time.monotonic_ns()
    while (event := proxy.wait_for("synced"))["mono_ns"] < back_ns or not event["writes"]:
        pass
    assert event["mono_ns"] - back_ns <= SOON_NS
    assert "10.128.1.8:8080" in node.contents()


def test_many_clients_do_not_come_back_as_one() -> None:
    api = KillableApi()
    access = Access(server=api.url)
    informers = [
        Informer(Rest(access), core.Service, lot=lots(f"node-{number} 1 Service").__next__)
        for number in range(CLIENTS)
    ]
    try:
        for informer in informers:
            informer.start()
        assert all(informer.wait_synced(PATIENCE_S) for informer in informers)
        api.kill()
        time.sleep(AWAY_S)  # they wait longer and longer before they ask again
        api.start_again()
        back_ns = time.monotonic_ns()
        wait_until(lambda: len(api.came_ns) >= CLIENTS, PATIENCE_S, "all to come", interval=0.01)
        came_ns = sorted(api.came_ns)
        assert came_ns[CLIENTS - 1] - back_ns <= SOON_NS
        together = max(sum(0 <= at - first < 10**7 for at in came_ns) for first in came_ns)
        assert together <= CLIENTS / 4
    finally:
        for informer in informers:
            informer.stop()
        api.close()
