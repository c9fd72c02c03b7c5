"""A lab of two nodes with a pod, and frames that were dropped there."""

from ipaddress import IPv4Address
from typing import Any

from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether

from kproxy.kernel.counters.drops import Drop
from kproxy.lab import plan
from kproxy.lab.hopcounts import HostCounters, Snapshot
from kproxy.lab.hops import Observed
from kproxy.lab.hopscene import Scene
from kproxy.traffic import wire
from netns import addressing
from netns.topology import Host, Topology

PLAN = plan.Plan(nodes=2)
POD = IPv4Address("10.244.2.2")
CLIENT = IPv4Address("10.244.1.254")
SERVICE = IPv4Address("10.96.0.10")


def topology() -> Topology:
    cable = plan.pod_link("node2", "shop-a", POD, node_end="veth1")
    whole = plan.topology(PLAN)
    return addressing.with_macs(
        Topology(
            hosts=(*whole.hosts, Host(name="shop-a")),
            links=(*whole.links, cable),
            segments=whole.segments,
        )
    )


def scene() -> Scene:
    found = Scene({"client1": "hit", "client2": "other"}, frozenset({"node1", "node2"}))
    found.learn(topology())
    return found


def mac(host: str, interface: str) -> str:
    return addressing.mac_of(host, interface)


def look(ns: int, *, backlog: int = 0, **of: HostCounters) -> Snapshot:
    return Snapshot(ns, ns + 1, of, backlog)


def observed(*looks: Snapshot, drops: tuple[Drop, ...] = ()) -> Observed:
    return Observed(snapshots=looks, drops=drops, answers=(), clock_ns=0, blind="")


def dropped(reason: str, data: bytes, symbol: str = "f+0x1/0x2") -> Drop:
    return Drop(100, reason, symbol, 0, data)


def frame(source_mac: str, to_mac: str, packet: Any) -> bytes:
    return bytes(Ether(src=source_mac, dst=to_mac) / packet)


def probe(to: IPv4Address = POD, *, trial: int = 3, flow: int = 5, seq: int = 8) -> Any:
    payload = wire.header(trial, flow, seq=seq)
    return IP(src=str(CLIENT), dst=str(to)) / UDP(sport=4000, dport=53, chksum=0) / payload


TO_NODE2 = (mac("node1", "eth0"), mac("node2", "eth0"))
TO_POD = (mac("node2", "veth1"), mac("shop-a", "eth0"))
