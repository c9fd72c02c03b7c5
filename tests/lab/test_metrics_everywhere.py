"""Every program of a monitored cluster is asked for its metrics, from where it is watched."""

import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from exposition_parser import parse

from kproxy.client import http1
from kproxy.controlplane.access import kubeconfigs
from kproxy.lab import clusterfile
from kproxy.lab.site import Site
from kproxy.lab.whole.cluster import WholeCluster
from netns.lab import Lab

pytestmark = [
    pytest.mark.lab,
    pytest.mark.needs_tool("prometheus", "prometheus-alertmanager", "prometheus-node-exporter"),
    pytest.mark.needs_tool("promtool"),
]
FILE = "{monitoring: {remediation: false}, profile: lab, mode: nftables}"
"""Nobody repairs: a pod that is replaced meanwhile could not be asked."""
PATIENCE = 120.0
WATCHER = "monitor1"
TLS = ("kube-apiserver", "kubelet")

EVERYWHERE = {"process_start_time_seconds", "process_cpu_seconds_total", "process_open_fds"}
CLIENTS = EVERYWHERE | {
    "rest_client_requests_total",
    "kproxy_watch_last_event_timestamp_seconds",
    "kproxy_watch_objects",
}
QUEUES = CLIENTS | {
    "leader_election_master_status",
    "workqueue_depth",
    "workqueue_adds_total",
    "workqueue_retries_total",
    "workqueue_queue_duration_seconds",
    "workqueue_work_duration_seconds",
    "workqueue_unfinished_work_seconds",
    "workqueue_longest_running_processor_seconds",
    "kproxy_watch_resource_version",
}
WANTED = {
    "kube-proxy": CLIENTS
    | {
        "kubeproxy_sync_proxy_rules_duration_seconds",
        "kubeproxy_sync_proxy_rules_last_timestamp_seconds",
        "kubeproxy_sync_proxy_rules_last_queued_timestamp_seconds",
        "kubeproxy_network_programming_duration_seconds",
        "kproxy_drift_found_total",
        "kproxy_sync_failures_total",
        "kproxy_watch_resource_version",
    },
    "kubelet": CLIENTS
    | {
        "kubelet_node_name",
        "kubelet_running_pods",
        "kubelet_running_containers",
        "kubelet_pod_start_duration_seconds",
        "kubelet_http_requests_total",
    },
    "kube-apiserver": EVERYWHERE
    | {
        "apiserver_request_total",
        "apiserver_request_duration_seconds",
        "apiserver_longrunning_requests",
        "apiserver_registered_watchers",
        "apiserver_storage_objects",
        "apiserver_watch_cache_resource_version",
        "etcd_requests_total",
        "etcd_request_duration_seconds",
        "kproxy_store_last_success_timestamp_seconds",
        "kproxy_store_last_failure_timestamp_seconds",
        "kproxy_watch_cache_followed",
        "kproxy_watch_cache_last_event_timestamp_seconds",
    },
    "kube-controller-manager": QUEUES,
    "kube-scheduler": QUEUES
    | {
        "scheduler_schedule_attempts_total",
        "scheduler_scheduling_attempt_duration_seconds",
        "scheduler_scheduling_algorithm_duration_seconds",
        "scheduler_pending_pods",
    },
    "kube-dns": CLIENTS | {"kproxy_dns_zone_changes", "coredns_panics_total"},
    "kproxy-prober": CLIENTS
    | {
        "kproxy_probe_sent_total",
        "kproxy_probe_lost_total",
        "kproxy_probe_duration_seconds",
        "kproxy_prober_targets",
        "kproxy_prober_lag_seconds",
    },
    "kube-state-metrics": CLIENTS
    | {
        "kube_node_status_condition",
        "kube_daemonset_status_number_ready",
        "kube_deployment_status_replicas_available",
        "kube_pod_status_ready",
        "kube_pod_container_status_restarts_total",
        "kube_service_info",
        "kube_endpoint_address",
        "kube_lease_renew_time",
    },
}
"""What has to be there, by job: docs/monitoring.md says what it is."""

OF_KUBERNETES = {"kubeproxy_sync_proxy_rules_no_local_endpoints_total"}
"""Names that are against Prometheus' conventions, and what users' rules and dashboards ask for."""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WholeCluster]:
    site = Site(clusterfile.parse(FILE, "lab.yaml"))
    state = tmp_path_factory.mktemp("metrics")
    with (
        Lab(site.topology(), name="metrics", state_dir=state) as lab,
        WholeCluster(lab, site) as made,
    ):
        made.wait_ready(PATIENCE)
        yield made


def scrape(cluster: WholeCluster, job: str, instance: str, who: str) -> tuple[int, str]:
    """Return status and body of a target's metrics, asked from a monitoring host."""
    host, _, port = instance.rpartition(":")
    tls = None
    if job in TLS:
        tls = ssl.create_default_context(cafile=str(cluster.places.pki / "ca.crt"))
        if who:
            tls.load_cert_chain(*cluster.places.credentials.client(who))
    with cluster.lab.host(WATCHER).entered():
        connection = http1.Connection(host, int(port), tls=tls, name=host, timeout=PATIENCE)
        try:
            response = connection.request("GET", "/metrics", {})
            return response.status, response.read().decode()
        finally:
            connection.close()


def targets(cluster: WholeCluster, job: str) -> list[str]:
    return [one.instance for one in cluster.monitors.targets(WATCHER) if one.job == job]


@pytest.mark.parametrize("job", WANTED)
def test_what_is_told_is_all_there_and_well_formed(cluster: WholeCluster, job: str) -> None:
    found = targets(cluster, job)
    assert found
    for instance in found:
        status, text = scrape(cluster, job, instance, kubeconfigs.MONITORING)
        assert status == 200
        assert WANTED[job] - set(parse(text)) == set()
        assert complaints(text) == []


def complaints(text: str) -> list[str]:
    """Return what promtool has against metrics, but for the names that Kubernetes chose."""
    command = ["promtool", "check", "metrics"]
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    lines = (done.stdout + done.stderr).splitlines()
    return [line for line in lines if line.split(" ")[0] not in OF_KUBERNETES]


@pytest.mark.parametrize("job", TLS)
def test_who_is_nobody_or_only_a_prober_is_told_nothing(cluster: WholeCluster, job: str) -> None:
    for instance in targets(cluster, job):
        assert scrape(cluster, job, instance, "")[0] in (401, 403)
        assert scrape(cluster, job, instance, kubeconfigs.PROBER)[0] == 403


def test_every_client_is_up_to_what_the_api_server_has(cluster: WholeCluster) -> None:
    """The rule that tells a stuck watch from a quiet cluster holds for nobody who is well."""
    behind = (
        "kproxy_watch_resource_version < on (resource) group_left "
        "max by (resource) (apiserver_watch_cache_resource_version offset 10s)"
    )
    followed = "count by (job) (kproxy_watch_resource_version)"
    cluster.wait_for(
        lambda: (
            len(cluster.monitors.query(WATCHER, followed)) >= 5
            and cluster.monitors.query(WATCHER, f"count({behind.replace('<', '>=')})")
        ),
        PATIENCE,
        "ten seconds of metrics",
    )
    assert cluster.monitors.query(WATCHER, behind) == []


def test_probes_of_every_node_reach_the_api_server(cluster: WholeCluster) -> None:
    answered = 'increase(kproxy_probe_duration_seconds_count{service="kubernetes"}[5s]) > 0'

    def nodes() -> set[str]:
        return {one.labels["node"] for one in cluster.monitors.query(WATCHER, answered)}

    cluster.wait_for(lambda: nodes() == {"node1", "node2"}, PATIENCE, "answers on both nodes")


def test_files_that_prove_who_one_is_are_for_their_owner(cluster: WholeCluster) -> None:
    for name in (f"{kubeconfigs.MONITORING}.key", f"{kubeconfigs.MONITORING}.conf"):
        path: Path = cluster.places.pki / name
        assert path.stat().st_mode & 0o077 == 0
