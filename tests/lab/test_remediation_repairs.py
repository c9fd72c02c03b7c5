"""Prepared actions on a whole cluster: by its real API, its kubelets, its kernel.

The receiver of alerts has tests of its own; here an action is called as it calls them, in the
network of an administrator, with the rights of remediation.
"""

import shlex
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from kproxy.api import catalog, kinds
from kproxy.client.kubeconfig import load_kubeconfig
from kproxy.client.rest import Rest
from kproxy.controlplane.access import kubeconfigs
from kproxy.errors import ApiError, KproxyError
from kproxy.lab import clusterfile
from kproxy.lab.site import ADMIN, Site
from kproxy.lab.whole import component, reach
from kproxy.lab.whole.cluster import WholeCluster
from kproxy.lab.whole.roles import Role
from kproxy.logs import Log
from kproxy.monitoring.remediation.actions import catalog as prepared
from kproxy.monitoring.remediation.seams import (
    Action,
    NodeAccess,
    NodeUnreachable,
    Outcome,
    Target,
    Tools,
    target_of,
)
from netns.lab import Lab

pytestmark = [pytest.mark.lab, pytest.mark.needs_module("ip_vs")]

FILE = """
mode: ipvs
nodes: 2
dns: false
profile: lab
images: {web: {image: web}}
"""
PATIENCE = 120.0
LABELS = {"app": "web"}
CONTAINER = {"name": "c", "image": "web", "ports": [{"containerPort": 8080}]}
SHOP: list[dict[str, Any]] = [
    {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {
            "replicas": 2,
            "selector": {"matchLabels": LABELS},
            "template": {"metadata": {"labels": LABELS}, "spec": {"containers": [CONTAINER]}},
        },
    },
    {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {"selector": LABELS, "ports": [{"port": 80, "targetPort": 8080}]},
    },
]


class Repairs:
    """Calls actions on a cluster as the receiver of alerts does."""

    def __init__(self, cluster: WholeCluster) -> None:
        self.cluster = cluster
        self.rest = Rest(load_kubeconfig(cluster.places.credentials.kubeconfig("remediation")))
        self.options = {
            "kproxy": f"{shlex.quote(sys.executable)} -m kproxy",
            "componentCommand": shlex.join(component.command(cluster.lab.state_dir)),
            "componentLook": shlex.join([*component.command(cluster.lab.state_dir), "--dry-run"]),
            "controlHosts": ",".join(cluster.site.control),
        }
        way = shlex.join(reach.command(cluster.lab.state_dir))
        log = Log("remediation")
        self.access: dict[str, NodeAccess] = {
            "exec": prepared.NODE_ACCESS["exec"](self.rest, log, {}),
            "command": prepared.NODE_ACCESS["command"](self.rest, log, {"command": way}),
            "either": prepared.NODE_ACCESS["exec"](self.rest, log, {"command": way}),
        }

    def action(self, name: str, way: str = "exec") -> Action:
        tools = Tools(
            nodes=self.access[way], rest=self.rest, log=Log("test"), options=self.options
        )
        return prepared.ACTIONS[name](tools)

    def run(self, node: str, *command: str, way: str = "exec", timeout: float = 30.0) -> str:
        with self.inside():
            ended = self.access[way].run(node, command, timeout)
        assert ended.code == 0, ended
        return ended.stdout

    def inside(self) -> Any:
        return self.cluster.lab.host(ADMIN).entered()

    def repair(self, action: Action, **labels: str) -> Outcome:
        """Check, run and verify an action; return its outcome."""
        with self.inside():
            verdict = action.check(target_of(labels))
            assert verdict.good, verdict
            begun = target_of(labels, time.time())
            outcome = action.run(begun)
            assert outcome.done, outcome
        self.await_verified(action, begun)
        return outcome

    def await_verified(self, action: Action, target: Target) -> None:
        def verified() -> bool:
            with self.inside():
                return action.verify(target).good

        self.cluster.wait_for(verified, PATIENCE, f"{action.name} to be verified")

    def refused(self, action: Action, **labels: str) -> str:
        """Return why an action would not help."""
        with self.inside():
            verdict = action.check(target_of(labels))
        assert not verdict.good, verdict
        return verdict.reason


@pytest.fixture(scope="module")
def repairs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Repairs]:
    site = Site(clusterfile.parse(FILE, "lab.yaml"))
    state = tmp_path_factory.mktemp("repairs")
    with (
        Lab(site.topology(), name="repairs", state_dir=state) as lab,
        WholeCluster(lab, site) as cluster,
    ):
        cluster.must_apply(SHOP)
        cluster.wait_ready(PATIENCE)
        made = Repairs(cluster)
        with made.rest:
            yield made


class Visitor(threading.Thread):
    """Asks a Service again and again; notes when it was not answered."""

    def __init__(self, cluster: WholeCluster, url: str) -> None:
        super().__init__()
        self._host = cluster.lab.host("client-node1")
        self._url = url
        self._ended = threading.Event()
        self.asked: list[tuple[float, bool]] = []
        """When, by the monotonic clock, and whether it was answered."""

    def run(self) -> None:
        words = ["curl", "--silent", "--fail", "--max-time", "0.3", "--output", "/dev/null"]
        while not self._ended.wait(0.02):
            began = time.monotonic()
            done = self._host.run([*words, self._url], check=False)
            self.asked.append((began, done.returncode == 0))

    def lost(self, since: float, until: float = float("inf")) -> int:
        return sum(not good for at, good in self.asked if since <= at < until)

    def end(self) -> None:
        self._ended.set()
        self.join()


def service(repairs: Repairs) -> str:
    found = repairs.cluster.api.get(kinds.SERVICE, "default", "web")
    assert found is not None
    return str(found["spec"]["clusterIP"])


def web_pods(repairs: Repairs) -> dict[str, str]:
    """Return the names and addresses of the pods that are ready."""
    return {
        pod["metadata"]["name"]: pod["status"]["podIP"]
        for pod in repairs.cluster.api.objects(catalog.POD, "default", LABELS)
        if any(
            one["type"] == "Ready" and one["status"] == "True"
            for one in pod["status"].get("conditions") or ()
        )
    }


def test_a_proxy_that_hangs_under_traffic_is_replaced(repairs: Repairs) -> None:
    cluster = repairs.cluster
    hung = cluster.processes.pause("node1", Role.PROXY)
    visitor = Visitor(cluster, f"http://{service(repairs)}/")
    visitor.start()
    try:
        before = web_pods(repairs)
        victim = sorted(before)[0]
        cluster.api.delete(catalog.POD, "default", victim, grace=0)

        def replaced() -> bool:
            now = web_pods(repairs)
            return len(now) == 2 and now.keys() != before.keys()

        cluster.wait_for(replaced, PATIENCE, "another pod")
        gone = time.monotonic()
        cluster.wait_for(lambda: visitor.lost(gone) > 0, PATIENCE, "somebody to miss the pod")
        outcome = repairs.repair(repairs.action("restart-proxy"), node="node1", alertname="A")
        assert "deleted" in outcome.detail
        good = time.monotonic()
        cluster.wait_for(
            lambda: sum(at >= good for at, _ in visitor.asked) >= 40, PATIENCE, "40 requests"
        )
        assert visitor.lost(good) == 0
    finally:
        visitor.end()
    now = cluster.processes.get("node1", Role.PROXY)
    assert (now.pid, now.pod) != (hung.pid, hung.pod)


def test_a_new_proxy_costs_no_request_by_itself(repairs: Repairs) -> None:
    cluster = repairs.cluster
    hung = cluster.processes.pause("node1", Role.PROXY)
    visitor = Visitor(cluster, f"http://{service(repairs)}/")
    visitor.start()
    try:
        repairs.repair(repairs.action("restart-proxy"), node="node1")
        good = time.monotonic()
        cluster.wait_for(
            lambda: sum(at >= good for at, _ in visitor.asked) >= 40, PATIENCE, "40 requests"
        )
    finally:
        visitor.end()
    assert visitor.lost(0.0) == 0
    assert cluster.processes.get("node1", Role.PROXY).pid != hung.pid


def test_a_healthy_proxy_is_left_alone(repairs: Repairs) -> None:
    reason = repairs.refused(repairs.action("restart-proxy"), node="node2")
    assert "is healthy" in reason
    assert "no node node9" in repairs.refused(repairs.action("restart-proxy"), node="node9")


def test_where_no_controller_could_replace_it_it_is_killed_in_place(repairs: Repairs) -> None:
    cluster = repairs.cluster
    cluster.processes.bring_down("control1", Role.MANAGER)
    hung = cluster.processes.pause("node1", Role.PROXY)
    action = repairs.action("restart-proxy")

    def would_help() -> bool:
        with repairs.inside():
            planned: Any = action
            _, pod = planned._way("node1")
            return pod is None and action.check(target_of({"node": "node1"})).good

    cluster.wait_for(would_help, PATIENCE, "the Lease of the controller manager to lapse")
    outcome = repairs.repair(action, node="node1")
    assert outcome.detail == f"SIGKILL to process {hung.pid}"
    now = cluster.processes.get("node1", Role.PROXY)
    assert (now.pod, now.starts) == (hung.pod, hung.starts + 1)
    cluster.processes.bring_up("control1", Role.MANAGER)
    cluster.wait_for(lambda: cluster.leader(Role.MANAGER) != "", PATIENCE, "a leader")


def test_a_controller_manager_that_hangs_is_started_anew(repairs: Repairs) -> None:
    cluster = repairs.cluster
    action = repairs.action("recreate-controller", way="either")
    labels = {"name": "kube-controller-manager"}
    cluster.wait_for(lambda: "is led by" in refusal(repairs, action), PATIENCE, "a leader")
    hung = cluster.processes.pause("control1", Role.MANAGER)
    cluster.wait_for(lambda: not refusal(repairs, action), PATIENCE, "the Lease to lapse")
    # By the API alone nobody gets to a host without a proxy.
    by_api = repairs.action("recreate-controller", way="exec")
    assert "no container of a proxy runs there" in repairs.refused(by_api, **labels)
    outcome = repairs.repair(action, **labels)
    assert outcome.detail == f"SIGKILL to process {hung.pid}"
    assert cluster.processes.get("control1", Role.MANAGER).pid != hung.pid


def test_one_that_an_alert_calls_stuck_is_replaced_though_it_renews_its_lease(
    repairs: Repairs,
) -> None:
    cluster = repairs.cluster
    action = repairs.action("recreate-controller", way="either")
    cluster.wait_for(lambda: "is led by" in refusal(repairs, action), PATIENCE, "a leader")
    stuck = cluster.processes.get("control1", Role.MANAGER)
    assert "is led by" in repairs.refused(action, node="control9", name="daemonset")
    repairs.repair(action, node="control1", name="daemonset")
    assert cluster.processes.get("control1", Role.MANAGER).pid != stuck.pid


def refusal(repairs: Repairs, action: Action) -> str:
    with repairs.inside():
        verdict = action.check(target_of({"name": "kube-controller-manager"}))
    return "" if verdict.good else verdict.reason


@pytest.mark.parametrize("way", ["exec", "command"])
def test_virtual_servers_that_a_stranger_deleted_are_back(repairs: Repairs, way: str) -> None:
    address = service(repairs)
    action = repairs.action("resync-proxy", way)
    assert "nothing of this to repair" in repairs.refused(action, node="node1")
    repairs.run("node1", "ipvsadm", "-D", "-t", f"{address}:80", way=way)
    repairs.repair(action, node="node1")
    table = repairs.run("node1", "ipvsadm", "-Sn")
    assert all(f"-t {address}:80 -r {ip}:8080" in table for ip in web_pods(repairs).values())


def test_weights_are_healed_and_the_proxy_is_not_touched(repairs: Repairs) -> None:
    before = repairs.cluster.processes.get("node1", Role.PROXY)
    address, server = f"{service(repairs)}:80", f"{min(web_pods(repairs).values())}:8080"
    repairs.run("node1", "ipvsadm", "-e", "-t", address, "-r", server, "-m", "-w", "0")
    repairs.repair(repairs.action("heal-weights"), node="node1")
    assert f"-t {address} -r {server} -m -w 1" in repairs.run("node1", "ipvsadm", "-Sn")
    assert repairs.cluster.processes.get("node1", Role.PROXY) == before


@pytest.mark.needs_tool("conntrack")
def test_a_black_hole_for_udp_is_filled(repairs: Repairs) -> None:
    manifest = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "udp", "namespace": "default"},
        "spec": {
            "selector": LABELS,
            "ports": [{"port": 53, "targetPort": 8080, "protocol": "UDP"}],
        },
    }
    repairs.cluster.must_apply([manifest])
    found = repairs.cluster.api.get(kinds.SERVICE, "default", "udp")
    assert found is not None
    address = str(found["spec"]["clusterIP"])
    healthy = min(web_pods(repairs).values())
    repairs.cluster.wait_for(
        lambda: f"-u {address}:53" in repairs.run("node1", "ipvsadm", "-Sn"),
        PATIENCE,
        "the proxy to serve it",
    )
    processes = repairs.cluster.processes
    processes.pause("node1", Role.PROXY)  # or its next sync would fill the hole itself
    try:
        for port, endpoint in (("4000", healthy), ("4001", "10.128.99.99")):
            repairs.run(
                *("node1", "conntrack", "-I", "-p", "udp", "-t", "600", "-s", "10.128.0.99"),
                *("-d", address, "--sport", port, "--dport", "53", "-r", endpoint),
                *("-q", "10.128.0.99", "--reply-port-src", "8080", "--reply-port-dst", port),
            )
        repairs.repair(repairs.action("clean-conntrack"), node="node1")
    finally:
        processes.resume("node1", Role.PROXY)
    left = repairs.run("node1", "conntrack", "-L", "-p", "udp", "-d", address)
    assert f"src={healthy} " in left
    assert "10.128.99.99" not in left


def test_the_last_node_that_takes_pods_is_never_cordoned(repairs: Repairs) -> None:
    api = repairs.cluster.api
    action = repairs.action("cordon-node")
    repairs.repair(action, node="node2", alertname="KproxyNodeOutOfDate")
    try:
        node = api.get(kinds.NODE, "", "node2")
        assert node is not None
        assert node["spec"]["unschedulable"] is True
        assert "the last one" in repairs.refused(action, node="node1")
    finally:
        api.patch(kinds.NODE, "", "node2", {"spec": {"unschedulable": None}})


def test_remediation_has_the_rights_that_it_needs_and_no_more(repairs: Repairs) -> None:
    with repairs.inside():
        for path in ("namespaces/default/pods/x", "namespaces/kube-system/secrets/x"):
            with pytest.raises(ApiError) as refused:
                repairs.rest.request("DELETE", f"/api/v1/{path}")
            assert refused.value.code == 403
    assert kubeconfigs.REMEDIATION == "remediation"


def test_a_node_that_cannot_be_reached_is_told_and_one_that_takes_too_long(
    repairs: Repairs,
) -> None:
    with repairs.inside():
        for way, access in repairs.access.items():
            with pytest.raises(NodeUnreachable, match="node9"):
                access.run("node9", ["true"], 10.0)
            ended = access.run("node1", ["sleep", "1000"], 1.0)
            assert (ended.code, ended.timed_out) == (-1, True), way
    for way in repairs.access:
        with pytest.raises(KproxyError):
            repairs.action("resync-proxy", way).check(target_of({"node": "node9"}))
    left = repairs.run("node1", "sh", "-c", "pgrep -fx 'sleep 1000' || true")
    assert left == ""
