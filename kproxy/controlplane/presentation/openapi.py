"""OpenAPI, version 3: an index, and a document for each group and version.

kubectl looks in them for three things: whether the server checks fields itself (the parameter
``fieldValidation``), whether it can do dry runs (``dryRun``), and what ``explain`` shows.
"""

import hashlib
from functools import cache
from typing import Any

import msgspec

from kproxy.api import kinds, shapes

from . import resources, schemas

Object = dict[str, Any]

ROOT = "#/components/schemas/"
VERSION = "v1.31.0+kproxy"

_WRITES = {"post": "POST", "put": "PUT", "patch": "PATCH"}
_PATCH_TYPES = (
    "application/apply-patch+yaml",
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
)


@cache
def index() -> Object:
    """Return where the documents are; their addresses change with their contents."""
    paths = {}
    for version in resources.versions():
        place = f"apis/{version}" if "/" in version else f"api/{version}"
        digest = hashlib.sha256(document(version)).hexdigest()[:32].upper()
        paths[place] = {"serverRelativeURL": f"/openapi/v3/{place}?hash={digest}"}
    return {"paths": paths}


@cache
def document(api_version: str) -> bytes:
    """Return the document of a group and version, as JSON."""
    paths: Object = {}
    for kind in resources.of_version(api_version):
        paths |= operations(kind)
    return msgspec.json.encode(
        {
            "openapi": "3.0.0",
            "info": {"title": "Kubernetes", "version": VERSION},
            "paths": paths,
            "components": {"schemas": dict(schemas.all_of(api_version, ROOT))},
        }
    )


def operations(kind: kinds.Kind) -> Object:
    """Return the paths of a kind, with what each method of them takes."""
    collection = kind.path("{namespace}" if kind.namespaced else "")
    paths: Object = {
        collection: {"get": _operation(kind, "list"), "post": _operation(kind, "post")},
        f"{collection}/{{name}}": {
            "get": _operation(kind, "get"),
            "put": _operation(kind, "put"),
            "patch": _operation(kind, "patch"),
            "delete": _operation(kind, "delete"),
        },
    }
    if resources.has_status(kind):
        paths[f"{collection}/{{name}}/status"] = {
            "get": _operation(kind, "get"),
            "put": _operation(kind, "put"),
            "patch": _operation(kind, "patch"),
        }
    return paths


def query_parameters(action: str) -> tuple[str, ...]:
    """Return the names of the parameters that a method takes in the query."""
    if action in _WRITES:
        return ("dryRun", "fieldManager", "fieldValidation", *(["force"] * (action == "patch")))
    if action == "list":
        return (
            "allowWatchBookmarks",
            "continue",
            "fieldSelector",
            "labelSelector",
            "limit",
            "resourceVersion",
            "resourceVersionMatch",
            "timeoutSeconds",
            "watch",
        )
    if action == "delete":
        return ("dryRun", "gracePeriodSeconds", "propagationPolicy")
    return ()


def _operation(kind: kinds.Kind, action: str) -> Object:
    parameters = [
        {"name": name, "in": "query", "schema": {"type": "string", "uniqueItems": True}}
        for name in query_parameters(action)
    ]
    operation: Object = {
        "parameters": parameters,
        "responses": {"200": {"description": "OK"}},
        "x-kubernetes-action": action,
        "x-kubernetes-group-version-kind": schemas.group_version_kind(kind),
    }
    if action in _WRITES:
        body = {"$ref": ROOT + schemas.definition_name(kind, shapes.of(kind))}
        types = _PATCH_TYPES if action == "patch" else ("application/json",)
        operation["requestBody"] = {"content": {name: {"schema": body} for name in types}}
    return operation
