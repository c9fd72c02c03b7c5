"""A whole cluster: two control-plane hosts over one file, TLS, a shop; parts die and come back."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from kproxy.api import catalog, kinds, manifests
from kproxy.lab import clusterfile
from kproxy.lab.podviews import is_ready
from kproxy.lab.site import Site
from kproxy.lab.whole import picture
from kproxy.lab.whole.cluster import WholeCluster
from kproxy.lab.whole.roles import Role, Running
from netns.lab import Lab

pytestmark = [pytest.mark.lab, pytest.mark.needs_module("ip_vs")]
EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
PATIENCE = 120.0
IN_CLUSTER = """
from pathlib import Path
from kubernetes import client, config
config.load_incluster_config()
who = client.AuthenticationV1Api().create_self_subject_review({}).status.user_info.username
print(who, Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace").read_text())
"""
CURL = ("curl", "--silent", "--show-error", "--fail", "--max-time", "5")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WholeCluster]:
    site = Site(clusterfile.load(EXAMPLES / "lab.yaml"))
    state = tmp_path_factory.mktemp("whole")
    good, problems = manifests.read_manifests(EXAMPLES / "shop.yaml")
    assert problems == []
    with (
        Lab(site.topology(), name="whole", state_dir=state) as lab,
        WholeCluster(lab, site) as made,
    ):
        assert [one.error for one in made.api.apply_all(good) if one.error] == []
        made.wait_ready(PATIENCE)
        yield made


def cluster_ip(cluster: WholeCluster, name: str) -> str:
    service = cluster.api.get(kinds.SERVICE, "shop", name)
    assert service is not None
    return str(service["spec"]["clusterIP"])


def get(cluster: WholeCluster, host: str, url: str) -> str:
    return cluster.lab.host(host).run([*CURL, url]).stdout


def test_every_part_runs_where_it_belongs_and_one_of_each_leads(cluster: WholeCluster) -> None:
    running = [(one.host, one.role) for one in cluster.processes.all()]
    assert {*cluster.wanted()} <= {*running}
    assert len(running) == len({*running}) + (running.count(("node1", Role.DNS)) == 2)
    for role in (Role.MANAGER, Role.SCHEDULER):
        assert cluster.leader(role) in cluster.site.control


def test_the_shop_is_reached_through_service_addresses_and_node_ports(
    cluster: WholeCluster,
) -> None:
    address = cluster_ip(cluster, "front")
    for host in ("client-node1", "client-node2"):
        assert get(cluster, host, f"http://{address}/x").startswith("front-")
    for node in cluster.site.nodes:
        answer = get(cluster, "outside1", f"http://{node.address}:30080/y")
        assert answer.startswith("front-")
        assert answer.endswith(" /y\n")


def test_kubernetes_own_client_works_in_a_pod_as_in_any_cluster(cluster: WholeCluster) -> None:
    pytest.importorskip("kubernetes")
    container = {"name": "asks", "command": [sys.executable, "-c", IN_CLUSTER]}
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "asks", "namespace": "default"},
        "spec": {"containers": [container], "restartPolicy": "Never"},
    }
    cluster.must_apply([pod])

    def phase() -> str:
        found = cluster.api.get(catalog.POD, "default", "asks")
        return str(((found or {}).get("status") or {}).get("phase"))

    cluster.wait_for(lambda: phase() in ("Succeeded", "Failed"), PATIENCE, "the pod to end")
    path = f"{catalog.POD.path('default', 'asks')}/log"
    told = cluster.api.request("GET", path).decode()
    assert (phase(), told) == ("Succeeded", "system:serviceaccount:default:default default\n")


def test_applying_the_same_again_changes_nothing(cluster: WholeCluster) -> None:
    good, _ = manifests.read_manifests(EXAMPLES / "shop.yaml")
    cluster.api.apply_all(good)
    assert [one.label for one in cluster.api.apply_all(good) if one.changed] == []


def test_what_the_server_refuses_is_told_and_stops_no_other(cluster: WholeCluster) -> None:
    wrong = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "wrong", "namespace": "shop"},
        "spec": {"clusterIP": "192.0.2.1", "ports": [{"port": 80}]},
    }
    right = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "after"}}
    nowhere = {**wrong, "metadata": {"name": "x", "namespace": "nowhere"}}
    done = cluster.api.apply_all([wrong, nowhere, right])
    errors = {one.label: one.error for one in done}
    assert "spec.clusterIP" in errors["Service shop/wrong"]
    assert 'namespaces "nowhere" not found' in errors["Service nowhere/x"]
    assert errors["Namespace after"] == ""


def test_the_picture_shows_leaders_pods_and_endpoints(cluster: WholeCluster) -> None:
    found = picture.take(cluster)
    assert found.api == ""
    leaders = [one for one in found.control_plane if one.leads]
    assert sorted(one.role for one in leaders) == ["manager", "scheduler"]
    assert all(one.pid for one in found.control_plane)
    assert {node.name: node.ready for node in found.nodes} == {"node1": True, "node2": True}
    services = {f"{one.namespace}/{one.name}": one for one in found.services}
    assert services["shop/front"].ports == ["80:30080/TCP"]
    assert services["shop/catalogue"].endpoints == 3
    assert {pod.phase for pod in found.pods if pod.namespace == "shop"} == {"Running"}
    assert {host.name for host in found.hosts} >= {"edge", "control2", "outside1"}


def test_the_virtual_address_goes_on_without_one_of_its_servers(cluster: WholeCluster) -> None:
    before = cluster.processes.get("control1", Role.API_SERVER)
    cluster.processes.bring_down("control1", Role.API_SERVER)

    def server() -> Running | None:
        return cluster.processes.find("control1", Role.API_SERVER)

    cluster.wait_for(lambda: server() is None, PATIENCE, "the server to be gone")
    cluster.wait_for(cluster.api.ready, PATIENCE, "the other server to be asked")
    for _ in range(20):
        assert len(cluster.api.objects(kinds.NODE)) == 2
    assert server() is None
    cluster.processes.bring_up("control1", Role.API_SERVER)
    cluster.wait_for(lambda: server() is not None, PATIENCE, "the server to be started")
    assert cluster.processes.get("control1", Role.API_SERVER).starts == before.starts + 1


def test_who_is_killed_comes_back_and_another_leads_meanwhile(cluster: WholeCluster) -> None:
    leader = cluster.leader(Role.MANAGER)
    lease = cluster.api.get(catalog.LEASE, "kube-system", "kube-controller-manager")
    assert lease is not None
    killed, when = cluster.processes.kill(leader, Role.MANAGER)

    def new_leader() -> bool:
        now = cluster.api.get(catalog.LEASE, "kube-system", "kube-controller-manager")
        assert now is not None
        return bool(now["spec"]["holderIdentity"] != lease["spec"]["holderIdentity"])

    cluster.wait_for(new_leader, PATIENCE, "a new leader")
    again = cluster.processes.get(leader, Role.MANAGER)
    assert (again.pid, again.starts) == (again.pid, killed.starts + 1)
    assert again.pid != killed.pid
    cluster.events.refresh()
    source = f"{leader}-{Role.INIT}"
    ended = cluster.events.find(
        lambda event: event.source == source and event.msg == "unit ended", since_ns=when
    )
    assert ended is not None
    assert ended.fields["pid"] == killed.pid


def test_a_node_that_dies_is_noticed_and_welcome_again(cluster: WholeCluster) -> None:
    def ready() -> bool:
        node = cluster.api.get(kinds.NODE, "", "node2")
        return node is not None and is_ready(node)

    cluster.power_off("node2")
    left = {(one.host, one.role) for one in cluster.processes.all() if one.host == "node2"}
    assert left == set()
    cluster.wait_for(lambda: not ready(), PATIENCE, "the node to be missed")
    cluster.power_on("node2")
    cluster.wait_for(ready, PATIENCE, "the node to be ready again")
    cluster.wait_ready(PATIENCE)
    address = cluster_ip(cluster, "catalogue")
    assert get(cluster, "client-node2", f"http://{address}/").startswith("catalogue-")


def test_a_host_whose_cable_is_out_is_shown_so(cluster: WholeCluster) -> None:
    cluster.unplug("node1")
    try:
        found = {host.name: host.plugged for host in picture.take(cluster).hosts}
    finally:
        cluster.plug("node1")
    assert found["node1"] is False
    assert found["node2"] is True
