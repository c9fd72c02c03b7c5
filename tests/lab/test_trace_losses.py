"""``kproxy trace`` in a small world without a proxy: where a packet is lost, and by whose word."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import click.testing
import pytest
from test_trace import hops, only, trace

from kproxy.cli.main import cli
from kproxy.kernel.inet import Protocol
from kproxy.trace.facts import Kind, Trace
from kproxy.trace.packet import Way
from netns import namespace
from netns.wait import wait_until

pytestmark = [pytest.mark.lab, pytest.mark.needs_tool("ip", "nft")]

CLIENT, POD, VIP = "10.1.0.2", "10.2.0.2", "10.96.0.10"
WORLD = f"""
client: link set lo up
node: link set lo up
pod: link set lo up
node: link add client type veth peer name eth0 netns NS-client
node: link add pod type veth peer name eth0 netns NS-pod
node: addr add 10.1.0.1/24 dev client
node: addr add 10.2.0.1/24 dev pod
node: link set client up
node: link set pod up
client: addr add {CLIENT}/24 dev eth0
client: link set eth0 up
client: route add default via 10.1.0.1
pod: addr add {POD}/24 dev eth0
pod: link set eth0 up
pod: route add default via 10.2.0.1
node: addr add fd01::1/64 dev client nodad
node: addr add fd02::1/64 dev pod nodad
client: addr add fd01::2/64 dev eth0 nodad
client: route add default via fd01::1
pod: addr add fd02::2/64 dev eth0 nodad
pod: route add default via fd02::1
"""
NAT = f"""
table ip service {{
    chain nat {{
        type nat hook prerouting priority -100;
        ip daddr {VIP} udp dport 53 dnat to {POD}:5353
        ip daddr {VIP} tcp dport 80 dnat to {POD}:8080
    }}
}}
"""
PREFIX = f"kt{os.getpid()}"
UDP = Protocol.UDP


def inside(host: str, *command: str, text: str = "") -> None:
    with namespace.entered(f"{PREFIX}-{host}"):
        subprocess.run(command, input=text, text=True, check=True)


@contextlib.contextmanager
def changed(host: str, do: str, undo: str) -> Iterator[None]:
    """Change the world for a test by a command of ip, and change it back."""
    inside(host, "ip", *do.split())
    try:
        yield
    finally:
        inside(host, "ip", *undo.split())


@pytest.fixture(scope="module")
def world() -> Iterator[None]:
    """A client, a node and a pod; tests that change them change them back."""
    names = [f"{PREFIX}-{host}" for host in ("client", "node", "pod")]
    with contextlib.ExitStack() as stack:
        for name in names:
            namespace.create(name)
            stack.callback(namespace.delete, name)
            with namespace.entered(name):  # no waiting for others with the same address
                Path("/proc/sys/net/ipv6/conf/default/accept_dad").write_text("0")
        for line in WORLD.strip().splitlines():
            host, words = line.split(": ", 1)
            inside(host, "ip", *words.replace("NS", PREFIX).split())
        with namespace.entered(names[1]):
            Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
            Path("/proc/sys/net/ipv6/conf/all/forwarding").write_text("1")
        inside("node", "nft", "-f", "-", text=NAT)
        yield


@contextlib.contextmanager
def udp_server(*, answers: bool = True) -> Iterator[None]:
    """Take datagrams in the pod, in both families; echo them, or keep quiet."""
    with namespace.entered(f"{PREFIX}-pod"):
        sock = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        end = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    with sock, end:
        sock.bind(("::", 5353))

        def serve() -> None:
            while (got := sock.recvfrom(4096))[0] != b"end":
                with contextlib.suppress(PermissionError):  # a rule drops what is sent
                    if answers:
                        sock.sendto(*got)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield
        end.sendto(b"end", ("::1", 5353))
        thread.join(10)


def ask(target: str = VIP, port: int = 53, *, hidden: str = "") -> Trace:
    return trace(
        f"{PREFIX}-", target, port, source="client", protocol=UDP, hidden=hidden, timeout_s=0.5
    )


def lost(found: Trace) -> tuple[str, str]:
    """Return direction and place of the loss, which is the last hop."""
    assert found.outcome == "no answer"
    assert found.hops[-1].kind is Kind.LOST, found.hops
    return str(found.hops[-1].way), found.hops[-1].place


def test_a_datagram_goes_there_and_back(world: None) -> None:
    with udp_server():
        found = ask()
    assert found.answered
    assert [place for place, kind in hops(found, Way.BACK) if kind == "device"] == [
        "pod", "node", "node", "client",
    ]  # fmt: skip


def test_it_works_over_ipv6(world: None) -> None:
    with udp_server():
        found = ask("fd02::2", 5353)
    assert found.answered
    assert only(found, Kind.ROUTE, "node") == ["dev pod"]
    assert len([hop for hop in found.hops if hop.kind is Kind.DEVICE]) == 8
    refused = ask("fd02::2", 9)
    assert refused.outcome == "refused"
    assert only(refused, Kind.SOCKET, "client", Way.BACK) == ["learns: port unreachable"]


def test_a_server_that_keeps_quiet_is_no_loss(world: None) -> None:
    with udp_server(answers=False):
        found = ask()
    assert found.outcome == "no answer"
    assert found.hops[-1].kind is Kind.SOCKET
    assert "taken by" in found.hops[-1].text
    assert "has not answered" in found.verdict


@pytest.mark.needs_tool("iptables-legacy", "iptables-legacy-save")
def test_rules_of_the_legacy_variant_are_told_by_their_counters(world: None) -> None:
    rule = ["PREROUTING", "-d", "10.96.0.11", "-p", "udp", "-m", "comment", "--comment", "mine"]
    rule += ["-j", "DNAT", "--to-destination", f"{POD}:5353"]
    inside("node", "iptables-legacy", "-t", "nat", "-A", *rule)
    other = ["FORWARD", "-d", "192.0.2.77", "-j", "DROP"]
    inside("node", "iptables-legacy", "-A", *other)
    try:
        with udp_server():
            found = ask("10.96.0.11")
    finally:
        inside("node", "iptables-legacy", "-t", "nat", "-D", *rule)
        inside("node", "iptables-legacy", "-D", *other)
    assert found.answered
    assert only(found, Kind.RULES, "node") == ["legacy nat PREROUTING (by counters): DNAT (mine)"]
    assert only(found, Kind.CONNTRACK, "node") == [f"a connection, translated to {POD}:5353"]


@pytest.mark.parametrize(
    ("host", "hook", "rule", "where"),
    [
        ("client", "output", "udp dport 53 drop", ("there", "client")),
        ("node", "prerouting", "udp dport 53 drop", ("there", "node")),
        ("node", "forward", "udp dport 5353 drop", ("there", "node")),
        ("node", "postrouting", "udp dport 5353 drop", ("there", "node")),
        ("pod", "input", "udp dport 5353 drop", ("there", "pod")),
        ("pod", "output", "udp sport 5353 drop", ("back", "pod")),
        ("node", "forward", "udp sport 5353 drop", ("back", "node")),
        ("client", "input", "udp sport 53 drop", ("back", "client")),
    ],
)
def test_a_rule_that_drops_is_where_the_trace_ends(
    world: None, host: str, hook: str, rule: str, where: tuple[str, str]
) -> None:
    priority = -150 if hook == "prerouting" else 0
    chain = f"chain thief {{ type filter hook {hook} priority {priority}; {rule}; }}"
    inside(host, "nft", "-f", "-", text=f"table ip thief {{\n{chain}\n}}\n")
    try:
        with udp_server():
            found = ask()
    finally:
        inside(host, "nft", "delete", "table", "ip", "thief")
    if (host, hook) == ("client", "output"):  # the sender is told
        assert found.outcome == "dropped by a rule of the sender"
        assert found.hops[-1].kind is Kind.LOST
        assert found.hops[-1].place == "client"
    else:
        assert lost(found) == where
    assert "ip thief thief: drop" in found.hops[-1].text


def test_a_policy_that_drops_is_where_the_trace_ends(world: None) -> None:
    chain = "chain thief { type filter hook forward priority 0; policy drop; }"
    inside("node", "nft", "-f", "-", text=f"table ip thief {{\n{chain}\n}}\n")
    try:
        with udp_server():
            found = ask()
    finally:
        inside("node", "nft", "delete", "table", "ip", "thief")
    assert lost(found) == ("there", "node")
    assert "ip thief thief: policy drop" in found.hops[-1].text


def test_what_a_host_sends_to_itself_is_local(world: None) -> None:
    found = trace(f"{PREFIX}-", POD, 9, source="pod", protocol=UDP, timeout_s=0.5)
    assert found.outcome == "refused"
    assert only(found, Kind.ROUTE, "pod") == ["local: to a socket of this host"] * 2
    assert "nobody listens on this port" in only(found, Kind.SOCKET, "pod")


def test_a_route_that_is_missing_is_told_by_the_router(world: None) -> None:
    route = f"unreachable {POD}/32"
    with changed("node", f"route add {route}", f"route del {route}"), udp_server():
        found = ask()
    assert found.outcome == "unreachable"
    assert only(found, Kind.ROUTE, "node") == ["unreachable: nothing leads there"]
    assert only(found, Kind.SOCKET, "node", Way.BACK) == ["the kernel answers: host unreachable"]


def test_a_black_hole_swallows_without_a_word(world: None) -> None:
    route = f"blackhole {POD}/32"
    with changed("node", f"route add {route}", f"route del {route}"), udp_server():
        found = ask()
    assert lost(found) == ("there", "node")
    told = found.hops[-1].text
    if any("drops is not told" in note for note in found.notes):
        assert told.startswith("no route: ")
    else:
        assert told.startswith("dropped by the kernel: ")
        assert found.hops[-1].ns is not None


def test_a_neighbour_that_does_not_answer_is_named(world: None) -> None:
    # Another pod's address, of which the node has no neighbour yet.
    absent = "10.2.0.77"
    found = ask(absent, 5353)
    assert lost(found) == ("there", "node")
    assert f"nobody answers for {absent}" in found.hops[-1].text


def test_a_packet_that_leaves_for_where_nobody_looks_is_said_to(world: None) -> None:
    with udp_server(answers=False):
        found = ask(hidden="pod")
    assert lost(found) == ("there", "node")
    assert "arrived nowhere that is seen" in found.hops[-1].text


def test_the_command_prints_columns_or_json(world: None) -> None:
    words = ["trace", f"{VIP}:53/udp", "--from", "client", "--prefix", f"{PREFIX}-"]
    with udp_server():
        shown = click.testing.CliRunner().invoke(cli, words, standalone_mode=False)
        data = click.testing.CliRunner().invoke(cli, [*words, "--json"], standalone_mode=False)
    assert (shown.exception, shown.return_value) == (None, 0)
    assert shown.stdout.splitlines()[1].split() == ["ms", "where", "what"]
    assert json.loads(data.stdout)["outcome"] == "answered"
    refused = click.testing.CliRunner().invoke(
        cli, [*words[:1], f"{VIP}:80/tcp", *words[2:]], standalone_mode=False
    )
    assert refused.return_value == 1


def test_killed_it_leaves_no_table(world: None) -> None:
    command = [sys.executable, "-m", "kproxy", "trace", "10.1.0.77:9/udp", "--from", "client"]
    command += ["--prefix", f"{PREFIX}-", "--timeout", "60"]

    def tables() -> str:
        with namespace.entered(f"{PREFIX}-node"):
            done = subprocess.run(["nft", "list", "tables"], capture_output=True, check=True)
        return done.stdout.decode()

    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        wait_until(lambda: "kproxy-trace-" in tables(), 60, "its table", interval=0.1)
        process.send_signal(signal.SIGKILL)
    assert "kproxy-trace-" not in tables()
