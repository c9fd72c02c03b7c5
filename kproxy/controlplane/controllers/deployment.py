"""Deployments: a ReplicaSet for each revision of the template, and the way from one to the next.

This controller touches no pods. It looks at the ReplicaSets and what they report, and changes how
many pods each of them should have, within the limits of the strategy: one step each time. Rules,
annotations and reasons are those of Kubernetes, so that ``kubectl rollout`` works.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from kproxy import errors, logs
from kproxy.api import catalog
from kproxy.controlplane.cluster import Cluster
from kproxy.controlplane.eventrecorder import Events
from kproxy.rfc3339 import timestamp

from . import claims, deploymentstatus, owned, revisionsets, rollout
from .replicaset import replicas

Object = dict[str, Any]


@dataclass(slots=True)
class _Round:
    """What is known of one Deployment during one reconcile; writes bring it up to date."""

    deployment: Object
    new: Object | None
    old: list[Object]
    conditions: list[Object] = field(default_factory=list)

    @property
    def everything(self) -> list[Object]:
        return [*self.old, *([self.new] if self.new else [])]

    @property
    def bounds(self) -> rollout.Limits:
        return rollout.limits(self.deployment["spec"], replicas(self.deployment))

    def replace(self, changed: Object) -> None:
        """Take the newest version of one of the ReplicaSets."""
        uid = owned.uid(changed)
        if self.new is not None and owned.uid(self.new) == uid:
            self.new = changed
        self.old = [changed if owned.uid(one) == uid else one for one in self.old]


class DeploymentController:
    """Makes the ReplicaSets of Deployments what they should be, one Deployment at a time."""

    kind = catalog.DEPLOYMENT

    def __init__(
        self,
        cluster: Cluster,
        log: logs.Log,
        events: Events,
        *,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._cluster = cluster
        self._log = log
        self._events = events
        self._wall = wall

    def reconcile(self, key: str) -> float | None:
        """Bring one Deployment nearer to what it should be. Raises KproxyError: try again."""
        deployment = self._cluster.get(self.kind, *owned.split(key))
        if deployment is None:
            return None
        listed = self._cluster.list_objects(
            catalog.REPLICA_SET, deployment["metadata"]["namespace"]
        )
        mine = claims.claim(self._cluster, self.kind, deployment, catalog.REPLICA_SET, listed)
        new = revisionsets.find_new(deployment, mine)
        old = [one for one in mine if new is None or owned.uid(one) != owned.uid(new)]
        now = _Round(deployment, new, sorted(old, key=revisionsets.age))
        now.conditions = list((deployment.get("status") or {}).get("conditions") or ())
        if owned.terminating(deployment):
            return self._report(now)
        now.conditions = deploymentstatus.paused(deployment, now.conditions, self._stamp())
        try:
            self._step(now)
        except errors.Conflict:
            raise
        except errors.ApiError as error:
            self._report_failure(now, error)
            raise
        return self._report(now)

    def _step(self, now: _Round) -> None:
        """Do the next step."""
        if now.deployment["spec"].get("paused") or self._was_scaled(now):
            self._renew(now, create=False)
            self._scale(now)
        elif _recreates(now.deployment):
            self._recreate(now)
        else:
            self._roll(now)
        if deploymentstatus.complete(now.deployment, now.new, now.everything):
            self._forget(now)

    def _roll(self, now: _Round) -> None:
        self._renew(now, create=True)
        if now.new is None:
            return
        shares = [revisionsets.share(one) for one in now.everything]
        size = rollout.grow_new(revisionsets.share(now.new), shares, now.bounds)
        if size > replicas(now.new) and not _observed(now.old):
            return  # How many pods the old ones still have will be told in a moment.
        if size != replicas(now.new):
            self._resize(now, now.new, size)
            return
        old = [revisionsets.share(one) for one in now.old]
        sizes = rollout.shrink_old(revisionsets.share(now.new), old, now.bounds)
        for one in list(now.old):
            if one["metadata"]["name"] in sizes:
                self._resize(now, one, sizes[one["metadata"]["name"]])

    def _recreate(self, now: _Round) -> None:
        """Stop all pods of old templates, and begin only when none of them runs any more."""
        large = [one for one in now.old if replicas(one)]
        for one in large:
            self._resize(now, one, 0)
        if large or self._run_still(now):
            self._renew(now, create=False)
            return
        self._renew(now, create=True)
        if now.new is not None and replicas(now.new) != now.bounds.wanted:
            self._resize(now, now.new, now.bounds.wanted)

    def _run_still(self, now: _Round) -> bool:
        old = {owned.uid(one) for one in now.old}
        namespace = now.deployment["metadata"]["namespace"]
        return any(
            owned.owner(pod).get("uid") in old and not owned.finished(pod)
            for pod in self._cluster.list_objects(catalog.POD, namespace)
        )

    def _was_scaled(self, now: _Round) -> bool:
        """Return whether the Deployment's size is not the one that its ReplicaSets are for."""
        large = [one for one in now.everything if replicas(one)]
        if len(large) > 1 and _recreates(now.deployment):
            return False  # They are about to go anyway.
        names = ("", str(now.bounds.wanted))
        return any(revisionsets.annotation(one, rollout.DESIRED) not in names for one in large)

    def _scale(self, now: _Round) -> None:
        """Give a new size to what is there, without moving between revisions."""
        bounds = now.bounds
        large = [one for one in now.everything if replicas(one)]
        if len(large) <= 1:
            newest = max(now.old, key=revisionsets.age, default=None)
            only = large[0] if large else now.new or newest
            if only is not None:
                self._resize(now, only, bounds.wanted)
            return
        if now.new is not None and _saturated(now.new, bounds):
            for one in list(now.old):
                self._resize(now, one, 0)
            return
        if _recreates(now.deployment):
            return
        before = (now.deployment.get("status") or {}).get("replicas") or 0
        shares = [revisionsets.share(one) for one in large]
        sizes = rollout.in_proportion(shares, bounds, before)
        for one in large:
            self._resize(now, one, sizes[one["metadata"]["name"]])

    def _renew(self, now: _Round, *, create: bool) -> None:
        """See that the ReplicaSet of the template is there, and has the newest revision."""
        deployment = now.deployment
        number = max((revisionsets.revision(one) for one in now.old), default=0) + 1
        if now.new is not None:
            annotations = revisionsets.inherited(deployment, now.new, number)
            least = deployment["spec"].get("minReadySeconds") or 0
            meta, spec = now.new["metadata"], now.new["spec"]
            same = annotations == (meta.get("annotations") or {})
            if not same or (spec.get("minReadySeconds") or 0) != least:
                changed = {
                    **now.new,
                    "metadata": {**meta, "annotations": annotations},
                    "spec": {**spec, "minReadySeconds": least},
                }
                now.new = self._cluster.update(catalog.REPLICA_SET, changed)
            now.conditions = deploymentstatus.found(deployment, now, self._stamp())
        elif create:
            self._create(now, number)
        if now.new is not None:
            self._number(now, revisionsets.revision(now.new))

    def _create(self, now: _Round, number: int) -> None:
        bounds = now.bounds
        empty = rollout.Share(key="", wanted=0)
        shares = [revisionsets.share(one) for one in now.old]
        size = bounds.wanted
        if not _recreates(now.deployment):
            size = rollout.grow_new(empty, shares, bounds) if _observed(now.old) else 0
        annotations = revisionsets.inherited(now.deployment, None, number)
        annotations = revisionsets.sized(annotations, bounds)
        now.new = revisionsets.create(self._cluster, now.deployment, size, annotations)
        name = now.new["metadata"]["name"]
        self._log.info("replica set created", replica_set=owned.key_of(now.new), replicas=size)
        if size:
            text = f"Scaled up replica set {name} from 0 to {size}"
            self._events.event(self.kind, now.deployment, "ScalingReplicaSet", text)
        now.conditions = deploymentstatus.created(now.deployment, now, self._stamp())

    def _number(self, now: _Round, number: int) -> None:
        """Note the revision on the Deployment itself."""
        meta = now.deployment["metadata"]
        if revisionsets.revision(now.deployment) == number:
            return
        annotations = {**(meta.get("annotations") or {}), rollout.REVISION: str(number)}
        changed = {**now.deployment, "metadata": {**meta, "annotations": annotations}}
        now.deployment = self._cluster.update(self.kind, changed)

    def _resize(self, now: _Round, replica_set: Object, size: int) -> None:
        meta, before = replica_set["metadata"], replicas(replica_set)
        annotations = revisionsets.sized(meta.get("annotations") or {}, now.bounds)
        if before == size and annotations == meta.get("annotations"):
            return
        changed = {
            **replica_set,
            "metadata": {**meta, "annotations": annotations},
            "spec": {**replica_set["spec"], "replicas": size},
        }
        now.replace(self._cluster.update(catalog.REPLICA_SET, changed))
        if before == size:
            return
        way = "up" if size > before else "down"
        text = f"Scaled {way} replica set {meta['name']} from {before} to {size}"
        self._log.info("replica set scaled", replica_set=owned.key_of(replica_set), replicas=size)
        self._events.event(self.kind, now.deployment, "ScalingReplicaSet", text)

    def _forget(self, now: _Round) -> None:
        for one in revisionsets.superfluous(now.deployment, now.old):
            meta = one["metadata"]
            self._cluster.delete(
                catalog.REPLICA_SET, meta["namespace"], meta["name"], uid=meta["uid"]
            )

    def _report(self, now: _Round) -> float | None:
        """Write the status if it says something new; return when to look again."""
        status = deploymentstatus.status(
            now.deployment, now.new, now.everything, now.conditions, self._wall()
        )
        if status != now.deployment.get("status"):
            self._cluster.update_status(self.kind, {**now.deployment, "status": status})
        return deploymentstatus.deadline_in(now.deployment, status, self._wall())

    def _report_failure(self, now: _Round, error: errors.ApiError) -> None:
        if now.new is not None:
            return
        now.conditions = deploymentstatus.not_created(
            now.deployment, now.conditions, str(error), self._stamp()
        )
        self._report(now)

    def _stamp(self) -> str:
        return timestamp(self._wall())


def _saturated(new: Object, bounds: rollout.Limits) -> bool:
    """Return whether a new ReplicaSet is all that the Deployment wants."""
    available = (new.get("status") or {}).get("availableReplicas") or 0
    desired = revisionsets.annotation(new, rollout.DESIRED)
    wanted = bounds.wanted
    return replicas(new) == wanted and desired == str(wanted) and available == wanted


def _observed(replica_sets: Sequence[Object]) -> bool:
    """Return whether what ReplicaSets report is about their newest sizes."""
    return all(map(revisionsets.observed, replica_sets))


def _recreates(deployment: Object) -> bool:
    return (deployment["spec"].get("strategy") or {}).get("type") == "Recreate"
