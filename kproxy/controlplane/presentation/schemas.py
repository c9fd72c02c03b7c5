"""JSON schemas of the served kinds, made from the typed objects and their docstrings."""

from collections.abc import Iterator
from functools import cache
from typing import Any

from kproxy.api import kinds, shapes
from kproxy.api.shapes import Shape

Object = dict[str, Any]

_SIMPLE = ("string", "integer", "number", "boolean")
_UNKNOWN: Object = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
_PARTS = {
    "EnvVar.valueFrom": ("configMapKeyRef", "fieldRef", "resourceFieldRef", "secretKeyRef"),
}
"""What is below fields of which the types know nothing more, but the server fills something in.

There an object differs from what was applied, so kubectl looks into the schema, and warns at every
``apply`` if it does not find the place."""


def definition_name(kind: kinds.Kind, shape: Shape) -> str:
    """Return the name of a type's definition, as Kubernetes forms it: ``io.k8s.api.apps.v1.X``."""
    if shape.name in ("ObjectMeta", "OwnerReference", "LabelSelector"):
        return f"io.k8s.apimachinery.pkg.apis.meta.v1.{shape.name}"
    group, _, version = kind.api_version.rpartition("/")
    short = group.partition(".")[0] or "core"
    return f"io.k8s.api.{short}.{version}.{shape.name}"


@cache
def definitions(kind: kinds.Kind, root: str) -> dict[str, Object]:
    """Return the schemas of a kind and of every type in it; ``root``: where references lead."""
    found: dict[str, Object] = {}
    for shape in shapes.structs(shapes.of(kind)):
        found.setdefault(definition_name(kind, shape), _object(kind, shape, root))
    name = definition_name(kind, shapes.of(kind))
    found[name]["x-kubernetes-group-version-kind"] = [group_version_kind(kind)]
    return found


def group_version_kind(kind: kinds.Kind) -> Object:
    """Return what ``x-kubernetes-group-version-kind`` holds for a kind."""
    group, _, version = kind.api_version.rpartition("/")
    return {"group": group, "version": version, "kind": kind.name}


def _object(kind: kinds.Kind, shape: Shape, root: str) -> Object:
    # What a part is, is told where it is a field; explain would show it twice.
    is_whole = "apiVersion" in shape.fields and "kind" in shape.fields
    schema: Object = {"type": "object"}
    if is_whole:
        schema["description"] = shape.description
    schema["properties"] = {
        name: _field(kind, inner, root) | _parts(f"{shape.name}.{name}")
        for name, inner in shape.fields.items()
    }
    if shape.required:
        schema["required"] = list(shape.required)
    return schema


def _parts(place: str) -> Object:
    parts = _PARTS.get(place)
    return {"properties": {name: {**_UNKNOWN} for name in parts}} if parts else {}


def _field(kind: kinds.Kind, shape: Shape, root: str) -> Object:
    schema = _bare(kind, shape, root)
    if shape.description:
        schema["description"] = shape.description
    if shape.merge_key or shape.is_set or shape.retain_keys:
        words = ["merge"] if shape.merge_key or shape.is_set else []
        words += ["retainKeys"] if shape.retain_keys else []
        schema["x-kubernetes-patch-strategy"] = ",".join(words)
    if shape.merge_key:
        schema["x-kubernetes-patch-merge-key"] = shape.merge_key
    if shape.list_keys:
        schema["x-kubernetes-list-map-keys"] = list(shape.list_keys)
        schema["x-kubernetes-list-type"] = "map"
    elif shape.type == "array":
        schema["x-kubernetes-list-type"] = "set" if shape.is_set else "atomic"
    return schema


def _bare(kind: kinds.Kind, shape: Shape, root: str) -> Object:
    if shape.type in _SIMPLE:
        return {"type": shape.type}
    if shape.type == "int-or-string":
        return {"type": "string", "format": "int-or-string"}
    if shape.type == "object":
        return _reference(root + definition_name(kind, shape), root)
    if shape.type == "array":
        return {"type": "array", "items": _bare(kind, shape.item or shapes.ANY, root)}
    if shape.type == "map":
        inner = _bare(kind, shape.item or shapes.ANY, root)
        return {"type": "object", "additionalProperties": inner}
    return {**_UNKNOWN}


def _reference(target: str, root: str) -> Object:
    # Beside a $ref nothing else counts in OpenAPI 3; a description goes around it.
    if root.startswith("#/components"):
        return {"allOf": [{"$ref": target}]}
    return {"$ref": target}


def all_of(api_version: str, root: str) -> Iterator[tuple[str, Object]]:
    """Yield the definitions of every kind of a group and version."""
    for kind in kinds.known():
        if kind.api_version == api_version:
            yield from definitions(kind, root).items()
