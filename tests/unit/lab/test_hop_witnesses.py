"""What counters, dropped frames and failed requests mean, in a lab of two nodes."""

import dataclasses
from ipaddress import IPv4Address
from typing import Any

import hop_samples
import pytest
from hop_samples import (
    CLIENT,
    PLAN,
    POD,
    SERVICE,
    TO_NODE2,
    TO_POD,
    dropped,
    frame,
    look,
    mac,
    observed,
    probe,
    topology,
)
from scapy.layers.inet import ICMP, IP, TCP
from scapy.layers.l2 import ARP

from kproxy.kernel.counters.conntrack import ConntrackCounters
from kproxy.kernel.counters.icmp import IcmpError
from kproxy.kernel.counters.interfaces import InterfaceCounters, QueueCounters
from kproxy.kernel.counters.rules import RuleCounter
from kproxy.kernel.ipvs.types import DestinationKey, ServiceKey, ServiceTraffic, Traffic
from kproxy.lab import hopcounts, hopdrops, hoplosses, plan
from kproxy.lab.hopcounts import NOTHING, HostCounters, Offered
from kproxy.lab.hopscene import Scene, hosts
from kproxy.traffic.attribution import BACK, Missing, Story
from kproxy.traffic.resultset import Cause
from netns import link

KEY = ServiceKey.of(17, SERVICE.packed, (53).to_bytes(2, "big"))


@pytest.fixture
def scene() -> Scene:
    return hop_samples.scene()


def interface(number: int, dropped: int, *, running: bool = True) -> InterfaceCounters:
    return InterfaceCounters(9, 9, 0, 0, 0, dropped, 0, 1, running, number)


def test_the_places_of_a_way_follow_each_other(scene: Scene) -> None:
    way = ["client1", "client1>node1", "node1", "node1>lan", "lan", "lan>node2", "shop-a"]
    assert sorted(way, key=scene.rank) == way
    assert scene.link("node1", "eth0") == "node1>lan"
    assert scene.link("node2", "veth1") == "node2>shop-a"
    assert scene.origins("client1>node1") == {"hit"}
    assert scene.origins("node1") == frozenset()
    assert scene.target("node2>shop-a") == scene.target("shop-a") == "shop-a"
    assert scene.target("node1>lan") == ""
    assert set(hosts(topology(), ["control"])) == {
        "client1",
        "client2",
        "lan",
        "node1",
        "node2",
        "shop-a",
    }


def test_who_is_gone_stays_known(scene: Scene) -> None:
    scene.learn(plan.topology(PLAN))
    assert scene.host_of_address(POD) == "shop-a"
    assert scene.host_of_address(SERVICE) == ""
    assert scene.host_of_address(plan.GATEWAY) == ""
    assert scene.gateway("client1") == "node1"


@pytest.mark.parametrize(
    ("reason", "symbol", "wire_of", "place", "cause"),
    [
        ("IP_INNOROUTES", "ip_error+0x1", TO_NODE2, "node2", Cause.NO_ROUTE),
        ("NOT_SPECIFIED", "ip_error+0x1", TO_NODE2, "node2", Cause.NO_ROUTE),
        ("IP_INADDRERRORS", "ip_error+0x1", TO_NODE2, "node2", Cause.NOT_FORWARDED),
        ("IP_RPFILTER", "ip_rcv+0x1", TO_NODE2, "node2", Cause.NOT_FORWARDED),
        ("NEIGH_FAILED", "arp+0x1", TO_NODE2, "node2", Cause.NO_NEIGHBOUR),
        ("NETFILTER_DROP", "nf_hook_slow+0x1", TO_NODE2, "node2", Cause.RULE),
        ("NO_SOCKET", "udp+0x1", TO_POD, "shop-a", Cause.REFUSED),
        ("SOCKET_RCVBUFF", "udp+0x1", TO_POD, "shop-a", Cause.RECEIVER),
        ("NOT_SPECIFIED", "kfree_skb+0x1", TO_POD, "shop-a", Cause.REFUSED),
        ("QDISC_DROP", "__dev_queue_xmit+0x1", TO_NODE2, "node1>lan", Cause.QUEUE),
        ("", "veth_xmit+0x1", TO_POD, "node2>shop-a", Cause.LINK),
    ],
)
def test_a_dropped_frame_tells_where_and_why(
    scene: Scene, reason: str, symbol: str, wire_of: tuple[str, str], place: str, cause: Cause
) -> None:
    (found,) = hopdrops.seen([dropped(reason, frame(*wire_of, probe()), symbol)], scene)
    assert (found.place, found.cause, found.probe) == (place, cause, (3, 5, 8))
    assert found.target == "shop-a"
    assert symbol.partition("+")[0] in found.witness


def test_frames_of_others_and_other_protocols_are_not_heard(scene: Scene) -> None:
    strange = frame("02:00:00:00:00:01", "02:00:00:00:00:02", probe())
    arp = frame(*TO_NODE2, ARP())
    icmp = frame(*TO_NODE2, IP(dst=str(POD)) / ICMP())
    cut = frame(*TO_NODE2, probe())[:30]
    drops = [dropped("NO_SOCKET", data) for data in (strange, arp, icmp, cut, b"")]
    assert hopdrops.seen(drops, scene) == []


def test_a_packet_to_a_sender_is_on_its_way_back(scene: Scene) -> None:
    reply = IP(src=str(POD), dst=str(CLIENT)) / TCP(sport=80, dport=4000)
    wire_of = (mac("node2", "eth0"), mac("node1", "eth0"))
    (found,) = hopdrops.seen([dropped("NETFILTER_DROP", frame(*wire_of, reply))], scene)
    assert (found.place, found.direction, found.probe) == ("node1", BACK, None)


@pytest.mark.parametrize(
    ("origin", "code", "place", "cause"),
    [
        ("192.168.50.12", 0, "node2", Cause.NO_ROUTE),
        ("192.168.50.12", 1, "node2", Cause.NO_NEIGHBOUR),
        (str(POD), 3, "shop-a", Cause.REFUSED),
        (str(plan.GATEWAY), 13, "node1", Cause.RULE),
    ],
)
def test_an_icmp_error_names_a_packet(
    scene: Scene, origin: str, code: int, place: str, cause: Cause
) -> None:
    error = IcmpError(IPv4Address(origin), 3, code, bytes(probe()))
    (found,) = hopdrops.quoted([("client1", error)], 3, scene)
    assert (found.flow, found.seq, found.place, found.cause) == (5, 8, place, cause)
    assert hopdrops.quoted([("client1", error)], 4, scene) == []


def test_an_error_in_a_services_name_says_not_who_sent_it(scene: Scene) -> None:
    error = IcmpError(SERVICE, 3, 0, bytes(probe(SERVICE)))
    assert hopdrops.quoted([("client1", error)], 3, scene) == []


@pytest.mark.parametrize(
    ("before", "after", "cut"),
    [
        (interface(7, 0), interface(7, 0), False),
        (interface(7, 0), interface(7, 0, running=False), True),
        (interface(7, 0), interface(7, 0)._replace(carrier_changes=3), True),
    ],
)
def test_a_frame_in_a_switch_was_for_a_cable_that_was_out(
    scene: Scene, before: InterfaceCounters, after: InterfaceCounters, cut: bool
) -> None:
    (segment,) = topology().segments
    (member,) = [one for one in segment.interfaces if one.host == "node2"]
    port = link.port_of(segment.name, member).name
    looks = [
        look(n, lan=NOTHING._replace(interfaces={port: one}))
        for n, one in ((0, before), (200, after))
    ]
    drop = dropped("NOT_SPECIFIED", frame(*TO_NODE2, probe()), "kfree_skb+0x1")
    lost = [Missing("hit", 5, 8, 100)]
    seen = observed(*looks, drops=(drop,))
    (found,) = hoplosses.losses(seen, scene, trial=3, lost=lost, events=hoplosses.Events())["hit"]
    wanted = ("lan>node2", Cause.LINK) if cut else ("node2", Cause.NOT_FORWARDED)
    assert (found.place, found.cause) == wanted


def test_an_interface_without_carrier_has_no_queue_that_could_drop(scene: Scene) -> None:
    out = NOTHING._replace(interfaces={"eth0": interface(2, 0, running=False)})
    drop = dropped("QDISC_DROP", frame(*TO_NODE2, probe()), "__dev_queue_xmit+0x1")
    seen = observed(look(0, node1=NOTHING), look(200, node1=out), drops=(drop,))
    (one,) = hopdrops.seen(seen.drops, scene)
    found = hoplosses.refined(one, seen, scene)
    assert (found.place, found.cause) == ("node1>lan", Cause.LINK)


def test_only_counters_that_went_up_count_and_one_that_began_anew_counts_whole(
    scene: Scene,
) -> None:
    before = NOTHING._replace(
        protocols={"Ip.InAddrErrors": 3, "Udp.NoPorts": 1},
        interfaces={"eth0": interface(2, 5)},
        queues=(QueueCounters(2, "netem", 7, 0, 0),),
        conntrack=ConntrackCounters(drop=4),
        rules=(RuleCounter("r1", 9, False, False), RuleCounter("r2", 2, True, False)),
    )
    after = HostCounters(
        protocols={"Ip.InAddrErrors": 5, "Udp.NoPorts": 1},
        interfaces={"eth0": interface(2, 6)},
        queues=(QueueCounters(2, "netem", 2, 0, 0), QueueCounters(2, "tbf", 4, 0, 0)),
        conntrack=ConntrackCounters(drop=7, insert_failed=3, chain_too_long=1),
        rules=(RuleCounter("r1", 9, False, False), RuleCounter("r2", 5, True, False)),
        services={},
    )
    found = {
        (one.place, one.cause): one.packets
        for one in hopcounts.risen("node1", before, after, scene)
    }
    assert found == {
        ("node1", Cause.NOT_FORWARDED): 2,
        ("node1>lan", Cause.LINK): 2,
        ("node1>lan", Cause.QUEUE): 4,
        ("node1", Cause.CONNTRACK_FULL): 1,
        # Two of three drops were of clashes: they are among those that could not be inserted.
        ("node1", Cause.CONNTRACK_INVALID): 3,
    }


def server(packets: int, *, destinations: int = 1) -> HostCounters:
    servers: Any = {DestinationKey(POD, n): None for n in range(destinations)}
    return NOTHING._replace(services={KEY: ServiceTraffic(Traffic(packets_in=packets), servers)})


def test_counts_are_between_two_looks_and_cpus_have_a_place_of_their_own(scene: Scene) -> None:
    counters = NOTHING._replace(protocols={"IpExt.InNoRoutes": 4})
    (route, backlog) = hopcounts.counts(
        [look(0, node1=NOTHING), look(10, backlog=2, node1=counters)], scene
    )
    assert (route.place, route.packets, route.since_ns, route.until_ns) == ("node1", 4, 0, 11)
    assert (backlog.place, backlog.cause, backlog.packets) == (hopcounts.CPUS, Cause.QUEUE, 2)


def test_what_a_cpu_refused_to_a_link_is_counted_once(scene: Scene) -> None:
    links = NOTHING._replace(interfaces={"eth0": interface(2, 5)})
    found = hopcounts.counts([look(0, node1=NOTHING), look(10, backlog=7, node1=links)], scene)
    assert [(one.place, one.packets) for one in found] == [("node1>lan", 5), (hopcounts.CPUS, 2)]
    found = hopcounts.counts([look(0, node1=NOTHING), look(10, backlog=3, node1=links)], scene)
    assert [(one.place, one.packets) for one in found] == [("node1>lan", 5)]


@pytest.mark.parametrize(
    ("looks", "offered", "found"),
    [
        ([server(5), server(9)], 6, [(Cause.GONE_DESTINATION, 2)]),
        ([server(5), server(9)], 4, []),
        ([server(5), server(9, destinations=0)], 6, [(Cause.NO_DESTINATION, 2)]),
        ([server(5), NOTHING, server(9)], 6, []),
    ],
)
def test_ipvs_has_counted_less_than_was_sent(
    scene: Scene, looks: list[HostCounters], offered: int, found: list[tuple[Cause, int]]
) -> None:
    snapshots = [look(n, node1=one) for n, one in enumerate(looks)]
    counts = hopcounts.not_taken(snapshots, [Offered("node1", KEY, "hit", offered)], scene)
    assert [(one.cause, one.packets) for one in counts] == found
    assert all(one.missing and one.origins == {"hit"} for one in counts)


def test_a_pod_that_is_gone_was_going_since_the_fault(scene: Scene) -> None:
    seen = observed(
        look(10, node1=NOTHING, **{"shop-a": NOTHING}), look(50, node1=NOTHING), look(90)
    )
    assert hoplosses.story(seen, scene, hoplosses.Events()).gone == {"shop-a": 10}
    events = hoplosses.Events(fault_ns=30, settled={"hit": 60})
    assert hoplosses.story(seen, scene, events) == Story(
        gone={"shop-a": 30}, forgotten={("hit", "shop-a"): 60}
    )


def test_drops_of_other_traffic_are_taken_off_counters(scene: Scene) -> None:
    other = IP(src=str(CLIENT), dst=str(POD)) / TCP(sport=1, dport=2)
    drops = tuple(
        dropped("IP_INNOROUTES", frame(*TO_NODE2, packet)) for packet in (other, other, probe())
    )
    counted = NOTHING._replace(protocols={"IpExt.InNoRoutes": 3})
    seen = observed(look(0, node2=NOTHING), look(200, node2=counted), drops=drops)
    lost = [Missing("hit", 5, seq, 100) for seq in (8, 9)]
    found = hoplosses.losses(seen, scene, trial=3, lost=lost, events=hoplosses.Events())
    assert [(one.cause, one.packets) for one in found["hit"]] == [
        (Cause.UNEXPLAINED, 1),
        (Cause.NO_ROUTE, 1),
    ]


def test_a_copy_that_was_dropped_explains_no_packet_that_was_lost(scene: Scene) -> None:
    """Packet 8 came twice, and one copy was dropped; nobody saw what became of packet 9."""
    drop = dropped("IP_INNOROUTES", frame(*TO_NODE2, probe()))
    counted = NOTHING._replace(protocols={"IpExt.InNoRoutes": 1})
    seen = observed(look(0, node2=NOTHING), look(200, node2=counted), drops=(drop,))
    lost = [Missing("hit", 5, 9, 100)]
    (found,) = hoplosses.losses(seen, scene, trial=3, lost=lost, events=hoplosses.Events())["hit"]
    assert found.cause is Cause.UNEXPLAINED


def test_a_packet_that_was_dropped_twice_is_told_once(scene: Scene) -> None:
    drop = dropped("IP_INNOROUTES", frame(*TO_NODE2, probe()))
    seen = observed(look(0), look(200), drops=(drop, drop))
    lost = [Missing("hit", 5, 8, 100)]
    (found,) = hoplosses.losses(seen, scene, trial=3, lost=lost, events=hoplosses.Events())["hit"]
    assert (found.packets, found.witness) == (1, "drop monitor: IP_INNOROUTES in f: 1")


def test_what_is_unexplained_says_if_the_drop_monitor_was_missing(scene: Scene) -> None:
    seen = dataclasses.replace(observed(look(0), look(200)), blind="there is none")
    lost = [Missing("hit", 5, 8, 100)]
    (found,) = hoplosses.losses(seen, scene, trial=3, lost=lost, events=hoplosses.Events())["hit"]
    assert (found.cause, found.witness) == (
        Cause.UNEXPLAINED,
        "without the drop monitor: there is none",
    )


@pytest.mark.parametrize(("destinations", "cause"), [(0, "NO"), (1, "GONE")])
def test_what_netfilter_drops_before_a_virtual_server_is_ipvs_doing(
    scene: Scene, destinations: int, cause: str
) -> None:
    drop = dropped(
        "NETFILTER_DROP", frame(mac("client1", "eth0"), mac("node1", "client1"), probe(SERVICE))
    )
    one = server(0, destinations=destinations)
    seen = observed(look(0, node1=one), look(200, node1=one), drops=(drop,))
    lost = [Missing("hit", 5, 8, 100)]
    (found,) = hoplosses.losses(seen, scene, trial=3, lost=lost, events=hoplosses.Events())["hit"]
    assert (found.place, found.cause) == ("node1", Cause[f"{cause}_DESTINATION"])


def test_what_ipvs_has_counted_was_lost_behind_it(scene: Scene) -> None:
    """One packet was refused by its pod, and another one came no further than IPVS."""
    drop = dropped("NO_SOCKET", frame(*TO_POD, probe()))
    seen = observed(look(0, node1=server(0)), look(200, node1=server(1)), drops=(drop,))
    lost = [Missing("hit", 5, seq, 100) for seq in (8, 9)]
    offered = [Offered("node1", KEY, "hit", 2)]
    found = hoplosses.losses(
        seen, scene, trial=3, lost=lost, events=hoplosses.Events(), offered=offered
    )
    assert {(one.place, one.cause, one.packets) for one in found["hit"]} == {
        ("shop-a", Cause.REFUSED, 1),
        ("node1", Cause.GONE_DESTINATION, 1),
    }


def test_copies_that_a_socket_had_kept_are_no_drops(scene: Scene) -> None:
    packet = IP(src=str(CLIENT), dst=str(SERVICE)) / TCP(sport=4000, dport=80)
    data = frame(mac("client1", "eth0"), mac("node1", "client1"), packet)
    drops = [dropped("QUEUE_PURGE", data, "sk_stream_kill_queues+0x1")]
    assert hopdrops.seen(drops, scene) == []
