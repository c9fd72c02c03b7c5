"""What the API serves: every resource with its names, verbs and subresources."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache

import msgspec

from kproxy.api import catalog, kinds

VERBS = (
    "create",
    "delete",
    "deletecollection",
    "get",
    "list",
    "patch",
    "update",
    "watch",
)
STATUS_VERBS = ("get", "patch", "update")


@dataclass(frozen=True, slots=True, kw_only=True)
class Subresource:
    """A part of an object with a path of its own; its ``kind`` may be of another group."""

    name: str
    kind: str
    api_version: str
    verbs: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Review:
    """A kind that is answered and not stored: a question to the server."""

    api_version: str
    kind: str
    plural: str
    namespaced: bool = False


SCALE = Subresource(name="scale", kind="Scale", api_version="autoscaling/v1", verbs=STATUS_VERBS)
_SCALED = (catalog.DEPLOYMENT, catalog.REPLICA_SET, catalog.STATEFUL_SET)
_POD = (
    Subresource(name="binding", kind="Binding", api_version="v1", verbs=("create",)),
    Subresource(name="eviction", kind="Eviction", api_version="policy/v1", verbs=("create",)),
    Subresource(name="log", kind="Pod", api_version="v1", verbs=("get",)),
    Subresource(name="exec", kind="PodExecOptions", api_version="v1", verbs=("create", "get")),
)
_TOKEN = Subresource(
    name="token",
    kind="TokenRequest",
    api_version="authentication.k8s.io/v1",
    verbs=("create",),
)
_FINALIZE = Subresource(name="finalize", kind="Namespace", api_version="v1", verbs=("update",))
_WITHOUT_STATUS_TYPE = (kinds.NAMESPACE,)
"""Kinds whose typed object does not show their status."""

_AUTHORIZATION = "authorization.k8s.io/v1"
_AUTHENTICATION = "authentication.k8s.io/v1"
REVIEWS = tuple(
    Review(api_version=version, kind=kind, plural=kind.lower() + "s", namespaced=namespaced)
    for version, kind, namespaced in (
        (_AUTHORIZATION, "SelfSubjectAccessReview", False),
        (_AUTHORIZATION, "SubjectAccessReview", False),
        (_AUTHORIZATION, "LocalSubjectAccessReview", True),
        (_AUTHORIZATION, "SelfSubjectRulesReview", False),
        (_AUTHENTICATION, "TokenReview", False),
        (_AUTHENTICATION, "SelfSubjectReview", False),
    )
)

SHORT_NAMES: Mapping[str, tuple[str, ...]] = {
    "namespaces": ("ns",),
    "nodes": ("no",),
    "pods": ("po",),
    "services": ("svc",),
    "configmaps": ("cm",),
    "serviceaccounts": ("sa",),
    "endpoints": ("ep",),
    "events": ("ev",),
    "daemonsets": ("ds",),
    "deployments": ("deploy",),
    "replicasets": ("rs",),
    "statefulsets": ("sts",),
    "ipaddresses": ("ip",),
}
CATEGORIES: Mapping[str, tuple[str, ...]] = dict.fromkeys(
    ("pods", "services", "daemonsets", "deployments", "replicasets", "statefulsets"), ("all",)
)


@cache
def has_status(kind: kinds.Kind) -> bool:
    """Return whether a kind has a status, which is written through ``/status`` only."""
    fields = msgspec.structs.fields(kind.type)
    return kind in _WITHOUT_STATUS_TYPE or any(field.name == "status" for field in fields)


@cache
def subresources(kind: kinds.Kind) -> Mapping[str, Subresource]:
    """Return the subresources of a kind by their names."""
    found = []
    if has_status(kind):
        found.append(
            Subresource(
                name="status", kind=kind.name, api_version=kind.api_version, verbs=STATUS_VERBS
            )
        )
    if kind is kinds.NAMESPACE:
        found.append(_FINALIZE)
    if kind in _SCALED:
        found.append(SCALE)
    if kind is catalog.POD:
        found += _POD
    if kind is catalog.SERVICE_ACCOUNT:
        found.append(_TOKEN)
    return {one.name: one for one in found}


def review(api_version: str, plural: str) -> Review | None:
    """Return the review that a path names, or None."""
    found = (one for one in REVIEWS if (one.api_version, one.plural) == (api_version, plural))
    return next(found, None)


def versions() -> tuple[str, ...]:
    """Return every group and version that is served; the core group's first."""
    served = {kind.api_version for kind in kinds.known()}
    served |= {one.api_version for one in REVIEWS}
    return tuple(sorted(served, key=lambda version: ("/" in version, version)))


def of_version(api_version: str) -> Iterator[kinds.Kind]:
    """Yield the stored kinds of a group and version."""
    return (kind for kind in kinds.known() if kind.api_version == api_version)
