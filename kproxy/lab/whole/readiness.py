"""What a cluster still lacks of what is declared. Reads the API, decides nothing."""

from typing import Any

from kproxy.api import catalog, kinds
from kproxy.lab.podviews import is_ready
from kproxy.lab.site import Site
from kproxy.lab.whole.api import Api

Object = dict[str, Any]


def missing(api: Api, site: Site) -> list[str]:
    """Return, in words, what is not yet as it is declared; empty: everything is ready."""
    ready = {one["metadata"]["name"] for one in api.objects(kinds.NODE) if is_ready(one)}
    found = [f"node {node.name}" for node in site.nodes if node.name not in ready]
    for kind in (catalog.DAEMON_SET, catalog.DEPLOYMENT, catalog.STATEFUL_SET):
        for one in api.objects(kind):
            have, want = replicas(one)
            if have < want or not _observed(one):
                meta = one["metadata"]
                found.append(f"{kind.label(meta['namespace'], meta['name'])} ({have}/{want})")
    return found


def replicas(obj: Object) -> tuple[int, int]:
    """Return how many up-to-date pods of a workload are ready, and how many it is to have."""
    status = obj.get("status") or {}
    if obj["kind"] == catalog.DAEMON_SET.name:
        want = int(status.get("desiredNumberScheduled", 0))
        updated = status.get("updatedNumberScheduled", 0)
        return min(int(status.get("numberReady", 0)), int(updated)), want
    want = int(obj["spec"].get("replicas", 1))
    updated = int(status.get("updatedReplicas", 0))
    return min(int(status.get("readyReplicas", 0)), updated), want


def _observed(obj: Object) -> bool:
    generation = obj["metadata"].get("generation", 0)
    return int((obj.get("status") or {}).get("observedGeneration", 0)) >= int(generation)
