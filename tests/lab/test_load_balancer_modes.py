"""Services of type LoadBalancer where neither the nodes nor the load balancer have IPVS.

``test_services_from_outside.py`` does the same, and more, with IPVS on both.
"""

from collections.abc import Iterator

import pytest
from town import OUTSIDE, OUTSIDE6, PATIENCE_S, Town, running

from kproxy.api import catalog, kinds
from kproxy.lab.site import EDGE
from kproxy.lab.whole.roles import Role
from netns.kernels import base

pytestmark = [
    pytest.mark.lab,
    pytest.mark.skipif(base.clock() is not base.Clock.VIRTUAL, reason="needs the virtual clock"),
]
LAB = """
name: balanced
mode: {mode}
balancer: {{mode: {mode}}}
families: [IPv4, IPv6]
nodes: 2
profile: lab
"""
MANIFESTS = """
apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: all, namespace: shop}
spec: {selector: {matchLabels: {app: all}}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: solo, namespace: shop}
spec: {replicas: 1, selector: {matchLabels: {app: solo}}}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec:
  type: LoadBalancer
  ipFamilyPolicy: PreferDualStack
  selector: {app: all}
  ports: [{name: http, port: 80, targetPort: 8080}]
---
apiVersion: v1
kind: Service
metadata: {name: local, namespace: shop}
spec:
  type: LoadBalancer
  externalTrafficPolicy: Local
  ipFamilyPolicy: PreferDualStack
  selector: {app: solo}
  ports: [{name: http, port: 80, targetPort: 8080}]
"""


@pytest.fixture(scope="module", params=["nftables", "iptables"])
def town(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Town]:
    state = tmp_path_factory.mktemp("lab") / "state"
    with running(LAB.format(mode=request.param), MANIFESTS, state) as town:
        yield town


def health(town: Town, node: str) -> str:
    """Return the status of a node's answer at the healthCheckNodePort, asked from the edge."""
    place = town.cluster.site.node(node).address
    port = town.service("local")["spec"]["healthCheckNodePort"]
    command = ["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", f"http://{place}:{port}/"]
    return town.lab.host(EDGE).run(command, check=False).stdout


def others(town: Town, node: str) -> list[str]:
    return [one.name for one in town.cluster.site.nodes if one.name != node]


def test_nodes_and_balancer_do_without_ipvs(town: Town) -> None:
    mode = town.cluster.site.file.mode
    town.cluster.events.refresh()
    (told,) = [
        event.fields["mode"]
        for event in town.cluster.events.events
        if event.source == f"{EDGE}-{Role.BALANCER}" and event.msg == "started"
    ]
    assert told == mode
    table = ["nft", "list", "tables"] if mode == "nftables" else ["iptables-save", "-t", "nat"]
    for host in (EDGE, *(node.name for node in town.cluster.site.nodes)):
        assert "kube" in town.lab.host(host).run(table).stdout.lower()
        assert town.lab.host(host).run(["ipvsadm", "-Ln"]).stdout.count("\n") == 3


@pytest.mark.parametrize("host", ["outside1", "admin", "client-node1"])
def test_policy_cluster_uses_all_pods_from_everywhere(town: Town, host: str) -> None:
    addresses = town.ingress("web")
    assert len(addresses) == 2
    for address in addresses:
        town.until(
            lambda address=address: len(town.answering(host, address, 12)) == 2,
            "both pods to answer",
        )


def test_policy_local_shows_the_client_and_health_says_which_nodes_have_pods(town: Town) -> None:
    home = town.node_of("solo")
    for address, client in zip(town.ingress("local"), (OUTSIDE, OUTSIDE6), strict=True):
        town.await_reached("outside1", address)
        for _ in range(8):
            _, node, seen = town.ask("outside1", address, 80)
            assert (node, seen) == (home, client)
    assert health(town, home) == "200"
    assert [health(town, node) for node in others(town, home)] == ["503"]


def test_the_balancer_follows_health_to_another_node_and_to_none(town: Town) -> None:
    before = town.node_of("solo")
    (after,) = others(town, before)
    api = town.cluster.api
    api.patch(kinds.NODE, "", before, {"spec": {"unschedulable": True}})
    (pod,) = api.objects(catalog.POD, "shop", {"app": "solo"})
    api.delete(catalog.POD, "shop", pod["metadata"]["name"])
    for address, client in zip(town.ingress("local"), (OUTSIDE, OUTSIDE6), strict=True):
        wanted = [after, client]
        town.until(
            lambda address=address, wanted=wanted: town.answer("outside1", address)[1:] == wanted,
            "the address to lead to the other node",
        )
    api.patch(kinds.NODE, "", before, {"spec": {"unschedulable": None}})
    api.patch(catalog.DEPLOYMENT, "shop", "solo", {"spec": {"replicas": 0}})
    town.until(lambda: health(town, after) == "503", "the last node to say that it has no pod")
    for address in town.ingress("local"):
        town.until(
            lambda address=address: not town.reaches("outside1", address, 80), "nobody to answer"
        )


def test_a_node_that_is_cut_off_is_left_and_taken_again(town: Town) -> None:
    address = town.ingress("web")[0]
    town.cluster.unplug("node2")
    town.until(lambda: len(town.answering("outside1", address)) == 1, "one to do all the work")
    town.cluster.plug("node2")
    town.until(lambda: len(town.answering("outside1", address)) == 2, "both to take part")
    town.cluster.wait_ready(PATIENCE_S)
