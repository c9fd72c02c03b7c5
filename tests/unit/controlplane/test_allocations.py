"""What Services take: addresses and ports, given once, released with the Service, repaired."""

import contextlib
import ipaddress
import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from kproxy import errors
from kproxy.controlplane import addresses, allocations, versions
from kproxy.controlplane.allocations import Allocations
from kproxy.controlplane.storage.base import Write
from kproxy.controlplane.storage.memory import MemoryStorage
from kproxy.controlplane.store import Store

V4, V6 = "10.96.0.0/16", "fd00:96::/112"


class Server:
    """An API server as far as Services go."""

    def __init__(self, storage: MemoryStorage, cidrs: str, ports: range, seed: int = 1) -> None:
        self.store = Store(storage)
        networks = addresses.parse_cidrs(cidrs)
        self.taken = Allocations(self.store, networks, draw=random.Random(seed), ports=ports)

    def create(self, name: str, kind: str = "ClusterIP", **spec: object) -> dict:
        spec.setdefault("ports", [{"port": 80, "protocol": "TCP"}])
        obj = {"metadata": {"namespace": "demo", "name": name}, "spec": {"type": kind, **spec}}
        return self.store.create("services", obj, self.taken.plan).obj["spec"]

    def update(self, name: str, **spec: object) -> dict:
        def change(old: dict) -> dict:
            new = {**old["spec"], **spec}
            new = {key: value for key, value in new.items() if value is not None}
            return allocations.kept(old, {**old, "spec": new})

        return self.store.update("services", ("demo", name), change, self.taken.plan).obj["spec"]

    def delete(self, name: str) -> None:
        self.store.delete("services", ("demo", name), plan=self.taken.plan)

    def all(self, resource: str) -> set[str]:
        return {item.obj["metadata"]["name"] for item in self.store.list(resource)[0]}


@pytest.fixture
def make() -> Iterator:
    with contextlib.ExitStack() as stack:

        def one(
            cidrs: str = V4,
            ports: range = allocations.NODE_PORTS,
            storage: MemoryStorage | None = None,
            seed: int = 1,
        ) -> Server:
            server = Server(storage or MemoryStorage(), cidrs, ports, seed)
            stack.callback(server.store.close)
            return server

        yield one


@pytest.fixture
def server(make) -> Server:
    return make()


def test_an_address_is_an_object_that_says_whose_it_is(server):
    spec = server.create("web")
    address = spec["clusterIP"]
    assert spec["clusterIPs"] == [address]
    assert ipaddress.ip_address(address) in ipaddress.ip_network(V4)
    item = server.store.get("ipaddresses", ("", address))
    assert item.obj["spec"]["parentRef"] == {
        "group": "",
        "resource": "services",
        "namespace": "demo",
        "name": "web",
    }
    assert item.obj["metadata"]["labels"]["ipaddress.kubernetes.io/ip-family"] == "IPv4"
    service = server.store.get("services", ("demo", "web"))
    assert service.revision == item.revision  # one commit


def test_what_a_service_had_is_free_when_it_is_gone(server):
    server.create("web", "NodePort")
    assert server.all("ipaddresses")
    assert server.all("nodeports")
    server.delete("web")
    assert server.all("ipaddresses") == set()
    assert server.all("nodeports") == set()


def test_a_service_that_waits_for_finalizers_keeps_what_it_has(server):
    server.create("web", "NodePort")

    def finalizers(*names: str):
        return lambda old: {**old, "metadata": {**old["metadata"], "finalizers": list(names)}}

    server.store.update("services", ("demo", "web"), finalizers("x/y"), server.taken.plan)
    server.delete("web")
    assert server.all("services") == {"web"}
    assert len(server.all("nodeports")) == 1
    server.store.update("services", ("demo", "web"), finalizers(), server.taken.plan)
    assert server.all("services") == server.all("nodeports") == server.all("ipaddresses") == set()


def test_the_lower_band_is_kept_for_those_who_ask(make):
    server = make("10.0.0.0/24", range(30000, 30100))
    for number in range(238):  # 254 usable, 16 of them kept
        address = server.create(f"s{number}")["clusterIP"]
        assert int(address.rpartition(".")[2]) > 16
    assert int(server.create("more")["clusterIP"].rpartition(".")[2]) <= 16
    for number in range(84):  # 100 ports, 16 of them kept
        spec = server.update(f"s{number}", type="NodePort")
        assert spec["ports"][0]["nodePort"] >= 30016
    assert server.update("more", type="NodePort")["ports"][0]["nodePort"] < 30016


@pytest.mark.parametrize(
    ("size", "step", "largest", "kept"),
    [(16, 16, 256, 0), (17, 16, 256, 16), (1024, 16, 256, 64), (1 << 20, 16, 256, 256)],
)
def test_how_much_is_kept(size, step, largest, kept):
    assert addresses.band(size, step=step, largest=largest) == kept


def test_when_all_are_taken_it_is_said(make):
    server = make("10.0.0.0/30", range(30000, 30001))
    given = {server.create(f"s{number}")["clusterIP"] for number in range(2)}
    assert given == {"10.0.0.1", "10.0.0.2"}
    with pytest.raises(errors.ApiError, match=r"all addresses of 10\.0\.0\.0/30 are taken"):
        server.create("s3")
    server.update("s0", type="NodePort")
    with pytest.raises(errors.ApiError, match="all ports of 30000-30000 are taken"):
        server.update("s1", type="NodePort")
    server.delete("s0")
    assert server.update("s1", type="NodePort")["ports"][0]["nodePort"] == 30000


def test_who_asks_for_what_is_taken_or_elsewhere_is_refused(server):
    server.create("a", "NodePort", clusterIP="10.96.0.9", ports=[{"port": 1, "nodePort": 30007}])
    rows = [
        ({"clusterIP": "10.96.0.9"}, "spec.clusterIP", "already allocated"),
        ({"clusterIP": "192.0.2.1"}, "spec.clusterIP", "not in the service CIDR"),
        ({"ports": [{"port": 1, "nodePort": 30007}]}, "spec.ports[0].nodePort", "allocated"),
        ({"ports": [{"port": 1, "nodePort": 80}]}, "spec.ports[0].nodePort", "valid range"),
        ({"ipFamilies": ["IPv6"]}, "spec.ipFamilies[0]", "not configured for IPv6"),
        ({"ipFamilyPolicy": "RequireDualStack"}, "spec.ipFamilyPolicy", "dual stack"),
    ]
    for spec, field, problem in rows:
        with pytest.raises(errors.InvalidObject, match=problem) as caught:
            server.create("b", "NodePort", **spec)
        assert caught.value.field == field
    assert server.all("services") == {"a"}


def test_dual_stack_comes_and_goes(make):
    server = make(f"{V4},{V6}")
    spec = server.create("web", ipFamilyPolicy="PreferDualStack")
    assert spec["ipFamilies"] == ["IPv4", "IPv6"]
    assert server.all("ipaddresses") == set(spec["clusterIPs"])
    single = server.update("web", ipFamilyPolicy="SingleStack")
    assert single["clusterIPs"] == spec["clusterIPs"][:1]
    assert single["ipFamilies"] == ["IPv4"]
    assert server.all("ipaddresses") == set(single["clusterIPs"])
    again = server.update("web", ipFamilyPolicy="RequireDualStack")
    assert again["clusterIPs"][0] == spec["clusterIP"]
    assert server.all("ipaddresses") == set(again["clusterIPs"])
    other = server.create("six", ipFamilies=["IPv6"])
    assert ipaddress.ip_address(other["clusterIP"]).version == 6


def test_types_change_and_take_what_they_need(server):
    spec = server.create("web", "LoadBalancer", externalTrafficPolicy="Local")
    address, port = spec["clusterIP"], spec["ports"][0]["nodePort"]
    check = spec["healthCheckNodePort"]
    assert server.all("nodeports") == {str(port), str(check)}
    spec = server.update("web", type="NodePort")
    assert spec["ports"][0]["nodePort"] == port
    assert "healthCheckNodePort" not in spec
    assert server.all("nodeports") == {str(port)}
    spec = server.update("web", type="ClusterIP")
    assert "nodePort" not in spec["ports"][0]
    assert spec["clusterIP"] == address
    assert server.all("nodeports") == set()
    server.update("web", type="ExternalName", clusterIP=None, clusterIPs=None)
    assert server.all("ipaddresses") == set()
    assert server.update("web", type="ClusterIP")["clusterIP"]
    headless = server.create("headless", clusterIP="None")
    assert headless["clusterIPs"] == ["None"]
    assert len(server.all("ipaddresses")) == 1


def test_an_update_that_leaves_node_ports_out_keeps_them(server):
    before = server.create("web", "NodePort")
    after = server.update("web", ports=[{"port": 80, "protocol": "TCP"}, {"port": 81}])
    assert after["ports"][0] == before["ports"][0]
    assert after["ports"][1]["nodePort"] != before["ports"][0]["nodePort"]
    assert len(server.all("nodeports")) == 2


def test_tcp_and_udp_of_one_port_share_a_node_port(server):
    ports = [{"port": 53, "protocol": "UDP"}, {"port": 53, "protocol": "TCP"}, {"port": 54}]
    spec = server.create("dns", "NodePort", ports=ports)
    first, second, third = (port["nodePort"] for port in spec["ports"])
    assert first == second != third


def test_a_load_balancer_may_do_without_node_ports(server):
    spec = server.create("web", "LoadBalancer", allocateLoadBalancerNodePorts=False)
    assert "nodePort" not in spec["ports"][0]
    assert server.all("nodeports") == set()


def test_addresses_come_from_service_cidrs_too(make):
    server = make("10.0.0.0/30")
    server.store.create(
        "servicecidrs", {"metadata": {"name": "more"}, "spec": {"cidrs": ["10.1.0.0/24"]}}
    )
    given = [server.create(f"s{number}")["clusterIP"] for number in range(3)]
    assert sum(address.startswith("10.1.0.") for address in given) == 1
    assert server.create("s4", clusterIP="10.1.0.77")["clusterIP"] == "10.1.0.77"


def test_two_api_servers_never_give_one_thing_twice(make):
    """Both draw alike, from a range that is just large enough."""
    storage = MemoryStorage()
    servers = [make("10.0.0.0/26", range(30000, 30062), storage) for _ in range(2)]

    def create(number: int) -> dict:
        return servers[number % 2].create(f"s{number}", "NodePort")

    with ThreadPoolExecutor(8) as pool:
        specs = list(pool.map(create, range(62)))
    assert len({spec["clusterIP"] for spec in specs}) == 62
    assert len({spec["ports"][0]["nodePort"] for spec in specs}) == 62
    assert servers[0].all("ipaddresses") == {spec["clusterIP"] for spec in specs}


def test_what_is_asked_for_by_name_is_given_to_one(make):
    storage = MemoryStorage()
    servers = [make(V4, storage=storage) for _ in range(2)]

    def create(number: int) -> str:
        try:
            servers[number].create(f"s{number}", clusterIP="10.96.0.10")
        except errors.InvalidObject as error:
            return error.problem
        return "given"

    with ThreadPoolExecutor(2) as pool:
        told = sorted(pool.map(create, range(2)))
    assert told == ["10.96.0.10 is already allocated", "given"]


def test_repair_finds_what_is_missing_leaked_or_wrong(server):
    spec = server.create("web", "NodePort")
    port = str(spec["ports"][0]["nodePort"])
    assert server.taken.repair() == []
    lost = versions.path_of("nodeports", ("", port))
    leaked = versions.path_of("ipaddresses", ("", "10.96.0.99"))
    foreign = versions.path_of("ipaddresses", ("", "10.96.0.98"))
    gone = addresses.ip_address("10.96.0.99", {"namespace": "demo", "name": "gone"}, {})
    other = {"metadata": {"name": "10.96.0.98"}, "spec": {"parentRef": {"resource": "gateways"}}}
    server.store.commit(
        [
            Write(lost, None),
            Write(leaked, versions.stored(gone)),
            Write(foreign, versions.stored(other)),
        ]
    )
    assert sorted(server.taken.repair()) == [
        "10.96.0.99 was taken for demo/gone",
        f"Service demo/web: {port} was not taken",
    ]
    assert server.taken.repair() == []
    assert server.all("nodeports") == {port}
    assert server.all("ipaddresses") == {spec["clusterIP"], "10.96.0.98"}


def test_repair_tells_of_two_services_with_one_address_and_gives_it_to_the_older(server):
    spec = server.create("old")
    copy = {**server.store.get("services", ("demo", "old")).obj}
    copy["metadata"] = {**copy["metadata"], "name": "zweit"}
    server.store.commit(
        [Write(versions.path_of("services", ("demo", "zweit")), versions.stored(copy))]
    )
    told = [f"Service demo/zweit: {spec['clusterIP']} belongs to Service demo/old"]
    assert server.taken.repair() == told
    assert server.taken.repair() == told
    server.delete("old")
    assert server.taken.repair() == [f"Service demo/zweit: {spec['clusterIP']} was not taken"]


def test_equal_seeds_give_equal_addresses(make):
    one, other, third = make(seed=1), make(seed=1), make(seed=2)
    given = [server.create("web")["clusterIP"] for server in (one, other, third)]
    assert given[0] == given[1] != given[2]


def test_a_service_keeps_what_it_has_when_ranges_change(make):
    """An API server that is started with other ranges must not make old Services unchangeable."""
    old = make(cidrs="10.96.0.0/16", ports=range(30000, 30100))
    storage = old.store._storage
    kept = old.create("web", "LoadBalancer", externalTrafficPolicy="Local")
    new = make(cidrs="10.97.0.0/16", ports=range(31000, 31100), storage=storage)
    after = new.update("web", sessionAffinity="ClientIP")
    assert after == {**kept, "sessionAffinity": "ClientIP"}
    with pytest.raises(errors.InvalidObject):
        new.create("other", clusterIP="10.96.0.77")
    assert new.create("another")["clusterIP"].startswith("10.97.")


def test_more_than_one_commit_can_hold_is_refused_in_words(make):
    server = make()
    ports = [{"name": f"p{n}", "port": n, "protocol": "TCP"} for n in range(1, 121)]
    with pytest.raises(errors.InvalidObject, match="too many"):
        server.create("web", "NodePort", ports=ports)
    server.create("web", "NodePort", ports=ports[:98])
    assert len(server.all("nodeports")) == 98
