"""Which endpoints a Service gets of its pods, and what is said of each; mirrored Endpoints."""

import pytest
from clusterwide_world import ClusterwideWorld

from kproxy.api import catalog, codec, core, kinds
from kproxy.api.pods import Pod
from kproxy.controlplane.controllers import slices

ZONES = {"n1": "a", "n2": ""}


def service(**spec):
    ports = [{"port": 80, "targetPort": 8080}]
    body = {"metadata": {"name": "web"}, "spec": {"selector": {"app": "web"}, "ports": ports}}
    return codec.from_dict({**body, "spec": {**body["spec"], **spec}}, core.Service)


def pod(ready=True, terminating=False, status=None, **spec):
    meta = {"name": "p", "uid": "u", "labels": {"app": "web"}}
    if terminating:
        meta["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    conditions = [{"type": "Ready", "status": "True" if ready else "False"}]
    state = {"podIP": "10.244.1.2", "conditions": conditions, **(status or {})}
    body = {"metadata": meta, "spec": {"nodeName": "n1", **spec}, "status": state}
    return codec.from_dict(body, Pod)


def only(found):
    ((endpoint,),) = found.values()
    return endpoint


@pytest.mark.parametrize(
    ("ready", "terminating", "published", "expected"),
    [
        (True, False, False, (True, True, False)),
        (False, False, False, (False, False, False)),
        (True, True, False, (False, True, True)),
        (False, True, False, (False, False, True)),
        (False, False, True, (True, False, False)),
        (False, True, True, (True, False, True)),
        (True, True, True, (True, True, True)),
    ],
)
def test_conditions_are_those_of_kubernetes(ready, terminating, published, expected):
    found = only(
        slices.wanted(
            service(publishNotReadyAddresses=published), [pod(ready, terminating)], ZONES
        )
    )
    told = found.conditions
    assert (told.ready, told.serving, told.terminating) == expected


def test_pods_of_nodes_that_are_not_there_are_left_out_unless_published():
    lost = pod(nodeName="n9")
    assert slices.wanted(service(), [lost], ZONES) == {}
    found = only(slices.wanted(service(publishNotReadyAddresses=True), [lost], ZONES))
    assert (found.node_name, found.zone) == ("n9", None)


@pytest.mark.parametrize(
    ("name", "hostname", "subdomain", "expected"),
    [("web", "db-0", "web", "db-0"), ("web", "db-0", "other", None), ("web", "", "web", None)],
)
def test_a_pods_hostname_counts_below_its_subdomain(name, hostname, subdomain, expected):
    found = only(slices.wanted(service(), [pod(hostname=hostname, subdomain=subdomain)], ZONES))
    assert found.hostname == expected


@pytest.mark.parametrize(
    ("wish", "node", "zones", "nodes"),
    [
        (None, "n1", None, None),
        ("PreferClose", "n1", ["a"], None),
        ("PreferSameZone", "n1", ["a"], None),
        ("PreferSameZone", "n2", None, None),
        ("PreferSameNode", "n1", ["a"], ["n1"]),
        ("PreferSameNode", "n2", None, ["n2"]),
    ],
)
def test_hints_follow_the_traffic_distribution(wish, node, zones, nodes):
    found = only(slices.wanted(service(trafficDistribution=wish), [pod(nodeName=node)], ZONES))
    hints = found.hints
    assert found.zone == (ZONES[node] or None)
    assert ([one.name for one in hints.for_zones or ()] if hints else []) == (zones or [])
    assert ([one.name for one in hints.for_nodes or ()] if hints else []) == (nodes or [])


def test_who_is_not_ready_gets_no_hints():
    found = only(slices.wanted(service(trafficDistribution="PreferClose"), [pod(False)], ZONES))
    assert found.hints is None


def test_both_families_get_slices_of_their_own():
    ips = {"podIPs": [{"ip": "10.244.1.2"}, {"ip": "fd00::2"}]}
    found = slices.wanted(service(ipFamilies=["IPv6", "IPv4"]), [pod(status=ips)], ZONES)
    assert {group.family: one.addresses for group, (one,) in found.items()} == {
        "IPv6": ["fd00::2"],
        "IPv4": ["10.244.1.2"],
    }


def test_a_headless_service_without_ports_has_endpoints():
    found = slices.wanted(service(clusterIP="None", ports=[]), [pod()], ZONES)
    assert [group.ports for group in found] == [()]
    assert only(found).addresses == ["10.244.1.2"]


class TestMirroring:
    @pytest.fixture
    def world(self):
        return ClusterwideWorld("endpointslicemirroring")

    def service(self, world, **spec):
        body = {"metadata": self.meta(), "spec": {"ports": [{"port": 80}], **spec}}
        world.cluster.create(kinds.SERVICE, body)

    def meta(self, **more):
        return {"namespace": "default", "name": "web", **more}

    def endpoints(self, world, *addresses, others=(), **meta):
        subset = {
            "addresses": [{"ip": one} for one in addresses],
            "notReadyAddresses": [{"ip": one} for one in others],
            "ports": [{"name": "http", "port": 8080}],
        }
        body = {"metadata": self.meta(**meta), "subsets": [subset]}
        if world.cluster.get(catalog.ENDPOINTS, "default", "web"):
            world.cluster.update(catalog.ENDPOINTS, body)
        else:
            world.cluster.create(catalog.ENDPOINTS, body)
        world.run(1)

    def slices(self, world):
        return {
            one["addressType"]: {
                found["addresses"][0]: found["conditions"]["ready"] for found in one["endpoints"]
            }
            for one in world.cluster.list_objects(kinds.ENDPOINT_SLICE, "default")
        }

    def test_addresses_are_mirrored_by_family_with_their_readiness(self, world):
        self.service(world)
        self.endpoints(world, "192.0.2.1", "2001:db8::1", others=["192.0.2.2"])
        assert self.slices(world) == {
            "IPv4": {"192.0.2.1": True, "192.0.2.2": False},
            "IPv6": {"2001:db8::1": True},
        }
        (one, _) = world.cluster.list_objects(kinds.ENDPOINT_SLICE, "default")
        assert one["metadata"]["labels"] == {
            "kubernetes.io/service-name": "web",
            "endpointslice.kubernetes.io/managed-by": "endpointslicemirroring-controller.k8s.io",
        }
        assert [(port["name"], port["port"]) for port in one["ports"]] == [("http", 8080)]
        assert one["metadata"]["ownerReferences"][0]["kind"] == "Endpoints"

    def test_slices_follow_and_go(self, world):
        self.service(world)
        self.endpoints(world, "192.0.2.1")
        self.endpoints(world, "192.0.2.7")
        assert self.slices(world) == {"IPv4": {"192.0.2.7": True}}
        version = world.api.store.version
        world.run(10)
        assert world.api.store.version == version
        world.cluster.delete(catalog.ENDPOINTS, "default", "web")
        world.run(1)
        assert self.slices(world) == {}

    def test_they_wait_for_a_service(self, world):
        self.endpoints(world, "192.0.2.1")
        assert self.slices(world) == {}
        self.service(world)
        world.run(1)
        assert self.slices(world) == {"IPv4": {"192.0.2.1": True}}

    def test_those_of_a_service_with_selector_are_not_mirrored(self, world):
        self.service(world, selector={"app": "web"})
        self.endpoints(world, "192.0.2.1")
        assert self.slices(world) == {}

    def test_those_that_say_so_are_not_mirrored(self, world):
        self.service(world)
        labels = {"endpointslice.kubernetes.io/skip-mirror": "true"}
        self.endpoints(world, "192.0.2.1", labels=labels)
        assert self.slices(world) == {}


@pytest.mark.parametrize("status", [{"podIP": "nonsense"}, {"podIPs": [{"ip": "x"}]}])
def test_a_pod_with_an_unreadable_address_costs_the_others_nothing(status):
    assert slices.wanted(service(), [pod(status=status)], ZONES) == {}
    found = only(slices.wanted(service(), [pod(status=status), pod()], ZONES))
    assert found.addresses == ["10.244.1.2"]
