"""A known number of packets is lost in a known way: so many are found, there, of that cause."""

import time
from collections.abc import Iterator
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from hop_lab import FLOWS, NODE2, ORIGIN, PORT, SERVICE, HopLab, hop_lab

from kproxy.traffic.attribution import Sighting
from kproxy.traffic.resultset import Cause, Loss
from netns import link
from netns.impairment import Impairment
from netns.journal import namespace_name
from netns.topology import Route

pytestmark = pytest.mark.lab

BOTH = ["drop monitor", "counters"]


@pytest.fixture
def there(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[HopLab]:
    """Return a lab with two pods on node2, watched with the drop monitor or without."""
    witness = getattr(request, "param", BOTH[0])
    with hop_lab(tmp_path, monitor=witness == BOTH[0]) as found:
        found.add_pod("shop-a", NODE2, 1)
        found.add_pod("shop-b", NODE2, 2)
        yield found


both = pytest.mark.parametrize("there", BOTH, indirect=True)
monitored = pytest.mark.parametrize("there", BOTH[:1], indirect=True)
POD_A = NODE2.pod_cidr.network_address + 2
POD_B = NODE2.pod_cidr.network_address + 3


def found(losses: tuple[Loss, ...]) -> list[tuple[str, Cause, int]]:
    return [(one.place, one.cause, one.packets) for one in losses]


def through(there: HopLab, lossy: int, to: IPv4Address = POD_A) -> None:
    """Send ten packets that arrive, so that flows have a backend; then those to be lost."""
    there.hops.begin()
    there.send(10, to)
    assert there.lost() == []


@both
def test_without_a_fault_nothing_is_lost(there: HopLab) -> None:
    through(there, 0)
    there.hops.mark()
    there.send(100, POD_A)
    assert there.losses() == ()


@both
@pytest.mark.parametrize(
    ("host", "interface", "place"),
    [
        ("client1", "eth0", "client1>node1"),
        ("node1", "eth0", "node1>lan"),
        ("lan", "port of node2", "lan>node2"),
        ("node2", "veth1", "node2>shop-a"),
    ],
)
def test_lost_on_a_link(there: HopLab, host: str, interface: str, place: str) -> None:
    through(there, 13)
    _impair(there, host, interface, Impairment(loss=1.0))
    there.send(13, POD_A)
    there.hops.mark()
    time.sleep(0.01)  # The counter goes with the impairment.
    _impair(there, host, interface, None)
    there.send(5, POD_A)
    assert found(there.losses()) == [(place, Cause.LINK, 13)]


def _impair(there: HopLab, host: str, interface: str, how: Impairment | None) -> None:
    if host in there.lab:
        there.lab[host].impair(interface, how)
        return
    (segment,) = there.lab.topology.segments
    (member,) = [one for one in segment.interfaces if one.host == "node2"]
    with link.netlink(namespace_name(there.lab.name, segment.name)) as ipr:
        link.impair(ipr, link.port_of(segment.name, member).name, how)


@both
def test_lost_for_want_of_a_carrier(there: HopLab) -> None:
    through(there, 7)
    there.lab["shop-a"].run(["ip", "link", "set", "eth0", "down"])
    there.send(7, POD_A)
    assert found(there.losses()) == [("node2>shop-a", Cause.LINK, 7)]


@monitored
def test_lost_because_a_switch_has_a_cable_less(there: HopLab) -> None:
    through(there, 7)
    there.lab.plug("node2", "eth0", connected=False)
    there.send(7, POD_A)
    assert found(there.losses()) == [("lan>node2", Cause.LINK, 7)]


@both
def test_lost_in_a_queue(there: HopLab) -> None:
    through(there, 0)
    tbf = ["root", "tbf", "rate", "8kbit", "burst", "200", "limit", "200"]
    there.lab["node2"].run(["tc", "qdisc", "add", "dev", "veth1", *tbf])
    there.send(20, POD_A)
    lost = there.lost()
    assert 10 < len(lost) < 20
    losses = found(there.losses())
    queued = [one for one in losses if one[1] is Cause.QUEUE]
    assert queued[0][:2] == ("node2>shop-a", Cause.QUEUE)
    assert {one[1] for one in losses} <= {Cause.QUEUE, Cause.LATE}


@both
def test_lost_without_a_route(there: HopLab) -> None:
    through(there, 9)
    there.lab["node1"].delete_route(Route(to=NODE2.pod_cidr, via=NODE2.address))
    there.send(9, POD_A)
    assert found(there.losses()) == [("node1", Cause.NO_ROUTE, 9)]


@monitored
def test_lost_without_a_neighbour(there: HopLab) -> None:
    through(there, 9)
    there.lab["shop-a"].run(["ip", "link", "set", "eth0", "arp", "off"])
    there.lab["node2"].run(["ip", "neigh", "del", str(POD_A), "dev", "veth1"])
    there.send(9, POD_A)
    time.sleep(4)  # So long the kernel asks before it gives up.
    assert found(there.losses()) == [("node2", Cause.NO_NEIGHBOUR, 9)]


@both
def test_refused_where_nobody_listens(there: HopLab) -> None:
    through(there, 30)
    there.receivers["shop-a"].socket.close()
    del there.receivers["shop-a"]
    there.send(30, POD_A)
    (loss,) = there.losses()
    assert found((loss,)) == [("shop-a", Cause.REFUSED, 30)]
    assert "Udp.NoPorts of shop-a: 30" in loss.witness
    assert "ICMP type 3 code 3 from shop-a" in loss.witness


def _iptables(variant: str, *words: str) -> list[str]:
    return [f"iptables-{variant}", "-A", "FORWARD", *words]


UDP = ["-p", "udp", "--dport", str(PORT), "-j"]
RULES = {
    "nft drop": ["nft", f"add rule ip hop f udp dport {PORT} counter drop"],
    "nft reject": ["nft", f"add rule ip hop f udp dport {PORT} counter reject"],
    "iptables-legacy drop": _iptables("legacy", *UDP, "DROP"),
    "iptables-legacy reject": _iptables("legacy", *UDP, "REJECT"),
    "iptables-nft drop": _iptables("nft", *UDP, "DROP"),
    "iptables-nft reject": _iptables("nft", *UDP, "REJECT"),
}


@both
def test_dropped_by_a_pods_own_rule(there: HopLab) -> None:
    through(there, 11)
    hook = "{ type filter hook input priority 0; }"
    there.rule("shop-a", ["nft", f"add table ip hop; add chain ip hop f {hook}"])
    there.rule("shop-a", RULES["nft drop"])
    there.hops.mark()
    there.send(11, POD_A)
    assert found(there.losses()) == [("shop-a", Cause.RULE, 11)]


@both
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("host", ["node1", "node2"])
def test_dropped_by_a_rule(there: HopLab, rule: str, host: str) -> None:
    through(there, 11)
    _chain(there, host)
    there.rule(host, RULES[rule])
    there.hops.mark()
    there.send(11, POD_A)
    (loss,) = there.losses()
    assert found((loss,)) == [(host, Cause.RULE, 11)]
    assert rule.split()[1] in loss.witness


def _chain(there: HopLab, host: str) -> None:
    hook = "{ type filter hook forward priority 0; }"
    there.rule(host, ["nft", f"add table ip hop; add chain ip hop f {hook}"])


@monitored
def test_dropped_by_a_rule_that_does_not_count(there: HopLab) -> None:
    through(there, 11)
    _chain(there, "node1")
    there.rule("node1", ["nft", f"add rule ip hop f udp dport {PORT} drop"])
    there.send(11, POD_A)
    assert found(there.losses()) == [("node1", Cause.RULE, 11)]


@both
@pytest.mark.needs_module("ip_vs")
def test_a_virtual_server_without_destinations(there: HopLab) -> None:
    there.virtual_server()
    there.hops.begin()
    there.send(25, SERVICE)
    assert found(there.losses()) == [("node1", Cause.NO_DESTINATION, 25)]


@both
@pytest.mark.needs_module("ip_vs")
def test_a_destination_that_is_gone(there: HopLab) -> None:
    """Its flows' packets are dropped for as long as IPVS does not let them choose anew."""
    there.virtual_server()
    there.real_server(POD_A)
    there.real_server(POD_B)
    there.lab["node1"].run(["sysctl", "-w", "net.ipv4.vs.expire_nodest_conn=0"])
    there.hops.begin()
    there.send(FLOWS, SERVICE)
    assert there.lost() == []
    there.real_server(POD_A, gone=True)
    there.hops.mark()
    there.send(48, SERVICE)
    assert found(there.losses()) == [("node1", Cause.GONE_DESTINATION, 24)]


@both
def test_the_connection_table_is_full(there: HopLab) -> None:
    _chain(there, "node1")
    there.rule("node1", ["nft", "add rule ip hop f ct state established accept"])
    limit = Path("/proc/sys/net/netfilter/nf_conntrack_max")
    before = limit.read_text()
    through(there, 16)
    limit.write_text("1")
    try:
        there.send(40, POD_A, first_port=41000)
        lost = len(there.lost())  # Some flows take the places of others, which had no reply.
        assert lost > 20
        assert found(there.losses()) == [("node1", Cause.CONNTRACK_FULL, lost)]
    finally:
        limit.write_text(before)


STATE = ["-m", "conntrack", "--ctstate", "INVALID", "-j", "DROP"]
INVALID = {
    "nft": ["nft", "insert rule ip hop f ct state invalid counter drop"],
    "iptables-legacy": _iptables("legacy", *STATE),
    "iptables-nft": _iptables("nft", *STATE),
}


@both
@pytest.mark.parametrize("rule", INVALID)
def test_invalid_for_connection_tracking(there: HopLab, rule: str) -> None:
    _chain(there, "node1")
    there.rule("node1", INVALID[rule])
    through(there, 6)
    there.send(6, POD_A, spoil=True)
    assert found(there.losses()) == [("node1", Cause.CONNTRACK_INVALID, 6)]


def _translate(there: HopLab, pod: IPv4Address) -> None:
    hook = "{ type nat hook prerouting priority -100; }"
    for command in (
        "add table ip trans",
        "flush table ip trans",
        f"add chain ip trans p {hook}",
        f"add rule ip trans p ip daddr {SERVICE} dnat to {pod}",
    ):
        there.rule("node1", ["nft", command])


@both
def test_a_dead_backend_and_the_stale_entry_that_still_sends_there(there: HopLab) -> None:
    _translate(there, POD_A)
    through(there, 0, SERVICE)
    there.lab.remove("shop-a")
    there.receivers.pop("shop-a").socket.close()
    there.hops.mark()
    there.send(12, SERVICE)
    _translate(there, POD_B)
    there.settled = {ORIGIN: there.sent[-1][2]}
    there.send(8, SERVICE)
    assert found(there.losses()) == [
        ("node2", Cause.DEAD_BACKEND, 12),
        ("node2", Cause.CONNTRACK_STALE, 8),
    ]
    # A new flow chooses anew.
    there.hops.begin()
    there.sent.clear()
    there.send(8, SERVICE, first_port=42000)
    assert there.losses() == ()


@both
def test_not_forwarded(there: HopLab) -> None:
    through(there, 14)
    there.lab["node1"].run(["sysctl", "-w", "net.ipv4.ip_forward=0"])
    there.send(14, POD_A)
    assert found(there.losses()) == [("node1", Cause.NOT_FORWARDED, 14)]


@both
def test_delivered_to_a_wrong_backend(there: HopLab) -> None:
    _translate(there, POD_B)
    there.hops.begin()
    there.send(10, SERVICE)
    stray = there.receivers["shop-b"].read()
    strayed = [
        Sighting(flow, seq, "shop-b", Cause.WRONG_BACKEND, "the records of shop-b")
        for flow, seq, _, _ in stray
    ]
    assert found(there.losses(strayed=strayed)) == [("shop-b", Cause.WRONG_BACKEND, 10)]


@both
def test_the_receivers_socket_overflows(there: HopLab) -> None:
    through(there, 0)
    socket = there.receivers["shop-a"].socket
    socket.setsockopt(1, 8, 2048)  # SO_RCVBUF
    there.send(50, POD_A)
    lost = len(there.lost())
    assert 30 < lost < 50
    assert found(there.losses()) == [("shop-a", Cause.RECEIVER, lost)]


@both
def test_it_comes_too_late(there: HopLab) -> None:
    through(there, 0)
    there.lab["node2"].impair("veth1", Impairment(delay_s=0.3))
    there.send(15, POD_A)
    time.sleep(0.5)  # longer than they are held back: they come, but too late
    assert found(there.losses()) == [("shop-a", Cause.LATE, 15)]


@monitored
def test_a_reply_is_lost_on_its_way_back(there: HopLab) -> None:
    there.hops.begin()
    _chain(there, "node1")
    there.rule("node1", ["nft", f"add rule ip hop f udp sport {PORT} counter drop"])
    there.send(10, POD_A)
    there.receivers["shop-a"].read(echo=True)  # What counts is whether the reply comes.
    (loss,) = there.losses()
    assert found((loss,)) == [("node1", Cause.RULE, 10)]
    assert loss.direction == "back"


@both
def test_several_causes_at_once_keep_their_numbers(there: HopLab) -> None:
    through(there, 0)
    there.lab["node1"].delete_route(Route(to=NODE2.pod_cidr, via=NODE2.address))
    there.send(5, POD_A)
    there.lab["node1"].set_route(Route(to=NODE2.pod_cidr, via=NODE2.address))
    there.hops.mark()
    there.receivers.pop("shop-a").socket.close()
    # A look also explains what was sent up to 50 ms before it: what follows is none of that.
    time.sleep(0.1)
    there.send(6, POD_A)
    _chain(there, "node1")
    there.rule("node1", RULES["nft drop"])
    there.hops.mark()
    time.sleep(0.1)  # as above
    there.send(7, POD_A)
    assert found(there.losses()) == [
        ("node1", Cause.RULE, 7),
        ("node1", Cause.NO_ROUTE, 5),
        ("shop-a", Cause.REFUSED, 6),
    ]


def test_cause_of_every_kind_has_a_test() -> None:
    text = Path(__file__).read_text()
    untested = {one.name for one in Cause if f"Cause.{one.name}" not in text}
    assert untested == {"UNEXPLAINED"}
