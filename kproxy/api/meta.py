"""Metadata that all Kubernetes objects share.

All types are frozen :class:`msgspec.Struct`: decoding them is half the cost of ``json.loads``,
which matters when a restarted proxy lists 10,000 services. Unknown fields are ignored. Decoded
objects are trees, so the garbage collector is told not to look at them (``gc=False``): it would do
so dozens of times while a large list is decoded.
"""

from collections.abc import Collection, Mapping
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
    """Which labels are wanted: all of ``matchLabels`` and all of ``matchExpressions``."""

    match_labels: dict[str, str] | None = None
    match_expressions: list[dict[str, Any]] | None = None
    """Each with key, operator (In, NotIn, Exists, DoesNotExist) and values."""


OPERATORS = ("In", "NotIn", "Exists", "DoesNotExist")


def matches(selector: Mapping[str, str] | None, labels: Mapping[str, str] | None) -> bool:
    """Return whether labels satisfy an equality selector; an empty one matches nothing."""
    if not selector:
        return False
    have = labels or {}
    return all(have.get(name) == value for name, value in selector.items())


def selects(selector: LabelSelector | None, labels: dict[str, str] | None) -> bool:
    """Return whether labels satisfy a selector: an empty one everything, None nothing."""
    if selector is None:
        return False
    have = labels or {}
    equal = selector.match_labels or {}
    return all(have.get(name) == value for name, value in equal.items()) and all(
        holds(str(rule.get("operator")), have.get(str(rule.get("key"))), rule.get("values") or ())
        for rule in selector.match_expressions or ()
    )


def holds(operator: str, value: str | None, wanted: Collection[str]) -> bool:
    """Return whether a label (None: absent) satisfies one expression; an unknown one never."""
    match operator:
        case "In":
            return value is not None and value in wanted
        case "NotIn":
            return value is None or value not in wanted
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None
    return False
