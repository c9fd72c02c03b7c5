"""Every query of every dashboard has data where endpoints change; so has the live page."""

import contextlib
import time
from collections.abc import Iterator
from typing import Any

import pytest

from kproxy.api import catalog
from kproxy.lab import clusterfile
from kproxy.lab.dashboard.looking import Looker
from kproxy.lab.dashboard.prometheus import Prometheus
from kproxy.lab.site import Site
from kproxy.lab.whole.cluster import WholeCluster
from kproxy.lab.whole.monitoringtargets import PROMETHEUS_PORT
from kproxy.monitoring import promclient
from kproxy.monitoring.dashboards import boards, checking, reading
from netns.errors import WaitTimeout
from netns.host import LiveHost
from netns.lab import Lab
from netns.wait import wait_until

pytestmark = [
    pytest.mark.lab,
    pytest.mark.needs_module("ip_vs"),
    pytest.mark.needs_tool("prometheus", "prometheus-alertmanager", "prometheus-node-exporter"),
    pytest.mark.needs_tool("etcd"),
]
FILE = """
monitoring: true
profile: lab
controlPlane: {store: etcd, etcdMembers: 1}
"""
PATIENCE = 120.0
RATE_INTERVAL = "10s"
DNS = {"k8s-app": "kube-dns"}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WholeCluster]:
    site = Site(clusterfile.parse(FILE, "lab.yaml"))
    state = tmp_path_factory.mktemp("dashboards")
    with (
        Lab(site.topology(), name="boards", state_dir=state) as lab,
        WholeCluster(lab, site) as made,
    ):
        made.wait_ready(PATIENCE)
        yield made


class There:
    """The Prometheus of a host, asked from there."""

    def __init__(self, host: LiveHost) -> None:
        self._host = host
        self._client = promclient.Prometheus("127.0.0.1", PROMETHEUS_PORT, timeout=30.0)

    def over_time(self, query: str, start: float, end: float, step: float) -> Any:
        return self._host.call(self._client.over_time, query, start, end, step)

    def label_values(self, label: str, selector: str, start: float, end: float) -> list[str]:
        return self._host.call(self._client.label_values, label, selector, start, end)


def change_endpoints(cluster: WholeCluster) -> None:
    """Let a pod go; another one takes its place."""
    pod = cluster.api.objects(catalog.POD, "kube-system", DNS)[0]
    cluster.api.delete(catalog.POD, "kube-system", pod["metadata"]["name"], grace=0)
    cluster.wait_ready(PATIENCE)


def without_data(source: There, began: float) -> list[str]:
    now = time.time()
    span = checking.Span(start=began, end=now, rate_interval=RATE_INTERVAL)
    return [
        f"{one.board}: {one.asked.panel} ({one.asked.ref}): {one.wrong or 'no data'}: {one.expr}"
        for one in checking.check(source, reading.kept(boards.DIRECTORY), span)
        if not one.lines
    ]


def test_no_query_of_a_dashboard_is_without_data(cluster: WholeCluster) -> None:
    source, began = There(cluster.lab.host(cluster.site.monitors[0])), time.time()
    deadline = time.monotonic() + PATIENCE
    time.sleep(10)  # nothing changes: what is a rate needs samples of before the change, too
    change_endpoints(cluster)
    empty: list[str] = []

    def complete() -> bool:
        empty[:] = without_data(source, began)
        return not empty

    with contextlib.suppress(WaitTimeout):  # what is empty says more
        wait_until(complete, deadline - time.monotonic(), "data for every query", interval=10)
    assert empty == []


def test_the_live_page_has_what_prometheus_knows(cluster: WholeCluster) -> None:
    addresses = [str(cluster.site.lan_address(host)) for host in cluster.site.monitors]
    looker = Looker(cluster, Prometheus(cluster.lab, addresses, PROMETHEUS_PORT), faults=False)

    def whole() -> bool:
        view = looker.look()
        charts = {one.id: len(one.series) for one in view.charts}
        return (
            view.trouble == []
            and charts["loss"] >= 2  # kubernetes and kube-dns
            and charts["loss-by-node"] == 2
            and charts["latency"] >= 2
            and {one.name for one in view.alerts} >= {"Watchdog"}
            and all(one.loss is not None for one in view.services)
        )

    cluster.wait_for(whole, PATIENCE, "everything to be shown")


def test_the_second_prometheus_is_asked_while_the_first_is_cut_off(cluster: WholeCluster) -> None:
    first, *_ = cluster.site.monitors
    addresses = [str(cluster.site.lan_address(host)) for host in cluster.site.monitors]
    one = Prometheus(cluster.lab, addresses, PROMETHEUS_PORT)
    assert one.values("up")
    cluster.unplug(first)
    with contextlib.ExitStack() as stack:
        stack.callback(cluster.plug, first)
        assert one.values("up")
