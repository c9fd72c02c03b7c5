"""What the objects of pods and nodes say of them, as far as a lab waits for it. Pure."""

from typing import Any

from kproxy.api import catalog

Object = dict[str, Any]


def key(obj: Object) -> str:
    """Return namespace and name of an object."""
    return f"{obj['metadata']['namespace']}/{obj['metadata']['name']}"


def workload(pod: Object, owner: Object) -> tuple[str, str]:
    """Return kind and key of what a pod belongs to: of a ReplicaSet's pod its Deployment."""
    kind, name = owner["kind"], owner["name"]
    if kind == catalog.REPLICA_SET.name:
        digest = pod["metadata"]["labels"].get("pod-template-hash", "")
        kind, name = catalog.DEPLOYMENT.name, name.removesuffix(f"-{digest}")
    return kind, f"{pod['metadata']['namespace']}/{name}"


def has_ended(pod: Object) -> bool:
    """Return whether nothing of a pod runs any more, nor will."""
    return (pod.get("status") or {}).get("phase") in ("Failed", "Succeeded")


def is_ready(obj: Object) -> bool:
    """Return whether a pod (or a node) is in service: ready, and not being deleted."""
    if obj["metadata"].get("deletionTimestamp"):
        return False
    conditions = (obj.get("status") or {}).get("conditions") or []
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


def takes_pods(node: Object) -> bool:
    """Return whether a node is ready, and no taint keeps pods away."""
    conditions = (node.get("status") or {}).get("conditions") or []
    ready = any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)
    return ready and not (node.get("spec") or {}).get("taints")
