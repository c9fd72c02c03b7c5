"""Services from outside and by name, in a whole cluster: addresses, health, names, deaths.

In virtual time only: there seconds of waiting pass at once.
"""

import socket
from collections.abc import Iterator

import pytest
from town import OUTSIDE, OUTSIDE6, PATIENCE_S, PORT, Town, running

from kproxy.api import catalog, kinds
from kproxy.lab.site import API_ADDRESS, API_PORT, DNS_ADDRESS, DNS_ADDRESS6, EDGE
from kproxy.lab.whole.roles import Role
from netns import wait
from netns.kernels import base

pytestmark = [
    pytest.mark.lab,
    pytest.mark.skipif(base.clock() is not base.Clock.VIRTUAL, reason="needs the virtual clock"),
]

LAB = """
name: services
mode: ipvs
families: [IPv4, IPv6]
nodes: 2
controlPlane: {replicas: 2}
profile: lab
"""
MANIFESTS = """
apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db, namespace: shop}
spec: {serviceName: db, replicas: 2, selector: {matchLabels: {app: db}}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: solo, namespace: shop}
spec: {replicas: 1, selector: {matchLabels: {app: solo}}}
---
apiVersion: v1
kind: Service
metadata: {name: db, namespace: shop}
spec:
  clusterIP: None
  ipFamilyPolicy: PreferDualStack
  selector: {app: db}
  ports: [{name: http, port: 8080}]
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec:
  type: LoadBalancer
  ipFamilyPolicy: PreferDualStack
  selector: {app: db}
  ports: [{name: http, port: 80, targetPort: 8080}]
---
apiVersion: v1
kind: Service
metadata: {name: local, namespace: shop}
spec:
  type: LoadBalancer
  externalTrafficPolicy: Local
  ipFamilyPolicy: PreferDualStack
  loadBalancerIP: 203.0.113.77
  selector: {app: solo}
  ports: [{name: http, port: 80, targetPort: 8080}]
---
apiVersion: v1
kind: Service
metadata: {name: ranged, namespace: shop}
spec:
  type: LoadBalancer
  selector: {app: solo}
  loadBalancerSourceRanges: [198.51.100.11/32]
  ports: [{name: http, port: 80, targetPort: 8080}]
---
apiVersion: v1
kind: Service
metadata: {name: alias, namespace: shop}
spec: {type: ExternalName, externalName: web.shop.svc.cluster.local}
"""


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    with running(LAB, MANIFESTS, tmp_path_factory.mktemp("lab") / "state") as town:
        yield town


def test_pods_find_services_by_name(town: Town) -> None:
    web = sorted(town.service("web")["spec"]["clusterIPs"])
    for name in ("web", "web.shop", "web.shop.svc.cluster.local", "WEB.shop.svc", "alias"):
        assert town.names(name) == web
    assert town.names("nobody")[0] == "error"


def test_pods_of_a_stateful_set_have_names_of_their_own(town: Town) -> None:
    for pod in ("db-0", "db-1"):
        assert town.pod_address(pod) in town.names(f"{pod}.db")
    both = {town.pod_address("db-0"), town.pod_address("db-1")}
    town.until(lambda: len(town.names("db")) == 4, "both to be named in both families")
    assert both < set(town.names("db"))


def test_the_name_servers_answer_in_both_families(town: Town) -> None:
    for server in map(str, (DNS_ADDRESS, DNS_ADDRESS6)):
        assert town.query("_http._tcp.db.shop.svc.cluster.local", "SRV", server) == [
            "0 50 8080 db-0.db.shop.svc.cluster.local.",
            "0 50 8080 db-1.db.shop.svc.cluster.local.",
        ]
    reverse = ".".join(reversed(town.pod_address("db-0").split("."))) + ".in-addr.arpa"
    assert town.query(reverse, "PTR") == ["db-0.db.shop.svc.cluster.local."]


def test_a_node_port_is_reached_from_outside_on_every_node(town: Town) -> None:
    (port,) = town.service("web")["spec"]["ports"]
    for node in town.cluster.site.nodes:
        for address in node.addresses:
            assert town.ask("outside1", str(address), port["nodePort"])[0].startswith("db-")


@pytest.mark.parametrize("host", ["outside1", "admin", "client-node1"])
def test_a_load_balancers_address_is_reached_from_everywhere(town: Town, host: str) -> None:
    addresses = town.ingress("web")
    assert len(addresses) == 2
    for address in addresses:
        # Proxies hear of the second pod a moment after it is ready.
        town.until(
            lambda address=address: town.answering(host, address, 12) == {"db-0", "db-1"},
            "both pods to answer",
        )


def test_with_policy_local_the_client_is_seen_and_only_nodes_with_pods_are_used(
    town: Town,
) -> None:
    addresses = town.ingress("local")
    assert addresses[0] == "203.0.113.77"
    for address, client in zip(addresses, (OUTSIDE, OUTSIDE6), strict=True):
        town.await_reached("outside1", address)
        for _ in range(8):
            _, node, seen = town.ask("outside1", address, 80)
            assert (node, seen) == (town.node_of("solo"), client)


def test_an_address_follows_the_pod_to_another_node(town: Town) -> None:
    before = town.node_of("solo")
    (after,) = [node.name for node in town.cluster.site.nodes if node.name != before]
    api = town.cluster.api
    api.patch(kinds.NODE, "", before, {"spec": {"unschedulable": True}})
    (pod,) = api.objects(catalog.POD, "shop", {"app": "solo"})
    api.delete(catalog.POD, "shop", pod["metadata"]["name"])
    town.until(
        lambda: town.answer("outside1", "203.0.113.77")[1:] == [after, OUTSIDE],
        "the address to lead to another node",
    )
    api.patch(kinds.NODE, "", before, {"spec": {"unschedulable": None}})


def test_a_node_that_is_cut_off_is_left_and_taken_again(town: Town) -> None:
    address = town.ingress("web")[0]
    (other,) = [node.name for node in town.cluster.site.nodes if node.name != town.node_of("solo")]

    town.cluster.unplug(other)
    town.until(
        lambda: len(town.answering("outside1", address)) == 1, "one node to do all the work"
    )
    town.cluster.plug(other)
    town.until(lambda: len(town.answering("outside1", address)) == 2, "both nodes to take part")
    town.cluster.wait_ready(PATIENCE_S)


def test_source_ranges_are_kept(town: Town) -> None:
    (address,) = town.ingress("ranged")
    town.await_reached("outside1", address)
    ranges = {"spec": {"loadBalancerSourceRanges": ["198.51.100.99/32"]}}
    town.cluster.api.patch(kinds.SERVICE, "shop", "ranged", ranges)
    town.until(lambda: not town.reaches("outside1", address, 80), "the door to be shut")


def test_a_name_server_that_dies_is_stood_in_for(town: Town) -> None:
    for node in town.cluster.site.nodes:
        if town.cluster.processes.find(node.name, Role.DNS) is not None:
            town.cluster.processes.kill(node.name, Role.DNS)
            for _ in range(6):
                assert town.names("web.shop.svc.cluster.local")
            town.cluster.wait_ready(PATIENCE_S)


def successor(town: Town, when: int) -> list[str]:
    """Wait for the balancer that was started after a moment; return what it has said so far."""
    events = town.cluster.events

    def said() -> list[str]:
        events.refresh()
        source = f"{EDGE}-{Role.BALANCER}"
        return [one.msg for one in events.events if one.source == source and one.mono_ns > when]

    town.until(lambda: "started" in said(), "a new balancer")
    return said()


def test_a_dead_balancer_forwards_and_its_successor_changes_nothing(town: Town) -> None:
    (address, _) = town.ingress("web")
    _, when = town.cluster.processes.kill(EDGE, Role.BALANCER)
    assert town.reaches("outside1", address, 80)
    successor(town, when)
    for _ in range(4):
        assert town.reaches("outside1", address, 80)
    town.cluster.api.patch(kinds.SERVICE, "shop", "web", {"metadata": {"labels": {"a": "b"}}})
    assert town.ingress("web")[0] == address
    assert "synced" not in successor(town, when)


def test_connections_to_an_api_server_that_hangs_are_ended(town: Town) -> None:
    """Half of the connections are to each server; who hangs is left by those who speak to him."""
    host = town.lab.host("admin")
    place = (str(API_ADDRESS), API_PORT)
    open_ones = [host.call(socket.create_connection, place, PATIENCE_S) for _ in range(4)]
    town.cluster.processes.pause("control1", Role.API_SERVER)

    def gone() -> int:
        """Say something on each that is left; count those that are reset."""
        count = 0
        for sock in open_ones:
            try:
                sock.sendall(b"\x16")
                sock.settimeout(0.2)
                sock.recv(1)
            except TimeoutError:
                continue
            except ConnectionError:
                count += 1
        return count

    town.until(lambda: gone() >= 2, "resets")
    # New ones all find the other server.
    for _ in range(6):
        assert town.cluster.api.ready()
    town.cluster.processes.resume("control1", Role.API_SERVER)
    for sock in open_ones:
        sock.close()


def test_addresses_lead_on_while_the_api_is_away(town: Town) -> None:
    (address, _) = town.ingress("web")
    pod, web = town.pod_address("db-0"), sorted(town.service("web")["spec"]["clusterIPs"])
    for control in town.cluster.site.control:
        town.cluster.processes.bring_down(control, Role.API_SERVER)
    wait.wait_until(lambda: not town.cluster.api.ready(), PATIENCE_S, "the API to be away")
    _, when = town.cluster.processes.kill(EDGE, Role.BALANCER)
    successor(town, when)
    for _ in range(4):
        assert town.reaches("outside1", address, 80)
    assert town.ask("client-node1", pod, PORT, "web") == web
    for control in town.cluster.site.control:
        town.cluster.processes.bring_up(control, Role.API_SERVER)
    town.until(town.cluster.api.ready, "the API to be back")
    assert town.ingress("web")[0] == address


def test_a_service_that_is_deleted_gives_its_address_back(town: Town) -> None:
    (address, _) = town.ingress("web")
    town.cluster.api.delete(kinds.SERVICE, "shop", "web")
    town.until(lambda: not town.reaches("outside1", address, 80), "the address to be free")
