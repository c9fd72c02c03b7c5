"""Conditions in a status: lists of (type, status, reason, message, times). Pure."""

from collections.abc import Sequence
from typing import Any

Object = dict[str, Any]


def find(conditions: Sequence[Object], name: str) -> Object | None:
    """Return the condition of a type, None if there is none."""
    return next((one for one in conditions if one.get("type") == name), None)


def without(conditions: Sequence[Object], name: str) -> list[Object]:
    """Return the others."""
    return [one for one in conditions if one.get("type") != name]


def put(conditions: Sequence[Object], new: Object) -> list[Object]:
    """Return the conditions with a new one, in place of an older one of its type."""
    return [*without(conditions, new["type"]), new]


def disrupted(pod: Object, reason: str, message: str, stamp: str) -> list[Object]:
    """Return the conditions of a pod that the cluster is about to end: ``DisruptionTarget``."""
    told = {
        "type": "DisruptionTarget",
        "status": "True",
        "reason": reason,
        "message": message,
        "lastTransitionTime": stamp,
    }
    return put((pod.get("status") or {}).get("conditions") or (), told)


def set_to(
    conditions: Sequence[Object],
    name: str,
    status: str,
    reason: str,
    message: str,
    stamp: str,
    *,
    touch: bool = False,
) -> list[Object]:
    """Return the conditions with one of them as given; ``stamp`` is the time now.

    One that says the same (status and reason) already stays as it is, unless ``touch``: then it
    is news that it says so again. The time of transition changes with the status only.
    """
    old = find(conditions, name)
    same = old is not None and (old.get("status"), old.get("reason")) == (status, reason)
    if same and not touch:
        return list(conditions)
    kept = old is not None and old.get("status") == status
    new = {
        "type": name,
        "status": status,
        "lastUpdateTime": stamp,
        "lastTransitionTime": old.get("lastTransitionTime") if old and kept else stamp,
        "reason": reason,
        "message": message,
    }
    return put(conditions, new)
