"""Binds pods to nodes as long as the lab starts no scheduler; to be deleted with that change.

A pod goes to the node with the fewest pods of its owner, then to the first by name, of those that
are ready and that its affinity, selector and tolerations allow.
"""

from collections import Counter
from collections.abc import Iterable
from typing import Any

from kproxy import errors, logs
from kproxy.api import catalog, kinds
from kproxy.controlplane import nodefit
from kproxy.controlplane.cluster import Cluster

from . import owned

Object = dict[str, Any]


class InterimBinding:
    """Binds one pod at a time."""

    def __init__(self, cluster: Cluster, log: logs.Log) -> None:
        self._cluster = cluster
        self._log = log
        self._bound: dict[str, str] = {}
        """Nodes of pods, by uid, of which the watch need not have told yet."""

    def reconcile(self, key: str) -> None:
        """Bind a pod, if it is not bound. Raises KproxyError: try again."""
        namespace, name = owned.split(key)
        pod = self._cluster.get(catalog.POD, namespace, name)
        if pod is None or not _waits(pod):
            return
        owner = owned.owner(pod).get("uid")
        load = Counter(
            one["spec"].get("nodeName") or self._bound.get(owned.uid(one))
            for one in self._cluster.list_objects(catalog.POD, namespace)
            if owned.active(one) and owned.owner(one).get("uid") == owner
        )
        nodes = [n for n in self._cluster.list_objects(kinds.NODE) if _fits(pod["spec"], n)]
        names = [node["metadata"]["name"] for node in nodes]
        if not names:
            raise errors.KproxyError(f"Pod {key}: no node is fit and ready for it")
        node = min(names, key=lambda one: (load[one], one))
        try:
            self._cluster.bind(namespace, name, owned.uid(pod), node)
        except errors.ApiError as error:
            if error.code != 404:
                raise
            bound = {**pod, "spec": {**pod["spec"], "nodeName": node}}
            self._cluster.update(catalog.POD, bound)
        if len(self._bound) > 1000:
            self._bound.clear()
        self._bound[owned.uid(pod)] = node
        self._log.info("pod bound", pod=key, node=node)


def unbound(
    context: Any, controller: Any, old: Object | None, new: Object | None
) -> Iterable[str]:
    """Return a pod that waits for a node."""
    return [owned.key_of(new)] if new is not None and _waits(new) else ()


def all_unbound(
    context: Any, controller: Any, old: Object | None, new: Object | None
) -> Iterable[str]:
    """Return all pods that wait for a node."""
    pods = context.cluster.list_objects(catalog.POD)
    return [owned.key_of(pod) for pod in pods if _waits(pod)]


def _waits(pod: Object) -> bool:
    return not pod["spec"].get("nodeName") and owned.active(pod)


def _fits(spec: Object, node: Object) -> bool:
    only = nodefit.only_node(spec) == node["metadata"]["name"]
    there = only or owned.condition(node, "Ready")
    effects = ("NoSchedule", "NoExecute")
    cordoned = not only and (node.get("spec") or {}).get("unschedulable")
    fits = nodefit.selected(spec, node) and nodefit.untolerated(spec, node, effects) is None
    return bool(there and fits and not cordoned)
