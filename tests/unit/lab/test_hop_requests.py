"""Why requests and connections failed, in a lab of two nodes."""

from ipaddress import IPv4Address
from typing import Any

import hop_samples
import pytest
from hop_samples import CLIENT, POD, SERVICE, TO_NODE2, TO_POD, dropped, frame, mac
from scapy.layers.inet import IP, TCP

from kproxy.lab import hopdrops, hoprequests
from kproxy.lab.hopscene import Scene
from kproxy.traffic.attribution import Story
from kproxy.traffic.records import TcpRecord
from kproxy.traffic.resultset import Cause

NODE1, NODE2 = IPv4Address("192.168.50.11"), IPv4Address("192.168.50.12")
NODE_PORT = 30080


@pytest.fixture
def scene() -> Scene:
    return hop_samples.scene()


def request(outcome: str, start: int, **changes: Any) -> TcpRecord:
    given = TcpRecord("request", outcome, 1, 0, 0, start, 0, start + 10, "")
    return given._replace(**changes)


def why(
    scene: Scene, *records: TcpRecord, kind: str = "request", gone: int | None = None, **more: Any
) -> list[tuple[str, Cause, str, int]]:
    found = hoprequests.losses(
        records,
        kind,
        client="client1",
        services={1: hoprequests.Service(SERVICE, 80, frozenset({"shop-a"}), NODE_PORT)},
        drops=hopdrops.seen(more.get("drops", ()), scene),
        scene=scene,
        story=Story(gone={} if gone is None else {"shop-a": gone}),
        clock_ns=0,
    )
    return [(one.place, one.cause, one.direction, one.packets) for one in found]


def test_a_request_fails_because_its_pod_is_gone(scene: Scene) -> None:
    good = request("ok", 0, pod="shop/a")
    assert why(scene, good, request("closed", 50), request("reset", 60), gone=55) == [
        ("shop-a", Cause.DEAD_BACKEND, "there", 2)
    ]


def test_a_request_fails_because_its_answer_is_dropped(scene: Scene) -> None:
    reply = IP(src=str(POD), dst=str(CLIENT)) / TCP(sport=80, dport=4000)
    data = frame(mac("node2", "eth0"), mac("node1", "eth0"), reply)
    drops = [dropped("NETFILTER_DROP", data)]
    assert why(scene, request("timeout", 95), request("timeout", 300), drops=drops) == [
        ("", Cause.UNEXPLAINED, "there", 1),
        ("node1", Cause.RULE, "back", 1),
    ]


@pytest.mark.parametrize(
    ("had", "cause"), [("shop/b", Cause.WRONG_BACKEND), ("shop/a", Cause.REFUSED)]
)
def test_a_pod_resets_a_connection_that_another_one_has(
    scene: Scene, had: str, cause: Cause
) -> None:
    packet = IP(src=str(CLIENT), dst=str(POD)) / TCP(sport=4000, dport=80)
    drops = [dropped("TCP_FLAGS", frame(*TO_POD, packet))]
    good = request("ok", 0, pod=had)
    assert why(scene, good, request("reset", 95), drops=drops) == [("shop-a", cause, "there", 1)]


def test_a_connection_that_ipvs_sent_to_nobody_was_for_the_pod_that_is_gone(scene: Scene) -> None:
    packet = IP(src=str(CLIENT), dst=str(SERVICE)) / TCP(sport=4000, dport=80)
    data = frame(mac("client1", "eth0"), mac("node1", "client1"), packet)
    drops = [dropped("NOT_SPECIFIED", data, "kfree_skb+0x1")]
    failed = request("unreachable", 95, kind="connect")
    found = why(scene, failed, kind="connect", gone=50, drops=drops)
    assert found == [("node1", Cause.DEAD_BACKEND, "there", 1)]
    found = why(scene, failed, kind="connect", drops=drops)
    assert found == [("node1", Cause.NOT_FORWARDED, "there", 1)]


def test_a_connection_that_was_refused_without_more_being_known(scene: Scene) -> None:
    refused = request("refused", 5, kind="connect")
    unfinished = request("unfinished", 5, kind="connect")
    assert why(scene, refused, unfinished, kind="connect") == [
        ("client1", Cause.REFUSED, "there", 1)
    ]


@pytest.mark.parametrize(
    ("source", "to", "port", "place"),
    [
        (CLIENT, NODE2, NODE_PORT, "node1>lan"),
        (CLIENT, NODE2, 30081, ""),
        (NODE1, POD, 8080, "node1>lan"),
        (NODE1, NODE2, 8080, ""),
    ],
)
def test_a_connection_by_way_of_a_load_balancer_is_lost_before_or_after_a_node(
    scene: Scene, source: IPv4Address, to: IPv4Address, port: int, place: str
) -> None:
    packet = IP(src=str(source), dst=str(to)) / TCP(sport=4000, dport=port)
    drops = [dropped("DEV_READY", frame(*TO_NODE2, packet))]
    failed = request("timeout", 95, kind="connect")
    found = why(scene, failed, kind="connect", drops=drops)
    assert [each[0] for each in found] == [place]
