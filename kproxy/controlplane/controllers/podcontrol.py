"""Pods of a controller: made from its template, deleted, and both told as events.

Pods are made one after the other, and the first failure ends the round: so a quota that is used
up, or an API server in trouble, costs one request a round. No round makes more than
:data:`ROUND_MOST` pods of a ReplicaSet or a StatefulSet, or deletes more of a ReplicaSet's: after
that the owner is looked at anew, who may be gone or want fewer by then.
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from kproxy import errors, logs
from kproxy.api import catalog, kinds
from kproxy.controlplane.cluster import Cluster
from kproxy.controlplane.eventrecorder import Events
from kproxy.rfc3339 import timestamp

from . import names, owned

Object = dict[str, Any]

COUNTER = "lastPodNumber"
"""Where a status keeps the highest number ever used for a pod: names are not used again."""
ROUND_MOST = 500
"""So many at most, as in Kubernetes; then it looks anew. (A DaemonSet has one for each node.)"""
_TAKEN_MOST = 100
"""So many names in a row that others have taken are passed over."""


class PodControl:
    """Makes and deletes pods of owners of one kind."""

    def __init__(
        self,
        kind: kinds.Kind,
        cluster: Cluster,
        log: logs.Log,
        events: Events,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._cluster = cluster
        self._events = events
        self._wall = wall
        self._kind = kind
        self._log = log
        self._numbers: dict[str, tuple[str, int]] = {}
        """Key of an owner -> its uid, the highest number of a pod of it."""

    def pods(self, owner: Object) -> list[Object]:
        """Return all pods of the owner's namespace."""
        return list(self._cluster.list_objects(catalog.POD, owner["metadata"]["namespace"]))

    def number(self, owner: Object, pods: Iterable[Object]) -> int:
        """Return the highest number that a pod of this owner ever had, as far as known."""
        uid, name = owned.uid(owner), owner["metadata"]["name"]
        of, known = self._numbers.get(owned.key_of(owner), ("", 0))
        known = max((owner.get("status") or {}).get(COUNTER) or 0, known if of == uid else 0)
        listed = (pod["metadata"]["name"] for pod in pods)
        number = names.next_number(uid, name, listed, known) - 1
        self._used(owner, number)
        return number

    def forget(self, key: str) -> None:
        """Forget the owner of this key, which is gone."""
        self._numbers.pop(key, None)

    def create(self, owner: Object, pods: Sequence[Object], pod: Object) -> Object:
        """Create a pod under the next free name.

        ``pods`` are those the owner has; what was made here need not be among them. Raises
        Conflict if one of ours has that name already, so that ``pods`` is an old picture.
        """
        uid, first = owned.uid(owner), self.number(owner, pods) + 1
        for number in range(first, first + _TAKEN_MOST):
            name = f"{owner['metadata']['name']}-{names.suffix(uid, number)}"
            try:
                made = self.create_named(owner, pod, name)
            except errors.Conflict:
                there = self._cluster.fresh(catalog.POD, owner["metadata"]["namespace"], name)
                if there is None or owned.owner(there).get("uid") == uid:
                    raise
                self._used(owner, number)
            else:
                self._used(owner, number)
                return made
        raise errors.KproxyError(f"{self._kind.name} {uid}: no free name for a pod")

    def _used(self, owner: Object, number: int) -> None:
        self._numbers[owned.key_of(owner)] = owned.uid(owner), number

    def create_named(self, owner: Object, pod: Object, name: str) -> Object:
        """Create a pod of this name."""
        pod = {**pod, "metadata": {**pod["metadata"], "name": name}}
        try:
            made = self._cluster.create(catalog.POD, pod)
        except errors.ApiError as error:
            if not isinstance(error, errors.Conflict):
                text = f"Error creating: {error.message}"
                self._events.event(self._kind, owner, "FailedCreate", text, warning=True)
            raise
        self._log.info(
            "pod created",
            pod=owned.key_of(made),
            uid=owned.uid(made),
            owner=f"{self._kind.name} {owner['metadata']['name']}",
        )
        self._events.event(self._kind, owner, "SuccessfulCreate", f"Created pod: {name}")
        return made

    def delete(self, owner: Object, pod: Object, reason: str) -> Object:
        """Delete a pod, and return it marked so; one that is being deleted is left alone."""
        if owned.terminating(pod):
            return pod
        meta = pod["metadata"]
        self._log.info("pod deleted", pod=owned.key_of(pod), uid=meta["uid"], reason=reason)
        self._cluster.delete(catalog.POD, meta["namespace"], meta["name"], uid=meta["uid"])
        text = f"Deleted pod: {meta['name']}"
        self._events.event(self._kind, owner, "SuccessfulDelete", text)
        return {**pod, "metadata": {**meta, "deletionTimestamp": timestamp(self._wall())}}


def from_template(
    kind: kinds.Kind, owner: Object, labels: Mapping[str, str], template: Object | None = None
) -> Object:
    """Return a new pod, without a name, of an owner's template (or of another one)."""
    if template is None:
        template = owner["spec"]["template"]
    meta = template.get("metadata") or {}
    made: Object = {
        "namespace": owner["metadata"]["namespace"],
        "labels": {**(meta.get("labels") or {}), **labels},
        "ownerReferences": [owned.reference(kind, owner)],
    }
    for name in ("annotations", "finalizers"):
        if meta.get(name):
            made[name] = meta[name]
    return {
        "apiVersion": catalog.POD.api_version,
        "kind": catalog.POD.name,
        "metadata": made,
        "spec": {**(template.get("spec") or {})},
    }


def look_again(waits: Iterable[float | None]) -> float | None:
    """Return the shortest of the waits that are not over; None: there is none."""
    return min((wait for wait in waits if wait), default=None)
