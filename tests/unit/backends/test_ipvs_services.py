"""Everything but the ClusterIP, in ipvs mode: what the kernel holds for it."""

import ipaddress
from typing import Any

import msgspec
import pytest
from fake_node import FakeNode, wanted, web

from kproxy.backends.base import Options
from kproxy.desired.model import (
    Address,
    Endpoint,
    Family,
    NodePorts,
    Prefix,
    Protocol,
    ServicePortName,
    ServiceState,
    State,
)
from kproxy.kernel import inet
from kproxy.kernel.ipset.types import AddEntry, DelEntry
from kproxy.kernel.ipvs.types import (
    AddDestination,
    AddService,
    DestinationConfig,
    DestinationKey,
    ServiceConfig,
    ServiceFlags,
    ServiceKey,
    SetDestination,
)

HERE, THERE = "10.128.0.1", "10.128.1.1"
NODE, SECOND = "192.168.1.1", "10.20.0.1"
VIP = "203.0.113.7"


def service(
    name: str = "web", *, protocol: Protocol = Protocol.TCP, **fields: Any
) -> ServiceState:
    """Return a service with an endpoint on this node and one elsewhere."""
    one = web(THERE, protocol=protocol)
    here = Endpoint(address=Address(HERE), port=8080, local=True)
    endpoints = (here, *one.cluster)
    key = ServicePortName("demo", name, "http", protocol)
    local = (here,) if fields.get("external_local") or fields.get("internal_local") else ()
    return msgspec.structs.replace(
        one,
        service=msgspec.structs.replace(one.service, name=key, **fields),
        cluster=endpoints,
        local=local,
        known=endpoints,
    )


def state(*services: ServiceState, **fields: Any) -> State:
    fields.setdefault("node_ports", NodePorts(addresses=(Address(NODE), Address(SECOND))))
    return msgspec.structs.replace(wanted(*services), **fields)


def synced(*services: ServiceState, **fields: Any) -> FakeNode:
    node = FakeNode()
    result = node.backend("ipvs").sync(state(*services, **fields))
    assert (result.failures, result.refused, result.invalid) == ((), (), ())
    return node


def table(node: FakeNode) -> dict[str, list[str]]:
    return {
        str(key): sorted(map(str, entry.destinations)) for key, entry in node.ipvs.dump().items()
    }


def sets(node: FakeNode) -> dict[str, set[str]]:
    return {
        name: set(map(str, one.entries)) for name, one in node.ipset.dump().items() if one.entries
    }


BOTH = [f"{HERE}:8080", f"{THERE}:8080"]


def test_a_node_port_is_served_on_every_address_of_the_node() -> None:
    node = synced(service(node_port=30080))
    assert table(node) == {
        "tcp 10.96.0.10:80": BOTH,
        f"tcp {NODE}:30080": BOTH,
        f"tcp {SECOND}:30080": BOTH,
    }
    assert sets(node)["KUBE-NODE-PORT-TCP"] == {"30080"}
    assert node.contents()["addresses"] == {ipaddress.ip_interface("10.96.0.10/32")}


def test_node_ports_follow_the_addresses_of_the_node() -> None:
    node = FakeNode()
    backend = node.backend("ipvs")
    backend.sync(state(service(node_port=30080)))
    moved = NodePorts(addresses=(Address(NODE), Address("10.30.0.1")))
    node.ipvs.written.clear()
    backend.sync(state(service(node_port=30080), node_ports=moved))
    assert set(table(node)) == {
        "tcp 10.96.0.10:80",
        f"tcp {NODE}:30080",
        "tcp 10.30.0.1:30080",
    }
    assert len(node.ipvs.written) == 2
    backend.sync(state(service(node_port=30080), node_ports=NodePorts()))
    assert set(table(node)) == {"tcp 10.96.0.10:80"}
    assert "KUBE-NODE-PORT-TCP" not in sets(node)


def test_sctp_node_ports_are_in_a_set_of_another_type() -> None:
    node = synced(service(node_port=30080, protocol=Protocol.SCTP, external_local=True))
    both = {f"{NODE},sctp:30080", f"{SECOND},sctp:30080"}
    assert sets(node)["KUBE-NODE-PORT-SCTP-HASH"] == both
    assert sets(node)["KUBE-NODE-PORT-LOCAL-SCTP-HASH"] == both


def test_policy_local_outside_leaves_the_cluster_ip_to_all() -> None:
    node = synced(service(node_port=30080, external_local=True, load_balancer_vips=(VIP,)))
    assert table(node) == {
        "tcp 10.96.0.10:80": BOTH,
        f"tcp {VIP}:80": BOTH[:1],
        f"tcp {NODE}:30080": BOTH[:1],
        f"tcp {SECOND}:30080": BOTH[:1],
    }
    found = sets(node)
    assert found["KUBE-NODE-PORT-LOCAL-TCP"] == {"30080"}
    assert found["KUBE-LOAD-BALANCER-LOCAL"] == {f"{VIP},tcp:80"}


def test_policy_local_without_a_local_endpoint_falls_back_to_all() -> None:
    """As kube-proxy: pods of this node may use them; nobody else is answered."""
    one = msgspec.structs.replace(service(node_port=30080, external_local=True), local=())
    assert table(synced(one))[f"tcp {NODE}:30080"] == BOTH


def test_policy_local_inside() -> None:
    assert table(synced(service(internal_local=True)))["tcp 10.96.0.10:80"] == BOTH[:1]


def test_external_addresses_are_bound_unless_they_are_the_nodes() -> None:
    node = synced(service(external_ips=("198.51.100.9", NODE)))
    assert set(table(node)) == {"tcp 10.96.0.10:80", "tcp 198.51.100.9:80", f"tcp {NODE}:80"}
    assert {str(one.ip) for one in node.contents()["addresses"]} == {"10.96.0.10", "198.51.100.9"}
    assert sets(node)["KUBE-EXTERNAL-IP"] == {"198.51.100.9,tcp:80", f"{NODE},tcp:80"}
    node.backend("ipvs").sync(state())
    assert table(node) == {}, "also what is at an address that never was on the device"


def test_an_address_of_the_node_without_node_ports_is_not_bound_either() -> None:
    node = FakeNode()
    node.links.put("eth1", [ipaddress.ip_interface(f"{SECOND}/24")])
    only = NodePorts(everywhere=False, addresses=(Address(NODE),))
    node.backend("ipvs").sync(state(service(external_ips=(SECOND,)), node_ports=only))
    assert {str(one.ip) for one in node.contents()["addresses"]} == {"10.96.0.10"}


RANGES = (Prefix("198.51.100.0/24"), Prefix("0.0.0.0/0"))


def test_source_ranges() -> None:
    node = synced(service(load_balancer_vips=(VIP,), source_ranges=RANGES[:1]))
    found = sets(node)
    assert found["KUBE-LOAD-BALANCER-FW"] == {f"{VIP},tcp:80"}
    assert found["KUBE-LOAD-BALANCER-SOURCE-CIDR"] == {f"{VIP},tcp:80,198.51.100.0/24"}
    assert "KUBE-LOAD-BALANCER-SOURCE-IP" not in found
    assert node.contents()["rules"]["filter"]["KUBE-IPVS-OUT-FILTER"].rules == (
        f"-A KUBE-IPVS-OUT-FILTER -s {VIP}/32 -m ipvs --vproto 6 --vaddr {VIP} --vport 80 -j DROP",
    )


def test_everybody_is_two_halves_for_a_set_and_lets_the_node_in() -> None:
    node = synced(service(load_balancer_vips=(VIP,), source_ranges=RANGES[1:]))
    found = sets(node)
    assert found["KUBE-LOAD-BALANCER-SOURCE-CIDR"] == {
        f"{VIP},tcp:80,0.0.0.0/1",
        f"{VIP},tcp:80,128.0.0.0/1",
    }
    assert found["KUBE-LOAD-BALANCER-SOURCE-IP"] == {f"{VIP},tcp:80,{VIP}"}
    assert node.contents()["rules"]["filter"]["KUBE-IPVS-OUT-FILTER"].rules == ()


def test_ranges_that_only_hold_the_pods_gateway_keep_the_node_out() -> None:
    node = synced(
        service(load_balancer_vips=(VIP,), source_ranges=(Prefix("10.128.0.0/16"),)),
        node_ports=NodePorts(addresses=(Address(NODE), Address("10.128.0.254"))),
    )
    assert "KUBE-LOAD-BALANCER-SOURCE-IP" not in sets(node)


def test_health_check_ports_are_open() -> None:
    node = synced(service(health_check_node_port=32000))
    assert sets(node)["KUBE-HEALTH-CHECK-NODE-PORT"] == {"32000"}


@pytest.mark.parametrize(
    ("scheduler", "seconds", "config"),
    [
        ("rr", None, ServiceConfig("rr")),
        ("wlc", 600, ServiceConfig("wlc", ServiceFlags.PERSISTENT, 600)),
        ("mh", None, ServiceConfig("mh", ServiceFlags.MH_PORT)),
        ("mh", 5, ServiceConfig("mh", ServiceFlags.MH_PORT | ServiceFlags.PERSISTENT, 5)),
    ],
)
def test_affinity_and_scheduler(
    scheduler: str, seconds: int | None, config: ServiceConfig
) -> None:
    node = FakeNode()
    backend = node.backend("ipvs", Options(scheduler=scheduler))
    backend.sync(state(service(node_port=30080, affinity_seconds=seconds)))
    assert {entry.config for entry in node.ipvs.dump().values()} == {config}


def test_affinity_that_changes_keeps_the_endpoints() -> None:
    node = FakeNode()
    backend = node.backend("ipvs")
    backend.sync(state(service()))
    assert backend.sync(state(service(affinity_seconds=60))).writes == 1
    assert table(node) == {"tcp 10.96.0.10:80": BOTH}


@pytest.mark.parametrize("name", ["nonsense", "x" * 16])
def test_an_unknown_scheduler_is_one_error_that_names_what_there_is(name: str) -> None:
    node = FakeNode()
    backend = node.backend("ipvs", Options(scheduler=name))
    result = backend.sync(state(service(), service("other", node_port=30080, port=81)))
    (error,) = result.failures
    assert f"{name!r}: this kernel has no such scheduler (it has: rr, wrr, lc," in str(error)
    assert backend.supported() == str(error), "known now, without asking again"
    assert node.ipvs.dump() == {}, "what asks leaves nothing behind"
    assert not node.links.exists("kube-ipvs0"), "an address would lead to ports of the node"


def test_asking_for_schedulers_heals_what_a_killed_one_left() -> None:
    node = FakeNode()
    probe = ServiceKey(inet.Protocol.TCP, ipaddress.ip_address("198.51.100.0"), 20000)
    node.ipvs.run([AddService(probe, ServiceConfig("rr"))])
    assert (
        len(node.backend("ipvs", Options(scheduler="nonsense")).sync(state(service())).failures)
        == 1
    )
    assert node.ipvs.dump() == {}


def test_whether_it_is_supported_is_found_out_without_writing() -> None:
    node = FakeNode()
    assert node.backend("ipvs", Options(scheduler="sh")).supported() is None
    assert node.ipvs.written == []


def test_the_same_address_twice_in_one_service_is_served_once() -> None:
    node = synced(
        service(external_ips=(VIP,), load_balancer_vips=(VIP,), source_ranges=RANGES[:1])
    )
    assert set(table(node)) == {"tcp 10.96.0.10:80", f"tcp {VIP}:80"}
    found = sets(node)
    assert found["KUBE-EXTERNAL-IP"] == found["KUBE-LOAD-BALANCER-FW"] == {f"{VIP},tcp:80"}
    node.backend("ipvs").sync(state())
    assert (table(node), sets(node)) == ({}, {})


def test_two_services_claim_a_node_port_and_an_address() -> None:
    first = service("a", node_port=30080, external_ips=(VIP,))
    second = service("b", node_port=30080, external_ips=(VIP,), port=81, cluster_ip="10.96.0.11")
    third = service("c", external_ips=(VIP,), cluster_ip="10.96.0.12")
    node = FakeNode()
    backend = node.backend("ipvs")
    result = backend.sync(state(third, second, first))
    assert [str(one).partition(" (")[0] for one in result.invalid] == [
        "Service demo/b: spec.ports['http'].nodePort: TCP node port 30080 belongs to Service"
        " demo/a:http already",
        f"Service demo/c: spec.externalIPs: TCP {VIP}:80 belongs to Service demo/a:http already",
    ]
    result = backend.sync(state(third, second))
    assert result.invalid == ()
    assert {f"tcp {VIP}:80", f"tcp {VIP}:81", f"tcp {NODE}:30080"} < set(table(node))
    direct = FakeNode()
    direct.backend("ipvs").sync(state(third, second))
    assert node.contents() == direct.contents()


def test_interfaces_tell_pods_apart() -> None:
    node = synced(service(), local_interface="cali+", cluster_cidrs=())
    rules = node.contents()["rules"]["nat"]["KUBE-SERVICES"].rules
    assert any(rule.startswith("-A KUBE-SERVICES ! -i cali+ -m comment") for rule in rules)


def test_ipv6() -> None:
    node = FakeNode()
    one = service(node_port=30080, load_balancer_vips=(Address("2001:db8::7"),))
    here = (Endpoint(address=Address("fd00::1"), port=8080, local=True),)
    name = one.service
    six = msgspec.structs.replace(
        one,
        service=msgspec.structs.replace(
            name,
            cluster_ip=Address("fd00:96::1"),
            source_ranges=(Prefix("::/0"),),
            affinity_seconds=7,
        ),
        cluster=here,
        known=here,
    )
    addresses = NodePorts(addresses=(Address("fd00:1::1"),))
    want = state(six, family=Family.IPV6, node_ports=addresses, cluster_cidrs=())
    result = node.backend("ipvs", family=Family.IPV6).sync(want)
    assert (result.failures, result.refused) == ((), ())
    assert set(table(node)) == {
        "tcp [fd00:96::1]:80",
        "tcp [2001:db8::7]:80",
        "tcp [fd00:1::1]:30080",
    }
    found = sets(node)
    assert found["KUBE-6-NODE-PORT-TCP"] == {"30080"}
    assert found["KUBE-6-LOAD-BALANCER-SOURCE-CID"] == {
        "2001:db8::7,tcp:80,::/1",
        "2001:db8::7,tcp:80,8000::/1",
    }
    assert found["KUBE-6-LOOP-BACK"] == {"fd00::1,tcp:8080,fd00::1"}
    assert node.backend("ipvs", family=Family.IPV6).differences(want) == []


def test_what_stops_to_be_masqueraded_is_unmasqueraded_last_and_the_reverse_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    node = FakeNode()
    backend = node.backend("ipvs")
    cluster = state(service(node_port=30080, load_balancer_vips=(VIP,)))
    local = state(service(node_port=30080, load_balancer_vips=(VIP,), external_local=True))
    backend.sync(cluster)
    order: list[Any] = []
    run_sets, run_ipvs = node.ipset.run, node.ipvs.run

    def note(run: Any) -> Any:
        def noting(operations: Any) -> Any:
            order.extend(operations)
            return run(operations)

        return noting

    monkeypatch.setattr(node.ipset, "run", note(run_sets))
    monkeypatch.setattr(node.ipvs, "run", note(run_ipvs))
    backend.sync(local)
    assert isinstance(order[-1], AddEntry)
    order.clear()
    backend.sync(cluster)
    assert isinstance(order[0], DelEntry)
    assert isinstance(order[-1], AddDestination)


def test_drift_is_found_at_a_full_sync_and_made_good() -> None:
    node = FakeNode()
    backend = node.backend("ipvs")
    want = state(service(node_port=30080, load_balancer_vips=(VIP,)))
    backend.sync(want)
    before = node.contents()
    key = ServiceKey(inet.Protocol.TCP, ipaddress.ip_address(NODE), 30080)
    real = DestinationKey(ipaddress.ip_address(HERE), 8080)
    node.ipvs.run([SetDestination(key, real, DestinationConfig(0))])
    node.links.remove_addresses("kube-ipvs0", [ipaddress.ip_address(VIP)])
    (entry,) = (one for one in node.ipset.dump()["KUBE-CLUSTER-IP"].entries)
    node.ipset.run([DelEntry("KUBE-CLUSTER-IP", entry)])
    told = {(one.deviation.value, one.kind, one.name) for one in backend.differences(want)}
    assert told == {
        ("different", "real server", f"tcp {NODE}:30080 {HERE}:8080"),
        ("missing", "address", f"kube-ipvs0 {VIP}"),
        ("missing", "ipset entry", "KUBE-CLUSTER-IP 10.96.0.10,tcp:80"),
    }
    assert backend.sync(want).writes == 0, "what was written is trusted until it is read again"
    backend.reread()
    assert backend.sync(want).writes == 3
    assert node.contents() == before
    assert backend.differences(want) == []
