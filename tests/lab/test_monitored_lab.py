"""A monitored cluster: Prometheus and Alertmanager, twice each; who is told, who repairs."""

from collections.abc import Callable, Iterator

import pytest

from kproxy.lab import clusterfile, pager
from kproxy.lab.eventlog import Event
from kproxy.lab.site import Site
from kproxy.lab.whole import picture
from kproxy.lab.whole.cluster import WholeCluster
from kproxy.lab.whole.roles import Role
from netns.lab import Lab

pytestmark = [
    pytest.mark.lab,
    pytest.mark.needs_module("ip_vs"),
    pytest.mark.needs_tool("prometheus", "prometheus-alertmanager", "prometheus-node-exporter"),
]
FILE = "{monitoring: true, profile: lab}"
PATIENCE = 120.0
PAGER, REMEDIATION = "admin-pager", "monitor1-remediation"
FIRST, SECOND = "monitor1", "monitor2"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WholeCluster]:
    site = Site(clusterfile.parse(FILE, "lab.yaml"))
    state = tmp_path_factory.mktemp("monitored")
    with (
        Lab(site.topology(), name="monitored", state_dir=state) as lab,
        WholeCluster(lab, site) as made,
    ):
        made.wait_ready(PATIENCE)
        yield made


def told(alert: str, status: str, **labels: str) -> Callable[[Event], bool]:
    """Return what recognises that people are told of an alert."""

    def recognise(event: Event) -> bool:
        fields = event.fields
        return (
            event.source == PAGER
            and event.msg == pager.TOLD
            and (fields["alert"], fields["status"]) == (alert, status)
            and labels.items() <= fields["labels"].items()
        )

    return recognise


def wait_told(cluster: WholeCluster, alert: str, status: str, **labels: str) -> Event:
    why = f"people to be told that {alert} is {status}"
    return cluster.events.wait(told(alert, status, **labels), why=why, timeout=PATIENCE)


def test_everybody_is_asked_by_both_and_answers(cluster: WholeCluster) -> None:
    wanted = {
        "kube-proxy": 2, "kubelet": 2, "node-exporter": 2, "kproxy-prober": 2, "kube-dns": 2,
        "kube-apiserver": 1, "kube-controller-manager": 1, "kube-scheduler": 1,
        "prometheus": 2, "alertmanager": 2, "kproxy-discovery": 2, "kube-state-metrics": 1,
        "kproxy-remediation": 1, "kproxy-balancer": 1,
    }  # fmt: skip
    for host in cluster.site.monitors:
        targets = cluster.monitors.targets(host)
        jobs = [one.job for one in targets]
        assert {job: jobs.count(job) for job in jobs} == wanted
        assert {one.health for one in targets} == {"up"}
        assert all(one.node for one in targets)


def test_a_target_is_named_by_address_node_and_pod(cluster: WholeCluster) -> None:
    for job in ("kube-proxy", "kproxy-prober", "kube-dns"):
        for sample in cluster.monitors.query(FIRST, f'up{{job="{job}"}}'):
            labels = sample.labels
            assert labels["namespace"] == "kube-system"
            assert labels["pod"].startswith(f"{job}-")
            assert labels["node"] in ("node1", "node2")
    instances = {
        (one.labels["node"], one.labels["instance"])
        for one in cluster.monitors.query(FIRST, 'up{job="kubelet"}')
    }
    assert instances == {("node1", "192.168.50.11:10250"), ("node2", "192.168.50.12:10250")}


def test_both_say_the_same_of_an_object(cluster: WholeCluster) -> None:
    expression = 'kube_daemonset_status_number_ready{daemonset="kube-proxy"}'
    found = [cluster.monitors.query(host, expression) for host in cluster.site.monitors]
    assert found[0] == found[1]
    (sample,) = found[0]
    assert sample.value == 2
    assert not {"instance", "node"} & set(sample.labels)


def test_alertmanagers_know_of_each_other(cluster: WholeCluster) -> None:
    for host in cluster.site.monitors:
        assert cluster.monitors.peers(host) == ["192.168.50.231:9094", "192.168.50.232:9094"]


def test_the_picture_shows_what_monitors_see(cluster: WholeCluster) -> None:
    found = {one.host: one for one in picture.take(cluster).monitors}
    assert set(found) == {FIRST, SECOND}
    for one in found.values():
        assert (one.trouble, one.down, one.unknown, one.peers) == ([], [], 0, 2)
        assert "Watchdog" in {alert.name for alert in one.alerts}


def test_a_hung_proxy_is_told_of_once_is_replaced_and_is_over(cluster: WholeCluster) -> None:
    alert, node = "KproxyProxyUnreachable", "node2"
    hung = cluster.processes.pause(node, Role.PROXY)
    fired = wait_told(cluster, alert, "firing", node=node)
    wait_told(cluster, alert, "resolved", node=node)
    assert cluster.processes.get(node, Role.PROXY).pid != hung.pid
    # Two Prometheuses told two Alertmanagers each, and one person once.
    heard = [one for one in cluster.events.events if told(alert, "firing", node=node)(one)]
    assert heard == [fired]
    cluster.wait_for(
        lambda: not cluster.monitors.missing(cluster.site.monitors), PATIENCE, "all to be seen"
    )


def test_one_prometheus_tells_that_the_other_is_dead(cluster: WholeCluster) -> None:
    cluster.processes.bring_down(FIRST, Role.PROMETHEUS)
    wait_told(cluster, "KproxyPrometheusDown", "firing", node=FIRST)
    cluster.processes.bring_up(FIRST, Role.PROMETHEUS)
    wait_told(cluster, "KproxyPrometheusDown", "resolved", node=FIRST)


def test_one_alertmanager_tells_while_the_other_is_dead(cluster: WholeCluster) -> None:
    cluster.processes.bring_down(FIRST, Role.ALERTMANAGER)
    event = wait_told(cluster, "KproxyAlertmanagerDown", "firing", node=FIRST)
    assert event.fields["sender"] == str(cluster.site.lan_address(SECOND))
    cluster.processes.bring_up(FIRST, Role.ALERTMANAGER)
    wait_told(cluster, "KproxyAlertmanagerDown", "resolved", node=FIRST)


def test_silence_is_noticed_when_nobody_is_left_to_tell(cluster: WholeCluster) -> None:
    def switch(state: str) -> Callable[[Event], bool]:
        return lambda event: (
            event.source == PAGER and event.msg == pager.SWITCH and event.fields["state"] == state
        )

    for host in cluster.site.monitors:
        cluster.processes.bring_down(host, Role.ALERTMANAGER)
    cluster.events.wait(switch("silent"), why="silence to be noticed", timeout=PATIENCE)
    for host in cluster.site.monitors:
        cluster.processes.bring_up(host, Role.ALERTMANAGER)
    cluster.events.wait(switch("back"), why="the dead man's alert", timeout=PATIENCE)
