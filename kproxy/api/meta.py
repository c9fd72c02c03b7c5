"""Metadata that all Kubernetes objects share.

All types are frozen :class:`msgspec.Struct`: decoding them is half the cost of ``json.loads``,
which matters when a restarted proxy lists 10,000 services. Unknown fields are ignored. Decoded
objects are trees, so the garbage collector is told not to look at them (``gc=False``): it would do
so dozens of times while a large list is decoded.
"""

from typing import Any

import msgspec


class Object(msgspec.Struct, frozen=True, kw_only=True, rename="camel", gc=False):
    """Base of all types decoded from Kubernetes JSON: camelCase there, snake_case here."""


class OwnerReference(Object, frozen=True, kw_only=True, rename="camel"):
    """Who owns an object; ``controller`` marks the one that manages it."""

    api_version: str = ""
    kind: str = ""
    name: str = ""
    uid: str = ""
    controller: bool | None = None


class ObjectMeta(Object, frozen=True, kw_only=True, rename="camel"):
    """Name, identity and version of an object (Kubernetes API conventions, "Metadata")."""

    name: str = ""
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    generation: int = 0
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None
    creation_timestamp: str | None = None
    deletion_timestamp: str | None = None
    deletion_grace_period_seconds: int | None = None
    owner_references: list[OwnerReference] | None = None
    finalizers: list[str] | None = None


class LabelSelector(Object, frozen=True, kw_only=True, rename="camel"):
    """``matchLabels`` of a selector; ``matchExpressions`` are refused by validation."""

    match_labels: dict[str, str] | None = None
    match_expressions: list[dict[str, Any]] | None = None


def matches(selector: dict[str, str] | None, labels: dict[str, str] | None) -> bool:
    """Return whether labels satisfy an equality selector; an empty one matches nothing."""
    if not selector:
        return False
    have = labels or {}
    return all(have.get(name) == value for name, value in selector.items())
