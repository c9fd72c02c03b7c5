"""A cluster in memory for tests of controllers; it refuses what the API server refuses.

Names that are taken, versions that are old, objects that are not valid or not there. Pods on a
node are only marked when they are deleted, as their kubelet has to confirm it.
"""

import copy
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from kproxy import errors
from kproxy.api import catalog, codec, kinds, validation
from kproxy.controlplane.controllers import owned
from kproxy.controlplane.patches import merge
from kproxy.rfc3339 import timestamp

Object = dict[str, Any]
Change = tuple[kinds.Kind, Object | None, Object | None]


class FakeCluster:
    """Fulfils ``kproxy.controlplane.cluster.Cluster``, but cannot ``finalize``.

    ``before`` is called with verb, kind and name of every write and may raise; ``after`` likewise,
    when the write has been done: then its answer is lost. ``changes`` are all changes so far.
    """

    def __init__(self) -> None:
        self.wall = 1_000_000.0
        self.changes: list[Change] = []
        self.before: Callable[[str, kinds.Kind, str], None] = lambda *_: None
        self.after: Callable[[str, kinds.Kind, str], None] = lambda *_: None
        self._objects: dict[kinds.Kind, dict[tuple[str, str], Object]] = {}
        self._counter = itertools.count(1)

    @property
    def version(self) -> int:
        """Return how many changes there have been."""
        return len(self.changes)

    def list_objects(
        self, kind: kinds.Kind, namespace: str = "", labels: Mapping[str, str] | None = None
    ) -> Sequence[Object]:
        """See ``Cluster``."""
        found = self._objects.get(kind, {})
        return [
            found[key]
            for key in sorted(found)
            if (not namespace or key[0] == namespace)
            and (labels or {}).items() <= (found[key]["metadata"].get("labels") or {}).items()
        ]

    def get(self, kind: kinds.Kind, namespace: str, name: str) -> Object | None:
        """See ``Cluster``."""
        return self._objects.get(kind, {}).get((namespace, name))

    fresh = get
    fresh_list = list_objects

    def create(self, kind: kinds.Kind, obj: Object) -> Object:
        """See ``Cluster``."""
        obj = copy.deepcopy(obj)
        meta = obj["metadata"]
        self.before("create", kind, meta["name"])
        key = (meta.get("namespace", ""), meta["name"])
        if key in self._objects.get(kind, {}):
            raise errors.Conflict(409, "AlreadyExists", f"{kind.name} {meta['name']} exists")
        assert "resourceVersion" not in meta
        meta |= {"uid": f"uid-{next(self._counter)}", "generation": 1}
        meta["creationTimestamp"] = timestamp(self.wall)
        if kind is catalog.POD:
            obj["status"] = {"phase": "Pending"}
        _validate(kind, obj)
        return self._commit("create", kind, None, obj)

    def update(self, kind: kinds.Kind, obj: Object) -> Object:
        """See ``Cluster``."""
        old = self._current("update", kind, obj)
        new = {**copy.deepcopy(obj), "status": old.get("status")}
        if new["status"] is None:
            del new["status"]
        return self._replace("update", kind, old, new)

    def update_status(self, kind: kinds.Kind, obj: Object) -> Object:
        """See ``Cluster``."""
        old = self._current("status", kind, obj)
        return self._replace("status", kind, old, {**old, "status": copy.deepcopy(obj["status"])})

    def patch(
        self, kind: kinds.Kind, namespace: str, name: str, patch: Object, subresource: str = ""
    ) -> Object:
        """See ``Cluster``."""
        meta = {"namespace": namespace, "name": name, **patch.get("metadata", {})}
        old = self._current("patch", kind, {"metadata": meta})
        new = merge.merge(old, copy.deepcopy(patch))
        if "status" in old and not subresource:
            new["status"] = old["status"]
        return self._replace("patch", kind, old, new)

    def bind(self, namespace: str, name: str, uid: str, node: str) -> None:
        """See ``Cluster``."""
        meta = {"namespace": namespace, "name": name, "uid": uid}
        old = self._current("bind", catalog.POD, {"metadata": meta})
        if old["spec"].get("nodeName") or owned.terminating(old):
            raise errors.Conflict(409, "Conflict", f"pod {name} is bound or being deleted")
        new = {**old, "spec": {**old["spec"], "nodeName": node}}
        self._replace("bind", catalog.POD, old, new)

    def delete(
        self,
        kind: kinds.Kind,
        namespace: str,
        name: str,
        *,
        grace: int | None = None,
        uid: str = "",
        propagation: str = "",
    ) -> None:
        """See ``Cluster``. Knows nothing of owners: there is no garbage collector here."""
        self.before("delete", kind, name)
        old = self.get(kind, namespace, name)
        if old is None or (uid and uid != old["metadata"]["uid"]):
            return
        waits = kind is catalog.POD and old["spec"].get("nodeName") and not owned.finished(old)
        if grace == 0 or not waits:
            del self._objects[kind][namespace, name]
            self.changes.append((kind, old, None))
            self.after("delete", kind, name)
        elif not owned.terminating(old):
            meta = {**old["metadata"], "deletionTimestamp": timestamp(self.wall + 30)}
            self._commit("delete", kind, old, {**old, "metadata": meta})

    def _current(self, verb: str, kind: kinds.Kind, obj: Object) -> Object:
        meta = obj["metadata"]
        self.before(verb, kind, meta["name"])
        old = self.get(kind, meta.get("namespace", ""), meta["name"])
        if old is None:
            raise errors.ApiError(404, "NotFound", f"{kind.plural} {meta['name']} not found")
        for name in ("uid", "resourceVersion"):
            if meta.get(name) and meta[name] != old["metadata"][name]:
                raise errors.Conflict(409, "Conflict", f"{kind.name} {meta['name']} has changed")
        return old

    def _replace(self, verb: str, kind: kinds.Kind, old: Object, new: Object) -> Object:
        kept = ("uid", "generation", "creationTimestamp", "deletionTimestamp", "resourceVersion")
        before = old["metadata"]
        meta = {key: value for key, value in new["metadata"].items() if key not in kept}
        meta |= {name: before[name] for name in kept if name in before}
        new = {**new, "metadata": meta}
        if new == old:
            return old
        if new.get("spec") != old.get("spec"):
            meta["generation"] += 1
            if kind is not catalog.POD and "selector" in old["spec"]:
                assert new["spec"]["selector"] == old["spec"]["selector"], "immutable"
        _validate(kind, new)
        return self._commit(verb, kind, old, new)

    def _commit(self, verb: str, kind: kinds.Kind, old: Object | None, new: Object) -> Object:
        meta = {**new["metadata"], "resourceVersion": str(self.version + 1)}
        new = {**new, "metadata": meta}
        self._objects.setdefault(kind, {})[meta.get("namespace", ""), meta["name"]] = new
        self.changes.append((kind, old, new))
        self.after(verb, kind, meta["name"])
        return new


def _validate(kind: kinds.Kind, obj: Object) -> None:
    problems = validation.validate(codec.from_dict(obj, kind.type))
    if problems:
        text = "; ".join(map(str, problems))
        raise errors.ApiError(422, "Invalid", text)
