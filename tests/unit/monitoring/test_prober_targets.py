"""Which probes a Service asks for."""

import pytest

from kproxy.api import codec
from kproxy.api.core import Service
from kproxy.errors import InvalidObject
from kproxy.monitoring.prober.targets import Probe, targets


def service(annotation: str = "", **spec: object) -> Service:
    ports = [
        {"name": "web", "port": 80},
        {"name": "dns", "port": 53, "protocol": "UDP"},
        {"name": "s", "port": 9, "protocol": "SCTP"},
    ]
    meta = {"namespace": "shop", "name": "cart"}
    if annotation:
        meta["annotations"] = {"kproxy/probe": annotation}
    body = {"clusterIP": "10.96.0.7", "ports": ports, **spec}
    return codec.from_dict({"metadata": meta, "spec": body}, Service)


def probes(one: Service, flows: int = 1) -> list[tuple[str, int, str]]:
    return [(str(found.probe), found.port, found.address) for found in targets(one, flows)]


def test_tcp_ports_are_connected_to_unless_told_otherwise() -> None:
    assert probes(service()) == [("tcp-connect", 80, "10.96.0.7")]
    assert probes(service("none")) == []
    assert probes(service("udp-echo,none")) == []


def test_udp_ports_are_asked_for_an_echo_if_there_is_one() -> None:
    assert probes(service("udp-echo"), flows=2) == [
        ("tcp-connect", 80, "10.96.0.7"),
        ("udp-flow", 53, "10.96.0.7"),
        ("udp-flow", 53, "10.96.0.7"),
        ("udp-fresh", 53, "10.96.0.7"),
    ]
    assert len(set(targets(service("udp-echo"), 2))) == 4


def test_both_families_are_probed_and_counted_as_one() -> None:
    found = list(targets(service(clusterIPs=["10.96.0.7", "fd00:96::7"])))
    assert [one.address for one in found] == ["10.96.0.7", "fd00:96::7"]
    assert len({one.labels for one in found}) == 1
    assert found[0].labels == ("shop", "cart", "80", "TCP", "tcp-connect")


@pytest.mark.parametrize(
    "spec",
    [
        {"clusterIP": "None"},
        {"clusterIP": ""},
        {"type": "ExternalName", "externalName": "example.org"},
        {"ports": None},
    ],
)
def test_what_has_no_address_or_port_is_not_probed(spec: dict[str, object]) -> None:
    assert probes(service("udp-echo", **spec)) == []


def test_who_serves_each_node_by_itself_is_probed_only_when_asked_for() -> None:
    local = {"internalTrafficPolicy": "Local"}
    assert probes(service(**local)) == []
    assert [kind for kind, *_ in probes(service("tcp-connect", **local))] == ["tcp-connect"]
    assert [kind for kind, *_ in probes(service("udp-echo", **local))] == ["udp-flow", "udp-fresh"]
    assert len(probes(service(internalTrafficPolicy="Cluster"))) == 1


def test_an_annotation_that_says_nothing_known_is_told_by_object_field_and_remedy() -> None:
    with pytest.raises(InvalidObject) as caught:
        list(targets(service("udp-echo, icmp")))
    assert str(caught.value) == (
        "Service shop/cart: metadata.annotations[kproxy/probe]: 'udp-echo, icmp' is no list of "
        "tcp-connect, udp-echo, none (write one of tcp-connect, udp-echo, none)"
    )


def test_targets_are_spread_over_their_period() -> None:
    found = [
        target
        for number in range(100)
        for target in targets(service(clusterIP=f"10.96.1.{number}"))
    ]
    phases = [one.phase for one in found]
    assert phases == [one.phase for one in found], "always the same"
    assert all(0 <= phase < 1 for phase in phases)
    assert all(
        any(low <= phase < low + 0.2 for phase in phases) for low in (0, 0.2, 0.4, 0.6, 0.8)
    )


def test_flows_differ_in_nothing_but_their_number() -> None:
    flows = [one for one in targets(service("udp-echo"), 3) if one.probe is Probe.UDP_FLOW]
    assert [one.flow for one in flows] == [0, 1, 2]
    assert len({one.labels for one in flows}) == 1
