"""From Services and Nodes to what is programmed, checked and written."""

from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import msgspec
import pytest

from kproxy import logs
from kproxy.api import core
from kproxy.desired.build import NodeSettings, StateBuilder
from kproxy.desired.model import Family, Prefix, ServicePortName, ServiceState
from kproxy.kernel.conntrack.fake import FakeConntrack
from kproxy.kernel.conntrack.types import Flow
from kproxy.kernel.inet import Protocol
from kproxy.kernel.ipvs.fake import FakeIPVS
from kproxy.kernel.ipvs.types import (
    AddDestination,
    AddService,
    DestinationConfig,
    DestinationKey,
    ServiceConfig,
    ServiceKey,
)
from kproxy.lab.balancing import dead, fronts
from kproxy.lab.balancing.fronts import Front
from kproxy.lab.balancing.health import Probe
from kproxy.lab.balancing.ledger import Ledger
from kproxy.lab.balancing.memory import Memory, MemoryFile

RANGES = (ip_network("203.0.113.0/24"), ip_network("fd00:113::/112"))
BEYOND = {Family.IPV4: (Prefix("198.51.100.0/24"),)}


def service(name: str, *told: str, **spec: Any) -> core.Service:
    meta = {"name": name, "namespace": "shop"}
    port = {"name": "http", "port": 80, "nodePort": 30080, "protocol": "TCP"}
    spec = {"type": "LoadBalancer", "clusterIP": "10.96.0.7", "ports": [port], **spec}
    status = {"loadBalancer": {"ingress": [{"ip": one, "ipMode": "VIP"} for one in told]}}
    return msgspec.convert({"metadata": meta, "spec": spec, "status": status}, core.Service)


def node(number: int, **meta: Any) -> core.Node:
    addresses = [
        {"type": "Hostname", "address": f"node{number}"},
        {"type": "InternalIP", "address": f"192.168.50.{10 + number}"},
        {"type": "InternalIP", "address": f"fd00:50::{10 + number}"},
    ]
    taints = meta.pop("taints", None)
    data = {
        "metadata": {"name": f"node{number}", **meta},
        "spec": {"taints": taints},
        "status": {"addresses": addresses},
    }
    return msgspec.convert(data, core.Node)


def ledger(*objects: core.Service | core.Node) -> Ledger:
    made = Ledger(RANGES, lambda: None)
    made.on_services([(None, one) for one in objects if isinstance(one, core.Service)])
    made.on_nodes([(None, one) for one in objects if isinstance(one, core.Node)])
    return made


def states(front: Front, *, well: bool = True, family: Family = Family.IPV4) -> list[ServiceState]:
    """Return what a front is to a backend."""
    settings = NodeSettings(family=family, node="edge", cluster_cidrs=BEYOND.get(family, ()))
    builder = StateBuilder(settings)
    objects = fronts.objects(front, lambda probe: well, "edge")
    builder.on_services([(None, objects.service)])
    builder.on_slices([(None, one) for one in objects.slices])
    found = list(builder.build().services.values())
    assert builder.take_problems() == []
    return found


def only(made: Ledger) -> Front:
    ((_, front),) = made.picture().fronts.items()
    return front


def places(state: ServiceState) -> list[str]:
    return [f"{one.address}:{one.port}" for one in state.cluster or state.local]


def test_the_api_servers() -> None:
    servers = [("192.168.50.201", 6443), ("192.168.50.202", 6443)]
    front = fronts.of_api("192.168.49.1", 443, servers, "https")
    (state,) = states(front)
    assert (state.service.cluster_ip, state.service.port) == ("192.168.49.1", 443)
    assert places(state) == ["192.168.50.201:6443", "192.168.50.202:6443"]
    assert front.servers[0].probe == Probe("https", "192.168.50.201", 6443, "/readyz")
    assert front.cut
    (state,) = states(front, well=False)
    assert places(state) == []


def test_a_service_is_forwarded_to_node_ports() -> None:
    front = only(ledger(service("web"), node(1), node(2)))
    (state,) = states(front)
    assert state.service.name == ServicePortName("shop", "web", "http", "TCP")
    assert (state.service.cluster_ip, state.service.port) == ("203.0.113.1", 80)
    assert places(state) == ["192.168.50.11:30080", "192.168.50.12:30080"]
    assert front.servers[0].probe == Probe("http", "192.168.50.11", 10256, "/healthz")
    assert not front.cut


def test_policy_local_asks_the_port_that_knows_of_endpoints() -> None:
    local = service("web", externalTrafficPolicy="Local", healthCheckNodePort=31000)
    front = only(ledger(local, node(1)))
    assert front.servers[0].probe == Probe("http", "192.168.50.11", 31000, "/healthz")


def test_both_families() -> None:
    both = service("web", ipFamilies=["IPv4", "IPv6"], clusterIPs=["10.96.0.7", "fd00:96::7"])
    front = only(ledger(both, node(1)))
    (state,) = states(front, family=Family.IPV6)
    assert state.service.cluster_ip == "fd00:113::1"
    assert places(state) == ["fd00:50::11:30080"]


def test_source_ranges_are_kept_by_the_rules_of_proxies() -> None:
    front = only(ledger(service("web", loadBalancerSourceRanges=["198.51.100.11/32"]), node(1)))
    (state,) = states(front)
    assert state.service.load_balancer_vips == ("203.0.113.1",)
    assert state.service.source_ranges == ("198.51.100.11/32",)
    assert state.service.external_local
    assert [one.address for one in state.local] == ["192.168.50.11"]


def test_affinity_is_kept() -> None:
    (state,) = states(only(ledger(service("web", sessionAffinity="ClientIP"), node(1))))
    assert state.service.affinity_seconds == 10800


@pytest.mark.parametrize(
    "meta",
    [
        {"labels": {"node.kubernetes.io/exclude-from-external-load-balancers": ""}},
        {"taints": [{"key": "ToBeDeletedByClusterAutoscaler", "effect": "NoSchedule"}]},
    ],
)
def test_nodes_that_take_no_part(meta: dict[str, Any]) -> None:
    front = only(ledger(service("web"), node(1, **meta), node(2)))
    assert [server.name for server in front.servers] == ["node2"]


@pytest.mark.parametrize(
    "other", [{"type": "NodePort"}, {"loadBalancerClass": "example.org/other"}]
)
def test_services_that_are_not_ours(other: dict[str, Any]) -> None:
    picture = ledger(service("web", **other), node(1)).picture()
    assert picture.fronts == {}
    assert picture.statuses == {}


def test_without_node_ports_nobody_is_reached_and_that_is_told() -> None:
    picture = ledger(service("web", ports=[{"port": 80}]), node(1)).picture()
    assert picture.fronts == {}
    ((_, problem),) = picture.problems
    assert "spec.allocateLoadBalancerNodePorts" in str(problem)


def test_a_service_that_changes_its_type_loses_its_address() -> None:
    made = ledger(service("web"), node(1))
    made.picture()
    made.on_services([(None, service("web", "203.0.113.1", type="ClusterIP"))])
    assert made.picture().statuses[("shop", "web")][1] == ()
    made.on_services([(None, service("web", "192.0.2.1", type="ClusterIP"))])
    assert made.picture().statuses == {}


def test_statuses_say_what_was_given() -> None:
    picture = ledger(service("web"), node(1)).picture()
    assert picture.statuses[("shop", "web")][1] == (ip_address("203.0.113.1"),)


def test_heartbeats_of_nodes_change_nothing() -> None:
    told = []
    made = Ledger(RANGES, lambda: told.append(1))
    made.on_nodes([(None, node(1))])
    made.on_nodes([(node(1), node(1, resourceVersion="7"))])
    assert len(told) == 1
    made.on_nodes([(node(1), None)])
    assert len(told) == 2


def test_what_is_known_outlives_the_process(tmp_path: Path) -> None:
    front = only(ledger(service("web"), node(1)))
    well = [front.servers[0].probe]
    path = tmp_path / "balancer.json"
    MemoryFile(path, logs.Log("t")).save([front], well)
    assert MemoryFile(path, logs.Log("t")).load() == Memory(fronts=(front,), well=tuple(well))
    path.write_text('{"fronts": [')
    assert MemoryFile(path, logs.Log("t")).load() == Memory()
    assert MemoryFile(tmp_path / "none", logs.Log("t")).load() == Memory()
    MemoryFile(tmp_path / "no" / "such", logs.Log("t")).save([front], well)


VIP, SERVER = ip_address("192.168.49.1"), ip_address("192.168.50.201")
PLACE = dead.Place(str(VIP), 6443, str(SERVER), 6443)


def test_with_ipvs_a_dead_server_that_drains_is_taken_away() -> None:
    ipvs = FakeIPVS()
    key, server = ServiceKey(Protocol.TCP, VIP, 6443), DestinationKey(SERVER, 6443)
    ipvs.run([AddService(key, ServiceConfig()), AddDestination(key, server, DestinationConfig(0))])
    undertaker = dead.Undertaker("ipvs", ipvs, FakeConntrack())
    assert undertaker.end([PLACE]) == []
    assert not ipvs.dump()[key].destinations
    assert undertaker.end([PLACE]) == []  # it has gone already


def test_elsewhere_flows_to_a_dead_server_are_forgotten() -> None:
    def flow(port: int, server: Any, number: int) -> Flow:
        client = ip_address("192.168.50.11")
        return Flow(Protocol.TCP, client, port, VIP, 6443, server, 6443, client, port, 0, number)

    other = flow(40001, ip_address("192.168.50.202"), 2)
    conntrack = FakeConntrack([flow(40000, SERVER, 1), other])
    undertaker = dead.Undertaker("nftables", conntrack=conntrack)
    assert undertaker.end([PLACE]) == []
    assert conntrack.table == [other]
