"""Empties namespaces that are being deleted, and lets them go when nothing is left.

Pods first, so that nothing that they need disappears under them; then everything else.
"""

from collections.abc import Sequence
from typing import Any

from kproxy import logs
from kproxy.api import catalog, kinds
from kproxy.controlplane.cluster import Cluster

from . import conditions, owned

Object = dict[str, Any]

FINALIZER = "kubernetes"
LOOK_AGAIN = 5.0
"""What waits for its kubelet or for finalizers is counted again after so long at the latest."""
MESSAGE_MOST = 5
"""So many kinds are named of those that are left."""


class NamespaceController:
    """Looks at single namespaces."""

    def __init__(self, cluster: Cluster, log: logs.Log) -> None:
        self._cluster = cluster
        self._log = log

    def reconcile(self, key: str) -> float | None:
        """Empty a namespace that is being deleted. Raises KproxyError: try again."""
        _, name = owned.split(key)
        namespace = self._cluster.get(kinds.NAMESPACE, "", name)
        finalizers = ((namespace or {}).get("spec") or {}).get("finalizers") or ()
        if namespace is None or not owned.terminating(namespace) or FINALIZER not in finalizers:
            return None
        left = self._empty([catalog.POD], name) or self._empty(_others(), name)
        if left:
            self._tell(namespace, left)
            return LOOK_AGAIN
        spec = {**namespace["spec"], "finalizers": [f for f in finalizers if f != FINALIZER]}
        self._cluster.finalize({**namespace, "spec": spec})
        self._log.info("namespace emptied", namespace=name)
        return None

    def _empty(self, which: Sequence[kinds.Kind], namespace: str) -> dict[str, int]:
        """Delete all objects of some kinds; return how many of each are still there.

        They are read from the API server: what is missing in a picture must not be left behind.
        """
        left: dict[str, int] = {}
        for kind in which:
            for obj in self._cluster.fresh_list(kind, namespace):
                if not owned.terminating(obj):
                    meta = obj["metadata"]
                    self._cluster.delete(kind, namespace, meta["name"], uid=meta["uid"])
            count = len(self._cluster.fresh_list(kind, namespace))
            if count:
                left[f"{kind.plural}.{kind.api_version.rpartition('/')[0]}".rstrip(".")] = count
        return left

    def _tell(self, namespace: Object, left: dict[str, int]) -> None:
        """Say in the namespace's status what it waits for."""
        found = [f"{what} has {count} resource instances" for what, count in sorted(left.items())]
        message = f"Some resources are remaining: {', '.join(found[:MESSAGE_MOST])}"
        told = {
            "type": "NamespaceContentRemaining",
            "status": "True",
            "reason": "SomeResourcesRemain",
            "message": message,
        }
        before = (namespace.get("status") or {}).get("conditions") or ()
        old = conditions.find(before, told["type"])
        if old is not None and old.get("message") == message:
            return
        patch = {"status": {"conditions": conditions.put(before, told)}}
        self._cluster.patch(kinds.NAMESPACE, "", namespace["metadata"]["name"], patch, "status")


def _others() -> list[kinds.Kind]:
    """Return the namespaced kinds but for pods, each once; Events last: deleting makes some."""
    apart = (catalog.POD.plural, catalog.EVENT.plural)
    found = [kind for kind in kinds.known() if kind.namespaced and kind.plural not in apart]
    return [*found, catalog.EVENT]
