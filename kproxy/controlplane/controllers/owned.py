"""Pods that belong to a controller: telling them, naming them, making them. Pure."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

from kproxy.api import catalog, kinds

Object = dict[str, Any]


def key(namespace: str, name: str) -> str:
    """Return the work queue's key of an object."""
    return f"{namespace}/{name}"


def split(text: str) -> tuple[str, str]:
    """Return (namespace, name) of a key."""
    namespace, _, name = text.partition("/")
    return namespace, name


def owner(pod: Object) -> Object:
    """Return the reference to the controller of a pod; empty if it has none."""
    for reference in pod["metadata"].get("ownerReferences") or ():
        if reference.get("controller"):
            return dict(reference)
    return {}


def owned_by(kind: kinds.Kind, name: str, pods: Iterable[Object]) -> list[Object]:
    """Return the pods that a controller of this kind and name made, also a former one."""
    found = []
    for pod in pods:
        reference = owner(pod)
        if reference.get("kind") == kind.name and reference.get("name") == name:
            found.append(pod)
    return sorted(found, key=lambda pod: number(name, pod))


def template_hash(template: Object) -> str:
    """Return a short hash of a pod template: a label that tells old pods from new ones."""
    text = json.dumps(template, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:10]


def number(owner_name: str, pod: Object) -> int:
    """Return the number in a pod's name (``web-7``: 7); 0 if it has none."""
    text = pod["metadata"]["name"].removeprefix(f"{owner_name}-")
    return int(text) if text.isascii() and text.isdigit() else 0


def make(
    kind: kinds.Kind, parent: Object, name: str, node: str, labels: Mapping[str, str]
) -> Object:
    """Return a new pod of a Deployment's or DaemonSet's template, bound to a node."""
    template = parent["spec"]["template"]
    meta = template.get("metadata") or {}
    made: Object = {
        "name": name,
        "namespace": parent["metadata"]["namespace"],
        "labels": {**(meta.get("labels") or {}), **labels},
        "ownerReferences": [
            {
                "apiVersion": kind.api_version,
                "kind": kind.name,
                "name": parent["metadata"]["name"],
                "uid": parent["metadata"]["uid"],
                "controller": True,
                "blockOwnerDeletion": True,
            }
        ],
    }
    if meta.get("annotations"):
        made["annotations"] = meta["annotations"]
    return {
        "apiVersion": catalog.POD.api_version,
        "kind": catalog.POD.name,
        "metadata": made,
        "spec": {**(template.get("spec") or {}), "nodeName": node},
    }


def terminating(pod: Object) -> bool:
    """Return whether a pod is being deleted."""
    return "deletionTimestamp" in pod["metadata"]


def finished(pod: Object) -> bool:
    """Return whether a pod has ended and will not run again."""
    return (pod.get("status") or {}).get("phase") in ("Failed", "Succeeded")


def ready(pod: Object) -> bool:
    """Return whether a pod is ready and stays."""
    if terminating(pod) or finished(pod):
        return False
    return condition(pod, "Ready")


def condition(obj: Object, name: str) -> bool:
    """Return whether a condition in an object's status is true."""
    conditions = (obj.get("status") or {}).get("conditions") or ()
    return any(one.get("type") == name and one.get("status") == "True" for one in conditions)


def share(limit: int | str | None, total: int, *, up: bool, default: int) -> int:
    """Return a limit that is a number or a percentage of a total, rounded up or down."""
    if limit is None:
        return default
    if isinstance(limit, int):
        return limit
    percent = int(limit.rstrip("%"))
    return -(-percent * total // 100) if up else percent * total // 100
