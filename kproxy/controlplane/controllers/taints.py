"""The taints by which controllers keep pods away from nodes, or send them off. Pure."""

from collections.abc import Collection, Iterable
from typing import Any

from kproxy.controlplane import defaults
from kproxy.rfc3339 import timestamp

Object = dict[str, Any]

NOT_READY, UNREACHABLE = defaults.NOT_READY, defaults.UNREACHABLE
UNSCHEDULABLE = "node.kubernetes.io/unschedulable"
OUT_OF_SERVICE = "node.kubernetes.io/out-of-service"
_OF_CONDITIONS = {
    ("Ready", "False"): NOT_READY,
    ("Ready", "Unknown"): UNREACHABLE,
    ("MemoryPressure", "True"): "node.kubernetes.io/memory-pressure",
    ("DiskPressure", "True"): "node.kubernetes.io/disk-pressure",
    ("PIDPressure", "True"): "node.kubernetes.io/pid-pressure",
    ("NetworkUnavailable", "True"): "node.kubernetes.io/network-unavailable",
}
OURS = frozenset({*_OF_CONDITIONS.values(), UNSCHEDULABLE})
"""Keys of taints that follow from what a node reports, and from being cordoned."""


def of(node: Object) -> list[Object]:
    """Return a node's taints."""
    return list((node.get("spec") or {}).get("taints") or ())


def condition(node: Object, name: str) -> str:
    """Return the status of a node's condition; empty if it has none of that name."""
    for one in (node.get("status") or {}).get("conditions") or ():
        if one.get("type") == name:
            return str(one.get("status") or "")
    return ""


def no_schedule(node: Object) -> list[Object] | None:
    """Return a node's taints with the right ones of effect NoSchedule; None: it has them."""
    wanted = {
        key for (name, status), key in _OF_CONDITIONS.items() if condition(node, name) == status
    }
    if (node.get("spec") or {}).get("unschedulable"):
        wanted.add(UNSCHEDULABLE)
    new = [{"key": key, "effect": "NoSchedule"} for key in sorted(wanted)]
    return _replaced(node, "NoSchedule", OURS, new)


def no_execute(node: Object, key: str, wall: float) -> list[Object] | None:
    """Return a node's taints with only this one of ours with effect NoExecute (empty: none).

    None: it has exactly that.
    """
    new = [{"key": key, "effect": "NoExecute", "timeAdded": timestamp(wall)}] if key else []
    return _replaced(node, "NoExecute", (NOT_READY, UNREACHABLE), new)


def has(node: Object, key: str, effect: str) -> bool:
    """Return whether a node has a taint."""
    return any((one.get("key"), one.get("effect")) == (key, effect) for one in of(node))


def _replaced(
    node: Object, effect: str, keys: Collection[str], new: Iterable[Object]
) -> list[Object] | None:
    """Return the taints with ``new`` in place of those with one of the keys and the effect."""
    ours = [one for one in of(node) if one.get("effect") == effect and one.get("key") in keys]
    new = list(new)
    if {one["key"] for one in ours} == {one["key"] for one in new}:
        return None
    return [one for one in of(node) if one not in ours] + new


def patch(node: Object, wanted: list[Object]) -> Object:
    """Return the patch that gives a node, as it was read, these taints."""
    meta = node["metadata"]
    version = {"uid": meta["uid"], "resourceVersion": meta["resourceVersion"]}
    return {"metadata": version, "spec": {"taints": wanted or None}}
