"""What users of kube-proxy have suffered from and no scenario shows, done to this proxy.

docs/known-problems.md has the whole list. Here: a weight of 0 that a dead proxy left behind,
source ports that are used again while IPVS remembers them, and endpoints that end with grace.
"""

import contextlib
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import agent_node
import pytest
from agent_node import Node
from stub_api import service, slice_of

from kproxy.api import manifests
from kproxy.kernel.ipvs.client import IPVS
from kproxy.lab import plan, workload
from kproxy.lab.cluster import Cluster
from kproxy.lab.stage import ClusterStage
from netns.lab import Lab

pytestmark = [
    pytest.mark.lab,
    pytest.mark.needs_module("ip_vs", "dummy", "ip_set"),
    pytest.mark.needs_tool("ipvsadm"),
]
PORT = 23456
PATIENCE_S = 30.0
GRACE_S = 20

SHOP = f"""
apiVersion: v1
kind: Namespace
metadata: {{name: shop}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {{name: web, namespace: shop}}
spec:
  replicas: 2
  selector: {{matchLabels: {{app: web}}}}
  template:
    metadata: {{labels: {{app: web}}}}
    spec:
      containers:
        - name: web
          image: echo
          ports: [{{name: http, containerPort: 8080}}]
          lifecycle: {{preStop: {{sleep: {{seconds: {GRACE_S}}}}}}}
---
apiVersion: v1
kind: Service
metadata: {{name: web, namespace: shop}}
spec: {{selector: {{app: web}}, ports: [{{name: http, port: 80, targetPort: http}}]}}
"""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    load = workload.prepare(manifests.load_manifests(SHOP)[0])
    the_plan = plan.Plan()
    state = tmp_path_factory.mktemp("lab")
    with (
        Lab(plan.topology(the_plan), name="problems", state_dir=state) as lab,
        Cluster(lab, the_plan, "ipvs", load) as running,
    ):
        # A client that forgets its closed connections at once, so that it may use a port again.
        lab.host("client1").call(_write, "/proc/sys/net/ipv4/tcp_max_tw_buckets", "0")
        yield running


def _write(path: str, text: str) -> None:
    Path(path).write_text(text)


def connect(cluster: Cluster, port: int = 0) -> socket.socket:
    target = next(one for one in cluster.targets if one.protocol == "TCP")
    sock: socket.socket = cluster.lab.host("client1").call(socket.socket)
    sock.settimeout(PATIENCE_S)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind(("", port))
    sock.connect((target.address, target.port))
    return sock


def ask(sock: socket.socket) -> str:
    """Return the name of the pod that answers."""
    sock.sendall(b"who\n")
    return sock.recv(1000).decode().split()[0].rpartition("/")[2]


def syns_sent_again(cluster: Cluster) -> int:
    """Return how many SYNs the client's kernel has had to repeat so far."""
    text = cluster.lab.host("client1").call(Path("/proc/thread-self/net/netstat").read_text)
    lines = [line.split() for line in text.splitlines() if line.startswith("TcpExt:")]
    return int(dict(zip(*lines, strict=True))["TCPSynRetrans"])


def weights(cluster: Cluster, node: str = "node1") -> dict[str, int]:
    """Return the weight of each real server of the TCP service, by address."""
    with cluster.lab.host(node).entered(), IPVS() as ipvs:
        found = ipvs.dump()
    return {
        str(key.address): entry.config.weight
        for place, one in found.items()
        if str(place).startswith("tcp")
        for key, entry in one.destinations.items()
    }


def test_a_weight_of_zero_that_a_dead_proxy_left_is_put_right(tmp_path: Path) -> None:
    with agent_node.running(tmp_path, "ipvs") as node:
        _leave_weight_zero(node)
        node.start().wait_for("synced", first=True)
        listed = node.run("ipvsadm", "-Sn")
        assert "-r 10.128.0.5:8080 -m -w 1" in listed
        assert "-w 0" not in listed


def _leave_weight_zero(node: Node) -> None:
    node.api.put(service("web", "10.96.0.10"), slice_of("web", "10.128.0.5", "10.128.1.6"))
    proxy = node.start()
    proxy.wait_for("synced", first=True)
    proxy.end(9)
    place = ("-t", "10.96.0.10:80", "-r", "10.128.0.5:8080")
    node.run("ipvsadm", "-e", *place, "-m", "-w", "0")
    assert "-w 0" in node.run("ipvsadm", "-Sn")


def test_a_source_port_that_is_used_again_waits_for_nothing(cluster: Cluster) -> None:
    before = syns_sent_again(cluster)
    for _ in range(4):
        with contextlib.closing(connect(cluster, PORT)) as sock:
            assert ask(sock).startswith("web-")
        time.sleep(1.5)  # IPVS remembers the connection for two minutes
    assert syns_sent_again(cluster) == before


def test_a_source_port_that_is_used_again_does_not_lead_to_a_dead_pod(cluster: Cluster) -> None:
    with contextlib.closing(connect(cluster, PORT + 1)) as sock:
        first = ask(sock)
    pod = next(one for one in cluster.pods() if one["metadata"]["name"] == first)
    stage = ClusterStage(cluster, "node1", dict)
    cluster.destroy(pod)
    stage.await_endpoint_removed("node1", first)
    time.sleep(1.5)  # as above
    before = syns_sent_again(cluster)
    with contextlib.closing(connect(cluster, PORT + 1)) as sock:
        assert ask(sock) not in ("", first)
    assert syns_sent_again(cluster) == before
    cluster.settle()


def test_an_endpoint_that_ends_with_grace_keeps_its_connections_and_gets_no_new_ones(
    cluster: Cluster,
) -> None:
    with contextlib.closing(connect(cluster)) as kept:
        leaving = ask(kept)
        pod = next(one for one in cluster.pods() if one["metadata"]["name"] == leaving)
        address = pod["status"]["podIP"]
        cluster.delete_pod("shop", leaving)
        cluster.wait_for(
            lambda: weights(cluster).get(address) == 0, PATIENCE_S, "the endpoint to drain"
        )
        assert ask(kept) == leaving
        for _ in range(8):
            with contextlib.closing(connect(cluster)) as sock:
                assert ask(sock) != leaving
        assert ask(kept) == leaving
        # Its program ends, and with it the connection: closed, not silent.
        assert kept.recv(1000) == b""
    cluster.settle()
