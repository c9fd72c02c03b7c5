"""ControllerRevisions: the templates a DaemonSet or StatefulSet has had, numbered.

``kubectl rollout history`` lists them, and ``undo`` applies one to the owner as a patch. A
revision's name is the owner's with a hash of the template, so it cannot be made twice; going
back to an old template gives that one a new number.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from kproxy import errors
from kproxy.api import catalog, kinds
from kproxy.controlplane.cluster import Cluster

from . import claims, names, owned

Object = dict[str, Any]

HASH_LABEL = "controller-revision-hash"
_SKIPPED = ("kubectl.kubernetes.io/last-applied-configuration",)
_SALTS = 100


def of(cluster: Cluster, kind: kinds.Kind, owner: Object) -> list[Object]:
    """Return the revisions of an owner, oldest first."""
    listed = cluster.list_objects(catalog.CONTROLLER_REVISION, owner["metadata"]["namespace"])
    mine = claims.claim(cluster, kind, owner, catalog.CONTROLLER_REVISION, listed)
    return sorted(mine, key=lambda one: (one.get("revision", 0), one["metadata"]["name"]))


def current(
    cluster: Cluster, kind: kinds.Kind, owner: Object, history: Sequence[Object]
) -> Object:
    """Return the revision of the owner's template; it is the newest one then."""
    data = _data(owner)
    newest = max((one.get("revision", 0) for one in history), default=0)
    for one in reversed(history):
        if one.get("data") == data:
            if one.get("revision", 0) == newest:
                return one
            return cluster.update(catalog.CONTROLLER_REVISION, {**one, "revision": newest + 1})
    return _create(cluster, kind, owner, data, newest + 1)


def forget(cluster: Cluster, owner: Object, dead: Sequence[Object]) -> None:
    """Delete the oldest of the revisions that no pod has, beyond ``revisionHistoryLimit``."""
    limit = owner["spec"].get("revisionHistoryLimit")
    keep = 10 if limit is None else int(limit)
    for one in dead[: max(len(dead) - keep, 0)]:
        meta = one["metadata"]
        cluster.delete(
            catalog.CONTROLLER_REVISION, meta["namespace"], meta["name"], uid=meta["uid"]
        )


def digest(obj: Object) -> str:
    """Return the hash in the labels of a revision, or of a pod that was made from it."""
    return str((obj["metadata"].get("labels") or {}).get(HASH_LABEL, ""))


def template(revision: Object) -> Object:
    """Return the pod template that a revision keeps."""
    kept = dict(((revision.get("data") or {}).get("spec") or {}).get("template") or {})
    kept.pop("$patch", None)
    return kept


def template_of(history: Iterable[Object], name: str) -> Object | None:
    """Return the template of the revision of this name; None if it is forgotten."""
    for one in history:
        if one["metadata"]["name"] == name:
            return template(one)
    return None


def _data(owner: Object) -> Object:
    # The directive lets a strategic merge patch replace the template instead of mixing both.
    return {"spec": {"template": {**owner["spec"]["template"], "$patch": "replace"}}}


def _create(
    cluster: Cluster, kind: kinds.Kind, owner: Object, data: Object, number: int
) -> Object:
    of_owner, template = owner["metadata"], owner["spec"]["template"]
    for salt in range(_SALTS):
        made_hash = names.template_hash(template, salt)
        name = f"{of_owner['name']}-{made_hash}"
        labels = (template.get("metadata") or {}).get("labels") or {}
        annotations = of_owner.get("annotations") or {}
        made = {
            "apiVersion": catalog.CONTROLLER_REVISION.api_version,
            "kind": catalog.CONTROLLER_REVISION.name,
            "metadata": {
                "name": name,
                "namespace": of_owner["namespace"],
                "labels": {**labels, HASH_LABEL: made_hash},
                "annotations": {
                    key: value for key, value in annotations.items() if key not in _SKIPPED
                },
                "ownerReferences": [owned.reference(kind, owner)],
            },
            "revision": number,
            "data": data,
        }
        try:
            return cluster.create(catalog.CONTROLLER_REVISION, made)
        except errors.Conflict:
            there = cluster.fresh(catalog.CONTROLLER_REVISION, of_owner["namespace"], name)
            ours = there is not None and owned.owner(there).get("uid") == owned.uid(owner)
            if there is None or (ours and there.get("data") == data):
                raise  # Our picture is old. Else another template has the same hash.
    raise errors.KproxyError(f"{kind.name} {owned.key_of(owner)}: no free name for a revision")
