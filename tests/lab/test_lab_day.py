"""A day that nobody could wait for: restarts every two hours, and 24 h conntrack time-outs.

In virtual time only: waiting for a day takes as long as the work that is done in it.
"""

import contextlib
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from kproxy.api import catalog, manifests
from kproxy.lab import plan, workload
from kproxy.lab.cluster import PROXY_NAMESPACE, Cluster
from netns.kernels import base
from netns.lab import Lab

pytestmark = [pytest.mark.lab, pytest.mark.slow, pytest.mark.needs_module("ip_vs")]
HOUR = 3600.0
ESTABLISHED_HOURS = 24
"""kube-proxy's default of --conntrack-tcp-timeout-established."""

# As small as may be: each host costs a little all day long.
SHOP = """
apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: shop}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: web, image: echo, ports: [{name: http, containerPort: 8080}]}]}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {selector: {app: web}, ports: [{name: http, port: 80, targetPort: http}]}
"""


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    if base.clock() is not base.Clock.VIRTUAL:
        pytest.skip("needs a kernel in virtual time: kproxy kernel build")
    load = workload.prepare(manifests.load_manifests(SHOP)[0])
    the_plan = plan.Plan()
    # A full sync is a look at everything; once an hour shows the same as every 30 s. So it is with
    # the kubelets' signs of life: three an hour, instead of 360.
    settings = {"iptables": {"syncPeriod": "1h"}}
    with (
        Lab(plan.topology(the_plan), name="day", state_dir=tmp_path / "lab") as lab,
        Cluster(lab, the_plan, "iptables", load, settings=settings, heartbeat=1200) as running,
    ):
        yield running


def connect(cluster: Cluster) -> tuple[socket.socket, tuple[str, int]]:
    target = next(t for t in cluster.targets if str(t) == "shop/web:http")
    client = cluster.lab.host("client1")
    address = (target.address, target.port)
    return client.call(socket.create_connection, address, 5), address


def ask(connection: socket.socket) -> bytes:
    connection.settimeout(5)
    connection.sendall(b"hello\n")
    return connection.recv(1000)


def tracked(cluster: Cluster, connection: socket.socket) -> bool:
    port = connection.getsockname()[1]
    entries = cluster.lab.host("node1").call(
        lambda: Path("/proc/thread-self/net/nf_conntrack").read_text()
    )
    return any(f"sport={port} " in line and " tcp " in line for line in entries.splitlines())


def test_an_idle_connection_outlives_a_day_of_restarts_and_no_longer(cluster: Cluster) -> None:
    begun = time.monotonic()
    (kept, _), (silent, _) = connect(cluster), connect(cluster)
    with contextlib.closing(kept), contextlib.closing(silent):
        first = ask(kept)
        assert first.startswith(b"shop/web-")
        assert ask(silent).startswith(b"shop/web-")
        before = {p["metadata"]["uid"] for p in cluster.objects(catalog.POD, PROXY_NAMESPACE)}
        for hour in range(1, ESTABLISHED_HOURS, 2):
            # Time passes without a packet: that is what is tested.
            time.sleep(begun + hour * HOUR - time.monotonic())
            cluster.restart_daemonset()
            uids = before

            def replaced(old: set[str] = uids) -> bool:
                pods = cluster.objects(catalog.POD, PROXY_NAMESPACE)
                return len(pods) == 2 and not old & {p["metadata"]["uid"] for p in pods}

            cluster.wait_for(replaced, 120, "all proxies to be new")
            cluster.settle()
            before = {p["metadata"]["uid"] for p in cluster.objects(catalog.POD, PROXY_NAMESPACE)}
        # 23 hours idle, 12 times all proxies replaced: the same pod still answers.
        assert ask(kept) == first
        assert tracked(cluster, kept)
        # The time-out counts from the last packet: a minute before its end the entry is there.
        time.sleep(begun + ESTABLISHED_HOURS * HOUR - 60 - time.monotonic())
        assert tracked(cluster, silent)
        time.sleep(120)
        assert not tracked(cluster, silent)
        assert tracked(cluster, kept)
    fresh, _ = connect(cluster)
    with contextlib.closing(fresh):
        assert ask(fresh).startswith(b"shop/web-")
