"""Whether there ever was a pod too many: from the history of all pods and their owners. Pure.

A ReplicaSet may have as many active pods as it has been told to have lately, a DaemonSet one on
each node. More at any time is what a controller makes that decides by an old picture, or two that
think they lead.

Pods and their owners come by two watches, of which either may be ahead of the other by a moment.
So they are put in order by the versions of the objects: the revisions of the store, which all
share.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from kproxy.lab.eventlog import Event

SEEN = "seen"
"""What the history calls a change in its log lines."""
LATELY_NS = 60 * 10**9
"""How long an earlier number of replicas counts: a scaled ReplicaSet deletes pods after that."""

Object = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sight:
    """A change of a pod or of an owner. ``limit``: how many pods an owner may have; None: a pod's.

    ``version``: the object's, of one that is gone its last one. ``owner`` is the uid of the owner,
    with the node behind it for a DaemonSet's pods. ``active``: it exists, is not about to go and
    has not ended.
    """

    ns: int
    uid: str
    name: str
    owner: str
    active: bool
    version: int
    limit: int | None = None
    sole: bool = False
    """Whether it must be its owner's only one."""


def sights(events: Iterable[Event]) -> list[Sight]:
    """Return what the history's events tell, in order."""
    return [
        Sight(
            ns=event.mono_ns,
            uid=str(event.fields["uid"]),
            name=str(event.fields["name"]),
            owner=str(event.fields["owner"]),
            active=bool(event.fields["active"]),
            version=int(event.fields["version"]),
            limit=event.fields.get("limit"),
            sole=bool(event.fields.get("sole", False)),
        )
        for event in events
        if event.msg == SEEN
    ]


@dataclass(slots=True)
class _Owner:
    limits: list[tuple[int, int]] = field(default_factory=list)
    pods: dict[str, str] = field(default_factory=dict)

    def allowed(self, now: int) -> int | None:
        """Return the largest number that counts at a time; None: nobody knows any yet."""
        if not self.limits:
            return None
        recent = [limit for ns, limit in self.limits if ns >= now - LATELY_NS]
        before = [limit for ns, limit in self.limits if ns < now - LATELY_NS]
        return max([*recent, *before[-1:]])


def found(history: Iterable[Sight]) -> list[str]:
    """Return, in words, every moment at which an owner had a pod too many."""
    owners: defaultdict[str, _Owner] = defaultdict(_Owner)
    problems: list[str] = []
    for sight in _in_order(history):
        owner = owners[sight.owner]
        if sight.limit is not None:
            owner.limits.append((sight.ns, sight.limit))
            continue
        if not sight.active:
            owner.pods.pop(sight.uid, None)
            continue
        new = sight.uid not in owner.pods
        owner.pods[sight.uid] = sight.name
        allowed = 1 if sight.sole else owner.allowed(sight.ns)
        if new and allowed is not None and len(owner.pods) > allowed:
            names = ", ".join(sorted(owner.pods.values()))
            count = f"{len(owner.pods)} pods where {allowed} should be"
            problems.append(f"{sight.ns / 1e9:.3f} s: {count}: {names}")
    return problems


def _in_order(history: Iterable[Sight]) -> Iterator[Sight]:
    """Yield pods as they came, each after what its owners had been told when it was written."""
    sights = list(history)
    limits = sorted((one for one in sights if one.limit is not None), key=lambda one: one.version)
    reached, told = 0, 0
    for pod in (one for one in sights if one.limit is None):
        reached = max(reached, pod.version)
        while told < len(limits) and limits[told].version <= reached:
            yield limits[told]
            told += 1
        yield pod
