"""What Services, endpoints and pods are called, after the specification of Kubernetes' DNS."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kproxy.api import core, discovery, pods
from kproxy.controlplane.naming import records
from kproxy.controlplane.naming.directory import Directory
from kproxy.controlplane.naming.records import Record, Type
from kproxy.controlplane.naming.zone import Found, Zone

DOMAIN = "cluster.local"


def service(name: str, namespace: str = "shop", **spec: Any) -> core.Service:
    return msgspec.convert(
        {"metadata": {"name": name, "namespace": namespace}, "spec": spec}, core.Service
    )


def slice_of(
    owner: str,
    *endpoints: dict[str, Any],
    ports: list[dict[str, Any]] | None = None,
    family: str = "IPv4",
    name: str = "",
) -> discovery.EndpointSlice:
    labels = {"kubernetes.io/service-name": owner}
    return msgspec.convert(
        {
            "metadata": {"name": name or f"{owner}-1", "namespace": "shop", "labels": labels},
            "addressType": family,
            "endpoints": list(endpoints),
            "ports": ports or [],
        },
        discovery.EndpointSlice,
    )


def endpoint(address: str, hostname: str | None = None, **conditions: bool) -> dict[str, Any]:
    return {"addresses": [address], "hostname": hostname, "conditions": conditions}


def zone_of(*objects: core.Service | discovery.EndpointSlice) -> Zone:
    zone = Zone()
    directory = Directory(zone, DOMAIN)
    for one in objects:
        if isinstance(one, core.Service):
            directory.on_services([(None, one)])
        else:
            directory.on_slices([(None, one)])
    return zone


def text_of(zone: Zone) -> list[str]:
    """Return a zone as lines of a zone file, sorted."""
    found = (record for owned in zone._owned.values() for record in owned)
    return sorted(f"{one.name} {one.type} {one.data}" for one in found)


HTTP = {"name": "http", "port": 80, "protocol": "TCP"}
GOLDEN = """\
10-244-2-4.db.shop.svc.cluster.local A 10.244.2.4
1.50.96.10.in-addr.arpa PTR cart.shop.svc.cluster.local.
3.1.244.10.in-addr.arpa PTR db-0.db.shop.svc.cluster.local.
4.2.244.10.in-addr.arpa PTR 10-244-2-4.db.shop.svc.cluster.local.
_http._tcp.cart.shop.svc.cluster.local SRV 0 100 80 cart.shop.svc.cluster.local.
_sql._tcp.db.shop.svc.cluster.local SRV 0 33 5432 10-244-2-4.db.shop.svc.cluster.local.
_sql._tcp.db.shop.svc.cluster.local SRV 0 33 5432 db-0.db.shop.svc.cluster.local.
_sql._tcp.db.shop.svc.cluster.local SRV 0 33 5432 db-1.db.shop.svc.cluster.local.
b.1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.6.9.0.0.0.0.d.f.ip6.arpa PTR \
cart.shop.svc.cluster.local.
cart.shop.svc.cluster.local A 10.96.50.1
cart.shop.svc.cluster.local AAAA fd00:96::1b
db-0.db.shop.svc.cluster.local A 10.244.1.3
db-1.db.shop.svc.cluster.local AAAA fd00:244:1::3
db.shop.svc.cluster.local A 10.244.1.3
db.shop.svc.cluster.local A 10.244.2.4
db.shop.svc.cluster.local AAAA fd00:244:1::3
dns-version.cluster.local TXT "1.1.0"
pay.shop.svc.cluster.local CNAME bank.example.org.
3.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.1.0.0.0.4.4.2.0.0.0.d.f.ip6.arpa PTR \
db-1.db.shop.svc.cluster.local.
"""
SQL = {"name": "sql", "port": 5432}


def test_the_zone_of_a_small_shop() -> None:
    zone = zone_of(
        service("cart", clusterIPs=["10.96.50.1", "FD00:96::1B"], ports=[HTTP]),
        service("db", clusterIP="None", ports=[{**SQL, "port": 1}]),
        slice_of(
            "db",
            endpoint("10.244.1.3", "db-0"),
            endpoint("10.244.2.4"),
            endpoint("10.244.2.5", "db-9", ready=False),
            endpoint("10.244.2.6", "db-8", ready=False, serving=True, terminating=True),
            ports=[SQL],
        ),
        slice_of("db", endpoint("fd00:244:1::3", "db-1"), ports=[SQL], family="IPv6", name="db-2"),
        service("pay", type="ExternalName", externalName="Bank.example.org."),
        service("new", clusterIP=""),
    )
    assert sorted(GOLDEN.splitlines()) == text_of(zone)


def test_endpoints_that_are_not_ready_are_named_where_that_is_wanted() -> None:
    zone = zone_of(
        service("db", clusterIP="None", publishNotReadyAddresses=True),
        slice_of("db", endpoint("10.244.2.5", "db-9", ready=False)),
    )
    assert zone.lookup("db-9.db.shop.svc.cluster.local").records == {Type.A: ("10.244.2.5",)}


def test_unnamed_ports_have_no_srv_records() -> None:
    zone = zone_of(service("one", clusterIP="10.96.0.7", ports=[{"port": 80}]))
    assert not [line for line in text_of(zone) if " SRV " in line]


@pytest.mark.parametrize(
    "broken",
    [
        service("Not_a_name", clusterIP="10.96.0.7"),
        service("bad", clusterIP="10.96.0.777"),
        service("bad", clusterIP="10.96.0.7", ports=[{**HTTP, "name": "a b"}]),
        service("bad", clusterIP="10.96.0.7", ports=[{**HTTP, "port": 70000}]),
        service("bad", clusterIP="10.96.0.7", ports=[{**HTTP, "protocol": "CARRIER-PIGEON"}]),
        service("bad", type="ExternalName", externalName="a..b"),
        service("bad", type="ExternalName", externalName=""),
        service("bad", type="ExternalName", externalName=f"{'a' * 64}.example.org"),
    ],
    ids=lambda one: f"{one.metadata.name}-{one.spec.type}-{one.spec.ports}",
)
def test_what_cannot_be_a_record_is_left_out(broken: core.Service) -> None:
    zone = zone_of(broken, service("good", clusterIP="10.96.0.8"))
    lines = text_of(zone)
    assert not [line for line in lines if " SRV " in line or " CNAME " in line]
    assert "good.shop.svc.cluster.local A 10.96.0.8" in lines


def test_a_slice_of_the_wrong_family_names_nobody() -> None:
    zone = zone_of(
        service("db", clusterIP="None"),
        slice_of("db", endpoint("10.244.1.3"), family="IPv6"),
        slice_of("db", endpoint("db.example.org"), family="FQDN", name="x"),
    )
    assert not zone.lookup("db.shop.svc.cluster.local").exists


def test_a_hostname_that_is_no_label_is_not_used() -> None:
    zone = zone_of(
        service("db", clusterIP="None"), slice_of("db", endpoint("10.244.1.3", "no.label"))
    )
    assert zone.lookup("10-244-1-3.db.shop.svc.cluster.local").exists


@pytest.mark.parametrize(
    ("address", "label"),
    [
        ("10.244.1.2", "10-244-1-2"),
        ("fd00:244::7", "fd00-244--7"),
        ("::1", "0000-0000-0000-0000-0000-0000-0000-0001"),
        ("fd00::", "fd00-0000-0000-0000-0000-0000-0000-0000"),
    ],
)
def test_addresses_as_labels(address: str, label: str) -> None:
    assert records.dashed(address) == label
    assert records.undashed(label) == address


@pytest.mark.parametrize("label", ["web", "10-244-1", "10-244-1-300", "a-b", "", "-"])
def test_labels_that_are_no_addresses(label: str) -> None:
    assert records.undashed(label) is None


def test_pods_have_names_while_they_have_addresses() -> None:
    zone = Zone()
    directory = Directory(zone, DOMAIN)

    def pod(phase: str, host_network: bool = False) -> pods.Pod:
        data = {
            "metadata": {"name": "web-0", "namespace": "shop"},
            "spec": {"hostNetwork": host_network},
            "status": {"phase": phase, "podIPs": [{"ip": "10.244.1.2"}]},
        }
        return msgspec.convert(data, pods.Pod)

    name = "10-244-1-2.shop.pod.cluster.local"
    directory.on_pods([(None, pod("Running"))])
    assert zone.lookup(name).records == {Type.A: ("10.244.1.2",)}
    directory.on_pods([(None, pod("Succeeded"))])
    assert not zone.lookup(name).exists
    directory.on_pods([(None, pod("Running", host_network=True))])
    assert not zone.lookup(name).exists


def test_a_slice_that_changes_hands_is_named_by_its_new_owner_only() -> None:
    zone = Zone()
    directory = Directory(zone, DOMAIN)
    directory.on_services([(None, service(one, clusterIP="None")) for one in ("a", "b")])
    old = slice_of("a", endpoint("10.244.1.3"), name="x")
    new = slice_of("b", endpoint("10.244.1.3"), name="x")
    directory.on_slices([(None, old)])
    directory.on_slices([(old, new)])
    assert not zone.lookup("a.shop.svc.cluster.local").exists
    assert zone.lookup("b.shop.svc.cluster.local").exists
    directory.on_slices([(new, None)])
    directory.on_services([(service("b", clusterIP="None"), None)])
    assert text_of(zone) == ['dns-version.cluster.local TXT "1.1.0"']


def test_the_names_above_a_name_exist_without_records() -> None:
    zone = zone_of(service("web", clusterIP="10.96.0.7", ports=[HTTP]))
    for name in ("_tcp.web.shop.svc.cluster.local", "shop.svc.cluster.local", "svc.cluster.local"):
        assert zone.lookup(name) == Found(True)
    assert not zone.lookup("other.svc.cluster.local").exists


def test_the_name_server_is_named_by_its_service() -> None:
    zone = zone_of(service("kube-dns", "kube-system", clusterIPs=["10.96.0.10", "fd00:96::a"]))
    assert zone.lookup("ns.dns.cluster.local").records == {
        Type.A: ("10.96.0.10",),
        Type.AAAA: ("fd00:96::a",),
    }


NAMES = st.sampled_from(["a.b.c", "x.b.c", "b.c", "c", "q.x.b.c"])
RECORDS = st.builds(Record, NAMES, st.just(Type.A), st.sampled_from(["10.0.0.1", "10.0.0.2"]))
CHANGES = st.lists(st.tuples(st.integers(0, 3), st.sets(RECORDS, max_size=4)), max_size=12)


@given(CHANGES)
def test_a_zone_is_what_its_owners_say_last(changes: list[tuple[int, set[Record]]]) -> None:
    zone, last = Zone(), {}
    for owner, found in changes:
        zone.replace(owner, found)
        last[owner] = found
    everything = {record for found in last.values() for record in found}
    for name in ("a.b.c", "x.b.c", "b.c", "c", "q.x.b.c", "none"):
        data = tuple(sorted(one.data for one in everything if one.name == name))
        found = zone.lookup(name)
        assert found.records.get(Type.A, ()) == data
        assert found.exists == any(
            one.name == name or one.name.endswith(f".{name}") for one in everything
        )
    for owner in last:
        zone.replace(owner, [])
    assert not zone._at
    assert not zone._below
    assert not zone._found
