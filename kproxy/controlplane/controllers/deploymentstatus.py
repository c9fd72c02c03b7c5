"""What a Deployment's status says: counts, and the conditions by which ``kubectl`` judges. Pure.

``Available`` is whether enough pods are; ``Progressing`` whether a rollout moves, has ended, or
has not moved for ``progressDeadlineSeconds``. Reasons and messages are those of Kubernetes, since
``kubectl rollout status`` reads them.
"""

from collections.abc import Sequence
from typing import Any, Protocol

from kproxy.rfc3339 import timestamp

from . import conditions, owned, rollout
from .replicaset import REPLICA_FAILURE, replicas

Object = dict[str, Any]

AVAILABLE = "Available"
PROGRESSING = "Progressing"
COMPLETE = "NewReplicaSetAvailable"
LATE = "ProgressDeadlineExceeded"
PAUSED = "DeploymentPaused"
RESUMED = "DeploymentResumed"
_NO_DEADLINE = 2**31 - 1


class Progress(Protocol):
    """The part of a reconcile's round that is looked at here."""

    new: Object | None
    conditions: list[Object]


def has_deadline(deployment: Object) -> bool:
    """Return whether a rollout is to be judged by time."""
    seconds = deployment["spec"].get("progressDeadlineSeconds")
    return seconds is not None and seconds != _NO_DEADLINE


def complete(deployment: Object, new: Object | None, everything: Sequence[Object]) -> bool:
    """Return whether all pods are of the newest template, available, and none is left over."""
    return _complete(_counts(deployment, new, everything), replicas(deployment))


def _complete(counts: Object, wanted: int) -> bool:
    names = ("updatedReplicas", "replicas", "availableReplicas")
    return all(counts[name] == wanted for name in names)


def paused(deployment: Object, old: Sequence[Object], stamp: str) -> list[Object]:
    """Return the conditions after a pause or its end: the clock of the deadline stands still."""
    found = conditions.find(old, PROGRESSING)
    if not has_deadline(deployment) or (found and found.get("reason") == LATE):
        return list(old)
    was_paused = found is not None and found.get("reason") == PAUSED
    is_paused = bool(deployment["spec"].get("paused"))
    if is_paused == was_paused:
        return list(old)
    reason, text = (PAUSED, "is paused") if is_paused else (RESUMED, "is resumed")
    return conditions.set_to(old, PROGRESSING, "Unknown", reason, f"Deployment {text}", stamp)


def found(deployment: Object, now: Progress, stamp: str) -> list[Object]:
    """Return the conditions after the template's ReplicaSet was found to be there."""
    if not has_deadline(deployment) or conditions.find(now.conditions, PROGRESSING):
        return now.conditions
    text = f'Found new replica set "{_name(now.new)}"'
    return conditions.set_to(
        now.conditions, PROGRESSING, "True", "FoundNewReplicaSet", text, stamp
    )


def created(deployment: Object, now: Progress, stamp: str) -> list[Object]:
    """Return the conditions after the template's ReplicaSet was created."""
    if not has_deadline(deployment):
        return now.conditions
    text = f'Created new replica set "{_name(now.new)}"'
    return conditions.set_to(
        now.conditions, PROGRESSING, "True", "NewReplicaSetCreated", text, stamp
    )


def not_created(
    deployment: Object, old: Sequence[Object], problem: str, stamp: str
) -> list[Object]:
    """Return the conditions after a ReplicaSet could not be created."""
    if not has_deadline(deployment):
        return list(old)
    reason = "ReplicaSetCreateError"
    return conditions.set_to(old, PROGRESSING, "False", reason, problem, stamp)


def status(
    deployment: Object,
    new: Object | None,
    everything: Sequence[Object],
    listed: Sequence[Object],
    wall: float,
) -> Object:
    """Return the whole status. ``listed``: the conditions so far; ``wall``: the time of day."""
    old, stamp = deployment.get("status") or {}, timestamp(wall)
    result: Object = {
        "observedGeneration": deployment["metadata"].get("generation", 0),
        **_counts(deployment, new, everything),
    }
    bounds = rollout.limits(deployment["spec"], replicas(deployment))
    enough = result["availableReplicas"] >= bounds.least
    shown = conditions.set_to(
        listed,
        AVAILABLE,
        "True" if enough else "False",
        "MinimumReplicasAvailable" if enough else "MinimumReplicasUnavailable",
        f"Deployment {'has' if enough else 'does not have'} minimum availability.",
        stamp,
    )
    if not owned.terminating(deployment) and not deployment["spec"].get("paused"):
        shown = _progress(deployment, new, old, result, shown, wall)
    result["conditions"] = _failures(shown, everything)
    return result


def deadline_in(deployment: Object, status: Object, wall: float) -> float | None:
    """Return in how many seconds a rollout that does not move will be late; None: never."""
    found = conditions.find(status.get("conditions") or (), PROGRESSING)
    if not has_deadline(deployment) or found is None or deployment["spec"].get("paused"):
        return None
    if found.get("reason") in (COMPLETE, LATE):
        return None
    since = owned.seconds(found.get("lastUpdateTime") or "")
    # Times are told in whole seconds: a second later it is so for certain.
    return max(since + float(deployment["spec"]["progressDeadlineSeconds"]) - wall, 0.0) + 1.0


def _progress(
    deployment: Object,
    new: Object | None,
    old: Object,
    counts: Object,
    shown: list[Object],
    wall: float,
) -> list[Object]:
    if not has_deadline(deployment):
        return conditions.without(shown, PROGRESSING)
    current = conditions.find(shown, PROGRESSING)
    done = counts["replicas"] == counts["updatedReplicas"]
    if done and current is not None and current.get("reason") == COMPLETE:
        return shown
    what = f'ReplicaSet "{_name(new)}"' if new else f'Deployment "{_name(deployment)}"'
    stamp = timestamp(wall)
    if _complete(counts, replicas(deployment)):
        text = f"{what} has successfully progressed."
        return conditions.set_to(shown, PROGRESSING, "True", COMPLETE, text, stamp)
    if _moves(old, counts):
        text = f"{what} is progressing."
        return conditions.set_to(
            shown, PROGRESSING, "True", "ReplicaSetUpdated", text, stamp, touch=True
        )
    if _is_late(deployment, current, wall):
        text = f"{what} has timed out progressing."
        return conditions.set_to(shown, PROGRESSING, "False", LATE, text, stamp)
    return shown


def _moves(old: Object, new: Object) -> bool:
    """Return whether a rollout is further than it was."""

    def count(of: Object, name: str) -> int:
        return int(of.get(name) or 0)

    def left(of: Object) -> int:
        return count(of, "replicas") - count(of, "updatedReplicas")

    names = ("updatedReplicas", "readyReplicas", "availableReplicas")
    more = any(count(new, name) > count(old, name) for name in names)
    return more or left(new) < left(old)


def _is_late(deployment: Object, current: Object | None, wall: float) -> bool:
    if current is None or current.get("reason") == COMPLETE:
        return False
    if current.get("reason") == LATE:
        return True
    since = owned.seconds(current.get("lastUpdateTime") or "")
    return wall > since + float(deployment["spec"]["progressDeadlineSeconds"])


def _failures(shown: Sequence[Object], everything: Sequence[Object]) -> list[Object]:
    """Return the conditions with the ReplicaFailure of a ReplicaSet, the newest one's first."""
    rest = conditions.without(shown, REPLICA_FAILURE)
    for one in reversed(everything):
        listed = (one.get("status") or {}).get("conditions") or ()
        failure = conditions.find(listed, REPLICA_FAILURE)
        if failure is not None:
            stamp = failure.get("lastTransitionTime")
            return [*rest, {**failure, "lastUpdateTime": stamp}]
    return rest


def _counts(deployment: Object, new: Object | None, everything: Sequence[Object]) -> Object:
    def total(name: str) -> int:
        return sum((one.get("status") or {}).get(name) or 0 for one in everything)

    available = total("availableReplicas")
    wanted = sum(map(replicas, everything))
    return {
        "replicas": total("replicas"),
        "updatedReplicas": ((new or {}).get("status") or {}).get("replicas") or 0,
        "readyReplicas": total("readyReplicas"),
        "availableReplicas": available,
        "unavailableReplicas": max(wanted - available, 0),
    }


def _name(obj: Object | None) -> str:
    return str(obj["metadata"]["name"]) if obj else ""
