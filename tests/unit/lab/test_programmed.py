"""When a node's kernel had been told of a change: by the first sync that had it."""

from types import SimpleNamespace
from typing import Any, cast

from kproxy.lab import scenarios
from kproxy.lab.cluster import PROXY_NAME, PROXY_NAMESPACE, Cluster
from kproxy.lab.eventlog import Event
from kproxy.lab.stage import ClusterStage


class FakeCluster:
    """As much of a cluster as tells of syncs."""

    def __init__(self, *events: Event) -> None:
        nodes = [SimpleNamespace(name=name) for name in ("node1", "node2")]
        self.plan = SimpleNamespace(each_node=lambda: iter(nodes))
        self.events = SimpleNamespace(events=list(events), refresh=lambda: None)

    def proxy_source(self, pod: str) -> str:
        return f"source of {pod}"

    def synced_version(self, event: Event) -> int:
        return int(event.fields["versions"]["endpointslices"])


def event(ns: int, source: str, msg: str, **fields: Any) -> Event:
    return Event(mono_ns=ns, source=source, who="", msg=msg, level="info", fields=fields)


def started(node: str, pod: str) -> Event:
    pod = f"{PROXY_NAMESPACE}/{pod}"
    return event(1, f"{node}-node", "container started", pod=pod, container=PROXY_NAME)


def synced(ns: int, pod: str, version: int) -> Event:
    return event(ns, f"source of {pod}", "synced", versions={"endpointslices": version})


def test_the_first_sync_with_a_newer_slice_is_told() -> None:
    cluster = FakeCluster(
        started("node1", "old"),
        started("node1", "new"),
        started("node2", "other"),
        synced(50, "old", 8),  # before the fault
        synced(110, "other", 9),
        synced(120, "old", 7),  # nothing new in it
        synced(150, "new", 9),
        synced(140, "old", 8),
    )
    stage = ClusterStage(cast(Cluster, cluster), "node1", dict)
    stage.mark(scenarios.FAULT, 100)
    assert stage.synced_ns("node1", newer_than=7) == 140
    assert stage.synced_ns("node2", newer_than=7) == 110
    assert stage.synced_ns("node1", newer_than=9) is None
