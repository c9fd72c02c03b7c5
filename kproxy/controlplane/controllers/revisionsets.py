"""The ReplicaSets of a Deployment as its revisions: finding, making, numbering, forgetting them.

The annotations are those that ``kubectl rollout history`` and ``undo`` read.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from kproxy import errors
from kproxy.api import catalog
from kproxy.controlplane.cluster import Cluster

from . import names, owned, replicaset, rollout

Object = dict[str, Any]

_OWN = (
    "kubectl.kubernetes.io/last-applied-configuration",
    rollout.REVISION,
    rollout.HISTORY,
    rollout.DESIRED,
    rollout.MAXIMUM,
    "deprecated.deployment.rollback.to",
)
"""Annotations that a Deployment does not hand down."""
_SALTS = 100


def share(replica_set: Object) -> rollout.Share:
    """Return a ReplicaSet as the arithmetic wants it."""
    status = replica_set.get("status") or {}
    wanted = replicaset.replicas(replica_set)
    return rollout.Share(
        key=replica_set["metadata"]["name"],
        wanted=wanted,
        available=min(status.get("availableReplicas") or 0, wanted),
        present=status.get("replicas") or 0,
        age=age(replica_set),
        maximum=_number(annotation(replica_set, rollout.MAXIMUM)),
    )


def age(obj: Object) -> tuple[str, str]:
    """Return what orders objects by their creation."""
    return obj["metadata"].get("creationTimestamp") or "", obj["metadata"]["name"]


def annotation(obj: Object, name: str) -> str:
    """Return an annotation, empty if there is none."""
    return str((obj["metadata"].get("annotations") or {}).get(name, ""))


def revision(obj: Object) -> int:
    """Return a ReplicaSet's or Deployment's revision; 0 if it has none."""
    return _number(annotation(obj, rollout.REVISION))


def observed(replica_set: Object) -> bool:
    """Return whether what a ReplicaSet reports is about its newest version."""
    seen = (replica_set.get("status") or {}).get("observedGeneration", 0)
    return bool(seen >= replica_set["metadata"].get("generation", 0))


def find_new(deployment: Object, replica_sets: Iterable[Object]) -> Object | None:
    """Return the ReplicaSet of the Deployment's template; of several the oldest."""
    wanted = _without_hash(deployment["spec"]["template"])
    same = [one for one in replica_sets if _without_hash(one["spec"]["template"]) == wanted]
    return min(same, key=age, default=None)


def create(
    cluster: Cluster, deployment: Object, size: int, annotations: Mapping[str, str]
) -> Object:
    """Create the ReplicaSet of the Deployment's template, or return it if it is there already.

    Its name is the Deployment's with a hash of the template; a name that means something else
    is passed over. Raises Conflict if it is there but being deleted.
    """
    template, of = deployment["spec"]["template"], deployment["metadata"]
    for salt in range(_SALTS):
        digest = names.template_hash(template, salt)
        made = _new(deployment, digest, size, annotations)
        try:
            return cluster.create(catalog.REPLICA_SET, made)
        except errors.Conflict:
            name = made["metadata"]["name"]
            there = cluster.fresh(catalog.REPLICA_SET, of["namespace"], name)
            if there is None:
                raise
            ours = owned.owner(there).get("uid") == owned.uid(deployment)
            if ours and find_new(deployment, [there]) is not None:
                if owned.terminating(there):
                    raise
                return there
    raise errors.KproxyError(f"Deployment {owned.key_of(deployment)}: no free ReplicaSet name")


def _new(deployment: Object, digest: str, size: int, annotations: Mapping[str, str]) -> Object:
    spec, of = deployment["spec"], deployment["metadata"]
    label = {rollout.HASH_LABEL: digest}
    meta = spec["template"].get("metadata") or {}
    template = {
        **spec["template"],
        "metadata": {**meta, "labels": {**(meta.get("labels") or {}), **label}},
    }
    selector = spec.get("selector") or {}
    exact = {**(selector.get("matchLabels") or {}), **label}
    return {
        "apiVersion": catalog.REPLICA_SET.api_version,
        "kind": catalog.REPLICA_SET.name,
        "metadata": {
            "name": f"{of['name']}-{digest}",
            "namespace": of["namespace"],
            "labels": template["metadata"]["labels"],
            "annotations": dict(annotations),
            "ownerReferences": [owned.reference(catalog.DEPLOYMENT, deployment)],
        },
        "spec": {
            "replicas": size,
            "minReadySeconds": spec.get("minReadySeconds") or 0,
            "selector": {**selector, "matchLabels": exact},
            "template": template,
        },
    }


def inherited(deployment: Object, old: Object | None, number: int) -> dict[str, str]:
    """Return a ReplicaSet's annotations: its own, the Deployment's, and its revision.

    A revision that is used again gets a new number, and remembers the old ones.
    """
    annotations = dict((old["metadata"].get("annotations") or {}) if old else {})
    for name, value in (deployment["metadata"].get("annotations") or {}).items():
        if name not in _OWN:
            annotations[name] = value
    before = _number(annotations.get(rollout.REVISION, ""))
    if before < number:
        if before:
            past = [one for one in annotations.get(rollout.HISTORY, "").split(",") if one]
            if str(before) not in past:
                annotations[rollout.HISTORY] = ",".join([*past, str(before)])
        annotations[rollout.REVISION] = str(number)
    return annotations


def sized(annotations: Mapping[str, str], bounds: rollout.Limits) -> dict[str, str]:
    """Return annotations that say for which size of the Deployment a ReplicaSet was sized."""
    most = str(bounds.wanted + bounds.surge)
    return {**annotations, rollout.DESIRED: str(bounds.wanted), rollout.MAXIMUM: most}


def superfluous(deployment: Object, old: Sequence[Object]) -> list[Object]:
    """Return the revisions that are to be forgotten: empty ones beyond the limit, oldest first."""
    limit = deployment["spec"].get("revisionHistoryLimit")
    keep = 10 if limit is None else int(limit)
    empty = [
        one
        for one in old
        if not replicaset.replicas(one)
        and not (one.get("status") or {}).get("replicas")
        and observed(one)
        and not owned.terminating(one)
    ]
    empty.sort(key=lambda one: (revision(one), age(one)))
    return empty[: max(len(old) - keep, 0)]


def _without_hash(template: Object) -> Object:
    meta = dict(template.get("metadata") or {})
    labels = dict(meta.pop("labels", None) or {})
    labels.pop(rollout.HASH_LABEL, None)
    meta.pop("creationTimestamp", None)
    told = {name: value for name, value in meta.items() if value}
    return {**template, "metadata": {**told, "labels": labels}}


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() else 0
