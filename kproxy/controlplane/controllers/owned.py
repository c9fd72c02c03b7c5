"""Objects and who controls them: selectors, references, the state of a pod. Pure."""

from collections.abc import Iterable, Mapping
from typing import Any

from kproxy import rfc3339
from kproxy.api import kinds, meta

Object = dict[str, Any]


def key(namespace: str, name: str) -> str:
    """Return the work queue's key of an object."""
    return f"{namespace}/{name}"


def split(text: str) -> tuple[str, str]:
    """Return (namespace, name) of a key."""
    namespace, _, name = text.partition("/")
    return namespace, name


def key_of(obj: Object) -> str:
    """Return the work queue's key of an object."""
    return key(obj["metadata"].get("namespace", ""), obj["metadata"]["name"])


def uid(obj: Object) -> str:
    """Return an object's uid."""
    return str(obj["metadata"]["uid"])


def owner(obj: Object) -> Object:
    """Return the reference to the controller of an object; empty if it has none."""
    for reference in obj["metadata"].get("ownerReferences") or ():
        if reference.get("controller"):
            return dict(reference)
    return {}


def reference(kind: kinds.Kind, obj: Object) -> Object:
    """Return a reference to a controller."""
    return {
        "apiVersion": kind.api_version,
        "kind": kind.name,
        "name": obj["metadata"]["name"],
        "uid": uid(obj),
        "controller": True,
        "blockOwnerDeletion": True,
    }


def controlled(objects: Iterable[Object], controller: Object) -> list[Object]:
    """Return those of the objects that a controller has."""
    return [one for one in objects if owner(one).get("uid") == uid(controller)]


def selects(selector: Object | None, labels: Mapping[str, str] | None) -> bool:
    """Return whether a LabelSelector selects labels; an empty one selects nothing here."""
    wanted = selector or {}
    empty = not wanted.get("matchLabels") and not wanted.get("matchExpressions")
    return not empty and fulfils(labels or {}, wanted)


def fulfils(labels: Mapping[str, str], selector: Object) -> bool:
    """Return whether labels are all that a LabelSelector asks for; an empty one asks nothing."""
    exact = selector.get("matchLabels") or {}
    return all(labels.get(name) == value for name, value in exact.items()) and all(
        satisfied(one, labels) for one in selector.get("matchExpressions") or ()
    )


def satisfied(expression: Object, have: Mapping[str, str]) -> bool:
    """Return whether labels satisfy one expression of a selector (of nodes, too)."""
    operator, value = str(expression.get("operator")), have.get(expression["key"])
    values = list(expression.get("values") or [])
    if operator not in ("Gt", "Lt"):
        return meta.holds(operator, value, values)
    if value is None or not _whole(value) or len(values) != 1 or not _whole(values[0]):
        return False
    more = int(value) > int(values[0])
    return more if operator == "Gt" else int(value) < int(values[0])


def _whole(text: str) -> bool:
    return text.removeprefix("-").isdecimal()


def terminating(obj: Object) -> bool:
    """Return whether an object is being deleted."""
    return bool(obj["metadata"].get("deletionTimestamp"))


def phase(pod: Object) -> str:
    """Return a pod's phase."""
    return str((pod.get("status") or {}).get("phase") or "Pending")


def finished(pod: Object) -> bool:
    """Return whether a pod has ended and will not run again."""
    return phase(pod) in ("Failed", "Succeeded")


def active(pod: Object) -> bool:
    """Return whether a pod runs, or is going to: neither ended nor being deleted."""
    return not terminating(pod) and not finished(pod)


def ready(pod: Object) -> bool:
    """Return whether a pod is ready and stays."""
    return active(pod) and condition(pod, "Ready")


def available_in(pod: Object, least: int, wall: float) -> float | None:
    """Return in how many seconds a pod will have been ready for ``least`` seconds; None: never.

    0: it is available now. ``wall`` is the time of day in seconds.
    """
    if not ready(pod):
        return None
    since = ready_since(pod)
    return max(since + least - wall, 0.0) if least and since is not None else 0.0


def ready_since(pod: Object) -> float | None:
    """Return when a pod became ready, by the time of day; None if nobody says."""
    for one in (pod.get("status") or {}).get("conditions") or ():
        if one.get("type") == "Ready" and one.get("lastTransitionTime"):
            return seconds(one["lastTransitionTime"])
    return None


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


def seconds(stamp: str) -> float:
    """Return an RFC 3339 time (UTC, fractions dropped) in seconds; 0 for what is none."""
    return rfc3339.seconds_of(stamp) or 0.0
