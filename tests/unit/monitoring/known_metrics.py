"""The names of all metrics that programs of this tree have, asked of their registries."""

import contextlib
import io
from collections.abc import Iterable, Iterator
from types import SimpleNamespace
from typing import Any

from kproxy import processmetrics
from kproxy.agent.ipvsmetrics import IPVSMetrics
from kproxy.agent.metrics import Metrics as ProxyMetrics
from kproxy.client import watchmetrics
from kproxy.client.requestmetrics import RequestMetrics
from kproxy.controlplane.kubeletmetrics import KubeletMetrics
from kproxy.controlplane.naming.metrics import Metrics as DNSMetrics
from kproxy.controlplane.queuemetrics import ManagerMetrics
from kproxy.controlplane.scheduling.metrics import SchedulerMetrics
from kproxy.controlplane.serving.metrics import Metrics as ServerMetrics
from kproxy.controlplane.storage.counted import StorageMetrics
from kproxy.exposition import Family, Kind, Registry
from kproxy.kernel.ipvs.fake import FakeIPVS
from kproxy.logs import Log
from kproxy.monitoring.prober.metrics import ProbeMetrics
from kproxy.monitoring.remediation.metrics import Metrics as RemediationMetrics
from kproxy.monitoring.state.__main__ import FOLLOWED

FOREIGN = {
    "ALERTS",
    "up",
    "alertmanager_notifications_total",
    "alertmanager_notifications_failed_total",
    "etcd_disk_wal_fsync_duration_seconds_bucket",
    "etcd_server_has_leader",
    "etcd_server_leader_changes_seen_total",
    "node_nf_conntrack_entries",
    "node_nf_conntrack_entries_limit",
    "prometheus_rule_evaluation_failures_total",
}
"""Of programs that are not ours, which a lab's run asks in earnest."""
_SUFFIXES = {Kind.HISTOGRAM: ("_bucket", "_sum", "_count")}


def ours() -> set[str]:
    """Return the names of all series."""
    return {
        family.name + suffix
        for family in _families()
        for suffix in _SUFFIXES.get(family.kind, ("",))
    }


def _families() -> Iterator[Family]:
    for registry in _registries():
        for collect in registry._collectors:
            yield from collect()
    yield from processmetrics.collect()
    yield from watchmetrics.families([])
    for followed in FOLLOWED:
        for name in followed.words:
            yield Family(name, Kind.GAUGE, "", ())


def _registries() -> Iterable[Registry]:
    heard = {"endpointslices": (0, 0), "services": (0, 0)}
    known: Any = SimpleNamespace(heard=lambda: heard, asked_wall=0.0)
    for mode in ("ipvs", "iptables", "nftables"):
        yield ProxyMetrics(mode, known, known).registry
    shared = Registry()
    fake: Any = FakeIPVS()
    ipvs = IPVSMetrics(lambda: fake, list, _log())
    shared.collect_by(ipvs.all)
    RequestMetrics(shared, "host")
    StorageMetrics(shared)
    SchedulerMetrics(shared, "one").pending_by(dict)
    RemediationMetrics(shared, []).watch(_ledger(), dry_run=False)
    server = ServerMetrics()
    store: Any = SimpleNamespace(sizes=dict, versions=dict, trouble="", heard_at=0.0)
    server.of_store(store)
    manager = ManagerMetrics()
    manager.working({})
    kubelet, names, prober = KubeletMetrics(), DNSMetrics(), ProbeMetrics("node1")
    rest = (server, manager, kubelet, names, prober)
    yield from (shared, *(one.registry for one in rest))


def _ledger() -> Any:
    guards = SimpleNamespace(lease=None)
    state = SimpleNamespace(guards=guards, waiting_count=lambda: 0, escalated={})
    return SimpleNamespace(
        changed=contextlib.nullcontext(),
        clock=SimpleNamespace(now=lambda: 0.0),
        state=state,
        journal_bytes=0,
        failures=0,
    )


def _log() -> Log:
    return Log("test", stream=io.StringIO())
