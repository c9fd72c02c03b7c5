"""What the kernel counted is read as the tools read it, in the namespace of the caller."""

import contextlib
import socket
import subprocess
import time
from collections.abc import Iterator

import pytest
from fresh_netns import fresh_namespace

from kproxy.errors import Unsupported
from kproxy.kernel.counters import conntrack, drops, icmp, interfaces, proc, rules
from kproxy.kernel.inet import Family
from netns.wait import wait_until

pytestmark = pytest.mark.kernel
PORT = 4599
MARK = b"for the drop monitor"


@pytest.fixture
def namespace() -> Iterator[None]:
    with fresh_namespace():
        yield


def send(number: int, *, port: int = PORT, to: str = "127.0.0.1", data: bytes = b"x" * 20) -> None:
    family = socket.AF_INET6 if ":" in to else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        for _ in range(number):
            with contextlib.suppress(PermissionError):  # a rule that drops says so
                sock.sendto(data, (to, port))


def run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)


@pytest.mark.parametrize(("to", "name"), [("127.0.0.1", "Udp.NoPorts"), ("::1", "Udp6.NoPorts")])
def test_protocols_count_in_this_namespace_and_thread(namespace: None, to: str, name: str) -> None:
    before = proc.protocols()
    send(5, to=to)
    assert proc.protocols()[name] - before[name] == 5
    elsewhere: list[int] = []
    with fresh_namespace():
        elsewhere.append(proc.protocols()[name])
    assert elsewhere == [0]
    assert {"IpExt.InNoRoutes", "Ip.InAddrErrors", "Udp.RcvbufErrors"} <= before.keys()


def test_a_socket_that_overflows_is_counted(namespace: None) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        sock.bind(("127.0.0.1", PORT))
        send(50)
        kept = 0
        with contextlib.suppress(BlockingIOError):
            while sock.recv(100, socket.MSG_DONTWAIT):
                kept += 1
        assert 0 < kept < 50
        assert proc.protocols()["Udp.RcvbufErrors"] == 50 - kept


def test_a_cpus_queue_has_a_counter() -> None:
    assert proc.backlog_drops() >= 0


def test_interfaces_count_packets(namespace: None) -> None:
    before = interfaces.interfaces()["lo"]
    send(5)
    after = interfaces.interfaces()["lo"]
    # Five packets and the five ICMP errors that answer them.
    assert after.sent - before.sent == after.received - before.received == 10
    assert after.running
    assert (after.sent_dropped, after.received_dropped) == (0, 0)
    assert after.number == socket.if_nametoindex("lo")


@pytest.mark.needs_tool("tc")
def test_queues_count_their_drops(namespace: None) -> None:
    tbf = ("root", "tbf", "rate", "8kbit", "burst", "200", "limit", "200")
    done = subprocess.run(["tc", "qdisc", "add", "dev", "lo", *tbf], capture_output=True)
    if done.returncode:
        pytest.skip("needs the queueing discipline tbf")
    send(20)
    (found,) = [one for one in interfaces.queues() if one.kind == "tbf"]
    assert found.interface == socket.if_nametoindex("lo")
    assert 0 < found.drops < 40


RULES = {
    "nft": [
        ["nft", "add table ip t; add chain ip t c { type filter hook output priority 0; }"],
        ["nft", f"add rule ip t c udp dport {PORT} counter drop"],
        ["nft", "add rule ip t c udp dport 1 counter reject"],
        ["nft", "add rule ip t c udp dport 2 counter accept"],
        ["nft", "add rule ip t c ct state invalid counter drop"],
        ["nft", "add rule ip t c udp dport 3 drop"],
    ],
    **{
        f"iptables-{variant}": [
            [f"iptables-{variant}", "-A", "OUTPUT", *words.split()]
            for words in (
                f"-p udp --dport {PORT} -j DROP",
                "-p udp --dport 1 -j REJECT",
                "-p udp --dport 2 -j ACCEPT",
                "-m conntrack --ctstate INVALID -j DROP",
            )
        ]
        for variant in ("legacy", "nft")
    },
}


@pytest.mark.parametrize("kind", RULES)
def test_rules_that_refuse_are_found_with_what_they_met(namespace: None, kind: str) -> None:
    for command in RULES[kind]:
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"not on this kernel: {done.stderr.strip()}")
    send(4)
    send(3, port=1)
    found = rules.rules()
    assert [(one.packets, one.invalid, one.rejects) for one in found] == [
        (4, False, False),
        (3, False, True),
        (0, True, False),
    ]
    assert len({one.name for one in found}) == 3
    send(1)
    assert rules.rules()[0] == found[0]._replace(packets=5)


def test_to_look_for_rules_makes_no_table(namespace: None) -> None:
    assert rules.rules() == ()
    assert proc.legacy_tables(4) == proc.legacy_tables(6) == ()


def test_a_policy_that_drops_is_a_rule(namespace: None) -> None:
    done = subprocess.run(["iptables-legacy", "-P", "OUTPUT", "DROP"], capture_output=True)
    if done.returncode:
        pytest.skip("needs iptables-legacy")
    send(6)
    (found,) = rules.rules()
    assert (found.packets, found.name.split()[:3]) == (6, ["iptables", "filter", "OUTPUT"])


@pytest.mark.needs_tool("nft")
def test_connection_tracking_tells_its_table(namespace: None) -> None:
    assert conntrack.conntrack().entries == 0
    run("nft", "add table ip t; add chain ip t c { type filter hook output priority 0; }")
    run("nft", "add rule ip t c ct state established accept")
    send(1)
    found = conntrack.conntrack()
    assert found.entries >= 1
    assert found.limit > found.entries
    assert found.drop == 0


def test_icmp_errors_quote_the_packet_they_are_about(namespace: None) -> None:
    with icmp.IcmpErrors() as errors, icmp.IcmpErrors(Family.IPV6) as errors6:
        send(2)
        send(2, to="::1")
        found = errors.read()
        assert [(str(one.origin), one.kind, one.code) for one in found] == [
            ("127.0.0.1", 3, 3)
        ] * 2
        assert found[0].quoted[-20:] == b"x" * 20
        assert int.from_bytes(found[0].quoted[22:24], "big") == PORT
        found = errors6.read()
        assert [(str(one.origin), one.kind, one.code) for one in found] == [("::1", 1, 4)] * 2
        assert errors.read() == []


@pytest.fixture
def monitor() -> Iterator[drops.DropMonitor]:
    try:
        entered = drops.DropMonitor().__enter__()
    except Unsupported as error:
        pytest.skip(str(error))
    try:
        yield entered
    finally:
        entered.__exit__()


def test_the_drop_monitor_tells_every_drop_of_every_namespace(
    monitor: drops.DropMonitor,
) -> None:
    with fresh_namespace():
        send(3, data=MARK)
    found = _told(monitor, 3)
    assert {one.reason for one in found} == {"NO_SOCKET"}
    assert all(one.symbol.startswith("__udp4_lib_rcv") for one in found)
    assert all(abs(one.ns - time.time_ns()) < 60e9 for one in found)
    assert monitor.missed() == 0


def test_the_drop_monitor_has_one_owner_but_a_dead_one_is_succeeded() -> None:
    try:
        first = drops.DropMonitor().__enter__()
    except Unsupported as error:
        pytest.skip(str(error))
    first.close()  # as at its death: the monitor goes on
    with drops.DropMonitor() as second, fresh_namespace():
        send(2, data=MARK)
        assert len(_told(second, 2)) == 2


def test_the_drop_monitor_is_not_taken_from_the_living(monitor: drops.DropMonitor) -> None:
    with pytest.raises(Unsupported, match="another kproxy"), drops.DropMonitor():
        pass
    with fresh_namespace():
        send(2, data=MARK)
    assert len(_told(monitor, 2)) == 2


def test_a_drop_monitor_that_somebody_else_has_ended_is_left_alone() -> None:
    try:
        first = drops.DropMonitor().__enter__()
    except Unsupported as error:
        pytest.skip(str(error))
    first._command(drops._STOP, drops.attributes.attribute(drops._SOFTWARE, b""), "end")
    first.__exit__()
    with drops.DropMonitor() as second, fresh_namespace():
        send(2, data=MARK)
        assert len(_told(second, 2)) == 2


def _told(monitor: drops.DropMonitor, number: int) -> list[drops.Drop]:
    """Return drops of ours; the kernel tells of them a little later."""
    found: list[drops.Drop] = []

    def told() -> bool:
        found.extend(one for one in monitor.read() if one.frame.endswith(MARK))
        return len(found) >= number

    wait_until(told, 60, f"{number} drops", interval=0.05)
    return found
