"""The pods of DaemonSets: where there should be one, what it bears, and whose it is. Pure.

As in Kubernetes a pod is bound to its node by the scheduler: it carries a node affinity that only
its node fulfils. So while there is no scheduler a DaemonSet's pod that was deleted does not come
back; its containers, of course, are restarted by their kubelet.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from kproxy.api import catalog
from kproxy.controlplane import nodefit

from . import names, owned, podcontrol, revisions, taints

Object = dict[str, Any]

_EXECUTE = (taints.NOT_READY, taints.UNREACHABLE)
_SCHEDULE = (
    "node.kubernetes.io/disk-pressure",
    "node.kubernetes.io/memory-pressure",
    "node.kubernetes.io/pid-pressure",
    taints.UNSCHEDULABLE,
)
_HOST_NETWORK = "node.kubernetes.io/network-unavailable"


def should_run(daemon_set: Object, node: Object) -> tuple[bool, bool]:
    """Return whether a pod should be on a node, and whether one that is there may stay."""
    spec = _tolerant(daemon_set["spec"]["template"].get("spec") or {})
    if spec.get("nodeName") not in (None, "", node["metadata"]["name"]):
        return False, False
    if not nodefit.selected(spec, node):
        return False, False
    runs = nodefit.untolerated(spec, node, ("NoSchedule", "NoExecute")) is None
    stays = nodefit.untolerated(spec, node, ("NoExecute",)) is None
    return runs, stays


def new(daemon_set: Object, digest: str, node: str) -> Object:
    """Return a new pod, still without a name, for a node."""
    pod = podcontrol.from_template(catalog.DAEMON_SET, daemon_set, {revisions.HASH_LABEL: digest})
    spec = _tolerant(pod["spec"])
    field = {"key": nodefit.NAME_FIELD, "operator": "In", "values": [node]}
    terms = [{**term, "matchFields": [field]} for term in nodefit.required_terms(spec) or [{}]]
    affinity = spec.get("affinity") or {}
    of_node = affinity.get("nodeAffinity") or {}
    required = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}
    spec["affinity"] = {**affinity, "nodeAffinity": {**of_node, **required}}
    return {**pod, "spec": spec}


def node_of(pod: Object) -> str:
    """Return the node that a pod is on, or is meant for."""
    return str(pod["spec"].get("nodeName") or "") or nodefit.only_node(pod["spec"])


def by_node(nodes: Iterable[str], pods: Iterable[Object]) -> dict[str, list[Object]]:
    """Return the pods of each node, the older first, and those of nodes that are not there."""
    found: dict[str, list[Object]] = {node: [] for node in nodes}
    for pod in sorted(pods, key=_age):
        found.setdefault(node_of(pod), []).append(pod)
    return found


def is_new(pod: Object, digest: str) -> bool:
    """Return whether a pod is of the template with this hash."""
    return revisions.digest(pod) == digest


def limits(daemon_set: Object, nodes: int) -> tuple[int, int]:
    """Return (surge, unavailable): on how many nodes two pods may run, or none."""
    strategy = daemon_set["spec"].get("updateStrategy") or {}
    given: Mapping[str, Any] = strategy.get("rollingUpdate") or {}
    surge = owned.share(given.get("maxSurge"), nodes, up=True, default=0)
    unavailable = owned.share(given.get("maxUnavailable"), nodes, up=True, default=1)
    return surge, unavailable if surge else max(unavailable, 1)


def on_delete(daemon_set: Object) -> bool:
    """Return whether pods are replaced only when somebody deletes them."""
    return (daemon_set["spec"].get("updateStrategy") or {}).get("type") == "OnDelete"


def _tolerant(spec: Object) -> Object:
    """Return a pod's spec with what every DaemonSet's pod bears: it is part of its node."""
    tolerations = list(spec.get("tolerations") or ())
    effects = [(key, "NoExecute") for key in _EXECUTE] + [(key, "NoSchedule") for key in _SCHEDULE]
    if spec.get("hostNetwork"):
        effects.append((_HOST_NETWORK, "NoSchedule"))
    for key, effect in effects:
        one = {"key": key, "operator": "Exists", "effect": effect}
        if one not in tolerations:
            tolerations.append(one)
    return {**spec, "tolerations": tolerations}


def _age(pod: Object) -> tuple[str, int]:
    """Return what orders pods by their creation, also those of one second."""
    number = names.number(owned.owner(pod).get("uid", ""), pod["metadata"]["name"])
    return pod["metadata"].get("creationTimestamp") or "", number
