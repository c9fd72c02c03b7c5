"""Which objects a controller has: those that refer to it, and orphans that its selector finds.

As in Kubernetes: an orphan that is selected is adopted, an object of ours that is no longer
selected is released, and one that another controller has is left alone.
"""

from collections.abc import Iterable
from typing import Any

from kproxy import errors
from kproxy.api import kinds
from kproxy.controlplane.cluster import Cluster

from . import owned

Object = dict[str, Any]


def claim(
    cluster: Cluster,
    owner_kind: kinds.Kind,
    owner: Object,
    kind: kinds.Kind,
    found: Iterable[Object],
) -> list[Object]:
    """Return the objects of ``kind`` that ``owner`` has from now on. May adopt and release.

    Raises Conflict where an object has changed meanwhile.
    """
    selector, leaving = owner["spec"].get("selector"), owned.terminating(owner)
    mine: list[Object] = []
    alive: bool | None = None
    for one in found:
        has = owned.owner(one).get("uid")
        if has and has != owned.uid(owner):
            continue  # Most of a namespace: it should cost least.
        selected = owned.selects(selector, one["metadata"].get("labels"))
        if has:
            if selected or leaving:
                mine.append(one)
            else:
                _refer(cluster, kind, one, _others(one, owner))
        elif selected and not leaving and not owned.terminating(one):
            if alive is None:
                alive = _is_alive(cluster, owner_kind, owner)
            if alive:
                references = [*_others(one, owner), owned.reference(owner_kind, owner)]
                mine.append(_refer(cluster, kind, one, references))
    return mine


def _others(obj: Object, owner: Object) -> list[Object]:
    references = obj["metadata"].get("ownerReferences") or ()
    return [dict(one) for one in references if one.get("uid") != owned.uid(owner)]


def _refer(cluster: Cluster, kind: kinds.Kind, obj: Object, references: list[Object]) -> Object:
    meta = obj["metadata"]
    patch = {
        "metadata": {
            "uid": meta["uid"],
            "resourceVersion": meta["resourceVersion"],
            "ownerReferences": references or None,
        }
    }
    try:
        return cluster.patch(kind, meta["namespace"], meta["name"], patch)
    except errors.ApiError as error:
        if error.code == 404:
            raise errors.Conflict(409, "Conflict", f"{kind.name} {meta['name']} is gone") from None
        raise


def _is_alive(cluster: Cluster, kind: kinds.Kind, owner: Object) -> bool:
    """Return whether the owner, as it is now, may adopt: our picture of it may be old."""
    now = cluster.fresh(kind, owner["metadata"]["namespace"], owner["metadata"]["name"])
    return now is not None and owned.uid(now) == owned.uid(owner) and not owned.terminating(now)
