"""Counters of IPVS as metrics."""

import io
import ipaddress
from typing import Any, NoReturn

import pytest
from exposition_parser import Parsed, parse

from kproxy.agent import ipvsmetrics
from kproxy.agent.ipvsmetrics import IPVSMetrics
from kproxy.desired.model import (
    Address,
    Family,
    Protocol,
    ServicePort,
    ServicePortName,
    ServiceState,
    State,
)
from kproxy.errors import Unsupported
from kproxy.exposition import Registry
from kproxy.kernel import inet
from kproxy.kernel.ipvs.fake import FakeIPVS
from kproxy.kernel.ipvs.types import (
    AddDestination,
    AddService,
    DestinationConfig,
    DestinationKey,
    ServiceConfig,
    ServiceKey,
    SetDestination,
)
from kproxy.logs import Log

VIP = ServiceKey(inet.Protocol.TCP, ipaddress.ip_address("10.96.0.1"), 80)
REAL = [DestinationKey(ipaddress.ip_address(f"10.128.0.{last}"), 8080) for last in (1, 2)]
NAME = ServicePortName("demo", "web", "http", Protocol.TCP)
STATE = State(
    family=Family.IPV4,
    services={
        NAME: ServiceState(
            service=ServicePort(name=NAME, cluster_ip=Address("10.96.0.1"), port=80)
        )
    },
)


class Node:
    """A kernel with one virtual server and two real ones, and a clock."""

    def __init__(self) -> None:
        self.ipvs = FakeIPVS()
        self.ipvs.run(
            [
                AddService(VIP, ServiceConfig()),
                *(AddDestination(VIP, server, DestinationConfig()) for server in REAL),
            ]
        )
        self.now = 0.0
        self.metrics = IPVSMetrics(
            lambda: self.ipvs, lambda: [STATE], Log("test", stream=io.StringIO()), lambda: self.now
        )

    def weigh(self, server: DestinationKey, weight: int) -> None:
        assert self.ipvs.run([SetDestination(VIP, server, DestinationConfig(weight))]) == [None]

    def found(self) -> dict[str, Parsed]:
        registry = Registry()
        registry.collect_by(self.metrics.few)
        return parse(registry.text())


def test_every_server_is_told_with_the_name_of_its_service() -> None:
    node = Node()
    node.weigh(REAL[1], 0)
    found = node.found()
    virtual = found["kproxy_ipvs_virtual_server_packets_total"].samples
    assert {dict(labels)["direction"] for _name, labels in virtual} == {"in", "out"}
    assert {dict(labels)["service"] for _name, labels in virtual} == {"demo/web:http"}
    weights = {
        dict(labels)["real_address"]: value
        for (_name, labels), value in found["kproxy_ipvs_real_server_weight"].samples.items()
    }
    assert weights == {"10.128.0.1": 1, "10.128.0.2": 0}
    assert {
        "kproxy_ipvs_real_server_connections_total",
        "kproxy_ipvs_real_server_bytes_total",
        "kproxy_ipvs_real_server_active_connections",
        "kproxy_ipvs_real_server_inactive_connections",
    } <= found.keys()


def test_the_age_of_draining_servers_begins_anew_when_they_come_back() -> None:
    node = Node()

    def ages() -> list[float]:
        family = node.found().get("kproxy_ipvs_draining_seconds")
        return list(family.samples.values()) if family else []

    assert ages() == []
    node.weigh(REAL[0], 0)
    assert ages() == [0]
    node.now = 30
    assert ages() == [30]
    node.weigh(REAL[0], 1)
    assert ages() == []
    node.weigh(REAL[0], 0)
    assert ages() == [0]


def test_too_many_real_servers_are_left_out_but_for_draining_ones(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ipvsmetrics, "REAL_SERVERS_MOST", 1)
    node = Node()
    node.weigh(REAL[1], 0)
    found = node.found()
    assert len(found["kproxy_ipvs_real_server_weight"].samples) == 1
    assert found["kproxy_ipvs_real_servers_left_out"].samples == {
        ("kproxy_ipvs_real_servers_left_out", ()): 1
    }
    registry = Registry()
    registry.collect_by(node.metrics.all)
    assert len(parse(registry.text())["kproxy_ipvs_real_server_weight"].samples) == 2


def test_a_kernel_that_cannot_be_read_leaves_the_other_metrics(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken() -> NoReturn:
        raise Unsupported("no IPVS here")

    node = Node()
    monkeypatch.setattr(node.ipvs, "dump", broken)
    assert node.found() == {}


def test_a_family_may_come_into_use_while_metrics_are_collected() -> None:
    states: dict[Family, State] = {}

    class Growing(dict[ServicePortName, ServiceState]):
        def items(self) -> Any:
            states[Family.IPV6] = State(family=Family.IPV6, services={})
            return super().items()

    states[Family.IPV4] = State(family=Family.IPV4, services=Growing(STATE.services))
    node = Node()
    metrics = IPVSMetrics(lambda: node.ipvs, states.values, Log("test", stream=io.StringIO()))
    assert list(metrics.all())
    assert len(states) == 2
