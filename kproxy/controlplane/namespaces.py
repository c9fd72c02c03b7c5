"""Namespaces end in two steps: marked first, gone when their finalizers are (Kubernetes' way).

Between them a controller empties the namespace, and nothing new may be created in it.
"""

import time
from collections.abc import Sequence

from kproxy import errors
from kproxy.api import kinds
from kproxy.rfc3339 import timestamp

from . import versions
from .storage import base
from .store import Store
from .versions import Object

FIRST = ("default", "kube-system", "kube-public", "kube-node-lease")
"""Those that every cluster has; they cannot be deleted."""


class Gate:
    """Lets an object into a namespace that stays open until it is there.

    The namespace is looked at once when this is made, so that nobody is told of mistakes in an
    object that may not be created anyhow: ApiError 404 or 403.
    """

    def __init__(self, store: Store, kind: kinds.Kind, name: str, obj: Object) -> None:
        self._store, self._kind, self._name, self._obj = store, kind, name, obj
        self._looked: base.Write | None = self._look()

    def __call__(self) -> list[base.Write]:
        """Return what the commit is to demand. Raises ApiError: it is no longer open."""
        found, self._looked = self._looked or self._look(), None
        return [found]

    def _look(self) -> base.Write:
        key = ("", self._name)
        item = self._store.get("namespaces", key)
        if not item.obj["metadata"].get("deletionTimestamp"):
            return base.unchanged(versions.path_of("namespaces", key), item.revision)
        meta = self._obj["metadata"]
        what = meta.get("name") or meta.get("generateName", "")
        raise errors.ApiError(
            403,
            "Forbidden",
            f'{self._kind.plural} "{what}" is forbidden: unable to create new content in '
            f"namespace {self._name} because it is being terminated",
        )


def check_deletable(name: str) -> None:
    """Raise ApiError 403 for the namespaces that a cluster needs."""
    if name in FIRST[:3]:
        message = f'namespaces "{name}" is forbidden: this namespace may not be deleted'
        raise errors.ApiError(403, "Forbidden", message)


def plan(old: Object | None, new: Object | None) -> tuple[Object | None, Sequence[base.Write]]:
    """See :data:`store.Plan`: a deletion marks, the removal of the last finalizer deletes."""
    if old is None:
        return new, ()
    if new is None:
        if not _finalizers(old):
            return None, ()
        new = old
        if not old["metadata"].get("deletionTimestamp"):
            mark = {"deletionTimestamp": timestamp(time.time()), "deletionGracePeriodSeconds": 0}
            new = {**old, "metadata": {**old["metadata"], **mark}}
    if new["metadata"].get("deletionTimestamp"):
        if not _finalizers(new) and not new["metadata"].get("finalizers"):
            return None, ()
        new = {**new, "status": {**(new.get("status") or {}), "phase": "Terminating"}}
    return new, ()


def finalized(old: Object, finalizers: Sequence[str]) -> Object:
    """Return a namespace with other finalizers."""
    return {**old, "spec": {**(old.get("spec") or {}), "finalizers": list(finalizers)}}


def _finalizers(namespace: Object) -> list[str]:
    return list((namespace.get("spec") or {}).get("finalizers") or ())
