"""A node falls silent: it is lost in time, its pods are replaced in time, and it comes back.

With the times of production Kubernetes, which nobody could wait for, so in virtual time only.
"""

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from kproxy.api import catalog, kinds
from kproxy.lab import plan, workload
from kproxy.lab.cluster import PROXY_NAMESPACE, Cluster
from kproxy.lab.eventlog import Event
from netns import wait
from netns.kernels import base
from netns.lab import Lab

pytestmark = [pytest.mark.lab, pytest.mark.needs_module("ip_vs")]

S = 10**9
RENEWAL, GRACE, LOOK, TOLERATION = 10 * 1.04 * S, 50 * S, 5 * S, 300 * S
SOON = S
"""What controllers do at once takes less than this."""
LABELS = {"app": "web"}
CONTAINER = {"name": "c", "image": "echo", "ports": [{"containerPort": 8080}]}
MANIFESTS = [
    {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {
            "replicas": 3,
            "selector": {"matchLabels": LABELS},
            "template": {"metadata": {"labels": LABELS}, "spec": {"containers": [CONTAINER]}},
        },
    },
    {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {
            "selector": LABELS,
            "ports": [{"name": "echo", "port": 80, "protocol": "UDP", "targetPort": 8080}],
        },
    },
]


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    if base.clock() is not base.Clock.VIRTUAL:
        pytest.skip("needs a kernel in virtual time: kproxy kernel build")
    the_plan = plan.Plan(nodes=3)
    load = workload.prepare(MANIFESTS)
    with (
        Lab(plan.topology(the_plan), name="lost", state_dir=tmp_path / "lab") as lab,
        Cluster(lab, the_plan, "iptables", load) as running,
    ):
        yield running


def places(cluster: Cluster) -> dict[str, str]:
    """Return the nodes of the pods that are in service, by name."""
    return {pod["metadata"]["name"]: pod["spec"]["nodeName"] for pod in cluster.pods()}


def listed(cluster: Cluster) -> set[str]:
    """Return the pods that the Service's slices call ready."""
    return {
        endpoint["targetRef"]["name"]
        for one in cluster.objects(kinds.ENDPOINT_SLICE, "default")
        for endpoint in one["endpoints"]
        if endpoint["conditions"]["ready"]
    }


def condition(cluster: Cluster, name: str) -> str:
    (node,) = [one for one in cluster.objects(kinds.NODE) if one["metadata"]["name"] == name]
    found = {one["type"]: one["status"] for one in node["status"]["conditions"]}
    return str(found["Ready"])


def taints(cluster: Cluster, name: str) -> list[str]:
    (node,) = [one for one in cluster.objects(kinds.NODE) if one["metadata"]["name"] == name]
    return [f"{one['key']}:{one['effect']}" for one in node["spec"].get("taints") or ()]


def test_a_lost_node_is_left_replaced_and_taken_back(cluster: Cluster) -> None:
    # Pods may have been bound before all nodes were there, so several may be on this one.
    node = min(places(cluster).values())
    victims = {name for name, place in places(cluster).items() if place == node}
    kubelet = cluster.kubelets[node]
    kubelet.kill()
    kubelet.wait(10)
    begun = time.monotonic_ns()

    def await_event(msg: str, since: int, **fields: object) -> Event:
        event = cluster.events.wait(
            lambda one: one.msg == msg and fields.items() <= one.fields.items(),
            why=f"{msg} {fields}",
            timeout=600,
            since_ns=since,
        )
        print(f"{(event.mono_ns - begun) / S:.6f} s: {msg} {fields}")
        return event

    # The last sign of life may be as old as one renewal, and was seen within one look.
    lost = await_event("node lost", begun, node=node).mono_ns
    assert GRACE - RENEWAL <= lost - begun <= GRACE + LOOK + SOON
    assert condition(cluster, node) == "Unknown"
    dropped = await_event("slice updated", lost, ready=3 - len(victims)).mono_ns
    assert dropped - lost <= SOON
    assert not victims & listed(cluster)
    tainted = await_event(
        "node tainted", begun, node=node, taint="node.kubernetes.io/unreachable"
    ).mono_ns
    assert tainted - lost <= SOON

    for victim in sorted(victims):
        evicted = await_event("pod evicted", tainted, pod=f"default/{victim}").mono_ns
        assert TOLERATION <= evicted - tainted <= TOLERATION + SOON
    replaced = await_event("pod bound", tainted).mono_ns
    assert abs(replaced - evicted) <= SOON
    cluster.wait_for(lambda: len(listed(cluster)) == 3, 60, "the new pod to be in service")
    assert node not in {places(cluster)[name] for name in listed(cluster)}
    # The proxy's pod belongs to the node: it bears the taint, and stays.
    daemons = {
        pod["spec"]["nodeName"]: pod["metadata"].get("deletionTimestamp")
        for pod in cluster.objects(catalog.POD, PROXY_NAMESPACE)
    }
    assert daemons == {"node1": None, "node2": None, "node3": None}

    cluster.start_kubelet(cluster.plan.node(node))
    cluster.wait_for(lambda: condition(cluster, node) == "True", 60, "the node to be back")
    cluster.wait_for(lambda: taints(cluster, node) == [], 60, "its taints to go")
    cluster.wait_for(
        lambda: len(cluster.objects(catalog.POD, "default")) == 3, 60, "the old pod to be gone"
    )
    cluster.settle()


def test_a_kubelet_that_was_frozen_takes_its_node_and_its_pods_back(cluster: Cluster) -> None:
    """Its connections live on, so nothing but what it hears tells it that it was given up."""
    before = places(cluster)
    node = min(before.values())
    victims = {name for name, place in before.items() if place == node}
    kubelet = cluster.kubelets[node]
    begun = time.monotonic_ns()
    kubelet.signal(signal.SIGSTOP)
    try:
        cluster.events.wait(
            lambda one: one.msg == "node lost" and one.fields["node"] == node,
            why="node lost",
            timeout=600,
            since_ns=begun,
        )
        wait.wait_until(lambda: not victims & listed(cluster), 10, "its pods out of service")
    finally:
        kubelet.signal(signal.SIGCONT)
    wait.wait_until(lambda: condition(cluster, node) == "True", 30, "the node's word")
    wait.wait_until(lambda: victims <= listed(cluster), 30, "its pods in service")
    assert places(cluster) == before
