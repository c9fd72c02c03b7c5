"""Deletes what belongs to objects that are gone, and lets objects go whose dependents are.

A key is the uid of an object. Of one with owners: if none of them exists (which is asked of the
API server where our picture lacks it), it is deleted; if some do, the references to the others
are removed. Of one that is being deleted with ``foregroundDeletion``: its dependents go first, and
it waits for those that block. With ``orphan``: its dependents lose the reference to it.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from kproxy import errors, logs
from kproxy.api import kinds
from kproxy.controlplane.cluster import Cluster

from . import owned, ownergraph
from .ownergraph import FOREGROUND, ORPHAN, Known

Object = dict[str, Any]

_REMEMBERED = 1000


class GarbageCollector:
    """Looks at single objects. :meth:`changed` has to be told of all changes of all kinds."""

    def __init__(self, cluster: Cluster, log: logs.Log) -> None:
        self._cluster = cluster
        self._log = log
        self._graph = ownergraph.OwnerGraph()
        self._absent: dict[str, None] = {}
        """Uids of owners that do not exist: none ever comes back."""

    def changed(self, kind: kinds.Kind, old: Object | None, new: Object | None) -> Iterable[str]:
        """Take note of a change, in any thread; return the uids to look at."""
        return self._graph.heard(kind, old, new)

    def reconcile(self, key: str) -> float | None:
        """Do what is to be done about one object. Raises KproxyError: try again."""
        known = self._graph.get(key)
        if known is None:
            return None
        if known.waits_for(ORPHAN):
            self._release_dependents(known)
        elif known.waits_for(FOREGROUND):
            self._let_go(known)
        elif known.references and not known.leaving:
            self._look_at_owners(known)
        return None

    def _release_dependents(self, owner: Known) -> None:
        for one in self._graph.dependents(owner.uid):
            self._refer(one, ownergraph.without(one.references, [owner.uid]))
        self._remove_finalizer(owner, ORPHAN)

    def _let_go(self, owner: Known) -> None:
        """Remove the finalizer of an object whose dependents do not hold it any more."""
        blocking = [
            one
            for one in self._graph.dependents(owner.uid)
            if any(
                ref.get("uid") == owner.uid and ref.get("blockOwnerDeletion")
                for ref in one.references
            )
        ]
        if not blocking:
            self._remove_finalizer(owner, FOREGROUND)

    def _look_at_owners(self, known: Known) -> None:
        solid, dangling, waiting = self._classify(known.references, known)
        if solid:
            if dangling or waiting:
                self._refer(known, ownergraph.without(known.references, [*dangling, *waiting]))
            return
        meta = known.obj["metadata"]
        now = self._cluster.fresh(known.kind, meta.get("namespace", ""), meta["name"])
        if now is None or owned.uid(now) != known.uid:
            return
        if now["metadata"].get("ownerReferences") != meta.get("ownerReferences"):
            raise errors.Conflict(409, "Conflict", f"{known.label} has other owners by now")
        propagation = self._propagation(known, waiting)
        self._cluster.delete(
            known.kind,
            meta.get("namespace", ""),
            meta["name"],
            uid=known.uid,
            propagation=propagation,
        )
        self._log.info("dependent deleted", object=known.label, uid=known.uid, how=propagation)

    def _propagation(self, known: Known, waiting: Sequence[str]) -> str:
        """Return what becomes of an object's own dependents."""
        finalizers = known.obj["metadata"].get("finalizers") or ()
        if waiting and self._graph.dependents(known.uid):
            return "Foreground"
        if ORPHAN in finalizers:
            return "Orphan"
        return "Foreground" if FOREGROUND in finalizers else "Background"

    def _classify(
        self, references: Iterable[Object], known: Known
    ) -> tuple[list[str], list[str], list[str]]:
        """Return the uids of owners that are there, are not, and wait for their dependents."""
        solid: list[str] = []
        dangling: list[str] = []
        waiting: list[str] = []
        for one in references:
            uid = str(one.get("uid"))
            owner = self._graph.get(uid)
            if owner is None and self._is_absent(one, known):
                dangling.append(uid)
            elif owner is not None and owner.waits_for(FOREGROUND):
                waiting.append(uid)
            else:
                solid.append(uid)
        return solid, dangling, waiting

    def _is_absent(self, reference: Object, known: Known) -> bool:
        """Ask the API server whether an owner is missing that our picture lacks."""
        uid = str(reference.get("uid"))
        if uid in self._absent:
            return True
        try:
            kind = kinds.by_name(str(reference.get("apiVersion")), str(reference.get("kind")))
        except errors.InvalidObject as error:
            # An owner of a kind that we do not know may well be there.
            self._log.warning("unknown owner", object=known.label, error=str(error))
            return False
        namespace = known.obj["metadata"].get("namespace", "") if kind.namespaced else ""
        found = self._cluster.fresh(kind, namespace, str(reference.get("name")))
        if found is not None and owned.uid(found) == uid:
            return False
        self._absent[uid] = None
        if len(self._absent) > _REMEMBERED:
            del self._absent[next(iter(self._absent))]
        return True

    def _refer(self, known: Known, references: list[Object]) -> None:
        """Give an object, as it is known, these owners."""
        self._patch(known, {"ownerReferences": references or None})
        self._log.info("owners removed", object=known.label, uid=known.uid)

    def _remove_finalizer(self, known: Known, finalizer: str) -> None:
        left = [one for one in known.obj["metadata"]["finalizers"] if one != finalizer]
        self._patch(known, {"finalizers": left or None})

    def _patch(self, known: Known, change: Object) -> None:
        """Change an object's metadata, if it is as we know it; one that is gone is no error."""
        meta = known.obj["metadata"]
        version = {"uid": meta["uid"], "resourceVersion": meta["resourceVersion"]}
        patch = {"metadata": {**version, **change}}
        try:
            self._cluster.patch(known.kind, meta.get("namespace", ""), meta["name"], patch)
        except errors.ApiError as error:
            if error.code != 404:
                raise
