"""Signs of life of nodes, and what is said of those that give none. Pure."""

from typing import Any

from . import taints

Object = dict[str, Any]

TAINTS = {"False": taints.NOT_READY, "Unknown": taints.UNREACHABLE}
"""The taint of a node by the status of its Ready condition."""
_CONDITIONS = ("Ready", "MemoryPressure", "DiskPressure", "PIDPressure")


def sign_of_life(node: Object, lease: Object | None) -> tuple[Any, ...]:
    """Return what changes as long as a node's kubelet lives, and which nobody else changes."""
    renewed = ((lease or {}).get("spec") or {}).get("renewTime")
    ready = next((one for one in _conditions(node) if one["type"] == "Ready"), {})
    return renewed, ready.get("lastHeartbeatTime")


def lost(node: Object, stamp: str) -> list[Object] | None:
    """Return the conditions of a node of which nobody knows anything; None: it has them."""
    known = {one["type"]: one for one in _conditions(node)}
    if all(known.get(name, {}).get("status") == "Unknown" for name in _CONDITIONS):
        return None
    result = [one for one in _conditions(node) if one["type"] not in _CONDITIONS]
    for name in _CONDITIONS:
        old = known.get(name)
        if old is not None and old.get("status") == "Unknown":
            result.append(old)
            continue
        reason, words = "NodeStatusUnknown", "Kubelet stopped posting node status."
        if old is None:
            reason, words = "NodeStatusNeverUpdated", "Kubelet never posted node status."
        told = {"type": name, "status": "Unknown", "reason": reason, "message": words}
        result.append({**(old or {}), **told, "lastTransitionTime": stamp})
    return result


def not_ready(pod: Object, stamp: str) -> list[Object]:
    """Return the conditions of a pod whose node is lost."""
    conditions = (pod.get("status") or {}).get("conditions") or ()
    told = {"status": "False", "lastTransitionTime": stamp}
    return [{**one, **told} if one["type"] == "Ready" else one for one in conditions]


def _conditions(node: Object) -> list[Object]:
    return list((node.get("status") or {}).get("conditions") or ())
