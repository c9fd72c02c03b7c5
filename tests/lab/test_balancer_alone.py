"""The balancer with nothing but two servers and a client: every mode, on any kernel.

The servers answer ``/readyz`` and keep whatever else is said to them.
"""

import json
import os
import signal
import socket
import sys
from collections.abc import Iterator
from ipaddress import ip_interface, ip_network
from pathlib import Path

import pytest

from kproxy.controlplane.access import kubeconfigs
from netns import wait
from netns.host import LiveHost
from netns.lab import Lab
from netns.process import Process
from netns.topology import Host, Interface, Route, Segment, Topology

pytestmark = pytest.mark.lab

VIP, PORT = "192.0.2.1", 6443
CLIENT, EDGE, SERVERS = "client", "edge", ("server1", "server2")
ADDRESSES = {CLIENT: 11, EDGE: 5, "server1": 21, "server2": 22}
PATIENCE_S = 60.0
SHORT_S = 2.0
SERVER = """
import socket, sys, threading
def serve(connection):
    with connection:
        while data := connection.recv(1000):
            if data.startswith(b"GET /readyz "):
                connection.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Length: 0\\r\\n\\r\\n")
            elif data.startswith(b"GET "):
                connection.sendall(b"HTTP/1.1 404 No\\r\\nContent-Length: 0\\r\\n\\r\\n")
            else:
                connection.sendall(sys.argv[1].encode())
with socket.create_server(("", 6443), backlog=64) as server:
    while True:
        threading.Thread(target=serve, args=(server.accept()[0],), daemon=True).start()
"""


def topology() -> Topology:
    router = {"net.ipv4.ip_forward": "1", "net.ipv4.conf.all.send_redirects": "0"}
    way = Route(to=ip_network(f"{VIP}/32"), via=ip_interface("192.168.77.5/24").ip)
    return Topology(
        hosts=tuple(
            Host(
                name=name,
                sysctls=router if name == EDGE else {},
                routes=(way,) if name == CLIENT else (),
            )
            for name in ADDRESSES
        ),
        segments=(
            Segment(
                name="lan",
                interfaces=tuple(
                    Interface(
                        host=name,
                        name="eth0",
                        addresses=(ip_interface(f"192.168.77.{number}/24"),),
                    )
                    for name, number in ADDRESSES.items()
                ),
            ),
        ),
    )


class World:
    """The hosts, their programs, and a client."""

    def __init__(self, lab: Lab, mode: str) -> None:
        self.lab, self.mode = lab, mode
        self.directory = lab.scratch
        self.kubeconfig = self.directory / "kubeconfig"
        server = {"server": f"http://{VIP}:{PORT}"}
        self.kubeconfig.write_text(kubeconfigs.document(server, "u", {}))
        self.servers = {name: self.start_server(name) for name in SERVERS}
        self.log = self.directory / "log"
        self.balancer = self.start_balancer()

    def start_server(self, name: str) -> Process:
        return self.lab[name].spawn([sys.executable, "-c", SERVER, name])

    def start_balancer(self) -> Process:
        options = [f"--api-server=192.168.77.{ADDRESSES[name]}:{PORT}" for name in SERVERS]
        options += [f"--api-address={VIP}", f"--mode={self.mode}"]
        options += [f"--state={self.directory / 'state.json'}", "--health-bind-address="]
        command = [sys.executable, "-m", "kproxy.lab.balancer", f"--kubeconfig={self.kubeconfig}"]
        log = self.log
        return self.lab[EDGE].spawn([*command, *options], stderr=log, env=dict(os.environ))

    def said(self) -> list[str]:
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        return [json.loads(line)["msg"] for line in lines if line.startswith("{")]

    def connect(self) -> socket.socket:
        host: LiveHost = self.lab[CLIENT]
        return host.call(socket.create_connection, (VIP, PORT), SHORT_S)

    def server_of(self, sock: socket.socket) -> str:
        """Return which server answers on a connection."""
        sock.settimeout(SHORT_S)
        sock.sendall(b"hello")
        return sock.recv(100).decode()

    def reached(self, times: int = 8) -> set[str]:
        """Return who answers new connections; empty if one of them is not answered."""
        found = set()
        try:
            for _ in range(times):
                with self.connect() as sock:
                    found.add(self.server_of(sock))
        except OSError:
            return set()
        return found

    def until_reached(self, *names: str) -> None:
        wait.wait_until(lambda: self.reached() == set(names), PATIENCE_S, f"{names} to answer")


@pytest.fixture(
    params=[
        pytest.param(
            "ipvs",
            marks=[
                pytest.mark.needs_module("ip_vs", "dummy", "ip_set"),
                pytest.mark.needs_tool("ipset"),
            ],
        ),
        pytest.param("nftables", marks=pytest.mark.needs_tool("nft")),
        "iptables",
    ]
)
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    with Lab(topology(), name=f"bal{os.getpid()}", state_dir=tmp_path / "state") as lab:
        world = World(lab, request.param)
        world.until_reached(*SERVERS)
        yield world


def test_new_connections_go_to_those_who_are_there(world: World) -> None:
    world.servers["server1"].kill()
    world.until_reached("server2")
    world.start_server("server1")
    world.until_reached(*SERVERS)


def test_connections_to_a_server_that_hangs_are_reset(world: World) -> None:
    """The others go on: nobody else's connections are touched."""
    socks = {}
    while len(socks) < len(SERVERS):
        sock = world.connect()
        name = world.server_of(sock)
        if name in socks:
            sock.close()
        else:
            socks[name] = sock
    world.servers["server1"].signal(signal.SIGSTOP)
    world.until_reached("server2")
    wait.wait_until(lambda: "ending connections" in world.said(), PATIENCE_S, "an end")

    def is_reset() -> bool:
        try:
            return not world.server_of(socks["server1"])
        except ConnectionError:
            return True
        except TimeoutError:
            return False

    wait.wait_until(is_reset, PATIENCE_S, "a reset")
    assert world.server_of(socks["server2"]) == "server2"
    world.servers["server1"].signal(signal.SIGCONT)
    world.until_reached(*SERVERS)
    for sock in socks.values():
        sock.close()


def test_a_successor_adopts_and_a_first_check_that_fails_takes_nobody_out(world: World) -> None:
    with world.connect() as sock:
        name = world.server_of(sock)
        world.balancer.kill()
        assert world.reached() == set(SERVERS)
        before = world.said().count("synced")
        assert before
        world.balancer = world.start_balancer()
        wait.wait_until(lambda: world.said().count("started") == 2, PATIENCE_S, "a successor")
        assert world.reached() == set(SERVERS)
        assert world.server_of(sock) == name
        world.balancer.signal(signal.SIGTERM)
        assert world.balancer.wait(PATIENCE_S) == 0
        assert world.said().count("synced") == before
        assert world.said()[-1] == "stopped"
        assert world.reached() == set(SERVERS)
