"""Visits become hops, in the order in which the kernel works, and hops become lines."""

import json
from ipaddress import ip_address
from typing import Any

import frames_of
from frames_of import ACK, ISN, RST, SYN, TCP, UDP, Host, flow

from kproxy.kernel.conntrack import types as conntrack
from kproxy.kernel.inet import Protocol
from kproxy.kernel.ipvs.connections import Connection
from kproxy.kernel.nft.types import Hook
from kproxy.kernel.routes.types import Route, RouteKind
from kproxy.trace import hops, text, walk
from kproxy.trace.facts import Facts, Hop, Kind, Trace
from kproxy.trace.packet import Flow, Way
from kproxy.trace.rules import Passage

VIP = flow("10.0.0.1", 40000, "10.96.0.10", 80)
POD = flow("192.0.2.9", 61000, "10.128.0.5", 8080)
MAC = "02:00:00:00:00:02"
TRACKED = conntrack.Flow(
    Protocol.UDP,
    *(VIP.source, VIP.source_port, VIP.destination, VIP.destination_port),
    *(POD.destination, POD.destination_port, POD.source, POD.source_port),
)
UNICAST = Route(kind=RouteKind.UNICAST, device=2, gateway=ip_address("192.0.2.254"))


def visit(way: Way, came: bytes | None, left: bytes | None) -> tuple[walk.Visit, Host]:
    host = Host("node", {"in0": MAC, "out0": MAC})
    if came is not None:
        host.sees("in0", came, MAC)
    if left is not None:
        host.sees("out0", left, MAC, out=True)
    events = walk.wanted(host.seen, host.cards, UDP, VIP)
    events += walk.wanted(host.seen, host.cards, TCP, VIP)
    events.sort(key=lambda one: one.seen.order)
    first = events[0] if came is not None else None
    last = events[-1] if left is not None else None
    return walk.Visit(place="node", way=way, came=first, left=last), host


def told(
    way: Way,
    came: bytes | None,
    left: bytes | None,
    *,
    ends: bool = False,
    passages: tuple[Passage, ...] = (),
    own: Flow | None = VIP,
    **facts: Any,
) -> list[tuple[str, str]]:
    one, host = visit(way, came, left)
    looked = hops.Looked(
        visit=one, facts=Facts(**facts), passages=passages, flow=own, cards=host.cards
    )
    return [(str(hop.kind), hop.text) for hop in hops.of_visit(looked, ends=ends)]


def test_a_forwarded_packet_meets_things_in_the_kernels_order() -> None:
    passages = tuple(
        Passage(hook=hook, text=hook.name, dropped=False)
        for hook in (Hook.POSTROUTING, Hook.FORWARD, Hook.PREROUTING)
    )
    found = told(
        Way.THERE,
        frames_of.udp(VIP),
        frames_of.udp(POD),
        passages=passages,
        tracked=TRACKED,
        route=UNICAST,
    )
    assert found == [
        ("device", f"in by in0 (veth, TTL 64): udp {VIP}"),
        ("rules", "PREROUTING"),
        ("conntrack", "a connection, translated to 10.128.0.5:8080 as from 192.0.2.9:61000"),
        ("route", "via 192.0.2.254 dev out0"),
        ("rules", "FORWARD"),
        ("rules", "POSTROUTING"),
        ("device", f"out by out0 (veth, its one queue, to {MAC}): udp {POD}"),
    ]


def test_a_virtual_server_comes_after_the_local_route_and_before_the_next() -> None:
    connection = Connection(
        "udp",
        (VIP.source, VIP.source_port),
        (VIP.destination, VIP.destination_port),
        (POD.destination, POD.destination_port),
        "UDP",
        300,
    )
    input_chain = Passage(hook=Hook.INPUT, text="INPUT", dropped=False)
    found = told(
        Way.THERE,
        frames_of.udp(VIP),
        frames_of.udp(POD),
        passages=(input_chain,),
        virtual=connection,
        route=UNICAST,
    )
    assert [kind for kind, _ in found] == ["device", "rules", "virtual server", "route", "device"]
    assert found[2][1] == "udp 10.96.0.10:80 → real server 10.128.0.5:8080"


def test_what_begins_here_has_its_output_chains_before_it_is_tracked() -> None:
    output = Passage(hook=Hook.OUTPUT, text="OUTPUT", dropped=False)
    found = told(
        Way.THERE, None, frames_of.udp(VIP), passages=(output,), tracked=TRACKED, route=UNICAST
    )
    assert [kind for kind, _ in found] == ["socket", "rules", "conntrack", "route", "device"]
    assert found[0][1] == f"sends {VIP}"


def test_an_answer_is_told_under_its_old_name() -> None:
    found = told(
        Way.BACK,
        frames_of.udp(POD.reverse, b"x" * 16),
        frames_of.udp(VIP.reverse),
        own=POD.reverse,
        tracked=TRACKED,
    )
    assert ("conntrack", f"an answer, goes on as {VIP.reverse}") in found


def test_the_end_says_who_took_it() -> None:
    local = Route(kind=RouteKind.LOCAL, device=1)
    found = told(Way.THERE, frames_of.udp(VIP), None, ends=True, route=local, socket="dns[7]")
    assert found[-2:] == [
        ("route", "local: to a socket of this host"),
        ("socket", "taken by dns[7]"),
    ]
    nobody = told(Way.THERE, frames_of.udp(VIP), None, ends=True)
    assert nobody[-1] == ("socket", "nobody listens on this port")
    empty = told(Way.THERE, frames_of.udp(VIP), None, ends=True, real_servers=0)
    assert empty[-2:] == [
        ("virtual server", "10.96.0.10:80 has 0 real servers"),
        ("socket", "refused by the virtual server"),
    ]


def test_a_route_to_nowhere_leads_to_no_socket() -> None:
    nowhere = Route(kind=RouteKind.UNREACHABLE)
    found = told(Way.THERE, frames_of.udp(VIP), None, ends=True, route=nowhere)
    assert found[-1] == ("route", "unreachable: nothing leads there")


def test_refusals_say_what_they_are() -> None:
    error = frames_of.unreachable("10.0.0.254", "10.0.0.1", frames_of.udp(VIP))
    begun = told(Way.BACK, None, error, own=None)
    assert begun[0] == ("socket", "the kernel answers: port unreachable")
    assert told(Way.BACK, error, None, ends=True, own=None)[-1][1] == "learns: port unreachable"
    reset = frames_of.tcp(VIP.reverse, RST | ACK, ack=ISN + 1)
    assert told(Way.BACK, None, reset)[0][1] == "the kernel answers: reset (nobody listens)"
    assert told(Way.BACK, reset, None, ends=True)[-1][1] == "learns: refused"
    syn_ack = frames_of.tcp(VIP.reverse, SYN | ACK, ack=ISN + 1)
    assert told(Way.BACK, syn_ack, None, ends=True)[-1][1] == "has its answer"


def test_a_rule_that_refuses_leaves_nothing_for_sockets() -> None:
    reject = Passage(hook=Hook.FORWARD, text="FORWARD: drop", dropped=True)
    found = told(Way.THERE, frames_of.udp(VIP), None, ends=True, passages=(reject,))
    assert [kind for kind, _ in found] == ["device", "rules"]


def sample() -> Trace:
    some = (
        Hop(way=Way.THERE, place="client", kind=Kind.SOCKET, text="sends"),
        Hop(way=Way.THERE, place="client", kind=Kind.DEVICE, text="out", ns=1_500_000),
        Hop(way=Way.BACK, place="n", kind=Kind.LOST, text="gone", ns=12_000_000),
    )
    return Trace(
        protocol="udp",
        flow=VIP,
        outcome="no answer",
        took_ms=None,
        answer="",
        sent_ns=1_000_000,
        hops=some,
        verdict="no answer: lost",
        notes=("nobody told why",),
    )


def test_lines_are_aligned() -> None:
    assert text.lines(sample()) == [
        f"udp {VIP}",
        "      ms  where   what",
        "→         client  socket  sends",
        "→  0.500  client  device  out",
        "← 11.000  n       LOST    gone",
        "no answer: lost",
        "note: nobody told why",
    ]


def test_json_has_milliseconds_after_sending() -> None:
    found = json.loads(json.dumps(text.jsonable(sample())))
    assert [hop["ms"] for hop in found["hops"]] == [None, 0.5, 11.0]
    assert (found["outcome"], found["destination"]) == ("no answer", "10.96.0.10")
    assert found["hops"][2] == {
        "way": "back", "place": "n", "kind": "LOST", "text": "gone", "ms": 11.0,
    }  # fmt: skip
